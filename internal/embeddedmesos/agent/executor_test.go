package agent_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/agenttest"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

func linked(c *agent.Config) { c.LinkVolumes = true }

// How a command ends decides state and message.
func TestEndsOfCommands(t *testing.T) {
	h := newHost(t)
	notShell := agenttest.Task("argv", "printf")
	notShell.Command.Shell = ptr(false)
	notShell.Command.Arguments = []string{"printf", "%s-%s", "a b", "c"}
	missing := agenttest.Task("missing", "/no/such/program")
	missing.Command.Shell = ptr(false)
	for _, c := range []struct {
		task    mesos.TaskInfo
		state   mesos.TaskState
		message string
	}{
		{agenttest.Task("fails", "exit 7"), mesos.TASK_FAILED, "Command exited with status 7"},
		{agenttest.Task("signal", "kill -KILL $$"), mesos.TASK_FAILED, "Command terminated with signal Killed"},
		{notShell, mesos.TASK_FINISHED, "Command exited with status 0"},
		{missing, mesos.TASK_FAILED, "Command exited with status 1"},
	} {
		h.master.Run(name, c.task)
		s := h.master.Await(c.task.TaskID.Value, c.state)
		expectEqual(t, "message of "+c.task.TaskID.Value, s.GetMessage(), c.message)
	}
	expectEqual(t, "output", h.sandboxFile("argv", "stdout"), "a b-c")
	if text := h.sandboxFile("missing", "stderr"); !strings.Contains(text, "/no/such/program") {
		t.Errorf("stderr %q", text)
	}
}

// The environment has what Mesos promises, and the command's own comes last.
func TestEnvironmentOfTask(t *testing.T) {
	t.Setenv("MESOS_SOMETHING", "of the agent")
	t.Setenv("INHERITED", "yes")
	t.Setenv("OVERRIDDEN", "no")
	h := newHost(t)
	task := agenttest.Task("t.1", "env")
	task.Command.Environment = &mesos.Environment{Variables: []mesos.Environment_Variable{
		{Name: "OVERRIDDEN", Value: ptr("yes")},
		{Name: "PASSWORD", Type: mesos.Environment_Variable_SECRET.Enum(), Secret: &mesos.Secret{
			Type: mesos.Secret_VALUE, Value: &mesos.Secret_Value{Data: []byte("hunter2")}}}}}
	h.master.Run(name, task)
	h.master.Await("t.1", mesos.TASK_FINISHED)
	env := strings.Split(h.sandboxFile("t.1", "stdout"), "\n")
	sandbox, err := h.Sandbox("t.1")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range []string{
		"INHERITED=yes", "OVERRIDDEN=yes", "PASSWORD=hunter2", "MESOS_SANDBOX=" + sandbox, "MESOS_EXECUTOR_ID=t.1",
		"MESOS_FRAMEWORK_ID=" + agenttest.FrameworkID, "MESOS_SLAVE_ID=" + h.ID(), "MESOS_ALLOCATION_ROLE=dvdi",
		"MESOS_CHECKPOINT=1", "PWD=" + sandbox,
	} {
		if !slices.Contains(env, entry) {
			t.Errorf("%s is missing", entry)
		}
	}
	for _, entry := range env {
		if strings.HasPrefix(entry, "MESOS_SOMETHING=") || entry == "OVERRIDDEN=no" {
			t.Errorf("%s is there", entry)
		}
	}
}

// A task that ignores SIGTERM is killed after the grace period of its policy;
// its descendants go with it.
func TestKillPolicy(t *testing.T) {
	h := newHost(t)
	task := agenttest.Task("t.1", "trap '' TERM; setsid sleep 1000 & echo $! > pid; echo started; while true; do sleep 0.01; done")
	task.KillPolicy = &mesos.KillPolicy{GracePeriod: &mesos.DurationInfo{Nanoseconds: 50e6}}
	h.master.Run(name, task)
	h.awaitStarted("t.1")
	h.master.Kill(name, "t.1")
	s := h.master.Await("t.1", mesos.TASK_KILLED)
	expectEqual(t, "message", s.GetMessage(), "Command terminated with signal Killed")
	h.awaitSentinel("t.1")
	h.expectEnded("t.1", "pid")
}

// The policy of a kill comes before that of the task, and a second kill can
// shorten the period of the first. A framework that does not know TASK_KILLING
// does not get it.
func TestKillOverridesPolicy(t *testing.T) {
	h := newHost(t)
	task := agenttest.Task("t.1", "trap '' TERM; echo started; while true; do sleep 0.01; done")
	task.KillPolicy = &mesos.KillPolicy{GracePeriod: &mesos.DurationInfo{Nanoseconds: 1}}
	f := agenttest.Framework()
	f.Capabilities = f.Capabilities[:1]
	h.master.Send(name, link.Run{Framework: f, Task: task})
	h.awaitStarted("t.1")
	kill := func(grace time.Duration) {
		h.master.Send(name, link.KillTask{
			FrameworkID: mesos.FrameworkID{Value: agenttest.FrameworkID},
			TaskID:      task.TaskID,
			KillPolicy:  &mesos.KillPolicy{GracePeriod: &mesos.DurationInfo{Nanoseconds: int64(grace)}},
		})
	}
	kill(time.Hour)
	h.master.Send(name, link.Ping{Connected: true}) // answered after the kill was passed on
	agenttest.Eventually(t, "answer", func() bool { return h.pongs() == 1 })
	expectEqual(t, "states", h.states("t.1"), []mesos.TaskState{mesos.TASK_STARTING, mesos.TASK_RUNNING})
	kill(10 * time.Millisecond)
	h.master.Await("t.1", mesos.TASK_KILLED)
	expectEqual(t, "states", h.states("t.1"),
		[]mesos.TaskState{mesos.TASK_STARTING, mesos.TASK_RUNNING, mesos.TASK_KILLED})
}

// A kill that comes during the launch prevents it.
func TestKillDuringLaunch(t *testing.T) {
	h := newHost(t)
	h.dvdcli.On("mount rclone/v1", agenttest.Answer{Hold: true})
	h.master.Run(name, agenttest.Task("t.1", "echo started", agenttest.DockerVolume("rclone", "v1", "vol")))
	agenttest.Eventually(t, "mount", func() bool { return len(h.dvdcli.Calls()) == 1 })
	h.master.Kill(name, "t.1")
	s := h.master.Await("t.1", mesos.TASK_KILLED)
	expectEqual(t, "message", s.GetMessage(), "Killed before delivery to the executor")
	expectEqual(t, "reason", s.GetReason(), mesos.REASON_TASK_KILLED_DURING_LAUNCH)
	expectEqual(t, "calls before the mount ends", len(h.dvdcli.Calls()), 1)
	h.dvdcli.Release("mount rclone/v1")
	agenttest.Eventually(t, "unmount", func() bool { return len(h.checkpoints()) == 0 })
	h.awaitSentinel("t.1")
	expectEqual(t, "output", h.sandboxFile("t.1", "stdout"), "")
}

// An unknown task cannot be killed, and that is said.
func TestKillOfUnknownTask(t *testing.T) {
	h := newHost(t)
	h.master.Run(name, agenttest.Task("known", sleep))
	h.awaitStarted("known")
	h.master.Kill(name, "unknown")
	s := h.master.Await("unknown", mesos.TASK_DROPPED)
	expectEqual(t, "message", s.GetMessage(), "Cannot find executor")
}

// Health checks of every kind: the first success is reported, failures are,
// and the last of them kills the task.
func TestHealthChecks(t *testing.T) {
	var healthy atomic.Bool
	healthy.Store(true)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !healthy.Load() || r.URL.Path != "/health" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.ParseUint(u.Port(), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	for id, check := range map[string]*mesos.HealthCheck{
		"command": {Type: mesos.HealthCheck_COMMAND, Command: &mesos.CommandInfo{Value: ptr("test ! -e bad")}},
		"http": {Type: mesos.HealthCheck_HTTP,
			HTTP: &mesos.HealthCheck_HTTPCheckInfo{Port: uint32(port), Path: ptr("/health")}},
		"tcp": {Type: mesos.HealthCheck_TCP, TCP: &mesos.HealthCheck_TCPCheckInfo{Port: uint32(port)}},
	} {
		check.DelaySeconds, check.IntervalSeconds = ptr(0.0), ptr(0.02)
		check.GracePeriodSeconds, check.ConsecutiveFailures = ptr(0.0), ptr(uint32(2))
		task := agenttest.Task(id, sleep)
		task.HealthCheck = check
		h.master.Run(name, task)
	}
	for _, id := range []string{"command", "http", "tcp"} {
		h.awaitHealth(id, true)
	}
	healthy.Store(false)
	dir, err := h.Sandbox("command")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bad"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"command", "http"} {
		h.awaitHealth(id, false)
		s := h.master.Await(id, mesos.TASK_KILLED)
		if s.Healthy == nil || *s.Healthy {
			t.Errorf("%s: final status %+v", id, s)
		}
	}
	server.Close()
	h.awaitHealth("tcp", false)
	h.master.Await("tcp", mesos.TASK_KILLED)
}

func (h *host) awaitHealth(task string, healthy bool) {
	h.t.Helper()
	agenttest.Eventually(h.t, fmt.Sprintf("health %v of %s", healthy, task), func() bool {
		return slices.ContainsFunc(h.master.Statuses(task), func(s mesos.TaskStatus) bool {
			return s.GetState() == mesos.TASK_RUNNING && s.Healthy != nil && *s.Healthy == healthy &&
				s.GetReason() == mesos.REASON_TASK_HEALTH_CHECK_STATUS_UPDATED && s.Message == nil
		})
	})
}

// A check reports results when they change, and does nothing else.
func TestCheck(t *testing.T) {
	h := newHost(t)
	task := agenttest.Task("t.1", sleep)
	task.Check = &mesos.CheckInfo{
		Type:         mesos.CheckInfo_COMMAND,
		Command:      &mesos.CheckInfo_Command{Command: mesos.CommandInfo{Value: ptr("exit $(cat code 2>/dev/null || echo 0)")}},
		DelaySeconds: ptr(0.0), IntervalSeconds: ptr(0.02),
	}
	h.master.Run(name, task)
	exitCode := func(want int32) func() bool {
		return func() bool {
			return slices.ContainsFunc(h.master.Statuses("t.1"), func(s mesos.TaskStatus) bool {
				c := s.GetCheckStatus().GetCommand()
				return s.GetReason() == mesos.REASON_TASK_CHECK_STATUS_UPDATED && c != nil && c.ExitCode != nil && *c.ExitCode == want
			})
		}
	}
	agenttest.Eventually(t, "result 0", exitCode(0))
	dir, err := h.Sandbox("t.1")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "code.new"), []byte("5"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "code.new"), filepath.Join(dir, "code")); err != nil {
		t.Fatal(err)
	}
	agenttest.Eventually(t, "result 5", exitCode(5))
	if first := h.master.Statuses("t.1")[0]; first.GetCheckStatus().GetType() != mesos.CheckInfo_COMMAND {
		t.Errorf("the first status has no check status: %+v", first)
	}
}

// A task that takes longer than it may is killed and has failed.
func TestMaxCompletionTime(t *testing.T) {
	h := newHost(t)
	task := agenttest.Task("t.1", sleep)
	task.MaxCompletionTime = &mesos.DurationInfo{Nanoseconds: 50e6}
	h.master.Run(name, task)
	s := h.master.Await("t.1", mesos.TASK_FAILED)
	expectEqual(t, "reason", s.GetReason(), mesos.REASON_MAX_COMPLETION_TIME_REACHED)
}

// Tasks that need what is not there fail with a reason.
func TestUnsupportedTasks(t *testing.T) {
	h := newHost(t)
	custom := agenttest.Task("custom", "true")
	custom.Executor = &mesos.ExecutorInfo{ExecutorID: mesos.ExecutorID{Value: "custom"}}
	docker := agenttest.Task("docker", "true")
	docker.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_DOCKER.Enum()}
	image := agenttest.Task("image", "true")
	image.Container = &mesos.ContainerInfo{
		Type: mesos.ContainerInfo_MESOS.Enum(), Mesos: &mesos.ContainerInfo_MesosInfo{Image: &mesos.Image{Type: mesos.Image_DOCKER.Enum()}}}
	secret := agenttest.Task("secret", "true", mesos.Volume{
		ContainerPath: "x", Mode: mesos.RW.Enum(), Source: &mesos.Volume_Source{Type: mesos.Volume_Source_SECRET}})
	for task, text := range map[*mesos.TaskInfo]string{
		&custom: "command executor only", &docker: "None of the enabled containerizers", &image: "no images", &secret: "SECRET",
	} {
		h.master.Run(name, *task)
		s := h.master.Await(task.TaskID.Value, mesos.TASK_FAILED)
		if !strings.HasPrefix(s.GetMessage(), "Failed to launch container: ") || !strings.Contains(s.GetMessage(), text) {
			t.Errorf("%s: %q", task.TaskID.Value, s.GetMessage())
		}
	}
}

// As root, a task runs as its framework's or its command's user.
func TestUserOfTask(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can choose")
	}
	h := newHost(t)
	h.openTo(t)
	f := agenttest.Framework()
	f.User = "nobody"
	h.master.Send(name, link.Run{Framework: f, Task: agenttest.Task("t.1", "id -un; touch file && echo written")})
	h.master.Await("t.1", mesos.TASK_FINISHED)
	expectEqual(t, "output", h.sandboxFile("t.1", "stdout"), "nobody\nwritten\n")
	unknown := agenttest.Task("t.2", "true")
	unknown.Command.User = ptr("no-such-user")
	h.master.Run(name, unknown)
	s := h.master.Await("t.2", mesos.TASK_FAILED)
	if !strings.Contains(s.GetMessage(), "no-such-user") {
		t.Errorf("message %q", s.GetMessage())
	}
}

// openTo lets other users into the test's directories.
func (h *host) openTo(t *testing.T) {
	t.Helper()
	for dir := h.Dir(); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// URIs are in the sandbox before the command runs.
func TestURIs(t *testing.T) {
	h := newHost(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/config" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		fmt.Fprint(w, "served")
	}))
	defer server.Close()
	script := filepath.Join(t.TempDir(), "run.sh")
	if err := os.WriteFile(script, []byte("#!/bin/sh\ncat config dir/renamed\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	archive := makeTar(t, map[string]string{"inside/file": "packed"})
	task := agenttest.Task("t.1", "./run.sh; cat inside/file")
	task.Command.URIs = []mesos.CommandInfo_URI{
		{Value: "file://" + script, Executable: ptr(true)},
		{Value: server.URL + "/config?x=1"},
		{Value: server.URL + "/config", OutputFile: ptr("dir/renamed")},
		{Value: archive},
	}
	h.master.Run(name, task)
	h.master.Await("t.1", mesos.TASK_FINISHED)
	expectEqual(t, "output", h.sandboxFile("t.1", "stdout"), "servedservedpacked")

	evil := makeTar(t, map[string]string{"../../evil": "x"})
	for id, uri := range map[string]mesos.CommandInfo_URI{
		"status":  {Value: server.URL + "/missing"},
		"missing": {Value: "/no/such/file"},
		"scheme":  {Value: "hdfs://host/file"},
		"outside": {Value: script, OutputFile: ptr("../x")},
		"evil":    {Value: evil},
	} {
		task := agenttest.Task(id, "true")
		task.Command.URIs = []mesos.CommandInfo_URI{uri}
		h.master.Run(name, task)
		s := h.master.Await(id, mesos.TASK_FAILED)
		if !strings.HasPrefix(s.GetMessage(), "Failed to launch container: Failed to fetch all URIs for container '") {
			t.Errorf("%s: %q", id, s.GetMessage())
		}
	}
}
