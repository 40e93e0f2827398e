package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
)

// inControlGroup starts a process in <hierarchy>/<root>/<id> of some hierarchy and
// returns its pid, or skips the test.
func inControlGroup(t *testing.T, root, id string) int {
	t.Helper()
	for _, hierarchy := range []string{".", "unified", "pids"} {
		outer := filepath.Join("/sys/fs/cgroup", hierarchy, root)
		group := filepath.Join(outer, id)
		if os.MkdirAll(group, 0o755) != nil {
			continue
		}
		t.Cleanup(func() {
			for _, dir := range []string{group, outer} {
				// The kernel lets a group go a moment after its last process.
				await(t, dir+" to be removed", func() bool { return os.Remove(dir) == nil })
			}
		})
		cmd := exec.Command("sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
			_ = cmd.Wait() // killed
		})
		procs := filepath.Join(group, "cgroup.procs")
		if _, err := os.Stat(procs); err == nil && os.WriteFile(procs, []byte(strconv.Itoa(cmd.Process.Pid)), 0) == nil {
			return cmd.Process.Pid
		}
	}
	t.Skip("control groups cannot be made here")
	return 0
}

// A bridge that was told a wrong root of the agent's control groups says so, once.
func TestWrongCgroupsRootIsTold(t *testing.T) {
	t.Parallel()
	const id = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
	const warning = "give the agent's --cgroups_root to the bridge as --agent-cgroups-root"
	root := fmt.Sprintf("dvdi-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	pid := inControlGroup(t, root, id)
	r := newLeakRig(t, volumetest.Config{})
	r.mesos.set(func(f *fakeAgent) {
		f.body = fmt.Sprintf(`{"type":"GET_CONTAINERS","get_containers":{"containers":[{"container_id":{"value":%q},"container_status":{"executor_pid":%d}}]}}`, id, pid)
	})
	b := r.start()
	b.awaitLog(warning)
	r.mesos.passes(t, 4)
	if n := strings.Count(b.logged(), warning); n != 1 {
		t.Errorf("told %d times", n)
	}
	if err := b.stop(); err != nil {
		t.Error(err)
	}
	r.env = append(r.env, "DVDI_BRIDGE_AGENT_CGROUPS_ROOT="+root)
	b = r.start()
	r.mesos.passes(t, 4)
	if strings.Contains(b.logged(), warning) {
		t.Error("told although the root is right")
	}
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}
