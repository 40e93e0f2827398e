package engine

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// What an earlier boot had mounted is looked out for under a mark that depends on
// no clock. A mount that appears is undone, unless the caller has it left.
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
	why, wait := "docker uses it", time.Minute
	req := ReconcileRequest{Appeared: func(_ context.Context, rec *ledger.Record, path string) (string, time.Duration) {
		if !rec.EarlierBoot || path != r.plugin.path("v") {
			t.Errorf("asked about %s, %+v", path, rec)
		}
		return why, wait
	}}
	if f := r.engine().ReconcileOne(t.Context(), req, key); f.Action != "" || !strings.Contains(f.Problem, why) || f.After != wait {
		t.Errorf("finding %+v", f)
	}
	why = "" // yet
	if f := r.engine().ReconcileOne(t.Context(), req, key); f.Action != "" || f.Problem != "" || f.After != wait {
		t.Errorf("finding %+v", f)
	}
	if r.host.stacked(r.plugin.path("v")) != 1 {
		t.Error("unmounted")
	}
	watched()
	wait = 0
	if f := r.engine().ReconcileOne(t.Context(), req, key); f.Problem != "" || r.host.stacked(r.plugin.path("v")) != 0 {
		t.Errorf("finding %+v", f)
	}
}
