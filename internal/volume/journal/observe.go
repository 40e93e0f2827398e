package journal

import (
	"context"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// Call is a call to a driver that has come to its end, as far as its caller is
// concerned.
type Call struct {
	Driver string
	// Kind is one of Kinds, Outcome one of Outcomes.
	Kind, Outcome string
	Took          time.Duration
}

// The kinds of calls: those of volume.Driver, and Open.
const (
	KindOpen         = "open"
	kindCapabilities = "capabilities"
	kindCreate       = "create"
	kindRemove       = "remove"
	kindGet          = "get"
	kindList         = "list"
	kindPath         = "path"
	kindMount        = "mount"
	kindUnmount      = "unmount"
)

// Kinds are all kinds of calls.
func Kinds() []string {
	return []string{KindOpen, kindCapabilities, kindCreate, kindRemove, kindGet, kindList, kindPath, kindMount, kindUnmount}
}

const (
	outcomeOK     = "ok"
	outcomeFailed = "failed" // in a way that has no name of its own
)

// outcomes names the kinds of failure that tell an operator different things.
var outcomes = [...]struct {
	kind volume.Kind
	name string
}{
	{volume.NotFound, "not_found"}, {volume.AlreadyExists, "already_exists"}, {volume.Refused, "refused"},
	{volume.Unsupported, "unsupported"}, {volume.DriverUnreachable, "unreachable"}, {volume.Unsettled, "unsettled"},
}

// Outcomes are all outcomes of calls.
func Outcomes() []string {
	out := []string{outcomeOK, outcomeFailed}
	for _, o := range outcomes {
		out = append(out, o.name)
	}
	return out
}

func outcomeOf(err error) string {
	if err == nil {
		return outcomeOK
	}
	kind := volume.KindOf(err)
	for _, o := range outcomes {
		if o.kind == kind {
			return o.name
		}
	}
	return outcomeFailed
}

// Observe returns drivers of which each call is told to ended when it is over,
// by the goroutine of the call. An Open is told only if it fails, and not at all
// for a name that no driver has: that may be anybody's mistake, and there is no
// end of names. What inner and its drivers can do besides (volume.Namer,
// volume.Served) the result can do, too; where they cannot, it knows nothing:
// every name is its own, and no process is known.
func Observe(inner volume.Drivers, ended func(Call)) volume.Drivers {
	return &observedDrivers{inner, ended}
}

type observedDrivers struct {
	volume.Drivers
	ended func(Call)
}

// Canonical implements volume.Namer.
func (d *observedDrivers) Canonical(name string) string {
	if n, ok := d.Drivers.(volume.Namer); ok {
		return n.Canonical(name)
	}
	return name
}

// Open implements volume.Drivers.
func (d *observedDrivers) Open(ctx context.Context, name string) (volume.Driver, error) {
	start := time.Now()
	inner, err := d.Drivers.Open(ctx, name)
	if err == nil {
		return &observed{inner, d.ended}, nil
	}
	if volume.KindOf(err) != volume.DriverUnknown {
		d.ended(Call{Driver: name, Kind: KindOpen, Outcome: outcomeOf(err), Took: time.Since(start)})
	}
	return nil, err
}

type observed struct {
	volume.Driver
	ended func(Call)
}

// ServerPID implements volume.Served.
func (d *observed) ServerPID() int {
	if s, ok := d.Driver.(volume.Served); ok {
		return s.ServerPID()
	}
	return 0
}

// over tells of a call that began at start.
func (d *observed) over(kind string, start time.Time, err error) {
	d.ended(Call{Driver: d.Name(), Kind: kind, Outcome: outcomeOf(err), Took: time.Since(start)})
}

// Capabilities implements volume.Driver.
func (d *observed) Capabilities(ctx context.Context) (volume.Capabilities, error) {
	start := time.Now()
	c, err := d.Driver.Capabilities(ctx)
	d.over(kindCapabilities, start, err)
	return c, err
}

// Create implements volume.Driver.
func (d *observed) Create(ctx context.Context, req volume.CreateRequest) (volume.Volume, error) {
	start := time.Now()
	v, err := d.Driver.Create(ctx, req)
	d.over(kindCreate, start, err)
	return v, err
}

// Remove implements volume.Driver.
func (d *observed) Remove(ctx context.Context, ref volume.Ref) error {
	start := time.Now()
	err := d.Driver.Remove(ctx, ref)
	d.over(kindRemove, start, err)
	return err
}

// Get implements volume.Driver.
func (d *observed) Get(ctx context.Context, ref volume.Ref) (volume.Volume, error) {
	start := time.Now()
	v, err := d.Driver.Get(ctx, ref)
	d.over(kindGet, start, err)
	return v, err
}

// List implements volume.Driver.
func (d *observed) List(ctx context.Context) ([]volume.Volume, error) {
	start := time.Now()
	v, err := d.Driver.List(ctx)
	d.over(kindList, start, err)
	return v, err
}

// Path implements volume.Driver.
func (d *observed) Path(ctx context.Context, ref volume.Ref) (string, error) {
	start := time.Now()
	path, err := d.Driver.Path(ctx, ref)
	d.over(kindPath, start, err)
	return path, err
}

// Mount implements volume.Driver.
func (d *observed) Mount(ctx context.Context, req volume.MountRequest) (volume.Mounted, error) {
	start := time.Now()
	v, err := d.Driver.Mount(ctx, req)
	d.over(kindMount, start, err)
	return v, err
}

// Unmount implements volume.Driver.
func (d *observed) Unmount(ctx context.Context, req volume.UnmountRequest) error {
	start := time.Now()
	err := d.Driver.Unmount(ctx, req)
	d.over(kindUnmount, start, err)
	return err
}
