package engine

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// stepper is a driver of several steps, as CSI and FlexVolume are: it gives
// volumes an id and a context, attaches before it mounts, needs back at unmount
// what attaching gave, and mounts where it is told.
type stepper struct {
	host     *host
	attached map[string]bool // by backend id
	// failMount makes the step after attaching fail, kill ends the process there.
	failMount, kill bool
	unmounts        []volume.UnmountRequest
	refs            []volume.Ref
	t               *testing.T
}

func (s *stepper) Name() string { return "steps" }
func (s *stepper) Traits() volume.Traits {
	return volume.Traits{Kind: "steps", CallerChoosesTarget: true}
}
func (s *stepper) Capabilities(context.Context) (volume.Capabilities, error) {
	return volume.Capabilities{}, nil
}
func (s *stepper) Create(_ context.Context, q volume.CreateRequest) (volume.Volume, error) {
	return volume.Volume{Ref: volume.Ref{Name: q.Name, BackendID: "id-" + q.Name, Context: map[string]string{"pool": "p"}}}, nil
}
func (s *stepper) Get(_ context.Context, ref volume.Ref) (volume.Volume, error) {
	s.refs = append(s.refs, ref)
	if ref.BackendID == "" {
		return volume.Volume{}, &volume.Error{Kind: volume.NotFound}
	}
	return volume.Volume{Ref: volume.Ref{Name: ref.Name}}, nil
}
func (s *stepper) List(context.Context) ([]volume.Volume, error) { return nil, nil }
func (s *stepper) Path(context.Context, volume.Ref) (string, error) {
	return "", &volume.Error{Kind: volume.Unsupported}
}
func (s *stepper) Remove(_ context.Context, ref volume.Ref) error {
	s.refs = append(s.refs, ref)
	return nil
}

func (s *stepper) Mount(_ context.Context, q volume.MountRequest) (volume.Mounted, error) {
	s.attached[q.Volume.BackendID] = true
	device := map[string]string{"device": "/dev/" + q.Volume.BackendID}
	if err := q.Checkpoint(device); err != nil {
		return volume.Mounted{}, err
	}
	if s.kill {
		panic(crashed{})
	}
	if s.failMount {
		return volume.Mounted{}, &volume.Error{Kind: volume.Unsettled, Message: "time-out"}
	}
	if err := os.Mkdir(q.Target, 0o700); err != nil {
		s.t.Error(err) // the parent is there, the target is not
	}
	s.host.mount(q.Target, q.Volume.BackendID)
	return volume.Mounted{Path: q.Target}, nil
}

func (s *stepper) Unmount(_ context.Context, q volume.UnmountRequest) error {
	s.unmounts = append(s.unmounts, q)
	s.host.umount(q.Target)
	delete(s.attached, q.Volume.BackendID)
	return nil
}

func newStepper(t *testing.T) (*rig, *stepper) {
	r := newRig(t, idempotent)
	s := &stepper{host: r.host, attached: map[string]bool{}, t: t}
	r.drivers.known["fake"] = s
	return r, s
}

// checkUnmount looks at what the driver got back.
func (s *stepper) checkUnmount(t *testing.T, target string) {
	t.Helper()
	if len(s.unmounts) != 1 {
		t.Fatalf("%d unmounts", len(s.unmounts))
	}
	q := s.unmounts[0]
	if q.Volume.BackendID != "id-v" || q.Volume.Context["pool"] != "p" || q.Target != target || q.ID == "" ||
		!maps.Equal(q.PublishContext, map[string]string{"device": "/dev/id-v"}) {
		t.Errorf("unmount %+v", q)
	}
	if len(s.attached) != 0 {
		t.Errorf("attached: %v", s.attached)
	}
	if _, err := os.Lstat(target); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("target left behind: %v", err)
	}
}

func TestDriverOfSteps(t *testing.T) {
	r, s := newStepper(t)
	res := r.mustMount("v")
	if filepath.Dir(filepath.Dir(res.Path)) != r.run {
		t.Errorf("target %q", res.Path)
	}
	r.mustUnmount("v")
	s.checkUnmount(t, res.Path)
	// The id outlives mounts and reboots, and ends with the volume.
	r.reboot(false)
	r.mustMount("v")
	if last := s.refs[len(s.refs)-1]; last.BackendID != "id-v" || last.Context["pool"] != "p" {
		t.Errorf("after a reboot: %+v", last)
	}
	r.mustUnmount("v")
	if err := r.engine().Remove(context.Background(), RemoveRequest{Driver: "fake", Volume: "v"}); err != nil {
		t.Fatal(err)
	}
	if last := s.refs[len(s.refs)-1]; last.BackendID != "id-v" {
		t.Errorf("remove: %+v", last)
	}
	if _, err := r.engine().Get(context.Background(), "fake", "v"); !errors.Is(err, volume.NotFound) {
		t.Errorf("get after remove: %v", err)
	}
}

// Killed, or without an answer, after attaching and before mounting: the Unmount
// that settles it knows what was attached.
func TestDriverOfStepsInterrupted(t *testing.T) {
	for _, kill := range []bool{true, false} {
		r, s := newStepper(t)
		s.kill, s.failMount = kill, true
		if kill {
			if !r.crash("none", 1, func() { _, _ = r.mount("v") }) {
				t.Fatal("not killed")
			}
		} else if _, err := r.mount("v"); !errors.Is(err, volume.Unsettled) {
			t.Fatal(err)
		}
		s.kill, s.failMount = false, false
		r.clock.advance(longAfter)
		rec := r.records()[0].Record
		r.mustUnmount("v")
		if len(s.unmounts) == 0 {
			t.Fatal("left attached")
		}
		s.checkUnmount(t, rec.Target)
	}
}
