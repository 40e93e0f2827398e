package server

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
)

// disks asks file systems how full they are. There is no way to make the kernel
// give up a question to one whose server hangs: there is at most one for each
// path, left behind with its thread until there is an answer. Safe for concurrent
// use.
type disks struct {
	mu    sync.Mutex          // guards asked
	asked map[string]*diskAsk // questions without an answer
}

// diskAsk is a question under way. answer and err may be read once done is closed.
type diskAsk struct {
	since  time.Time
	done   chan struct{}
	answer unix.Statfs_t
	err    error
}

// ask returns the question that is under way for a path, or a new one.
func (d *disks) ask(path string) *diskAsk {
	d.mu.Lock()
	defer d.mu.Unlock()
	if a := d.asked[path]; a != nil {
		return a
	}
	if d.asked == nil {
		d.asked = map[string]*diskAsk{}
	}
	a := &diskAsk{since: time.Now(), done: make(chan struct{})}
	d.asked[path] = a
	go func() {
		a.err = unix.Statfs(path, &a.answer)
		d.mu.Lock()
		delete(d.asked, path)
		d.mu.Unlock()
		close(a.done)
	}()
	return a
}

// hung is how old a question is that nobody waits for any more.
const hung = 5 * time.Second

// usage completes what is told of a volume.
func (d *disks) usage(ctx context.Context, u *client.VolumeUsage) {
	a := d.ask(u.GetMountPath())
	ctx, cancel := context.WithDeadline(ctx, a.since.Add(hung))
	defer cancel()
	select {
	case <-a.done:
	default:
		select {
		case <-a.done:
		case <-ctx.Done():
			u.Problem = "the file system has not answered since " + a.since.Format(time.RFC3339)
			return
		}
	}
	if a.err != nil {
		u.Problem = fmt.Sprintf("statfs %s: %v", u.GetMountPath(), a.err)
		return
	}
	block := uint64(a.answer.Bsize)
	u.TotalBytes, u.AvailableBytes = a.answer.Blocks*block, a.answer.Bavail*block
	u.UsedBytes = (a.answer.Blocks - a.answer.Bfree) * block
	u.TotalInodes, u.FreeInodes = a.answer.Files, a.answer.Ffree
}
