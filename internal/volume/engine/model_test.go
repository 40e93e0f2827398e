package engine

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"

	"pgregory.net/rapid"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// TestModel drives random histories of mounts, unmounts, crashes, lost answers,
// reboots and restarts of the driver against what a user may rely on:
//
//   - a mount that succeeds gives a path that is mounted once;
//   - an unmount by the last holder that succeeds leaves nothing mounted;
//   - nothing is ever mounted on top of itself;
//   - once all is unmounted and reconciled, ledger, driver and mount table are
//     empty.
func TestModel(t *testing.T) {
	setChecks(t, "40", "10000")
	for _, m := range []manner{counting, idempotent, refusing} {
		t.Run(string(m), func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) { runModel(t, rt, m) })
		})
	}
}

// setChecks sets how many histories are tried.
func setChecks(t *testing.T, usual, long string) {
	t.Helper()
	checks := usual
	if os.Getenv("DVDI_LONG") != "" {
		checks = long
	}
	if err := flag.Set("rapid.checks", checks); err != nil {
		t.Fatal(err)
	}
}

func runModel(t *testing.T, rt *rapid.T, m manner) {
	r := newRig(t, m)
	r.t = rt
	r.mustMount("w") // so that the driver is known to return mount points
	r.mustUnmount("w")
	r.plugin.vols["v"] = true
	holders := []Holder{agent, {Name: "other"}}
	for i := range rapid.IntRange(1, 25).Draw(rt, "steps") {
		step := rapid.SampledFrom([]string{"mount", "mount", "unmount", "unmount", "crash mount", "crash unmount",
			"lose mount", "lose unmount", "refuse mount", "refuse unmount", "reconcile", "reboot", "restart", "restart fuse", "time"}).Draw(rt, fmt.Sprint("step ", i))
		h := rapid.SampledFrom(holders).Draw(rt, "holder")
		r.step(rt, step, h)
		if n := r.host.stacked("/vol/v"); n > 1 {
			rt.Fatalf("%s: %d mounts stacked", step, n)
		}
	}
	r.clock.advance(longAfter)
	r.settles("mount")
}

// step does one thing of a history.
func (r *rig) step(rt *rapid.T, step string, h Holder) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	mount := func() (MountResult, error) {
		return r.engine().Mount(ctx, MountRequest{Driver: "fake", Volume: "v", Holder: h})
	}
	unmount := func() (UnmountResult, error) {
		return r.engine().Unmount(ctx, UnmountRequest{Driver: "fake", Volume: "v", Holder: h})
	}
	// Time passes before each step, so that nobody waits for it.
	r.clock.advance(longAfter)
	switch step {
	case "mount":
		res, err := mount()
		if err != nil {
			rt.Fatalf("mount: %v", err)
		}
		if n := r.host.stacked(res.Path); n != 1 {
			rt.Fatalf("mount printed %s, where %d mounts are", res.Path, n)
		}
	case "unmount":
		res, err := unmount()
		if err != nil {
			rt.Fatalf("unmount: %v", err)
		}
		if n := r.host.stacked("/vol/v"); res.Unmounted && n != 0 && !r.shared {
			rt.Fatalf("unmounted, and %d mounts are there", n)
		}
	case "crash mount", "crash unmount":
		at := rapid.SampledFrom(FaultPoints()).Draw(rt, "at")
		nth := rapid.IntRange(1, 2).Draw(rt, "passing")
		r.crash(at, nth, func() {
			if step == "crash mount" {
				_, _ = mount()
			} else {
				_, _ = unmount()
			}
		})
	case "lose mount", "lose unmount":
		r.lost(step[len("lose "):], rapid.SampledFrom([]string{"before", "after"}).Draw(rt, "when"))
		if step == "lose mount" {
			_, _ = mount()
		} else {
			_, _ = unmount()
		}
		r.plugin.on, r.plugin.off = nil, nil
	case "refuse mount", "refuse unmount":
		r.refuses(rt, step[len("refuse "):], mount, unmount)
	case "reconcile":
		if _, err := r.engine().Reconcile(ctx, ReconcileRequest{}); err != nil {
			rt.Fatal(err)
		}
	case "reboot":
		r.reboot(rapid.Bool().Draw(rt, "run directory kept"))
		r.plugin.restart(false)
	case "restart fuse":
		// The Unmount that is owed for a mount that died with its driver drives a
		// forgotten count below zero; that is this kind of driver's fault.
		if r.plugin.manner != counting {
			r.plugin.restart(true)
		}
	case "restart":
		// A driver that forgets what stays mounted and insists on its account
		// leaves the mount to people; one that forgets a mount of which nobody got
		// the answer leaves no witness (but see TestForgottenMountIsFound).
		if r.plugin.manner == idempotent && !r.open() {
			r.plugin.restart(false)
		}
	}
}

// open says whether a call has no recorded answer.
func (r *rig) open() bool {
	for _, i := range r.records() {
		if i.Record == nil || i.Record.Call != nil || i.Record.Phase == ledger.PhaseWatched {
			return true
		}
	}
	return false
}

func (r *rig) refuses(rt *rapid.T, call string, mount func() (MountResult, error), unmount func() (UnmountResult, error)) {
	r.plugin.on = func(c, _ string) error {
		if c == call {
			return r.plugin.refuse("not today")
		}
		return nil
	}
	defer func() { r.plugin.on = nil }()
	var err error
	if call == "mount" {
		_, err = mount()
	} else {
		_, err = unmount()
	}
	if err != nil && !errors.Is(err, volume.Refused) {
		rt.Fatalf("%s: %v", call, err)
	}
}
