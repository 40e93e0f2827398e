package hostmount

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// Cached is Tables for programs that look at the same mount table thousands of
// times: it reads the caller's table again only when the kernel says that it
// has changed. It is never out of date: the kernel marks the open table with
// each change of the namespace before the mount or unmount returns
// (proc_pid_mounts(5): poll(2) reports POLLERR and POLLPRI).
type Cached struct {
	*Tables
	looks looks

	mu sync.Mutex // guards all below
	// watch is a bare descriptor: an os.File would be polled by the runtime too,
	// and each change is told to one poll only.
	watch int
	table volume.MountTable
	valid bool
	// generation counts the tables that were read.
	generation uint64
}

var _ volume.MountTables = (*Cached)(nil)

// NewCached returns the mount tables of this host. Close releases it.
func NewCached() (*Cached, error) {
	fd, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("watch the mount table: %w", err)
	}
	return &Cached{Tables: New(), watch: fd}, nil
}

// Close stops watching.
func (c *Cached) Close() error { return unix.Close(c.watch) }

// Own implements volume.MountTables. Callers share the answer and must not
// change it.
func (c *Cached) Own(ctx context.Context) (volume.MountTable, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.refresh(ctx); err != nil {
		return volume.MountTable{}, err
	}
	return c.table, nil
}

// Generation is a number that changes when the mount table does.
func (c *Cached) Generation(ctx context.Context) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.refresh(ctx)
	return c.generation, err
}

// refresh needs mu. The mark is taken before the table is read, so that a
// change in between is seen the next time.
func (c *Cached) refresh(ctx context.Context) error {
	changed, err := c.changed()
	if err != nil {
		return err
	}
	if c.valid && !changed {
		return nil
	}
	c.valid = false
	table, err := c.Tables.Own(ctx)
	if err != nil {
		return err
	}
	c.table, c.valid = table.Indexed(), true
	c.generation++
	return nil
}

// changed needs mu. It takes the mark away.
func (c *Cached) changed() (bool, error) {
	fds := []unix.PollFd{{Fd: int32(c.watch), Events: unix.POLLPRI}}
	for {
		n, err := unix.Poll(fds, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("watch the mount table: %w", err)
		}
		return n > 0 && fds[0].Revents&(unix.POLLPRI|unix.POLLERR) != 0, nil
	}
}
