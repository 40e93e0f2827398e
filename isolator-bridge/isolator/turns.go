package isolator

import (
	"context"
	"sync"
)

// turns lets one goroutine at a time work on a container.
type turns struct {
	mu   sync.Mutex // guards busy
	busy map[string]chan struct{}
}

// take waits for the turn until ctx ends and returns what ends the turn.
func (t *turns) take(ctx context.Context, owner, id string) (done func(), err error) {
	name := owner + "\x00" + id
	for {
		t.mu.Lock()
		if t.busy == nil {
			t.busy = map[string]chan struct{}{}
		}
		other, taken := t.busy[name]
		if !taken {
			mine := make(chan struct{})
			t.busy[name] = mine
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				delete(t.busy, name)
				t.mu.Unlock()
				close(mine)
			}, nil
		}
		t.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
