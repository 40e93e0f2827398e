package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/docker/go-plugins-helpers/volume"
	"golang.org/x/sys/unix"
)

// serve answers calls on the socket until ctx ends, then finishes those under
// way and removes the socket.
func serve(ctx context.Context, socket string, d volume.Driver) error {
	listener, err := listen(socket)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- volume.NewHandler(d).Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", socket, errors.Join(err, listener.Close()))
	case <-ctx.Done():
	}
	err = listener.Close() // removes the socket's file
	<-served
	listener.drain()
	return err
}

// longestSocket is what fits into sockaddr_un (unix(7)).
const longestSocket = 107

// listen opens the socket. One that a dead process left behind is replaced;
// one that is answered is somebody else's.
func listen(socket string) (*drainingListener, error) {
	if len(socket) > longestSocket {
		return nil, fmt.Errorf("socket %s: the path has %d bytes, the system allows %d; choose a shorter --socket", socket, len(socket), longestSocket)
	}
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	listener, err := net.Listen("unix", socket)
	if errors.Is(err, unix.EADDRINUSE) {
		info, statErr := os.Lstat(socket)
		if statErr != nil || info.Mode().Type() != os.ModeSocket {
			return nil, errors.Join(fmt.Errorf("socket: %s exists and is no socket; choose another --socket", socket), statErr)
		}
		conn, dialErr := net.Dial("unix", socket)
		if dialErr == nil {
			_ = conn.Close()
			return nil, fmt.Errorf("socket %s is served by another process; stop it or choose another --socket", socket)
		}
		if !errors.Is(dialErr, unix.ECONNREFUSED) {
			return nil, fmt.Errorf("socket %s is in the way: %w", socket, dialErr)
		}
		if err := os.Remove(socket); err != nil {
			return nil, fmt.Errorf("socket: %w", err)
		}
		listener, err = net.Listen("unix", socket)
	}
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := os.Chmod(socket, 0o660); err != nil {
		return nil, errors.Join(fmt.Errorf("socket: %w", err), listener.Close())
	}
	return &drainingListener{Listener: listener, open: map[*drainingConn]struct{}{}}, nil
}

// drainingListener knows its connections. The plugin library can only be
// stopped by closing the listener, which would cut the answers under way.
type drainingListener struct {
	net.Listener

	mu       sync.Mutex // guards open and draining
	open     map[*drainingConn]struct{}
	draining bool
	conns    sync.WaitGroup
}

// Accept implements net.Listener.
func (l *drainingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &drainingConn{Conn: conn, listener: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[c] = struct{}{}
	l.conns.Add(1)
	if l.draining {
		return c, conn.SetReadDeadline(time.Now())
	}
	return c, nil
}

// drain lets running requests finish, takes no new ones, and returns when all
// connections are closed.
func (l *drainingListener) drain() {
	l.mu.Lock()
	l.draining = true
	for c := range l.open {
		_ = c.Conn.SetReadDeadline(time.Now())
	}
	l.mu.Unlock()
	l.conns.Wait()
}

type drainingConn struct {
	net.Conn
	listener *drainingListener
	once     sync.Once
}

// SetReadDeadline implements net.Conn. The HTTP server clears the deadline
// between requests; while draining, the next read has to fail.
func (c *drainingConn) SetReadDeadline(t time.Time) error {
	c.listener.mu.Lock()
	defer c.listener.mu.Unlock()
	if c.listener.draining {
		return nil
	}
	return c.Conn.SetReadDeadline(t)
}

// Close implements net.Conn.
func (c *drainingConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.listener.mu.Lock()
		delete(c.listener.open, c)
		c.listener.mu.Unlock()
		c.listener.conns.Done()
	})
	return err
}
