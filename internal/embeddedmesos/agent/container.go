package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/executor"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/proc"
)

var (
	errKilledBeforeDelivery = errors.New("killed before delivery to the executor")
	errShutdown             = errors.New("executor shut down")
)

// killLimit bounds the wait for processes after SIGKILL.
const killLimit = 10 * time.Second

// failure is an error in the words of Apache Mesos, which frameworks get to
// see as a task's message.
type failure string

// Error implements error.
func (f failure) Error() string { return string(f) }

func failuref(format string, args ...any) failure { return failure(fmt.Sprintf(format, args...)) }

// supervise accompanies a container from its begin, launched or recovered, to
// its end. It runs in a goroutine of its own, since it waits for dvdcli and
// for the executor.
func (p *process) supervise(r *run, begin func(*run) (*executor.Conn, error)) {
	conn, failed := begin(r)
	if conn != nil {
		failed = p.follow(r, conn)
	}
	if p.agent.gate.wait(p.ctx) != nil {
		return
	}
	destroyed := p.destroy(r)
	if p.ctx.Err() != nil {
		return
	}
	p.post(func() { p.terminated(r, failed, destroyed) })
}

// launch prepares the container and starts the executor.
func (p *process) launch(r *run) (*executor.Conn, error) {
	if err := supported(&r.task); err != nil {
		return nil, err
	}
	mounts, err := p.isolator.Prepare(p.ctx, r.path.container, r.sandbox, r.task.GetContainer().GetVolumes())
	if err != nil {
		return nil, err
	}
	local, err := p.localVolumes(r)
	if err != nil {
		return nil, err
	}
	credential, err := credentialOf(r)
	if err != nil {
		return nil, err
	}
	if err := fetchAll(r); err != nil {
		return nil, err
	}
	if err := errors.Join(p.agent.gate.wait(p.ctx), context.Cause(r.ctx)); err != nil {
		return nil, err
	}
	task, err := r.task.Marshal()
	if err != nil {
		return nil, err
	}
	process, err := executor.Start(r.runtime, executor.Launch{
		Task:            task,
		Sandbox:         r.sandbox,
		Env:             p.environment(r),
		Mounts:          append(mounts, local...),
		Link:            p.cfg.LinkVolumes,
		HostMounts:      p.cfg.HostMounts,
		Keep:            programPaths(),
		Credential:      credential,
		Killing:         hasCapability(&r.framework, mesos.FrameworkInfo_Capability_TASK_KILLING_STATE),
		RecoveryTimeout: p.cfg.RecoveryTimeout,
	})
	if note := p.do(p.ctx, func() { r.executor = process }); err != nil || note != nil {
		return nil, errors.Join(err, note)
	}
	return p.deliver(r)
}

// programPaths are the directories that this program works with, and tasks
// therefore, too.
func programPaths() []string {
	paths := filepath.SplitList(os.Getenv("PATH"))
	for _, find := range []func() (string, error){os.Getwd, os.Executable, os.UserHomeDir} {
		if path, err := find(); err == nil {
			paths = append(paths, path)
		}
	}
	return paths
}

// supported refuses what this agent cannot run.
func supported(t *mesos.TaskInfo) error {
	switch {
	case t.Executor != nil:
		return failuref("embedded Mesos has the command executor only: give the task a command instead of an executor")
	case t.Command == nil:
		return failuref("the task has no command")
	case t.Container != nil && t.Container.Type != nil && *t.Container.Type != mesos.ContainerInfo_MESOS:
		return failuref("None of the enabled containerizers (mesos) could create a container for the provided " +
			"TaskInfo/ExecutorInfo message")
	case t.GetContainer().GetMesos().GetImage() != nil:
		return failuref("embedded Mesos provisions no images: run the task without one")
	}
	return nil
}

// environment is that of the executor (src/slave/slave.cpp,
// executorEnvironment).
func (p *process) environment(r *run) []string {
	checkpointing := "0"
	if r.framework.GetCheckpoint() {
		checkpointing = "1"
	}
	return append(executorEnvironment(),
		"MESOS_FRAMEWORK_ID="+r.path.framework,
		"MESOS_EXECUTOR_ID="+r.path.executor,
		"MESOS_SLAVE_ID="+r.path.slave,
		"MESOS_SLAVE_PID=slave(1)@"+p.address,
		"MESOS_AGENT_ENDPOINT="+p.address,
		"MESOS_DIRECTORY="+r.sandbox,
		sandboxEntry(r.sandbox),
		"MESOS_CHECKPOINT="+checkpointing,
	)
}

// sandboxEntry is also how a container's processes are found again, wherever
// they moved in the process tree.
func sandboxEntry(sandbox string) string { return "MESOS_SANDBOX=" + sandbox }

// deliver connects to the executor, which starts the task then, unless the
// task was killed meanwhile.
func (p *process) deliver(r *run) (*executor.Conn, error) {
	var conn *executor.Conn
	var err error
	if ended := p.do(p.ctx, func() {
		if err = context.Cause(r.ctx); err != nil {
			return
		}
		if conn, err = executor.Connect(r.runtime); err != nil {
			return
		}
		r.conn, r.delivered = conn, true
		if err := conn.Launch(); err != nil {
			r.log(p).Warn("Executor ended before it got its task", zap.Error(err))
		}
	}); ended != nil {
		return nil, ended // the loop may still be at it
	}
	return conn, err
}

// follow hands the executor's reports to the loop until the executor has
// ended or is to end. The error is not nil if it could not start the task.
func (p *process) follow(r *run, conn *executor.Conn) error {
	stop := context.AfterFunc(r.ctx, func() { _ = conn.Close() })
	defer stop()
	for {
		report, err := conn.Next()
		if err != nil {
			return nil // the end of the connection is the end of the executor, or of this process
		}
		if report.Failure != "" {
			return failure(report.Failure)
		}
		p.post(func() { p.reported(r, report.Status) })
	}
}

// disconnect closes the connection; the executor goes on.
func (r *run) disconnect() {
	if r.conn != nil {
		_ = r.conn.Close()
	}
}

// destroy kills what is left of the container, then cleans up. Without the
// first there is no second: a volume is not taken from a process that may
// write to it.
func (p *process) destroy(r *run) error {
	var executorProcess proc.Process
	if err := p.do(p.ctx, func() {
		r.disconnect()
		r.conn = nil
		executorProcess = r.executor
	}); err != nil {
		return err
	}
	if executorProcess.Alive() {
		askToVanish(r.runtime)
	}
	if err := killContainer(r.sandbox, executorProcess); err != nil {
		return failuref("Failed to kill all processes in the container: %v", err)
	}
	if err := p.collectStatuses(r); err != nil {
		return err
	}
	if err := p.isolator.Cleanup(p.ctx, r.path.container); err != nil {
		return failuref("Failed to clean up an isolator when destroying container: %v", err)
	}
	return executor.Remove(r.runtime)
}

// killContainer kills the executor with its descendants, and processes that
// were started in the sandbox but are nobody's descendants any more.
func killContainer(sandbox string, executorProcess proc.Process) error {
	err := proc.Kill(func() ([]proc.Stat, error) {
		list, err := proc.WithEnvironment(sandboxEntry(sandbox))
		if err != nil || !executorProcess.Alive() {
			return list, err
		}
		tree, err := proc.Tree(executorProcess.PID)
		return append(list, tree...), err
	}, killLimit)
	if err == nil && executorProcess.PID != 0 {
		executor.Reap(executorProcess)
	}
	return err
}

// collectStatuses takes over what the executor had no time to report.
func (p *process) collectStatuses(r *run) error {
	statuses, err := executor.Statuses(r.runtime)
	if err != nil {
		r.log(p).Warn("Statuses that the executor left cannot be read", zap.Error(err))
		return nil
	}
	return p.do(p.ctx, func() {
		for n := range statuses {
			p.reported(r, &statuses[n])
		}
	})
}

// terminated handles the end of a container. A failure to clean up does not
// change the state of a task that has already ended; Mesos then keeps the
// container's entry and checkpoint, and tries again at its next recovery only.
func (p *process) terminated(r *run, launch, destroy error) {
	r.terminated = true
	r.cancel(errShutdown)
	if destroy != nil {
		r.log(p).Error("Termination of the container failed", zap.Error(destroy))
	}
	if !r.orphan && !terminal(r.state) {
		reason := mesos.REASON_EXECUTOR_TERMINATED
		if launch != nil {
			reason = mesos.REASON_CONTAINER_LAUNCH_FAILED
		}
		if !p.update(r, p.agentStatus(r, mesos.TASK_FAILED, reason, terminationMessage(launch, destroy))) {
			return
		}
	}
	p.finish(r)
}

// terminationMessage words the end as sendExecutorTerminatedStatusUpdate does.
func terminationMessage(launch, destroy error) string {
	var parts []string
	if launch != nil {
		parts = append(parts, "Failed to launch container: "+launch.Error())
	}
	if destroy != nil {
		parts = append(parts, "Abnormal executor termination: "+destroy.Error())
	}
	if len(parts) == 0 {
		return "Executor terminated"
	}
	return strings.Join(parts, "; ")
}

// forgetIdleFramework keeps frameworks that the agent has runs of.
func (p *process) forgetIdleFramework(id string) {
	for _, r := range p.runs {
		if r.path.framework == id {
			return
		}
	}
	delete(p.frameworks, id)
}

// makeSandbox creates the sandbox, for the task's user if there is a choice.
func makeSandbox(r *run) error {
	if err := os.MkdirAll(r.sandbox, 0o755); err != nil {
		return err
	}
	return symlink(r.path.container, filepath.Join(filepath.Dir(r.sandbox), "latest"))
}

// credentialOf returns the user that the task asks for, nil for the agent's
// own. Only root can run tasks as somebody else.
func credentialOf(r *run) (*executor.Credential, error) {
	name := r.task.GetCommand().GetUser()
	if name == "" {
		name = r.framework.User
	}
	if os.Geteuid() != 0 || name == "" || name == "root" {
		return nil, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return nil, failuref("Failed to get user information for '%s': %v", name, err)
	}
	groups, err := u.GroupIds()
	if err != nil {
		return nil, failuref("Failed to get the groups of '%s': %v", name, err)
	}
	numbers := make([]uint32, 0, 2+len(groups))
	for _, text := range append([]string{u.Uid, u.Gid}, groups...) {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return nil, failuref("User '%s' has no numeric ids: %v", name, err)
		}
		numbers = append(numbers, uint32(n))
	}
	if err := os.Chown(r.sandbox, int(numbers[0]), int(numbers[1])); err != nil {
		return nil, failuref("Failed to chown sandbox: %v", err)
	}
	return &executor.Credential{UID: numbers[0], GID: numbers[1], Groups: slices.Clone(numbers[2:])}, nil
}
