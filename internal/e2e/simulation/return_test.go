package simulation_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/simulated"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// returning has an instance of /kept on one of two agents, whose host is lost and
// whose agent's id is marked gone: before it is back with a new id, after that, or
// never.
type returning struct {
	*world
	first core.TaskView
	host  *simulated.Agent
	oldID string
}

func onReturn(t *testing.T, prepare func(r *returning), test func(t *testing.T, r *returning)) {
	t.Helper()
	withAgents(t, 2, scheduler.Policy{}, func(t *testing.T, w *world) {
		w.upsert(w.parse(fmt.Sprintf(kept, 1)))
		r := &returning{world: w, first: w.runs("/kept", 1)[0]}
		r.host, r.oldID = w.agent(r.first.AgentID), r.first.AgentID
		prepare(r)
		test(t, r)
	})
}

func (r *returning) lose() {
	r.host.LoseHost()
	r.down[r.host] = true
	r.pass(3 * time.Minute)
}

func (r *returning) markGone() {
	r.t.Helper()
	if err := r.cluster.MarkAgentGone(r.t.Context(), r.oldID); err != nil {
		r.t.Fatal(err)
	}
}

func (r *returning) comeBack() {
	r.t.Helper()
	r.host.StartHostAnew()
	delete(r.down, r.host)
	r.until("it registers anew", time.Minute, func() bool { id := r.host.ID(); return id != "" && id != r.oldID })
}

func (r *returning) scale(n int) { r.edit("/kept", func(a *app.App) { a.Instances = n }) }

// same fails unless the instance runs on its volumes under the agent's new id.
func (r *returning) same() {
	r.t.Helper()
	now := r.runs("/kept", 1)[0]
	if now.AgentID != r.host.ID() || now.InstanceID != r.first.InstanceID || !slices.Equal(now.Local, r.first.Local) {
		r.t.Errorf("runs on %s, was on %s, whose new id is %s", home(now), home(r.first), r.host.ID())
	}
	if existing, destroyed, _ := r.disks(); len(existing) != 2 || len(destroyed) != 0 {
		r.t.Errorf("volumes %v, destroyed %v", existing, destroyed)
	}
}

// TestVolumesOfAHostWithANewID has the old id marked gone before and after the
// new one offers what the host has, for an instance that runs and one that is
// stopped: it has its volumes again each time. The order decides nothing.
func TestVolumesOfAHostWithANewID(t *testing.T) {
	for _, stopped := range []bool{false, true} {
		for name, events := range map[string]func(r *returning){
			"back, then gone": func(r *returning) {
				r.comeBack()
				r.pass(2 * time.Minute)
				r.markGone()
			},
			"back and gone at once": func(r *returning) {
				r.comeBack()
				r.markGone()
			},
			"gone, then back at once": func(r *returning) {
				r.markGone()
				r.comeBack()
			},
			"gone, then back in a moment": func(r *returning) {
				r.markGone()
				r.pass(3 * time.Second)
				r.comeBack()
			},
			"back, never marked gone": func(r *returning) { r.comeBack() },
			"back after a restart of the framework": func(r *returning) {
				r.comeBack()
				r.pass(time.Minute)
				r.stopFramework()
				r.markGone()
				r.startFramework()
			},
		} {
			if name == "back, never marked gone" && !stopped {
				continue // its task may come back with the old id
			}
			t.Run(fmt.Sprintf("%s/stopped %t", name, stopped), func(t *testing.T) {
				onReturn(t, func(r *returning) {
					if stopped {
						r.scale(0)
						r.runs("/kept", 0)
					}
					r.lose()
				}, func(t *testing.T, r *returning) {
					events(r)
					if stopped {
						r.pass(time.Minute)
						r.scale(1)
					}
					r.same()
				})
			})
		}
	}
}

// TestStoppedInstanceWaitsForItsHostADay has a stopped instance's agent marked
// gone: hours later it is back with the volumes, or it never is.
func TestStoppedInstanceWaitsForItsHostADay(t *testing.T) {
	for _, back := range []bool{true, false} {
		t.Run(fmt.Sprintf("back %t", back), func(t *testing.T) {
			onReturn(t, func(r *returning) {
				r.scale(0)
				r.runs("/kept", 0)
				r.lose()
			}, func(t *testing.T, r *returning) {
				r.markGone()
				r.pass(time.Hour)
				if back {
					r.comeBack()
					r.pass(time.Minute)
					r.scale(1)
					r.same()
					return
				}
				r.pass(24 * time.Hour)
				if left := r.view("/kept").Tasks; len(left) != 0 {
					t.Errorf("still kept: %+v", left)
				}
				r.scale(1)
				if now := r.runs("/kept", 1)[0]; now.InstanceID == r.first.InstanceID {
					t.Errorf("runs as %s", now.ID)
				}
			})
		})
	}
}

// TestWipeOnAHostWithANewID has an instance wiped whose agent is back with a new
// id, which is known before, while or after the wipe is asked for: its data is
// destroyed, and nothing is left of it in the framework.
func TestWipeOnAHostWithANewID(t *testing.T) {
	wipe := func(r *returning) {
		existing, _, _ := r.disks()
		for _, id := range existing {
			r.wiped[id] = true
		}
		if _, err := r.core.Change(r.t.Context(), core.Change{Delete: []app.ID{"/kept"}, Wipe: true, Force: true}); err != nil {
			r.t.Fatal(err)
		}
	}
	for name, events := range map[string][]func(r *returning){
		"wipe, back":       {wipe, (*returning).comeBack},
		"back, wipe":       {(*returning).comeBack, wipe},
		"wipe, gone, back": {wipe, (*returning).markGone, (*returning).comeBack},
		"gone, wipe, back": {(*returning).markGone, wipe, (*returning).comeBack},
		"back, gone, wipe": {(*returning).comeBack, (*returning).markGone, wipe},
	} {
		t.Run(name, func(t *testing.T) {
			onReturn(t, func(r *returning) {
				r.scale(0)
				r.runs("/kept", 0)
				r.lose()
			}, func(t *testing.T, r *returning) {
				for _, event := range events {
					event(r)
					r.pass(time.Minute)
				}
				r.until("everything is destroyed and forgotten", 5*time.Minute, func() bool {
					existing, destroyed, reserved := r.disks()
					return len(existing) == 0 && len(destroyed) == 2 && reserved == 0
				})
				r.upsert(r.parse(fmt.Sprintf(kept, 0)))
				r.until("the instance is forgotten", 5*time.Minute, func() bool { return len(r.view("/kept").Tasks) == 0 })
			})
		})
	}
}

// TestScaledAwayBeforeTheHostIsBack has the instance stopped while it waits for
// its volumes: it is kept for them as one that was stopped before.
func TestScaledAwayBeforeTheHostIsBack(t *testing.T) {
	for name, stop := range map[string]func(r *returning){
		"scaled to 0": func(r *returning) { r.scale(0) },
		"deleted": func(r *returning) {
			if _, err := r.core.Change(r.t.Context(), core.Change{Delete: []app.ID{"/kept"}, Force: true}); err != nil {
				r.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			onReturn(t, (*returning).lose, func(t *testing.T, r *returning) {
				r.markGone()
				r.pass(3 * time.Second)
				stop(r)
				r.pass(time.Minute)
				r.comeBack()
				r.pass(time.Minute)
				if name == "deleted" {
					r.upsert(r.parse(fmt.Sprintf(kept, 1)))
				} else {
					r.scale(1)
				}
				r.same()
			})
		})
	}
}

// TestWipeBeforeTheHostIsBack has an instance wiped while it waits for its volumes:
// they are destroyed when they are back.
func TestWipeBeforeTheHostIsBack(t *testing.T) {
	onReturn(t, (*returning).lose, func(t *testing.T, r *returning) {
		existing, _, _ := r.disks()
		for _, id := range existing {
			r.wiped[id] = true
		}
		r.markGone()
		r.pass(3 * time.Second)
		if _, err := r.core.Change(r.t.Context(), core.Change{Delete: []app.ID{"/kept"}, Wipe: true, Force: true}); err != nil {
			r.t.Fatal(err)
		}
		r.pass(time.Minute)
		r.comeBack()
		r.until("everything is destroyed", 5*time.Minute, func() bool {
			existing, destroyed, reserved := r.disks()
			return len(existing) == 0 && len(destroyed) == 2 && reserved == 0
		})
	})
}
