package master

import (
	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
)

// reconcile handles RECONCILE (Master::reconcile): without tasks it tells the
// state of all of the framework's tasks, otherwise that of the given ones.
func (m *Master) reconcile(f *framework, call *scheduler.Call_Reconcile) {
	if len(call.Tasks) == 0 {
		for _, t := range sortedTasks(f.tasks) {
			m.forward(f, m.latestStatus(t))
		}
		return
	}
	for _, t := range call.Tasks {
		m.reconcileTask(f, t.TaskID, t.AgentID)
	}
}

func (m *Master) latestStatus(t *task) mesos.TaskStatus {
	return m.status(statusOf{
		task:     t.TaskID,
		agent:    &t.AgentID,
		state:    t.latest(),
		message:  "Reconciliation: Latest task state",
		reason:   mesos.REASON_RECONCILIATION,
		of:       t,
		observed: true,
	})
}

// reconcileTask answers for one task. It stays silent as long as an agent that
// may have the task has not come back after a master failover.
func (m *Master) reconcileTask(f *framework, id mesos.TaskID, agent *mesos.AgentID) {
	if t := f.tasks[id.Value]; t != nil {
		m.forward(f, m.latestStatus(t))
		return
	}
	answer := statusOf{task: id, agent: agent, reason: mesos.REASON_RECONCILIATION}
	switch where := m.whereabouts(agent); {
	case where == agentRecovered || agent == nil && len(m.agents.recovered) > 0:
		return
	case where == agentRegistered:
		answer.state, answer.message = f.lostOr(mesos.TASK_GONE), "Reconciliation: Task is unknown to the agent"
	case where == agentUnreachable:
		since := m.registry.unreachable[agent.Value]
		answer.state, answer.message = f.lostOr(mesos.TASK_UNREACHABLE), "Reconciliation: Task is unreachable"
		answer.unreachable = &since
	case where == agentGone:
		answer.state, answer.message = f.lostOr(mesos.TASK_GONE_BY_OPERATOR), "Reconciliation: Task is gone"
	default:
		answer.state, answer.message = f.lostOr(mesos.TASK_UNKNOWN), "Reconciliation: Task is unknown"
	}
	m.forward(f, m.status(answer))
}

// reconcileOperations handles RECONCILE_OPERATIONS (Master::reconcileOperations).
func (m *Master) reconcileOperations(f *framework, call *scheduler.Call_ReconcileOperations) {
	if len(call.Operations) == 0 {
		for _, op := range sortedOperations(f.operations) {
			m.sendOperationStatus(f, op.reconciliation())
		}
		return
	}
	for _, asked := range call.Operations {
		m.sendOperationStatus(f, m.reconcileOperation(f, asked))
	}
}

func (m *Master) reconcileOperation(f *framework, asked scheduler.Call_ReconcileOperations_Operation) mesos.OperationStatus {
	if op := f.operations[asked.OperationID.Value]; op != nil {
		return op.reconciliation()
	}
	status := mesos.OperationStatus{
		OperationID:        &asked.OperationID,
		State:              mesos.OPERATION_UNKNOWN,
		AgentID:            asked.AgentID,
		ResourceProviderID: asked.ResourceProviderID,
	}
	message := ""
	switch m.whereabouts(asked.AgentID) {
	case agentRecovered:
		status.State = mesos.OPERATION_RECOVERING
		message = "Reconciliation: Agent is recovered but has not re-registered"
	case agentRegistered:
		message = "Reconciliation: Operation is unknown"
	case agentUnreachable:
		status.State = mesos.OPERATION_UNREACHABLE
		message = "Reconciliation: Agent is unreachable"
	case agentGone:
		status.State = mesos.OPERATION_GONE_BY_OPERATOR
		message = "Reconciliation: Agent marked gone by operator"
	default:
		message = "Reconciliation: Both operation and agent are unknown"
		if asked.AgentID == nil {
			message = "Reconciliation: Operation is unknown and no 'agent_id' was provided"
		}
	}
	status.Message = ptr(message)
	return status
}
