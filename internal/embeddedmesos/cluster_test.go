package embeddedmesos_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/agenttest"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/schedulertest"
)

// volume is where the tasks have theirs.
var volume = schedulertest.DockerVolume("rclone", "v1", "vol", nil)

// config describes a small cluster with a scripted dvdcli.
func config(t *testing.T, script *agenttest.Script, agents int) embeddedmesos.Config {
	t.Helper()
	cfg := embeddedmesos.Config{
		Dir:    t.TempDir(),
		DVDCLI: script.Path(),
		Logger: zaptest.NewLogger(t),
		Timing: embeddedmesos.FastTiming(),
	}
	for range agents {
		cfg.Agents = append(cfg.Agents, embeddedmesos.AgentConfig{Env: script.Env()})
	}
	return cfg
}

func start(t *testing.T, cfg embeddedmesos.Config) *embeddedmesos.Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), agenttest.Patience)
	defer cancel()
	c, err := embeddedmesos.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), agenttest.Patience)
		defer cancel()
		if err := c.Destroy(ctx); err != nil {
			t.Error(err)
		}
	})
	return c
}

// loop is a task that writes to its volume for ever.
const loop = "while true; do echo line >> vol/log; sleep 0.02; done"

func awaitLines(t *testing.T, script *agenttest.Script, volume string, n int) {
	t.Helper()
	agenttest.Eventually(t, "lines in the volume", func() bool { return countLines(script, volume) >= n })
}

func countLines(script *agenttest.Script, volume string) int {
	data, err := os.ReadFile(filepath.Join(script.Volume(volume), "log"))
	if err != nil {
		return 0
	}
	return strings.Count(string(data), "\n")
}

// The path of a stateful task: it runs on one agent, survives the restart of
// agent and master, its host is lost and marked gone, and it runs on with its
// data on another agent.
func TestStatefulTaskMovesToAnotherAgent(t *testing.T) {
	script := agenttest.NewScript(t)
	c := start(t, config(t, script, 2))
	first, second := c.Agents()[0], c.Agents()[1]
	f := schedulertest.Subscribe(t, c.Addr(), "")
	f.Launch(first.ID(), "db.1", loop, volume)
	f.Await("db.1", "TASK_RUNNING")
	awaitLines(t, script, "v1", 3)

	if err := first.KillProcess(); err != nil {
		t.Fatal(err)
	}
	if err := first.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := first.AwaitRegistration(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitLines(t, script, "v1", countLines(script, "v1")+1)

	c.KillMaster()
	if err := c.StartMaster(t.Context()); err != nil {
		t.Fatal(err)
	}
	f = schedulertest.Subscribe(t, c.Addr(), f.ID)
	agenttest.Eventually(t, "reconciliation of the task", func() bool {
		f.Call("RECONCILE", schedulertest.Object{"reconcile": schedulertest.Object{"tasks": []schedulertest.Object{
			{"task_id": schedulertest.Object{"value": "db.1"}, "agent_id": schedulertest.Object{"value": first.ID()}}}}})
		return slices.ContainsFunc(f.Of("UPDATE"), func(e schedulertest.Object) bool {
			return schedulertest.Text(e, "update", "status", "state") == "TASK_RUNNING"
		})
	})

	if err := first.LoseHost(); err != nil {
		t.Fatal(err)
	}
	lines := countLines(script, "v1")
	if err := c.MarkAgentGone(t.Context(), first.ID()); err != nil {
		t.Fatal(err)
	}
	gone := f.Await("db.1", "TASK_GONE_BY_OPERATOR")
	if schedulertest.Text(gone, "source") != "SOURCE_MASTER" || schedulertest.Text(gone, "reason") != "REASON_AGENT_REMOVED_BY_OPERATOR" {
		t.Errorf("status %v", gone)
	}
	if countLines(script, "v1") != lines {
		t.Error("the task writes although its host is lost")
	}
	f.Launch(second.ID(), "db.2", loop, volume)
	f.Await("db.2", "TASK_RUNNING")
	awaitLines(t, script, "v1", lines+1)
}

// A lost host is noticed by the master's pings.
func TestPartitionedAgentIsUnreachable(t *testing.T) {
	script := agenttest.NewScript(t)
	c := start(t, config(t, script, 1))
	a := c.Agents()[0]
	f := schedulertest.Subscribe(t, c.Addr(), "")
	f.Launch(a.ID(), "t.1", loop, volume)
	f.Await("t.1", "TASK_RUNNING")
	a.Partition()
	f.Await("t.1", "TASK_UNREACHABLE")
	lines := countLines(script, "v1")
	awaitLines(t, script, "v1", lines+1) // the task knows nothing of that
	a.Heal()
	agenttest.Eventually(t, "return of the agent", func() bool {
		return slices.ContainsFunc(f.Of("UPDATE"), func(e schedulertest.Object) bool {
			return schedulertest.Text(e, "update", "status", "reason") == "REASON_AGENT_REREGISTERED"
		})
	})
	if got := script.Operations(); !slices.Equal(got, []string{"mount rclone/v1"}) {
		t.Errorf("calls of dvdcli: %v", got)
	}
}

// A cluster that is stopped and started again on its directory has the same
// agents, and their tasks have never stopped.
func TestClusterStartsAgain(t *testing.T) {
	script := agenttest.NewScript(t)
	cfg := config(t, script, 2)
	c := start(t, cfg)
	cfg.Listen = c.Addr()
	f := schedulertest.Subscribe(t, c.Addr(), "")
	var ids []string
	for _, a := range c.Agents() {
		ids = append(ids, a.ID())
	}
	f.Launch(ids[1], "t.1", loop, volume)
	f.Await("t.1", "TASK_RUNNING")
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitLines(t, script, "v1", countLines(script, "v1")+1)

	c = start(t, cfg)
	for n, a := range c.Agents() {
		if a.ID() != ids[n] {
			t.Errorf("agent %d was %s and is %s", n, ids[n], a.ID())
		}
	}
	f = schedulertest.Subscribe(t, c.Addr(), f.ID)
	f.Kill("t.1")
	f.Await("t.1", "TASK_KILLED")
	agenttest.Eventually(t, "unmount", func() bool {
		return slices.Equal(script.Operations(), []string{"mount rclone/v1", "unmount rclone/v1"})
	})
}

// Mistakes are named, and nothing is left running.
func TestStartFails(t *testing.T) {
	script := agenttest.NewScript(t)
	cfg := config(t, script, 1)
	running := start(t, cfg)
	for name, c := range map[string]struct {
		change func(*embeddedmesos.Config)
		err    error
		text   string
	}{
		"directory in use": {func(*embeddedmesos.Config) {}, embeddedmesos.ErrInUse, cfg.Dir},
		"address in use": {func(c *embeddedmesos.Config) {
			c.Dir, c.Listen = t.TempDir(), running.Addr()
		}, syscall.EADDRINUSE, running.Addr()},
		"no dvdcli": {func(c *embeddedmesos.Config) {
			c.Dir, c.DVDCLI = t.TempDir(), "/no/such/dvdcli"
		}, os.ErrNotExist, "/no/such/dvdcli"},
		"no directory": {func(c *embeddedmesos.Config) { c.Dir = "" }, nil, "names no directory"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := cfg
			c.change(&cfg)
			_, err := embeddedmesos.Start(t.Context(), cfg)
			if err == nil || c.err != nil && !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v", err)
			}
		})
	}
	if err := running.StartMaster(t.Context()); !errors.Is(err, embeddedmesos.ErrMasterRuns) {
		t.Errorf("second master: %v", err)
	}
}

// unprivilegedEnv has TestWithoutRoot do its work instead of starting itself
// as another user.
const unprivilegedEnv = "EMBEDDEDMESOS_TEST_UNPRIVILEGED"

// Without root the same works with links, and that is said once.
func TestWithoutRoot(t *testing.T) {
	if os.Geteuid() == 0 {
		asNobody(t)
		return
	}
	script := agenttest.NewScript(t)
	cfg := config(t, script, 1)
	logged := filepath.Join(t.TempDir(), "log")
	cfg.Logger = fileLogger(t, logged)
	c := start(t, cfg)
	f := schedulertest.Subscribe(t, c.Addr(), "")
	f.Launch(c.Agents()[0].ID(), "t.1", "echo data > vol/file", volume)
	f.Await("t.1", "TASK_FINISHED")
	data, err := os.ReadFile(filepath.Join(script.Volume("v1"), "file"))
	if err != nil || string(data) != "data\n" {
		t.Errorf("the volume has %q, %v", data, err)
	}
	log, err := os.ReadFile(logged)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(log), "Volumes are linked into sandboxes instead of mounted"); n != 1 {
		t.Errorf("said %d times that volumes are linked", n)
	}
}

// asNobody runs the calling test again as an ordinary user.
func asNobody(t *testing.T) {
	if os.Getenv(unprivilegedEnv) != "" {
		t.Fatal("still root")
	}
	const nobody = 65534
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	binary, tmp := filepath.Join(dir, "test"), filepath.Join(dir, "tmp")
	copyFile(t, "/proc/self/exe", binary)
	if err := errors.Join(os.Mkdir(tmp, 0o700), os.Chown(tmp, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	cmd.Dir = tmp
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp, "HOME="+tmp, unprivilegedEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	output, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(output), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, output)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	source, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = io.Copy(target, source); err == nil {
		err = target.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func fileLogger(t *testing.T, path string) *zap.Logger {
	t.Helper()
	cfg := zap.NewProductionConfig()
	cfg.OutputPaths = []string{path}
	logger, err := cfg.Build()
	if err != nil {
		t.Fatal(err)
	}
	return logger
}
