package agent_test

import (
	"os"
	"strings"
	"testing"

	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/agenttest"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/executor"
)

// needMounts skips a test where nothing can be mounted.
func needMounts(t *testing.T) {
	t.Helper()
	if reason := executor.Probe(); reason != nil {
		t.Skipf("no private mount namespaces here: %v", reason)
	}
}

// mountTable returns the mount table of the mount namespace of a process.
func mountTable(t *testing.T, pid string) string {
	t.Helper()
	data, err := os.ReadFile("/proc/" + strings.TrimSpace(pid) + "/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// A volume is mounted where the container expects it, and nowhere that others
// see.
func TestVolumeIsBoundInAPrivateMountNamespace(t *testing.T) {
	needMounts(t)
	h := newHost(t)
	h.dvdcli.On("mount rclone/v1", agenttest.Answer{Tmpfs: true})
	h.dvdcli.On("unmount rclone/v1", agenttest.Answer{Tmpfs: true})
	absolute := t.TempDir()
	readOnly := agenttest.DockerVolume("rclone", "v2", "ro")
	readOnly.Mode = mesos.RO.Enum()
	h.master.Run(name, agenttest.Task("t.1",
		"echo $$ > pid; echo data > vol/file; touch ro/file || echo refused; stat -f -c %T vol; "+sleep,
		agenttest.DockerVolume("rclone", "v1", "vol"), readOnly, agenttest.DockerVolume("rclone", "v3", absolute)))
	h.awaitStarted("t.1")
	expectEqual(t, "output", h.sandboxFile("t.1", "stdout"), "refused\ntmpfs\nstarted\n")

	sandbox, err := h.Sandbox("t.1")
	if err != nil {
		t.Fatal(err)
	}
	theirs, ours := mountTable(t, h.sandboxFile("t.1", "pid")), mountTable(t, "self")
	for _, target := range []string{sandbox + "/vol", sandbox + "/ro", absolute} {
		if !strings.Contains(theirs, " "+target+" ") {
			t.Errorf("%s is not mounted in the container", target)
		}
		if strings.Contains(ours, " "+target+" ") {
			t.Errorf("%s is mounted outside of the container", target)
		}
	}
	data, err := os.ReadFile(h.dvdcli.Volume("v1") + "/file")
	if err != nil || string(data) != "data\n" {
		t.Errorf("volume has %q, %v", data, err)
	}
	h.master.Kill(name, "t.1")
	agenttest.Eventually(t, "unmount", func() bool { return len(h.checkpoints()) == 0 })
}

// A container does not keep another one's volume in use: once that is
// unmounted on the host, nothing of it is left in any namespace.
func TestContainersDoNotHoldEachOthersVolumes(t *testing.T) {
	needMounts(t)
	h := newHost(t)
	for _, operation := range []string{"mount rclone/v1", "unmount rclone/v1"} {
		h.dvdcli.On(operation, agenttest.Answer{Tmpfs: true})
	}
	h.master.Run(name, agenttest.Task("a.1", sleep, agenttest.DockerVolume("rclone", "v1", "vol")))
	h.awaitStarted("a.1")
	h.master.Run(name, agenttest.Task("b.1", "echo $$ > pid; "+sleep))
	h.awaitStarted("b.1")
	h.master.Kill(name, "a.1")
	agenttest.Eventually(t, "unmount", func() bool { return len(h.checkpoints()) == 0 })
	if table := mountTable(t, h.sandboxFile("b.1", "pid")); strings.Contains(table, h.dvdcli.Volume("v1")) {
		t.Errorf("the other container still has the volume mounted:\n%s", table)
	}
	if _, err := os.Stat(h.dvdcli.Volume("v1")); err != nil {
		t.Error(err)
	}
}

// Where mounting is not permitted, the volume is linked.
func TestVolumeIsLinked(t *testing.T) {
	h := newHost(t, linked)
	h.master.Run(name, agenttest.Task("t.1", "echo data > vol/file", agenttest.DockerVolume("rclone", "v1", "vol")))
	h.master.Await("t.1", mesos.TASK_FINISHED)
	data, err := os.ReadFile(h.dvdcli.Volume("v1") + "/file")
	if err != nil || string(data) != "data\n" {
		t.Errorf("volume has %q, %v", data, err)
	}
	h.master.Run(name, agenttest.Task("t.2", "true", agenttest.DockerVolume("rclone", "v1", t.TempDir())))
	s := h.master.Await("t.2", mesos.TASK_FAILED)
	if !strings.Contains(s.GetMessage(), "without root") {
		t.Errorf("message %q", s.GetMessage())
	}
}
