package journal

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// plain answers every call with an error, or none.
type plain struct{ err error }

func (d plain) Name() string                                  { return "one" }
func (d plain) Traits() volume.Traits                         { return volume.Traits{} }
func (d plain) List(context.Context) ([]volume.Volume, error) { return nil, d.err }
func (d plain) Capabilities(context.Context) (volume.Capabilities, error) {
	return volume.Capabilities{}, d.err
}
func (d plain) Create(context.Context, volume.CreateRequest) (volume.Volume, error) {
	return volume.Volume{}, d.err
}
func (d plain) Remove(context.Context, volume.Ref) error { return d.err }
func (d plain) Get(context.Context, volume.Ref) (volume.Volume, error) {
	return volume.Volume{}, d.err
}
func (d plain) Path(context.Context, volume.Ref) (string, error) { return "", d.err }
func (d plain) Mount(context.Context, volume.MountRequest) (volume.Mounted, error) {
	return volume.Mounted{}, d.err
}
func (d plain) Unmount(context.Context, volume.UnmountRequest) error { return d.err }

// served knows its process.
type served struct{ plain }

func (served) ServerPID() int { return 42 }

// source is where drivers are found.
type source struct {
	driver volume.Driver
	err    error
}

func (s source) Open(context.Context, string) (volume.Driver, error) { return s.driver, s.err }
func (source) List(context.Context) ([]volume.DriverInfo, error)     { return nil, nil }

type namingSource struct{ source }

func (namingSource) Canonical(name string) string { return name + "!" }

// Every call is told once, under its kind and outcome, and its error comes
// through.
func TestObserve(t *testing.T) {
	ctx := context.Background()
	failures := map[volume.Kind]string{"": "ok", volume.NotFound: "not_found", volume.AlreadyExists: "already_exists", volume.Refused: "refused",
		volume.Unsupported: "unsupported", volume.DriverUnreachable: "unreachable", volume.Unsettled: "unsettled", volume.Deadline: "failed"}
	for kind, outcome := range failures {
		var cause error
		if kind != "" {
			cause = &volume.Error{Kind: kind}
		}
		var told []Call
		d, err := Observe(source{driver: plain{cause}}, func(c Call) { told = append(told, c) }).Open(ctx, "one")
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name string
			err  error
		}{
			{"capabilities", second(d.Capabilities(ctx))}, {"create", second(d.Create(ctx, volume.CreateRequest{}))}, {"remove", d.Remove(ctx, volume.Ref{})},
			{"get", second(d.Get(ctx, volume.Ref{}))}, {"list", second(d.List(ctx))}, {"path", second(d.Path(ctx, volume.Ref{}))},
			{"mount", second(d.Mount(ctx, volume.MountRequest{}))}, {"unmount", d.Unmount(ctx, volume.UnmountRequest{})},
		} {
			if !errors.Is(c.err, cause) {
				t.Errorf("%s changed the error: %v", c.name, c.err)
			}
			if len(told) == 0 || told[0].Driver != "one" || told[0].Kind != c.name || told[0].Outcome != outcome {
				t.Errorf("%s with %q is told as %+v", c.name, kind, told)
				continue
			}
			told = told[1:]
		}
		if len(told) > 0 {
			t.Errorf("told more: %+v", told)
		}
		if !slices.Contains(Outcomes(), outcome) {
			t.Errorf("%s is no outcome", outcome)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// An Open that fails is told, except for names that nobody has.
func TestObserveOpen(t *testing.T) {
	for _, c := range []struct {
		err  error
		told int
	}{{&volume.Error{Kind: volume.DriverUnreachable}, 1}, {&volume.DriverUnknownError{Driver: "x"}, 0}} {
		told := 0
		if _, err := Observe(source{err: c.err}, func(Call) { told++ }).Open(context.Background(), "x"); !errors.Is(err, c.err) || told != c.told {
			t.Errorf("%v, told %d times", err, told)
		}
	}
}

// What drivers can do besides is not lost, and nothing is made up.
func TestObservedKeepWhatTheyCan(t *testing.T) {
	none := func(Call) {}
	for want, inner := range map[string]volume.Drivers{"x!": namingSource{}, "x": source{}} {
		if got := Observe(inner, none).(volume.Namer).Canonical("x"); got != want {
			t.Errorf("the drivers' name is %s, want %s", got, want)
		}
	}
	for want, d := range map[int]volume.Driver{42: served{}, 0: plain{}} {
		got, err := Observe(source{driver: d}, none).Open(context.Background(), "x")
		if err != nil {
			t.Fatal(err)
		}
		if pid := got.(volume.Served).ServerPID(); pid != want {
			t.Errorf("served by %d, want %d", pid, want)
		}
	}
}
