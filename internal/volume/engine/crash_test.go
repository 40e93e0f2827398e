package engine

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// crashed is thrown at a fault point. Deferred functions run, as the kernel
// releases locks; nothing else happens after it.
type crashed struct{}

// crash runs f until the nth passing of a fault point and says whether it got
// there.
func (r *rig) crash(at FaultPoint, nth int, f func()) (happened bool) {
	left := nth
	r.fault = func(p FaultPoint) {
		if p == at {
			if left--; left == 0 {
				panic(crashed{})
			}
		}
	}
	defer func() {
		r.fault = nil
		if p := recover(); p != nil {
			if _, ok := p.(crashed); !ok {
				panic(p)
			}
			happened = true
		}
	}()
	f()
	return false
}

// lost makes the next call of a name end without an answer: before it takes
// effect, after, or with its effect only when late is called.
func (r *rig) lost(call, when string) (late func()) {
	noAnswer := &volume.Error{Kind: volume.Unsettled, Message: "connection closed"}
	once := func(c, _ string) error {
		if c != call {
			return nil
		}
		r.plugin.mu.Lock()
		r.plugin.on, r.plugin.off = nil, nil
		r.plugin.mu.Unlock()
		return noAnswer
	}
	if when == "after" {
		// enter has taken the plugin's lock away before off runs; see Mount.
		r.plugin.off = func(c, _ string) error {
			if c != call {
				return nil
			}
			r.plugin.off = nil
			return noAnswer
		}
		return func() {}
	}
	r.plugin.on = once
	if when == "before" {
		return func() {}
	}
	return func() {
		ctx := context.Background()
		var err error
		if call == "mount" {
			_, err = r.plugin.Mount(ctx, volume.MountRequest{Volume: volume.Ref{Name: "v"}, ID: r.id()})
		} else {
			err = r.plugin.Unmount(ctx, volume.UnmountRequest{Volume: volume.Ref{Name: "v"}, ID: r.id()})
		}
		if err != nil {
			r.t.Logf("late %s: %v", call, err)
		}
	}
}

// id is the mount ID that the engine uses for volume v.
func (r *rig) id() string {
	return r.engine().describe("test", ledger.Key{Driver: "fake", Volume: "v"}).mountID(agent)
}

const longAfter = time.Hour

// sampled says whether a case of the sweep runs: all of them with DVDI_LONG, one
// in four otherwise, by its name.
func sampled(name string) bool {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // never fails
	return os.Getenv("DVDI_LONG") != "" || h.Sum32()%4 == 0
}

// Whatever step a mount or unmount crashed at, the next mount finds or makes
// exactly one mount, and the next unmount leaves nothing.
func TestCrashAtEveryStep(t *testing.T) {
	scenes := map[string]struct{ before, crash func(*rig) }{
		"fresh mount":  {func(*rig) {}, func(r *rig) { _, _ = r.mount("v") }},
		"second mount": {func(r *rig) { r.mustMount("v") }, func(r *rig) { _, _ = r.mount("v") }},
		"third holder": {func(r *rig) { r.mustMount("v") }, func(r *rig) {
			_, _ = r.engine().Mount(context.Background(), MountRequest{Driver: "fake", Volume: "v", Holder: Holder{Name: "other"}})
		}},
		"mount again": {func(r *rig) { r.mustMount("v"); r.mustUnmount("v") }, func(r *rig) { _, _ = r.mount("v") }},
		"unmount":     {func(r *rig) { r.mustMount("v") }, func(r *rig) { _, _ = r.unmount("v") }},
		"mount refused": {func(r *rig) {
			r.plugin.on = func(call, _ string) error {
				if call == "mount" {
					r.plugin.on = nil
					return r.plugin.refuse("not today")
				}
				return nil
			}
		}, func(r *rig) { _, _ = r.mount("v") }},
		"remove": {func(r *rig) { r.mustMount("v"); r.mustUnmount("v") }, func(r *rig) {
			_ = r.engine().Remove(context.Background(), RemoveRequest{Driver: "fake", Volume: "v"})
		}},
	}
	for name, scene := range scenes {
		for _, m := range []manner{counting, idempotent, refusing} {
			for _, at := range FaultPoints() {
				for nth := 1; nth <= 2; nth++ {
					for _, then := range []string{"mount", "unmount", "reconcile"} {
						full := fmt.Sprint(name, " ", m, " ", at, nth, " then ", then)
						if !sampled(full) {
							continue
						}
						t.Run(full, func(t *testing.T) {
							r := newRig(t, m)
							// Some mount before, so that the driver's kind of path is known.
							r.mustMount("w")
							r.mustUnmount("w")
							scene.before(r)
							if !r.crash(at, nth, func() { scene.crash(r) }) {
								t.Skip("not passed")
							}
							r.plugin.on = nil
							r.clock.advance(longAfter)
							r.settles(then)
						})
					}
				}
			}
		}
	}
}

// settles checks that all is well after a crash, whatever comes next.
func (r *rig) settles(then string) {
	r.t.Helper()
	ctx := context.Background()
	switch then {
	case "reconcile":
		if _, err := r.engine().Reconcile(ctx, ReconcileRequest{}); err != nil {
			r.t.Fatal(err)
		}
	case "unmount":
		r.mustForce()
		if n := r.host.stacked("/vol/v"); n != 0 {
			r.t.Errorf("%d mounts after the unmount", n)
		}
	}
	if res := r.mustMount("v"); res.Path != "/vol/v" {
		r.t.Errorf("path %q", res.Path)
	}
	if n := r.host.stacked("/vol/v"); n != 1 {
		r.t.Errorf("%d mounts, want 1", n)
	}
	r.mustForce()
	r.leavesNothing()
}

func (r *rig) mustForce() {
	r.t.Helper()
	_, err := r.engine().Unmount(context.Background(), UnmountRequest{Driver: "fake", Volume: "v", Holder: agent, Force: true})
	if err != nil {
		r.t.Fatalf("unmount: %v", err)
	}
}

// leavesNothing checks ledger, mount table and driver; look-outs may remain
// until their time is over.
func (r *rig) leavesNothing() {
	r.t.Helper()
	r.clock.advance(longAfter)
	if _, err := r.engine().Reconcile(context.Background(), ReconcileRequest{}); err != nil {
		r.t.Fatal(err)
	}
	r.clean("v")
	if n := r.plugin.count["v"]; n != 0 {
		r.t.Errorf("the driver counts %d", n)
	}
	if ids := r.plugin.ids["v"]; len(ids) != 0 {
		r.t.Errorf("the driver holds %v", ids)
	}
}

// A call without an answer may have had its effect, may have none, or may have
// it later.
func TestLostAnswers(t *testing.T) {
	for _, m := range []manner{counting, idempotent, refusing} {
		for _, call := range []string{"mount", "unmount"} {
			for _, when := range []string{"before", "after", "late", "much later"} {
				for _, then := range []string{"mount", "unmount", "reconcile"} {
					t.Run(fmt.Sprint(m, " ", call, " ", when, " then ", then), func(t *testing.T) {
						r := newRig(t, m)
						r.mustMount("w")
						r.mustUnmount("w")
						if call == "unmount" {
							r.mustMount("v")
						} else {
							r.plugin.vols["v"] = true
						}
						late := r.lost(call, when)
						var err error
						if call == "mount" {
							_, err = r.mount("v")
						} else {
							_, err = r.unmount("v")
						}
						if !errors.Is(err, volume.Unsettled) {
							t.Fatalf("error %v, want unsettled", err)
						}
						if when == "late" {
							late()
						}
						r.clock.advance(longAfter)
						if when == "much later" && call == "mount" {
							// The agent unmounts after every failed mount; then it appears.
							r.mustForce()
							late()
						}
						r.settles(then)
					})
				}
			}
		}
	}
}

// While the time of a call without an answer is not over, a later operation
// waits, within its own deadline, and does not ask the driver.
func TestWaitsForUnansweredCall(t *testing.T) {
	r := newRig(t, idempotent)
	r.mustMount("w")
	r.plugin.vols["v"] = true
	r.lost("mount", "before")
	if _, err := r.mount("v"); !errors.Is(err, volume.Unsettled) {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err := r.engine().Mount(ctx, MountRequest{Driver: "fake", Volume: "v", Holder: agent})
	if !errors.Is(err, volume.Unsettled) || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("error %v", err)
	}
	r.expect("v", 1, 0)
	// Another volume of the same driver does not wait.
	r.mustMount("other")
}

// A mount that appears late while its driver cannot unmount it is undone soon
// after that can: whoever reconciles is told when to look again.
func TestLateMountOfAnUnreachableDriverIsTriedAgain(t *testing.T) {
	r := newRig(t, counting)
	r.mustMount("w")
	r.mustUnmount("w")
	r.plugin.vols["v"] = true
	late := r.lost("mount", "much later")
	if _, err := r.mount("v"); !errors.Is(err, volume.Unsettled) {
		t.Fatal(err)
	}
	r.clock.advance(longAfter)
	r.mustForce() // as the agent unmounts after every failed mount
	late()
	key := ledger.Key{Driver: "fake", Volume: "v"}
	r.plugin.on = func(call, _ string) error {
		if call == "unmount" {
			return &volume.Error{Kind: volume.DriverUnreachable, Message: "connection refused"}
		}
		return nil
	}
	f := r.engine().ReconcileOne(t.Context(), ReconcileRequest{}, key)
	if f.Problem == "" || f.After <= 0 || f.After > lastRetry {
		t.Errorf("finding %+v", f)
	}
	r.plugin.on = nil
	r.clock.advance(f.After)
	if f := r.engine().ReconcileOne(t.Context(), ReconcileRequest{}, key); f.Action != "unmounted" {
		t.Errorf("finding %+v", f)
	}
	r.leavesNothing()
}

// briefly is a context of an operation that is in a hurry.
func briefly(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// A mount whose caller was killed is used, once the driver's time is over and not
// before: until then the driver may be working on it, and may undo it.
func TestFinishedMountIsUsedOnceItsTimeIsOver(t *testing.T) {
	for _, m := range []manner{counting, idempotent, refusing} {
		r := newRig(t, m)
		if !r.crash(FaultAnswered, 2, func() { _, _ = r.mount("v") }) { // 1 is Create
			t.Fatal("no crash")
		}
		res, err := r.engine().Mount(briefly(t), MountRequest{Driver: "fake", Volume: "v", Holder: agent})
		if !errors.Is(err, volume.Unsettled) || res.Path != "" {
			t.Errorf("path %q, error %v", res.Path, err)
		}
		r.clock.advance(longAfter)
		if res := r.mustMount("v"); res.Path != "/vol/v" {
			t.Errorf("path %q", res.Path)
		}
		r.expect("v", 1, 0)
		r.mustUnmount("v")
		r.leavesNothing()
	}
}

// The driver mounts, fails in what comes after and undoes the mount, all after
// its caller was killed: the path is never told.
func TestMountThatIsRolledBack(t *testing.T) {
	r := newRig(t, idempotent)
	r.mustMount("w")
	r.mustUnmount("w")
	r.plugin.vols["v"] = true
	r.lost("mount", "before")
	if _, err := r.mount("v"); !errors.Is(err, volume.Unsettled) {
		t.Fatal(err)
	}
	r.host.mount("/vol/v", "v")
	r.plugin.count["v"] = 1
	for _, what := range []string{"mount", "unmount"} {
		var err error
		if what == "mount" {
			_, err = r.engine().Mount(briefly(t), MountRequest{Driver: "fake", Volume: "v", Holder: agent})
		} else {
			_, err = r.engine().Unmount(briefly(t), UnmountRequest{Driver: "fake", Volume: "v", Holder: Holder{Name: "other"}})
		}
		if !errors.Is(err, volume.Unsettled) {
			t.Errorf("%s: %v", what, err)
		}
	}
	r.expect("v", 1, 0)
	r.host.umount("/vol/v")
	r.plugin.count["v"] = 0
	r.clock.advance(longAfter)
	if res := r.mustMount("v"); r.host.stacked(res.Path) != 1 {
		t.Errorf("%+v", res)
	}
	r.mustUnmount("v")
	r.clean("v")
}

// The mount is gone and the driver still detaching: nothing is mounted meanwhile.
func TestUnmountThatGoesOn(t *testing.T) {
	r := newRig(t, idempotent)
	r.mustMount("v")
	r.lost("unmount", "after")
	if _, err := r.unmount("v"); !errors.Is(err, volume.Unsettled) {
		t.Fatal(err)
	}
	if _, err := r.engine().Mount(briefly(t), MountRequest{Driver: "fake", Volume: "v", Holder: agent}); !errors.Is(err, volume.Unsettled) {
		t.Errorf("error %v", err)
	}
	r.expect("v", 1, 1)
	r.clock.advance(longAfter)
	r.mustMount("v")
	r.expect("v", 2, 1)
	r.mustUnmount("v")
	r.clean("v")
}

// An answer that cannot be understood is an answer: nobody waits, and what may
// have been mounted is undone at once.
func TestGarbledAnswers(t *testing.T) {
	garbled := func(call string) func(string, string) error {
		return func(c, vol string) error {
			if c != call || vol != "v" {
				return nil
			}
			return &volume.Error{Kind: volume.Garbled, Message: "[]"}
		}
	}
	for _, m := range []manner{counting, idempotent, refusing} {
		for _, done := range []bool{true, false} {
			for _, call := range []string{"mount", "unmount"} {
				t.Run(fmt.Sprint(m, " ", call, " done ", done), func(t *testing.T) {
					r := newRig(t, m)
					r.mustMount("w")
					r.mustUnmount("w")
					r.plugin.vols["v"] = true
					if call == "unmount" {
						r.mustMount("v")
					}
					if done {
						r.plugin.off = garbled(call)
					} else {
						r.plugin.on = garbled(call)
					}
					var err error
					if call == "mount" {
						_, err = r.mount("v")
					} else {
						_, err = r.unmount("v")
					}
					if !errors.Is(err, volume.Garbled) {
						t.Errorf("error %v", err)
					}
					r.plugin.on, r.plugin.off = nil, nil
					if call == "mount" && r.host.stacked("/vol/v") != 0 {
						t.Error("left mounted")
					}
					// The clock stands still: whoever waits for the call to be over does so in vain.
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					if _, err := r.engine().Unmount(ctx, UnmountRequest{Driver: "fake", Volume: "v", Holder: agent}); err != nil {
						t.Errorf("unmount: %v", err)
					}
					if m == counting && (call == "mount" && !done || call == "unmount" && done) {
						return // a count that an Unmount too many drove below zero is this kind's fault
					}
					r.mustMount("v")
					r.mustUnmount("v")
					r.leavesNothing()
				})
			}
		}
	}
}

// reboot starts a new boot: mounts and the run directory are gone.
func (r *rig) reboot(keepRun bool) {
	r.clock.mu.Lock()
	r.clock.boot++
	r.clock.at = time.Minute
	r.clock.mu.Unlock()
	r.host.mu.Lock()
	r.host.mounts, r.host.devices = nil, map[string]uint64{}
	r.host.mu.Unlock()
	if !keepRun {
		if err := os.RemoveAll(r.run); err != nil {
			r.t.Fatal(err)
		}
	}
}

// After a reboot the records are hints: the driver may have forgotten, may
// remember the mount ID without having mounted, or may have mounted again.
func TestReboot(t *testing.T) {
	for _, m := range []manner{counting, idempotent, refusing} {
		for _, driver := range []string{"forgot", "remembers", "mounted again"} {
			for _, keepRun := range []bool{false, true} {
				for _, then := range []string{"mount", "unmount", "reconcile"} {
					if driver == "remembers" && m != refusing {
						continue // what only counts is in memory
					}
					t.Run(fmt.Sprint(m, " ", driver, " run kept ", keepRun, " then ", then), func(t *testing.T) {
						r := newRig(t, m)
						r.mustMount("v")
						id := r.records()[0].Record.MountID
						r.reboot(keepRun)
						switch driver {
						case "forgot":
							r.plugin.restart(false)
						case "mounted again":
							r.plugin.restart(false)
							if _, err := r.plugin.Mount(context.Background(), volume.MountRequest{Volume: volume.Ref{Name: "v"}, ID: id}); err != nil {
								t.Fatal(err)
							}
						}
						if driver == "remembers" {
							r.plugin.hides = true // it does not claim to have mounted it
						}
						r.settles(then)
					})
				}
			}
		}
	}
}

// A damaged record is set aside and stops nothing; what was mounted is found by
// the copy in the state directory.
func TestDamagedRecord(t *testing.T) {
	for _, content := range []string{"", "{", "null", `{"version":1}`, `{"version":1,"driver":"x","volume":"y","phase":"mounted"}`} {
		for _, m := range []manner{counting, idempotent, refusing} {
			t.Run(fmt.Sprintf("%s %q", m, content), func(t *testing.T) {
				r := newRig(t, m)
				r.mustMount("v")
				overwrite(t, r.records()[0].File, content)
				if res := r.mustMount("v"); !slices.ContainsFunc(res.Notes, func(n string) bool { return strings.Contains(n, "set aside") }) {
					t.Errorf("notes %q", res.Notes)
				}
				r.expect("v", 1, 0)
				kept, err := r.engine().Ledger().Kept()
				if err != nil || len(kept) != 1 {
					t.Errorf("set aside: %v, %v", kept, err)
				}
				r.mustUnmount("v")
				r.leavesNothing()
			})
		}
	}
}

// A newer program's record is refused and not touched.
func TestNewerRecordIsRefused(t *testing.T) {
	r := newRig(t, idempotent)
	r.mustMount("v")
	file := r.records()[0].File
	const newer = `{"version":2,"driver":"fake","volume":"v","holdersAndMore":[]}`
	overwrite(t, file, newer)
	if _, err := r.mount("v"); !errors.Is(err, volume.BadRecord) {
		t.Errorf("mount: %v", err)
	}
	if _, err := r.unmount("v"); !errors.Is(err, volume.BadRecord) {
		t.Errorf("unmount: %v", err)
	}
	if _, err := r.engine().Reconcile(context.Background(), ReconcileRequest{Now: true}); err != nil {
		t.Error(err)
	}
	if got := read(t, file); got != newer {
		t.Errorf("rewritten: %s", got)
	}
	r.mustMount("w")
}

// A bad policy stops mounting and never unmounting.
// A mount whose intent cannot be written down was never asked for: nothing has
// to settle afterwards.
func TestIntentThatCannotBeWritten(t *testing.T) {
	r := newRig(t, refusing)
	r.plugin.vols["v"] = true
	r.fault = func(at FaultPoint) {
		if at == FaultLocked {
			if err := os.RemoveAll(filepath.Join(r.run, "volumes")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := r.mount("v"); !errors.Is(err, volume.LedgerFailed) {
		t.Errorf("%v", err)
	}
	r.fault = nil
	r.expect("v", 0, 0)
	r.clean("v")
	r.mustMount("v")
	r.mustUnmount("v")
	r.expect("v", 1, 1)
}

func TestBadPolicy(t *testing.T) {
	r := newRig(t, idempotent)
	r.mustMount("v")
	r.bad = &volume.Error{Kind: volume.BadPolicy, Message: "line 3"}
	if _, err := r.mount("w"); !errors.Is(err, volume.BadPolicy) {
		t.Errorf("mount: %v", err)
	}
	r.mustUnmount("v")
	r.clean("v")
}

// The answer to a mount was lost, and the driver forgot the mount since: mounting
// again puts one on top, which is undone, and the first one is used.
func TestForgottenMountIsFound(t *testing.T) {
	r := newRig(t, idempotent)
	r.mustMount("w")
	r.plugin.vols["v"] = true
	r.lost("mount", "after")
	if _, err := r.mount("v"); !errors.Is(err, volume.Unsettled) {
		t.Fatal(err)
	}
	r.plugin.restart(false)
	r.clock.advance(longAfter)
	if res := r.mustMount("v"); res.Path != "/vol/v" || r.host.stacked("/vol/v") != 1 {
		t.Errorf("%+v, %d mounts", res, r.host.stacked("/vol/v"))
	}
	r.mustUnmount("v")
	if n := r.host.stacked("/vol/v"); n != 0 {
		t.Errorf("%d mounts left", n)
	}
}
