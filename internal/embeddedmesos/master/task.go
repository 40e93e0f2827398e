package master

import (
	"bytes"
	"time"

	"github.com/gogo/protobuf/proto"
	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

// task is a task as the master knows it.
type task struct {
	mesos.Task
	seq int // order of launch within the framework
}

func (t *task) id() string { return t.TaskID.Value }

func newTask(framework mesos.FrameworkID, info *mesos.TaskInfo) *task {
	info = proto.Clone(info).(*mesos.TaskInfo)
	t := &task{Task: mesos.Task{
		Name:        info.Name,
		TaskID:      info.TaskID,
		FrameworkID: framework,
		AgentID:     info.AgentID,
		State:       ptr(mesos.TASK_STAGING),
		Resources:   info.Resources,
		Labels:      info.Labels,
		Discovery:   info.Discovery,
		Container:   info.Container,
		HealthCheck: info.HealthCheck,
		KillPolicy:  info.KillPolicy,
	}}
	if info.Executor != nil {
		// Command executors are the agent's business.
		t.ExecutorID = ptr(info.Executor.ExecutorID)
	}
	if user := info.GetCommand().GetUser(); user != "" {
		t.User = ptr(user)
	}
	return t
}

// latest is the state that reconciliation answers with: the last one that was
// sent to the framework.
func (t *task) latest() mesos.TaskState {
	if t.StatusUpdateState != nil {
		return *t.StatusUpdateState
	}
	return t.GetState()
}

// lastStatus is the last status seen, or nil.
func (t *task) lastStatus() *mesos.TaskStatus {
	if len(t.Statuses) == 0 {
		return nil
	}
	return &t.Statuses[len(t.Statuses)-1]
}

// terminal tells whether a task in the state has ended (protobuf::isTerminalState).
func terminal(state mesos.TaskState) bool {
	switch state {
	case mesos.TASK_FINISHED, mesos.TASK_FAILED, mesos.TASK_KILLED, mesos.TASK_LOST,
		mesos.TASK_ERROR, mesos.TASK_DROPPED, mesos.TASK_GONE, mesos.TASK_GONE_BY_OPERATOR:
		return true
	}
	return false
}

// statusOf describes a status that the master makes itself
// (protobuf::createStatusUpdate).
type statusOf struct {
	task        mesos.TaskID
	agent       *mesos.AgentID
	state       mesos.TaskState
	message     string
	reason      mesos.TaskStatus_Reason
	unreachable *time.Time
	// of gives the executor id, when the task is known.
	of *task
	// observed takes health, check and container status from the task's last
	// status, too.
	observed bool
}

func (m *Master) status(d statusOf) mesos.TaskStatus {
	status := mesos.TaskStatus{
		TaskID:    d.task,
		State:     ptr(d.state),
		Message:   ptr(d.message),
		Source:    ptr(mesos.SOURCE_MASTER),
		Reason:    ptr(d.reason),
		AgentID:   d.agent,
		Timestamp: ptr(seconds(time.Now())),
	}
	if d.unreachable != nil {
		status.UnreachableTime = timeInfo(*d.unreachable)
	}
	if d.of == nil {
		return status
	}
	status.ExecutorID = d.of.ExecutorID
	if last := d.of.lastStatus(); d.observed && last != nil {
		status.Healthy = last.Healthy
		status.CheckStatus = last.CheckStatus
		status.ContainerStatus = last.ContainerStatus
	}
	return status
}

// seconds is a time as Mesos's double timestamps have it, in microseconds.
func seconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }

func timeInfo(t time.Time) *mesos.TimeInfo { return &mesos.TimeInfo{Nanoseconds: t.UnixNano()} }

// lostOr returns the state that frameworks without PARTITION_AWARE get
// TASK_LOST for.
func (f *framework) lostOr(state mesos.TaskState) mesos.TaskState {
	if f.partitionAware() {
		return state
	}
	return mesos.TASK_LOST
}

// forward sends a status to the framework and remembers which it was
// (Master::forward).
func (m *Master) forward(f *framework, status mesos.TaskStatus) {
	if t := f.tasks[status.TaskID.Value]; t != nil && len(status.UUID) > 0 {
		t.StatusUpdateState = status.State
		t.StatusUpdateUUID = status.UUID
	}
	m.send(f, &scheduler.Event{
		Type:   scheduler.Event_UPDATE,
		Update: &scheduler.Event_Update{Status: status},
	})
}

// statusUpdate handles an agent's update (Master::statusUpdate).
func (m *Master) statusUpdate(a *agent, update link.Update) {
	status := *proto.Clone(&update.Status).(*mesos.TaskStatus)
	if a.draining != nil {
		m.relabelDrained(a, &status)
	}
	f := m.frameworks.registered[update.FrameworkID.Value]
	if f != nil && f.connected() {
		m.forward(f, status)
	} else {
		m.log.Warn("status update without a connected framework",
			zap.String("framework", update.FrameworkID.Value), zap.String("task", status.TaskID.Value))
	}
	t := a.tasks[taskKey{update.FrameworkID.Value, status.TaskID.Value}]
	if t == nil {
		m.log.Warn("status update for an unknown task",
			zap.String("agent", a.id()), zap.String("task", status.TaskID.Value))
		return
	}
	latest := update.LatestState
	if terminal(latest) && a.draining != nil {
		latest = drainedState(a, latest)
	}
	m.updateTask(t, status, &latest)
}

// updateTask takes a status into the task's history; resources of a task that
// ended are free again (Master::updateTask).
func (m *Master) updateTask(t *task, status mesos.TaskStatus, latest *mesos.TaskState) {
	state := status.GetState()
	if latest != nil {
		state = *latest
	}
	over := func(s mesos.TaskState) bool { return terminal(s) || s == mesos.TASK_UNREACHABLE }
	ended := !over(t.GetState()) && over(state)
	if !terminal(t.GetState()) {
		t.State = ptr(state)
	}
	t.addStatus(status)
	if ended {
		if a := m.agents.registered[t.AgentID.Value]; a != nil {
			a.release(t.FrameworkID.Value, t.Resources)
		}
	}
}

// addStatus keeps the last status of each stretch in one state.
func (t *task) addStatus(status mesos.TaskStatus) {
	if last := t.lastStatus(); last != nil && last.GetState() == status.GetState() {
		t.Statuses = t.Statuses[:len(t.Statuses)-1]
	}
	status.Data = nil
	t.Statuses = append(t.Statuses, status)
}

// removeTask forgets a task; a terminal one goes to the framework's completed
// tasks, one whose agent is away to its unreachable tasks.
func (m *Master) removeTask(t *task, unreachable bool) {
	if a := m.agents.registered[t.AgentID.Value]; a != nil {
		key := taskKey{t.FrameworkID.Value, t.id()}
		delete(a.tasks, key)
		delete(a.killed, key)
		if !terminal(t.GetState()) && t.GetState() != mesos.TASK_UNREACHABLE {
			a.release(t.FrameworkID.Value, t.Resources)
		}
	}
	f := m.frameworks.registered[t.FrameworkID.Value]
	if f == nil {
		return
	}
	delete(f.tasks, t.id())
	if unreachable {
		f.unreachable[t.id()] = t
		return
	}
	f.complete(t)
}

// acknowledge handles ACKNOWLEDGE (Master::acknowledge).
func (m *Master) acknowledge(f *framework, call *scheduler.Call_Acknowledge) {
	a := m.agents.registered[call.AgentID.Value]
	if a == nil || !a.connected {
		m.log.Warn("acknowledgement for an agent that is not here",
			zap.String("agent", call.AgentID.Value), zap.String("task", call.TaskID.Value))
		return
	}
	if t := a.tasks[taskKey{f.id(), call.TaskID.Value}]; t != nil {
		if t.StatusUpdateState == nil {
			m.log.Warn("acknowledgement of an update that this master did not send",
				zap.String("task", t.id()))
			return
		}
		if terminal(*t.StatusUpdateState) && bytes.Equal(t.StatusUpdateUUID, call.UUID) {
			m.removeTask(t, false)
		}
	}
	a.conn.Send(link.Acknowledge{FrameworkID: *f.info.ID, TaskID: call.TaskID, UUID: call.UUID})
	m.checkDrained(a)
}

// kill handles KILL (Master::kill).
func (m *Master) kill(f *framework, call *scheduler.Call_Kill) {
	t := f.tasks[call.TaskID.Value]
	if t == nil {
		m.reconcileTask(f, call.TaskID, call.AgentID)
		return
	}
	if call.AgentID != nil && call.AgentID.Value != t.AgentID.Value {
		m.log.Warn("kill of a task on another agent ignored",
			zap.String("task", t.id()), zap.String("agent", call.AgentID.Value))
		return
	}
	a := m.agents.registered[t.AgentID.Value]
	// The agent may be away without the master's knowing: told again when it
	// comes back.
	a.killed[taskKey{f.id(), t.id()}] = true
	if a.connected {
		a.conn.Send(link.KillTask{FrameworkID: *f.info.ID, TaskID: call.TaskID, KillPolicy: call.KillPolicy})
	}
}
