// Package inputfile reads the files that people name to programs: settings,
// credentials, definitions.
package inputfile

import (
	"crypto/tls"
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a pipe may have no writer: a shell that starts reader and
// writer side by side needs a moment.
const patience = 5 * time.Second

// Read reads a file as os.ReadFile does. A named pipe that nobody has open for writing
// is an error after a few seconds, where os.ReadFile would wait for ever; one that
// has a writer, as a shell's <(command) or a standard input, is read to its end,
// however long that takes.
func Read(path string) ([]byte, error) { return read(path, patience) }

func read(path string, patience time.Duration) ([]byte, error) {
	f, err := open(path, patience)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	return data, nil
}

// KeyPair reads a certificate and its key as tls.LoadX509KeyPair does, and each of
// them as Read does.
func KeyPair(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := Read(certFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := Read(keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, key)
}

// Open is Read for what is read piece by piece. It does not wait: the error about a pipe
// without a writer comes from the first Read.
func Open(path string) (io.ReadCloser, error) { return open(path, patience) }

func open(path string, patience time.Duration) (io.ReadCloser, error) {
	// Without O_NONBLOCK to open a pipe waits for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if st.Mode()&fs.ModeNamedPipe == 0 {
		return f, nil
	}
	named, err := isNamed(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if !named {
		return f, nil
	}
	return &pipe{file: f, until: time.Now().Add(patience)}, nil
}

// isNamed tells a pipe with a name in a file system from a shell's, as <(command)
// and a standard input are: that one had a writer, so that its end is one.
func isNamed(f *os.File) (bool, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return false, err
	}
	var st unix.Statfs_t
	var asked error
	if err := conn.Control(func(fd uintptr) { asked = unix.Fstatfs(int(fd), &st) }); err != nil {
		return false, err
	}
	if asked != nil {
		return false, &fs.PathError{Op: "statfs", Path: f.Name(), Err: asked}
	}
	return st.Type != unix.PIPEFS_MAGIC, nil
}

// pipe is a named pipe of which nothing was read yet, or something was.
type pipe struct {
	file  *os.File
	until time.Time // for the first writer to come
	begun bool
}

// pause is how long a pipe without a writer is left alone.
const pause = 5 * time.Millisecond

// Close implements io.Closer.
func (p *pipe) Close() error { return p.file.Close() }

// Read implements io.Reader. The end of what nobody has written is none: a pipe
// without a writer shows it as well.
func (p *pipe) Read(b []byte) (int, error) {
	for {
		n, err := p.file.Read(b)
		p.begun = p.begun || n > 0
		if p.begun || !errors.Is(err, io.EOF) {
			return n, err
		}
		if !time.Now().Before(p.until) {
			return 0, &fs.PathError{Op: "read", Path: p.file.Name(), Err: errors.New("it is a pipe into which nobody writes")}
		}
		time.Sleep(pause)
	}
}
