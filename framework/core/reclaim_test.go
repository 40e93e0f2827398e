package core

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/store"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

const (
	scratch = `{"id":"/scratch","cmd":"run","cpus":1,"mem":64,"container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW",
		"external":{"provider":"dvdi","name":"tmp","options":{"dvdi/class":"scratch"}}}]}}`
	shards = `{"id":"/shards","cmd":"run","cpus":1,"mem":64,"instances":3,"upgradeStrategy":{"minimumHealthCapacity":0.6,"maximumOverCapacity":0},
		"container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW",
		"external":{"provider":"dvdi","name":"shard-${instance}","options":{"dvdi/class":"scratch"}}}]}}`
)

// classed deploys an app whose volumes have the class scratch, which are removed
// in the end, or the class kept.
func (r *rig) classed(body string) {
	r.t.Helper()
	opts := app.Options{Classes: map[string]app.VolumeClass{}}
	for name, reclaim := range map[string]string{"scratch": app.ReclaimDelete, "kept": app.ReclaimRetain, "shared": app.ReclaimDelete} {
		c := app.VolumeClass{Driver: "ref", Reclaim: reclaim}
		if name == "shared" {
			c.Access = app.AccessOneAgent
		}
		c, err := c.Complete(name)
		if err != nil {
			r.t.Fatal(err)
		}
		opts.Classes[name] = c
	}
	a, err := app.Parse([]byte(body), opts)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.core.Change(r.t.Context(), Change{Upsert: []*app.App{a}}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) removals() []RemovalView {
	r.t.Helper()
	list, err := r.core.Removals(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return list
}

// removed waits until nothing is left to remove.
func (r *rig) removed() {
	r.t.Helper()
	r.until("everything due is removed", func() bool {
		return len(r.removals()) == 0 && !slices.ContainsFunc(r.claims(), func(c ClaimView) bool { return c.Removal != nil })
	})
}

// A volume is removed when its app is deleted and the agent says that nothing
// of its use is left, not before; failures are tried again, over restarts; who
// uses the name next has a new volume.
func TestVolumeOfADeletedAppIsRemoved(t *testing.T) {
	withBridges(t, func(t *testing.T, r *rig, f *fakeBridges) {
		r.classed(scratch)
		task := r.running("/scratch")
		r.delete("/scratch")
		r.until("the app is gone", func() bool { return !r.exists("/scratch") })
		r.until("it was withdrawn", func() bool { return f.did("withdraw") > 1 })
		if c := r.claims(); f.did("remove") != 0 || len(c) != 1 || c[0].Removal == nil || !strings.Contains(c[0].Text, "app /scratch was deleted") {
			t.Fatalf("while it may be mounted: %q, claims %+v", f.calls, c)
		}
		f.set(func() { f.released, f.keep = true, errors.New("it has snapshots") })
		r.until("it was tried", func() bool { return f.did("remove "+task.AgentID+" tmp 1") > 0 })
		r.until("it shows", func() bool {
			v := r.removals()
			return len(v) == 1 && strings.Contains(v[0].Text, "it has snapshots") && !v[0].Next.IsZero()
		})
		f.set(func() { f.keep, f.left = nil, "a container that named it is not positively gone" })
		r.restart()
		r.until("it shows after a restart", func() bool {
			v := r.removals()
			return len(v) == 1 && strings.Contains(v[0].Text, "not positively gone")
		})
		before := f.did("remove")
		r.pass(20 * time.Minute)
		if n := f.did("remove") - before; n < 6 || n > 20 {
			t.Errorf("%d attempts in 20 minutes", n)
		}
		r.classed(scratch)
		r.until("the new app says why it waits", func() bool {
			q := r.queue()
			return len(q) == 1 && len(q[0].Waiting) == 1 && strings.Contains(q[0].Waiting[0].Text, "to be removed with its data")
		})
		if n := r.cluster.launched(); n != 1 {
			t.Errorf("%d launches: one on a volume that is being removed", n)
		}
		f.set(func() { f.left = "" })
		r.removed()
		r.running("/scratch")
		if o := r.optionsOf("/scratch"); o["dvdi.epoch"] != "2" {
			t.Errorf("options of the launch on a new volume: %v", o)
		}
	})
}

// Suspending, updating and restarting remove nothing, and the class retain never
// does; nor does deleting an app whose volume another one names.
func TestVolumesThatSomebodyOwnsStay(t *testing.T) {
	withBridges(t, func(t *testing.T, r *rig, f *fakeBridges) {
		f.set(func() { f.released = true })
		r.classed(scratch)
		r.classed(strings.NewReplacer("/scratch", "/kept", `"scratch"`, `"kept"`, `"tmp"`, `"keep"`).Replace(scratch))
		shared := strings.NewReplacer(`"scratch"`, `"shared"`, `"provider"`, `"shared":true,"provider"`, `"tmp"`, `"both"`)
		r.classed(strings.Replace(shared.Replace(scratch), "/scratch", "/one", 1))
		r.classed(strings.Replace(shared.Replace(scratch), "/scratch", "/two", 1))
		r.idle()
		r.scale("/scratch", 0)
		r.idle()
		r.scale("/scratch", 1)
		r.idle()
		r.classed(strings.Replace(scratch, `"tmp"`, `"other"`, 1)) // it may go back to tmp
		r.idle()
		r.delete("/kept")
		r.delete("/two")
		r.idle()
		r.pass(time.Minute)
		if f.did("remove") != 0 {
			t.Fatalf("removed: %q", f.calls)
		}
		r.delete("/one")
		r.delete("/scratch")
		r.idle()
		r.removed()
		for _, name := range []string{"tmp", "other", "both"} {
			if !slices.ContainsFunc(f.calls, func(c string) bool { return strings.HasPrefix(c, "remove") && strings.Contains(c, " "+name+" ") }) {
				t.Errorf("%s was not removed: %q", name, f.calls)
			}
		}
		if f.did("remove") != 3 {
			t.Errorf("%q", f.calls)
		}
	})
}

// What an instance had for itself is removed when it is scaled away; while the
// app is suspended all is kept.
func TestVolumesOfScaledAwayInstancesAreRemoved(t *testing.T) {
	withBridges(t, func(t *testing.T, r *rig, f *fakeBridges) {
		f.set(func() { f.released = true })
		names := func(want ...string) {
			t.Helper()
			r.removed()
			var got []string
			f.set(func() {
				for _, c := range f.calls {
					if p := strings.Fields(c); p[0] == "remove" {
						got = append(got, p[2])
					}
				}
			})
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Fatalf("removed %q, want %q", got, want)
			}
		}
		r.classed(shards)
		r.idle()
		r.scale("/shards", 0)
		r.idle()
		r.pass(time.Minute)
		names()
		r.scale("/shards", 2)
		r.idle()
		r.pass(time.Minute)
		names("shard-2")
		// Whom a user kills to have one less is the one that loses its volume.
		victim := r.holders()["shard-0"]
		i := slices.IndexFunc(r.app("/shards").Tasks, func(v TaskView) bool { return v.InstanceID == victim })
		if _, _, err := r.core.KillTasks(t.Context(), Kill{TaskIDs: []string{r.app("/shards").Tasks[i].ID}, Scale: true}); err != nil {
			t.Fatal(err)
		}
		r.idle()
		r.pass(time.Minute)
		names("shard-0", "shard-2")
		r.delete("/shards")
		r.idle()
		r.pass(time.Minute)
		names("shard-0", "shard-1", "shard-2")
	})
}

// A task that is killed and wiped loses its volume: the next one has a new one.
func TestWipedVolumeIsRemovedBeforeTheNextTask(t *testing.T) {
	withBridges(t, func(t *testing.T, r *rig, f *fakeBridges) {
		r.classed(scratch)
		first := r.running("/scratch")
		if _, _, err := r.core.KillTasks(t.Context(), Kill{App: "/scratch"}); err != nil {
			t.Fatal(err)
		}
		r.until("another task runs", func() bool { v := r.app("/scratch"); return v.Running == 1 && v.Tasks[0].ID != first.ID })
		if len(r.removals()) != 0 || r.claims()[0].Removal != nil {
			t.Fatal("a kill alone wipes")
		}
		if _, _, err := r.core.KillTasks(t.Context(), Kill{App: "/scratch", Wipe: true}); err != nil {
			t.Fatal(err)
		}
		r.pass(time.Minute)
		if n := r.cluster.launched(); n != 2 || f.did("remove") != 0 {
			t.Fatalf("%d launches, %q", n, f.calls)
		}
		f.set(func() { f.released = true })
		r.until("a third task runs", func() bool { return r.cluster.launched() == 3 && r.app("/scratch").Running == 1 })
		if f.did("remove") != 1 || len(r.removals()) != 0 {
			t.Errorf("%q", f.calls)
		}
	})
}

// An operator can have a volume kept, and one whose claim is ended by force is:
// nobody has seen it unmounted.
func TestKeptVolumes(t *testing.T) {
	withBridges(t, func(t *testing.T, r *rig, f *fakeBridges) {
		key := scheduler.VolumeKey{Driver: "ref", Name: "tmp"}
		var missing *NotFoundError
		r.classed(scratch)
		r.running("/scratch")
		if err := r.core.KeepVolume(t.Context(), key); !errors.As(err, &missing) {
			t.Errorf("%v", err)
		}
		r.delete("/scratch")
		r.until("the app is gone", func() bool { return !r.exists("/scratch") })
		if err := r.core.KeepVolume(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		f.set(func() { f.released = true })
		r.until("the claim ended", func() bool { return len(r.claims()) == 0 })
		r.pass(time.Minute)
		f.set(func() { f.released = false })
		r.classed(scratch)
		r.running("/scratch")
		r.delete("/scratch")
		r.until("the app is gone", func() bool { return !r.exists("/scratch") })
		if err := r.core.ReleaseClaim(t.Context(), key, true); err != nil {
			t.Fatal(err)
		}
		r.pass(time.Minute)
		if f.did("remove") != 0 || len(r.removals()) != 0 {
			t.Errorf("%q", f.calls)
		}
	})
}

// Only the agent that had the volume last removes it, where nobody else has it
// mounted; another one that had it only when that agent is gone for good.
func TestWhoRemovesAVolume(t *testing.T) {
	withBridges(t, func(t *testing.T, r *rig, f *fakeBridges) {
		key := scheduler.VolumeKey{Driver: "ref", Name: "tmp"}
		r.classed(scratch)
		last := r.running("/scratch").AgentID
		var other string
		for _, id := range r.cluster.agentIDs() {
			if id != last {
				other = id
			}
		}
		f.set(func() {
			f.released = true
			f.reports[other].Volumes[key] = BridgeVolume{Attached: true}
		})
		problem := func(text string) {
			t.Helper()
			r.until(text, func() bool { v := r.removals(); return len(v) == 1 && strings.Contains(v[0].Problem, text) })
			if f.did("remove") != 0 {
				t.Fatalf("%q", f.calls)
			}
		}
		r.delete("/scratch")
		problem("it is mounted on agent " + other)
		f.set(func() {
			f.reports[other].Volumes = nil
			f.reports[last].Removal = false
		})
		problem("too old")
		f.set(func() { f.reports[last].Agent.Known, f.reports[last].Removal = false, true })
		problem("does not answer")
		r.restart() // the agent is still asked for, by what is stored
		problem("does not answer")
		r.cluster.markGone(last)
		problem("no other that had it for this framework")
		f.set(func() {
			f.reports[other].Volumes = map[scheduler.VolumeKey]BridgeVolume{key: {Framework: testFramework}}
		})
		r.until("the other agent removed it", func() bool { return f.did("remove "+other+" tmp 1") == 1 })
		r.removed()
	})
}

// A restored backup does not destroy what it took for due.
func TestARestoredBackupRemovesNothing(t *testing.T) {
	withBridges(t, func(t *testing.T, r *rig, f *fakeBridges) {
		r.cfg.RestoreHold = time.Minute
		r.classed(scratch)
		r.running("/scratch")
		r.delete("/scratch")
		r.until("the app is gone", func() bool { return !r.exists("/scratch") })
		r.stopped(func() {
			backup := r.content()
			r.withStore(func(st store.Store) error {
				_, err := Restore(st, backup, time.Now())
				return err
			})
		})
		f.set(func() { f.released = true })
		r.until("the claim ended", func() bool { return len(r.claims()) == 0 })
		r.pass(10 * time.Minute)
		if f.did("remove") != 0 || len(r.removals()) != 0 {
			t.Errorf("%q", f.calls)
		}
	})
}

// What a decision is made from depends on the time of the decision, not on that of
// the clock when it is put together: a recorded one can be replayed.
func TestRemovalHoldsBackByTheTimeOfTheDecision(t *testing.T) {
	withBridges(t, func(t *testing.T, r *rig, f *fakeBridges) {
		r.classed(scratch)
		r.running("/scratch")
		r.delete("/scratch")
		r.until("the app is gone", func() bool { return !r.exists("/scratch") })
		r.classed(scratch) // its volume is to be removed first
		err := r.core.do(t.Context(), func(tx *txn) error {
			i := r.core.state.instancesOf("/scratch")[0]
			at := tx.now.Add(-time.Hour)
			if p := r.core.pendingInstance(i, r.core.state.definition(i), at); !p.NotBefore.Equal(at.Add(r.core.cfg.Tick)) {
				t.Errorf("held back until %s, decided at %s", p.NotBefore, at)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
