package agent_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/agenttest"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/proc"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

func (h *host) kill() {
	h.t.Helper()
	if err := h.KillProcess(); err != nil {
		h.t.Fatal(err)
	}
}

// The agent process is killed and started again: executor and task live on,
// nothing is mounted or unmounted, and the agent can still kill the task.
func TestTaskOutlivesTheAgentProcess(t *testing.T) {
	h := newHost(t)
	h.master.Run(name, agenttest.Task("t.1", "echo $$ > pid; "+sleep, agenttest.DockerVolume("rclone", "v1", "vol")))
	h.awaitStarted("t.1")
	pid, id := h.sandboxFile("t.1", "pid"), h.ID()

	h.kill()
	if _, err := os.Stat("/proc/" + strings.TrimSpace(pid)); err != nil {
		t.Fatalf("the task died with the agent: %v", err)
	}
	h.start()
	expectEqual(t, "agent id", h.ID(), id)
	var again *link.Reregister
	for _, m := range h.master.Messages() {
		if r, ok := m.(link.Reregister); ok {
			again = &r
		}
	}
	if again == nil || len(again.Tasks) != 1 || again.Tasks[0].State != mesos.TASK_RUNNING ||
		again.Tasks[0].Latest == nil || len(again.Frameworks) != 1 {
		t.Fatalf("registered again with %+v", again)
	}
	expectEqual(t, "calls", h.dvdcli.Operations(), []string{"mount rclone/v1"})

	h.master.Kill(name, "t.1")
	s := h.master.Await("t.1", mesos.TASK_KILLED)
	expectEqual(t, "message", s.GetMessage(), "Command terminated with signal Terminated")
	expectEqual(t, "states", h.states("t.1"), []mesos.TaskState{
		mesos.TASK_STARTING, mesos.TASK_RUNNING, mesos.TASK_KILLING, mesos.TASK_KILLED})
	h.awaitCalls(2)
}

// The task ends while no agent runs: nothing of that is lost.
func TestTaskEndsWhileTheAgentIsDown(t *testing.T) {
	h := newHost(t)
	h.master.Run(name, agenttest.Task("t.1", "echo started; while [ ! -e go ]; do sleep 0.01; done; touch gone; exit 3",
		agenttest.DockerVolume("rclone", "v1", "vol")))
	h.awaitStarted("t.1")
	dir, err := h.Sandbox("t.1")
	if err != nil {
		t.Fatal(err)
	}
	h.kill()
	if err := os.WriteFile(dir+"/go", nil, 0o666); err != nil {
		t.Fatal(err)
	}
	agenttest.Eventually(t, "end of the task", func() bool {
		_, err := os.Stat(dir + "/gone")
		return err == nil
	})
	h.start()
	s := h.master.Await("t.1", mesos.TASK_FAILED)
	expectEqual(t, "message", s.GetMessage(), "Command exited with status 3")
	expectEqual(t, "source", s.GetSource(), mesos.SOURCE_EXECUTOR)
	h.awaitCalls(2)
}

// The host is lost and comes back: the task is reported failed, and its
// volume is unmounted once, by recovery, as recorded from a real agent.
func TestHostIsLost(t *testing.T) {
	h := newHost(t)
	h.master.Run(name, agenttest.Task("t.1", "echo $$ > pid; setsid sleep 1000 & echo $! > pid2; "+sleep,
		agenttest.DockerVolume("rclone", "w1", "vol")))
	h.awaitStarted("t.1")
	if err := h.LoseHost(); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"pid", "pid2"} {
		h.expectEnded("t.1", file)
	}
	expectEqual(t, "calls while the host is down", h.dvdcli.Operations(), []string{"mount rclone/w1"})
	expectEqual(t, "states while the host is down", h.states("t.1"),
		[]mesos.TaskState{mesos.TASK_STARTING, mesos.TASK_RUNNING})

	h.start()
	s := h.master.Await("t.1", mesos.TASK_FAILED)
	expectEqual(t, "message", s.GetMessage(), "Executor terminated")
	expectEqual(t, "reason", s.GetReason(), mesos.REASON_EXECUTOR_TERMINATED)
	h.awaitCalls(2)
	expectEqual(t, "calls", h.dvdcli.Operations(), []string{"mount rclone/w1", "unmount rclone/w1"})
}

// The agent is killed in the middle of a mount: the call dies with it, and
// recovery unmounts by the checkpoint.
func TestAgentIsKilledDuringAMount(t *testing.T) {
	h := newHost(t)
	h.dvdcli.On("mount rclone/v1", agenttest.Answer{Hold: true})
	h.master.Run(name, agenttest.Task("t.1", sleep, agenttest.DockerVolume("rclone", "v1", "vol")))
	agenttest.Eventually(t, "mount", func() bool { return len(h.dvdcli.Calls()) == 1 })
	h.kill()
	expectEqual(t, "end of the killed call", h.dvdcli.Calls()[0].End, time.Time{})
	h.start()
	h.master.Await("t.1", mesos.TASK_FAILED)
	agenttest.Eventually(t, "unmount", func() bool { return len(h.checkpoints()) == 0 })
	expectEqual(t, "calls", h.dvdcli.Operations(), []string{"mount rclone/v1", "unmount rclone/v1"})
}

// Checkpoints of containers that the agent does not know are cleaned up.
func TestUnknownOrphansAreUnmounted(t *testing.T) {
	h := newHost(t)
	h.kill()
	dir := h.DockerVolumeDir() + "/0b3f0f3a-6b0e-4b52-9d0b-6d5b0a0f1a11"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	text := `{"volumes":[{"driver":"rclone","name":"old"}]}`
	if err := os.WriteFile(dir+"/volumes", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	h.start()
	agenttest.Eventually(t, "removal of the checkpoint", func() bool { return len(h.checkpoints()) == 0 })
	expectEqual(t, "calls", h.dvdcli.Operations(), []string{"unmount rclone/old"})
}

// A checkpoint that cannot be read keeps the agent from starting, as on Mesos:
// going on would forget a mount.
func TestUnreadableCheckpoint(t *testing.T) {
	h := newHost(t)
	h.kill()
	dir := h.DockerVolumeDir() + "/0b3f0f3a-6b0e-4b52-9d0b-6d5b0a0f1a11"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/volumes", []byte(`{"volumes":[{`), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context()); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("start with a damaged checkpoint: %v", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	h.start()
}

// A frozen agent answers nobody and starts nothing, then goes on where it was.
func TestFrozenAgent(t *testing.T) {
	h := newHost(t)
	h.master.Run(name, agenttest.Task("t.1", sleep, agenttest.DockerVolume("rclone", "v1", "vol")))
	h.awaitStarted("t.1")
	h.Freeze()
	pongs := h.pongs()
	h.master.Send(name, link.Ping{Connected: true})
	h.master.Kill(name, "t.1")
	h.master.Run(name, agenttest.Task("t.2", sleep))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if answer, err := h.get(ctx, "/health"); err == nil {
		t.Errorf("a frozen agent answers %s", answer)
	}
	if h.pongs() != pongs || len(h.states("t.2")) != 0 {
		t.Error("a frozen agent answers")
	}
	h.Thaw()
	if _, err := h.get(t.Context(), "/health"); err != nil {
		t.Error(err)
	}
	agenttest.Eventually(t, "answer to the ping", func() bool { return h.pongs() == pongs+1 })
	h.master.Await("t.1", mesos.TASK_KILLED)
	h.awaitStarted("t.2")
}

func (h *host) get(ctx context.Context, path string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, h.URL()+path, nil)
	if err != nil {
		return "", err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	return response.Status, response.Body.Close()
}

func (h *host) pongs() int {
	n := 0
	for _, m := range h.master.Messages() {
		if _, ok := m.(link.Pong); ok {
			n++
		}
	}
	return n
}

// In a partition the task goes on, and updates are repeated until the master
// gets them.
func TestPartition(t *testing.T) {
	h := newHost(t)
	h.master.Run(name, agenttest.Task("t.1", "echo started; while [ ! -e go ]; do sleep 0.01; done"))
	h.awaitStarted("t.1")
	h.Partition()
	dir, err := h.Sandbox("t.1")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/go", nil, 0o666); err != nil {
		t.Fatal(err)
	}
	h.awaitPending("t.1")
	expectEqual(t, "states known to the master", h.states("t.1"),
		[]mesos.TaskState{mesos.TASK_STARTING, mesos.TASK_RUNNING})
	h.Heal()
	h.master.Await("t.1", mesos.TASK_FINISHED)
}

// awaitPending waits until the agent has recorded the end of a task.
func (h *host) awaitPending(task string) {
	h.t.Helper()
	dir, err := h.Sandbox(task)
	if err != nil {
		h.t.Fatal(err)
	}
	updates := strings.Replace(dir, "/slaves/", "/meta/slaves/", 1) + "/tasks/" + task + "/task.updates"
	agenttest.Eventually(h.t, "update of "+task, func() bool {
		data, err := os.ReadFile(updates)
		return err == nil && strings.Contains(string(data), "Command exited")
	})
}

// Updates that nobody acknowledges are repeated, one at a time and in order,
// across a restart of the agent.
func TestUpdatesAreRepeated(t *testing.T) {
	h := newHost(t)
	h.master.AcknowledgeNothing(true)
	h.master.Run(name, agenttest.Task("t.1", "true"))
	sent := func() (n int) {
		for _, m := range h.master.Messages() {
			if u, ok := m.(link.Update); ok {
				n++
				expectEqual(t, "state of an unacknowledged stream's update", u.Status.GetState(), mesos.TASK_STARTING)
			}
		}
		return n
	}
	agenttest.Eventually(t, "repetition", func() bool { return sent() >= 3 })
	h.awaitPending("t.1")
	h.kill()
	before := sent()
	h.start()
	agenttest.Eventually(t, "repetition after the restart", func() bool { return sent() > before })
	h.master.AcknowledgeNothing(false)
	h.master.Await("t.1", mesos.TASK_FINISHED)
	expectEqual(t, "states", h.states("t.1"),
		[]mesos.TaskState{mesos.TASK_STARTING, mesos.TASK_RUNNING, mesos.TASK_FINISHED})
}

// A new master gets to know the agent's tasks.
func TestMasterFailover(t *testing.T) {
	h := newHost(t)
	h.master.Run(name, agenttest.Task("t.1", sleep))
	h.awaitStarted("t.1")
	h.master.Close()
	h.master = agenttest.NewMaster(t, h.network)
	agenttest.Eventually(t, "registration with the new master", func() bool {
		for _, m := range h.master.Messages() {
			if r, ok := m.(link.Reregister); ok {
				return len(r.Tasks) == 1 && r.Info.GetID().Value == h.ID()
			}
		}
		return false
	})
	h.master.Kill(name, "t.1")
	h.master.Await("t.1", mesos.TASK_KILLED)
}

// On the master's order the agent ends with everything on it, and the next one
// on the same host is a new agent.
func TestShutdownByTheMaster(t *testing.T) {
	h := newHost(t)
	h.master.Run(name, agenttest.Task("t.1", sleep, agenttest.DockerVolume("rclone", "v1", "vol")))
	h.awaitStarted("t.1")
	h.master.Send(name, link.ShutdownAgent{Message: "agent has been marked gone"})
	h.awaitCalls(2)
	agenttest.Eventually(t, "end of the agent", func() bool { return h.master.Losses() == 1 })
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	agenttest.Eventually(t, "another registration", func() bool {
		n := 0
		for _, m := range h.master.Messages() {
			if _, ok := m.(link.Register); ok {
				n++
			}
		}
		return n == 2
	})
}

// A torn down framework's tasks are killed without updates.
func TestShutdownOfAFramework(t *testing.T) {
	h := newHost(t)
	h.master.Run(name, agenttest.Task("t.1", sleep, agenttest.DockerVolume("rclone", "v1", "vol")))
	h.awaitStarted("t.1")
	h.master.Send(name, link.ShutdownFramework{FrameworkID: mesos.FrameworkID{Value: agenttest.FrameworkID}})
	h.awaitCalls(2)
	h.awaitSentinel("t.1")
	expectEqual(t, "states", h.states("t.1"), []mesos.TaskState{mesos.TASK_STARTING, mesos.TASK_RUNNING})
}

// An agent whose configuration has changed refuses its old state.
func TestChangedConfiguration(t *testing.T) {
	h := newHost(t)
	h.kill()
	other, err := agent.New(agent.Config{Dir: h.Dir(), Cable: h.network.Cable(name), Hostname: "elsewhere"})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "host names") {
		t.Errorf("start with another host name: %v", err)
	}
}

// An executor that is killed takes its task with it, and the agent cleans up.
func TestExecutorIsKilled(t *testing.T) {
	h := newHost(t)
	h.master.Run(name, agenttest.Task("t.1", "echo $$ > pid; "+sleep, agenttest.DockerVolume("rclone", "v1", "vol")))
	h.awaitStarted("t.1")
	running := h.master.Await("t.1", mesos.TASK_RUNNING)
	if err := syscall.Kill(int(running.ContainerStatus.GetExecutorPID()), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s := h.master.Await("t.1", mesos.TASK_FAILED)
	expectEqual(t, "message", s.GetMessage(), "Executor terminated")
	expectEqual(t, "reason", s.GetReason(), mesos.REASON_EXECUTOR_TERMINATED)
	h.expectEnded("t.1", "pid")
	expectEqual(t, "calls", h.dvdcli.Operations(), []string{"mount rclone/v1", "unmount rclone/v1"})
}

// ended tells whether a process has ended whose pid a task has written to a file. A
// zombie has: process 1 reaps orphans when it comes to that.
func (h *host) ended(task, file string) bool {
	h.t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(h.sandboxFile(task, file)))
	if err != nil {
		h.t.Fatal(err)
	}
	s, err := proc.Read(pid)
	return err != nil || s.Zombie
}

func (h *host) expectEnded(task, file string) {
	h.t.Helper()
	if !h.ended(task, file) {
		h.t.Errorf("the process of %s with the id in %s is left", task, file)
	}
}

// An executor to which no agent comes back ends its task itself, and the agent
// that comes much later still hears of it. The executor waits as long for the agent
// that has started it.
func TestAgentStaysAway(t *testing.T) {
	h := newHost(t, func(c *agent.Config) { c.RecoveryTimeout = 3 * time.Second })
	h.master.Run(name, agenttest.Task("t.1", "echo $$ > pid; "+sleep))
	h.awaitStarted("t.1")
	h.kill()
	agenttest.Eventually(t, "end of the task", func() bool { return h.ended("t.1", "pid") })
	agenttest.Eventually(t, "end of the executor", func() bool {
		sockets, err := filepath.Glob(filepath.Join(h.Dir(), "run/containers/*/executor.sock"))
		return err == nil && len(sockets) == 0
	})
	h.start()
	s := h.master.Await("t.1", mesos.TASK_KILLED)
	expectEqual(t, "source", s.GetSource(), mesos.SOURCE_EXECUTOR)
}

// Tasks of a framework that does not checkpoint end with the agent process,
// and nobody is told: the master has given them up already.
func TestFrameworkWithoutCheckpoint(t *testing.T) {
	h := newHost(t)
	f := agenttest.Framework()
	f.Checkpoint = nil
	h.master.Send(name, link.Run{Framework: f,
		Task: agenttest.Task("t.1", "echo $$ > pid; "+sleep, agenttest.DockerVolume("rclone", "v1", "vol"))})
	h.awaitStarted("t.1")
	h.kill()
	h.start()
	h.awaitCalls(2)
	h.awaitSentinel("t.1")
	h.expectEnded("t.1", "pid")
	expectEqual(t, "states", h.states("t.1"), []mesos.TaskState{mesos.TASK_STARTING, mesos.TASK_RUNNING})
	for _, m := range h.master.Messages() {
		if r, ok := m.(link.Reregister); ok && len(r.Tasks) != 0 {
			t.Errorf("the agent comes back with %+v", r.Tasks)
		}
	}
}

// An agent that is destroyed in the middle of everything leaves nothing
// behind, and says what it could not clean up.
func TestDestroy(t *testing.T) {
	h := newHost(t)
	h.dvdcli.On("mount rclone/slow", agenttest.Answer{Hold: true})
	h.dvdcli.On("unmount rclone/stuck", agenttest.Answer{Exit: 1, Stderr: "busy"})
	h.master.Run(name, agenttest.Task("t.1", "trap '' TERM; "+sleep, agenttest.DockerVolume("rclone", "v1", "vol")))
	h.master.Run(name, agenttest.Task("t.2", sleep, agenttest.DockerVolume("rclone", "slow", "vol")))
	h.master.Run(name, agenttest.Task("t.3", "true", agenttest.DockerVolume("rclone", "stuck", "vol")))
	h.awaitStarted("t.1")
	h.awaitSentinel("t.3")
	agenttest.Eventually(t, "mount", func() bool { return len(h.dvdcli.Calls()) == 4 })
	h.dvdcli.Release("mount rclone/slow")
	if err := h.Destroy(t.Context()); err == nil || !strings.Contains(err.Error(), "busy") {
		t.Errorf("destroy with a volume that cannot be unmounted: %v", err)
	}
	expectEqual(t, "number of checkpoints left", len(h.checkpoints()), 1)
	h.dvdcli.On("unmount rclone/stuck", agenttest.Answer{})
}
