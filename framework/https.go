package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/config"
	"github.com/mesos-dvdi/dvdi/internal/volume/inputfile"
)

// listenAll opens the API's ports: for HTTP, HTTPS or both. The address of the
// listener is that of HTTP, where that is served.
func listenAll(cfg *config.Config) (net.Listener, error) {
	if cfg.HTTPSCert == "" {
		return listen(cfg.HTTPListen(), "--http_port")
	}
	keys := &keyPair{cert: cfg.HTTPSCert, key: cfg.HTTPSKey}
	if _, err := keys.get(nil); err != nil {
		return nil, &config.Error{Err: err}
	}
	secure, err := listen(cfg.HTTPSListen(), "--https_port")
	if err != nil {
		return nil, err
	}
	secure = tls.NewListener(secure, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: keys.get})
	if cfg.DisableHTTP {
		return secure, nil
	}
	plain, err := listen(cfg.HTTPListen(), "--http_port")
	if err != nil {
		return nil, errors.Join(err, secure.Close())
	}
	return merge(plain, secure), nil
}

// keyPair is a certificate with its key, read again when its file changes, so
// that renewing one needs no restart.
type keyPair struct {
	cert, key string

	mu      sync.Mutex // guards all below
	current *tls.Certificate
	changed time.Time
}

// get implements tls.Config.GetCertificate. A pair that cannot be read any more
// does not take the place of one that could be.
func (k *keyPair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	info, err := os.Stat(k.cert)
	if err == nil && k.current != nil && info.ModTime().Equal(k.changed) {
		return k.current, nil
	}
	var pair tls.Certificate
	if err == nil {
		pair, err = inputfile.KeyPair(k.cert, k.key)
	}
	switch {
	case err == nil:
		k.current, k.changed = &pair, info.ModTime()
	case k.current == nil:
		return nil, fmt.Errorf("--ssl_cert, --ssl_key: %w", err)
	}
	return k.current, nil
}

// merged accepts what arrives at several listeners.
type merged struct {
	net.Listener // the first: its address
	all          []net.Listener
	conns        chan accepted
	closed       chan struct{}
	once         sync.Once
	err          error // of closing
	wg           sync.WaitGroup
}

type accepted struct {
	conn net.Conn
	err  error
}

func merge(first net.Listener, more ...net.Listener) *merged {
	m := &merged{Listener: first, all: append([]net.Listener{first}, more...), conns: make(chan accepted), closed: make(chan struct{})}
	for _, l := range m.all {
		m.wg.Go(func() { m.accept(l) })
	}
	return m
}

// accept hands on connections until its listener is closed.
func (m *merged) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		select {
		case m.conns <- accepted{conn, err}:
		case <-m.closed:
			if conn != nil {
				_ = conn.Close() // nobody has used it
			}
			return
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// Accept implements net.Listener.
func (m *merged) Accept() (net.Conn, error) {
	select {
	case a := <-m.conns:
		return a.conn, a.err
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener: it closes all and waits for their goroutines.
func (m *merged) Close() error {
	m.once.Do(func() {
		close(m.closed)
		for _, l := range m.all {
			m.err = errors.Join(m.err, l.Close())
		}
		m.wg.Wait()
	})
	return m.err
}
