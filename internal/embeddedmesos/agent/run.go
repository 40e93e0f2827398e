package agent

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/checkpoint"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/executor"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/proc"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

// maxCompleted is how many runs that are over the agent still tells about.
const maxCompleted = 50

// run is a task with its command executor and container. What is not said to
// be constant belongs to the loop.
type run struct {
	path      runPath // constant
	framework mesos.FrameworkInfo
	task      mesos.TaskInfo // constant
	sandbox   string         // constant
	runtime   string         // constant: the executor's runtime directory

	ctx    context.Context         // constant: ends when the launch is to be given up
	cancel context.CancelCauseFunc // constant

	executor   proc.Process // zero until it is started
	conn       *executor.Conn
	delivered  bool // the task has been handed to the executor
	state      mesos.TaskState
	statuses   []mesos.TaskStatus
	stream     *stream
	orphan     bool // nobody is to hear of it: not checkpointed, or its framework is gone
	terminated bool // the container is gone, or given up
	over       bool // terminated, and every update acknowledged
}

func (p *process) newRun(f *mesos.FrameworkInfo, task mesos.TaskInfo, container string) *run {
	path := runPath{
		slave:     p.info.GetID().GetValue(),
		framework: f.GetID().GetValue(),
		executor:  task.TaskID.Value,
		container: container,
	}
	r := &run{
		path:      path,
		framework: *f,
		task:      task,
		sandbox:   p.layout.sandbox(path),
		runtime:   p.layout.runtime(container),
		state:     mesos.TASK_STAGING,
	}
	r.ctx, r.cancel = context.WithCancelCause(p.ctx)
	return r
}

func (r *run) log(p *process) *zap.Logger {
	return p.log.With(zap.String("task", r.path.executor), zap.String("container", r.path.container))
}

func (r *run) linkTask() link.Task {
	t := link.Task{
		FrameworkID: mesos.FrameworkID{Value: r.path.framework},
		Info:        r.task,
		State:       r.state,
		Statuses:    slices.Clone(r.statuses),
	}
	if n := len(r.statuses); n > 0 {
		latest := r.statuses[n-1]
		t.Latest = &latest
	}
	return t
}

// runTask launches a task. The same launch may come twice.
func (p *process) runTask(m link.Run) {
	framework, task := m.Framework.GetID().GetValue(), m.Task.TaskID.Value
	if !p.master.registered || p.ending {
		p.log.Warn("Ignoring a task: the agent is not registered", zap.String("task", task))
		return
	}
	if p.find(framework, task) != nil {
		p.log.Warn("Ignoring a task that the agent has already", zap.String("task", task))
		return
	}
	if err := checkIDs(framework, task); err != nil {
		p.log.Error("Ignoring a task", zap.Error(err))
		return
	}
	if err := p.addFramework(&m.Framework); err != nil {
		p.fail("checkpoint framework", err)
		return
	}
	r := p.newRun(&m.Framework, m.Task, uuid.NewString())
	if err := p.createRun(r); err != nil {
		p.fail("checkpoint task", err)
		return
	}
	p.runs[r.path.container] = r
	r.log(p).Info("Launching task")
	p.goroutines.Go(func() { p.supervise(r, p.launch) })
}

func checkIDs(framework, task string) error {
	if err := checkID("framework", framework); err != nil {
		return err
	}
	return checkID("task", task)
}

func (p *process) addFramework(f *mesos.FrameworkInfo) error {
	id := f.GetID().GetValue()
	if known := p.frameworks[id]; known != nil && known.Equal(f) {
		return nil
	}
	own := *f
	p.frameworks[id] = &own
	return checkpoint.WriteMessage(p.layout.frameworkInfo(p.info.ID.Value, id), &own)
}

// createRun writes what recovery needs, before anything is started.
func (p *process) createRun(r *run) error {
	if err := checkpoint.WriteMessage(p.layout.taskInfo(r.path), &r.task); err != nil {
		return err
	}
	if err := makeSandbox(r); err != nil {
		return err
	}
	var err error
	r.stream, err = openStream(p.layout.taskUpdates(r.path))
	return err
}

// killTask stops a task, or prevents its start.
func (p *process) killTask(m link.KillTask) {
	r := p.find(m.FrameworkID.Value, m.TaskID.Value)
	if r == nil {
		p.killUnknown(m)
		return
	}
	switch {
	case r.terminated || terminal(r.state):
		r.log(p).Info("Ignoring the kill of a task that has ended")
	case !r.delivered:
		p.update(r, p.agentStatus(r, mesos.TASK_KILLED,
			mesos.REASON_TASK_KILLED_DURING_LAUNCH, "Killed before delivery to the executor"))
		r.cancel(errKilledBeforeDelivery)
	case r.conn != nil:
		var grace *time.Duration
		if period := m.KillPolicy.GetGracePeriod(); period != nil {
			grace = ptr(time.Duration(period.Nanoseconds))
		}
		if err := r.conn.Kill(grace); err != nil {
			r.log(p).Warn("Kill did not reach the executor", zap.Error(err))
		}
	default:
		r.log(p).Warn("Kill cannot reach the executor, which is ending or not connected yet")
	}
}

// killUnknown tells that there is no such task.
func (p *process) killUnknown(m link.KillTask) {
	framework := p.frameworks[m.FrameworkID.Value]
	if framework == nil {
		p.log.Warn("Ignoring a kill for an unknown framework", zap.String("task", m.TaskID.Value))
		return
	}
	p.sendOnce(framework, m.TaskID, "Cannot find executor", mesos.REASON_EXECUTOR_TERMINATED)
}

// reconcileTask answers for a task that the master has and the agent may not.
func (p *process) reconcileTask(m link.ReconcileTask) {
	if p.find(m.Framework.GetID().GetValue(), m.TaskID.Value) == nil {
		p.sendOnce(&m.Framework, m.TaskID,
			"Reconciliation: task unknown to the agent", mesos.REASON_RECONCILIATION)
	}
}

// sendOnce reports a task that the agent does not have. There is nothing to
// repeat it from: the master asks again.
func (p *process) sendOnce(f *mesos.FrameworkInfo, task mesos.TaskID, message string, reason mesos.TaskStatus_Reason) {
	state := mesos.TASK_DROPPED
	if !hasCapability(f, mesos.FrameworkInfo_Capability_PARTITION_AWARE) {
		state = mesos.TASK_LOST
	}
	s := newStatus(task, state, reason, message)
	s.AgentID = p.info.ID
	p.send(link.Update{FrameworkID: *f.ID, Status: *s, LatestState: state})
}

func hasCapability(f *mesos.FrameworkInfo, want mesos.FrameworkInfo_Capability_Type) bool {
	for _, c := range f.Capabilities {
		if c.Type == want {
			return true
		}
	}
	return false
}

// shutdownFramework ends a framework's executors. Nobody listens to updates
// any more.
func (p *process) shutdownFramework(id string) {
	for _, r := range p.runs {
		if r.path.framework == id {
			p.shutdownRun(r)
		}
	}
	p.forgetIdleFramework(id)
}

func (p *process) shutdownRun(r *run) {
	r.orphan = true
	r.stream.silence()
	if !r.delivered || r.conn == nil {
		r.cancel(errKilledBeforeDelivery)
	} else {
		// The buffer that src/launcher/executor.cpp leaves before the agent
		// destroys the container.
		grace := shutdownGrace - 1100*time.Millisecond
		if err := r.conn.Kill(&grace); err != nil {
			r.log(p).Warn("Shutdown did not reach the executor", zap.Error(err))
		}
		p.after(shutdownGrace, func() { r.cancel(errShutdown) })
	}
	p.finish(r)
}

// endIfIdle completes a shutdown.
func (p *process) endIfIdle() {
	if !p.ending || len(p.runs) > 0 {
		return
	}
	p.fail("shut down", p.forgetInfo())
	p.cancel(errShutdown)
}

// reported handles a status of the executor. It is acknowledged to the
// executor when it is on disk.
func (p *process) reported(r *run, s *mesos.TaskStatus) {
	if !r.orphan && !r.stream.has(s.UUID) && !terminal(r.state) {
		p.decorate(r, s)
		if !p.update(r, s) {
			return
		}
	}
	if r.conn == nil {
		return
	}
	if err := r.conn.Acknowledge(s.UUID); err != nil {
		r.log(p).Warn("Acknowledgement did not reach the executor", zap.Error(err))
	}
}

// decorate adds what only the agent knows.
func (p *process) decorate(r *run, s *mesos.TaskStatus) {
	s.AgentID = p.info.ID
	s.ContainerStatus = p.containerStatus(r)
	address, _, _ := strings.Cut(p.address, ":")
	s.ContainerStatus.NetworkInfos = []mesos.NetworkInfo{{
		IPAddresses: []mesos.NetworkInfo_IPAddress{{Protocol: mesos.IPv4.Enum(), IPAddress: &address}},
	}}
}

func (p *process) containerStatus(r *run) *mesos.ContainerStatus {
	s := &mesos.ContainerStatus{ContainerID: &mesos.ContainerID{Value: r.path.container}}
	if r.executor.PID != 0 {
		s.ExecutorPID = ptr(uint32(r.executor.PID))
	}
	return s
}

func newStatus(task mesos.TaskID, state mesos.TaskState, reason mesos.TaskStatus_Reason, message string) *mesos.TaskStatus {
	id := uuid.New()
	return &mesos.TaskStatus{
		TaskID:    task,
		State:     &state,
		Source:    mesos.SOURCE_AGENT.Enum(),
		Reason:    &reason,
		Message:   &message,
		Timestamp: ptr(float64(time.Now().UnixNano()) / 1e9),
		UUID:      id[:],
	}
}

// agentStatus returns a status that the agent itself gives.
func (p *process) agentStatus(r *run, state mesos.TaskState, reason mesos.TaskStatus_Reason, message string) *mesos.TaskStatus {
	s := newStatus(r.task.TaskID, state, reason, message)
	s.AgentID = p.info.ID
	s.ExecutorID = &mesos.ExecutorID{Value: r.path.executor}
	return s
}

// update records a status and begins to send it. It reports false when that
// failed and the process is ending.
func (p *process) update(r *run, s *mesos.TaskStatus) bool {
	if err := r.stream.add(r.path, s); err != nil {
		p.fail("checkpoint status update", err)
		return false
	}
	r.state = s.GetState()
	r.statuses = append(r.statuses, *s)
	if r.stream.alone() {
		p.sendHead(r, p.cfg.StatusRetry)
	}
	return true
}

// finish retires a run when nothing is left to do for it.
func (p *process) finish(r *run) {
	if r.over || !r.terminated || !r.orphan && !r.stream.settled() {
		return
	}
	r.over = true
	r.cancel(errShutdown)
	if err := r.stream.close(); err != nil {
		p.fail("close log of updates", err)
		return
	}
	if err := checkpoint.Write(p.layout.sentinel(r.path), nil); err != nil {
		p.fail("checkpoint the end of an executor", err)
		return
	}
	delete(p.runs, r.path.container)
	p.completed = append(p.completed, r)
	if len(p.completed) > maxCompleted {
		p.completed = p.completed[1:]
	}
	p.forgetIdleFramework(r.path.framework)
	p.endIfIdle()
}

// terminal tells whether a task in that state has ended.
func terminal(s mesos.TaskState) bool {
	switch s {
	case mesos.TASK_FINISHED, mesos.TASK_FAILED, mesos.TASK_KILLED, mesos.TASK_LOST, mesos.TASK_ERROR,
		mesos.TASK_DROPPED, mesos.TASK_GONE, mesos.TASK_GONE_BY_OPERATOR:
		return true
	}
	return false
}
