package agent_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap/zaptest"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/agenttest"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/executor"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/proc"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

// host is an agent on a network with a test's master.
type host struct {
	*agent.Agent
	t       *testing.T
	network *link.Network
	master  *agenttest.Master
	dvdcli  *agenttest.Script
}

const name = "agent1"

// newHost starts an agent, which is destroyed, and must leave nothing behind,
// when the test ends.
func newHost(t *testing.T, change ...func(*agent.Config)) *host {
	t.Helper()
	h := &host{t: t, network: link.NewNetwork(), dvdcli: agenttest.NewScript(t)}
	h.master = agenttest.NewMaster(t, h.network)
	mounts, err := executor.MountKeys()
	if err != nil {
		t.Fatal(err)
	}
	cfg := agent.Config{
		Dir:         filepath.Join(t.TempDir(), name),
		Cable:       h.network.Cable(name),
		DVDCLI:      h.dvdcli.Path(),
		Env:         h.dvdcli.Env(),
		HostMounts:  mounts,
		LinkVolumes: executor.Probe() != nil,
		StatusRetry: 50 * time.Millisecond,
		Logger:      zaptest.NewLogger(t),
	}
	for _, c := range change {
		c(&cfg)
	}
	if h.Agent, err = agent.New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.clean)
	h.start()
	return h
}

func (h *host) start() {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), agenttest.Patience)
	defer cancel()
	if err := h.Start(ctx); err != nil {
		h.t.Fatal(err)
	}
	if err := h.AwaitRegistration(ctx); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) clean() {
	ctx, cancel := context.WithTimeout(context.Background(), agenttest.Patience)
	defer cancel()
	if err := h.Destroy(ctx); err != nil {
		h.t.Error(err)
	}
	h.expectNothingLeft()
}

// expectNothingLeft looks for processes, mounts and sockets.
func (h *host) expectNothingLeft() {
	all, err := proc.All()
	if err != nil {
		h.t.Error(err)
	}
	for _, p := range all {
		cwd, err := os.Readlink(filepath.Join("/proc", itoa(p.PID), "cwd"))
		if err == nil && strings.HasPrefix(cwd, h.Dir()) {
			h.t.Errorf("process %d is left in %s", p.PID, cwd)
		}
	}
	mounts, err := executor.MountKeys()
	if err != nil {
		h.t.Error(err)
	}
	for _, m := range mounts {
		if strings.Contains(m, h.Dir()) || strings.Contains(m, h.dvdcli.Volume("")) {
			h.t.Errorf("mount %q is left", m)
		}
	}
	if err := filepath.WalkDir(h.Dir(), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type()&os.ModeSocket != 0 {
			h.t.Errorf("socket %s is left", path)
		}
		return err
	}); err != nil && !os.IsNotExist(err) {
		h.t.Error(err)
	}
}

// sandboxFile returns the content of a file in a task's sandbox.
func (h *host) sandboxFile(task, file string) string {
	h.t.Helper()
	dir, err := h.Sandbox(task)
	if err != nil {
		h.t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil && !os.IsNotExist(err) {
		h.t.Fatal(err)
	}
	return string(data)
}

// states returns the states of a task's updates.
func (h *host) states(task string) []mesos.TaskState {
	var list []mesos.TaskState
	for _, s := range h.master.Statuses(task) {
		list = append(list, s.GetState())
	}
	return list
}

// A task that ends by itself is reported with the very fields that a real
// agent sends, and its output is in the sandbox.
func TestTaskRunsToItsEnd(t *testing.T) {
	h := newHost(t)
	h.master.Run(name, agenttest.Task("t.1", "echo out; echo err >&2"))
	finished := h.master.Await("t.1", mesos.TASK_FINISHED)

	want := []mesos.TaskState{mesos.TASK_STARTING, mesos.TASK_RUNNING, mesos.TASK_FINISHED}
	expectEqual(t, "states", h.states("t.1"), want)
	for _, s := range h.master.Statuses("t.1") {
		if s.GetSource() != mesos.SOURCE_EXECUTOR || s.Reason != nil || s.GetAgentID().Value != h.ID() ||
			s.GetExecutorID().Value != "t.1" || len(s.UUID) != 16 || s.Healthy != nil {
			t.Errorf("status %+v", s)
		}
		c := s.ContainerStatus
		if c.GetContainerID().Value == "" || c.GetExecutorPID() == 0 || len(c.GetNetworkInfos()) != 1 {
			t.Errorf("container status %+v", c)
		}
	}
	if m := finished.GetMessage(); m != "Command exited with status 0" {
		t.Errorf("message %q", m)
	}
	if got := h.sandboxFile("t.1", "stdout") + h.sandboxFile("t.1", "stderr"); got != "out\nerr\n" {
		t.Errorf("output %q", got)
	}
}
