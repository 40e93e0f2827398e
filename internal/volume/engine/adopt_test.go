package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

func TestUnmountIfAsksUnderTheLock(t *testing.T) {
	r := newRig(t, refusing)
	r.mustMount("v")
	e := r.engine()
	key := ledger.Key{Driver: "fake", Volume: "v"}
	request := UnmountRequest{Driver: "fake", Volume: "v", Holder: agent}
	no := errors.New("a container wants it")
	_, err := e.UnmountIf(context.Background(), request, func(rec *ledger.Record) error {
		if rec == nil || rec.Phase != ledger.PhaseMounted {
			t.Errorf("record %+v", rec)
		}
		if entry, err := e.Ledger().TryLock(key); !ledger.IsLocked(err) {
			t.Errorf("not locked: %v, %v", entry, err)
		}
		return no
	})
	if !errors.Is(err, no) {
		t.Errorf("got %v", err)
	}
	r.expect("v", 1, 0)
	res, err := e.UnmountIf(context.Background(), request, func(*ledger.Record) error { return nil })
	if err != nil || !res.Unmounted {
		t.Errorf("%+v, %v", res, err)
	}
	r.clean("v")
	_, err = e.UnmountIf(context.Background(), request, func(rec *ledger.Record) error {
		if rec != nil {
			t.Errorf("record %+v of nothing", rec)
		}
		return no
	})
	if !errors.Is(err, no) {
		t.Errorf("got %v", err)
	}
}

func TestAdoptTakesWhatIsMounted(t *testing.T) {
	r := newRig(t, refusing)
	request := AdoptRequest{Driver: "fake", Volume: "v", Holder: agent}
	res, err := r.engine().Adopt(context.Background(), request)
	if err != nil || res.Adopted || res.Path != "" {
		t.Errorf("nothing mounted: %+v, %v", res, err)
	}
	r.expect("v", 0, 0)

	mounted := r.mustMount("v")
	if res, err := r.engine().Adopt(context.Background(), request); err != nil || res.Adopted || res.Path != mounted.Path {
		t.Errorf("recorded: %+v, %v", res, err)
	}
	// The ledger is lost, the mount is not.
	for _, dir := range []string{r.run, r.state} {
		if err := os.RemoveAll(filepath.Join(dir)); err != nil {
			t.Fatal(err)
		}
	}
	if res, err := r.engine().Adopt(context.Background(), request); err != nil || !res.Adopted || res.Path != mounted.Path {
		t.Errorf("lost: %+v, %v", res, err)
	}
	if list := r.records(); len(list) != 1 || !list[0].Record.HeldBy("agent") || !list[0].Record.Adopted {
		t.Errorf("records %+v", list)
	}
	r.expect("v", 1, 0)
}
