package core

import (
	"context"
	"sync"
)

// bus delivers events to subscribers without ever waiting for one.
type bus struct {
	mu     sync.Mutex // guards subs and closed
	subs   map[chan BusEvent]bool
	closed bool
}

func newBus() *bus { return &bus{subs: map[chan BusEvent]bool{}} }

// publish hands the event to every subscriber; one whose buffer is full is cut
// off, so that it notices and starts afresh instead of missing events.
func (b *bus) publish(ev BusEvent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for ch := range b.subs {
		select {
		case ch <- ev:
		default:
			b.remove(ch)
		}
	}
}

// remove needs mu.
func (b *bus) remove(ch chan BusEvent) {
	if b.subs[ch] {
		delete(b.subs, ch)
		close(ch)
	}
}

func (b *bus) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for ch := range b.subs {
		b.remove(ch)
	}
}

func (b *bus) subscribe(ctx context.Context, buffer int) <-chan BusEvent {
	ch := make(chan BusEvent, buffer)
	b.mu.Lock()
	if b.closed {
		close(ch)
	} else {
		b.subs[ch] = true
	}
	b.mu.Unlock()
	context.AfterFunc(ctx, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.remove(ch)
	})
	return ch
}

// Subscribe implements Service.
func (c *Core) Subscribe(ctx context.Context, buffer int) <-chan BusEvent {
	return c.bus.subscribe(ctx, buffer)
}

// Publish puts an event on the bus that arises outside of the core, such as
// api_post_event.
func (c *Core) Publish(ev BusEvent) { c.bus.publish(ev) }
