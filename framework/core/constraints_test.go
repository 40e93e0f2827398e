package core

import (
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/scheduler"
)

// TestUnreachableInstancesDoNotCount has the only instance that a zone may have
// become unreachable: its replacement goes to the same zone, as Marathon counts
// reachable instances alone, and one of the two ends when the first is back.
func TestUnreachableInstancesDoNotCount(t *testing.T) {
	for _, constraint := range []string{`["@zone","UNIQUE"]`, `["@zone","MAX_PER","1"]`, `["@zone","GROUP_BY","1"]`} {
		inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
			r.cluster.set(func(c *cluster) {
				for _, a := range c.agents {
					a.zone = "z"
				}
			})
			r.post(`{"id":"/web","cmd":"serve","cpus":1,"mem":64,"constraints":[` + constraint + `],
				"unreachableStrategy":{"inactiveAfterSeconds":60,"expungeAfterSeconds":600}}`)
			first := r.running("/web")
			r.idle()
			r.pass(20 * time.Second) // offers come again
			r.cluster.partition(first.AgentID)
			r.until("replaced", func() bool { return len(r.cluster.liveTasks("/web")) == 2 })
			r.cluster.heal(first.AgentID)
			r.until("one is left", func() bool { return len(r.cluster.liveTasks("/web")) == 1 })
			r.until("it runs", func() bool { return r.app("/web").Running == 1 })
		})
	}
}

// TestGroupsTakeTheirPartOnly scales an app that is to be spread over two zones,
// of which there is one: half of it runs, the rest says why it waits, and runs
// when the other zone is there.
func TestGroupsTakeTheirPartOnly(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		zone := func(z string, hosts ...string) {
			r.cluster.set(func(c *cluster) {
				for _, a := range c.agents {
					for _, h := range hosts {
						if a.host == h {
							a.zone = z
						}
					}
				}
			})
		}
		zone("z1", "a", "b")
		r.post(`{"id":"/web","cmd":"serve","cpus":0.1,"mem":32,"instances":4,"constraints":[["@zone","GROUP_BY","2"]]}`)
		r.until("half of them run", func() bool { return r.app("/web").Running == 2 })
		r.pass(time.Minute)
		if n := r.app("/web").Running; n != 2 {
			t.Fatalf("%d run in one of two zones, want 2", n)
		}
		if w := r.queue()[0].Waiting[0]; len(w.Counts) != 1 || w.Counts[0].Reason != scheduler.UnfulfilledConstraint {
			t.Errorf("waits for %+v, want the constraint", w)
		}
		zone("z2", "b")
		r.until("all run", func() bool { return r.app("/web").Running == 4 })
	})
}
