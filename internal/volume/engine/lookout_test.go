package engine

import (
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// What an earlier boot had mounted is looked out for under a mark that depends on
// no clock. A mount that appears is undone, but not for a caller who had asked
// before whether somebody uses it.
func TestLookOutForAnEarlierBoot(t *testing.T) {
	r := newRig(t, counting)
	r.mustMount("v")
	r.reboot(false)
	r.plugin.restart(false)
	r.mustUnmount("v")
	key := ledger.Key{Driver: "fake", Volume: "v"}
	watched := func() {
		t.Helper()
		rec, err := r.engine().Ledger().Peek(key)
		if err != nil || rec == nil || rec.Phase != ledger.PhaseWatched || !rec.EarlierBoot {
			t.Fatalf("record %+v, %v", rec, err)
		}
	}
	watched()
	r.mustUnmount("v") // again, by a record of this boot
	watched()
	r.plugin.count["v"] = 1 // by somebody without a ledger
	r.host.mount(r.plugin.path("v"), "v")
	if f := r.engine().ReconcileOne(t.Context(), ReconcileRequest{LeaveAppeared: true}, key); f.Action != "" || f.Problem != "" || f.After <= 0 {
		t.Errorf("finding %+v", f)
	}
	if r.host.stacked(r.plugin.path("v")) != 1 {
		t.Error("unmounted")
	}
	watched()
	if f := r.engine().ReconcileOne(t.Context(), ReconcileRequest{}, key); f.Problem != "" || r.host.stacked(r.plugin.path("v")) != 0 {
		t.Errorf("finding %+v", f)
	}
}
