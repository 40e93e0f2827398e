package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/agenttest"
)

// crashPoints are moments in the life of a task, told by what can be seen from
// outside.
func (h *host) crashPoints() []func() bool {
	exists := func(pattern string) func() bool {
		return func() bool {
			found, err := filepath.Glob(filepath.Join(h.Dir(), pattern))
			return err == nil && len(found) > 0
		}
	}
	calls := func(n int) func() bool { return func() bool { return len(h.dvdcli.Calls()) >= n } }
	updates := func(n int) func() bool { return func() bool { return len(h.states("t.1")) >= n } }
	return []func() bool{
		exists("meta/slaves/*/frameworks/*/executors/*/runs/*/tasks/*/task.info"),
		exists("run/isolators/docker/volume/*/volumes"),
		calls(1),
		exists("run/containers/*/launch.json"),
		exists("run/containers/*/pid"),
		exists("run/containers/*/statuses"),
		updates(1),
		updates(2),
		updates(3),
		calls(2),
		exists("meta/slaves/*/frameworks/*/executors/*/runs/*/executor.sentinel"),
	}
}

// Whenever the agent process is killed, or its host lost, in the end the task
// has ended exactly once, its volume is unmounted, and nothing is left.
func TestCrashAtAnyMoment(t *testing.T) {
	for kind, crash := range map[string]func(*host) error{
		"agent": func(h *host) error { return h.KillProcess() },
		"host":  func(h *host) error { return h.LoseHost() },
	} {
		for n := range (&host{}).crashPoints() {
			t.Run(fmt.Sprintf("%s at point %d", kind, n), func(t *testing.T) {
				t.Parallel()
				h := newHost(t)
				h.master.Run(name, agenttest.Task("t.1", "echo ran >> vol/log", agenttest.DockerVolume("rclone", "v1", "vol")))
				agenttest.Eventually(t, "crash point", h.crashPoints()[n])
				if err := crash(h); err != nil {
					t.Fatal(err)
				}
				h.start()
				h.expectOneEnd("t.1")
			})
		}
	}
}

// expectOneEnd waits until the agent is through with a task.
func (h *host) expectOneEnd(task string) {
	h.t.Helper()
	h.awaitSentinel(task)
	agenttest.Eventually(h.t, "unmount", func() bool { return len(h.checkpoints()) == 0 })
	terminal := 0
	for _, s := range h.master.Statuses(task) {
		if agenttest.Terminal(s.GetState()) {
			terminal++
		}
	}
	if terminal != 1 {
		h.t.Errorf("the task has ended %d times: %v", terminal, h.states(task))
	}
	if operations := h.dvdcli.Operations(); len(operations) > 0 && operations[len(operations)-1] != "unmount rclone/v1" {
		h.t.Errorf("calls: %v", operations)
	}
	data, err := os.ReadFile(filepath.Join(h.dvdcli.Volume("v1"), "log"))
	if err != nil && !os.IsNotExist(err) || len(data) > len("ran\n") {
		h.t.Errorf("the command ran more than once: %q, %v", data, err)
	}
}
