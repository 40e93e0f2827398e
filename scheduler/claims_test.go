package scheduler_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/schedtest"
)

// TestClaims is the table of who may launch where while a claim on a1 lives.
func TestClaims(t *testing.T) {
	const other, self = "other", "db"
	cases := []struct {
		name   string
		build  func(w *schedtest.World, i *schedtest.Instance)
		offers string // agents that make an offer
		on     string // where it is launched, empty if it waits
		reason scheduler.Reason
		text   string
	}{
		{"no claim", func(w *schedtest.World, i *schedtest.Instance) {}, "a1", "a1", "", ""},
		{"held by another, offer elsewhere", func(w *schedtest.World, i *schedtest.Instance) {
			w.Claim("v", "a1", scheduler.Held, other)
		}, "a2", "", scheduler.VolumeHeldElsewhere, "held on agent a1.test by instance other"},
		{"held by another, offer of its agent", func(w *schedtest.World, i *schedtest.Instance) {
			w.Claim("v", "a1", scheduler.Held, other)
		}, "a1", "", scheduler.VolumeHeldElsewhere, "when that has stopped"},
		{"held for itself, offer of its agent", func(w *schedtest.World, i *schedtest.Instance) {
			w.Claim("v", "a1", scheduler.Held, self)
		}, "a1", "a1", "", ""},
		{"held for itself, offer elsewhere", func(w *schedtest.World, i *schedtest.Instance) {
			w.Claim("v", "a1", scheduler.Held, self)
		}, "a2", "", scheduler.VolumeHeldElsewhere, "for this instance"},
		{"held by another that shares, offer of its agent", func(w *schedtest.World, i *schedtest.Instance) {
			i.Volumes[0].Access = scheduler.OneAgent
			w.Claim("v", "a1", scheduler.Held, other).Access = scheduler.OneAgent
		}, "a1", "a1", "", ""},
		{"held by another that shares, offer elsewhere", func(w *schedtest.World, i *schedtest.Instance) {
			i.Volumes[0].Access = scheduler.OneAgent
			w.Claim("v", "a1", scheduler.Held, other).Access = scheduler.OneAgent
		}, "a2", "", scheduler.VolumeHeldElsewhere, "shared volume stays on one agent"},
		{"held by another that does not share", func(w *schedtest.World, i *schedtest.Instance) {
			i.Volumes[0].Access = scheduler.OneAgent
			w.Claim("v", "a1", scheduler.Held, other)
		}, "a1", "", scheduler.VolumeHeldElsewhere, "by instance other"},
		{"releasing, offer of its agent", func(w *schedtest.World, i *schedtest.Instance) {
			w.Claim("v", "a1", scheduler.Releasing)
		}, "a1", "a1", "", ""},
		{"releasing, offer elsewhere", func(w *schedtest.World, i *schedtest.Instance) {
			w.Claim("v", "a1", scheduler.Releasing)
		}, "a2", "", scheduler.VolumeReleasing, "is being unmounted on agent a1.test"},
		{"releasing, backend refuses two attachments", func(w *schedtest.World, i *schedtest.Instance) {
			i.Volumes[0].BackendExclusive = true
			w.Claim("v", "a1", scheduler.Releasing)
		}, "a2", "a2", "", ""},
		{"releasing, another still lives", func(w *schedtest.World, i *schedtest.Instance) {
			i.Volumes[0].BackendExclusive = true
			w.Claim("v", "a1", scheduler.Releasing, other)
		}, "a2", "", scheduler.VolumeHeldElsewhere, "by instance other"},
		{"held, backend refuses two attachments", func(w *schedtest.World, i *schedtest.Instance) {
			i.Volumes[0].BackendExclusive = true
			w.Claim("v", "a1", scheduler.Held, other)
		}, "a2", "", scheduler.VolumeHeldElsewhere, "by instance other"},
		{"lost, offer elsewhere", func(w *schedtest.World, i *schedtest.Instance) {
			w.Claim("v", "a1", scheduler.Lost, other)
		}, "a2", "", scheduler.VolumeHeldElsewhere, "unreachable"},
		{"lost, own agent back", func(w *schedtest.World, i *schedtest.Instance) {
			w.Claim("v", "a1", scheduler.Lost, self)
		}, "a1", "a1", "", ""},
		{"lost, backend refuses two attachments", func(w *schedtest.World, i *schedtest.Instance) {
			i.Volumes[0].BackendExclusive = true
			w.Claim("v", "a1", scheduler.Lost, other)
		}, "a2", "a2", "", ""},
		{"fence not expired", func(w *schedtest.World, i *schedtest.Instance) {
			w.Claim("v", "a1", scheduler.Fenced, other).FenceAt = w.Now.Add(time.Minute)
		}, "a2", "", scheduler.FenceNotExpired, "until its fence expires at 2026-01-02 03:05:05 UTC"},
		{"fence expired", func(w *schedtest.World, i *schedtest.Instance) {
			w.Claim("v", "a1", scheduler.Fenced, other).FenceAt = w.Now
		}, "a2", "a2", "", ""},
		{"many writers need no claim", func(w *schedtest.World, i *schedtest.Instance) {
			i.Volumes[0].Access = scheduler.ManyWriters
		}, "a2", "a2", "", ""},
		{"held, a volume of that name of another driver", func(w *schedtest.World, i *schedtest.Instance) {
			w.Claim("v", "a1", scheduler.Held, other).Key.Driver = "another"
			v := w.Volume("v").Last("a1")
			v.Local, v.Key.Driver = true, "another"
		}, "a2", "a2", "", ""},
		{"many readers need no claim", func(w *schedtest.World, i *schedtest.Instance) {
			i.Volumes[0].Access, i.Volumes[0].ReadOnly = scheduler.ManyReaders, true
		}, "a2", "a2", "", ""},
		{"a reader while a task writes elsewhere", func(w *schedtest.World, i *schedtest.Instance) {
			i.Volumes[0].Access, i.Volumes[0].ReadOnly = scheduler.ManyReaders, true
			w.Claim("v", "a1", scheduler.Held, other)
		}, "a2", "", scheduler.VolumeHeldElsewhere, "by instance other"},
		{"a writer of a volume for readers, beside another on its agent", func(w *schedtest.World, i *schedtest.Instance) {
			i.Volumes[0].Access = scheduler.ManyReaders
			w.Claim("v", "a1", scheduler.Held, other).Access = scheduler.OneAgent
		}, "a1", "", scheduler.VolumeHeldElsewhere, "by instance other"},
		{"releasing, its agent under a new id", func(w *schedtest.World, i *schedtest.Instance) {
			w.Claim("v", "id-before-the-reboot", scheduler.Releasing).Hostname = "a1.test"
		}, "a1", "", scheduler.VolumeReleasing, "is being unmounted on agent a1.test"},
		{"mounted by a stranger, offer elsewhere", func(w *schedtest.World, i *schedtest.Instance) {
			w.Bridge("a1")
			w.Volume("v").AttachedTo = []string{"a1"}
		}, "a2", "", scheduler.VolumeHeldElsewhere, "by somebody outside of this framework"},
		{"mounted by a stranger, offer of that agent", func(w *schedtest.World, i *schedtest.Instance) {
			w.Bridge("a1")
			w.Volume("v").AttachedTo = []string{"a1"}
		}, "a1", "a1", "", ""},
		{"mounted where no bridge answers", func(w *schedtest.World, i *schedtest.Instance) {
			w.Volume("v").AttachedTo = []string{"a1"}
		}, "a2", "a2", "", ""},
		{"local, offer elsewhere", func(w *schedtest.World, i *schedtest.Instance) {
			w.Volume("v").Last("a1").Local = true
		}, "a2", "", scheduler.VolumeIsLocal, "exists on agent a1.test only"},
		{"local, offer of its agent under a new id", func(w *schedtest.World, i *schedtest.Instance) {
			v := w.Volume("v").Last("a2")
			v.Local, v.LastAgent = true, "id-before-the-reboot"
		}, "a2", "a2", "", ""},
		{"local, never used", func(w *schedtest.World, i *schedtest.Instance) {
			w.Volume("v").Local = true
		}, "a2", "a2", "", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := schedtest.New()
			w.Agents(strings.Fields(c.offers)...)
			i := w.Pending(self).Mounts("v", scheduler.OneTask)
			c.build(w, i)
			plan := w.Decide()
			if got := schedtest.On(plan)[self]; got != c.on {
				t.Fatalf("launched on %q, want %q; plan %+v", got, c.on, plan)
			}
			if c.on != "" {
				return
			}
			if got := schedtest.Reasons(plan, self); !maps.Equal(got, map[scheduler.Reason]int{c.reason: 1}) {
				t.Errorf("reasons %v, want one agent with %s", got, c.reason)
			}
			text := schedtest.Waits(plan, self).Text
			if !strings.Contains(text, c.text) || !strings.Contains(text, "volume v") {
				t.Errorf("text %q, want %q in it", text, c.text)
			}
		})
	}
}

func TestLaunchesOfOnePlanSeeEachOthersClaims(t *testing.T) {
	w := schedtest.New()
	w.Agents("a1", "a2")
	w.Pending("x").Mounts("v", scheduler.OneTask)
	w.Pending("y").Mounts("v", scheduler.OneTask)
	plan := w.Decide()
	if on := schedtest.On(plan); len(on) != 1 || on["x"] == "" {
		t.Fatalf("launched %v, want x alone", on)
	}
	if text := schedtest.Waits(plan, "y").Text; !strings.Contains(text, "by instance x") {
		t.Errorf("y waits for %q, want x named", text)
	}
}

func TestSharedVolumeKeepsItsTasksOnOneAgent(t *testing.T) {
	w := schedtest.New()
	w.Agents("a1", "a2", "a3")
	for _, id := range []string{"x", "y", "z"} {
		w.Pending(id).Mounts("v", scheduler.OneAgent)
	}
	on := schedtest.On(w.Decide())
	if len(on) != 3 || on["x"] != on["y"] || on["y"] != on["z"] {
		t.Errorf("launched %v, want all three on one agent", on)
	}
}

func TestSharersFollowAnExclusiveTask(t *testing.T) {
	w := schedtest.New()
	w.Agents("a1")
	w.Claim("v", "a1", scheduler.Releasing)
	w.Pending("x").Mounts("v", scheduler.OneAgent)
	w.Pending("y").Mounts("v", scheduler.OneAgent)
	if on := schedtest.On(w.Decide()); len(on) != 2 {
		t.Errorf("launched %v, want both: the exclusive task has ended", on)
	}
}

// TestOneInstanceDoesNotSpeakForOthersLikeIt has two instances that differ in
// nothing but their volumes; a claim that binds to no agent still makes one
// fail, or pass, where the other would not.
func TestOneInstanceDoesNotSpeakForOthersLikeIt(t *testing.T) {
	t.Run("the claim is in the way", func(t *testing.T) {
		w := schedtest.New()
		w.Agents("a1")
		w.Claim("v", "a1", scheduler.Fenced, "other").FenceAt = w.Now
		w.Pending("x").Mounts("v", scheduler.OneTask).Since = w.Now.Add(-1)
		w.Pending("y").Mounts("u", scheduler.OneTask)
		if on := schedtest.On(w.Decide()); len(on) != 1 || on["y"] != "a1" {
			t.Errorf("launched %v, want y", on)
		}
	})
	t.Run("the claim helps", func(t *testing.T) {
		w := schedtest.New()
		w.Agents("a1")
		w.Bridge("a1").Drivers[0] = scheduler.DriverFact{Name: "drv", Healthy: true, AttachLimit: 1, Attached: 1}
		w.Claim("v", "a1", scheduler.Fenced).FenceAt = w.Now
		w.Pending("x").Mounts("v", scheduler.OneTask)
		w.Pending("y").Mounts("u", scheduler.OneTask).Since = w.Now.Add(-1)
		if on := schedtest.On(w.Decide()); len(on) != 1 || on["x"] != "a1" {
			t.Errorf("launched %v, want x", on)
		}
	})
}

func TestSeveralVolumesHaveToAgree(t *testing.T) {
	w := schedtest.New()
	w.Agents("a1", "a2")
	w.Claim("v", "a1", scheduler.Releasing)
	w.Claim("u", "a2", scheduler.Releasing)
	w.Pending("x").Mounts("v", scheduler.OneTask).Mounts("u", scheduler.OneTask)
	plan := w.Decide()
	if on := schedtest.On(plan); len(on) != 0 {
		t.Fatalf("launched %v, want to wait", on)
	}
	if text := schedtest.Waits(plan, "x").Text; !strings.Contains(text, "volume v") || !strings.Contains(text, "volume u") {
		t.Errorf("text %q, want both volumes", text)
	}
}

func TestBackOff(t *testing.T) {
	w := schedtest.New()
	w.Agents("a1")
	w.Pending("x").NotBefore = w.Now.Add(time.Second)
	plan := w.Decide()
	waits := schedtest.Waits(plan, "x")
	if waits == nil || waits.Counts[0].Reason != scheduler.BackingOff || !waits.Until.Equal(w.Now.Add(time.Second)) {
		t.Errorf("waits %+v, want BackingOff until the end of the back-off", waits)
	}
	w.Now = w.Now.Add(time.Second)
	if on := schedtest.On(w.Decide()); on["x"] != "a1" {
		t.Errorf("launched %v when the back-off has ended, want x on a1", on)
	}
}
