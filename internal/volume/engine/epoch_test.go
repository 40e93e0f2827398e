package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

var theVolume = ledger.Key{Driver: "fake", Volume: "v"}

func (r *rig) register(epoch uint64, lease time.Duration) error {
	r.t.Helper()
	_, err := r.engine().Register(context.Background(),
		ledger.Registration{Driver: "fake", Volume: "v", Framework: "f", Epoch: epoch, Lease: lease}, nil)
	return err
}

func (r *rig) withdraw(framework string, epoch uint64) (Remains, error) {
	r.t.Helper()
	return r.engine().Withdraw(context.Background(), framework, theVolume, epoch)
}

func (r *rig) lease(epoch uint64, last time.Duration) {
	r.t.Helper()
	if err := r.engine().Ledger().SaveLease(theVolume, epoch, r.clock.at+last); err != nil {
		r.t.Fatal(err)
	}
}

// TestEpochs is the table of which mounts a registration lets pass.
func TestEpochs(t *testing.T) {
	for _, c := range []struct {
		name     string
		register uint64
		lease    time.Duration
		state    string // "", "withdrawn", "expired", "fenced"
		options  []string
		admitted bool
		under    uint64
	}{
		{"nothing registered, no epoch", 0, 0, "", nil, true, 0},
		{"nothing registered, an epoch", 0, 0, "", []string{"dvdi.epoch=9"}, true, 0},
		{"nothing registered, a fence asked for", 0, 0, "", []string{"dvdi.epoch=9", "dvdi.lease=30s"}, false, 0},
		{"its own epoch", 5, 0, "", []string{"dvdi.epoch=5"}, true, 5},
		{"its own epoch, a fence asked for that was not registered", 5, 0, "", []string{"dvdi.epoch=5", "dvdi.lease=30s"}, false, 0},
		{"an older epoch", 5, 0, "", []string{"dvdi.epoch=4"}, false, 0},
		{"an epoch nobody registered", 5, 0, "", []string{"dvdi.epoch=6"}, true, 0},
		{"no epoch", 5, 0, "", nil, true, 0},
		{"withdrawn, its own epoch", 5, 0, "withdrawn", []string{"dvdi.epoch=5"}, false, 0},
		{"withdrawn, no epoch", 5, 0, "withdrawn", nil, false, 0},
		{"withdrawn, an epoch nobody registered", 5, 0, "withdrawn", []string{"dvdi.epoch=6"}, false, 0},
		{"leased, its own epoch", 5, time.Minute, "", []string{"dvdi.epoch=5", "dvdi.lease=1m"}, true, 5},
		{"leased, no epoch", 5, time.Minute, "", nil, false, 0},
		{"leased, an epoch nobody registered", 5, time.Minute, "", []string{"dvdi.epoch=6"}, false, 0},
		{"lease over", 5, time.Minute, "expired", []string{"dvdi.epoch=5"}, false, 0},
		{"fenced", 5, time.Minute, "fenced", []string{"dvdi.epoch=5"}, false, 0},
		{"no number", 0, 0, "", []string{"dvdi.epoch=x"}, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, idempotent)
			if c.register > 0 {
				if err := r.register(c.register, c.lease); err != nil {
					t.Fatal(err)
				}
				r.lease(c.register, time.Minute)
			}
			switch c.state {
			case "withdrawn":
				if _, err := r.withdraw("f", c.register); err != nil {
					t.Fatal(err)
				}
			case "expired":
				r.clock.advance(time.Minute)
			case "fenced":
				if err := r.engine().MarkFenced(context.Background(), theVolume, c.register); err != nil {
					t.Fatal(err)
				}
			}
			_, err := r.mount("v", c.options...)
			if (err == nil) != c.admitted {
				t.Fatalf("mount: %v", err)
			}
			if err != nil {
				if kind := volume.KindOf(err); kind != volume.OutdatedEpoch && kind != volume.Invalid {
					t.Errorf("error %v", err)
				}
				if n := r.plugin.made("mount", "v") + r.plugin.made("create", "v"); n > 0 {
					t.Error("the driver was asked")
				}
				return
			}
			if got := r.records()[0].Record.Epoch; got != c.under {
				t.Errorf("mounted under epoch %d, want %d", got, c.under)
			}
		})
	}
}

// A registration and a withdrawal are for good: also after a reboot, and for a
// volume that is mounted by then.
func TestRegistrationOutlivesReboot(t *testing.T) {
	r := newRig(t, idempotent)
	if err := r.register(5, time.Minute); err != nil {
		t.Fatal(err)
	}
	r.lease(5, time.Hour)
	r.mustMount("v", "dvdi.epoch=5")
	r.clock.boot++
	r.host.umount("/vol/v")
	if _, err := r.mount("v", "dvdi.epoch=5"); !errors.Is(err, volume.OutdatedEpoch) {
		t.Errorf("the lease of an earlier boot counted: %v", err)
	}
	if _, err := r.mount("v", "dvdi.epoch=4"); !errors.Is(err, volume.OutdatedEpoch) {
		t.Errorf("an older epoch: %v", err)
	}
}

// A framework and an operator may call a driver by different names: epochs,
// leases and rules are those of the driver.
func TestEpochsByAnyName(t *testing.T) {
	tagged := ledger.Key{Driver: "fake:latest", Volume: theVolume.Volume}
	r := newRig(t, refusing)
	want := ledger.Registration{Driver: tagged.Driver, Volume: tagged.Volume, Framework: "f", Epoch: 7, Lease: time.Minute}
	reg, err := r.engine().Register(t.Context(), want, func(reg *ledger.Registration) error {
		return r.engine().Ledger().SaveLease(reg.Key(), reg.Epoch, r.clock.at+reg.Lease)
	})
	if err != nil || reg.Key() != theVolume {
		t.Fatalf("%+v %v", reg, err)
	}
	for _, driver := range []string{"fake", "fake:latest"} {
		mount := func(epoch string) error {
			_, err := r.engine().Mount(t.Context(), MountRequest{Driver: driver, Volume: theVolume.Volume, Holder: agent,
				Options: Options{Engine: map[string]string{"dvdi.epoch": epoch, "dvdi.lease": "true"}}})
			return err
		}
		if err := mount("7"); err != nil {
			t.Errorf("%s: %v", driver, err)
		}
		if err := mount("6"); !errors.Is(err, volume.OutdatedEpoch) {
			t.Errorf("%s: %v", driver, err)
		}
	}
	if left, err := r.engine().Withdraw(t.Context(), "f", tagged, 7); err != nil || left.Registration.Key() != theVolume || left.Path == "" {
		t.Errorf("%+v %v", left, err)
	}
}

func TestRegisterRefusesOlderEpochs(t *testing.T) {
	r := newRig(t, idempotent)
	for _, step := range []struct {
		epoch uint64
		ok    bool
	}{{3, true}, {3, true}, {2, false}, {4, true}} {
		if err := r.register(step.epoch, 0); (err == nil) != step.ok || err != nil && !errors.Is(err, volume.OutdatedEpoch) {
			t.Errorf("epoch %d: %v", step.epoch, err)
		}
	}
	if _, err := r.withdraw("f", 4); err != nil {
		t.Fatal(err)
	}
	if err := r.register(4, 0); !errors.Is(err, volume.OutdatedEpoch) {
		t.Errorf("a withdrawn epoch was registered again: %v", err)
	}
	if err := r.register(5, 0); err != nil {
		t.Error(err)
	}
	if _, err := r.withdraw("f", 4); !errors.Is(err, volume.OutdatedEpoch) {
		t.Errorf("an old withdrawal reached a newer epoch: %v", err)
	}
	r.mustMount("v", "dvdi.epoch=5")
	other := ledger.Registration{Driver: "fake", Volume: "v", Framework: "g", Epoch: 1}
	if _, err := r.engine().Register(context.Background(), other, nil); !errors.Is(err, volume.InUse) {
		t.Errorf("another framework took what is in use: %v", err)
	}
	r.mustUnmount("v")
	if _, err := r.engine().Register(context.Background(), other, nil); err != nil {
		t.Errorf("another framework is kept from what nobody uses: %v", err)
	}
}

// A registration that cannot be read refuses mounts; the next registration
// mends it.
func TestDamagedRegistration(t *testing.T) {
	r := newRig(t, idempotent)
	if err := r.register(3, 0); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(r.state, "epochs", theVolume.FileName()+".json")
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.mount("v", "dvdi.epoch=3"); !errors.Is(err, volume.BadRecord) {
		t.Errorf("mount: %v", err)
	}
	if err := r.register(4, 0); err != nil {
		t.Fatal(err)
	}
	r.mustMount("v", "dvdi.epoch=4")
}

// A lease that cannot be granted leaves no registration.
func TestLeaseComesBeforeRegistration(t *testing.T) {
	r := newRig(t, idempotent)
	broken := errors.New("no watchdog")
	_, err := r.engine().Register(context.Background(),
		ledger.Registration{Driver: "fake", Volume: "v", Framework: "f", Epoch: 1, Lease: time.Minute}, func(*ledger.Registration) error { return broken })
	if !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if reg, err := r.engine().Ledger().Registration(theVolume); err != nil || reg.Epoch != 0 {
		t.Errorf("registered all the same: %+v, %v", reg, err)
	}
}

// Withdraw says what is left: a mount of the ledger, an owed unmount, a mount
// that no ledger knows, nothing.
func TestWithdrawTellsWhatIsLeft(t *testing.T) {
	r := newRig(t, idempotent)
	if err := r.register(1, 0); err != nil {
		t.Fatal(err)
	}
	r.mustMount("v", "dvdi.epoch=1")
	left, err := r.withdraw("f", 1)
	if err != nil || left.Record == nil || left.Path != "/vol/v" || left.Record.Epoch != 1 {
		t.Errorf("mounted: %+v, %v", left, err)
	}
	r.plugin.on = func(call, _ string) error {
		if call == "unmount" {
			return &volume.Error{Kind: volume.Refused, Message: "busy"}
		}
		return nil
	}
	if _, err := r.unmount("v"); err == nil {
		t.Fatal("unmounted")
	}
	if left, err = r.withdraw("f", 1); err != nil || left.Record == nil || left.Record.Phase != ledger.PhasePending {
		t.Errorf("owed: %+v, %v", left, err)
	}
	r.plugin.on = nil
	r.mustUnmount("v")
	if left, err = r.withdraw("f", 1); err != nil || left.Record != nil || !left.Registration.Withdrawn {
		t.Errorf("gone: %+v, %v", left, err)
	}
	if _, err := r.plugin.Mount(context.Background(), volume.MountRequest{Volume: volume.Ref{Name: "v"}, ID: "by hand"}); err != nil {
		t.Fatal(err)
	}
	if left, err = r.withdraw("f", 1); err != nil || left.Record == nil || left.Path != "/vol/v" {
		t.Errorf("mounted by somebody else: %+v, %v", left, err)
	}
}

// A person may override what a framework registered; an agent may not.
func TestForceOverridesEpochs(t *testing.T) {
	r := newRig(t, idempotent)
	if _, err := r.withdraw("f", 3); err != nil {
		t.Fatal(err)
	}
	mount := func(h Holder) error {
		_, err := r.engine().Mount(context.Background(), MountRequest{Driver: "fake", Volume: "v", Force: true, Holder: h})
		return err
	}
	if err := mount(agent); !errors.Is(err, volume.OutdatedEpoch) {
		t.Errorf("an agent: %v", err)
	}
	if err := mount(Holder{Name: "me", Person: true}); err != nil {
		t.Errorf("a person: %v", err)
	}
}

// What a newer program registered is neither replaced nor withdrawn, nor mounted
// under, as what is damaged may be.
func TestNewerRegistrationIsLeftAlone(t *testing.T) {
	r := newRig(t, idempotent)
	const newer = `{"version":2,"driver":"fake","volume":"v","owner":"f","epoch":{"number":3}}`
	file := filepath.Join(r.state, "epochs", theVolume.FileName()+".json")
	r.engine() // makes the directories
	overwrite(t, file, newer)
	if err := r.register(9, 0); !errors.Is(err, volume.BadRecord) {
		t.Errorf("register: %v", err)
	}
	if _, err := r.withdraw("f", 9); !errors.Is(err, volume.BadRecord) {
		t.Errorf("withdraw: %v", err)
	}
	if _, err := r.mount("v", "dvdi.epoch=9"); !errors.Is(err, volume.BadRecord) {
		t.Errorf("mount: %v", err)
	}
	if got := read(t, file); got != newer {
		t.Errorf("rewritten: %s", got)
	}
}
