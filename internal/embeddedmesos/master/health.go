package master

import (
	"fmt"
	"slices"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

// recoverAgents puts the registry's agents where they wait for the agents to
// come back.
func (m *Master) recoverAgents() {
	for id, info := range m.registry.admitted {
		m.agents.recovered[id] = info
	}
}

// recoveredAgentsTimeout gives up the agents that did not come back after the
// master took over (Master::recoveredSlavesTimeout).
func (m *Master) recoveredAgentsTimeout() {
	for id := range m.agents.recovered {
		m.log.Info("agent did not come back after the master failover", zap.String("agent", id))
		if err := m.registry.markUnreachable(id, time.Now()); err != nil {
			m.fail(err)
			return
		}
		delete(m.agents.recovered, id)
		m.agentFailure(id)
	}
}

// pingAgent is the agent's health check (SlaveObserver): after
// AgentPingTimeouts pings without an answer the agent is unreachable.
func (m *Master) pingAgent(a *agent) {
	if m.agents.registered[a.id()] != a {
		return
	}
	if !a.answered {
		a.silent++
	}
	if a.silent >= m.cfg.Timing.AgentPingTimeouts {
		m.markUnreachable(a, "health check timed out")
		return
	}
	a.answered = false
	a.conn.Send(link.Ping{Connected: a.connected})
	a.ping = m.after(m.cfg.Timing.AgentPing, func() { m.pingAgent(a) })
}

// agentExited is told when the agent process behind a connection ended: its
// tasks may live on, so it has time to come back (Master::disconnect).
func (m *Master) agentExited(conn link.Agent) {
	a := m.agents.byConnection(conn)
	if a == nil {
		return
	}
	m.log.Info("agent disconnected", zap.String("agent", a.id()))
	a.connected = false
	m.deactivateAgent(a)
	a.reregister = m.after(m.cfg.Timing.AgentReregister, func() {
		if m.agents.registered[a.id()] == a && !a.connected {
			m.markUnreachable(a, fmt.Sprintf(
				"agent did not reregister within %s after disconnecting", m.cfg.Timing.AgentReregister))
		}
	})
}

// deactivateAgent ends offers of the agent's resources.
func (m *Master) deactivateAgent(a *agent) {
	a.active = false
	for _, o := range sortedOffers(a.offers) {
		m.rescind(o)
	}
	m.dropInverses(func(key inverseKey, _ *inverse) bool { return key.agent == a.id() })
}

func (m *Master) markUnreachable(a *agent, why string) {
	now := time.Now()
	m.log.Info("agent is unreachable", zap.String("agent", a.id()), zap.String("why", why))
	if err := m.registry.markUnreachable(a.id(), now); err != nil {
		m.fail(err)
		return
	}
	m.dropAgent(a, agentEnd{
		task: mesos.TASK_UNREACHABLE, reason: mesos.REASON_AGENT_REMOVED, message: why, unreachable: &now,
		operation: mesos.OPERATION_UNREACHABLE, operationMessage: "Agent was marked unreachable",
	})
}

// markGone handles MARK_AGENT_GONE (Master::markGone). The caller knows that
// the agent is registered, recovered or unreachable.
func (m *Master) markGone(id string) error {
	if err := m.registry.markGone(id, time.Now()); err != nil {
		m.fail(err)
		return err
	}
	const message = "Agent has been marked gone"
	m.log.Info("agent marked gone", zap.String("agent", id))
	delete(m.agents.recovered, id)
	for _, f := range m.frameworks.registered {
		f.forgetAgent(id)
	}
	a := m.agents.registered[id]
	if a == nil {
		m.loseUnreachableTasks(id, message)
		return nil
	}
	a.conn.Send(link.ShutdownAgent{Message: message})
	m.dropAgent(a, agentEnd{
		task: mesos.TASK_GONE_BY_OPERATOR, reason: mesos.REASON_AGENT_REMOVED_BY_OPERATOR, message: message,
		operation: mesos.OPERATION_GONE_BY_OPERATOR, operationMessage: message,
	})
	return nil
}

// loseUnreachableTasks tells frameworks that what an unreachable agent ran is
// gone with it.
func (m *Master) loseUnreachableTasks(agent, message string) {
	for _, key := range m.agents.unreachableTasks[agent] {
		f := m.frameworks.registered[key.framework]
		if f == nil || f.unreachable[key.task] == nil {
			continue
		}
		t := f.unreachable[key.task]
		reason := mesos.REASON_AGENT_REMOVED_BY_OPERATOR
		if !f.partitionAware() {
			reason = mesos.REASON_AGENT_REMOVED
		}
		status := m.status(statusOf{
			task: t.TaskID, agent: &t.AgentID, state: f.lostOr(mesos.TASK_GONE_BY_OPERATOR),
			message: message, reason: reason, of: t,
		})
		m.updateTask(t, status, nil)
		m.forward(f, status)
		delete(f.unreachable, key.task)
		f.complete(t)
	}
	delete(m.agents.unreachableTasks, agent)
}

// unregisterAgent removes an agent that left in good order
// (Master::removeSlave).
func (m *Master) unregisterAgent(a *agent, cause string) {
	if err := m.registry.remove(a.id()); err != nil {
		m.fail(err)
		return
	}
	m.dropAgent(a, agentEnd{
		task: mesos.TASK_LOST, reason: mesos.REASON_AGENT_REMOVED,
		message:   "Agent " + a.info.Hostname + " removed: " + cause,
		operation: mesos.OPERATION_UNREACHABLE, operationMessage: "Agent was removed",
	})
}

// agentEnd says what becomes of a lost agent's tasks and operations.
type agentEnd struct {
	task             mesos.TaskState
	reason           mesos.TaskStatus_Reason
	message          string
	unreachable      *time.Time
	operation        mesos.OperationState
	operationMessage string
}

// dropAgent ends an agent's registration: its frameworks get updates for
// operations and tasks, rescinded offers and a FAILURE, in this order
// (Master::__removeSlave).
func (m *Master) dropAgent(a *agent, end agentEnd) {
	for _, op := range sortedOperations(a.operations) {
		m.endOperation(op, end.operation, end.operationMessage)
	}
	a.active = false
	for _, f := range m.frameworks.sorted() {
		m.loseTasks(a, f, end)
	}
	offers := sortedOffers(a.offers)
	slices.Reverse(offers)
	for _, o := range offers {
		m.rescind(o)
	}
	for _, op := range a.operations {
		m.removeOperation(op)
	}
	for _, timer := range []*time.Timer{a.ping, a.reregister} {
		if timer != nil {
			timer.Stop()
		}
	}
	m.dropInverses(func(key inverseKey, _ *inverse) bool { return key.agent == a.id() })
	delete(m.agents.registered, a.id())
	m.agentFailure(a.id())
}

func (m *Master) loseTasks(a *agent, f *framework, end agentEnd) {
	state, reason, unreachable := end.task, end.reason, end.unreachable != nil
	if !f.partitionAware() && state != mesos.TASK_LOST {
		// Gone tasks count as unreachable here, as on Mesos, because TASK_LOST
		// does not tell them apart.
		state, reason, unreachable = mesos.TASK_LOST, mesos.REASON_AGENT_REMOVED, true
	}
	for _, t := range sortedTasks(f.tasks) {
		if t.AgentID.Value != a.id() {
			continue
		}
		status := m.status(statusOf{
			task: t.TaskID, agent: a.info.ID, state: state, message: end.message,
			reason: reason, unreachable: end.unreachable, of: t,
		})
		m.updateTask(t, status, nil)
		m.removeTask(t, unreachable)
		if unreachable {
			m.agents.unreachableTasks[a.id()] = append(m.agents.unreachableTasks[a.id()], taskKey{f.id(), t.id()})
		}
		m.forward(f, status)
	}
}

// agentFailure sends FAILURE to all frameworks (Master::sendSlaveLost).
func (m *Master) agentFailure(id string) {
	for _, f := range m.frameworks.sorted() {
		if f.connected() {
			m.send(f, &scheduler.Event{
				Type:    scheduler.Event_FAILURE,
				Failure: &scheduler.Event_Failure{AgentID: &mesos.AgentID{Value: id}},
			})
		}
	}
}

// executorExited tells the framework that one of its own executors ended.
// Command executors are not announced.
func (m *Master) executorExited(a *agent, message link.ExecutorExited) {
	f := m.frameworks.registered[message.FrameworkID.Value]
	if f == nil {
		return
	}
	m.send(f, &scheduler.Event{
		Type: scheduler.Event_FAILURE,
		Failure: &scheduler.Event_Failure{
			AgentID: a.info.ID, ExecutorID: &message.ExecutorID, Status: &message.Status,
		},
	})
}
