package core

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// bound is db with a class.
func (r *rig) bound(class app.VolumeClass) {
	r.t.Helper()
	class, err := class.Complete("kind")
	if err != nil {
		r.t.Fatal(err)
	}
	a, err := app.Parse([]byte(strings.Replace(db, `"dvdi/driver":"ref"`, `"dvdi/class":"kind"`, 1)),
		app.Options{Classes: map[string]app.VolumeClass{"kind": class}})
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.core.Change(r.t.Context(), Change{Upsert: []*app.App{a}, Force: true}); err != nil {
		r.t.Fatal(err)
	}
}

// waitsFor waits until the only thing in the queue waits for a reason, and
// returns its text.
func (r *rig) waitsFor(reason scheduler.Reason) (text string) {
	r.t.Helper()
	last := ""
	r.until(fmt.Sprintf("it waits for %s, not %s", reason, last), func() bool {
		q := r.queue()
		if len(q) != 1 || len(q[0].Waiting) != 1 {
			return false
		}
		text = q[0].Waiting[0].Text
		last = fmt.Sprint(q[0].Waiting[0].Counts, text)
		for _, c := range q[0].Waiting[0].Counts {
			if c.Reason == reason {
				return true
			}
		}
		return false
	})
	return text
}

// stopped has db end, its volume unmounted, and its agent unreachable.
func (r *rig) stranded(f *fakeBridges) (first TaskView) {
	r.t.Helper()
	first = r.running("/db")
	r.idle()
	if f != nil {
		f.set(func() { f.released = true })
	}
	r.scale("/db", 0)
	r.idle()
	if f == nil {
		claim := r.onlyClaim()
		if err := r.core.VolumeReleased(r.t.Context(), volKey, claim.AgentID, claim.Epoch); err != nil {
			r.t.Fatal(err)
		}
	}
	r.until("the claim ended", func() bool { return len(r.claims()) == 0 })
	r.cluster.partition(first.AgentID)
	return first
}

func (r *rig) elsewhere(first TaskView) {
	r.t.Helper()
	if now := r.running("/db"); now.AgentID == first.AgentID {
		r.t.Errorf("it runs again on %s", now.AgentID)
	}
}

// A volume whose driver says that it is local stays with its agent, over the
// end of its claim, a restart and a bridge that is gone; an app waits for it.
func TestLocalVolumeStaysOnItsAgent(t *testing.T) {
	for _, late := range []bool{false, true} { // whether the scope is known only after the launch
		t.Run(fmt.Sprintf("known late %t", late), func(t *testing.T) {
			withBridges(t, func(t *testing.T, r *rig, f *fakeBridges) {
				local := func() { f.scopes("local") }
				if !late {
					f.set(local)
				}
				r.post(db)
				r.running("/db")
				if late {
					f.set(local)
					r.pass(time.Second)
				}
				if text := r.claims()[0].Text; !strings.Contains(text, "exists on agent") {
					t.Errorf("the claim does not tell: %s", text)
				}
				first := r.stranded(f)
				f.set(func() { delete(f.reports, first.AgentID) })
				r.restart()
				r.scale("/db", 1)
				if text := r.waitsFor(scheduler.VolumeIsLocal); !strings.Contains(text, "exists on agent "+first.Host+" only") {
					t.Errorf("it is explained by: %s", text)
				}
				r.pass(5 * time.Minute)
				if n := len(r.cluster.liveTasks("/db")); n != 0 {
					t.Fatal("it runs without its data")
				}
				r.cluster.heal(first.AgentID)
				if now := r.running("/db"); now.AgentID != first.AgentID {
					t.Errorf("it runs on %s, its volume is on %s", now.AgentID, first.AgentID)
				}
			})
		})
	}
}

func (f *fakeBridges) scopes(scope string) {
	for _, r := range f.reports {
		r.Scopes = map[string]string{"ref": scope}
	}
}

// Without anybody's word, with a driver of global scope, and where the operator
// knows better, nothing is bound to an agent.
func TestWhatIsNotLocalMoves(t *testing.T) {
	for name, prepare := range map[string]func(r *rig, f *fakeBridges){
		"nobody says anything": func(*rig, *fakeBridges) {},
		"a global driver":      func(_ *rig, f *fakeBridges) { f.scopes("global") },
		"the operator's setting": func(r *rig, f *fakeBridges) {
			f.scopes("local")
			r.cfg.GlobalScope = map[string]bool{"ref": true}
		},
	} {
		t.Run(name, func(t *testing.T) {
			withBridges(t, func(t *testing.T, r *rig, f *fakeBridges) {
				f.set(func() { prepare(r, f) })
				r.restart()
				r.post(db)
				first := r.stranded(f)
				r.scale("/db", 1)
				r.elsewhere(first)
			})
		})
	}
	t.Run("its class", func(t *testing.T) {
		withBridges(t, func(t *testing.T, r *rig, f *fakeBridges) {
			f.set(func() { f.scopes("local") })
			r.bound(app.VolumeClass{Driver: "ref", Scope: app.ScopeGlobal})
			first := r.stranded(f)
			r.scale("/db", 1)
			r.elsewhere(first)
		})
	})
	t.Run("a class that it is given later", func(t *testing.T) {
		withBridges(t, func(t *testing.T, r *rig, f *fakeBridges) {
			f.set(func() { f.scopes("local") })
			r.post(db)
			first := r.stranded(f)
			r.scale("/db", 1)
			r.waitsFor(scheduler.VolumeIsLocal)
			r.bound(app.VolumeClass{Driver: "ref", Scope: app.ScopeGlobal})
			r.elsewhere(first)
		})
	})
}

// A class binds without any bridge.
func TestLocalByClassWithoutBridges(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.bound(app.VolumeClass{Driver: "ref", Scope: app.ScopeLocal})
		first := r.stranded(nil)
		r.scale("/db", 1)
		r.waitsFor(scheduler.VolumeIsLocal)
		r.cluster.heal(first.AgentID)
		if now := r.running("/db"); now.AgentID != first.AgentID {
			t.Errorf("it runs on %s", now.AgentID)
		}
	})
}

// The operator's word that the agent is gone, or that the volume is to be
// forgotten, ends it.
func TestLocalVolumeIsGivenUpByTheOperator(t *testing.T) {
	for _, gone := range []bool{true, false} {
		t.Run(fmt.Sprintf("gone %t", gone), func(t *testing.T) {
			inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
				r.bound(app.VolumeClass{Driver: "ref", Scope: app.ScopeLocal})
				first := r.stranded(nil)
				r.scale("/db", 1)
				r.waitsFor(scheduler.VolumeIsLocal)
				if gone {
					r.cluster.markGone(first.AgentID)
				} else {
					var conflict *ConflictError
					if err := r.core.ReleaseClaim(t.Context(), volKey, false); !errors.As(err, &conflict) || !strings.Contains(err.Error(), "exists on agent") {
						t.Errorf("without force: %v", err)
					}
					if err := r.core.ReleaseClaim(t.Context(), volKey, true); err != nil {
						t.Fatal(err)
					}
				}
				r.elsewhere(first)
			})
		})
	}
}

// A launch that never came to its agent binds the volume to nothing.
func TestLaunchThatNeverRanBindsNothing(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		r.cluster.set(func(c *cluster) { c.invalid = "no such image" })
		r.bound(app.VolumeClass{Driver: "ref", Scope: app.ScopeLocal})
		r.until("it was tried", func() bool { return r.app("/db").LastFailure != nil })
		r.delete("/db")
		r.idle()
		var missing *NotFoundError
		if err := r.core.ReleaseClaim(t.Context(), volKey, true); !errors.As(err, &missing) {
			t.Errorf("something is known of the volume: %v", err)
		}
	})
}

// A zonal volume is used in the zone of its first agent only, by its fault
// domain or as its bridge says; the queue tells.
func TestZonalVolumeStaysInItsZone(t *testing.T) {
	for _, domain := range []bool{true, false} {
		t.Run(fmt.Sprintf("fault domain %t", domain), func(t *testing.T) {
			withBridges(t, func(t *testing.T, r *rig, f *fakeBridges) {
				if domain {
					r.cluster.set(func(c *cluster) {
						for _, a := range c.agents {
							a.zone = "zone-" + a.host
						}
					})
				} else {
					f.set(func() {
						for id, b := range f.reports {
							b.Agent.Zone = "zone-" + id
						}
					})
				}
				r.restart()
				r.bound(app.VolumeClass{Driver: "ref", Zonal: true})
				first := r.stranded(f)
				r.scale("/db", 1)
				if text := r.waitsFor(scheduler.WrongZone); !strings.Contains(text, "another zone than its volume") {
					t.Errorf("it is explained by: %s", text)
				}
				r.cluster.heal(first.AgentID)
				if now := r.running("/db"); now.AgentID != first.AgentID {
					t.Errorf("it runs on %s", now.AgentID)
				}
			})
		})
	}
}

// Where a volume is local another agent's of that name is another volume: a
// stranger's mount of it there is nothing to wait for.
func TestSameNameElsewhereIsAnotherLocalVolume(t *testing.T) {
	withBridges(t, func(t *testing.T, r *rig, f *fakeBridges) {
		f.set(func() { f.scopes("local") })
		r.post(db)
		first := r.running("/db")
		r.idle()
		f.set(func() { f.released = true })
		r.scale("/db", 0)
		r.idle()
		r.until("the claim ended", func() bool { return len(r.claims()) == 0 })
		f.set(func() {
			for id, b := range f.reports {
				if id != first.AgentID {
					b.Volumes = map[scheduler.VolumeKey]BridgeVolume{volKey: {Attached: true}}
				}
			}
		})
		r.scale("/db", 1)
		if now := r.running("/db"); now.AgentID != first.AgentID {
			t.Errorf("it runs on %s", now.AgentID)
		}
	})
}

// tellsZone has the bridge of the agent with db's volume pass on what its driver
// tells of the volume's zone, once db runs, and then end with it.
func (r *rig) tellsZone(f *fakeBridges, zone func(host string) string) (first TaskView) {
	r.t.Helper()
	first = r.running("/db")
	r.idle()
	f.set(func() {
		f.reports[first.AgentID].Volumes[volKey] = BridgeVolume{Attached: true, Zone: zone(first.Host)}
	})
	r.pass(time.Second)
	f.set(func() { delete(f.reports[first.AgentID].Volumes, volKey) })
	r.pass(time.Second)
	return r.stranded(f)
}

// faultDomains puts each agent into a zone of its own.
func (r *rig) faultDomains() {
	r.cluster.set(func(c *cluster) {
		for _, a := range c.agents {
			a.zone = zoneOfHost(a.host)
		}
	})
	r.restart()
}

func zoneOfHost(host string) string { return "zone-" + host }

// A volume whose driver tells the zone it is in stays there, over the end of its
// claim and of its mount, a restart and a bridge that is gone.
func TestVolumeStaysInTheZoneItsDriverTells(t *testing.T) {
	for _, domain := range []bool{true, false} {
		t.Run(fmt.Sprintf("fault domain %t", domain), func(t *testing.T) {
			withBridges(t, func(t *testing.T, r *rig, f *fakeBridges) {
				zone := zoneOfHost
				if domain {
					r.faultDomains()
				} else {
					f.set(func() {
						for _, b := range f.reports {
							b.Agent.Zone = "of-" + b.Agent.AgentID
						}
					})
					zone = func(string) string { return "of-" + r.running("/db").AgentID }
				}
				r.post(db)
				first := r.tellsZone(f, zone)
				f.set(func() { delete(f.reports, first.AgentID) })
				r.restart()
				r.scale("/db", 1)
				if text := r.waitsFor(scheduler.WrongZone); !strings.Contains(text, "another zone than its volume") {
					t.Errorf("it is explained by: %s", text)
				}
				r.pass(5 * time.Minute)
				if n := len(r.cluster.liveTasks("/db")); n != 0 {
					t.Fatal("it runs where its volume cannot be attached")
				}
				r.cluster.heal(first.AgentID)
				if now := r.running("/db"); now.AgentID != first.AgentID {
					t.Errorf("it runs on %s, its volume is in the zone of %s", now.AgentID, first.AgentID)
				}
			})
		})
	}
}

// What a driver calls a zone binds to nothing unless the agent is in it: an app
// would wait for an agent that there never is. Nor does it where the operator
// says that the volume exists everywhere.
func TestZonesThatDoNotCount(t *testing.T) {
	constantly := func(zone string) func(string) string { return func(string) string { return zone } }
	for name, test := range map[string]struct {
		domains bool
		zone    func(host string) string
		class   *app.VolumeClass
		global  bool
	}{
		"agents without zones":       {false, constantly("z1"), nil, false},
		"a driver's own word":        {true, constantly("default"), nil, false},
		"the driver says nothing":    {true, constantly(""), nil, false},
		"a class of global scope":    {true, zoneOfHost, &app.VolumeClass{Driver: "ref", Scope: app.ScopeGlobal}, false},
		"the operator's setting":     {true, zoneOfHost, nil, true},
		"a class that many write to": {true, zoneOfHost, &app.VolumeClass{Driver: "ref", Access: app.AccessManyWriters}, false},
	} {
		t.Run(name, func(t *testing.T) {
			withBridges(t, func(t *testing.T, r *rig, f *fakeBridges) {
				r.cfg.GlobalScope = map[string]bool{"ref": test.global}
				if test.domains {
					r.faultDomains()
				} else {
					r.restart()
				}
				if test.class != nil {
					r.bound(*test.class)
				} else {
					r.post(db)
				}
				first := r.tellsZone(f, test.zone)
				r.scale("/db", 1)
				r.elsewhere(first)
			})
		})
	}
}

// What a volume's driver told is no more once its class says that it exists
// everywhere, or an operator has it forgotten.
func TestToldZoneIsGivenUp(t *testing.T) {
	for name, act := range map[string]func(r *rig){
		"class": func(r *rig) { r.bound(app.VolumeClass{Driver: "ref", Scope: app.ScopeGlobal}) },
		"force": func(r *rig) {
			if err := r.core.ReleaseClaim(r.t.Context(), volKey, true); err != nil {
				r.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			withBridges(t, func(t *testing.T, r *rig, f *fakeBridges) {
				r.faultDomains()
				r.post(db)
				first := r.tellsZone(f, zoneOfHost)
				r.scale("/db", 1)
				r.waitsFor(scheduler.WrongZone)
				act(r)
				r.elsewhere(first)
			})
		})
	}
}
