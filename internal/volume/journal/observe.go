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

// told makes a call to a driver that answers with a T, and tells of it when it is
// over.
func told[T any](d *observed, kind string, call func() (T, error)) (T, error) {
	start := time.Now()
	answer, err := call()
	d.ended(Call{Driver: d.Name(), Kind: kind, Outcome: outcomeOf(err), Took: time.Since(start)})
	return answer, err
}

// toldOnly is told for a call that answers with nothing but its error.
func toldOnly(d *observed, kind string, call func() error) error {
	_, err := told(d, kind, func() (struct{}, error) { return struct{}{}, call() })
	return err
}

// Capabilities implements volume.Driver.
func (d *observed) Capabilities(ctx context.Context) (volume.Capabilities, error) {
	return told(d, kindCapabilities, func() (volume.Capabilities, error) { return d.Driver.Capabilities(ctx) })
}

// Create implements volume.Driver.
func (d *observed) Create(ctx context.Context, req volume.CreateRequest) (volume.Volume, error) {
	return told(d, kindCreate, func() (volume.Volume, error) { return d.Driver.Create(ctx, req) })
}

// Remove implements volume.Driver.
func (d *observed) Remove(ctx context.Context, ref volume.Ref) error {
	return toldOnly(d, kindRemove, func() error { return d.Driver.Remove(ctx, ref) })
}

// Get implements volume.Driver.
func (d *observed) Get(ctx context.Context, ref volume.Ref) (volume.Volume, error) {
	return told(d, kindGet, func() (volume.Volume, error) { return d.Driver.Get(ctx, ref) })
}

// List implements volume.Driver.
func (d *observed) List(ctx context.Context) ([]volume.Volume, error) {
	return told(d, kindList, func() ([]volume.Volume, error) { return d.Driver.List(ctx) })
}

// Path implements volume.Driver.
func (d *observed) Path(ctx context.Context, ref volume.Ref) (string, error) {
	return told(d, kindPath, func() (string, error) { return d.Driver.Path(ctx, ref) })
}

// Mount implements volume.Driver.
func (d *observed) Mount(ctx context.Context, req volume.MountRequest) (volume.Mounted, error) {
	return told(d, kindMount, func() (volume.Mounted, error) { return d.Driver.Mount(ctx, req) })
}

// Unmount implements volume.Driver.
func (d *observed) Unmount(ctx context.Context, req volume.UnmountRequest) error {
	return toldOnly(d, kindUnmount, func() error { return d.Driver.Unmount(ctx, req) })
}
