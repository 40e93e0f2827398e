package master

import (
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

// Draining is done by the agent on Mesos (Slave::drain). The embedded master
// sends the kills and relabels the updates itself; a framework cannot tell.

// drainAgent handles DRAIN_AGENT.
func (m *Master) drainAgent(id string, config mesos.DrainConfig) error {
	m.registry.draining[id] = mesos.DrainInfo{State: mesos.DrainState_DRAINING, Config: config}
	m.registry.deactivated[id] = true
	if err := m.registry.save(); err != nil {
		m.fail(err)
		return err
	}
	a := m.agents.registered[id]
	if a == nil {
		return nil
	}
	info := m.registry.draining[id]
	a.draining, a.drainStart = &info, time.Now()
	m.deactivateAgent(a)
	m.drainTasks(a)
	m.checkDrained(a)
	return nil
}

// drainTasks kills what runs on a draining agent, within the operator's grace
// period where a task's own kill policy is longer.
func (m *Master) drainTasks(a *agent) {
	if a.draining == nil {
		return
	}
	limit := a.draining.Config.MaxGracePeriod
	for key, t := range a.tasks {
		if terminal(t.GetState()) {
			continue
		}
		var policy *mesos.KillPolicy
		if limit != nil && t.GetKillPolicy().GetGracePeriod().GetNanoseconds() > limit.Nanoseconds {
			policy = &mesos.KillPolicy{GracePeriod: limit}
		}
		a.killed[key] = true
		a.conn.Send(link.KillTask{FrameworkID: t.FrameworkID, TaskID: t.TaskID, KillPolicy: policy})
	}
}

// relabelDrained gives updates of killed tasks the reason, and with mark_gone
// the state, that a draining agent gives them (Slave::statusUpdate).
func (m *Master) relabelDrained(a *agent, status *mesos.TaskStatus) {
	if s := status.GetState(); s != mesos.TASK_KILLED && s != mesos.TASK_KILLING {
		return
	}
	status.Reason = ptr(mesos.REASON_AGENT_DRAINING)
	status.State = ptr(drainedState(a, status.GetState()))
}

func drainedState(a *agent, state mesos.TaskState) mesos.TaskState {
	killed := state == mesos.TASK_KILLED || state == mesos.TASK_KILLING
	if killed && a.draining.Config.GetMarkGone() {
		return mesos.TASK_GONE_BY_OPERATOR
	}
	return state
}

// checkDrained ends a drain once nothing is left on the agent
// (Master::checkAndTransitionDrainingAgent).
func (m *Master) checkDrained(a *agent) {
	if a.draining == nil || a.draining.State == mesos.DrainState_DRAINED ||
		len(a.tasks) > 0 || len(a.operations) > 0 || m.agents.registered[a.id()] != a {
		return
	}
	m.log.Info("agent is drained", zap.String("agent", a.id()))
	if a.draining.Config.GetMarkGone() {
		// A registry that cannot be written ends the master.
		_ = m.markGone(a.id())
		return
	}
	a.draining.State = mesos.DrainState_DRAINED
	m.registry.draining[a.id()] = *a.draining
	if err := m.registry.save(); err != nil {
		m.fail(err)
	}
}

// setDeactivated handles DEACTIVATE_AGENT and REACTIVATE_AGENT.
func (m *Master) setDeactivated(id string, off bool) error {
	delete(m.registry.deactivated, id)
	if off {
		m.registry.deactivated[id] = true
	} else {
		delete(m.registry.draining, id)
	}
	if err := m.registry.save(); err != nil {
		m.fail(err)
		return err
	}
	a := m.agents.registered[id]
	if a == nil {
		return nil
	}
	if off {
		m.deactivateAgent(a)
		return nil
	}
	a.draining = nil
	a.active = a.connected
	m.allocate()
	return nil
}
