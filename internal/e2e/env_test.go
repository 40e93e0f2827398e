package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/mesos-dvdi/dvdi/internal/devcluster"
	"github.com/mesos-dvdi/dvdi/internal/devcluster/clustertest"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/tap"
	"github.com/mesos-dvdi/dvdi/internal/freeport"
)

// deadline bounds every wait of the suite. It is long: a real master notices a
// lost agent after 75 s only.
const deadline = 150 * time.Second

// driver is a volume driver that the suite runs with.
type driver struct {
	name    string
	options map[string]string // %s becomes the volume's name
}

// env is a Mesos with a framework on it.
type env struct {
	t       *testing.T
	ctx     context.Context
	dir     string
	driver  driver
	cluster *devcluster.Cluster // nil: an external Mesos
	opts    devcluster.FrameworkOptions
	bridges bool // with the embedded Mesos
	tap     *tap.Tap
	*devcluster.Framework
}

// newEnv starts a framework on an external Mesos where one is named, otherwise
// on an embedded one with the given number of agents. pick selects the driver
// for the embedded one.
func newEnv(t *testing.T, agents int, pick func(t *testing.T, dir string) (devcluster.Plugin, driver)) *env {
	t.Helper()
	return newEnvWith(t, agents, pick, false)
}

// newEnvWith is newEnv, with an isolator-bridge beside each agent if told so.
func newEnvWith(t *testing.T, agents int, pick func(t *testing.T, dir string) (devcluster.Plugin, driver), bridges bool) *env {
	t.Helper()
	return newEnvOf(t, setup{agents: agents, pick: pick, bridges: bridges})
}

// setup says how an embedded Mesos and the framework on it are started.
type setup struct {
	agents  int
	pick    func(t *testing.T, dir string) (devcluster.Plugin, driver)
	bridges bool
	change  func(*devcluster.Config) // further settings, nil for none
	args    []string                 // further arguments of the framework
	tapped  bool                     // what the framework calls is listened to
}

func newEnvOf(t *testing.T, s setup) *env {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*deadline)
	t.Cleanup(cancel)
	e := &env{t: t, ctx: ctx, dir: clustertest.Dir(t), bridges: s.bridges}
	if master := os.Getenv("DVDI_E2E_MASTER"); master != "" {
		e.external(master)
	} else {
		e.embedded(s)
	}
	e.opts.Args = append(e.opts.Args, s.args...)
	if s.tapped {
		e.listen()
	}
	e.startFramework()
	return e
}

// listen puts a tap between the framework and the embedded Mesos' master.
func (e *env) listen() {
	var err error
	if e.tap, err = tap.Start(e.cluster.Mesos.Addr()); err != nil {
		e.t.Fatal(err)
	}
	e.opts.Master = e.tap.Addr()
	e.t.Cleanup(func() {
		if err := e.tap.Close(); err != nil {
			e.t.Error(err)
		}
	})
}

func (e *env) embedded(s setup) {
	plugin, d := s.pick(e.t, e.dir)
	e.driver = d
	cfg := devcluster.Config{
		Dir: e.dir, Bin: binaries, Agents: s.agents, Plugins: []devcluster.Plugin{plugin}, Bridges: e.bridges,
		Timing: embeddedmesos.FastTiming(), Log: zaptest.NewLogger(e.t, zaptest.Level(zap.WarnLevel)),
		Output: e.t.Output(),
	}
	if s.change != nil {
		s.change(&cfg)
	}
	e.cluster = clustertest.Start(e.ctx, e.t, cfg)
	// Tests change more in a second than operators do.
	e.opts.Args = []string{"--min_revive_offers_interval", "200"}
	if e.bridges {
		e.opts.Args = append(e.opts.Args, "--bridge_token_file", e.cluster.BridgeToken())
	}
}

func (e *env) external(master string) {
	e.driver = driver{name: os.Getenv("DVDI_E2E_DRIVER"), options: map[string]string{}}
	for _, kv := range strings.Split(os.Getenv("DVDI_E2E_OPTIONS"), ",") {
		if k, v, ok := strings.Cut(kv, "="); ok {
			e.driver.options[k] = v
		}
	}
	if e.driver.name == "" {
		e.t.Fatal("DVDI_E2E_MASTER is set: name the agents' volume driver in DVDI_E2E_DRIVER")
	}
	e.opts.Master = master
	if role := os.Getenv("DVDI_E2E_ROLE"); role != "" {
		e.opts.Args = append(e.opts.Args, "--mesos_role", role)
	}
	e.opts.Args = append(e.opts.Args, strings.Fields(os.Getenv("DVDI_E2E_ARGS"))...)
	if path := os.Getenv("DVDI_E2E_DVDCLI"); path != "" {
		install(e.t, filepath.Join(binaries, "dvdcli"), path)
	}
}

// install replaces a program that may be running: by rename.
func install(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if old, err := os.ReadFile(to); err == nil && string(old) == string(data) {
		return
	}
	if err := os.WriteFile(to+".new", data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(to+".new", to); err != nil {
		t.Fatal(err)
	}
}

// startFramework starts the framework, again on the same state if it ran
// before.
func (e *env) startFramework() {
	e.t.Helper()
	if e.opts.Port == 0 {
		port, err := freeport.Port()
		if err != nil {
			e.t.Fatal(err)
		}
		e.opts.Port = port
	}
	var err error
	if e.cluster != nil {
		e.Framework, err = e.cluster.StartFramework(e.ctx, e.opts)
	} else {
		e.Framework, err = devcluster.StartFramework(e.ctx, devcluster.Config{Dir: e.dir, Bin: binaries, Output: e.t.Output()}, e.opts)
		if e.Framework != nil {
			e.t.Cleanup(e.teardown(e.Framework))
		}
	}
	if err != nil {
		e.t.Fatal(err)
	}
}

// teardown leaves an external Mesos as it was: without our apps and without
// the framework, which Mesos would wait for for a week.
func (e *env) teardown(f *devcluster.Framework) func() {
	return func() {
		select {
		case <-f.Done():
			return
		default:
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(e.ctx), deadline)
		defer cancel()
		defer func() {
			args := append([]string{"teardown", "--yes", "--master", e.opts.Master, "--data-dir", filepath.Join(e.dir, "framework")}, e.opts.Args...)
			if out, err := exec.CommandContext(ctx, filepath.Join(binaries, "dvdi-framework"), args...).CombinedOutput(); err != nil {
				e.t.Errorf("tear the framework down: %v: %s", err, out)
			}
		}()
		for _, id := range e.appIDs(ctx) {
			e.deleteApp(ctx, id)
		}
		if err := f.Stop(ctx); err != nil {
			e.t.Error(err)
		}
	}
}

func (e *env) appIDs(ctx context.Context) []string {
	var out struct {
		Apps []struct {
			ID string `json:"id"`
		} `json:"apps"`
	}
	if err := e.Do(ctx, http.MethodGet, "/v2/apps", nil, &out); err != nil {
		e.t.Error(err)
	}
	var ids []string
	for _, a := range out.Apps {
		ids = append(ids, a.ID)
	}
	return ids
}

// fault injects a fault on the agent of that host name, or skips the test where
// nobody can.
func (e *env) fault(action, hostname string) {
	e.t.Helper()
	if e.cluster == nil {
		command := os.Getenv("DVDI_E2E_FAULT")
		if command == "" {
			e.t.Skipf("%s on an external Mesos needs DVDI_E2E_FAULT", action)
		}
		if out, err := exec.CommandContext(e.ctx, command, action, hostname).CombinedOutput(); err != nil {
			e.t.Fatalf("%s %s %s: %v\n%s", command, action, hostname, err, out)
		}
		return
	}
	n := e.cluster.Node(hostname)
	if n == nil {
		e.t.Fatalf("no node %q", hostname)
	}
	var err error
	switch action {
	case "kill-agent":
		err = n.Agent.KillProcess()
	case "start-agent":
		err = n.Agent.Start(e.ctx)
	case "lose-host":
		err = n.PowerOff()
	case "agent-gone":
		err = e.cluster.Mesos.MarkAgentGone(e.ctx, n.Agent.ID())
	default:
		err = fmt.Errorf("no such fault")
	}
	if err != nil {
		e.t.Fatalf("%s on %s: %v", action, hostname, err)
	}
}
