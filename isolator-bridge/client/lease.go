package client

import (
	"sync"
	"time"
)

// driftPerMille stretches a lease by what the clocks of two hosts may differ: a
// thousand millionths each. See the arithmetic in isolator-bridge/fence.
const driftPerMille = 2

// Lease tells its holder when a lease on another host is over whatever that host
// does. It is safe for concurrent use. Times must carry Go's monotonic reading,
// which the time of day does not reach: the clock may be set at any time.
type Lease struct {
	mu sync.Mutex // guards all
	// length and grace as told by the bridge, the longest ever.
	length, grace time.Duration
	trusted       bool
	// quoted is when the newest basis that was ever quoted had been received.
	quoted time.Time
	// basis is to be quoted next; received is when it came.
	basis    []byte
	received time.Time
}

// NewLease is the lease that a Registered told of, received at a time. The
// bridge began it before that.
func NewLease(f *Fence, received time.Time) *Lease {
	l := &Lease{quoted: received}
	l.Answered(f, received)
	return l
}

// AssumeLease is a lease that was registered by a process before this one:
// whatever that had quoted last, it did so before now.
func AssumeLease(length, grace time.Duration, trusted bool, now time.Time) *Lease {
	return &Lease{length: length, grace: grace, trusted: trusted, quoted: now}
}

// Quote returns the basis for a renewal that is about to be sent, nil if none is
// known. From now on the lease may last as long as that renewal makes it, even if
// no answer comes.
func (l *Lease) Quote() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.basis != nil && l.received.After(l.quoted) {
		l.quoted = l.received
	}
	return l.basis
}

// Answered takes the answer to a registration or renewal, received at a time.
func (l *Lease) Answered(f *Fence, received time.Time) {
	if f == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.length = max(l.length, f.GetLease().AsDuration())
	l.grace = max(l.grace, f.GetGrace().AsDuration())
	l.trusted = f.Trusted
	if f.State == Fence_HOLDS {
		l.basis, l.received = f.Basis, received
	}
}

// Over tells when nothing that was mounted under the lease writes any more,
// provided that nothing is quoted from now on. Trusted is false where only the
// other host's software enforces that: then it must not be relied upon.
func (l *Lease) Over() (at time.Time, trusted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	span := l.length + l.grace
	return l.quoted.Add(span + span*driftPerMille/1000), l.trusted
}

// Length is how long one renewal lasts.
func (l *Lease) Length() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.length
}

// Terms are what AssumeLease needs after a restart.
func (l *Lease) Terms() (length, grace time.Duration, trusted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.length, l.grace, l.trusted
}
