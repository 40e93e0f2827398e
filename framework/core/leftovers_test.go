package core

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

const (
	kept = `{"id":"/kept","role":"r","cmd":"run","cpus":1,"mem":64,"backoffSeconds":1,"maxLaunchDelaySeconds":5,
	"container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW","persistent":{"size":100}}]}}`
	// big waits for ever, so that offers come.
	big = `{"id":"/big","role":"r","cmd":"run","cpus":100,"mem":64}`
)

// inRole runs a test in a cluster of two agents that offers to one role.
func inRole(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		if err := r.halt(); err != nil {
			t.Fatal(err)
		}
		r.cfg.DefaultRole = "r"
		r.cluster.set(func(c *cluster) { c.role = "r" })
		r.start()
		test(t, r)
	})
}

// postIn posts an app of the role.
func (r *rig) postIn(body string) {
	r.t.Helper()
	a, err := app.Parse([]byte(body), app.Options{Role: "r"})
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.core.Change(r.t.Context(), Change{Upsert: []*app.App{a}}); err != nil {
		r.t.Fatal(err)
	}
}

// late is an instance whose reservation on one agent was given up, and which runs
// on another.
func (r *rig) late() (first string, now TaskView) {
	r.t.Helper()
	r.cluster.set(func(c *cluster) { c.swallow = true })
	r.postIn(kept)
	r.until("it was tried", func() bool { return r.cluster.launched() == 1 })
	r.cluster.set(func(c *cluster) {
		for _, a := range c.agents {
			if len(a.late) > 0 {
				first, a.cpus = a.id, 0 // no place for the next attempt
			}
		}
		c.swallow = false
	})
	return first, r.running("/kept")
}

// A reservation that was accepted and that no offer shows is waited for until its
// time is over, and told of in the queue; then another is made elsewhere.
func TestReservationThatIsNotSeenIsGivenUp(t *testing.T) {
	inRole(t, func(t *testing.T, r *rig) {
		r.cluster.set(func(c *cluster) { c.swallow = true })
		r.postIn(kept)
		var text string
		r.until("the queue to say what is waited for", func() bool {
			q := r.queue()
			if len(q) != 1 || len(q[0].Waiting) != 1 {
				return false
			}
			text = q[0].Waiting[0].Text
			return slices.ContainsFunc(q[0].Waiting[0].Counts, func(n scheduler.ReasonCount) bool { return n.Reason == scheduler.NoReservationFound })
		})
		if !strings.Contains(text, "offers what was reserved") {
			t.Errorf("the queue says %q", text)
		}
		tried := r.cluster.launched()
		r.pass(r.core.cfg.Policy.ReservationTimeout / 2)
		if n := r.cluster.launched(); n != tried || tried != 1 {
			t.Errorf("%d launches, %d before half of the time was over", n, tried)
		}
		r.cluster.set(func(c *cluster) { c.swallow = false })
		r.pass(r.core.cfg.Policy.ReservationTimeout)
		r.running("/kept")
		if n := r.cluster.launched(); n != 2 {
			t.Errorf("%d launches", n)
		}
	})
}

// What comes of a given up reservation when the instance has another: without
// data it is unreserved; a volume stays, is told of once and listed, also after a
// restart, and is no instance to take over, until it is gone.
func TestReservationThatComesLate(t *testing.T) {
	inRole(t, func(t *testing.T, r *rig) {
		first, now := r.late()
		if now.AgentID == first {
			t.Fatalf("it runs on %s", first)
		}
		r.postIn(big)
		r.cluster.set(func(c *cluster) {
			a := c.agents[first]
			a.cpus, a.reserved = 8, a.late
		})
		listed := func() bool {
			list, err := r.core.Leftovers(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return len(list) == 1 && list[0].AgentID == first && list[0].InstanceID == now.InstanceID &&
				slices.Equal(list[0].PersistenceIDs, []string{now.Local[0].PersistenceID}) &&
				list[0].Bytes == 100<<20 && strings.Contains(list[0].Text, "has its volumes on agent "+now.Host)
		}
		r.until("it is listed", listed)
		r.until("the rest is unreserved", func() (only bool) {
			r.cluster.set(func(c *cluster) {
				have := c.agents[first].reserved
				only = len(have) == 1 && have[0].IsPersistent()
			})
			return only
		})
		if err := r.halt(); err != nil {
			t.Fatal(err)
		}
		r.cfg.Adopt = []string{"theirs"}
		r.start()
		r.until("it is listed after a restart", listed)
		if again := r.running("/kept"); again.ID != now.ID || again.AgentID != now.AgentID {
			t.Errorf("%s on %s, was %s on %s", again.ID, again.AgentID, now.ID, now.AgentID)
		}
		r.cluster.set(func(c *cluster) { c.agents[first].reserved = nil })
		r.pass(time.Minute)
		if list, err := r.core.Leftovers(t.Context()); err != nil || len(list) != 0 {
			t.Errorf("still listed: %+v, %v", list, err)
		}
	})
}

// A stopped instance's late reservation is none of its own either.
func TestLateReservationOfAStoppedInstance(t *testing.T) {
	inRole(t, func(t *testing.T, r *rig) {
		first, _ := r.late()
		r.scale("/kept", 0)
		r.idle()
		r.postIn(big)
		r.cluster.set(func(c *cluster) {
			a := c.agents[first]
			a.cpus, a.reserved = 8, a.late
		})
		r.until("it is listed", func() bool {
			list, err := r.core.Leftovers(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return len(list) == 1 && list[0].AgentID == first
		})
	})
}

// A volume that is bound to its agent is listed when nobody claims it any more.
func TestBoundVolumesAreListed(t *testing.T) {
	withBridges(t, func(t *testing.T, r *rig, f *fakeBridges) {
		bound := func() []BoundView {
			list, err := r.core.Bound(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return list
		}
		f.set(func() { f.scopes("local") })
		r.post(db)
		r.running("/db")
		if list := bound(); len(list) != 0 {
			t.Errorf("listed while it is claimed: %+v", list)
		}
		first := r.stranded(f)
		list := bound()
		if len(list) != 1 || list[0].Key != volKey || list[0].App != "/db" || list[0].AgentID != first.AgentID || list[0].Hostname != first.Host ||
			list[0].Epoch == 0 || list[0].Zone != "" {
			t.Fatalf("listed %+v, was on %s", list, first.AgentID)
		}
		if !strings.Contains(list[0].Text, "exists on agent "+first.Host) || !strings.Contains(list[0].Text, "DELETE /v2/volumes/ref/vol/claim?force=true") {
			t.Errorf("text %q", list[0].Text)
		}
		if err := r.core.ReleaseClaim(t.Context(), volKey, true); err != nil {
			t.Fatal(err)
		}
		if list := bound(); len(list) != 0 {
			t.Errorf("listed when it is forgotten: %+v", list)
		}
	})
}

// A reservation that never came is nothing to keep an instance for, which others
// would wait for whose volume it seems to have.
func TestStoppedInstanceWhoseReservationNeverCame(t *testing.T) {
	inRole(t, func(t *testing.T, r *rig) {
		r.cluster.set(func(c *cluster) { c.swallow = true })
		r.postIn(`{"id":"/kept","role":"r","cmd":"run","cpus":1,"mem":64,"instances":2,"backoffSeconds":1,"maxLaunchDelaySeconds":5,
			"container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW","persistent":{"size":100,"shared":true}}]}}`)
		r.until("both were tried", func() bool { return r.cluster.launched() >= 2 })
		one := *r.app("/kept").App
		one.Instances = 1
		if _, err := r.core.Change(t.Context(), Change{Upsert: []*app.App{&one}, Force: true}); err != nil {
			t.Fatal(err)
		}
		r.pass(r.core.cfg.Policy.ReservationTimeout / 2)
		r.cluster.set(func(c *cluster) { c.swallow = false })
		r.running("/kept")
		kept, err := look(t.Context(), r.core, func(*txn) (int, error) { return len(r.core.state.instances), nil })
		if err != nil || kept != 1 {
			t.Errorf("%d instances are kept, %v", kept, err)
		}
	})
}
