package hostmount

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// A path whose file system hangs costs few threads, however often it is looked
// at, and no other path waits for it; when it answers again so do the looks.
func TestLooksAtAHungPathAreFew(t *testing.T) {
	hang := make(chan struct{})
	var under, most atomic.Int32
	c := &Cached{Tables: &Tables{look: func(path string) (volume.PathFacts, error) {
		n := under.Add(1)
		defer under.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if path == "/hung" {
			<-hang
		}
		return volume.PathFacts{Resolved: path}, nil
	}}}
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
			defer cancel()
			if _, err := c.Stat(ctx, "/hung"); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := most.Load(); n > looksPerPath {
		t.Errorf("%d looks at once", n)
	}
	if facts, err := c.Stat(context.Background(), "/other"); err != nil || facts.Resolved != "/other" {
		t.Errorf("%+v, %v", facts, err)
	}
	close(hang)
	if facts, err := c.Stat(context.Background(), "/hung"); err != nil || facts.Resolved != "/hung" {
		t.Errorf("%+v, %v", facts, err)
	}
	if _, err := c.Stat(context.Background(), "relative"); err == nil {
		t.Error("a relative path")
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		c.looks.mu.Lock()
		left := len(c.looks.paths)
		c.looks.mu.Unlock()
		if left == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d paths are never forgotten", left)
		}
	}
}
