package simulation_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/internal/bubbletest"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/simulated"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// withAgents runs a test in made-up time on a cluster of n agents.
func withAgents(t *testing.T, n int, policy scheduler.Policy, test func(t *testing.T, w *world)) {
	t.Helper()
	dir := stateDir(t)
	bubbletest.Test(t, func(t *testing.T) {
		cfg := simulated.Config{Timing: timing(), UnmountDelay: func(string) time.Duration { return 10 * time.Second }}
		for i := range n {
			cfg.Agents = append(cfg.Agents, agentConfig(i))
		}
		w := newWorld(t, dir, 1, cfg, policy)
		defer w.close()
		test(t, w)
	})
}

const kept = `{"id":"/kept","cmd":"run","cpus":0.5,"mem":64,"instances":%d,
	"container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW","persistent":{"size":100}},
	{"containerPath":"fast","mode":"RW","persistent":{"type":"mount","size":1000,"constraints":[["path","LIKE","/mnt/.*"]]}}]}}`

// runs waits until an app has n tasks that run and no deployment.
func (w *world) runs(id app.ID, n int) []core.TaskView {
	w.t.Helper()
	var live []core.TaskView
	w.until(fmt.Sprintf("%d of %s run", n, id), 5*time.Minute, func() bool {
		deployments, err := w.core.Deployments(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		live = nil
		for _, task := range w.view(id).Tasks {
			if task.State == "TASK_RUNNING" {
				live = append(live, task)
			}
		}
		return len(live) == n && len(deployments) == 0
	})
	return live
}

// home is where a task runs and on which volumes.
func home(t core.TaskView) string {
	ids := []string{t.AgentID, t.InstanceID}
	for _, v := range t.Local {
		ids = append(ids, v.PersistenceID)
	}
	return strings.Join(ids, " ")
}

func (w *world) edit(id app.ID, change func(a *app.App)) {
	w.t.Helper()
	a := *w.view(id).App
	change(&a)
	w.upsert(&a)
}

// disks lists the volumes on all agents that are on.
func (w *world) disks() (existing, destroyed []string, reserved float64) {
	for _, a := range w.cluster.Agents() {
		e, d := a.PersistentVolumes()
		existing, destroyed = append(existing, e...), append(destroyed, d...)
		reserved += a.Reserved("cpus")
	}
	return existing, destroyed, reserved
}

func TestResidentKeepsItsVolumes(t *testing.T) {
	withAgents(t, 3, scheduler.Policy{}, func(t *testing.T, w *world) {
		w.upsert(w.parse(fmt.Sprintf(kept, 1)))
		first := w.runs("/kept", 1)[0]
		existing, _, reserved := w.disks()
		if len(existing) != 2 || reserved != 0.5 || len(first.Local) != 2 {
			t.Fatalf("volumes %v, %g cpus reserved, shown %+v", existing, reserved, first.Local)
		}
		same := func(after string) {
			t.Helper()
			if now := w.runs("/kept", 1)[0]; home(now) != home(first) || now.ID == first.ID {
				t.Errorf("after %s %s as %s, was %s as %s", after, home(now), now.ID, home(first), first.ID)
			}
		}
		w.agent(first.AgentID).End(first.ID, false)
		w.pass(5 * time.Second)
		same("a failure")
		w.edit("/kept", func(a *app.App) { a.Cmd = "run another" })
		same("an update")
		w.edit("/kept", func(a *app.App) { a.Instances = 0 })
		w.runs("/kept", 0)
		w.pass(5 * time.Minute)
		if shown := w.view("/kept").Tasks; len(shown) != 1 || home(shown[0]) != home(first) || shown[0].State != "TASK_FINISHED" {
			t.Errorf("a stopped instance is shown as %+v", shown)
		}
		w.stopFramework()
		w.startFramework()
		w.edit("/kept", func(a *app.App) { a.Instances = 1 })
		same("scaling down and up, and a restart of the framework")
		a := w.agent(first.AgentID)
		a.LoseHost()
		w.pass(time.Minute)
		a.StartHost()
		w.pass(time.Minute)
		same("a reboot of its host")
		if _, err := w.core.Change(t.Context(), core.Change{Delete: []app.ID{"/kept"}}); err != nil {
			t.Fatal(err)
		}
		w.pass(5 * time.Minute)
		if existing, destroyed, _ := w.disks(); len(existing) != 2 || len(destroyed) != 0 {
			t.Errorf("after the app was deleted: volumes %v, destroyed %v", existing, destroyed)
		}
		w.upsert(w.parse(fmt.Sprintf(kept, 1)))
		same("a deletion of its app, which came back")
	})
}

func TestDeletionWithAWipe(t *testing.T) {
	withAgents(t, 3, scheduler.Policy{}, func(t *testing.T, w *world) {
		w.upsert(w.parse(fmt.Sprintf(kept, 3)))
		w.runs("/kept", 3)
		w.edit("/kept", func(a *app.App) { a.Instances = 2 }) // one is stopped
		w.runs("/kept", 2)
		existing, _, _ := w.disks()
		for _, id := range existing {
			w.wiped[id] = true
		}
		if _, err := w.core.Change(t.Context(), core.Change{Delete: []app.ID{"/kept"}, Wipe: true}); err != nil {
			t.Fatal(err)
		}
		w.until("nothing is left", 5*time.Minute, func() bool {
			existing, destroyed, reserved := w.disks()
			return len(existing) == 0 && len(destroyed) == 6 && reserved == 0
		})
	})
}

func TestWipeDestroysAndStartsAnew(t *testing.T) {
	withAgents(t, 3, scheduler.Policy{}, func(t *testing.T, w *world) {
		w.upsert(w.parse(fmt.Sprintf(kept, 2)))
		before := w.runs("/kept", 2)
		for _, v := range before[0].Local {
			w.wiped[v.PersistenceID] = true
		}
		if _, _, err := w.core.KillTasks(t.Context(), core.Kill{TaskIDs: []string{before[0].ID}, Wipe: true}); err != nil {
			t.Fatal(err)
		}
		w.until("the volumes are destroyed", 5*time.Minute, func() bool {
			existing, destroyed, reserved := w.disks()
			return len(destroyed) == 2 && len(existing) == 4 && reserved == 1
		})
		now := w.runs("/kept", 2)
		if !slices.ContainsFunc(now, func(v core.TaskView) bool { return v.ID == before[1].ID }) {
			t.Errorf("the other instance was touched: %+v", now)
		}
		if slices.ContainsFunc(now, func(v core.TaskView) bool { return v.InstanceID == before[0].InstanceID }) {
			t.Errorf("the wiped instance is back: %+v", now)
		}
		// Also what is stopped can be wiped.
		w.edit("/kept", func(a *app.App) { a.Instances = 0 })
		w.runs("/kept", 0)
		for _, task := range now {
			for _, v := range task.Local {
				w.wiped[v.PersistenceID] = true
			}
		}
		if _, _, err := w.core.KillTasks(t.Context(), core.Kill{App: "/kept", Wipe: true}); err != nil {
			t.Fatal(err)
		}
		w.until("nothing is left", 5*time.Minute, func() bool {
			existing, _, reserved := w.disks()
			return len(existing) == 0 && reserved == 0 && len(w.view("/kept").Tasks) == 0
		})
	})
}

// TestReservationThatNeverCame cuts an agent off in the moment of the launch:
// the master takes the operations, the agent never hears of them.
func TestReservationThatNeverCame(t *testing.T) {
	withAgents(t, 1, scheduler.Policy{}, func(t *testing.T, w *world) {
		w.upsert(w.parse(`{"id":"/warm","cmd":"run","cpus":0.1,"mem":32}`))
		w.runs("/warm", 1)
		a := w.cluster.Agents()[0]
		a.Partition()
		w.upsert(w.parse(fmt.Sprintf(kept, 1)))
		w.pass(5 * time.Second)
		if tasks := w.view("/kept").Tasks; len(tasks) != 1 || tasks[0].State != "TASK_STAGING" {
			t.Fatalf("it was not launched into the partition: %+v", tasks)
		}
		w.pass(time.Minute)
		a.Heal()
		w.runs("/kept", 1)
		if existing, destroyed, reserved := w.disks(); len(existing) != 2 || len(destroyed) != 0 || reserved != 0.5 {
			t.Errorf("volumes %v, destroyed %v, %g cpus reserved", existing, destroyed, reserved)
		}
	})
}

// TestAgentsWithoutOperationFeedback has agents that drop operations with an id:
// the next attempt does without.
func TestAgentsWithoutOperationFeedback(t *testing.T) {
	withAgents(t, 0, scheduler.Policy{}, func(t *testing.T, w *world) {
		cfg := agentConfig(0)
		cfg.Mute, cfg.Region, cfg.Zone = true, "", ""
		w.cluster.AddAgent(cfg)
		w.upsert(w.parse(fmt.Sprintf(kept, 1)))
		task := w.runs("/kept", 1)[0]
		if !strings.HasSuffix(task.ID, "._app.2") {
			t.Errorf("%s runs: it is not the second attempt", task.ID)
		}
		if existing, _, reserved := w.disks(); len(existing) != 2 || reserved != 0.5 {
			t.Errorf("volumes %v, %g cpus reserved", existing, reserved)
		}
	})
}

func TestLabelsThatAreNotUnderstood(t *testing.T) {
	withAgents(t, 1, scheduler.Policy{}, func(t *testing.T, w *world) {
		for label, value := range map[string]string{"DVDI_WAIT_ATTACHED": "30", "DVDI_WAIT_ZONE": "-1s", "DVDI_MOVE": "no"} {
			a := w.parse(fmt.Sprintf(`{"id":"/x","cmd":"run","labels":{%q:%q}}`, label, value))
			var mistake *app.ValidationError
			_, err := w.core.Change(t.Context(), core.Change{Upsert: []*app.App{a}})
			if !errors.As(err, &mistake) || mistake.Details[0].Path != "/labels/"+label {
				t.Errorf("%s=%s: %v", label, value, err)
			}
		}
	})
}

func TestResidentOfAHostThatIsGoneStartsAnew(t *testing.T) {
	for _, stopped := range []bool{false, true} {
		withAgents(t, 2, scheduler.Policy{}, func(t *testing.T, w *world) {
			w.upsert(w.parse(fmt.Sprintf(kept, 1)))
			first := w.runs("/kept", 1)[0]
			if stopped {
				w.edit("/kept", func(a *app.App) { a.Instances = 0 })
				w.runs("/kept", 0)
			}
			a := w.agent(first.AgentID)
			a.LoseHost()
			w.pass(3 * time.Minute)
			w.edit("/kept", func(a *app.App) { a.Instances = 1 })
			w.pass(time.Minute)
			if live := w.view("/kept").Running; live != 0 {
				t.Fatalf("stopped=%t: started elsewhere while its data may come back", stopped)
			}
			w.gone[a] = true
			if err := w.cluster.MarkAgentGone(t.Context(), a.ID()); err != nil {
				t.Fatal(err)
			}
			if now := w.runs("/kept", 1)[0]; now.AgentID == first.AgentID || now.Local[0] == first.Local[0] {
				t.Errorf("stopped=%t: now %s, was %s", stopped, home(now), home(first))
			}
		})
	}
}

// TestAnotherFrameworksVolumes starts a second framework beside what a first
// one, which is gone, has left on the agents.
func TestAnotherFrameworksVolumes(t *testing.T) {
	for _, adopt := range []bool{false, true} {
		withAgents(t, 2, scheduler.Policy{}, func(t *testing.T, w *world) {
			w.upsert(w.parse(fmt.Sprintf(kept, 1)))
			first := w.runs("/kept", 1)[0]
			w.edit("/kept", func(a *app.App) { a.Instances = 0 })
			w.runs("/kept", 0)
			old := w.core.Info().FrameworkID
			w.stopFramework()
			w.dir = stateDir(t) // a state that knows nothing
			if adopt {
				w.adopt = []string{old}
			}
			w.startFramework()
			// Something that waits keeps offers coming.
			w.upsert(w.parse(`{"id":"/big","cmd":"run","cpus":100,"mem":32}`))
			w.pass(time.Minute) // nobody knows the app yet
			w.upsert(w.parse(fmt.Sprintf(kept, 0)))
			w.pass(time.Minute)
			w.edit("/kept", func(a *app.App) { a.Instances = 1 })
			var now core.TaskView
			w.until("it runs", 5*time.Minute, func() bool {
				for _, task := range w.view("/kept").Tasks {
					now = task
				}
				return now.State == "TASK_RUNNING"
			})
			if adopted := home(now) == home(first); adopted != adopt {
				t.Errorf("adopt=%t: runs on %s, the volumes were %s", adopt, home(now), home(first))
			}
			want := 4
			if adopt {
				want = 2
			}
			if existing, destroyed, _ := w.disks(); len(existing) != want || len(destroyed) != 0 {
				t.Errorf("adopt=%t: volumes %v, destroyed %v", adopt, existing, destroyed)
			}
		})
	}
}

func TestInstancesWaitForTheAgentOfTheirVolume(t *testing.T) {
	withAgents(t, 2, scheduler.Policy{Wait: scheduler.Wait{LastAttached: time.Hour}}, func(t *testing.T, w *world) {
		for _, c := range []struct {
			id, labels string
			waits      bool
		}{{"patient", `{}`, true}, {"hasty", `{"DVDI_WAIT_LAST_ATTACHED":"5s"}`, false}} {
			id := app.ID("/" + c.id)
			w.upsert(w.parse(fmt.Sprintf(`{"id":%q,"cmd":"run","cpus":1,"mem":64,"labels":%s,"container":{"type":"MESOS","volumes":[%s]}}`,
				id, c.labels, external("disk", c.id, false))))
			first := w.runs(id, 1)[0]
			w.edit(id, func(a *app.App) { a.Instances = 0 })
			w.runs(id, 0)
			w.pass(time.Minute) // the claim ends
			a := w.agent(first.AgentID)
			a.Partition()
			w.cut[a] = true
			w.pass(time.Minute)
			w.edit(id, func(a *app.App) { a.Instances = 1 })
			w.pass(time.Minute)
			queue, err := w.core.Queue(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			told := len(queue) == 1 && slices.ContainsFunc(queue[0].Waiting[0].Counts, func(r scheduler.ReasonCount) bool {
				return r.Reason == scheduler.WaitingForPreferred
			})
			if running := w.view(id).Running == 1; running == c.waits || told != c.waits {
				t.Errorf("%s: running %t, queue %+v", id, running, queue)
			}
			a.Heal()
			delete(w.cut, a)
			if now := w.runs(id, 1)[0]; c.waits && now.AgentID != first.AgentID {
				t.Errorf("%s: waited for %s and runs on %s", id, first.AgentID, now.AgentID)
			}
		}
	})
}

// TestMaintenanceMovesInTime has a host announce maintenance: what may move does
// before it begins, one at a time, volume and all.
func TestMaintenanceMovesInTime(t *testing.T) {
	policy := scheduler.Policy{MaxMoves: 1, Drain: true, MaintenanceMargin: time.Hour}
	withAgents(t, 2, policy, func(t *testing.T, w *world) {
		s := &scenario{world: w}
		w.upsert(w.parse(fmt.Sprintf(`{"id":"/db","cmd":"run","cpus":1,"mem":64,"container":{"type":"MESOS","volumes":[%s]}}`, external("disk", "v", false))))
		first := w.runs("/db", 1)[0]
		w.upsert(w.parse(fmt.Sprintf(`{"id":"/pinned","cmd":"run","cpus":1,"mem":64,"labels":{"DVDI_MOVE":"false"},"constraints":[["hostname","IS",%q]]}`, first.Host)))
		pinned := w.runs("/pinned", 1)[0]
		s.maintain(w.agent(first.AgentID))
		w.until("the volume has moved", 5*time.Minute, func() bool {
			tasks := w.view("/db").Tasks
			return len(tasks) == 1 && tasks[0].State == "TASK_RUNNING" && tasks[0].AgentID != first.AgentID
		})
		if now := w.runs("/pinned", 1)[0]; now.ID != pinned.ID {
			t.Errorf("an app that must not move was stopped: %s, then %s", pinned.ID, now.ID)
		}
	})
}

func TestFailedMasterCallsDoNotHang(t *testing.T) {
	withAgents(t, 1, scheduler.Policy{}, func(t *testing.T, w *world) {
		if err := w.cluster.KillMaster(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := w.cluster.MarkAgentGone(ctx, "nobody"); err == nil {
			t.Error("a call succeeds without a master")
		}
		if err := w.cluster.StartMaster(); err != nil {
			t.Fatal(err)
		}
		w.upsert(w.parse(`{"id":"/warm","cmd":"run","cpus":0.1,"mem":32}`))
		w.runs("/warm", 1)
	})
}

// TestForcedReleaseKeepsTheReservation has an instance with both kinds of
// volumes on a host that is away: it is given up, its external volume released
// by force, and its persistent volume is still its own.
func TestForcedReleaseKeepsTheReservation(t *testing.T) {
	withAgents(t, 1, scheduler.Policy{}, func(t *testing.T, w *world) {
		w.upsert(w.parse(fmt.Sprintf(`{"id":"/both","cmd":"run","cpus":0.5,"mem":64,"container":{"type":"MESOS","volumes":[
			{"containerPath":"own","mode":"RW","persistent":{"size":100}},%s]}}`, external("disk", "v", false))))
		first := w.runs("/both", 1)[0]
		a := w.agent(first.AgentID)
		a.LoseHost()
		w.down[a] = true
		w.pass(2 * time.Minute)
		w.edit("/both", func(a *app.App) { a.Instances = 0 })
		w.pass(10 * time.Second)
		if err := w.core.ReleaseClaim(t.Context(), scheduler.VolumeKey{Driver: "disk", Name: "v"}, true); err != nil {
			t.Fatal(err)
		}
		a.StartHost()
		delete(w.down, a)
		w.pass(time.Minute)
		w.edit("/both", func(a *app.App) { a.Instances = 1 })
		if now := w.runs("/both", 1)[0]; home(now) != home(first) {
			t.Errorf("runs on %s, was on %s", home(now), home(first))
		}
		if existing, destroyed, _ := w.disks(); len(existing) != 1 || len(destroyed) != 0 {
			t.Errorf("volumes %v, destroyed %v", existing, destroyed)
		}
	})
}
