package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
)

// systemd here is what systemd does for a service: it opens the socket, passes
// it on, and listens to what the service has to say (sd_listen_fds(3),
// sd_notify(3)).
func TestSocketActivationAndWatchdog(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{})
	a := newAgent(t, p)
	dir := t.TempDir()
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "n"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	said := make(chan string, 1000)
	go func() {
		defer close(said)
		buf := make([]byte, 4096)
		for {
			n, err := notify.Read(buf)
			if err != nil {
				return
			}
			said <- string(buf[:n])
		}
	}()
	socket := filepath.Join(dir, "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	file, err := listener.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	start := func() *exec.Cmd {
		// LISTEN_PID must be that of the service itself.
		cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, bridgeBinary, "serve", "--interval=50ms")
		cmd.Env = append(append([]string{}, a.env...), "NOTIFY_SOCKET="+filepath.Join(dir, "n"), "LISTEN_FDS=1", "WATCHDOG_USEC=300000")
		cmd.ExtraFiles = []*os.File{file}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	hear := func(what string) {
		t.Helper()
		await(t, what, func() bool {
			select {
			case got, ok := <-said:
				if !ok {
					t.Fatal("nobody says anything any more")
				}
				return strings.Contains(got, what)
			default:
				return false
			}
		})
	}
	a.env = append(a.env, "DVDI_BRIDGE_SOCKET="+socket)
	for range 2 { // the socket outlives the service
		cmd := start()
		hear("READY=1")
		for range 3 {
			hear("WATCHDOG=1")
		}
		if _, err := a.bridgeCLI("prepare", "--container", "c1", "--volume", "driver=test,name=v"); err != nil {
			t.Errorf("over systemd's socket: %v", err)
		}
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		hear("STOPPING=1")
		if err := cmd.Wait(); err != nil {
			t.Errorf("clean stop: %v", err)
		}
	}
	if _, err := os.Stat(socket); err != nil {
		t.Errorf("systemd's socket is gone: %v", err)
	}
}

// The units start the program with flags that it has, and without what would
// hide mounts from it.
func TestUnits(t *testing.T) {
	namespaces := regexp.MustCompile(`^(Private(Tmp|Mounts|Devices|Users)|Protect\w+|ReadOnlyPaths|ReadWritePaths|InaccessiblePaths|NoExecPaths|TemporaryFileSystem|Bind\w*Paths|MountFlags|MountAPIVFS|Root\w+|DynamicUser|Extension\w+|LogNamespace|SystemCallFilter|CapabilityBoundingSet)=`)
	known := map[string]bool{}
	for _, f := range flags() {
		known[f.Names()[0]] = true
	}
	for _, unit := range []string{"isolator-bridge.service", "isolator-bridge.socket"} {
		f, err := os.Open(filepath.Join("..", "examples", "agent", unit))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		settings := map[string]string{}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			line := lines.Text()
			if namespaces.MatchString(line) {
				t.Errorf("%s: %s gives a mount namespace of its own, or takes away the sight of other processes", unit, line)
			}
			if key, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
				settings[key] = value
			}
		}
		for _, word := range strings.Fields(settings["ExecStart"]) {
			if name, ok := strings.CutPrefix(word, "--"); ok {
				name, _, _ = strings.Cut(name, "=")
				if !known[name] {
					t.Errorf("%s: no flag --%s", unit, name)
				}
			}
		}
		if unit == "isolator-bridge.service" && (settings["Type"] != "notify" || settings["WatchdogSec"] == "") {
			t.Errorf("%s: no notification or watchdog: %v", unit, settings)
		}
	}
}

// systemd itself finds nothing wrong with the units of the examples.
func TestUnitsAreUnderstoodBySystemd(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("needs systemd-analyze")
	}
	dir := t.TempDir()
	args := []string{"verify"}
	program := regexp.MustCompile(`(?m)^(Exec\w+=)\S+`)
	for _, file := range []string{"agent/isolator-bridge.service", "agent/isolator-bridge.socket", "agent/mesos-agent.service", "ha/dvdi-framework.service"} {
		unit := filepath.Base(file)
		text, err := os.ReadFile(filepath.Join("..", "examples", file))
		if err != nil {
			t.Fatal(err)
		}
		// It looks for the programs, which are not installed here.
		text = program.ReplaceAll(text, []byte("${1}"+bridgeBinary))
		if err := os.WriteFile(filepath.Join(dir, unit), text, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, filepath.Join(dir, unit))
	}
	if out, err := exec.Command(analyze, args...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v: %s", err, out)
	}
}

// settingsOf runs the settings through a command as serve does.
func settingsOf(t *testing.T, env map[string]string, args ...string) (*settings, error) {
	t.Helper()
	for k, v := range env {
		t.Setenv(k, v)
	}
	var got *settings
	app := &cli.App{Flags: flags(), ExitErrHandler: func(*cli.Context, error) {}, Action: func(c *cli.Context) (err error) {
		got, err = loadSettings(c)
		return err
	}}
	err := app.Run(append([]string{"test"}, args...))
	return got, err
}

func TestSettings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("interval: 3s\nleak-grace: 4s\nallow-users: [5, 6]\nagent-url: http://a:1\nlog-level: warn\n")
	s, err := settingsOf(t, map[string]string{"DVDI_BRIDGE_LEAK_GRACE": "7s", "DVDI_BRIDGE_LOG_LEVEL": "error", "DVDCLI_RUN_DIR": "/x"}, "--config", file, "--log-level=debug")
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(s.interval, s.leakGrace, s.allowUsers, s.logLevel, s.runDir, s.checkpointDir)
	if want := "3s7s[5 6]debug/x" + mesosCheckpoints; strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
		t.Errorf("%s, want %s", got, want)
	}
	for _, bad := range []string{"intervall: 3s", "interval: soon", "interval: -1s", "interval: 0s", "interval:", "interval: {a: b}", "allow-users: [x]", "allow-users: 1x",
		"- a", "a: b\n---\nc: d", "agent-url: localhost:5051", "agent-url: http://u:sekret@a:1", "agent-url: 'http://'", "agent-token: /x", "socket: relative.sock", "state-dir: relative", "agent-cert: /x", "agent-token: /x\nagent-credential: /y", "log-format: xml", "\tx"} {
		write(bad)
		if _, err := settingsOf(t, nil, "--config", file); err == nil || strings.Contains(err.Error(), "sekret") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := settingsOf(t, nil, "--config", file+".missing"); err == nil {
		t.Error("missing file accepted")
	}
	example, err := os.ReadFile(filepath.Join("..", "examples", "agent", "isolator-bridge.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	write(string(example))
	if s, err := settingsOf(t, nil, "--config", file); err != nil || s.agentWorkDir != "/var/lib/mesos/agent" {
		t.Errorf("example: %+v, %v", s, err)
	}
}
