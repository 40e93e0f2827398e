package fence

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// Store keeps leases and registrations, and tells the time; *ledger.Ledger does.
type Store interface {
	BootID() string
	SinceBoot() (time.Duration, error)
	Lease(ledger.Key) ledger.Lease
	SaveLease(key ledger.Key, epoch uint64, expiresBoot time.Duration) error
	Registrations() ([]ledger.Registration, error)
	Registration(ledger.Key) (ledger.Registration, error)
	List() ([]ledger.Listed, error)
}

// Claim is whose lease on a volume it is.
type Claim struct {
	Key       ledger.Key
	Framework string // empty: not known
	Epoch     uint64
}

// Target is what ends the use of a volume on this host.
type Target interface {
	// Fence stops whoever uses the volume, has it unmounted, and returns nil
	// only if nothing of it is left. ErrSuperseded: the claim is not what is
	// registered; nothing was done, and nothing is to be. After another error it
	// is called again.
	Fence(context.Context, Claim) error
	// Fenced writes down that it is done.
	Fenced(context.Context, Claim) error
}

// Config is what a Keeper works with. Store and Target are required.
type Config struct {
	Store  Store
	Target Target
	// Watchdog is nil where there is none.
	Watchdog Watchdog
	// WatchdogTimeout is asked of the watchdog [60s].
	WatchdogTimeout time.Duration
	// Revoking are the drivers whose backend revokes an old attachment.
	Revoking map[string]bool
	// Margin is M of the package comment [10s].
	Margin time.Duration
	// Look is the longest time between two looks at the clock while there are
	// leases: timers stand while the host is suspended [500ms].
	Look time.Duration
	// Changed, if not nil, is called after a lease changed its state.
	Changed func(key ledger.Key, state State)
	Log     *zap.Logger
}

func (c Config) withDefaults() Config {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&c.WatchdogTimeout, time.Minute}, {&c.Margin, 10 * time.Second}, {&c.Look, 500 * time.Millisecond}} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.Changed == nil {
		c.Changed = func(ledger.Key, State) {}
	}
	return c
}

// lock is a mutex for which goroutines wait in a way that testing/synctest knows
// of: what it guards includes calls to the clock and the watchdog, at which tests
// freeze the bridge.
type lock chan struct{}

func (l lock) lock()   { l <- struct{}{} }
func (l lock) unlock() { <-l }

// Keeper holds the leases of one host. Its methods are safe for concurrent use.
// What it does not remember after a crash makes leases shorter, never longer.
type Keeper struct {
	cfg  Config
	boot [bootHash]byte
	kick chan struct{} // something changed that Run should look at
	// changes counts those of the leases' states, the end of leases among them.
	changes atomic.Uint64

	mu     lock // guards all below
	leases map[ledger.Key]*lease
	dog    dog
}

// NewKeeper reads the registrations that have a lease. A lease that cannot be
// found on disk is over: the volume will be fenced. The error tells of
// registrations that cannot be read; the Keeper can be used all the same. What
// has a lease under one of those cannot renew it, and is fenced when it is over.
func NewKeeper(cfg Config) (*Keeper, error) {
	k := &Keeper{cfg: cfg.withDefaults(), boot: hashBoot(cfg.Store.BootID()), kick: make(chan struct{}, 1), mu: make(lock, 1), leases: map[ledger.Key]*lease{}}
	k.dog = dog{device: k.cfg.Watchdog, asked: k.cfg.WatchdogTimeout, timeout: k.cfg.WatchdogTimeout}
	list, err := cfg.Store.Registrations()
	for _, reg := range list {
		if reg.Lease <= 0 || reg.Withdrawn && reg.Fenced {
			continue
		}
		l := &lease{key: reg.Key(), framework: reg.Framework, epoch: reg.Epoch, length: reg.Lease, state: Holding}
		kept := cfg.Store.Lease(l.key)
		switch {
		case reg.Fenced:
			l.state = Fenced
		case kept.Epoch == reg.Epoch:
			l.expires = kept.ExpiresBoot
		}
		l.trust = k.trustOf(reg.Driver)
		if !reg.Trusted {
			l.trust = trust{reason: "nothing enforced it when the volume was mounted"}
		}
		k.leases[l.key] = l
	}
	if err == nil {
		return k, nil
	}
	return k, errors.Join(err, k.keepUnreadable())
}

// keepUnreadable keeps the leases of volumes with a record whose registration
// cannot be read: the lease knows the epoch and its end. The registration may
// have promised that something enforces that. Volumes without a record are not
// mounted, and nothing mounts them under such a registration.
func (k *Keeper) keepUnreadable() error {
	items, err := k.cfg.Store.List()
	if err != nil {
		return err
	}
	for _, item := range items {
		if item.Record == nil {
			continue
		}
		key := item.Record.Key()
		if _, err := k.cfg.Store.Registration(key); err == nil {
			continue
		}
		if kept := k.cfg.Store.Lease(key); kept.Epoch > 0 {
			k.leases[key] = &lease{key: key, epoch: kept.Epoch, expires: kept.ExpiresBoot, trust: k.trustOf(key.Driver), state: Holding}
		}
	}
	return nil
}

// trustOf says what will enforce an expiry, if it can.
func (k *Keeper) trustOf(driver string) trust {
	switch {
	case k.cfg.Revoking[driver]:
		return trust{by: theBackend, reason: "the backend revokes the old attachment"}
	case k.cfg.Watchdog != nil:
		return trust{by: theWatchdog, reason: "a watchdog resets the host"}
	}
	return trust{reason: "no watchdog is configured and the driver's backend revokes nothing"}
}

// arm sees to it that the watchdog runs where it is what enforces an expiry.
// Starting it feeds it too: that must not happen while it shall starve.
func (k *Keeper) arm(t trust, now time.Duration) (trust, error) {
	if t.by != theWatchdog || k.dog.armed && k.dog.broken == nil {
		return t, nil
	}
	if _, over := k.dependents(now); over {
		return t, ErrFencing
	}
	if err := k.dog.arm(); err != nil {
		k.cfg.Log.Error("watchdog cannot be relied upon", zap.Error(err))
		return trust{reason: err.Error()}, nil
	}
	return t, nil
}

// dependents says whether leases depend on the watchdog, and whether it has to
// starve for one that is over.
func (k *Keeper) dependents(now time.Duration) (some, over bool) {
	for _, l := range k.leases {
		if l.trust.by == theWatchdog && l.state != Fenced {
			some = true
			over = over || l.over(now)
		}
	}
	return some, over
}

// Grant makes a lease for a volume that is about to be registered, in force when
// it returns. For an epoch that has a lease it tells the terms and prolongs
// nothing: it may be a message that was delayed. A registration without a lease
// gets none; Registered with the same terms then ends what came before.
//
// ErrFencing: an older epoch's lease is over and not everything that used the
// volume is gone yet. ErrLeased: the epoch has a lease and is to lose it. ErrOver:
// its lease is over and was fenced, which nothing but the lease knows any more.
func (k *Keeper) Grant(reg ledger.Registration) (Terms, error) {
	k.mu.lock()
	defer k.mu.unlock()
	now, err := k.cfg.Store.SinceBoot()
	if err != nil {
		return Terms{}, err
	}
	old := k.leases[reg.Key()]
	same := old != nil && old.epoch == reg.Epoch && old.framework == reg.Framework
	switch {
	case same && reg.Lease == 0:
		return Terms{}, ErrLeased
	case same:
		return k.terms(old, now), nil
	case old != nil && old.over(now):
		return Terms{}, ErrFencing
	case old != nil && old.framework == "" && old.epoch == reg.Epoch && old.state == Fenced:
		return Terms{}, fmt.Errorf("%w; claim the volume anew, under a higher epoch", ErrOver)
	case reg.Lease == 0:
		return Terms{before: old}, nil
	}
	t, err := k.arm(k.trustOf(reg.Driver), now)
	if err != nil {
		return Terms{}, err
	}
	l := &lease{key: reg.Key(), framework: reg.Framework, epoch: reg.Epoch, length: reg.Lease, trust: t}
	// The watchdog took its time: the lease begins after it.
	if now, err = k.cfg.Store.SinceBoot(); err != nil {
		return Terms{}, err
	}
	l.expires = now + l.length
	if err := k.cfg.Store.SaveLease(l.key, l.epoch, l.expires); err != nil {
		return Terms{}, err
	}
	k.leases[l.key] = l
	k.wake()
	out := k.terms(l, now)
	out.granted, out.before = l, old
	return out, nil
}

// Renew prolongs a lease to the time of the basis plus its length; never
// shortens it. ErrNoLease, ErrOver, ErrBasis; the terms are those that hold
// then, where there is a lease.
func (k *Keeper) Renew(framework string, key ledger.Key, epoch uint64, basis []byte) (Terms, error) {
	k.mu.lock()
	defer k.mu.unlock()
	l := k.leases[key]
	if l == nil || l.epoch != epoch || l.framework != framework {
		return Terms{}, ErrNoLease
	}
	now, err := k.cfg.Store.SinceBoot()
	if err != nil {
		return Terms{}, err
	}
	if l.state != Holding || now >= l.expires {
		return k.terms(l, now), ErrOver
	}
	at, err := k.basisTime(basis, now)
	if err != nil {
		return k.terms(l, now), err
	}
	if until := at + l.length; until > l.expires {
		if err := k.cfg.Store.SaveLease(key, epoch, until); err != nil {
			return k.terms(l, now), err
		}
		l.expires = until
	}
	return k.terms(l, now), nil
}

// Registered says that the registration for which Grant gave the terms is
// written down. The lease of an epoch before it ends: what uses the volume does so
// under the new one.
func (k *Keeper) Registered(t Terms) {
	k.mu.lock()
	defer k.mu.unlock()
	if l := t.before; l != nil && k.leases[l.key] == l {
		k.drop(l)
	}
}

// Unregistered says that the registration for which Grant gave the terms came to
// nothing: what was in force before is again. Should the lease of before not be
// written down, nothing mounts under it, and it is fenced as if it were.
func (k *Keeper) Unregistered(t Terms) error {
	k.mu.lock()
	defer k.mu.unlock()
	l := t.granted
	if l == nil || k.leases[l.key] != l {
		return nil // a lease of before was asked for again, or none was
	}
	delete(k.leases, l.key)
	k.wake()
	if t.before == nil {
		return nil
	}
	k.leases[l.key] = t.before
	return k.cfg.Store.SaveLease(t.before.key, t.before.epoch, t.before.expires)
}

// drop ends a lease; one that is being fenced when that is over. The caller holds
// the mutex.
func (k *Keeper) drop(l *lease) {
	if l.dropped = l.working; !l.dropped {
		delete(k.leases, l.key)
		k.changes.Add(1)
		k.wake()
	}
}

// Drop ends the lease of an epoch without fencing: nothing of it is left, or its
// registration came to nothing.
func (k *Keeper) Drop(key ledger.Key, epoch uint64) {
	k.mu.lock()
	defer k.mu.unlock()
	if l := k.leases[key]; l != nil && l.epoch == epoch {
		k.drop(l)
	}
}

// Terms tells of a volume's lease; false if it has none.
func (k *Keeper) Terms(key ledger.Key) (Terms, bool) {
	k.mu.lock()
	defer k.mu.unlock()
	l := k.leases[key]
	now, err := k.cfg.Store.SinceBoot()
	if l == nil || err != nil {
		return Terms{}, false
	}
	return k.terms(l, now), true
}

// Changes is a number that grows with each change of a lease's state: whoever tells
// of the states asks for them again when it has.
func (k *Keeper) Changes() uint64 { return k.changes.Load() }

// Counts tells how many leases are in each state.
func (k *Keeper) Counts() map[State]int {
	k.mu.lock()
	defer k.mu.unlock()
	out := map[State]int{Holding: 0, Fencing: 0, Fenced: 0}
	for _, l := range k.leases {
		out[l.state]++
	}
	return out
}

func (k *Keeper) terms(l *lease, now time.Duration) Terms {
	t := Terms{Lease: l.length, Trusted: l.trust.by != nobody, Reason: l.trust.reason, State: l.state, Basis: k.basis(now)}
	switch {
	case l.trust.by == theBackend:
		t.Grace = k.cfg.Margin
	case l.trust.by == theWatchdog:
		t.Grace = feedsAfterLease*k.dog.timeout + k.cfg.Margin
		if k.dog.broken != nil {
			t.Trusted, t.Reason = false, k.dog.broken.Error()
		}
	}
	if l.problem != "" {
		t.Reason += "; " + l.problem
	}
	return t
}

func (k *Keeper) wake() {
	select {
	case k.kick <- struct{}{}:
	default: // Run will look anyway
	}
}

// Run watches over the leases until ctx ends; then it waits for the fencing that
// is under way to stop. While leases depend on the watchdog that goes on
// running: the next bridge has to start within its time-out.
func (k *Keeper) Run(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	told := ""
	for {
		idle, err := k.look(ctx, &work)
		if err == nil {
			told = ""
		} else if told != err.Error() {
			told = err.Error()
			k.cfg.Log.Error("leases not looked after", zap.Error(err))
		}
		if timer.Stop(); !idle {
			timer.Reset(k.cfg.Look)
		}
		select {
		case <-ctx.Done():
			return k.stop()
		case <-k.kick:
		case <-timer.C:
		}
	}
}

// look does what is due and says whether there is nothing to come back for
// before something changes.
func (k *Keeper) look(ctx context.Context, work *sync.WaitGroup) (idle bool, err error) {
	k.mu.lock()
	defer k.mu.unlock()
	now, err := k.cfg.Store.SinceBoot()
	if err != nil {
		return false, err
	}
	for _, l := range k.leases {
		if l.state == Holding && now >= l.expires {
			l.state = Fencing
			k.cfg.Log.Warn("lease is over, stopping the users of the volume", zap.String("driver", l.key.Driver),
				zap.String("volume", l.key.Volume), zap.Uint64("epoch", l.epoch), zap.String("framework", l.framework))
			k.changes.Add(1)
			k.cfg.Changed(l.key, Fencing)
		}
		if l.state == Fencing && !l.working {
			l.working = true
			work.Go(func() { k.fence(ctx, l) })
		}
	}
	if err := k.tend(now); err != nil {
		return false, err
	}
	return len(k.leases) == 0 && !k.dog.armed, nil
}

// tend feeds the watchdog, lets it starve, or stops it when no lease depends on
// it. One that another bridge left running is taken over.
func (k *Keeper) tend(now time.Duration) error {
	switch some, over := k.dependents(now); {
	case !some:
		return k.dog.disarm()
	case over:
		return nil // the host is reset unless fencing comes to its end first
	case !k.dog.armed:
		return k.dog.arm()
	}
	return k.dog.feed(now)
}

// The pause between two attempts to fence.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
)

// fence works on one lease until nothing of the volume is left.
func (k *Keeper) fence(ctx context.Context, l *lease) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		claim := Claim{Key: l.key, Framework: l.framework, Epoch: l.epoch}
		err := k.cfg.Target.Fence(ctx, claim)
		if err == nil {
			err = k.cfg.Target.Fenced(ctx, claim)
		}
		if k.fenced(l, err) {
			return
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

// fenced notes the outcome of an attempt and says whether that was the last.
func (k *Keeper) fenced(l *lease, err error) bool {
	k.mu.lock()
	defer k.mu.unlock()
	fields := []zap.Field{zap.String("driver", l.key.Driver), zap.String("volume", l.key.Volume), zap.Uint64("epoch", l.epoch)}
	if errors.Is(err, ErrSuperseded) {
		l.working = false
		k.drop(l)
		k.cfg.Log.Info("lease ended without a fence", append(fields, zap.Error(err))...)
		return true
	}
	if err != nil {
		if l.problem != err.Error() && !errors.Is(err, context.Canceled) {
			k.cfg.Log.Warn("volume not fenced yet", append(fields, zap.Error(err))...)
		}
		l.problem = err.Error()
		return false
	}
	l.state, l.problem, l.working = Fenced, "", false
	if l.dropped {
		delete(k.leases, l.key)
	}
	k.cfg.Log.Warn("volume fenced", fields...)
	k.changes.Add(1)
	k.cfg.Changed(l.key, Fenced)
	k.wake()
	return true
}

// stop leaves the watchdog to the next bridge, or stops it.
func (k *Keeper) stop() error {
	k.mu.lock()
	defer k.mu.unlock()
	now, err := k.cfg.Store.SinceBoot()
	if err != nil {
		return err
	}
	if err := k.tend(now); err != nil {
		return err
	}
	if k.dog.armed {
		k.cfg.Log.Warn("watchdog left running for leases that depend on it: start the bridge again before it resets the host",
			zap.Duration("timeout", k.dog.timeout))
	}
	return nil
}
