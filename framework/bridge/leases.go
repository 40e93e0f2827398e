package bridge

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// leaseKey names a lease.
type leaseKey struct {
	agentID string
	key     scheduler.VolumeKey
	epoch   uint64
}

func keyOfLease(e core.Epoch) leaseKey { return leaseKey{e.AgentID, e.Key, e.Number} }

// lease is one that the core holds or once held.
type lease struct {
	epoch core.Epoch
	clock *client.Lease
	// held says that it is to be renewed; stop ends the renewals.
	held bool
	stop context.CancelFunc
}

// renewalsPerLease is how often within its length a lease is renewed: two may be
// lost.
const renewalsPerLease = 3

// granted takes the terms of a lease that was just registered.
func (h *Hub) granted(e core.Epoch, f *client.Fence) core.LeaseTerms {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	l := h.leases[keyOfLease(e)]
	if l == nil {
		l = &lease{epoch: e, clock: client.NewLease(f, now)}
		h.leases[keyOfLease(e)] = l
	} else {
		l.clock.Answered(f, now)
	}
	length, grace, trusted := l.clock.Terms()
	return core.LeaseTerms{Lease: length, Grace: grace, Trusted: trusted}
}

// known returns a lease, one of an earlier process as that may have left it.
// The caller holds the mutex.
func (h *Hub) known(e core.Epoch) *lease {
	l := h.leases[keyOfLease(e)]
	if l == nil {
		l = &lease{epoch: e, clock: client.AssumeLease(e.Terms.Lease, e.Terms.Grace, e.Terms.Trusted, time.Now())}
		h.leases[keyOfLease(e)] = l
	}
	return l
}

// Hold implements core.Bridges.
func (h *Hub) Hold(frameworkID string, leases []core.Epoch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ctx.Err() != nil {
		return
	}
	wanted := map[leaseKey]bool{}
	for _, e := range leases {
		wanted[keyOfLease(e)] = true
		l := h.known(e)
		if l.held {
			continue
		}
		l.held = true
		ctx, stop := context.WithCancel(h.ctx)
		l.stop = stop
		h.work.Go(func() { h.renew(ctx, frameworkID, l) })
	}
	for key, l := range h.leases {
		if wanted[key] {
			continue
		}
		if l.held {
			l.held = false
			l.stop()
		}
		if at, _ := l.clock.Over(); time.Since(at) > forgetLease {
			delete(h.leases, key)
		}
	}
}

// forgetLease is how long after its end a lease is remembered that nobody asks
// for: one that is asked for later counts from then.
const forgetLease = time.Hour

// LeaseOver implements core.Bridges.
func (h *Hub) LeaseOver(e core.Epoch) (at time.Time, trusted bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.known(e).clock.Over()
}

// renew renews one lease until ctx ends.
func (h *Hub) renew(ctx context.Context, frameworkID string, l *lease) {
	told := ""
	for {
		pause := l.clock.Length() / renewalsPerLease
		if problem := h.renewOnce(ctx, frameworkID, l, pause); problem != told && ctx.Err() == nil {
			if told = problem; problem != "" {
				h.cfg.Log.Warn("lease not renewed", zap.String("driver", l.epoch.Key.Driver), zap.String("volume", l.epoch.Key.Name),
					zap.String("agent", l.epoch.AgentID), zap.Uint64("epoch", l.epoch.Number), zap.String("problem", problem))
			}
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// leadLost says that another process may lead.
func (h *Hub) leadLost() bool {
	select {
	case <-h.cfg.Lost:
		return true
	default:
		return false
	}
}

func (h *Hub) renewOnce(ctx context.Context, frameworkID string, l *lease, patience time.Duration) (problem string) {
	api, err := h.api(l.epoch.AgentID)
	if err != nil {
		return err.Error()
	}
	call, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	h.mu.Lock()
	if !l.held || ctx.Err() != nil || h.leadLost() {
		h.mu.Unlock()
		return ""
	}
	// From here on the lease may last as long as this renewal makes it.
	basis := l.clock.Quote()
	h.mu.Unlock()
	out, err := api.Renew(call, &client.RenewRequest{FrameworkId: frameworkID,
		Renewals: []*client.Renewal{{Volume: nameOf(l.epoch.Key), Epoch: l.epoch.Number, Basis: basis}}})
	if err != nil {
		return err.Error()
	}
	if len(out.Leases) != 1 {
		return "the bridge answered for another number of leases"
	}
	l.clock.Answered(out.Leases[0].Fence, time.Now())
	if basis == nil {
		return "" // the first after a restart only fetches a basis
	}
	return out.Leases[0].Problem
}
