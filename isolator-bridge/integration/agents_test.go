package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/moby/sys/mountinfo"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/schedulertest"
	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
)

// driver is a volume plugin under test.
type driver struct {
	name    string
	plugins string // directory
	options map[string]string
	// mounted says whether a volume is mounted.
	mounted func(volume string) bool
}

// host is one agent with a bridge beside it and a gate before its dvdcli.
type host struct {
	t       *testing.T
	dir     string
	driver  driver
	cluster *embeddedmesos.Cluster
	agent   *embeddedmesos.Agent
	sched   *schedulertest.Framework
	env     []string
	bridge  *exec.Cmd
	log     *output
}

// output collects what a process writes.
type output struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// gate is a dvdcli that stops before and after what it does, as long as a file
// says so.
const gate = `#!/bin/sh
stop() {
	if [ -e "$GATE/$1" ]; then
		: >"$GATE/at-$1"
		while [ -e "$GATE/$1" ]; do sleep 0.01; done
	fi
}
stop before-$1
[ -e "$GATE/fail-$1" ] && exit 1
"$REAL" "$@"
rc=$?
stop after-$1
exit $rc
`

func newHost(t *testing.T, d driver) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "brg")
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, dir: dir, driver: d}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("something was left in use: %v", err)
		}
	})
	for _, sub := range []string{"gate", "run", "state"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	dvdcli := filepath.Join(dir, "dvdcli")
	if err := os.WriteFile(dvdcli, []byte(gate), 0o755); err != nil {
		t.Fatal(err)
	}
	h.env = []string{"DVDCLI_RUN_DIR=" + filepath.Join(dir, "run"), "DVDCLI_STATE_DIR=" + filepath.Join(dir, "state"),
		"DVDCLI_HOST_DIR=" + filepath.Join(dir, "host"), "DVDCLI_PLUGIN_DIRS=" + d.plugins, "DVDCLI_HOLDER=agent",
		"GATE=" + filepath.Join(dir, "gate"), "REAL=" + filepath.Join(bin, "dvdcli")}
	h.cluster, err = embeddedmesos.Start(context.Background(), embeddedmesos.Config{Dir: filepath.Join(dir, "mesos"), DVDCLI: dvdcli,
		Agents: []embeddedmesos.AgentConfig{{Env: h.env}}, Timing: embeddedmesos.FastTiming(), Logger: zaptest.NewLogger(t, zaptest.Level(zap.ErrorLevel))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.open("before-mount", "after-mount", "before-unmount", "after-unmount")
		if err := h.cluster.Destroy(context.Background()); err != nil {
			t.Error(err)
		}
	})
	h.agent = h.cluster.Agents()[0]
	h.sched = schedulertest.Subscribe(t, h.cluster.Addr(), "")
	h.startBridge()
	t.Cleanup(func() {
		h.killBridge()
		if t.Failed() {
			t.Logf("bridge: %s", h.log)
		}
	})
	return h
}

func (h *host) startBridge() {
	h.t.Helper()
	h.bridge = exec.Command(filepath.Join(bin, "isolator-bridge"), "serve", "--interval=100ms", "--full-interval=1s", "--leak-grace=200ms",
		"--agent-url="+h.agent.URL(), "--checkpoint-dir="+h.agent.DockerVolumeDir(), "--agent-work-dir="+h.agent.Dir(), "--socket=none")
	h.bridge.Env = append(os.Environ(), h.env...)
	h.log = &output{}
	h.bridge.Stderr = h.log
	if err := h.bridge.Start(); err != nil {
		h.t.Fatal(err)
	}
	await(h.t, "the bridge's recovery", func() bool { return strings.Contains(h.log.String(), `"recovered"`) })
}

func (h *host) killBridge() {
	if h.bridge == nil {
		return
	}
	if err := h.bridge.Process.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		h.t.Error(err)
	}
	_ = h.bridge.Wait() // killed
	h.bridge = nil
}

// shut makes dvdcli stop at a place, open lets it go on, reached waits for it.
func (h *host) shut(place string) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.dir, "gate", place), nil, 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) open(places ...string) {
	for _, place := range places {
		for _, file := range []string{place, "at-" + place} {
			if err := os.Remove(filepath.Join(h.dir, "gate", file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				h.t.Error(err)
			}
		}
	}
}

func (h *host) reached(place string) {
	h.t.Helper()
	await(h.t, "dvdcli at "+place, func() bool {
		_, err := os.Stat(filepath.Join(h.dir, "gate", "at-"+place))
		return err == nil
	})
}

// launch starts a task that sleeps, with volumes.
func (h *host) launch(task string, volumes ...string) {
	h.t.Helper()
	var list []schedulertest.Object
	for _, v := range volumes {
		list = append(list, schedulertest.DockerVolume(h.driver.name, v, "vol-"+v, h.driver.options))
	}
	h.sched.Launch("", task, "exec sleep 1000", list...)
}

func (h *host) runs(task string) {
	h.t.Helper()
	await(h.t, task+" to run", func() bool { return h.sched.State(task) == "TASK_RUNNING" })
}

func (h *host) goes(volume string) {
	h.t.Helper()
	await(h.t, volume+" to be unmounted", func() bool { return !h.driver.mounted(volume) })
}

// stays checks that a volume survives several full looks of the bridge.
func (h *host) stays(volume string) {
	h.t.Helper()
	if !h.driver.mounted(volume) {
		h.t.Fatalf("%s is not mounted", volume)
	}
	h.killBridge()
	h.startBridge() // recovery is a look at everything
	list := exec.Command(filepath.Join(bin, "dvdcli"), "status", "--output=json")
	list.Env = append(os.Environ(), h.env...)
	for range 10 {
		if out, err := list.CombinedOutput(); err != nil {
			h.t.Fatalf("%v: %s", err, out)
		}
		list = exec.Command(list.Path, list.Args[1:]...)
		list.Env = append(os.Environ(), h.env...)
		if !h.driver.mounted(volume) {
			h.t.Fatalf("%s was unmounted under a living container", volume)
		}
	}
}

func (h *host) startAgent() {
	h.t.Helper()
	if err := h.agent.Start(context.Background()); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) killAgent() {
	h.t.Helper()
	if err := h.agent.KillProcess(); err != nil {
		h.t.Fatal(err)
	}
}

// testDriver is a plugin made for tests.
func testDriver(t *testing.T) (driver, *volumetest.Plugin) {
	p := volumetest.Start(t, volumetest.Config{Counting: volumetest.CountRefusing, Bind: os.Geteuid() == 0})
	return driver{name: "test", plugins: p.PluginDir(), mounted: func(v string) bool { return p.States()[v].Mounted }}, p
}

// rclone is a plugin that was not written here.
func rclone(t *testing.T) driver {
	r := volumetest.StartRclone(t, volumetest.RcloneDebian(t))
	return driver{name: "rclone", plugins: r.PluginDir(), options: r.Options(), mounted: func(v string) bool {
		found, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
			return !strings.HasPrefix(m.FSType, "fuse.rclone") || filepath.Base(m.Mountpoint) != v || !strings.HasPrefix(m.Mountpoint, filepath.Dir(r.Data())), false
		})
		if err != nil {
			t.Fatal(err)
		}
		return len(found) > 0
	}}
}

// scenarios end with every volume unmounted but those of living containers.
var scenarios = []struct {
	name string
	test func(*host)
}{
	{"agent killed between mount and task start", func(h *host) {
		h.shut("after-mount")
		h.launch("t", "v")
		h.reached("after-mount")
		h.killAgent()
		h.stays("v") // an agent that does not answer proves nothing
		h.open("after-mount")
		h.startAgent()
		h.goes("v")
	}},
	{"agent killed between task end and unmount", func(h *host) {
		h.launch("t", "v")
		h.runs("t")
		h.stays("v")
		h.shut("before-unmount")
		h.sched.Kill("t")
		h.reached("before-unmount")
		h.killAgent()
		h.open("before-unmount")
		h.startAgent()
		h.goes("v")
	}},
	{"agent killed during recovery", func(h *host) {
		h.launch("t", "v")
		h.runs("t")
		h.shut("before-unmount")
		if err := h.agent.LoseHost(); err != nil {
			h.t.Fatal(err)
		}
		h.startAgent()
		h.reached("before-unmount")
		h.killAgent()
		h.open("before-unmount")
		h.stays("v") // nobody says that the container is gone
		h.startAgent()
		h.goes("v")
	}},
	{"agent's unmount fails before it begins", func(h *host) {
		h.launch("t", "v")
		h.runs("t")
		h.shut("fail-unmount")
		h.sched.Kill("t")
		h.goes("v") // the agent gives up; its checkpoint stays, and the bridge acts on it
		h.open("fail-unmount")
	}},
	{"agent restarted over a living container", func(h *host) {
		h.launch("t", "v")
		h.runs("t")
		for range 2 {
			h.killAgent()
			h.stays("v")
			h.startAgent()
			h.stays("v")
		}
		h.sched.Kill("t")
		h.goes("v")
	}},
}

func TestAgents(t *testing.T) {
	d, _ := testDriver(t)
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			h := newHost(t, d)
			s.test(h)
		})
	}
}

func TestRclone(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			if os.Getenv("DVDI_LONG") == "" && s.name != scenarios[1].name {
				t.Skip("with DVDI_LONG only")
			}
			h := newHost(t, rclone(t))
			s.test(h)
		})
	}
}

// A plugin that fails unmounts for a while pins nothing: the bridge tries again
// until it is done, without the agent's help (MESOS-10126).
func TestUnmountFailsForAWhile(t *testing.T) {
	d, p := testDriver(t)
	h := newHost(t, d)
	h.launch("t", "v", "w")
	h.runs("t")
	p.Add(volumetest.Rule{Method: "Unmount", Volume: "v", Times: 2, Do: volumetest.DoAnswer, Status: 500, Body: `{"Err":"busy"}`})
	h.sched.Kill("t")
	h.goes("w")
	h.goes("v")
	if n := len(p.Calls("Unmount")); n != 4 {
		t.Errorf("%d unmounts, want 4: %v", n, fmt.Sprint(p.Calls("Unmount")))
	}
	// The volume can be used again at once.
	h.launch("t2", "v")
	h.runs("t2")
	h.stays("v")
}
