package scheduler_test

import (
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/schedtest"
)

// TestPreference offers agents that are better or worse for an instance, after
// it has waited for a time.
func TestPreference(t *testing.T) {
	patience := scheduler.Wait{Attached: 40 * time.Second, LastAttached: 30 * time.Second, Replica: 20 * time.Second, Zone: 10 * time.Second}
	everything := func(w *schedtest.World) {
		v := w.Volume("v").Last("last")
		v.AttachedTo, v.Replicas, v.Zone = []string{"attached"}, []string{schedtest.Host("replica")}, "z1"
	}
	cases := []struct {
		name   string
		build  func(w *schedtest.World)
		offers string
		waited time.Duration
		on     string // empty: it waits
		until  time.Duration
		text   string
	}{
		{"the best of all", everything, "far near replica last attached", 0, "attached", 0, ""},
		{"wait for the best", everything, "far near replica last", 39 * time.Second, "", 40 * time.Second, "for agent attached, where its volumes are attached"},
		{"the best is late", everything, "far near replica last", 40 * time.Second, "last", 0, ""},
		{"all steps are over for a replica", everything, "far near replica", 40 * time.Second, "replica", 0, ""},
		{"anything in the zone", everything, "far near", 40 * time.Second, "near", 0, ""},
		{"no zone known", everything, "far", 40 * time.Second, "far", 0, ""},
		{"only a last agent", func(w *schedtest.World) { w.Volume("v").Last("last") }, "far", 29 * time.Second, "", 30 * time.Second, "agent last"},
		{"its time is over", func(w *schedtest.World) { w.Volume("v").Last("last") }, "far", 30 * time.Second, "far", 0, ""},
		{"last agent under a new id", func(w *schedtest.World) {
			w.Volume("v").Last("last").LastAgent = "id-before-the-reboot"
		}, "far last", 0, "last", 0, ""},
		{"only a zone", func(w *schedtest.World) { w.Volume("v").Zone = "z1" }, "far", 9 * time.Second, "", 10 * time.Second, "in zone z1"},
		{"only a zone, agent in it", func(w *schedtest.World) { w.Volume("v").Zone = "z1" }, "far near", 0, "near", 0, ""},
		{"last agent full", func(w *schedtest.World) {
			w.Volume("v").Last("full")
		}, "far full", 0, "", 30 * time.Second, "agent full.test"},
		{"last agent draining", func(w *schedtest.World) {
			w.Volume("v").Last("last")
			w.Bridge("last").Draining = true
		}, "far last", 0, "far", 0, ""},
		{"nothing known", func(w *schedtest.World) {}, "far", 0, "far", 0, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := schedtest.New()
			w.Policy.Wait = patience
			for _, a := range strings.Fields(c.offers) {
				o := w.Offer(a)
				switch a {
				case "full":
					o.CPUs(0.5).Mem(128)
				case "near":
					o.Usual().In("r", "z1")
				default:
					o.Usual()
				}
			}
			c.build(w)
			i := w.Pending("x").Mounts("v", scheduler.ManyWriters)
			i.Since = w.Now.Add(-c.waited)
			plan := w.Decide()
			if got := schedtest.On(plan)["x"]; got != c.on {
				t.Fatalf("launched on %q, want %q; waiting %+v", got, c.on, plan.Waiting)
			}
			if c.on != "" {
				return
			}
			waits := schedtest.Waits(plan, "x")
			if !waits.Until.Equal(i.Since.Add(c.until)) || !strings.Contains(waits.Text, c.text) {
				t.Errorf("waits until %s with %q, want %s and %q", waits.Until, waits.Text, i.Since.Add(c.until), c.text)
			}
			if schedtest.Reasons(plan, "x")[scheduler.WaitingForPreferred] == 0 {
				t.Errorf("reasons %v, want WaitingForPreferredAgent", waits.Counts)
			}
		})
	}
}

func TestInstanceOverridesTheWait(t *testing.T) {
	w := schedtest.New()
	w.Policy.Wait.LastAttached = time.Hour
	w.Agents("far")
	w.Volume("v").Last("last")
	w.Pending("x").Mounts("v", scheduler.OneTask).Wait = &scheduler.Wait{}
	if on := schedtest.On(w.Decide()); on["x"] != "far" {
		t.Errorf("launched %v, want no wait", on)
	}
}

func TestTheAgentCountsBeforeItsHost(t *testing.T) {
	w := schedtest.New()
	for _, a := range []string{"a1", "a2", "a3", "a4"} {
		w.Offer(a).Usual().Hostname = "shared.test"
	}
	v := w.Volume("v")
	v.LastAgent, v.LastHostname = "a3", "shared.test"
	w.Pending("x").Mounts("v", scheduler.OneTask)
	for seed := range uint64(9) {
		w.Seed = seed
		if on := schedtest.On(w.Decide()); on["x"] != "a3" {
			t.Fatalf("launched %v, want the agent where the volume was, not another on its host", on)
		}
	}
}

func TestMostVolumesDecide(t *testing.T) {
	w := schedtest.New()
	w.Agents("one", "two", "far")
	w.Volume("u").Last("one")
	w.Volume("v").Last("two")
	w.Volume("w").Last("two")
	i := w.Pending("x")
	for _, v := range []string{"u", "v", "w"} {
		i.Mounts(v, scheduler.OneTask)
	}
	plan := w.Decide()
	if on := schedtest.On(plan); on["x"] != "two" {
		t.Errorf("launched %v, want where most of its volumes were", on)
	}
	if why := schedtest.Launched(plan, "x").Why; !strings.Contains(why, "were last on two.test") {
		t.Errorf("why is %q, want the preference", why)
	}
}

// TestHopelessAgentsBesideAbsentOnes has a step of which one agent can never take
// the instance: it waits for the one that has no offer now, if that is as good.
func TestHopelessAgentsBesideAbsentOnes(t *testing.T) {
	cases := []struct {
		name  string
		set   func(w *schedtest.World)
		waits bool
	}{
		{"both offered, one draining", func(w *schedtest.World) {
			w.Agents("other")
			w.Volume("u").AttachedTo = []string{"draining", "other"}
		}, false},
		{"one draining, nothing else", func(w *schedtest.World) { w.Volume("u").AttachedTo = []string{"draining"} }, false},
		{"one draining, the other absent", func(w *schedtest.World) { w.Volume("u").AttachedTo = []string{"draining", "absent"} }, true},
		{"the other's host absent", func(w *schedtest.World) {
			w.Volume("u").AttachedTo = []string{"draining", schedtest.Host("absent")}
		}, true},
		{"as many volumes on the absent one", func(w *schedtest.World) {
			w.Volume("u").AttachedTo = []string{"draining"}
			w.Volume("v").AttachedTo = []string{"absent"}
		}, true},
		{"fewer volumes on the absent one", func(w *schedtest.World) {
			w.Volume("u").AttachedTo = []string{"draining"}
			w.Volume("v").AttachedTo = []string{"draining", "absent"}
		}, false},
		{"last agent draining under a new id", func(w *schedtest.World) {
			w.Volume("u").Last("draining").LastAgent = "its former id"
		}, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := schedtest.New()
			w.Policy.Wait = scheduler.Wait{Attached: time.Minute, LastAttached: time.Minute}
			w.Agents("far", "draining")
			w.Bridge("draining").Draining = true
			w.Bridge("absent")
			c.set(w)
			w.Pending("x").Mounts("u", scheduler.ManyWriters).Mounts("v", scheduler.ManyWriters)
			on := schedtest.On(w.Decide())["x"]
			if waits := on == ""; waits != c.waits || on == "draining" {
				t.Errorf("launched on %q, want to wait: %t", on, c.waits)
			}
		})
	}
}
