package fence_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
)

// simClaim is what a framework keeps on disk of its claim.
type simClaim struct {
	host          *simHost
	epoch         uint64
	launched      bool
	length, grace time.Duration
	trusted       bool
}

// simFramework is one process of a framework that keeps one task running.
type simFramework struct {
	world *world
	disk  *simDisk
	dead  chan struct{}
	// cheat ends a claim this much before its lease is over.
	cheat time.Duration

	lease    *client.Lease
	renewed  time.Time // last attempt
	answered time.Time // last answer
	leaving  bool      // the claim is being given up
	why      string    // why it has not ended yet
}

// simDisk outlives a framework's process.
type simDisk struct {
	claim *simClaim
	epoch uint64
}

// run is the framework's life.
func (f *simFramework) run() {
	if c := f.disk.claim; c != nil {
		if !c.launched {
			f.disk.claim = nil // nobody was told to mount
		} else {
			f.lease = client.AssumeLease(c.length, c.grace, c.trusted, time.Now())
			f.answered = time.Now()
		}
	}
	for f.alive() {
		switch c := f.disk.claim; {
		case c == nil:
			f.place()
		case f.leaving:
			f.leave(c)
		default:
			f.hold(c)
		}
		select {
		case <-f.dead:
		case <-f.world.over:
		case <-time.After(250 * time.Millisecond):
		}
	}
}

func (f *simFramework) alive() bool {
	select {
	case <-f.dead:
		return false
	case <-f.world.over:
		return false
	default:
		return true
	}
}

// place registers and launches on some host.
func (f *simFramework) place() {
	host := f.world.hosts[rand.N(len(f.world.hosts))]
	f.disk.epoch++
	c := &simClaim{host: host, epoch: f.disk.epoch}
	f.disk.claim, f.leaving = c, false
	reg, err := call(f, host, func(ctx context.Context, b *simBridge) (*client.Registered, error) {
		return b.server.Register(ctx, &client.RegisterRequest{FrameworkId: "f", Volume: simName, Epoch: c.epoch, Lease: durationpb.New(simLease)})
	})
	if !f.alive() {
		return
	}
	if err != nil {
		f.disk.claim = nil
		return
	}
	f.lease = client.NewLease(reg.Fence, time.Now())
	f.renewed, f.answered = time.Now(), time.Now()
	c.length, c.grace, c.trusted = f.lease.Terms()
	c.launched = true
	f.world.setClaimed(host)
	f.world.note(fmt.Sprintf("epoch %d to %s, trusted %v", c.epoch, host.name, c.trusted))
	send(f, host, func() { host.launch(c.epoch) })
}

var simName = &client.VolumeName{Driver: simVolume.Driver, Name: simVolume.Volume}

// hold renews, until the host is silent for longer than the lease or the task
// is to move.
func (f *simFramework) hold(c *simClaim) {
	if rand.N(100) == 0 {
		f.leaving = true
		send(f, c.host, c.host.halt)
		return
	}
	if time.Since(f.renewed) < simLease/3 {
		return
	}
	f.renewed = time.Now()
	basis := f.lease.Quote() // as of now: the call may arrive much later
	out, err := call(f, c.host, func(ctx context.Context, b *simBridge) (*client.Renewed, error) {
		return b.server.Renew(ctx, &client.RenewRequest{FrameworkId: "f", Renewals: []*client.Renewal{{Volume: simName, Epoch: c.epoch, Basis: basis}}})
	})
	if err == nil {
		f.answered = time.Now()
		f.lease.Answered(out.Leases[0].Fence, time.Now())
		c.length, c.grace, c.trusted = f.lease.Terms()
		if out.Leases[0].Fence == nil || out.Leases[0].Fence.State != client.Fence_HOLDS {
			f.leaving = true
		}
	}
	if time.Since(f.answered) > simLease {
		f.leaving = true
	}
}

// leave gives the claim up when the bridge says that nothing is left, or when
// an expiry that can be trusted is over.
func (f *simFramework) leave(c *simClaim) {
	out, err := call(f, c.host, func(ctx context.Context, b *simBridge) (*client.Withdrawn, error) {
		return b.server.Withdraw(ctx, &client.WithdrawRequest{FrameworkId: "f", Volume: simName, Epoch: c.epoch})
	})
	if !f.alive() {
		return
	}
	if err == nil && out.Released {
		f.end(c, &f.world.released, "released")
		return
	}
	why := fmt.Sprint(err)
	if err == nil {
		why = out.Reason
		send(f, c.host, c.host.halt)
	}
	if why != f.why {
		f.why = why
		f.world.note(fmt.Sprintf("epoch %d stays: %s", c.epoch, why))
	}
	at, trusted := f.lease.Over()
	switch {
	case time.Now().Before(at.Add(-f.cheat)):
	case trusted:
		f.end(c, &f.world.fenced, "fenced")
	case f.cheat > 0:
		f.end(c, &f.world.distrust, "moved without trust")
	}
}

func (f *simFramework) end(c *simClaim, counter *int, how string) {
	f.world.note(fmt.Sprintf("epoch %d ends: %s", c.epoch, how))
	f.world.mu.Lock()
	*counter++
	f.world.claimed = nil
	f.world.mu.Unlock()
	f.disk.claim = nil
}

var errLost = errors.New("no answer")

// callTimeout is how long the framework waits for an answer.
const callTimeout = 2 * time.Second

// call is a call over the network. What was sent may be lost, or arrive when the
// network is whole again, long after the caller gave up.
func call[T any](f *simFramework, h *simHost, do func(context.Context, *simBridge) (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	back := make(chan answer, 1)
	send(f, h, func() {
		h.mu.Lock()
		b := h.bridge
		h.mu.Unlock()
		if b == nil || b.enter() != nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		value, err := do(ctx, b)
		if b.enter() != nil || !h.transmit() {
			return
		}
		back <- answer{value, err}
	})
	var none T
	select {
	case a := <-back:
		return a.value, a.err
	case <-f.dead:
	case <-f.world.over:
	case <-time.After(callTimeout):
	}
	return none, errLost
}

// send delivers something to a host, if the network does.
func send(f *simFramework, h *simHost, deliver func()) {
	f.world.wg.Go(func() {
		if h.transmit() {
			deliver()
		}
	})
}

// transmit is the way of a message; false if it is lost.
func (h *simHost) transmit() bool {
	h.mu.Lock()
	cut, latency := h.partition, h.latency
	h.mu.Unlock()
	if cut != nil {
		if rand.N(2) == 0 {
			return false
		}
		select { // kept in some buffer
		case <-cut:
		case <-h.world.over:
			return false
		}
	}
	return h.world.sleep(rand.N(20*time.Millisecond) + rand.N(latency+1))
}
