package core

import (
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/scheduler"
)

// patient starts a cluster whose framework waits for the agent that a volume was
// last on, and whose claims end at once.
func patient(t *testing.T, wait time.Duration, test func(t *testing.T, r *rig)) {
	t.Helper()
	withBridges(t, func(t *testing.T, r *rig, f *fakeBridges) {
		if err := r.halt(); err != nil {
			t.Fatal(err)
		}
		r.cfg.Policy.Wait = scheduler.Wait{LastAttached: wait}
		f.set(func() { f.released = true })
		r.start()
		test(t, r)
	})
}

// fill leaves no room on an agent.
func (r *rig) fill(agentID string, full bool) {
	r.cluster.set(func(c *cluster) {
		c.agents[agentID].cpus = 8
		if full {
			c.agents[agentID].cpus = 0
		}
	})
}

// An instance whose back-off was longer than its patience waits for the agent
// where its volume was all the same, and no longer than its patience.
func TestPatienceCountsFromTheEndOfTheBackOff(t *testing.T) {
	for _, back := range []bool{true, false} {
		patient(t, 30*time.Second, func(t *testing.T, r *rig) {
			r.post(`{"id":"/db","cmd":"run","cpus":1,"mem":64,"backoffSeconds":60,"backoffFactor":1,"container":{"type":"MESOS","volumes":[
				{"containerPath":"data","mode":"RW","external":{"provider":"dvdi","name":"vol","options":{"dvdi/driver":"ref"}}}]}}`)
			first := r.running("/db")
			r.idle()
			r.fill(first.AgentID, true)
			r.cluster.end("/db", taskFailed)
			r.pass(75 * time.Second)
			if n := r.cluster.launched(); n != 1 {
				t.Fatalf("%d launches: it did not wait for its agent when its back-off was over", n)
			}
			r.waitsFor(scheduler.WaitingForPreferred)
			r.fill(first.AgentID, !back)
			r.pass(30 * time.Second)
			if now := r.running("/db"); (now.AgentID == first.AgentID) != back {
				t.Errorf("back %t: was on %s, is on %s", back, first.AgentID, now.AgentID)
			}
		})
	}
}

// The failures of another instance, which prolong the app's back-off for ever, do
// not prolong the wait for an agent, neither once the back-off was over nor before.
func TestPatienceEndsBesideACrashLoop(t *testing.T) {
	const body = `{"id":"/shards","cmd":"run","cpus":1,"mem":64,"instances":2,"backoffSeconds":10,"backoffFactor":1,"maxLaunchDelaySeconds":60,
		"container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW",
		"external":{"provider":"dvdi","name":"shard-${instance}","options":{"dvdi/driver":"ref"}}}]}}`
	patient(t, 2*time.Minute, func(t *testing.T, r *rig) {
		r.post(body)
		r.idle()
		victim := r.app("/shards").Tasks[0]
		r.fill(victim.AgentID, true)
		r.cluster.end("/shards", taskFailed)
		began := time.Now()
		ran := false
		for !ran && time.Since(began) < 10*time.Minute {
			r.pass(5 * time.Second)
			for _, task := range r.app("/shards").Tasks {
				ran = ran || task.InstanceID == victim.InstanceID
			}
			if !ran {
				r.cluster.end("/shards", taskFailed)
			}
		}
		if took := time.Since(began); !ran || took < 2*time.Minute || took > 2*time.Minute+40*time.Second {
			t.Errorf("launched elsewhere: %t, after %s; want about two minutes from the end of the first back-off", ran, took)
		}
	})
}

// waitFrom is bounded by the app's greatest delay while others prolong the back-off.
func TestPatienceIsBoundedByTheGreatestDelay(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		r.post(`{"id":"/big","cmd":"run","cpus":100,"mem":64,"maxLaunchDelaySeconds":60}`)
		err := r.core.do(t.Context(), func(tx *txn) error {
			i := r.core.state.instancesOf("/big")[0]
			rec := r.core.state.apps["/big"]
			for _, c := range []struct{ until, ready, want time.Duration }{
				{0, 0, 0}, {30 * time.Second, 0, 30 * time.Second}, {time.Hour, 0, time.Minute}, {time.Hour, 20 * time.Second, 20 * time.Second},
			} {
				rec.Backoff = backoff{Config: i.Config, Until: i.Since.Add(c.until)}
				i.Ready = time.Time{}
				if c.ready > 0 {
					i.Ready = i.Since.Add(c.ready)
				}
				if got := r.core.waitFrom(i, rec.App).Sub(i.Since); got != c.want {
					t.Errorf("%+v: %s", c, got)
				}
			}
			rec.Backoff, i.Ready = backoff{}, time.Time{}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
