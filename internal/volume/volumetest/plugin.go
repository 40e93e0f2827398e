package volumetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// processConfig in the environment makes a test binary a plugin.
const processConfig = "VOLUMETEST_PLUGIN_CONFIG"

// patience is how long a plugin may take to start or to reach a rule.
const patience = time.Minute

// Main turns the process into a plugin if StartProcess started it, and does
// not return then. TestMain of packages that use StartProcess calls it first.
func Main() {
	text := os.Getenv(processConfig)
	if text == "" {
		return
	}
	if err := serveUntilTerminated(text); err != nil {
		fmt.Fprintln(os.Stderr, "test plugin:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serveUntilTerminated(text string) error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	var config Config
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		return err
	}
	s, err := newServer(config)
	if err != nil {
		return err
	}
	<-ctx.Done()
	return s.close()
}

// Plugin is a running test plugin. Its methods fail the test that started it
// when they fail, and may be called from several goroutines unless they say
// otherwise.
type Plugin struct {
	t      testing.TB
	config Config

	// One of the two is set while the plugin runs.
	server *server
	cmd    *exec.Cmd
	own    bool // runs in a process of its own
}

// Start runs a plugin in this process until the end of the test.
func Start(t testing.TB, config Config) *Plugin {
	t.Helper()
	return begin(t, config, false)
}

// StartProcess runs a plugin in a process of its own until the end of the
// test. TestMain has to call Main.
func StartProcess(t testing.TB, config Config) *Plugin {
	t.Helper()
	return begin(t, config, true)
}

func begin(t testing.TB, config Config, own bool) *Plugin {
	t.Helper()
	if config.Dir == "" {
		config.Dir = t.TempDir()
	}
	dir, err := filepath.EvalSymlinks(config.Dir)
	if err != nil {
		t.Fatal(err)
	}
	config.Dir = dir
	p := &Plugin{t: t, config: config.withDefaults(), own: own}
	t.Cleanup(func() {
		p.Kill()
		if err := unmountAll(dir); err != nil {
			t.Errorf("test plugin: unmount: %v", err)
		}
	})
	p.Restart()
	return p
}

// Name is the driver's name.
func (p *Plugin) Name() string { return p.config.Name }

// Dir holds the plugin's files.
func (p *Plugin) Dir() string { return p.config.Dir }

// PluginDir is the directory to search for the plugin.
func (p *Plugin) PluginDir() string { return p.config.PluginDir }

// Socket is the plugin's socket.
func (p *Plugin) Socket() string { return pluginSocket(p.config) }

// Mountpoint is where the plugin mounts a volume.
func (p *Plugin) Mountpoint(volume string) string {
	return (&store{config: p.config}).mountpoint(volume)
}

// Kill ends the plugin as SIGKILL does; calls under way get no answer. It does
// nothing if the plugin does not run. Not for concurrent use with Restart.
func (p *Plugin) Kill() {
	p.t.Helper()
	if p.config.Volatile && (p.server != nil || p.cmd != nil) {
		defer func() {
			if err := unmountAll(p.config.Dir); err != nil {
				p.t.Errorf("test plugin: unmount: %v", err)
			}
		}()
	}
	if p.server != nil {
		if err := p.server.close(); err != nil {
			p.t.Errorf("test plugin: %v", err)
		}
		p.server = nil
	}
	if p.cmd != nil {
		if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			p.t.Errorf("test plugin: %v", err)
		}
		_ = p.cmd.Wait() // killed
		p.cmd = nil
	}
}

// Restart kills the plugin, if it runs, and starts it again with what is left
// of its state. It returns when the plugin can be called.
func (p *Plugin) Restart() {
	p.t.Helper()
	p.Kill()
	if !p.own {
		s, err := newServer(p.config)
		if err != nil {
			p.t.Fatalf("test plugin: %v", err)
		}
		p.server = s
		return
	}
	text, err := json.Marshal(p.config)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, socket := range []string{p.Socket(), controlSocket(p.config)} {
		if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
			p.t.Fatal(err)
		}
	}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), processConfig+"="+string(text))
	stderr := new(strings.Builder)
	p.cmd.Stderr = stderr
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	eventually(p.t, func() bool { return answers(p.Socket()) && answers(controlSocket(p.config)) })
}

func answers(socket string) bool {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// Freeze stops the plugin's process as SIGSTOP does: connections are accepted
// by the kernel and never answered. It returns when all threads have stopped.
// Only for StartProcess.
func (p *Plugin) Freeze() {
	p.t.Helper()
	p.signal(unix.SIGSTOP)
	eventually(p.t, func() bool { return allThreadsStopped(p.t, p.PID()) })
}

func allThreadsStopped(t testing.TB, pid int) bool {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		stat, err := os.ReadFile(file)
		if err == nil && !strings.Contains(string(stat), ") T ") {
			return false
		}
	}
	return true
}

// Thaw ends Freeze.
func (p *Plugin) Thaw() { p.signal(unix.SIGCONT) }

func (p *Plugin) signal(s unix.Signal) {
	p.t.Helper()
	if p.cmd == nil {
		p.t.Fatal("test plugin: no process of its own")
	}
	if err := unix.Kill(p.cmd.Process.Pid, s); err != nil {
		p.t.Fatal(err)
	}
}

// PID is the process in which the plugin runs.
func (p *Plugin) PID() int {
	if p.cmd != nil {
		return p.cmd.Process.Pid
	}
	return os.Getpid()
}

// Add adds a rule behind those that there are. Rules added so end with the
// plugin; those of the Config apply again after Restart.
func (p *Plugin) Add(rule Rule) {
	p.t.Helper()
	p.ask("POST", "/rule", rule, nil)
}

// Clear removes all rules.
func (p *Plugin) Clear() {
	p.t.Helper()
	p.ask("POST", "/clear", nil, nil)
}

// AwaitHeld returns when at least n calls are held by DoHold.
func (p *Plugin) AwaitHeld(n int) {
	p.t.Helper()
	eventually(p.t, func() bool {
		var held int
		p.ask("GET", "/held", nil, &held)
		return held >= n
	})
}

// Release lets all held calls go on; later ones are held again.
func (p *Plugin) Release() {
	p.t.Helper()
	p.ask("POST", "/release", nil, nil)
}

// States tells what the plugin knows of its volumes.
func (p *Plugin) States() map[string]State {
	p.t.Helper()
	var states map[string]State
	p.ask("GET", "/states", nil, &states)
	return states
}

// Requests returns all calls so far, over all restarts, in the order of their
// arrival.
func (p *Plugin) Requests() []Request {
	p.t.Helper()
	requests, err := readLog(filepath.Join(p.config.Dir, "requests.log"))
	if err != nil {
		p.t.Fatal(err)
	}
	return requests
}

// Calls returns the requests of one method.
func (p *Plugin) Calls(method string) []Request {
	p.t.Helper()
	var calls []Request
	for _, r := range p.Requests() {
		if r.Method == method {
			calls = append(calls, r)
		}
	}
	return calls
}

func (p *Plugin) ask(method, path string, send, receive any) {
	p.t.Helper()
	if err := ask(controlSocket(p.config), method, path, send, receive); err != nil {
		p.t.Fatalf("test plugin: %v", err)
	}
}

func eventually(t testing.TB, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("test plugin: did not get there within %s", patience)
		}
	}
}
