package link

import "sync"

// Queue is an unbounded mailbox: Put never blocks, so that two parties that
// write to each other cannot deadlock. It is safe for concurrent use.
type Queue[T any] struct {
	mu     sync.Mutex // guards items and closed
	items  []T
	closed bool
	ready  chan struct{}
}

// NewQueue returns an empty open queue.
func NewQueue[T any]() *Queue[T] {
	return &Queue[T]{ready: make(chan struct{}, 1)}
}

// Put appends an item; it reports false, and drops the item, once the queue is
// closed.
func (q *Queue[T]) Put(item T) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.items = append(q.items, item)
	q.signal()
	return true
}

// Ready receives a value when Take may have something new to tell: items, or
// the end of the queue. One consumer at a time.
func (q *Queue[T]) Ready() <-chan struct{} { return q.ready }

// Take returns everything that is queued, oldest first. Open is false when the
// queue is closed: these were the last items.
func (q *Queue[T]) Take() (items []T, open bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	items, q.items = q.items, nil
	return items, !q.closed
}

// Close ends the queue; what is in it can still be taken. Closing twice is
// harmless.
func (q *Queue[T]) Close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	q.closed = true
	q.signal()
}

// signal needs mu.
func (q *Queue[T]) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}
