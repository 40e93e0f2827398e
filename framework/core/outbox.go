package core

import (
	"context"
	"sync"
	"time"
)

// call is one call to the master that follows from a committed decision. done,
// if not nil, handles its outcome in the core's goroutine.
type call struct {
	make func(ctx context.Context) error
	done func(tx *txn, err error)
}

// outbox makes the calls to the master in the order in which they were decided,
// one at a time, so that a slow master does not stop the core.
type outbox struct {
	results chan func(tx *txn)

	mu    sync.Mutex // guards queue and busy
	queue []call
	busy  bool
	wake  chan struct{} // has room for one: "queue may have grown"
	idle  chan struct{} // has room for one: "queue became empty"
}

func newOutbox() *outbox {
	return &outbox{
		// Calls go on while the core commits.
		results: make(chan func(tx *txn), 256),
		wake:    make(chan struct{}, 1),
		idle:    make(chan struct{}, 1),
	}
}

// put appends a call; it never blocks.
func (o *outbox) put(c call) {
	o.mu.Lock()
	o.queue = append(o.queue, c)
	o.mu.Unlock()
	signal(o.wake)
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// run makes calls until ctx ends. After the core's loop has ended nobody takes
// results: they are dropped with ctx.
func (o *outbox) run(ctx context.Context) {
	for {
		c, ok := o.next()
		if !ok {
			select {
			case <-o.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		err := c.make(ctx)
		if c.done != nil {
			o.deliver(ctx, func(tx *txn) { c.done(tx, err) })
		}
		o.finished()
	}
}

func (o *outbox) next() (call, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue) == 0 {
		return call{}, false
	}
	c := o.queue[0]
	o.queue[0] = call{}
	o.queue = o.queue[1:]
	o.busy = true
	return c, true
}

func (o *outbox) finished() {
	o.mu.Lock()
	o.busy = false
	empty := len(o.queue) == 0
	o.mu.Unlock()
	if empty {
		signal(o.idle)
	}
}

func (o *outbox) deliver(ctx context.Context, r func(tx *txn)) {
	select {
	case o.results <- r:
	case <-ctx.Done():
	}
}

// drain waits until every call is made, at most for timeout, and not at all once
// lost is closed. Results are dropped: it is called when the core's loop has
// ended.
func (o *outbox) drain(timeout time.Duration, lost <-chan struct{}) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		o.mu.Lock()
		empty := len(o.queue) == 0 && !o.busy
		o.mu.Unlock()
		if empty || closed(lost) {
			return
		}
		select {
		case <-lost:
		case <-o.idle:
		case <-o.results:
		case <-timer.C:
			return
		}
	}
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
