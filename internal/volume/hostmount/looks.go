package hostmount

import (
	"context"
	"fmt"
	"sync"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// looksPerPath is how many looks at one path may be under way. One at a file
// system whose server hangs keeps a thread until there is an answer; programs that
// run long would run out of them.
const looksPerPath = 4

// looks bounds the looks at each path. Its zero value is ready; it is safe for
// concurrent use.
type looks struct {
	mu    sync.Mutex // guards paths, and what is in them but the channels
	paths map[string]*pathLooks
}

type pathLooks struct {
	// slots has an element for each look under way.
	slots chan struct{}
	// wanted counts looks that are under way or wait for that.
	wanted int
}

// begin waits until a look at path may begin and returns what ends it.
func (l *looks) begin(ctx context.Context, path string) (end func(), err error) {
	l.mu.Lock()
	if l.paths == nil {
		l.paths = map[string]*pathLooks{}
	}
	p := l.paths[path]
	if p == nil {
		p = &pathLooks{slots: make(chan struct{}, looksPerPath)}
		l.paths[path] = p
	}
	p.wanted++
	l.mu.Unlock()
	select {
	case p.slots <- struct{}{}:
		return func() {
			<-p.slots
			l.leave(path, p)
		}, nil
	case <-ctx.Done():
		l.leave(path, p)
		return nil, ctx.Err()
	}
}

func (l *looks) leave(path string, p *pathLooks) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.wanted--; p.wanted == 0 {
		delete(l.paths, path)
	}
}

// Stat implements volume.MountTables as Tables does, with few looks at one path
// at a time.
func (c *Cached) Stat(ctx context.Context, path string) (volume.PathFacts, error) {
	end, err := c.looks.begin(ctx, path)
	if err != nil {
		return volume.PathFacts{}, fmt.Errorf("stat %s: the file system there does not answer: %w", path, err)
	}
	return c.stat(ctx, path, end)
}
