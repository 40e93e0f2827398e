package executor

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"golang.org/x/sys/unix"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/checkpoint"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/proc"
)

const (
	// defaultGrace is the grace period of a kill without a policy.
	defaultGrace = 3 * time.Second
	// acknowledgeTimeout is how long an executor whose task has ended waits
	// for a connected agent to acknowledge that.
	acknowledgeTimeout = 60 * time.Second
)

// executor runs one task. All fields belong to the goroutine of serve.
type executor struct {
	launch   Launch
	task     *mesos.TaskInfo
	children *children
	log      *checkpoint.Log
	events   chan func() error

	conn     net.Conn // to the agent; nil while there is none
	unacked  []*mesos.TaskStatus
	last     mesos.TaskStatus
	pid      int // of the task, 0 before the start
	running  bool
	done     bool // the terminal status is acknowledged, or never will be
	checks   *checks
	lonely   *time.Timer // fires when no agent has been connected for too long
	escalate *time.Timer
	deadline time.Time // of the running kill's grace period

	killed, killedByHealthCheck, killedByMaxCompletion, terminated bool
}

func newExecutor(l Launch, task *mesos.TaskInfo, log *checkpoint.Log) *executor {
	return &executor{
		launch:   l,
		task:     task,
		children: newChildren(),
		log:      log,
		events:   make(chan func() error),
	}
}

// serve runs the task and returns when agent and executor are done with it.
// The goroutines that feed events end with the process.
func (e *executor) serve(l net.Listener) error {
	go e.accept(l)
	e.lonely = e.after(e.launch.RecoveryTimeout, e.abandoned)
	for !e.done {
		if err := (<-e.events)(); err != nil {
			return errors.Join(err, e.endDescendants())
		}
	}
	return e.endDescendants()
}

// endDescendants kills everything that this process has started, and leaves no
// zombies to process 1, which does not reap them everywhere.
func (e *executor) endDescendants() error {
	err := proc.Kill(func() ([]proc.Stat, error) { return proc.Tree(os.Getpid()) }, killLimit)
	e.children.reap()
	return err
}

func (e *executor) after(d time.Duration, f func() error) *time.Timer {
	return time.AfterFunc(d, func() { e.events <- f })
}

func (e *executor) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			e.events <- func() error { return fmt.Errorf("accept the agent: %w", err) }
			return
		}
		e.events <- func() error { return e.connected(conn) }
	}
}

func (e *executor) connected(conn net.Conn) error {
	if e.conn != nil {
		_ = e.conn.Close() // an agent that comes again has forgotten that one
	}
	e.conn = conn
	e.lonely.Stop()
	go e.read(conn)
	for _, status := range e.unacked {
		e.send(status)
	}
	return nil
}

func (e *executor) read(conn net.Conn) {
	lines := bufio.NewReader(conn)
	for {
		var o order
		if err := receive(lines, &o); err != nil {
			e.events <- func() error { return e.disconnected(conn) }
			return
		}
		e.events <- func() error { return e.obey(o) }
	}
}

func (e *executor) disconnected(conn net.Conn) error {
	_ = conn.Close()
	if e.conn == conn {
		e.conn = nil
		e.lonely = e.after(e.launch.RecoveryTimeout, e.abandoned)
	}
	return nil
}

// abandoned ends an executor whose agent has not come back. The statuses stay
// on disk for an agent that does so later.
func (e *executor) abandoned() error {
	if e.conn != nil {
		return nil
	}
	if e.terminated || e.pid == 0 {
		e.done = true
		return nil
	}
	if err := e.kill(nil); err != nil {
		return err
	}
	e.lonely = e.after(time.Second, e.abandoned)
	return nil
}

func (e *executor) obey(o order) error {
	switch {
	case o.Launch && e.pid == 0 && !e.terminated:
		return e.start()
	case o.Lose:
		if err := e.endDescendants(); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", Name, err)
		}
		os.Exit(128 + int(unix.SIGKILL))
	case o.Kill:
		return e.kill(o.Grace)
	case o.Acknowledge != nil:
		e.acknowledged(o.Acknowledge)
	}
	return nil
}

func (e *executor) acknowledged(id []byte) {
	for n, status := range e.unacked {
		if string(status.UUID) == string(id) {
			e.unacked = append(e.unacked[:n:n], e.unacked[n+1:]...)
			break
		}
	}
	if e.terminated && len(e.unacked) == 0 {
		e.done = true
	}
}

// start runs the task.
func (e *executor) start() error {
	if err := e.forward(e.status(mesos.TASK_STARTING)); err != nil {
		return err
	}
	command := e.task.GetCommand()
	attr := &syscall.ProcAttr{
		Dir:   e.launch.Sandbox,
		Env:   e.environment(command),
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setsid: true, Credential: e.launch.credential()},
	}
	pid, ended, err := e.children.start(arguments(command), attr)
	if err != nil {
		return e.notStarted(err)
	}
	e.pid, e.running = pid, true
	go func() {
		status := <-ended
		e.events <- func() error { return e.ended(status) }
	}()
	e.checks = startChecks(e, attr)
	if limit := e.task.GetMaxCompletionTime(); limit != nil && limit.Nanoseconds > 0 {
		e.after(time.Duration(limit.Nanoseconds), e.maxCompletionReached)
	}
	return e.forward(e.status(mesos.TASK_RUNNING))
}

// notStarted reports a command that cannot be executed as Mesos does, where
// the process that was to become the task exits with status 1.
func (e *executor) notStarted(err error) error {
	fmt.Fprintf(os.Stderr, "Failed to execute command: %v\n", err)
	if err := e.forward(e.status(mesos.TASK_RUNNING)); err != nil {
		return err
	}
	return e.ended(syscall.WaitStatus(1 << 8))
}

// arguments returns the argument list of a command.
func arguments(c *mesos.CommandInfo) []string {
	if c.GetShell() {
		return []string{"sh", "-c", c.GetValue()}
	}
	if len(c.Arguments) == 0 {
		return []string{c.GetValue()}
	}
	// Arguments include argv[0]; what is executed is the value.
	return append([]string{c.GetValue()}, c.Arguments[1:]...)
}

func (e *executor) environment(c *mesos.CommandInfo) []string {
	env := append(append([]string(nil), e.launch.Env...), commandEnv(c)...)
	if len(e.task.Resources) > 0 {
		env = append(env, "MESOS_ALLOCATION_ROLE="+e.task.Resources[0].GetAllocationInfo().GetRole())
	}
	return lastWins(env)
}

// lastWins drops all but the last entry for each name.
func lastWins(env []string) []string {
	position := make(map[string]int)
	var out []string
	for _, entry := range env {
		name, _, _ := strings.Cut(entry, "=")
		if n, ok := position[name]; ok {
			out[n] = entry
			continue
		}
		position[name] = len(out)
		out = append(out, entry)
	}
	return out
}

func (l Launch) credential() *syscall.Credential {
	if l.Credential == nil {
		return nil
	}
	return &syscall.Credential{Uid: l.Credential.UID, Gid: l.Credential.GID, Groups: l.Credential.Groups}
}

// ended reports the end of the task.
func (e *executor) ended(ws syscall.WaitStatus) error {
	e.terminated, e.running = true, false
	e.checks.stop()
	if e.escalate != nil {
		e.escalate.Stop()
	}
	status := e.status(e.finalState(ws))
	if e.killedByMaxCompletion {
		status.Reason = mesos.REASON_MAX_COMPLETION_TIME_REACHED.Enum()
	}
	message := "Command " + describe(ws)
	status.Message = &message
	if e.killed && e.killedByHealthCheck {
		unhealthy := false
		status.Healthy = &unhealthy
	}
	e.after(acknowledgeTimeout, func() error {
		if e.conn != nil {
			e.done = true
		}
		return nil
	})
	return e.forward(status)
}

func (e *executor) finalState(ws syscall.WaitStatus) mesos.TaskState {
	switch {
	case e.killedByMaxCompletion:
		return mesos.TASK_FAILED
	case e.killed:
		return mesos.TASK_KILLED
	case ws.Exited() && ws.ExitStatus() == 0:
		return mesos.TASK_FINISHED
	}
	return mesos.TASK_FAILED
}

// describe words a wait status as stout/wait.hpp does.
func describe(ws syscall.WaitStatus) string {
	if ws.Exited() {
		return fmt.Sprintf("exited with status %d", ws.ExitStatus())
	}
	name := ws.Signal().String()
	text := "terminated with signal " + strings.ToUpper(name[:1]) + name[1:]
	if ws.CoreDump() {
		text += " (core dumped)"
	}
	return text
}

// kill sends SIGTERM, and SIGKILL after the grace period. A second kill can
// only shorten the period.
func (e *executor) kill(grace *time.Duration) error {
	if e.terminated || e.pid == 0 {
		return nil
	}
	period := defaultGrace
	if policy := e.task.GetKillPolicy().GetGracePeriod(); policy != nil {
		period = time.Duration(policy.Nanoseconds)
	}
	if grace != nil {
		period = *grace
	}
	if e.killed {
		if deadline := time.Now().Add(period); deadline.Before(e.deadline) {
			e.schedule(deadline)
		}
		return nil
	}
	e.killed = true
	if e.launch.Killing && !e.killedByMaxCompletion {
		if err := e.forward(e.status(mesos.TASK_KILLING)); err != nil {
			return err
		}
	}
	e.checks.stop()
	e.signal(unix.SIGTERM)
	e.schedule(time.Now().Add(period))
	return nil
}

func (e *executor) schedule(deadline time.Time) {
	if e.escalate != nil {
		e.escalate.Stop()
	}
	e.deadline = deadline
	e.escalate = e.after(time.Until(deadline), func() error {
		if !e.terminated {
			e.signal(unix.SIGKILL)
		}
		return nil
	})
}

// signal reaches the task's process tree. The task itself has not been reaped
// while terminated is false, so its pid is its own.
func (e *executor) signal(sig unix.Signal) {
	tree, err := proc.Tree(e.pid)
	if err != nil {
		fmt.Fprintf(os.Stderr, "executor: %v\n", err)
	}
	proc.Signal(tree, sig)
}

func (e *executor) maxCompletionReached() error {
	if e.terminated || e.killed {
		return nil
	}
	e.killedByMaxCompletion = true
	var none time.Duration
	return e.kill(&none)
}

// status returns a new status of the task.
func (e *executor) status(state mesos.TaskState) *mesos.TaskStatus {
	s := &mesos.TaskStatus{
		TaskID:     e.task.TaskID,
		State:      &state,
		Source:     mesos.SOURCE_EXECUTOR.Enum(),
		ExecutorID: &mesos.ExecutorID{Value: e.task.TaskID.Value},
	}
	if e.task.Check != nil {
		s.CheckStatus = noCheckStatus(e.task.Check.Type)
	}
	return stamp(s)
}

// again returns a copy of the last status, which keeps what it says.
func (e *executor) again(reason mesos.TaskStatus_Reason) *mesos.TaskStatus {
	s := e.last
	s.Reason = &reason
	s.Message = nil
	return stamp(&s)
}

func stamp(s *mesos.TaskStatus) *mesos.TaskStatus {
	id := uuid.New()
	now := float64(time.Now().UnixNano()) / 1e9
	s.UUID, s.Timestamp = id[:], &now
	return s
}

// forward records a status, then reports it.
func (e *executor) forward(s *mesos.TaskStatus) error {
	data, err := s.Marshal()
	if err != nil {
		return fmt.Errorf("record status: %w", err)
	}
	if err := e.log.Append(data); err != nil {
		return fmt.Errorf("record status: %w", err)
	}
	e.last = *s
	e.unacked = append(e.unacked, s)
	e.send(s)
	return nil
}

// send reports a status to the agent. Failure means that the agent has gone,
// which read notices; the next agent gets the status again.
func (e *executor) send(s *mesos.TaskStatus) {
	if e.conn == nil {
		return
	}
	data, err := s.Marshal()
	if err == nil {
		err = transmit(e.conn, report{Status: data})
	}
	if err != nil {
		_ = e.conn.Close()
	}
}
