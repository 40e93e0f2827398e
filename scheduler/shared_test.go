package scheduler_test

import (
	"slices"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/resource"
	"github.com/mesos-dvdi/dvdi/scheduler/schedtest"
)

// ownName has an instance's shared volume reserved in the volume's own name.
func ownName(i *schedtest.Instance, id string) *schedtest.Instance {
	i.Persistent[0].PersistenceID, i.Persistent[0].Labels = id, labels(id)
	return i
}

// sharedOnly is the shared volume id in its own name, as an offer has it.
func sharedOnly(id string) resource.Resource {
	v := owned(schedtest.Scalar("disk", 10), id).Persist(id, "me", "data")
	v.Shared = true
	return v
}

// TestSharedVolumeInItsOwnName: what the instance has for itself is reserved for
// it, the volume is not, and who comes later uses that one.
func TestSharedVolumeInItsOwnName(t *testing.T) {
	w := reserving()
	o := w.Offer("a1").Usual()
	ownName(sharing(w, "first"), "vol")
	ownName(sharing(w, "second"), "vol").Since = w.Now.Add(time.Second)
	plan := w.Decide()
	if kinds(plan) != "reserve create launch reserve launch" || len(plan.Leftovers) != 0 {
		t.Fatalf("%s, left over %v", kinds(plan), plan.Leftovers)
	}
	for _, id := range []string{"first", "second"} {
		for _, r := range schedtest.Launched(plan, id).Resources {
			want := id
			if r.IsPersistent() {
				want = "vol"
			}
			if got, _ := resource.LabelValue(r.ReservationLabels(), "inst"); got != want {
				t.Errorf("%s of %s is reserved for %s, want %s", r.Name, id, got, want)
			}
		}
	}
	apply(t, o.Resources, plan.Accepts[0].Operations)
}

// TestSharedVolumeIsNobodysLeftover while an instance that waits names it, or the
// caller knows it.
func TestSharedVolumeIsNobodysLeftover(t *testing.T) {
	w := reserving()
	w.Offer("a1").CPUs(0.01).Mem(1).Add(sharedOnly("vol"))
	i := ownName(sharing(w, "waits"), "vol")
	if plan := w.Decide(); len(plan.Leftovers) != 0 || kinds(plan) != "" {
		t.Errorf("%s, left over %v", kinds(plan), plan.Leftovers)
	}
	i.Persistent = nil
	if plan := w.Decide(); len(plan.Leftovers) != 1 || plan.Leftovers[0].InstanceID != "vol" {
		t.Errorf("left over %v, want the volume that nobody names", plan.Leftovers)
	}
	w.Known = []string{"vol"}
	if plan := w.Decide(); len(plan.Leftovers) != 0 || kinds(plan) != "" {
		t.Errorf("%s, left over %v, though it is known", kinds(plan), plan.Leftovers)
	}
}

// TestSharedVolumeInTwoOffersIsDestroyedOnce.
func TestSharedVolumeInTwoOffersIsDestroyedOnce(t *testing.T) {
	w := reserving()
	w.Offer("a1").CPUs(1).Mem(64).Add(sharedOnly("vol"))
	w.Offer("a1").CPUs(1).Mem(64).Add(sharedOnly("vol"))
	w.Wiped = []string{"vol"}
	plan := w.Decide()
	if kinds(plan) != "destroy unreserve" {
		t.Fatalf("%s", kinds(plan))
	}
	for _, op := range plan.Accepts[0].Operations {
		if len(op.Resources) != 1 || op.Resources[0].Shared != (op.Kind == scheduler.OpDestroy) {
			t.Errorf("%v", op)
		}
	}
}

// TestSharedVolumesAreMadeBeforeTasksStart where there are several: Mesos counts a
// shared volume anew at each CREATE, without what tasks use already.
func TestSharedVolumesAreMadeBeforeTasksStart(t *testing.T) {
	w := reserving()
	o := w.Offer("a1").CPUs(100).Mem(100000).Disk(10000)
	for n, id := range []string{"a1", "b1", "a2", "b2"} {
		ownName(sharing(w, id), id[:1]).Since = w.Now.Add(time.Duration(n) * time.Second)
	}
	plan := w.Decide()
	ops := plan.Accepts[0].Operations
	launch := slices.IndexFunc(ops, func(op scheduler.Operation) bool { return op.Kind == scheduler.OpLaunch })
	if len(schedtest.On(plan)) != 4 || slices.ContainsFunc(ops[launch:], func(op scheduler.Operation) bool { return op.Kind == scheduler.OpCreate }) {
		t.Errorf("%s", kinds(plan))
	}
	apply(t, o.Resources, ops)
}
