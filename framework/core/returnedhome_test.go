package core

import (
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// homeless has an app stopped whose volume exists on a host only, of which the agent
// is lost.
type homeless struct {
	*rig
	first TaskView
}

func withHomeless(t *testing.T, test func(t *testing.T, h *homeless)) {
	t.Helper()
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.bound(app.VolumeClass{Driver: "ref", Scope: app.ScopeLocal})
		test(t, &homeless{r, r.stranded(nil)})
	})
}

// comeBack has the host register with a new id of its agent.
func (h *homeless) comeBack(cpus float64) {
	h.cluster.set(func(c *cluster) { c.agents["S2"] = &agent{id: "S2", host: h.first.Host, cpus: cpus, mem: 8192} })
}

func (h *homeless) markGone() { h.cluster.markGone(h.first.AgentID) }

// A local volume is on its host also when the agent there has another id, whether
// the former one is marked gone before or after that.
func TestLocalVolumeOfAHostWithANewID(t *testing.T) {
	for name, events := range map[string]func(h *homeless){
		"back, then gone": func(h *homeless) {
			h.comeBack(0.1) // full
			h.pass(time.Minute)
			h.markGone()
			h.scale("/db", 1)
		},
		"back, then gone while it waits": func(h *homeless) {
			h.scale("/db", 1)
			h.comeBack(0.1)
			h.pass(time.Minute)
			h.markGone()
		},
		"gone, then back in a moment": func(h *homeless) {
			h.scale("/db", 1)
			h.pass(time.Minute)
			h.markGone()
			h.pass(3 * time.Second)
			h.comeBack(0.1)
		},
		"gone, and back after hours": func(h *homeless) {
			h.markGone()
			h.pass(3 * time.Hour)
			h.restart()
			h.comeBack(0.1)
			h.scale("/db", 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			withHomeless(t, func(t *testing.T, h *homeless) {
				events(h)
				h.pass(5 * time.Minute)
				if live := h.cluster.liveTasks("/db"); len(live) > 0 {
					t.Fatalf("it runs without its data: %v", live)
				}
				if text := h.waitsFor(scheduler.VolumeIsLocal); !strings.Contains(text, "exists on agent "+h.first.Host) {
					t.Errorf("it is explained by: %s", text)
				}
				h.cluster.set(func(c *cluster) { c.agents["S2"].cpus = 8 })
				if now := h.running("/db"); now.AgentID != "S2" {
					t.Errorf("it runs on %s", now.AgentID)
				}
			})
		})
	}
}

// Without its host an app waits a moment for it, and says so, and then starts with a
// new volume elsewhere.
func TestLocalVolumeOfAHostThatIsGone(t *testing.T) {
	withHomeless(t, func(t *testing.T, h *homeless) {
		h.scale("/db", 1)
		h.waitsFor(scheduler.VolumeIsLocal)
		h.markGone()
		h.until("the queue to tell", func() bool {
			q := h.queue()
			return len(q) == 1 && len(q[0].Waiting) == 1 && strings.Contains(q[0].Waiting[0].Text, "for the host of its local volumes")
		})
		h.elsewhere(h.first)
		h.comeBack(8)
		h.pass(time.Minute)
		if now := h.running("/db"); now.AgentID == "S2" {
			t.Error("it went back")
		}
	})
}

// A host that has not come back for a day is not waited for any more.
func TestLocalVolumeOfAHostThatIsGoneForADay(t *testing.T) {
	withHomeless(t, func(t *testing.T, h *homeless) {
		bound := func() []BoundView {
			list, err := h.core.Bound(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return list
		}
		h.markGone()
		h.until("the volume is on a host that is gone", func() bool {
			list := bound()
			return len(list) == 1 && strings.Contains(list[0].Text, "was marked gone")
		})
		h.pass(25 * time.Hour)
		if list := bound(); len(list) != 0 {
			t.Errorf("still known: %+v", list)
		}
	})
}
