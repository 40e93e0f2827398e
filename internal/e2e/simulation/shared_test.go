package simulation_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// together is an app of which all instances have a volume together, and each a
// small one for itself.
const together = `{"id":"/together","cmd":"run","cpus":0.5,"mem":64,"instances":%d,
	"container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW","persistent":{"size":100,"shared":true}},
	{"containerPath":"own","mode":"RW","persistent":{"size":10}}]}}`

// sharedBy waits until n instances run on one agent with one volume at data and
// one of their own each, and returns the name of that volume and the tasks.
func (w *world) sharedBy(n int) (volume string, live []core.TaskView) {
	w.t.Helper()
	live = w.runs("/together", n)
	own := map[string]bool{}
	for _, task := range live {
		for _, v := range task.Local {
			switch {
			case v.ContainerPath == "own":
				own[v.PersistenceID] = true
			case volume == "":
				volume = v.PersistenceID
			case v.PersistenceID != volume:
				w.t.Errorf("the volumes %s and %s are shared", volume, v.PersistenceID)
			}
		}
		if task.AgentID != live[0].AgentID {
			w.t.Errorf("the instances run on %s and %s", live[0].AgentID, task.AgentID)
		}
	}
	if len(own) != n {
		w.t.Errorf("%d instances have %d volumes of their own", n, len(own))
	}
	return volume, live
}

// TestSharedPersistentVolume: made once, for two instances in one ACCEPT; joined
// later; kept over failures, updates, scaling to nothing and restarts; destroyed
// when the last one is wiped.
func TestSharedPersistentVolume(t *testing.T) {
	withAgents(t, 3, scheduler.Policy{}, func(t *testing.T, w *world) {
		w.upsert(w.parse(fmt.Sprintf(together, 2)))
		volume, live := w.sharedBy(2)
		if existing, _, reserved := w.disks(); len(existing) != 3 || reserved != 1 {
			t.Fatalf("volumes %v, %g cpus reserved", existing, reserved)
		}
		same := func(after string, n int) {
			t.Helper()
			if now, tasks := w.sharedBy(n); now != volume || tasks[0].AgentID != live[0].AgentID {
				t.Errorf("after %s: %s on %s, was %s on %s", after, now, tasks[0].AgentID, volume, live[0].AgentID)
			}
		}
		w.edit("/together", func(a *app.App) { a.Instances = 3 })
		same("scaling up", 3)
		w.agent(live[0].AgentID).End(live[0].ID, false)
		w.pass(5 * time.Second)
		same("a failure", 3)
		w.edit("/together", func(a *app.App) { a.Cmd = "run another" })
		same("an update", 3)
		w.edit("/together", func(a *app.App) { a.Instances = 0 })
		w.runs("/together", 0)
		w.stopFramework()
		w.startFramework()
		w.edit("/together", func(a *app.App) { a.Instances = 4 })
		same("scaling down and up, and a restart of the framework", 4)
		w.agent(live[0].AgentID).LoseHost()
		w.pass(time.Minute)
		w.agent(live[0].AgentID).StartHost()
		w.pass(time.Minute)
		same("a reboot of its host", 4)
		w.wipes(volume)
	})
}

// wipes wipes two of the four instances, which are replaced with the volume that
// the others keep, then all.
func (w *world) wipes(volume string) {
	w.t.Helper()
	_, live := w.sharedBy(4)
	w.allowWipe(live, volume)
	kill := func(k core.Kill) {
		w.t.Helper()
		k.Wipe = true
		if _, _, err := w.core.KillTasks(w.t.Context(), k); err != nil {
			w.t.Fatal(err)
		}
	}
	kill(core.Kill{TaskIDs: []string{live[0].ID, live[1].ID}})
	w.until("their own volumes are destroyed", 5*time.Minute, func() bool {
		existing, destroyed, reserved := w.disks()
		return len(destroyed) == 2 && len(existing) == 5 && reserved == 2
	})
	now, live := w.sharedBy(4)
	if now != volume {
		w.t.Errorf("two instances were wiped, and all have %s instead of %s", now, volume)
	}
	w.allowWipe(live, "")
	w.wiped[volume] = true
	kill(core.Kill{App: "/together"})
	w.until("all are replaced with another volume", 5*time.Minute, func() bool {
		existing, destroyed, reserved := w.disks()
		return slices.Contains(destroyed, volume) && len(existing) == 5 && reserved == 2
	})
	if now, live = w.sharedBy(4); now == volume {
		w.t.Error("the wiped volume is used again")
	}
	w.allowWipe(live, "")
	w.wiped[now] = true
	if _, err := w.core.Change(w.t.Context(), core.Change{Delete: []app.ID{"/together"}, Wipe: true}); err != nil {
		w.t.Fatal(err)
	}
	w.until("nothing is left", 5*time.Minute, func() bool {
		existing, _, reserved := w.disks()
		shown, err := w.core.PersistentVolumes(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		return len(existing) == 0 && reserved == 0 && len(shown) == 0
	})
}

// allowWipe notes that the volumes of tasks may be destroyed, but not this one.
func (w *world) allowWipe(tasks []core.TaskView, but string) {
	for _, task := range tasks {
		for _, v := range task.Local {
			if v.PersistenceID != but {
				w.wiped[v.PersistenceID] = true
			}
		}
	}
}

// TestSharedVolumeIsShown with all who have it.
func TestSharedVolumeIsShown(t *testing.T) {
	withAgents(t, 2, scheduler.Policy{}, func(t *testing.T, w *world) {
		w.upsert(w.parse(fmt.Sprintf(together, 2)))
		volume, live := w.sharedBy(2)
		w.edit("/together", func(a *app.App) { a.Instances = 1 })
		w.runs("/together", 1)
		list, err := w.core.PersistentVolumes(t.Context())
		if err != nil || len(list) != 3 {
			t.Fatalf("%v, %v", list, err)
		}
		for _, v := range list {
			want := 1
			if v.Shared {
				want = 2 // a stopped instance keeps it
			}
			if v.Shared != (v.ID == volume) || len(v.Instances) != want || v.App != "/together" || v.AgentID != live[0].AgentID {
				t.Errorf("shown %+v", v)
			}
		}
	})
}

// TestSharedVolumeThatNeverCame cuts the agent off in the moment of the launch: all
// instances start anew together, with a volume of another name, since the first may
// come yet.
func TestSharedVolumeThatNeverCame(t *testing.T) {
	withAgents(t, 1, scheduler.Policy{}, func(t *testing.T, w *world) {
		w.upsert(w.parse(`{"id":"/warm","cmd":"run","cpus":0.1,"mem":32}`))
		w.runs("/warm", 1)
		a := w.cluster.Agents()[0]
		a.Partition()
		w.upsert(w.parse(fmt.Sprintf(together, 2)))
		w.pass(5 * time.Second)
		tasks := w.view("/together").Tasks
		if len(tasks) != 2 || tasks[0].State != "TASK_STAGING" {
			t.Fatalf("they were not launched into the partition: %+v", tasks)
		}
		w.pass(time.Minute)
		a.Heal()
		volume, _ := w.sharedBy(2)
		if slices.ContainsFunc(tasks[0].Local, func(v core.LocalVolume) bool { return v.PersistenceID == volume }) {
			t.Errorf("%s is used, which was given up", volume)
		}
	})
}

// TestSharedVolumeOnAHostThatIsGone is made anew, once, for all instances, those
// that were stopped and one that waits for its agent included.
func TestSharedVolumeOnAHostThatIsGone(t *testing.T) {
	withAgents(t, 3, scheduler.Policy{}, func(t *testing.T, w *world) {
		w.upsert(w.parse(fmt.Sprintf(together, 3)))
		volume, live := w.sharedBy(3)
		w.edit("/together", func(a *app.App) { a.Instances = 2 })
		w.runs("/together", 2)
		a := w.agent(live[0].AgentID)
		a.LoseHost()
		w.pass(3 * time.Minute)
		w.edit("/together", func(a *app.App) { a.Instances = 4 })
		w.pass(time.Minute)
		if running := w.view("/together").Running; running != 0 {
			t.Fatalf("%d started elsewhere while their data may come back", running)
		}
		w.gone[a] = true
		if err := w.cluster.MarkAgentGone(t.Context(), a.ID()); err != nil {
			t.Fatal(err)
		}
		now, tasks := w.sharedBy(4)
		if now == volume || tasks[0].AgentID == live[0].AgentID {
			t.Errorf("they have %s on %s", now, tasks[0].AgentID)
		}
	})
}

// TestSharedVolumeIsBackUnderANewAgentID and is used again by all who had it and by
// one that only waited for it.
func TestSharedVolumeIsBackUnderANewAgentID(t *testing.T) {
	withAgents(t, 2, scheduler.Policy{}, func(t *testing.T, w *world) {
		w.upsert(w.parse(fmt.Sprintf(together, 2)))
		volume, live := w.sharedBy(2)
		a := w.agent(live[0].AgentID)
		w.edit("/together", func(a *app.App) { a.Instances = 3 })
		w.sharedBy(3)
		a.LoseHost()
		w.pass(3 * time.Minute)
		w.edit("/together", func(a *app.App) { a.Instances = 4 })
		w.pass(10 * time.Second)
		a.StartHostAnew()
		w.pass(30 * time.Second)
		if err := w.cluster.MarkAgentGone(t.Context(), live[0].AgentID); err != nil {
			t.Fatal(err)
		}
		now, tasks := w.sharedBy(4)
		if now != volume || tasks[0].Host != live[0].Host {
			t.Errorf("they have %s on %s, had %s on %s", now, tasks[0].Host, volume, live[0].Host)
		}
	})
}

// TestSharedVolumeIsBackTooLate: a stopped instance joins what the others have by
// now rather than what it had with them before.
func TestSharedVolumeIsBackTooLate(t *testing.T) {
	withAgents(t, 2, scheduler.Policy{}, func(t *testing.T, w *world) {
		w.upsert(w.parse(fmt.Sprintf(together, 2)))
		_, live := w.sharedBy(2)
		w.edit("/together", func(a *app.App) { a.Instances = 1 })
		w.runs("/together", 1)
		a := w.agent(live[0].AgentID)
		a.LoseHost()
		w.pass(3 * time.Minute)
		if err := w.cluster.MarkAgentGone(t.Context(), live[0].AgentID); err != nil {
			t.Fatal(err)
		}
		now, _ := w.sharedBy(1)
		a.StartHostAnew()
		w.pass(time.Minute)
		w.edit("/together", func(a *app.App) { a.Instances = 2 })
		if after, _ := w.sharedBy(2); after != now {
			t.Errorf("they have %s, the one that ran had %s", after, now)
		}
	})
}

// TestSharedVolumeIsNotWipedWithOneOfTwo has one of two instances wiped while their
// host is lost, and the other one launched on new volumes: when the host is back,
// the volume that both had is left alone, for nobody asked to destroy it.
func TestSharedVolumeIsNotWipedWithOneOfTwo(t *testing.T) {
	withAgents(t, 3, scheduler.Policy{}, func(t *testing.T, w *world) {
		w.upsert(w.parse(fmt.Sprintf(together, 2)))
		volume, live := w.sharedBy(2)
		host := w.agent(live[0].AgentID)
		host.LoseHost()
		w.down[host] = true
		w.pass(3 * time.Minute)
		w.allowWipe(live[:1], volume)
		if _, _, err := w.core.KillTasks(t.Context(), core.Kill{TaskIDs: []string{live[0].ID}, Wipe: true}); err != nil {
			t.Fatal(err)
		}
		if err := w.cluster.MarkAgentGone(t.Context(), live[0].AgentID); err != nil {
			t.Fatal(err)
		}
		if now, _ := w.sharedBy(2); now == volume {
			t.Fatal("the volume of the lost host is used")
		}
		host.StartHostAnew()
		delete(w.down, host)
		w.until("the wiped instance's own volume is destroyed", 5*time.Minute, func() bool {
			_, destroyed, _ := w.disks()
			return len(destroyed) == 1
		})
		w.pass(5 * time.Minute)
		existing, _, _ := w.disks()
		left, err := w.core.Leftovers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(existing, volume) || !slices.ContainsFunc(left, func(l core.LeftoverView) bool { return slices.Contains(l.PersistenceIDs, volume) }) {
			t.Errorf("volumes %v, leftovers %+v", existing, left)
		}
	})
}
