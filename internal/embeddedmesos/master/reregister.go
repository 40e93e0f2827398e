package master

import (
	"slices"
	"time"

	"github.com/gogo/protobuf/proto"
	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

// reregisterAgent welcomes an agent back (Master::reregisterSlave).
func (m *Master) reregisterAgent(from link.Agent, message link.Reregister) {
	id := message.Info.ID.GetValue()
	where := m.presence(id)
	m.log.Info("agent comes back", zap.String("agent", id), zap.Int("tasks", len(message.Tasks)))
	switch where {
	case agentGone:
		m.refuseAgent(from, refusedf("Agent has been marked gone"))
		return
	case agentRegistered:
		m.reconcileAgent(m.agents.registered[id], from, message)
		return
	}
	info := *proto.Clone(&message.Info).(*mesos.AgentInfo)
	a, err := m.newAgent(from, message.Process, info, message.Checkpointed)
	if err != nil {
		m.refuseAgent(from, err)
		return
	}
	a.reregistered = a.registered
	if err := m.registry.admit(a.info); err != nil {
		m.fail(err)
		return
	}
	m.recoverFrameworks(message)
	m.readmitTasks(a, where, message.Tasks)
	delete(m.agents.unreachableTasks, id)
	m.addAgent(a)
	m.takeOperations(a, message.Operations)
	from.Send(link.Reregistered{AgentID: *a.info.ID, PingTimeout: m.cfg.Timing.pingTimeout()})
	m.shutdownCompleted(a, message)
	m.drainTasks(a)
	m.checkDrained(a)
	m.allocate()
}

// recoverFrameworks learns of frameworks that have not come back themselves
// (Master::updateSlaveFrameworks). As on Mesos they have no time-out: what they
// run goes on until somebody tears them down.
func (m *Master) recoverFrameworks(message link.Reregister) {
	for _, info := range message.Frameworks {
		m.recoverFramework(info)
	}
}

func (m *Master) recoverFramework(info mesos.FrameworkInfo) {
	id := info.ID.GetValue()
	if m.frameworks.registered[id] != nil || m.frameworks.isCompleted(id) {
		return
	}
	m.log.Info("framework recovered from an agent", zap.String("framework", id))
	f := m.addFramework(*proto.Clone(&info).(*mesos.FrameworkInfo))
	f.recovered = true
}

// shutdownCompleted tells the agent to end what belongs to frameworks that
// were removed in its absence.
func (m *Master) shutdownCompleted(a *agent, message link.Reregister) {
	ids := make(map[string]bool)
	for _, info := range message.Frameworks {
		ids[info.ID.GetValue()] = true
	}
	for _, t := range message.Tasks {
		ids[t.FrameworkID.Value] = true
	}
	for id := range ids {
		if m.frameworks.isCompleted(id) {
			a.conn.Send(link.ShutdownFramework{FrameworkID: mesos.FrameworkID{Value: id}})
		}
	}
}

// readmitTasks takes over the tasks of an agent that was away. Frameworks are
// told the state of each unless this master had only recovered the agent from
// the registry.
func (m *Master) readmitTasks(a *agent, where presence, tasks []link.Task) {
	for i := range tasks {
		id := tasks[i].FrameworkID.Value
		if m.frameworks.isCompleted(id) {
			continue
		}
		if m.frameworks.registered[id] == nil {
			m.log.Error("agent has a task of a framework that it does not describe; ignored",
				zap.String("agent", a.id()), zap.String("framework", id), zap.String("task", tasks[i].Info.TaskID.Value))
			continue
		}
		t := m.readmitTask(a, &tasks[i])
		if where == agentRecovered {
			continue
		}
		text := "Unknown agent reregistered"
		if where == agentUnreachable {
			text = "Unreachable agent re-reregistered"
		}
		m.forward(m.frameworks.registered[t.FrameworkID.Value], m.status(statusOf{
			task: t.TaskID, agent: a.info.ID, state: t.GetState(),
			message: text, reason: mesos.REASON_AGENT_REREGISTERED, of: t, observed: true,
		}))
	}
}

func (m *Master) readmitTask(a *agent, reported *link.Task) *task {
	f := m.frameworks.registered[reported.FrameworkID.Value]
	t := newTask(reported.FrameworkID, &reported.Info)
	t.State = ptr(reported.State)
	for i := range reported.Statuses {
		t.addStatus(*proto.Clone(&reported.Statuses[i]).(*mesos.TaskStatus))
	}
	if last := reported.Latest; last != nil {
		t.addStatus(*proto.Clone(last).(*mesos.TaskStatus))
		if len(last.UUID) > 0 {
			t.StatusUpdateState, t.StatusUpdateUUID = last.State, last.UUID
		}
	}
	delete(f.unreachable, t.id())
	f.completed = slices.DeleteFunc(f.completed, func(c *task) bool { return c.id() == t.id() })
	f.addTask(t)
	a.tasks[taskKey{f.id(), t.id()}] = t
	if !terminal(t.GetState()) {
		a.take(f.id(), t.Resources)
	}
	return t
}

// reconcileAgent takes back an agent that the master had not given up
// (Master::reconcileKnownSlave).
func (m *Master) reconcileAgent(a *agent, from link.Agent, message link.Reregister) {
	if err := m.updateAgent(a, message); err != nil {
		m.refuseAgent(from, err)
		return
	}
	reported := make(map[taskKey]mesos.TaskState)
	for _, t := range message.Tasks {
		reported[taskKey{t.FrameworkID.Value, t.Info.TaskID.Value}] = t.State
	}
	welcome := link.Reregistered{AgentID: *a.info.ID, PingTimeout: m.cfg.Timing.pingTimeout()}
	for key := range a.tasks {
		f := m.frameworks.registered[key.framework]
		if _, known := reported[key]; !known && f != nil {
			welcome.Reconcile = append(welcome.Reconcile, link.ReconcileTask{
				Framework: f.info, TaskID: mesos.TaskID{Value: key.task},
			})
		}
	}
	for key, state := range reported {
		if a.killed[key] && !terminal(state) {
			welcome.Kill = append(welcome.Kill, link.KillTask{
				FrameworkID: mesos.FrameworkID{Value: key.framework}, TaskID: mesos.TaskID{Value: key.task},
			})
		}
	}
	a.conn = from
	a.reregistered = time.Now()
	from.Send(welcome)
	m.takeOperations(a, message.Operations)
	if a.reregister != nil {
		a.reregister.Stop()
		a.reregister = nil
	}
	a.connected = true
	a.active = !m.registry.deactivated[a.id()]
	a.answered, a.silent = true, 0
	m.recoverFrameworks(message)
	m.shutdownCompleted(a, message)
	m.drainTasks(a)
	m.checkDrained(a)
	m.allocate()
}

// updateAgent takes over what the agent now says of itself. Its checkpointed
// resources count: an operation that it never saw has not happened. Offers stay
// where nothing has changed, as when an agent registers again because it had no
// answer in time (Master::updateSlave).
func (m *Master) updateAgent(a *agent, message link.Reregister) error {
	updated := *a
	updated.info = *proto.Clone(&message.Info).(*mesos.AgentInfo)
	updated.process = message.Process
	if err := updated.setResources(message.Checkpointed); err != nil {
		return err
	}
	if !a.info.Equal(&updated.info) || !a.total.contains(updated.total) || !updated.total.contains(a.total) {
		for _, o := range sortedOffers(a.offers) {
			m.rescind(o)
		}
	}
	a.info, a.process = updated.info, updated.process
	a.total, a.checkpointed = updated.total, updated.checkpointed
	if err := m.registry.admit(a.info); err != nil {
		m.fail(err)
	}
	return nil
}
