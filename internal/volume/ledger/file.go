package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

const (
	recordSuffix = ".json"
	tempPrefix   = ".tmp-"
	// maxFile bounds what is read back: a record of a volume with many options
	// is a few kilobytes.
	maxFile = 4 << 20
)

// writeFile replaces dir/name. With durable it returns only when the content
// will survive a power failure; without, a crash leaves the old or the new
// content all the same.
func writeFile(dir, name string, data []byte, durable bool) error {
	s, err := stage(dir, name, data, durable)
	if err != nil {
		return err
	}
	return s.commit()
}

// staged is the new content of a file, written and not yet in its place.
type staged struct {
	dir, name, temp string
	durable         bool
}

// stage writes the content beside the file that it is to replace; commit or
// discard follows. What lacks room or rights fails here.
func stage(dir, name string, data []byte, durable bool) (s staged, err error) {
	f, err := os.CreateTemp(dir, tempPrefix+"*")
	if err != nil {
		return s, err
	}
	s = staged{dir: dir, name: name, temp: f.Name(), durable: durable}
	_, err = f.Write(data)
	if err == nil && durable {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return s, errors.Join(err, s.discard())
	}
	return s, nil
}

// commit puts the content in its place, or discards it.
func (s staged) commit() error {
	if err := os.Rename(s.temp, filepath.Join(s.dir, s.name)); err != nil {
		return errors.Join(err, s.discard())
	}
	if s.durable {
		return syncDir(s.dir)
	}
	return nil
}

func (s staged) discard() error { return ignoreNotExist(os.Remove(s.temp)) }

// appendFile adds to a file with one write; done is false if there is none.
func appendFile(path string, data []byte) (done bool, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, err = f.Write(data)
	return err == nil, errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readFile reads a regular file of bounded size. fs.ErrNotExist if there is
// none.
func readFile(path string) ([]byte, error) {
	// Without O_NONBLOCK a FIFO of that name would hang the caller for ever.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	data := bytes.NewBuffer(make([]byte, 0, min(st.Size(), maxFile)+bytes.MinRead)) // with room for the end to be noticed
	if _, err := data.ReadFrom(io.LimitReader(f, maxFile+1)); err != nil {
		return nil, err
	}
	if data.Len() > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return data.Bytes(), nil
}

// IsUnread says that a file could not be opened or read, for want of
// descriptors, memory or rights, or because the disk failed. What it holds may
// be as good as ever, unlike that of a file of the wrong kind or content.
func IsUnread(err error) bool {
	var at *fs.PathError
	if !errors.As(err, &at) {
		return false
	}
	// A link or a socket in a record's place is no record of ours.
	return !errors.Is(err, syscall.ELOOP) && !errors.Is(err, syscall.ENXIO)
}

func removeFile(path string) error {
	err := ignoreNotExist(os.Remove(path))
	if errors.Is(err, syscall.EROFS) {
		// Read-only file systems say that of what does not exist, too.
		if _, missing := os.Lstat(path); errors.Is(missing, fs.ErrNotExist) {
			return nil
		}
	}
	return err
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// makeDir makes a directory and those above it, each durably in the one above.
func makeDir(path string) error {
	parent := filepath.Dir(path)
	if _, err := os.Stat(parent); errors.Is(err, fs.ErrNotExist) && parent != path {
		if err := makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

// privateDir makes a directory for this user alone and refuses one that others
// could have put there or can write to: what stands in it is obeyed.
func privateDir(path string) error {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeDir(path); err != nil {
			return err
		}
		st, err = os.Stat(path)
	}
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return fmt.Errorf("%s is not a directory", path)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("cannot tell the owner of %s", path)
	}
	if uid := os.Geteuid(); int(sys.Uid) != uid && sys.Uid != 0 {
		return fmt.Errorf("%s belongs to user %d, not to %d; remove it or name another directory", path, sys.Uid, uid)
	}
	if st.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("%s can be written by every user; take that right away with chmod o-w", path)
	}
	return nil
}
