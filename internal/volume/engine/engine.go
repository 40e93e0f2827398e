package engine

import (
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// Config is what an Engine works with. Ledger, Drivers and Mounts are required.
type Config struct {
	Ledger  *ledger.Ledger
	Drivers volume.Drivers
	Mounts  volume.MountTables
	// Neighbours are the other ledgers of this host.
	Neighbours ledger.Neighbours
	// Policy is the agent's policy, nil for none. PolicyErr says that there is
	// one which cannot be read: nothing will be mounted or created then, and
	// everything be unmounted.
	Policy    *Policy
	PolicyErr error
	// Timeouts of single calls to drivers; zero fields take the defaults.
	Timeouts Timeouts
	// Log gets what happens, without secrets. Nil: nothing.
	Log *zap.Logger
	// Fault, if not nil, is called at each FaultPoint: tests crash there.
	Fault func(FaultPoint)
}

// Timeouts bound single calls to a driver. An operation's own deadline (its
// context) may end a call earlier.
type Timeouts struct {
	Create, Remove, Mount, Unmount time.Duration
	// Query is for Get, List, Path and Capabilities.
	Query time.Duration
	// Margin is added to a call's time-out before a driver that never answered
	// is taken to have finished.
	Margin time.Duration
	// Watch is how long a mount that never appeared is looked out for.
	Watch time.Duration
}

// DefaultTimeouts are a minute and a half for Create and Mount and one for the
// rest. Mesos gives a whole mount two minutes: one that follows a call whose
// caller was killed waits for the end of that call, and has time left then.
func DefaultTimeouts() Timeouts {
	return Timeouts{
		Create: 90 * time.Second, Mount: 90 * time.Second,
		Remove: time.Minute, Unmount: time.Minute, Query: time.Minute,
		Margin: 10 * time.Second, Watch: 15 * time.Minute,
	}
}

// over returns t with zero fields taken from base.
func (t Timeouts) over(base Timeouts) Timeouts {
	pick := func(a, b time.Duration) time.Duration {
		if a > 0 {
			return a
		}
		return b
	}
	return Timeouts{
		Create: pick(t.Create, base.Create), Remove: pick(t.Remove, base.Remove),
		Mount: pick(t.Mount, base.Mount), Unmount: pick(t.Unmount, base.Unmount),
		Query: pick(t.Query, base.Query), Margin: pick(t.Margin, base.Margin), Watch: pick(t.Watch, base.Watch),
	}
}

func (t Timeouts) of(op ledger.Op) time.Duration {
	switch op {
	case ledger.OpCreate:
		return t.Create
	case ledger.OpRemove:
		return t.Remove
	case ledger.OpMount:
		return t.Mount
	default:
		return t.Unmount
	}
}

// Engine does volume operations. It is safe for concurrent use; operations on
// different volumes never wait for each other.
type Engine struct {
	ledger     *ledger.Ledger
	drivers    volume.Drivers
	mounts     volume.MountTables
	neighbours ledger.Neighbours
	policy     *Policy
	policyErr  error
	timeouts   Timeouts
	log        *zap.Logger
	fault      func(FaultPoint)
}

// New makes an Engine. It does no I/O.
func New(cfg Config) *Engine {
	e := &Engine{
		ledger: cfg.Ledger, drivers: cfg.Drivers, mounts: cfg.Mounts, neighbours: cfg.Neighbours,
		policy: cfg.Policy, policyErr: cfg.PolicyErr, timeouts: cfg.Timeouts.over(DefaultTimeouts()),
		log: cfg.Log, fault: cfg.Fault,
	}
	if e.policy == nil {
		e.policy = &Policy{}
	}
	if e.log == nil {
		e.log = zap.NewNop()
	}
	if e.fault == nil {
		e.fault = func(FaultPoint) {}
	}
	return e
}

// Ledger is the ledger that the engine works on.
func (e *Engine) Ledger() *ledger.Ledger { return e.ledger }

// Canonical is the key under which a volume is known, by whatever name its driver
// is called.
func (e *Engine) Canonical(key ledger.Key) ledger.Key {
	return ledger.Key{Driver: e.canonical(key.Driver), Volume: key.Volume}
}

// canonical is the one name of a driver.
func (e *Engine) canonical(driver string) string { return canonicalBy(e.drivers)(driver) }

// canonicalBy makes one name of a driver's names, where drivers have several.
func canonicalBy(drivers volume.Drivers) func(string) string {
	if n, ok := drivers.(volume.Namer); ok {
		return n.Canonical
	}
	return func(name string) string { return name }
}

// Holder is somebody for whom volumes are mounted.
type Holder struct {
	// Name is stable over restarts of the holder.
	Name string
	// Person says that a human typed the command: releasing what others hold is
	// then an error instead of a note.
	Person bool
}

// FaultPoint is a place between two steps where a crash must leave no harm.
type FaultPoint string

// The fault points, in the order in which a mount and an unmount pass them.
const (
	FaultLocked       FaultPoint = "locked"
	FaultIntentKept   FaultPoint = "intent-kept"   // intent in the state directory
	FaultIntent       FaultPoint = "intent"        // intent in the run directory
	FaultAnswered     FaultPoint = "answered"      // the driver answered, nothing written
	FaultResultKept   FaultPoint = "result-kept"   // result in the state directory
	FaultResult       FaultPoint = "result"        // result in the run directory
	FaultReleased     FaultPoint = "released"      // unmount's answer written
	FaultDeleted      FaultPoint = "deleted"       // record deleted, lock still held
	FaultKindLearned  FaultPoint = "kind-learned"  // the driver's path kind kept
	FaultHolderChange FaultPoint = "holder-change" // holders of a mount changed
)

// FaultPoints are all of them.
func FaultPoints() []FaultPoint {
	return []FaultPoint{FaultLocked, FaultIntentKept, FaultIntent, FaultAnswered, FaultResultKept,
		FaultResult, FaultReleased, FaultDeleted, FaultKindLearned, FaultHolderChange}
}
