package engine

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// neighbour is a rig whose ledger is another one of the same host.
func (r *rig) neighbour(t testing.TB) *rig {
	r.shared = true
	other := *r
	other.run, other.state = t.TempDir(), t.TempDir()
	return &other
}

// TestModelOfTwoLedgers drives random histories of two ledgers of one host that
// share a volume, with crashes and lost answers on both sides:
//
//   - what one of them was told is mounted stays so until its own unmount;
//   - a driver that counts never gets an Unmount more than it got Mounts;
//   - once both have given the volume up, ledgers, driver and mount table are empty.
func TestModelOfTwoLedgers(t *testing.T) {
	setChecks(t, "40", "5000")
	for _, m := range []manner{counting, idempotent, refusing} {
		t.Run(string(m), func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) { runPair(t, rt, m) })
		})
	}
}

func runPair(t *testing.T, rt *rapid.T, m manner) {
	first := newRig(t, m)
	first.t = rt
	second := first.neighbour(t)
	for _, l := range []*rig{first, second} { // so that the driver is known to return mount points
		l.mustMount("w")
		l.mustUnmount("w")
	}
	first.plugin.vols["v"] = true
	pair := map[string]*rig{"first": first, "second": second}
	has := map[string]bool{}
	for i := range rapid.IntRange(1, 16).Draw(rt, "steps") {
		who := rapid.SampledFrom([]string{"first", "second"}).Draw(rt, fmt.Sprint("who ", i))
		step := rapid.SampledFrom([]string{"mount", "mount", "unmount", "unmount", "crash mount", "crash unmount",
			"lose mount", "lose unmount", "reconcile"}).Draw(rt, "step")
		pair[who].step(rt, step, agent)
		switch step {
		case "mount":
			has[who] = true
		case "unmount", "crash unmount", "lose unmount":
			has[who] = false // or not, who cannot tell does not rely on it
		}
		for who, has := range has {
			if has && first.host.stacked("/vol/v") != 1 {
				rt.Fatalf("%s %s, and the mount of the %s is gone; calls %v", pair[who].run, step, who, first.plugin.calls)
			}
		}
		if n := first.plugin.count["v"]; n < 0 {
			rt.Fatalf("%s: the driver counts %d; calls %v", step, n, first.plugin.calls)
		}
	}
	first.endsWith(second)
}

// endsWith gives the volume up in both ledgers and checks that nothing is left.
func (r *rig) endsWith(other *rig) {
	r.t.Helper()
	for _, l := range []*rig{r, other, r, other} {
		l.clock.advance(longAfter)
		l.mustForce()
		if _, err := l.engine().Reconcile(context.Background(), ReconcileRequest{Now: true}); err != nil {
			r.t.Fatal(err)
		}
	}
	for _, l := range []*rig{r, other} {
		l.leavesNothing()
	}
}

// lostMount is two ledgers of which one has the volume mounted and the other one
// was killed when its own mount had not reached the driver: before or after that.
func lostMount(t *testing.T, m manner, when string) (lost, other *rig) {
	t.Helper()
	other = newRig(t, m)
	lost = other.neighbour(t)
	for _, l := range []*rig{lost, other} { // so that the driver is known to return mount points
		l.mustMount("w")
		l.mustUnmount("w")
	}
	other.plugin.vols["v"] = true
	if when == "after" {
		other.mustMount("v")
	}
	if !lost.crash(FaultIntent, 1, func() { _, _ = lost.mount("v") }) {
		t.Fatal("not killed")
	}
	if when == "before" {
		other.mustMount("v")
	}
	return lost, other
}

// An agent's mount never reached the driver, and what it finds mounted is another
// agent's: its unmount, and whatever else it does, takes nothing from that one and
// is no Unmount too many.
func TestSightingOfAnotherLedgersMount(t *testing.T) {
	histories := map[string]func(lost, other *rig){
		"unmounts first": func(lost, other *rig) { lost.mustUnmount("v"); other.keeps(); other.mustUnmount("v") },
		"unmounts last":  func(lost, other *rig) { other.mustUnmount("v"); lost.mustUnmount("v") },
		"mounts, unmounts first": func(lost, other *rig) {
			lost.mustMount("v")
			lost.mustUnmount("v")
			other.keeps()
			other.mustUnmount("v")
		},
		"mounts, unmounts last": func(lost, other *rig) {
			lost.mustMount("v")
			other.mustUnmount("v")
			lost.keeps()
			lost.mustUnmount("v")
		},
	}
	for _, m := range []manner{counting, idempotent, refusing} {
		for _, when := range []string{"before", "after"} {
			for name, history := range histories {
				t.Run(fmt.Sprint(m, " mount lost ", when, " the other one, ", name), func(t *testing.T) {
					lost, other := lostMount(t, m, when)
					lost.clock.advance(longAfter)
					history(lost, other)
					other.endsWith(lost)
				})
			}
		}
	}
}

// The same while an Unmount of the other agent has no answer: what is mounted may
// be what that one takes away, so that nobody is told of it, nor counts on it.
func TestSightingOfWhatAnotherLedgerUnmounts(t *testing.T) {
	for _, m := range []manner{counting, idempotent, refusing} {
		for _, then := range []string{"mount", "unmount"} {
			for _, done := range []bool{true, false} {
				t.Run(fmt.Sprint(m, " ", then, ", done ", done), func(t *testing.T) {
					lost, other := lostMount(t, m, "after")
					if _, err := lost.briefly(t, "unmount"); !errors.Is(err, volume.Unsettled) { // nobody holds it any more
						t.Fatalf("error %v", err)
					}
					lost.clock.advance(longAfter)
					if !other.crash(FaultIntent, 1, func() { _, _ = other.unmount("v") }) {
						t.Fatal("not killed")
					}
					if path, err := lost.briefly(t, then); !errors.Is(err, volume.Unsettled) || path != "" {
						t.Errorf("path %q, error %v", path, err)
					}
					if done {
						if err := other.plugin.Unmount(t.Context(), volume.UnmountRequest{Volume: volume.Ref{Name: "v"}, ID: other.id()}); err != nil {
							t.Fatal(err)
						}
					}
					other.clock.advance(longAfter)
					if then == "mount" {
						lost.mustMount("v")
						lost.keeps()
						other.mustUnmount("v")
						lost.keeps()
					}
					lost.mustUnmount("v")
					other.endsWith(lost)
				})
			}
		}
	}
}

// Whoever mounts while another agent's Unmount has no answer waits for it, be it
// for the first time or again: a driver without an account of who has the volume
// would take away what it has just mounted.
func TestMountWaitsForAnotherLedgersUnmount(t *testing.T) {
	for _, m := range []manner{counting, idempotent, refusing} {
		for _, again := range []bool{false, true} {
			t.Run(fmt.Sprint(m, " again ", again), func(t *testing.T) {
				r := newRig(t, m)
				other := r.neighbour(t)
				other.mustMount("v")
				if again {
					r.mustMount("v")
					r.mustUnmount("v") // owed, because of the other one
				}
				if !other.crash(FaultIntent, 1, func() { _, _ = other.unmount("v") }) {
					t.Fatal("not killed")
				}
				mounts := r.plugin.made("mount", "v")
				if path, err := r.briefly(t, "mount"); !errors.Is(err, volume.Unsettled) || path != "" {
					t.Errorf("path %q, error %v", path, err)
				}
				r.expect("v", mounts, 0)
				if err := r.plugin.Unmount(t.Context(), volume.UnmountRequest{Volume: volume.Ref{Name: "v"}, ID: other.id()}); err != nil {
					t.Fatal(err)
				}
				r.clock.advance(longAfter)
				r.mustMount("v")
				r.keeps()
				other.mustUnmount("v")
				r.keeps()
				r.mustUnmount("v")
				r.endsWith(other)
			})
		}
	}
}

// briefly does a mount or unmount that is in a hurry.
func (r *rig) briefly(t *testing.T, what string) (path string, err error) {
	t.Helper()
	if what == "unmount" {
		_, err = r.engine().Unmount(briefly(t), UnmountRequest{Driver: "fake", Volume: "v", Holder: agent})
		return "", err
	}
	res, err := r.engine().Mount(briefly(t), MountRequest{Driver: "fake", Volume: "v", Holder: agent})
	return res.Path, err
}

// keeps checks that the volume is mounted.
func (r *rig) keeps() {
	r.t.Helper()
	if n := r.host.stacked("/vol/v"); n != 1 {
		r.t.Fatalf("%d mounts; calls %v", n, r.plugin.calls)
	}
}

// An Unmount in doubt is not made while the Unmount that another ledger is sure of
// fails: made in its place it would leave that one as an Unmount too many.
func TestDoubtWaitsForTheUnmountThatAnotherLedgerOwes(t *testing.T) {
	lost, other := lostMount(t, counting, "after")
	lost.clock.advance(longAfter)
	left := 1
	other.plugin.on = func(call, vol string) error {
		if call == "unmount" && vol == "v" && left > 0 {
			left--
			return other.plugin.refuse("busy")
		}
		return nil
	}
	other.mustUnmount("v") // owed: the lost mount may still need it
	_, err := lost.unmount("v")
	if n := other.plugin.count["v"]; n < 0 {
		t.Fatalf("the driver counts %d after %v; calls %v", n, err, other.plugin.calls)
	}
	other.endsWith(lost)
	if n := other.plugin.made("unmount", "v"); n != 2 {
		t.Errorf("%d unmounts of one mount of which one failed; calls %v", n, other.plugin.calls)
	}
}

// What kept an Unmount from being made is no trouble any more when there is nothing
// left to unmount.
func TestLookOutHasNoOldTrouble(t *testing.T) {
	lost, other := lostMount(t, idempotent, "after")
	lost.clock.advance(longAfter)
	lost.mustUnmount("v") // owed: the other one uses the mount
	key := ledger.Key{Driver: "fake", Volume: "v"}
	rec, err := lost.engine().Ledger().Peek(key)
	if err != nil || rec == nil || rec.LastError == "" {
		t.Fatalf("record %+v, %v", rec, err)
	}
	other.mustUnmount("v")
	rec, err = lost.engine().Ledger().Peek(key)
	if err != nil || rec == nil || rec.Phase != ledger.PhaseWatched || rec.LastError != "" || rec.Attempts != 0 {
		t.Errorf("record %+v, %v", rec, err)
	}
	other.endsWith(lost)
}
