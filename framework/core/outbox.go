package core

import (
	"context"
	"slices"
	"sync"
	"time"
)

// call is one call to the master that follows from a committed decision. done,
// if not nil, handles its outcome in the core's goroutine.
type call struct {
	make func(ctx context.Context) error
	done func(tx *txn, err error)
	// agent, where it is set, says that the call is about this agent alone:
	// calls about other agents may overtake it.
	agent string
}

// outbox makes the calls to the master in the order in which they were decided,
// so that a slow master does not stop the core. Calls about different agents are
// made at the same time, since neither the master nor the agents keep an order
// among them; a call about no agent in particular is made alone, after all that
// were decided before it.
type outbox struct {
	results chan func(tx *txn)
	atOnce  int // how many calls are made at the same time

	mu    sync.Mutex // guards queue and busy
	queue []call
	busy  []string      // the agents that calls are being made about, "" for none
	wake  chan struct{} // has room for one: "something may be made now"
	idle  chan struct{} // has room for one: "nothing is left to make"
}

func newOutbox(atOnce int) *outbox {
	return &outbox{
		// Calls go on while the core commits.
		results: make(chan func(tx *txn), 256),
		atOnce:  atOnce,
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

// run makes calls until ctx ends and those under way have. After the core's loop
// has ended nobody takes results: they are dropped with ctx.
func (o *outbox) run(ctx context.Context) {
	var calls sync.WaitGroup
	defer calls.Wait()
	for {
		if c, ok := o.next(); ok {
			calls.Go(func() { o.perform(ctx, c) })
			continue
		}
		select {
		case <-o.wake:
		case <-ctx.Done():
			return
		}
	}
}

func (o *outbox) perform(ctx context.Context, c call) {
	err := c.make(ctx)
	if c.done != nil {
		o.deliver(ctx, func(tx *txn) { c.done(tx, err) })
	}
	o.finished(c)
}

// lookahead bounds how far a call about an idle agent is looked for.
const lookahead = 256

// next takes the first call of the queue that may be made now.
func (o *outbox) next() (call, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.busy) >= o.atOnce || slices.Contains(o.busy, "") {
		return call{}, false
	}
	for i := range o.queue[:min(len(o.queue), lookahead)] {
		c := o.queue[i]
		switch {
		case c.agent == "" && len(o.busy)+i > 0:
			return call{}, false // after all that is before it
		case slices.Contains(o.busy, c.agent):
			continue
		}
		copy(o.queue[1:i+1], o.queue[:i])
		o.queue[0] = call{}
		o.queue = o.queue[1:]
		o.busy = append(o.busy, c.agent)
		return c, true
	}
	return call{}, false
}

func (o *outbox) finished(c call) {
	o.mu.Lock()
	i := slices.Index(o.busy, c.agent)
	o.busy = slices.Delete(o.busy, i, i+1)
	o.mu.Unlock()
	signal(o.wake)
	if o.empty() {
		signal(o.idle)
	}
}

func (o *outbox) empty() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.queue) == 0 && len(o.busy) == 0
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
	for !o.empty() && !closed(lost) {
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
