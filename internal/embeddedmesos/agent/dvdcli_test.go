package agent_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/agenttest"
	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
)

// real is a host whose agent executes the real dvdcli, which calls a plugin.
type real struct {
	*host
	plugin *volumetest.Plugin
	binary string
	env    []string
}

// newReal starts a plugin named as the scripted tests name theirs.
func newReal(t *testing.T, config volumetest.Config) *real {
	t.Helper()
	dir := t.TempDir()
	binary := filepath.Join(dir, "dvdcli")
	if out, err := exec.Command("go", "build", "-o", binary, "../../../dvdcli").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	config.Name = "rclone"
	r := &real{plugin: volumetest.Start(t, config), binary: binary}
	r.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "DVDCLI_RUN_DIR=" + filepath.Join(dir, "run"),
		"DVDCLI_STATE_DIR=" + filepath.Join(dir, "state"), "DVDCLI_HOST_DIR=" + filepath.Join(dir, "host"),
		"DVDCLI_PLUGIN_DIRS=" + r.plugin.PluginDir(), "DVDCLI_HOLDER=agent", "DVDCLI_POLICY=" + os.DevNull,
		"DVDCLI_CALL_TIMEOUT=5s", "DVDCLI_CALL_MARGIN=100ms"}
	r.host = newHost(t, func(c *agent.Config) { c.DVDCLI, c.Env = binary, r.env })
	return r
}

// operations are the mounts and unmounts that reached the plugin.
func (r *real) operations() []string {
	var out []string
	for _, call := range r.plugin.Requests() {
		if call.Method == "Mount" || call.Method == "Unmount" {
			out = append(out, strings.ToLower(call.Method)+" "+call.Name)
		}
	}
	return out
}

// rests waits until the isolator has nothing left, and checks that neither have
// the ledger and the plugin.
func (r *real) rests(volumes ...string) {
	r.t.Helper()
	agenttest.Eventually(r.t, "removal of the checkpoints", func() bool { return len(r.checkpoints()) == 0 })
	cmd := exec.Command(r.binary, "ledger", "list", "--output=json")
	cmd.Env = r.env
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), `"records": []`) {
		r.t.Errorf("ledger: %s %v", out, err)
	}
	for _, v := range volumes {
		if s := r.plugin.States()[v]; s.Mounted || s.Count != 0 {
			r.t.Errorf("volume %s: %+v", v, s)
		}
	}
}

// Two containers, two mounts and one unmount by the isolator: the plugin, which
// refuses a mount too many, gets one each.
func TestRealSharedVolume(t *testing.T) {
	r := newReal(t, volumetest.Config{Counting: volumetest.CountRefusing})
	volume := agenttest.DockerVolume("rclone", "v1", "vol")
	for _, task := range []string{"a.1", "b.1"} {
		r.master.Run(name, agenttest.Task(task, sleep, volume))
		r.awaitStarted(task)
	}
	r.master.Kill(name, "a.1")
	r.master.Await("a.1", mesos.TASK_KILLED)
	r.master.Kill(name, "b.1")
	r.master.Await("b.1", mesos.TASK_KILLED)
	r.rests("v1")
	expectEqual(t, "calls", r.operations(), []string{"mount v1", "unmount v1"})
}

// One of two mounts fails: the isolator unmounts both, nothing stays behind, and
// the task's message is the plugin's reason.
func TestRealFailedMount(t *testing.T) {
	r := newReal(t, volumetest.Config{Counting: volumetest.CountCalls, Rules: []volumetest.Rule{
		{Method: "Mount", Volume: "bad", Do: volumetest.DoAnswer, Status: 500, Body: `{"Err":"quota exceeded"}`}}})
	r.master.Run(name, agenttest.Task("t.1", "true",
		agenttest.DockerVolume("rclone", "good", "a"), agenttest.DockerVolume("rclone", "bad", "b")))
	s := r.master.Await("t.1", mesos.TASK_FAILED)
	if !strings.Contains(s.GetMessage(), "quota exceeded") {
		t.Errorf("message %q", s.GetMessage())
	}
	r.rests("good", "bad")
	operations := r.operations()
	slices.Sort(operations)
	expectEqual(t, "calls", operations, []string{"mount bad", "mount good", "unmount good"})
}

// Checkpoints of containers that the agent does not know: one whose volume is
// mounted, one whose is not, one whose driver is gone. Recovery unmounts the
// first and is held up by none.
func TestRealUnknownOrphans(t *testing.T) {
	r := newReal(t, volumetest.Config{Counting: volumetest.CountRefusing})
	cmd := exec.Command(r.binary, "mount", "--volumedriver=rclone", "--volumename=old")
	cmd.Env = r.env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	r.kill()
	for id, text := range map[string]string{
		"0b3f0f3a-6b0e-4b52-9d0b-6d5b0a0f1a11": `{"volumes":[{"driver":"rclone","name":"old"}]}`,
		"0b3f0f3a-6b0e-4b52-9d0b-6d5b0a0f1a12": `{"volumes":[{"driver":"rclone","name":"never"}]}`,
		"0b3f0f3a-6b0e-4b52-9d0b-6d5b0a0f1a13": `{"volumes":[{"driver":"gone","name":"v"}]}`,
	} {
		dir := filepath.Join(r.DockerVolumeDir(), id)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "volumes"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r.start()
	r.rests("old")
	expectEqual(t, "calls", r.operations(), []string{"mount old", "unmount old"})
}

// The agent is killed while the plugin mounts, and dvdcli with it; the plugin
// goes on. Recovery's unmount waits for it and undoes the mount.
func TestRealAgentKilledDuringAMount(t *testing.T) {
	r := newReal(t, volumetest.Config{Counting: volumetest.CountRefusing})
	r.plugin.Add(volumetest.Rule{Method: "Mount", Volume: "v1", Times: 1, Do: volumetest.DoHold})
	r.master.Run(name, agenttest.Task("t.1", sleep, agenttest.DockerVolume("rclone", "v1", "vol")))
	r.plugin.AwaitHeld(1)
	r.kill()
	r.plugin.Release()
	agenttest.Eventually(t, "the late mount", func() bool { return r.plugin.States()["v1"].Mounted })
	r.start()
	r.master.Await("t.1", mesos.TASK_FAILED)
	r.rests("v1")
	expectEqual(t, "calls", r.operations(), []string{"mount v1", "unmount v1"})
}

// The plugin hangs in Mount: dvdcli gives up in time and says so, and the unmount
// that the isolator makes then does not keep the container.
func TestRealHungMount(t *testing.T) {
	r := newReal(t, volumetest.Config{Counting: volumetest.CountRefusing})
	r.plugin.Add(volumetest.Rule{Method: "Mount", Volume: "v1", Times: 1, Do: volumetest.DoHold})
	defer r.plugin.Release()
	r.master.Run(name, agenttest.Task("t.1", "true", agenttest.DockerVolume("rclone", "v1", "vol")))
	s := r.master.Await("t.1", mesos.TASK_FAILED)
	if !strings.Contains(s.GetMessage(), "without an answer") {
		t.Errorf("message %q", s.GetMessage())
	}
	agenttest.Eventually(t, "removal of the checkpoints", func() bool { return len(r.checkpoints()) == 0 })
}
