package agent_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/agenttest"
)

const sleep = "echo started; exec sleep 1000"

// awaitStarted waits until the task's command runs.
func (h *host) awaitStarted(task string) {
	h.t.Helper()
	h.master.Await(task, mesos.TASK_RUNNING)
	agenttest.Eventually(h.t, "output of "+task, func() bool {
		return strings.Contains(h.sandboxFile(task, "stdout"), "started")
	})
}

// awaitCalls waits until dvdcli has been called so often, and all calls have
// ended.
func (h *host) awaitCalls(n int) []agenttest.Call {
	h.t.Helper()
	agenttest.Eventually(h.t, "calls of dvdcli", func() bool {
		calls := h.dvdcli.Calls()
		return len(calls) == n && !slices.ContainsFunc(calls, func(c agenttest.Call) bool { return c.End.IsZero() })
	})
	return h.dvdcli.Calls()
}

// checkpoints returns the isolator's checkpoints by container.
func (h *host) checkpoints() map[string]string {
	h.t.Helper()
	files, err := filepath.Glob(filepath.Join(h.DockerVolumeDir(), "*", "volumes"))
	if err != nil {
		h.t.Fatal(err)
	}
	found := make(map[string]string)
	for _, f := range files {
		data, err := os.ReadFile(f)
		if os.IsNotExist(err) {
			continue // removed meanwhile
		}
		if err != nil {
			h.t.Fatal(err)
		}
		found[filepath.Base(filepath.Dir(f))] = string(data)
	}
	return found
}

// One task alone: the calls are those that a real agent was recorded making.
func TestCallsOfDVDCLIAreThoseOfARealAgent(t *testing.T) {
	h := newHost(t)
	h.dvdcli.On("mount rclone/v1", agenttest.Answer{Hold: true})
	h.master.Run(name, agenttest.Task("t.1", "echo data > vol/file; echo started",
		agenttest.DockerVolume("rclone", "v1", "vol", "type", "local", "path", "/srv/volumes/v1")))
	agenttest.Eventually(t, "mount", func() bool { return len(h.dvdcli.Calls()) == 1 })

	checkpoints := h.checkpoints()
	if len(checkpoints) != 1 {
		t.Fatalf("checkpoints before the mount returns: %v", checkpoints)
	}
	for _, text := range checkpoints {
		expectEqual(t, "checkpoint", text, `{"volumes":[{"driver":"rclone","name":"v1"}]}`)
	}
	h.dvdcli.Release("mount rclone/v1")
	h.master.Await("t.1", mesos.TASK_FINISHED)
	calls := h.awaitCalls(2)

	recorded := recordedCalls(t)
	mount, unmount := recorded[3], recorded[4] // "one task alone"
	expectCall(t, h, calls[0], mount)
	expectCall(t, h, calls[1], unmount)
	data, err := os.ReadFile(filepath.Join(h.dvdcli.Volume("v1"), "file"))
	if err != nil || string(data) != "data\n" {
		t.Errorf("volume has %q, %v", data, err)
	}
	agenttest.Eventually(t, "removal of the checkpoint", func() bool { return len(h.checkpoints()) == 0 })
}

// recordedCall is a line of the recording of a real agent.
type recordedCall struct {
	Argv []string          `json:"argv"`
	FDs  map[string]string `json:"fds"`
}

func recordedCalls(t *testing.T) []recordedCall {
	t.Helper()
	data, err := os.ReadFile("../testdata/dvdcli-calls.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	var calls []recordedCall
	for line := range strings.Lines(string(data)) {
		var c recordedCall
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			t.Fatal(err)
		}
		if c.Argv != nil {
			calls = append(calls, c)
		}
	}
	return calls
}

func expectCall(t *testing.T, h *host, got agenttest.Call, want recordedCall) {
	t.Helper()
	expectEqual(t, "argv[0]", got.Argv[0], h.dvdcli.Path())
	const fixed = 4 // what comes before the options, which have no order
	if len(got.Argv) < fixed {
		t.Fatalf("arguments %q", got.Argv)
	}
	expectEqual(t, "arguments", got.Argv[1:fixed], want.Argv[1:fixed])
	expectEqual(t, "options", slices.Sorted(slices.Values(got.Argv[fixed:])), slices.Sorted(slices.Values(want.Argv[fixed:])))
	expectEqual(t, "descriptors", got.Files, want.FDs)
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	expectEqual(t, "directory", got.Dir, dir)
	if !got.Group {
		t.Error("dvdcli does not lead a process group")
	}
	for _, entry := range append(os.Environ(), h.dvdcli.Env()...) {
		if !slices.Contains(got.Env, entry) {
			t.Errorf("%q is missing in the environment", entry)
		}
	}
}

// Two containers of one volume: a mount for each, one unmount for both.
func TestSharedVolumeIsUnmountedOnce(t *testing.T) {
	h := newHost(t)
	volume := agenttest.DockerVolume("rclone", "v1", "vol")
	h.master.Run(name, agenttest.Task("a.1", sleep, volume))
	h.awaitStarted("a.1")
	h.master.Run(name, agenttest.Task("b.1", sleep, volume))
	h.awaitStarted("b.1")
	h.master.Kill(name, "a.1")
	h.master.Await("a.1", mesos.TASK_KILLED)
	agenttest.Eventually(t, "end of the first container", func() bool { return len(h.checkpoints()) == 1 })
	h.master.Kill(name, "b.1")
	agenttest.Eventually(t, "end of the second container", func() bool { return len(h.checkpoints()) == 0 })
	expectEqual(t, "calls", h.dvdcli.Operations(), []string{"mount rclone/v1", "mount rclone/v1", "unmount rclone/v1"})
}

// Calls for one volume wait for each other, those for another do not.
func TestCallsAreSerialisedPerVolume(t *testing.T) {
	h := newHost(t)
	h.dvdcli.On("mount rclone/v1", agenttest.Answer{Hold: true})
	h.master.Run(name, agenttest.Task("a.1", sleep, agenttest.DockerVolume("rclone", "v1", "vol")))
	agenttest.Eventually(t, "first mount", func() bool { return len(h.dvdcli.Calls()) == 1 })
	h.master.Run(name, agenttest.Task("b.1", sleep, agenttest.DockerVolume("rclone", "v1", "vol")))
	h.master.Run(name, agenttest.Task("c.1", sleep, agenttest.DockerVolume("rclone", "v2", "vol")))
	h.awaitStarted("c.1") // launched last, not held up
	expectEqual(t, "calls", h.dvdcli.Operations(), []string{"mount rclone/v1", "mount rclone/v2"})
	h.dvdcli.Release("mount rclone/v1")
	h.awaitStarted("a.1")
	h.awaitStarted("b.1")
	calls := h.awaitCalls(3)
	if calls[2].Begin.Before(calls[0].End) {
		t.Error("the second call for a volume began before the end of the first")
	}
}

// A mount that fails is followed by an unmount; when that fails, too, the
// message is the one that was captured.
func TestFailedMount(t *testing.T) {
	h := newHost(t)
	h.dvdcli.On("mount nosuchdriver/v1", agenttest.Answer{Exit: 1, Stderr: "plugin not found\n"})
	h.dvdcli.On("unmount nosuchdriver/v1", agenttest.Answer{Exit: 1, Stderr: "still not found\n"})
	h.master.Run(name, agenttest.Task("t.1", "true", agenttest.DockerVolume("nosuchdriver", "v1", "vol")))
	s := h.master.Await("t.1", mesos.TASK_FAILED)
	expectEqual(t, "message", s.GetMessage(),
		"Failed to launch container: Unexpected termination of the subprocess: plugin not found\n"+
			"; Abnormal executor termination: Failed to clean up an isolator when destroying container: "+
			"Unexpected termination of the subprocess: still not found\n")
	expectEqual(t, "source", s.GetSource(), mesos.SOURCE_AGENT)
	expectEqual(t, "reason", s.GetReason(), mesos.REASON_CONTAINER_LAUNCH_FAILED)
	expectEqual(t, "executor", s.GetExecutorID().Value, "t.1")
	if s.ContainerStatus != nil {
		t.Errorf("container status %v", s.ContainerStatus)
	}
	expectEqual(t, "states", h.states("t.1"), []mesos.TaskState{mesos.TASK_FAILED})
	expectEqual(t, "calls", h.dvdcli.Operations(), []string{"mount nosuchdriver/v1", "unmount nosuchdriver/v1"})
	expectEqual(t, "number of checkpoints left", len(h.checkpoints()), 1)
	h.dvdcli.On("unmount nosuchdriver/v1", agenttest.Answer{})
}

// Of two volumes one fails: both are unmounted.
func TestOneOfTwoMountsFails(t *testing.T) {
	h := newHost(t)
	h.dvdcli.On("mount nosuchdriver/w3", agenttest.Answer{Exit: 1, Stderr: "no"})
	h.master.Run(name, agenttest.Task("t.1", "true",
		agenttest.DockerVolume("rclone", "w2", "a"), agenttest.DockerVolume("nosuchdriver", "w3", "b")))
	s := h.master.Await("t.1", mesos.TASK_FAILED)
	expectEqual(t, "message", s.GetMessage(),
		"Failed to launch container: Unexpected termination of the subprocess: no")
	operations := h.dvdcli.Operations()
	slices.Sort(operations)
	expectEqual(t, "calls", operations, []string{
		"mount nosuchdriver/w3", "mount rclone/w2", "unmount nosuchdriver/w3", "unmount rclone/w2"})
	for _, c := range h.awaitCalls(4)[2:] {
		expectEqual(t, "later calls", c.Argv[1], "unmount")
	}
	expectEqual(t, "number of checkpoints left", len(h.checkpoints()), 0)
}

// When the unmount fails after the task's end, the task's state stays what
// the executor said, and the checkpoint stays until the next recovery, which
// tries once more.
func TestFailedUnmountIsTriedAgainAtRecovery(t *testing.T) {
	h := newHost(t)
	h.dvdcli.On("unmount rclone/v1", agenttest.Answer{Exit: 1, Stderr: "busy"})
	h.master.Run(name, agenttest.Task("t.1", "true", agenttest.DockerVolume("rclone", "v1", "vol")))
	h.master.Await("t.1", mesos.TASK_FINISHED)
	h.awaitCalls(2)
	h.awaitSentinel("t.1")
	expectEqual(t, "states", h.states("t.1"),
		[]mesos.TaskState{mesos.TASK_STARTING, mesos.TASK_RUNNING, mesos.TASK_FINISHED})
	expectEqual(t, "number of checkpoints left", len(h.checkpoints()), 1)

	h.kill()
	h.dvdcli.On("unmount rclone/v1", agenttest.Answer{})
	h.start()
	agenttest.Eventually(t, "removal of the checkpoint", func() bool { return len(h.checkpoints()) == 0 })
	expectEqual(t, "calls", h.dvdcli.Operations(), []string{"mount rclone/v1", "unmount rclone/v1", "unmount rclone/v1"})
}

// awaitSentinel waits until the agent is through with a task.
func (h *host) awaitSentinel(task string) {
	h.t.Helper()
	agenttest.Eventually(h.t, "end of the executor of "+task, func() bool {
		found, err := filepath.Glob(filepath.Join(h.Dir(),
			"meta/slaves/*/frameworks/*/executors", task, "runs/*/executor.sentinel"))
		return err == nil && len(found) > 0
	})
}

// A call that takes too long is killed with everything it has started.
func TestMountTimesOut(t *testing.T) {
	h := newHost(t, func(c *agent.Config) { c.MountTimeout = 5 * time.Second })
	h.dvdcli.On("mount rclone/v1", agenttest.Answer{Hold: true})
	h.master.Run(name, agenttest.Task("t.1", "true", agenttest.DockerVolume("rclone", "v1", "vol")))
	s := h.master.Await("t.1", mesos.TASK_FAILED)
	expectEqual(t, "message", s.GetMessage(), "Failed to launch container: 'mount' timed out in 5secs")
	expectEqual(t, "calls", h.dvdcli.Operations(), []string{"mount rclone/v1", "unmount rclone/v1"})
}

// What a container's paths may be.
func TestContainerPaths(t *testing.T) {
	h := newHost(t)
	missing := filepath.Join(t.TempDir(), "missing")
	for path, message := range map[string]string{
		missing:    "Failed to launch container: Absolute container path '" + missing + "' does not exist",
		"../../up": "Failed to launch container: Container path '../../up' leads out of the sandbox",
	} {
		id := "t" + strings.ReplaceAll(path, "/", "-")
		h.master.Run(name, agenttest.Task(id, "true", agenttest.DockerVolume("rclone", "v1", path)))
		s := h.master.Await(id, mesos.TASK_FAILED)
		expectEqual(t, "message", s.GetMessage(), message)
	}
	h.master.Run(name, agenttest.Task("twice", "true",
		agenttest.DockerVolume("rclone", "v1", "a"), agenttest.DockerVolume("rclone", "v1", "b")))
	twice := h.master.Await("twice", mesos.TASK_FAILED)
	expectEqual(t, "message", twice.GetMessage(),
		"Failed to launch container: Found duplicate docker volume with driver 'rclone' and name 'v1'")
	expectEqual(t, "number of calls", len(h.dvdcli.Calls()), 0)
}
