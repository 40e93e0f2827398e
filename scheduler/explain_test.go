package scheduler_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/schedtest"
)

// TestInstancesAlikeAreExplainedEachForItself has instances of one shape, of
// which the first is explained for all that have nothing special about them.
func TestInstancesAlikeAreExplainedEachForItself(t *testing.T) {
	w := schedtest.New()
	w.Offer("a1").CPUs(0.5).Mem(4096)
	w.Offer("a2").CPUs(0.7).Mem(4096)
	w.Claim("held", "a9", scheduler.Held, "other")
	w.Volume("local").Last("a1").Local = true
	for _, v := range []string{"a", "b", "held", "local", "moved", "wiped"} {
		w.Pending("x-"+v).Mounts(v, scheduler.OneTask)
	}
	moved := w.Pending("y-moved").Mounts("c", scheduler.OneTask)
	moved.Avoid, moved.AvoidUntil = "a2", w.Now.Add(time.Minute)
	w.Wiped = []string{"x-wiped"}
	plan := w.Decide()
	for id, want := range map[string]string{
		"x-a":     "none of 2 agents can take it: 2 have too few cpus; a2.test comes closest and lacks 0.3 cpus (has 0.7, needs 1)",
		"x-b":     "none of 2 agents can take it: 2 have too few cpus; a2.test comes closest and lacks 0.3 cpus (has 0.7, needs 1)",
		"x-held":  "volume held (driver drv) is held on agent a9.test by instance other",
		"x-local": "volume local (driver drv) exists on agent a1.test only",
		"x-wiped": "waits until its volumes are destroyed",
		"y-moved": "it was moved off agent a2.test and goes back there only after 2026-01-02 03:05:05 UTC",
	} {
		waits := schedtest.Waits(plan, id)
		if waits == nil || !strings.Contains(waits.Text, want) {
			t.Errorf("%s: %+v, want %q", id, waits, want)
		}
	}
	if best := schedtest.Waits(plan, "x-local").Best; best != "a1.test" {
		t.Errorf("the best agent for a local volume is %s, want that which has it", best)
	}
}

func TestExplanationOfVeryMuchIsASample(t *testing.T) {
	w := schedtest.New()
	for i := range 3000 {
		w.Offer(fmt.Sprintf("a%04d", i)).CPUs(0.5).Mem(4096)
	}
	for i := range 1000 {
		w.Pending(fmt.Sprintf("x%04d", i)).Needs(1, float64(i+1))
	}
	plan := w.Decide()
	for id, want := range map[string]int{"x0000": 3000, "x0999": 64} {
		if got := schedtest.Waits(plan, id).Offers; got != want {
			t.Errorf("%s: looked at %d agents, want %d", id, got, want)
		}
		if got := schedtest.Reasons(plan, id)[scheduler.InsufficientCPUs]; got != want {
			t.Errorf("%s: %d agents lack cpus, want %d", id, got, want)
		}
	}
}
