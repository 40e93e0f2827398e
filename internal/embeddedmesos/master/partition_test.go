package master_test

import (
	"testing"
	"time"

	types "github.com/gogo/protobuf/types"
	mesos "github.com/mesos/mesos-go/api/v1/lib"
	operator "github.com/mesos/mesos-go/api/v1/lib/master"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/master"
)

// running starts a cluster with a task that runs, and leaves the rest of the
// agent offered.
func running(t *testing.T, configure ...func(*master.Config)) (*cluster, *fakeAgent, *client, link.Run) {
	t.Helper()
	c := startCluster(t, configure...)
	agent := c.agent(1).register()
	f := c.subscribe(mediaJSON, framework()).subscribed()
	f.accept(f.offer(anyOffer), launch(task("a", agent.id())))
	run := next[link.Run](agent)
	agent.update(run, mesos.TASK_RUNNING)
	f.acknowledge(f.update())
	next[link.Acknowledge](agent)
	poll(t, "the rest to be offered", func() bool {
		return len(c.operate(&operator.Call{Type: operator.Call_GET_FRAMEWORKS}).GetFrameworks.Frameworks[0].Offers) == 1
	})
	return c, agent, f, run
}

// reported is the task as the agent tells it when it comes back.
func (a *fakeAgent) reported(run link.Run, state mesos.TaskState) link.Reregister {
	status := a.status(run, state)
	status.Healthy = ptr(true)
	return link.Reregister{
		Tasks:      []link.Task{{FrameworkID: *run.Framework.ID, Info: run.Task, State: state, Latest: &status}},
		Frameworks: []mesos.FrameworkInfo{run.Framework},
	}
}

func TestUnreachableAgentAndItsReturn(t *testing.T) {
	c, agent, f, run := running(t, losesAgents)
	agent.cable.Cut()
	s := f.update()
	if s.GetState() != mesos.TASK_UNREACHABLE || s.GetSource() != mesos.SOURCE_MASTER || s.GetReason() != mesos.REASON_AGENT_REMOVED ||
		s.GetMessage() != "health check timed out" || s.UUID != nil || s.UnreachableTime == nil || s.ExecutorID != nil {
		t.Errorf("got %v", s)
	}
	f.await(scheduler.Event_RESCIND)
	if failure := f.await(scheduler.Event_FAILURE).Failure; failure.AgentID.GetValue() != agent.id().Value {
		t.Errorf("got %v", failure)
	}
	asked := scheduler.Call_Reconcile_Task{TaskID: run.Task.TaskID, AgentID: agent.info.ID}
	f.reconcile(asked)
	if again := f.update(); again.GetState() != mesos.TASK_UNREACHABLE || !again.UnreachableTime.Equal(s.UnreachableTime) {
		t.Errorf("reconciliation says %v", again)
	}
	f.reconcile()
	state := c.operate(&operator.Call{Type: operator.Call_GET_STATE}).GetState
	if len(state.GetTasks.UnreachableTasks) != 1 || len(state.GetAgents.Agents) != 0 {
		t.Errorf("state %v", state)
	}

	agent.cable.Heal()
	agent.reregister(agent.reported(run, mesos.TASK_RUNNING))
	s = f.update()
	if s.GetState() != mesos.TASK_RUNNING || s.GetSource() != mesos.SOURCE_MASTER || s.GetReason() != mesos.REASON_AGENT_REREGISTERED ||
		s.GetMessage() != "Unreachable agent re-reregistered" || s.UUID != nil || !s.GetHealthy() || s.ContainerStatus == nil {
		t.Errorf("got %v", s)
	}
	if o := f.offer(anyOffer); cpus(o) != 3.9 {
		t.Errorf("offer of %v CPUs", cpus(o))
	}
	agent.update(run, mesos.TASK_FINISHED)
	if s := f.update(); s.GetState() != mesos.TASK_FINISHED {
		t.Errorf("got %v", s)
	}
}

func TestLaunchReusesNoIDOfAnUnreachableTask(t *testing.T) {
	c, agent, f, _ := running(t, losesAgents)
	agent.cable.Cut()
	f.update()
	other := c.agent(2).register()
	f.await(scheduler.Event_RESCIND)
	f.await(scheduler.Event_FAILURE)
	f.accept(f.offer(anyOffer), launch(task("a", other.id())))
	if s := f.update(); s.GetMessage() != "Task reuses the ID of an unreachable task: a" {
		t.Errorf("got %v", s)
	}
}

func TestFrameworksThatAreNotPartitionAwareGetLost(t *testing.T) {
	c := startCluster(t, losesAgents)
	agent := c.agent(1).register()
	info := framework()
	info.Capabilities = info.Capabilities[:2]
	f := c.subscribe(mediaJSON, info).subscribed()
	f.accept(f.offer(anyOffer), launch(task("a", agent.id())))
	run := next[link.Run](agent)
	agent.cable.Cut()
	if s := f.update(); s.GetState() != mesos.TASK_LOST {
		t.Errorf("got %v", s)
	}
	_ = run
}

func TestAgentProcessRestart(t *testing.T) {
	_, agent, f, run := running(t)
	agent.die()
	f.await(scheduler.Event_RESCIND)
	f.reconcile()
	if s := f.update(); s.GetState() != mesos.TASK_RUNNING {
		t.Errorf("while the agent restarts: %v", s)
	}
	f.call(&scheduler.Call{Type: scheduler.Call_KILL, Kill: &scheduler.Call_Kill{TaskID: run.Task.TaskID}})
	agent.connect()
	welcome := agent.reregister(agent.reported(run, mesos.TASK_RUNNING))
	if len(welcome.Kill) != 1 || welcome.Kill[0].TaskID.Value != "a" {
		t.Errorf("the kill got lost: %v", welcome)
	}
	if o := f.offer(anyOffer); cpus(o) != 3.9 {
		t.Errorf("offer of %v CPUs", cpus(o))
	}
}

// An agent registers again when it had no answer in time. Its offers stay, unless
// it offers something else.
func TestAgentThatRegistersTwice(t *testing.T) {
	c, agent, f, run := running(t)
	offers := func() []operator.Response_GetFrameworks_Framework {
		return c.operate(&operator.Call{Type: operator.Call_GET_FRAMEWORKS}).GetFrameworks.Frameworks
	}
	before := offers()[0].Offers[0].ID
	agent.reregister(agent.reported(run, mesos.TASK_RUNNING))
	if now := offers()[0].Offers; len(now) != 1 || now[0].ID != before {
		t.Errorf("offers %v, before %s", now, before.Value)
	}
	agent.info.Attributes = []mesos.Attribute{{Name: "rack", Type: mesos.TEXT, Text: &mesos.Value_Text{Value: "r9"}}}
	agent.reregister(agent.reported(run, mesos.TASK_RUNNING))
	if gone := f.await(scheduler.Event_RESCIND).Rescind.OfferID; gone != before {
		t.Errorf("%s is rescinded, want %s", gone.Value, before.Value)
	}
}

func TestAgentThatDoesNotComeBack(t *testing.T) {
	_, agent, f, _ := running(t, func(cfg *master.Config) {
		cfg.Timing.AgentReregister = 50 * time.Millisecond
	})
	agent.die()
	f.await(scheduler.Event_RESCIND)
	if s := f.update(); s.GetState() != mesos.TASK_UNREACHABLE || s.GetMessage() != "agent did not reregister within 50ms after disconnecting" {
		t.Errorf("got %v", s)
	}
}

func TestLaunchThatNeverReachedTheAgent(t *testing.T) {
	c := startCluster(t)
	agent := c.agent(1).register()
	f := c.subscribe(mediaJSON, framework()).subscribed()
	o := f.offer(anyOffer)
	agent.cable.Cut()
	f.accept(o, launch(task("lost", agent.id())))
	agent.cable.Heal()
	agent.die()
	agent.connect()
	welcome := agent.reregister(link.Reregister{})
	if len(welcome.Reconcile) != 1 || welcome.Reconcile[0].TaskID.Value != "lost" {
		t.Errorf("agent was not asked about the task: %v", welcome)
	}
}

func TestMasterFailover(t *testing.T) {
	c, agent, f, run := running(t)
	c.failover("m1")
	for range f.events {
	}
	if err := <-f.ended; err == nil || err.Error() != "unexpected EOF" {
		t.Errorf("the stream of a killed master ended with %v", err)
	}
	<-agent.done // its inbox was closed
	agent.silent()
	info := framework()
	info.ID = f.id
	again := c.subscribe(mediaJSON, info)
	if s := again.await(scheduler.Event_SUBSCRIBED).Subscribed; s.FrameworkID.Value != f.id.Value || s.MasterInfo.ID != "m1" {
		t.Errorf("got %v", s)
	}
	// Nothing is known of the task and its agent may come back: no answer.
	again.reconcile()
	again.reconcile(scheduler.Call_Reconcile_Task{TaskID: run.Task.TaskID, AgentID: agent.info.ID},
		scheduler.Call_Reconcile_Task{TaskID: run.Task.TaskID})
	again.quiet()
	if state := c.operate(&operator.Call{Type: operator.Call_GET_AGENTS}).GetAgents; len(state.RecoveredAgents) != 1 {
		t.Errorf("agents %v", state)
	}

	agent.die()
	agent.connect()
	agent.reregister(agent.reported(run, mesos.TASK_RUNNING))
	if o := again.offer(anyOffer); cpus(o) != 3.9 || o.ID.Value != "m1-O0" {
		t.Errorf("offer %v", o)
	}
	again.reconcile()
	if s := again.update(); s.GetState() != mesos.TASK_RUNNING || s.GetReason() != mesos.REASON_RECONCILIATION {
		t.Errorf("got %v", s)
	}
	second := c.agent(2).register()
	if second.id().Value != "m1-S0" || agent.id().Value != "m0-S0" {
		t.Errorf("agents %s and %s", agent.id().Value, second.id().Value)
	}
}

func TestFrameworkKnownFromItsAgentsOnly(t *testing.T) {
	c, agent, f, run := running(t)
	c.failover("m1")
	agent.die()
	agent.connect()
	agent.reregister(agent.reported(run, mesos.TASK_RUNNING))
	found := c.operate(&operator.Call{Type: operator.Call_GET_FRAMEWORKS}).GetFrameworks.Frameworks
	if len(found) != 1 || !found[0].Recovered || found[0].Connected || found[0].FrameworkInfo.Name != "test" {
		t.Errorf("frameworks %v", found)
	}
	// Its update waits for it at the agent.
	agent.update(run, mesos.TASK_FINISHED)
	info := framework()
	info.ID = f.id
	again := c.subscribe(mediaJSON, info).subscribed()
	again.reconcile()
	if s := again.update(); s.GetState() != mesos.TASK_RUNNING {
		t.Errorf("before the framework was sent the end: %v", s)
	}
	agent.update(run, mesos.TASK_FINISHED)
	if s := again.update(); s.GetState() != mesos.TASK_FINISHED || s.GetSource() != mesos.SOURCE_EXECUTOR {
		t.Errorf("got %v", s)
	}
}

func TestAgentsLostDuringMasterFailover(t *testing.T) {
	c, agent, f, run := running(t)
	c.cfg.Timing.AgentReregister = time.Millisecond
	agent.die()
	c.failover("m1")
	info := framework()
	info.ID = f.id
	again := c.subscribe(mediaJSON, info).subscribed()
	asked := scheduler.Call_Reconcile_Task{TaskID: run.Task.TaskID, AgentID: agent.info.ID}
	poll(t, "the agent to be unreachable", func() bool {
		return len(c.operate(&operator.Call{Type: operator.Call_GET_AGENTS}).GetAgents.RecoveredAgents) == 0
	})
	again.reconcile(asked)
	for {
		event := again.next()
		if event.Type == scheduler.Event_FAILURE {
			continue // the agent's, if it was lost after the subscription
		}
		if s := event.Update.Status; s.GetState() != mesos.TASK_UNREACHABLE {
			t.Errorf("got %v", s)
		}
		break
	}
	// A third master still knows.
	c.failover("m2")
	third := c.subscribe(mediaJSON, info).subscribed()
	third.reconcile(asked)
	if s := third.update(); s.GetState() != mesos.TASK_UNREACHABLE {
		t.Errorf("got %v", s)
	}
}

func (c *cluster) markGone(id mesos.AgentID) {
	c.t.Helper()
	c.operate(&operator.Call{Type: operator.Call_MARK_AGENT_GONE, MarkAgentGone: &operator.Call_MarkAgentGone{AgentID: id}})
}

func TestGoneAgent(t *testing.T) {
	c, agent, f, run := running(t)
	c.markGone(agent.id())
	if told := next[link.ShutdownAgent](agent); told.Message != "Agent has been marked gone" {
		t.Errorf("agent was told %v", told)
	}
	s := f.update()
	if s.GetState() != mesos.TASK_GONE_BY_OPERATOR || s.GetSource() != mesos.SOURCE_MASTER ||
		s.GetReason() != mesos.REASON_AGENT_REMOVED_BY_OPERATOR || s.GetMessage() != "Agent has been marked gone" || s.UnreachableTime != nil {
		t.Errorf("got %v", s)
	}
	f.await(scheduler.Event_RESCIND)
	f.await(scheduler.Event_FAILURE)
	f.reconcile(scheduler.Call_Reconcile_Task{TaskID: run.Task.TaskID, AgentID: agent.info.ID})
	if s := f.update(); s.GetState() != mesos.TASK_GONE_BY_OPERATOR || s.GetReason() != mesos.REASON_RECONCILIATION {
		t.Errorf("reconciliation says %v", s)
	}
	// It stays gone, also for the next master.
	agent.sender.Send(link.Reregister{Process: agent.process, Info: agent.info})
	next[link.ShutdownAgent](agent)
	c.failover("m1")
	agent.die()
	agent.connect()
	agent.sender.Send(link.Reregister{Process: agent.process, Info: agent.info})
	next[link.ShutdownAgent](agent)
}

func TestUnreachableAgentMarkedGone(t *testing.T) {
	c, agent, f, _ := running(t, losesAgents)
	agent.cable.Cut()
	f.update()
	f.await(scheduler.Event_RESCIND)
	f.await(scheduler.Event_FAILURE)
	c.markGone(agent.id())
	if s := f.update(); s.GetState() != mesos.TASK_GONE_BY_OPERATOR || s.GetReason() != mesos.REASON_AGENT_REMOVED_BY_OPERATOR {
		t.Errorf("got %v", s)
	}
	tasks := c.operate(&operator.Call{Type: operator.Call_GET_TASKS}).GetTasks
	if len(tasks.UnreachableTasks) != 0 || len(tasks.CompletedTasks) != 1 {
		t.Errorf("tasks %v", tasks)
	}
}

func TestAgentThatLeavesInGoodOrder(t *testing.T) {
	_, agent, f, _ := running(t)
	agent.sender.Send(link.Unregister{})
	if s := f.update(); s.GetState() != mesos.TASK_LOST || s.GetMessage() != "Agent agent1.test removed: agent unregistered" {
		t.Errorf("got %v", s)
	}
	f.await(scheduler.Event_RESCIND)
	f.await(scheduler.Event_FAILURE)
}

func TestNewAgentAtTheSameAddress(t *testing.T) {
	c, agent, f, _ := running(t)
	again := c.agent(1)
	agent.die()
	again.register()
	if again.id() == agent.id() {
		t.Error("an agent that had forgotten everything got its id back")
	}
	f.await(scheduler.Event_RESCIND)
	if s := f.update(); s.GetState() != mesos.TASK_LOST {
		t.Errorf("got %v", s)
	}
	f.await(scheduler.Event_FAILURE)
}

func TestKill(t *testing.T) {
	_, agent, f, run := running(t)
	kill := func(id string, on *mesos.AgentID) {
		f.call(&scheduler.Call{Type: scheduler.Call_KILL, Kill: &scheduler.Call_Kill{TaskID: mesos.TaskID{Value: id}, AgentID: on}})
	}
	kill("a", &mesos.AgentID{Value: "elsewhere"})
	kill("unknown", nil)
	if s := f.update(); s.GetState() != mesos.TASK_UNKNOWN || s.GetMessage() != "Reconciliation: Task is unknown" {
		t.Errorf("got %v", s)
	}
	agent.silent()
	kill("a", agent.info.ID)
	if told := next[link.KillTask](agent); told.TaskID != run.Task.TaskID {
		t.Errorf("agent was told %v", told)
	}
}

func TestDrain(t *testing.T) {
	for _, gone := range []bool{false, true} {
		c, agent, f, run := running(t)
		c.operate(&operator.Call{Type: operator.Call_DRAIN_AGENT, DrainAgent: &operator.Call_DrainAgent{AgentID: agent.id(), MarkGone: &gone}})
		f.await(scheduler.Event_RESCIND)
		next[link.KillTask](agent)
		agent.update(run, mesos.TASK_KILLED)
		s := f.update()
		want := mesos.TASK_KILLED
		if gone {
			want = mesos.TASK_GONE_BY_OPERATOR
		}
		if s.GetState() != want || s.GetReason() != mesos.REASON_AGENT_DRAINING || s.GetSource() != mesos.SOURCE_EXECUTOR {
			t.Errorf("mark_gone %t: got %v", gone, s)
		}
		f.acknowledge(s)
		if gone {
			f.await(scheduler.Event_FAILURE)
			continue
		}
		f.quiet()
		found := c.operate(&operator.Call{Type: operator.Call_GET_AGENTS}).GetAgents.Agents[0]
		if found.EstimatedDrainStartTime == nil {
			t.Error("the agent does not say since when it is drained")
		}
		if found.Active || !found.GetDeactivated() || found.DrainInfo.State != mesos.DrainState_DRAINED {
			t.Errorf("agent %v", found)
		}
		c.operate(&operator.Call{Type: operator.Call_REACTIVATE_AGENT, ReactivateAgent: &operator.Call_ReactivateAgent{AgentID: agent.id()}})
		f.offer(anyOffer)
		c.operate(&operator.Call{Type: operator.Call_DEACTIVATE_AGENT, DeactivateAgent: &operator.Call_DeactivateAgent{AgentID: agent.id()}})
		f.await(scheduler.Event_RESCIND)
	}
}

func TestMessagesReachExecutors(t *testing.T) {
	_, agent, f, _ := running(t)
	f.call(&scheduler.Call{Type: scheduler.Call_MESSAGE, Message: &scheduler.Call_Message{
		AgentID: agent.id(), ExecutorID: mesos.ExecutorID{Value: "e"}, Data: []byte("x"),
	}})
	if told := next[link.Message](agent); string(told.Data) != "x" || told.ExecutorID.Value != "e" {
		t.Errorf("agent was told %v", told)
	}
	agent.sender.Send(link.ExecutorExited{FrameworkID: *f.id, ExecutorID: mesos.ExecutorID{Value: "e"}, Status: 9})
	failure := f.await(scheduler.Event_FAILURE).Failure
	if failure.ExecutorID.GetValue() != "e" || failure.GetStatus() != 9 || failure.AgentID.GetValue() != agent.id().Value {
		t.Errorf("got %v", failure)
	}
}

func TestDrainGoesOnAfterMasterFailover(t *testing.T) {
	c, agent, f, run := running(t)
	limit := &types.Duration{Seconds: 1}
	c.operate(&operator.Call{Type: operator.Call_DRAIN_AGENT, DrainAgent: &operator.Call_DrainAgent{AgentID: agent.id(), MaxGracePeriod: limit}})
	for range 2 { // once per media type
		next[link.KillTask](agent)
	}
	c.failover("m1")
	info := framework()
	info.ID = f.id
	again := c.subscribe(mediaJSON, info).subscribed()
	agent.die()
	agent.connect()
	reported := agent.reported(run, mesos.TASK_RUNNING)
	reported.Tasks[0].Info.KillPolicy = &mesos.KillPolicy{GracePeriod: &mesos.DurationInfo{Nanoseconds: 5e9}}
	agent.reregister(reported)
	if told := next[link.KillTask](agent); told.KillPolicy.GetGracePeriod().GetNanoseconds() != 1e9 {
		t.Errorf("agent was told %v", told)
	}
	again.quiet()
	agent.update(run, mesos.TASK_KILLING)
	if s := again.update(); s.GetState() != mesos.TASK_KILLING || s.GetReason() != mesos.REASON_AGENT_DRAINING {
		t.Errorf("got %v", s)
	}
	if got := c.try(&operator.Call{Type: operator.Call_REACTIVATE_AGENT, ReactivateAgent: &operator.Call_ReactivateAgent{AgentID: agent.id()}}); got.status != 400 {
		t.Errorf("REACTIVATE_AGENT while draining: %d %s", got.status, got.body)
	}
}
