package core

import (
	"slices"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/store"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// policy is that of the core's next decision.
func (r *rig) policy() (p scheduler.Policy) {
	r.t.Helper()
	err := r.core.do(r.t.Context(), func(tx *txn) error {
		p = r.core.snapshot(tx.now).Policy
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

// TestARestoredFrameworkReleasesNothingThatItDoesNotKnow, not even when unknown
// tasks have had time to show up: the backup may be older than a reservation.
func TestARestoredFrameworkReleasesNothingThatItDoesNotKnow(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		r.cfg.RestoreHold = time.Minute
		r.idle()
		if !r.policy().ReleaseUnknown {
			t.Error("reservations of nobody are never released")
		}
		r.stopped(func() {
			backup := r.content()
			r.withStore(func(st store.Store) error { _, err := Restore(st, backup, time.Now()); return err })
		})
		for range 2 {
			r.pass(time.Hour)
			if r.policy().ReleaseUnknown {
				t.Error("reservations that the backup does not know are released")
			}
			r.restart()
		}
	})
}

// TestOffersComeWhileSomethingMayBeTakenOver although nothing waits for them.
func TestOffersComeWhileSomethingMayBeTakenOver(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		if r.policy().NoSuppress {
			t.Error("offers come although nothing may be taken over")
		}
		if err := r.halt(); err != nil {
			t.Fatal(err)
		}
		r.cfg.Adopt = []string{"theirs"}
		r.start()
		if !r.policy().NoSuppress {
			t.Error("no offers come, which would show what may be taken over")
		}
	})
}

// TestDeclinedOffersComeAgainForWhatMayBeTakenOver: they may have shown the volumes
// of an app before it was defined here.
func TestDeclinedOffersComeAgainForWhatMayBeTakenOver(t *testing.T) {
	inDiary(t, func(t *testing.T, r *rig, d *diary) {
		if err := r.halt(); err != nil {
			t.Fatal(err)
		}
		r.cfg.Adopt = []string{"theirs"}
		r.start()
		r.pass(time.Minute)
		before := len(d.read())
		kept, err := app.Parse([]byte(`{"id":"/kept","cmd":"x","cpus":1,"mem":32,"instances":0,"role":"r","container":{"type":"MESOS","volumes":[
			{"containerPath":"d","mode":"RW","persistent":{"size":10}}]}}`), app.Options{Role: "r"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.core.Change(t.Context(), Change{Upsert: []*app.App{kept}}); err != nil {
			t.Fatal(err)
		}
		r.pass(time.Minute)
		if lines := d.read()[before:]; !slices.Contains(lines, "revive [* r]") {
			t.Errorf("nothing is asked for again: %q", lines)
		}
	})
}
