package server

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Socket is where the API is served.
type Socket struct {
	*net.UnixListener
	// remove takes the socket's file away, if it is this program's.
	remove func() error
}

// Passed is a socket that somebody else opened, and keeps.
func Passed(l *net.UnixListener) *Socket {
	l.SetUnlinkOnClose(false)
	return &Socket{l, func() error { return nil }}
}

// answerPatience is how long a socket that is there may take to be connected to.
const answerPatience = time.Second

// Listen opens the API's socket. One that nobody listens at any more is replaced;
// one at which somebody does is refused, and so is a file that is no socket.
func Listen(path string) (*Socket, error) {
	s, err := listen(path)
	if err != nil {
		return nil, fmt.Errorf("socket of the API: %w", err)
	}
	return s, nil
}

// longest is how long the path of a Unix socket may be (unix(7), sun_path).
const longest = 107

func listen(path string) (*Socket, error) {
	if len(path) > longest {
		return nil, fmt.Errorf("%s has %d bytes and a socket's path at most %d: name a shorter one with --socket", path, len(path), longest)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := makeWay(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	// Another program may have replaced the file when this one ends.
	l.SetUnlinkOnClose(false)
	mine, err := os.Lstat(path)
	if err == nil {
		// Who may connect is decided by the peer's credentials.
		err = os.Chmod(path, 0o666)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &Socket{l, sync.OnceValue(func() error { return removeSame(path, mine) })}, nil
}

// makeWay removes a socket that a program left behind when it died.
func makeWay(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is there and is no socket: remove it, or name another one with --socket", path)
	}
	conn, err := net.DialTimeout("unix", path, answerPatience)
	if err == nil {
		return errors.Join(fmt.Errorf("another process serves %s: stop it, or name another socket with --socket", path), conn.Close())
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("whether another process serves %s cannot be told: %w; remove it, or name another socket with --socket", path, err)
	}
	return removeSame(path, st)
}

// removeSame removes a file unless it is another one by now.
func removeSame(path string, mine os.FileInfo) error {
	st, err := os.Lstat(path)
	if err == nil && os.SameFile(st, mine) {
		err = os.Remove(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Close ends the listening and takes the file away.
func (s *Socket) Close() error {
	return errors.Join(s.remove(), s.UnixListener.Close())
}
