package fence

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// look begins a look at all processes.
func (h *Host) look(s *subject, server int, copies bool) *looking {
	return &looking{host: h, subject: s, copies: copies, spare: server, tables: map[string]seenTable{}, inherited: map[string]inheritance{}}
}

// inheritance is what a mount namespace has of a subject because it was made, by
// unshare(2) or clone(2), while the subject was mounted, and does not take part in
// unmounts. It keeps the file system alive, although nobody there asked for it.
type inheritance struct {
	pid    int // a process of the namespace
	places []string
}

// detach takes the mounts away in that namespace. It does so on a thread of its
// own, which enters the namespace and ends there.
func (i inheritance) detach() error {
	done := make(chan error)
	go func() {
		// Not unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		done <- i.detachHere()
	}()
	return <-done
}

func (i inheritance) detachHere() error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", i.pid))
	if err != nil {
		if ended(err) {
			return nil // the next look tells whether another process is there
		}
		return err
	}
	defer ns.Close()
	// A thread that shares its working directory with others cannot change its
	// mount namespace (setns(2)).
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("setns: %w", err)
	}
	// What is mounted in it, or over it, goes first.
	for _, place := range slices.Backward(i.places) {
		if err := unix.Unmount(place, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", place, err)
		}
	}
	return nil
}
