package core

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/store"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

var volKey = scheduler.VolumeKey{Driver: "ref", Name: "vol"}

// other is the agent, of two, on which a task does not run.
func other(agent string) string {
	if agent == "S0" {
		return "S1"
	}
	return "S0"
}

// onlyClaim returns the state's only claim.
func (r *rig) onlyClaim() scheduler.Claim {
	r.t.Helper()
	list := r.claims()
	if len(list) != 1 {
		r.t.Fatalf("claims: %+v", list)
	}
	return list[0].Claim
}

func TestHostLostIsHeldUntilMarkedGone(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(db)
		lost := r.running("/db")
		r.cluster.partition(lost.AgentID)
		r.until("the claim is lost", func() bool { return r.onlyClaim().State == scheduler.Lost })
		r.pass(10 * time.Minute)
		if got := r.cluster.agentsOf("/db"); !slices.Equal(got, []string{lost.AgentID}) {
			t.Fatalf("moved while its agent may be alive: %v", got)
		}
		q := r.queue()
		if len(q) != 1 || !strings.Contains(q[0].Waiting[0].Text, "vol") || !strings.Contains(q[0].Waiting[0].Text, "gone") {
			t.Fatalf("the queue does not say what it waits for: %+v", q)
		}
		if text := r.claims()[0].Text; !strings.Contains(text, "MARK_AGENT_GONE") || !strings.Contains(text, lost.Host) {
			t.Fatalf("the claim does not say what would end it: %s", text)
		}
		r.cluster.markGone(lost.AgentID)
		if moved := r.running("/db"); moved.AgentID != other(lost.AgentID) {
			t.Fatalf("now on %s", moved.AgentID)
		}
		if c := r.onlyClaim(); c.AgentID == lost.AgentID || c.Epoch != 2 || c.State != scheduler.Held {
			t.Fatalf("claim after the move: %+v", c)
		}
	})
}

func TestTaskOfAHealedPartitionRunsOn(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(db)
		before := r.running("/db")
		r.cluster.partition(before.AgentID)
		r.pass(time.Minute)
		r.restart() // the hold survives a restart of the framework
		r.pass(time.Minute)
		r.cluster.heal(before.AgentID)
		r.pass(time.Minute)
		if after := r.running("/db"); after.ID != before.ID {
			t.Fatalf("%s was replaced by %s", before.ID, after.ID)
		}
		if q := r.queue(); len(q) != 0 {
			t.Fatalf("still waiting: %+v", q)
		}
	})
}

func TestGoneWhileTheFrameworkWasDown(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(db)
		lost := r.running("/db")
		r.idle()
		if err := r.halt(); err != nil {
			t.Fatal(err)
		}
		r.cluster.markGone(lost.AgentID)
		r.start()
		if moved := r.running("/db"); moved.AgentID != other(lost.AgentID) {
			t.Fatalf("now on %s", moved.AgentID)
		}
	})
}

func TestVolumeStaysWithItsAgentAfterTheTask(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(db)
		first := r.running("/db")
		r.idle()
		r.cluster.end("/db", taskFailed)
		r.until("relaunched", func() bool { return r.app("/db").Running == 1 && r.running("/db").ID != first.ID })
		if again := r.running("/db"); again.AgentID != first.AgentID || again.InstanceID != first.InstanceID {
			t.Fatalf("relaunched as %+v, was %+v", again, first)
		}
		r.scale("/db", 0)
		r.idle()
		if c := r.onlyClaim(); c.State != scheduler.Releasing || c.AgentID != first.AgentID {
			t.Fatalf("after the end of the task: %+v", c)
		}
		// The claim outlives its app and binds the next one.
		r.delete("/db")
		r.until("deleted", func() bool { return !r.exists("/db") })
		r.restart()
		r.post(strings.Replace(db, `"/db"`, `"/heir"`, 1))
		if heir := r.running("/heir"); heir.AgentID != first.AgentID {
			t.Fatalf("the volume is at %s, its new task on %s", first.AgentID, heir.AgentID)
		}
	})
}

func TestReleasingClaimEndsWithItsAgent(t *testing.T) {
	for name, lose := range map[string]func(c *cluster, id string){
		"marked gone":           func(c *cluster, id string) { c.markGone(id) },
		"unreachable, then off": func(c *cluster, id string) { c.partition(id); c.markGone(id) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
				r.post(db)
				first := r.running("/db")
				r.scale("/db", 0)
				r.idle()
				lose(r.cluster, first.AgentID)
				r.scale("/db", 1)
				if again := r.running("/db"); again.AgentID == first.AgentID {
					t.Fatalf("on the gone agent")
				}
			})
		})
	}
}

func TestReleasingClaimHoldsWhileItsAgentIsUnreachable(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(db)
		first := r.running("/db")
		r.scale("/db", 0)
		r.idle()
		r.cluster.partition(first.AgentID)
		r.scale("/db", 1)
		r.pass(10 * time.Minute)
		if got := r.cluster.agentsOf("/db"); len(got) != 0 {
			t.Fatalf("launched on %v although nobody has seen the volume unmounted", got)
		}
		r.cluster.heal(first.AgentID)
		if again := r.running("/db"); again.AgentID != first.AgentID {
			t.Fatalf("launched on %s", again.AgentID)
		}
	})
}

// A draining agent reports its own kills as TASK_GONE_BY_OPERATOR before it
// unmounts; the master repeats that state in a reconciliation.
func TestDrainingAgentKeepsItsVolumes(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(db)
		first := r.running("/db")
		r.idle()
		for _, s := range []Status{
			{Source: "SOURCE_AGENT", Reason: "REASON_AGENT_DRAINING"},
			{Source: sourceMaster, Reason: reasonReconciliation},
		} {
			s.TaskID, s.AgentID, s.State = first.ID, first.AgentID, taskGoneByOp
			r.cluster.set(func(c *cluster) {
				delete(c.tasks, s.TaskID)
				c.send(s)
			})
			r.pass(time.Minute)
		}
		if again := r.running("/db"); again.AgentID != first.AgentID || again.ID == first.ID {
			t.Fatalf("relaunched as %+v, was %+v", again, first)
		}
	})
}

func TestOperatorReleasesAClaimByForce(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(db)
		lost := r.running("/db")
		if err := r.core.ReleaseClaim(t.Context(), volKey, true); err == nil || !strings.Contains(err.Error(), "stop the app") {
			t.Fatalf("released under a running task: %v", err)
		}
		r.cluster.partition(lost.AgentID)
		r.until("lost", func() bool { return r.onlyClaim().State == scheduler.Lost })
		if err := r.core.ReleaseClaim(t.Context(), volKey, false); err == nil {
			t.Fatal("released without force")
		}
		// The operator has cut the power of the host.
		r.cluster.set(func(c *cluster) { delete(c.tasks, lost.ID) })
		if err := r.core.ReleaseClaim(t.Context(), volKey, true); err != nil {
			t.Fatal(err)
		}
		if moved := r.running("/db"); moved.AgentID == lost.AgentID {
			t.Fatalf("still on %s", moved.AgentID)
		}
		if err := r.core.ReleaseClaim(t.Context(), scheduler.VolumeKey{Driver: "ref", Name: "none"}, true); err == nil {
			t.Fatal("released an unknown volume")
		}
	})
}

func TestReturnedTaskWithoutClaimIsKilled(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		r.post(db)
		lost := r.running("/db")
		r.cluster.partition(lost.AgentID)
		r.until("lost", func() bool { return r.onlyClaim().State == scheduler.Lost })
		if err := r.core.ReleaseClaim(t.Context(), volKey, true); err != nil {
			t.Fatal(err)
		}
		r.cluster.heal(lost.AgentID)
		r.until("the returned task is killed", func() bool { return !slices.Contains(r.cluster.liveTasks("/db"), lost.ID) })
		// The host was not off after all: the rules that the cluster watches
		// are the operator's to keep in that case.
		r.cluster.set(func(c *cluster) { c.violations = nil })
	})
}

func TestDeletedWhileLostIsKilledOnReturn(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(db)
		lost := r.running("/db")
		r.idle()
		r.cluster.partition(lost.AgentID)
		r.pass(time.Second)
		r.delete("/db")
		r.until("deleted", func() bool { return !r.exists("/db") })
		if c := r.onlyClaim(); c.State != scheduler.Lost {
			t.Fatalf("claim of a task that may run: %+v", c)
		}
		r.post(strings.Replace(db, `"/db"`, `"/heir"`, 1))
		r.restart()
		r.pass(time.Minute)
		if got := r.cluster.liveTasks("/heir"); len(got) != 0 {
			t.Fatalf("a second writer: %v", got)
		}
		r.cluster.heal(lost.AgentID)
		if heir := r.running("/heir"); heir.AgentID != lost.AgentID {
			t.Fatalf("on %s", heir.AgentID)
		}
		if got := r.cluster.liveTasks("/db"); len(got) != 0 {
			t.Fatalf("task of a deleted app: %v", got)
		}
	})
}

func TestUpdateStopsBeforeItStarts(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(db)
		first := r.running("/db")
		r.idle()
		r.update("/db", func(a *app.App) {
			a.Cmd = "run better"
			a.Upgrade = app.UpgradeStrategy{MinimumHealthCapacity: 1, MaximumOverCapacity: 0}
		})
		r.idle()
		next := r.running("/db")
		if next.AgentID != first.AgentID || next.InstanceID == first.InstanceID {
			t.Fatalf("updated to %+v, was %+v", next, first)
		}
	})
}

func TestUpdateWaitsForTheEndNotTheKill(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(db)
		first := r.running("/db")
		r.idle()
		r.cluster.set(func(c *cluster) { c.stubborn = true })
		r.update("/db", func(a *app.App) { a.Cmd = "run better" })
		r.pass(5 * time.Minute)
		if got := r.cluster.liveTasks("/db"); !slices.Equal(got, []string{first.ID}) {
			t.Fatalf("live: %v", got)
		}
		kills := 0
		r.cluster.set(func(c *cluster) {
			for _, call := range c.calls {
				if call == "kill "+first.ID {
					kills++
				}
			}
			c.stubborn = false
		})
		if kills != 10 {
			t.Errorf("%d kills in five minutes, want one every 30 s", kills)
		}
		r.idle()
		if next := r.running("/db"); next.ID == first.ID {
			t.Fatal("not replaced")
		}
	})
}

func TestUpdateOfASharedVolumesAppStopsFirst(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		r.post(strings.Replace(shared, "ID", "db", 1))
		first := r.running("/db")
		r.idle()
		r.cluster.set(func(c *cluster) { c.stubborn = true })
		r.update("/db", func(a *app.App) { a.Cmd = "run better" })
		r.pass(time.Minute)
		if got := r.cluster.liveTasks("/db"); !slices.Equal(got, []string{first.ID}) {
			t.Fatalf("old and new run together: %v", got)
		}
		r.cluster.set(func(c *cluster) { c.stubborn = false })
		r.idle()
	})
}

func TestUpdateThatAddsAVolumeStopsFirst(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		r.post(`{"id":"/db","cmd":"run","cpus":1,"mem":64}`)
		first := r.running("/db")
		r.idle()
		r.cluster.set(func(c *cluster) { c.stubborn = true })
		with := r.parse(db)
		r.update("/db", func(a *app.App) { a.Container = with.Container })
		r.pass(time.Minute)
		if got := r.cluster.liveTasks("/db"); !slices.Equal(got, []string{first.ID}) {
			t.Fatalf("old and new run together: %v", got)
		}
		r.cluster.set(func(c *cluster) { c.stubborn = false })
		r.idle()
	})
}

// An unreachable strategy that replaces at once cannot do so before the claim
// ends, and does not cost the task its life when its agent returns.
func TestHeldTaskIsNotExpunged(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(strings.Replace(db, `"cpus"`, `"unreachableStrategy":{"inactiveAfterSeconds":0,"expungeAfterSeconds":0},"cpus"`, 1))
		first := r.running("/db")
		r.idle()
		r.cluster.partition(first.AgentID)
		r.pass(10 * time.Minute)
		q := r.queue()
		if len(q) != 1 || !strings.Contains(q[0].Waiting[0].Text, "unreachable") {
			t.Fatalf("queue: %+v", q)
		}
		r.cluster.heal(first.AgentID)
		r.pass(time.Minute)
		if again := r.running("/db"); again.ID != first.ID || len(r.queue()) != 0 {
			t.Fatalf("%s was replaced by %s", first.ID, again.ID)
		}
	})
}

func TestBackendExclusiveVolumeMovesAtOnce(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		if err := r.halt(); err != nil {
			t.Fatal(err)
		}
		r.cfg.BackendExclusive = map[string]bool{"ref": true}
		r.start()
		r.post(db)
		first := r.running("/db")
		r.idle()
		r.scale("/db", 0)
		r.idle()
		if list := r.claims(); len(list) != 0 {
			t.Fatalf("claims: %+v", list)
		}
		r.cluster.partition(first.AgentID)
		r.scale("/db", 1)
		if next := r.running("/db"); next.AgentID == first.AgentID {
			t.Fatal("on an unreachable agent")
		}
	})
}

// leavesALostAgent runs "/db" where the backend refuses two attachments, cuts its
// agent off, and waits for a task elsewhere: first is the task that is cut off,
// second the id of the other.
func (r *rig) leavesALostAgent() (first TaskView, second string) {
	r.t.Helper()
	if err := r.halt(); err != nil {
		r.t.Fatal(err)
	}
	r.cfg.BackendExclusive = map[string]bool{"ref": true}
	r.start()
	r.post(db)
	r.idle()
	r.update("/db", func(a *app.App) { a.Unreachable = app.UnreachableStrategy{} })
	r.idle()
	first = r.running("/db")
	r.cluster.set(func(c *cluster) { c.revokes = true })
	r.cluster.partition(first.AgentID)
	r.until("the task to run elsewhere", func() bool {
		for _, task := range r.app("/db").Tasks {
			if task.AgentID != first.AgentID && task.State == taskRunning {
				second = task.ID
			}
		}
		return second != ""
	})
	return first, second
}

// Where the backend refuses two attachments and the app wants to be replaced,
// an unreachable agent does not hold the volume; the task that was there is
// killed should it return.
func TestBackendExclusiveVolumeLeavesALostAgent(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		first, _ := r.leavesALostAgent()
		if claim := r.onlyClaim(); claim.AgentID == first.AgentID || claim.State != scheduler.Held {
			t.Errorf("claim: %+v", claim)
		}
		r.cluster.heal(first.AgentID)
		r.until("one task to be left", func() bool { return len(r.cluster.liveTasks("/db")) == 1 })
		if now := r.running("/db"); now.ID == first.ID {
			t.Error("the task that came back was kept")
		}
	})
}

// A task that lost its volume to another agent is back: nothing else starts with the
// volume beside it, where no backend keeps them apart, until it has ended.
func TestNothingStartsBesideATaskThatLostItsVolume(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		first, second := r.leavesALostAgent()
		r.cluster.set(func(c *cluster) {
			c.stubborn = true                         // the first takes its time to end
			c.agents[other(first.AgentID)].cpus = 0.1 // no more than runs there
		})
		r.cluster.heal(first.AgentID)
		r.pass(time.Second)
		r.cluster.move(second, "", taskFailed)
		r.pass(10 * time.Minute)
		if live := r.cluster.liveTasks("/db"); len(live) != 1 || live[0] != first.ID {
			t.Fatalf("beside %s: %v", first.ID, live)
		}
		q := r.queue()
		if len(q) != 1 || len(q[0].Waiting) != 1 || !strings.Contains(q[0].Waiting[0].Text, "is held on agent "+first.Host) {
			t.Errorf("the queue says %+v", q)
		}
		r.restart()
		r.pass(10 * time.Minute)
		if live := r.cluster.liveTasks("/db"); len(live) != 1 || live[0] != first.ID {
			t.Fatalf("beside %s, after a restart: %v", first.ID, live)
		}
		r.cluster.move(first.ID, "", taskKilled)
		if now := r.running("/db"); now.AgentID != first.AgentID || now.ID == first.ID {
			t.Errorf("then it runs as %s on %s", now.ID, now.AgentID)
		}
	})
}

// What is remembered of such a task goes when nobody knows it any more.
func TestTaskThatLostItsVolumeAndIsUnknownIsForgotten(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(db)
		first := r.running("/db")
		r.cluster.partition(first.AgentID)
		r.until("the claim is lost", func() bool { return r.onlyClaim().State == scheduler.Lost })
		if err := r.core.ReleaseClaim(t.Context(), volKey, true); err != nil {
			t.Fatal(err)
		}
		r.cluster.set(func(c *cluster) {
			delete(c.agents, first.AgentID)
			delete(c.tasks, first.ID)
		})
		r.pass(time.Hour)
		kept, err := look(t.Context(), r.core, func(*txn) (bool, error) { return r.core.state.instances[first.InstanceID] != nil, nil })
		if err != nil || kept {
			t.Errorf("kept %t, %v", kept, err)
		}
	})
}

func TestBridgeReportEndsAClaim(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(db)
		first := r.running("/db")
		epoch := r.onlyClaim().Epoch
		report := func(agent string, epoch uint64) int {
			if err := r.core.VolumeReleased(t.Context(), volKey, agent, epoch); err != nil {
				t.Fatal(err)
			}
			return len(r.claims())
		}
		if report(first.AgentID, epoch) != 1 {
			t.Error("ended under a running task")
		}
		r.scale("/db", 0)
		r.idle()
		if report(other(first.AgentID), epoch) != 1 {
			t.Error("ended by another agent's report")
		}
		if report(first.AgentID, epoch-1) != 1 {
			t.Error("ended by a report of an older epoch")
		}
		if report(first.AgentID, epoch) != 0 {
			t.Error("not ended by the agent's report")
		}
	})
}

func TestLaunchThatNeverReachedTheAgentLeavesNoClaim(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		r.cluster.set(func(c *cluster) { c.refuse = &CallError{Call: "ACCEPT", Status: 403} })
		r.post(db)
		r.pass(10 * time.Second)
		if list := r.claims(); len(list) != 0 {
			t.Fatalf("claims of a refused launch: %+v", list)
		}
		r.cluster.set(func(c *cluster) { c.refuse = nil })
		r.running("/db")
	})
}

const shared = `{"id":"/ID","cmd":"run","cpus":1,"mem":64,"container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW",
	"external":{"provider":"dvdi","name":"common","shared":true,"options":{"dvdi/driver":"ref"}}}]}}`

func TestTwoAppsShareAVolumeOnOneAgent(t *testing.T) {
	inBubble(t, []string{"a", "b", "c"}, func(t *testing.T, r *rig) {
		r.post(strings.Replace(shared, "ID", "one", 1))
		one := r.running("/one")
		r.post(strings.Replace(shared, "ID", "two", 1))
		two := r.running("/two")
		if one.AgentID != two.AgentID {
			t.Fatalf("one on %s, two on %s", one.AgentID, two.AgentID)
		}
		if c := r.onlyClaim(); len(c.Instances) != 2 || c.Access != scheduler.OneAgent {
			t.Fatalf("claim: %+v", c)
		}
	})
}

// Validation refuses two apps with one exclusive volume; should they exist all
// the same, they take turns.
func TestTwoExclusiveAppsNeverRunTogether(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(db)
		first := r.running("/db")
		r.idle()
		if err := r.halt(); err != nil {
			t.Fatal(err)
		}
		r.smuggle(strings.Replace(db, `"/db"`, `"/thief"`, 1))
		r.start()
		r.pass(5 * time.Minute)
		if got := r.cluster.liveTasks("/thief"); len(got) != 0 {
			t.Fatalf("a second writer: %v", got)
		}
		if text := r.queue()[0].Waiting[0].Text; !strings.Contains(text, "vol") {
			t.Errorf("the queue does not name the volume: %s", text)
		}
		r.delete("/db")
		if thief := r.running("/thief"); thief.AgentID != first.AgentID {
			t.Fatalf("on %s, the volume is on %s", thief.AgentID, first.AgentID)
		}
	})
}

// smuggle stores an app behind the back of all validation.
func (r *rig) smuggle(body string) {
	r.t.Helper()
	st, err := store.OpenBolt(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	defer st.Close()
	c, err := New(r.cfg, r.cluster.connect(), st, r.logger())
	if err != nil {
		r.t.Fatal(err)
	}
	tx := newTxn(c, time.Now())
	a := r.parse(body)
	a.Version = app.NewTimestamp(time.Now())
	c.storeDefinition(tx, a)
	if err := c.commit(tx); err != nil {
		r.t.Fatal(err)
	}
}

// The same word about a task that is long gone does not end a claim either,
// while the master still has the agent.
func TestGoneByOperatorIsCheckedWithTheMaster(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(db)
		first := r.running("/db")
		r.scale("/db", 0)
		r.idle()
		r.cluster.set(func(c *cluster) {
			for source, reason := range map[string]string{sourceMaster: reasonReconciliation, "SOURCE_AGENT": reasonRemovedByOperator} {
				c.send(Status{TaskID: first.ID, AgentID: first.AgentID, State: taskGoneByOp, Source: source, Reason: reason})
			}
		})
		r.pass(time.Minute)
		if c := r.onlyClaim(); c.AgentID != first.AgentID || c.State != scheduler.Releasing {
			t.Fatalf("claim: %+v", c)
		}
	})
}

// The scheduler keeps these rules too; checkClaim is asked for every launch all
// the same, whoever decided it.
func TestCheckClaim(t *testing.T) {
	lost := &instance{ID: "lost", Task: &task{LostSince: time.Unix(1, 0)}}
	live := &instance{ID: "live", Task: &task{}}
	for name, c := range map[string]struct {
		claim  *claim
		access scheduler.AccessMode
		agent  string
		ok     bool
	}{
		"never claimed":               {nil, scheduler.OneTask, "S0", true},
		"released, same agent":        {&claim{AgentID: "S0"}, scheduler.OneTask, "S0", true},
		"released, other agent":       {&claim{AgentID: "S1"}, scheduler.OneTask, "S0", false},
		"in use":                      {&claim{AgentID: "S0", Holders: []string{"live"}}, scheduler.OneTask, "S0", false},
		"in use by itself":            {&claim{AgentID: "S0", Holders: []string{"me"}}, scheduler.OneTask, "S0", true},
		"shared, same agent":          {&claim{AgentID: "S0", Holders: []string{"live"}, Access: scheduler.OneAgent}, scheduler.OneAgent, "S0", true},
		"shared, other agent":         {&claim{AgentID: "S1", Holders: []string{"live"}, Access: scheduler.OneAgent}, scheduler.OneAgent, "S0", false},
		"shared, wanted alone":        {&claim{AgentID: "S0", Holders: []string{"live"}, Access: scheduler.OneAgent}, scheduler.OneTask, "S0", false},
		"used alone, wanted shared":   {&claim{AgentID: "S0", Holders: []string{"live"}}, scheduler.OneAgent, "S0", false},
		"unreachable, same agent":     {&claim{AgentID: "S0", Holders: []string{"lost"}, Access: scheduler.OneAgent}, scheduler.OneAgent, "S0", false},
		"many writers, in use":        {&claim{AgentID: "S1", Holders: []string{"live"}}, scheduler.ManyWriters, "S0", false},
		"many writers, in use there":  {&claim{AgentID: "S0", Holders: []string{"live"}}, scheduler.ManyWriters, "S0", false},
		"many writers, never claimed": {nil, scheduler.ManyWriters, "S0", true},
	} {
		s := &state{instances: map[string]*instance{"lost": lost, "live": live},
			volumes: map[scheduler.VolumeKey]*volumeRecord{volKey: {Key: volKey, Claim: c.claim}}}
		err := s.checkClaim(scheduler.VolumeRequest{Key: volKey, Access: c.access}, "me", c.agent)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
