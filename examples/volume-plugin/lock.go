package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// errLocked says that another process (or another call in this one) holds
// the lock that was asked for.
var errLocked = errors.New("locked by another process")

// fileLock is an exclusive lock that the kernel holds on a file and drops
// when its owner dies, however it dies.
type fileLock struct{ file *os.File }

// tryLock takes the lock on path or returns errLocked at once.
func tryLock(path string) (*fileLock, error) {
	for {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open lock: %w", err)
		}
		if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			_ = file.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("%s: %w", path, errLocked)
			}
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		current, err := isCurrent(file, path)
		if err == nil && current {
			return &fileLock{file: file}, nil
		}
		// The lock's file was removed between open and flock: what we hold
		// protects nothing, the next opener gets another file.
		_ = file.Close()
		if err != nil {
			return nil, err
		}
	}
}

// lock waits for the lock until ctx ends.
func lock(ctx context.Context, path string) (*fileLock, error) {
	wait := time.Millisecond
	for {
		held, err := tryLock(path)
		if !errors.Is(err, errLocked) {
			return held, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w; gave up waiting: %w", err, ctx.Err())
		case <-time.After(wait):
		}
		wait = min(2*wait, 50*time.Millisecond)
	}
}

// unlock lets the next one in. The file stays: removing it is the business of
// remove.
func (l *fileLock) unlock() { _ = l.file.Close() }

// remove deletes the lock's file while the lock is still held.
func (l *fileLock) remove() error { return os.Remove(l.file.Name()) }

func isCurrent(file *os.File, path string) (bool, error) {
	opened, err := file.Stat()
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
	return os.SameFile(opened, named), nil
}
