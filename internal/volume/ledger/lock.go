package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// FileLock is a lock held by the kernel for an open file: it ends with Unlock
// or with the process, however that dies.
type FileLock struct {
	file *os.File
	path string // of a file that may be removed; empty for none
}

// errLocked says that somebody else has the lock.
var errLocked = errors.New("locked by another process")

// IsLocked says that a lock was not taken because somebody else has it.
func IsLocked(err error) bool { return errors.Is(err, errLocked) }

// TryLockFile takes the lock at path, creating the file, or returns at once
// with an error for which IsLocked holds.
func TryLockFile(path string) (*FileLock, error) { return tryLock(path, filepath.Dir(path)) }

// tryLock is TryLockFile; instead is a directory that is locked where a lock file
// is missing on a file system that became read-only.
func tryLock(path, instead string) (*FileLock, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		named, removable := path, path
		if errors.Is(err, unix.EROFS) {
			named, f, err = openReadOnly(path, instead)
			removable = ""
		}
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			if errors.Is(err, unix.EWOULDBLOCK) {
				err = errLocked
			}
			return nil, errors.Join(err, f.Close())
		}
		// The holder before us may have removed the file; a lock on a file that
		// has no name any more keeps nobody out.
		same, err := sameFile(f, named)
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if same {
			return &FileLock{file: f, path: removable}, nil
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
}

// openReadOnly opens a lock file of a file system that became read-only, or else
// the directory.
func openReadOnly(path, instead string) (named string, f *os.File, err error) {
	for _, named = range []string{path, instead} {
		if f, err = os.OpenFile(named, os.O_RDONLY|unix.O_NOFOLLOW, 0); err == nil {
			break
		}
	}
	return named, f, err
}

func sameFile(f *os.File, path string) (bool, error) {
	mine, err := f.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return os.SameFile(mine, named), nil
}

// lockFile waits for the lock until ctx ends. flock(2) knows no time-out, so it
// asks again at growing, random intervals of a few milliseconds.
func lockFile(ctx context.Context, path, instead string) (*FileLock, error) {
	pause := time.Millisecond
	for {
		l, err := tryLock(path, instead)
		if err == nil || !IsLocked(err) {
			return l, err
		}
		timer := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("waiting for %s: %w", filepath.Base(path), ctx.Err())
		case <-timer.C:
		}
		pause = min(pause*2, 16*time.Millisecond)
	}
}

// Unlock releases the lock. The file stays.
func (l *FileLock) Unlock() error { return l.file.Close() }

// Discard releases the lock and takes its file away, for locks that are needed
// rarely.
func (l *FileLock) Discard() error { return l.unlockAndRemove() }

// unlockAndRemove releases the lock and takes its file away, for records that
// are gone.
func (l *FileLock) unlockAndRemove() error {
	if l.path == "" {
		return l.file.Close()
	}
	return errors.Join(removeFile(l.path), l.file.Close())
}
