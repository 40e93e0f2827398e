package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/programtest"
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
)

var bridgeBinary, dvdcliBinary string

func TestMain(m *testing.M) {
	volumetest.Main()
	faults := []string{"-tags", "faultpoints"}
	os.Exit(programtest.Run(m, func(dir string) {
		bridgeBinary, dvdcliBinary = filepath.Join(dir, "isolator-bridge"), filepath.Join(dir, "dvdcli")
	},
		programtest.Program{Name: "isolator-bridge", Package: "isolator-bridge", Flags: faults},
		programtest.Program{Name: "dvdcli", Package: "dvdcli", Flags: faults},
	))
}

// agent is the environment that dvdcli and bridge of one agent share.
type agent struct {
	t   *testing.T
	env []string
}

func newAgent(t *testing.T, p *volumetest.Plugin) *agent {
	dir := t.TempDir()
	return &agent{t: t, env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "DVDCLI_HOLDER=agent",
		"DVDCLI_RUN_DIR=" + filepath.Join(dir, "run"), "DVDCLI_STATE_DIR=" + filepath.Join(dir, "state"),
		"DVDCLI_HOST_DIR=" + filepath.Join(dir, "host"), "DVDCLI_PLUGIN_DIRS=" + p.PluginDir(),
		"DVDCLI_POLICY=/dev/null", "DVDCLI_CALL_TIMEOUT=3s", "DVDCLI_CALL_MARGIN=100ms"}}
}

func (a *agent) dvdcli(args ...string) (string, error) {
	cmd := exec.Command(dvdcliBinary, args...)
	cmd.Env = a.env
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

// bridge is a running isolator-bridge.
type bridge struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan error
	mu   sync.Mutex // guards log
	log  bytes.Buffer
}

func (a *agent) start() *bridge {
	a.t.Helper()
	b := &bridge{t: a.t, cmd: exec.Command(bridgeBinary, "serve", "--interval=20ms"), done: make(chan error, 1)}
	b.cmd.Env = a.env
	pipe, err := b.cmd.StderrPipe()
	if err != nil {
		a.t.Fatal(err)
	}
	if err := b.cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	go func() {
		b.read(pipe)
		b.done <- b.cmd.Wait()
	}()
	a.t.Cleanup(b.kill)
	b.awaitLog("starting")
	return b
}

func (b *bridge) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		b.mu.Lock()
		b.log.WriteString(lines.Text() + "\n")
		b.mu.Unlock()
	}
}

func (b *bridge) logged() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.String()
}

func (b *bridge) awaitLog(text string) {
	b.t.Helper()
	await(b.t, "log has "+text, func() bool { return strings.Contains(b.logged(), text) })
}

// kill ends the bridge as SIGKILL does.
func (b *bridge) kill() {
	if b.cmd == nil {
		return
	}
	if err := b.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		b.t.Error(err)
	}
	<-b.done
	b.cmd = nil
	if b.t.Failed() {
		b.t.Logf("bridge: %s", b.logged())
	}
}

// stop ends it as systemd does and returns how it ended.
func (b *bridge) stop() error {
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		b.t.Fatal(err)
	}
	err := <-b.done
	b.cmd = nil
	return err
}

// patience bounds every wait: long, for machines that are busy.
const patience = time.Minute

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestOneBridgePerRunDirectory(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{})
	a := newAgent(t, p)
	first := a.start()
	cmd := exec.Command(bridgeBinary, "serve")
	cmd.Env = a.env
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another isolator-bridge serves") {
		t.Errorf("second bridge: %v, %s", err, out)
	}
	if err := first.stop(); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
	second := a.start()
	second.kill()
	if err := a.start().stop(); err != nil { // the kernel released the lock
		t.Error(err)
	}
}

// The console format is for people: its lines begin with a date.
func TestConsoleLogHasReadableTimes(t *testing.T) {
	t.Parallel()
	p := volumetest.Start(t, volumetest.Config{})
	a := newAgent(t, p)
	socket := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bridgeBinary, "serve", "--log-format=console", "--socket="+socket)
	cmd.Env = a.env
	out, err := cmd.CombinedOutput()
	if lines := regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\S*\terror\t.*isolator-bridge failed`); err == nil || !lines.Match(out) {
		t.Errorf("%v: %s", err, out)
	}
}

// The socket's place is not taken from anybody: from no file that is something
// else, and from no process that listens. What a dead process left is replaced,
// and a bridge that ends removes its own only.
func TestSocketIsTakenFromNobody(t *testing.T) {
	t.Parallel()
	p := volumetest.Start(t, volumetest.Config{})
	first, second := newAgent(t, p), newAgent(t, p)
	socket := filepath.Join(t.TempDir(), "s")
	for _, a := range []*agent{first, second} {
		a.env = append(a.env, "DVDI_BRIDGE_SOCKET="+socket)
	}
	fails := func(why string) {
		t.Helper()
		cmd := exec.Command(bridgeBinary, "serve")
		cmd.Env = second.env
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), why) {
			t.Errorf("%v: %s", err, out)
		}
	}
	if err := os.WriteFile(socket, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	fails("is no socket")
	if data, err := os.ReadFile(socket); err != nil || string(data) != "precious" {
		t.Fatalf("%q, %v", data, err)
	}
	if err := os.Remove(socket); err != nil {
		t.Fatal(err)
	}
	a := first.start()
	reachable := func() {
		t.Helper()
		await(t, "the first bridge", func() bool {
			report, err := first.bridgeCLI("report")
			return err == nil && report["finished"] == true
		})
	}
	reachable()
	fails("another process serves")
	reachable()
	a.kill()
	b := second.start() // in the place of one that is dead
	reachable()
	// Somebody puts another one in the place of the second: it stays.
	if err := os.Remove(socket); err != nil {
		t.Fatal(err)
	}
	a = first.start()
	reachable()
	if err := b.stop(); err != nil {
		t.Error(err)
	}
	reachable()
	if err := a.stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
}

// An unmount that fails is tried again until it succeeds, whether the bridge
// ran when it failed or not.
func TestRetriesOwedUnmount(t *testing.T) {
	// Should a call get no answer, a mount table shows what is left, a directory does not.
	p := volumetest.Start(t, volumetest.Config{Bind: os.Geteuid() == 0})
	a := newAgent(t, p)
	if _, err := a.dvdcli("mount", "--volumedriver=test", "--volumename=v"); err != nil {
		t.Fatal(err)
	}
	p.Add(volumetest.Rule{Method: "Unmount", Times: 2, Do: volumetest.DoAnswer, Status: 500, Body: `{"Err":"busy"}`})
	if _, err := a.dvdcli("unmount", "--volumedriver=test", "--volumename=v"); err == nil {
		t.Fatal("unmount succeeded")
	}
	b := a.start()
	await(t, "unmounted", func() bool { return !p.States()["v"].Mounted })
	await(t, "record gone", func() bool {
		out, err := a.dvdcli("status", "--output=json")
		return err == nil && out == "[]"
	})
	if n := len(p.Calls("Unmount")); n != 3 {
		t.Errorf("%d unmounts, want 3", n)
	}
	b.awaitLog("busy")
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// A mount that the plugin finishes after its caller was killed is undone.
func TestUndoesMountWhoseCallerDied(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{})
	a := newAgent(t, p)
	p.Add(volumetest.Rule{Method: "Mount", Do: volumetest.DoHold})
	cmd := exec.Command(dvdcliBinary, "mount", "--volumedriver=test", "--volumename=v")
	cmd.Env = a.env
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.AwaitHeld(1)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("not killed")
	}
	b := a.start()
	p.Release()
	await(t, "mounted and unmounted", func() bool {
		s := p.States()["v"]
		return s.Mounts == 1 && !s.Mounted
	})
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

func TestMistakesAreFailures(t *testing.T) {
	for _, args := range [][]string{{}, {"frobnicate"}, {"serve", "--frobnicate"}, {"serve", "extra"}} {
		cmd := exec.Command(bridgeBinary, args...)
		cmd.Env = []string{"HOME=" + t.TempDir()}
		if out, err := cmd.CombinedOutput(); err == nil {
			t.Errorf("%v succeeded: %s", args, out)
		}
	}
	// Where there is no bridge it is told what to do, and a settings file says where
	// there would be one.
	dir := t.TempDir()
	file := filepath.Join(dir, "f.yaml")
	if err := os.WriteFile(file, []byte("socket: "+dir+"/configured.sock\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"report", "--run-dir", dir}, {"report", "--config", file}, {"recover", "--socket", dir + "/s"},
		{"prepare", "--container=c", "--volume=driver=d,name=v", "--volumeopts=a=b", "--volumeopts=c=d", "--socket", dir + "/s"}} {
		cmd := exec.Command(bridgeBinary, args...)
		cmd.Env = []string{"HOME=" + dir}
		want := map[string]string{"report": "is the bridge running? start it with", "recover": "--none says that", "prepare": "2 times for 1 volumes"}[args[0]]
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) || args[1] == "--config" && !strings.Contains(string(out), "configured.sock") {
			t.Errorf("%v: %v: %s", args, err, out)
		}
	}
	out, err := exec.Command(bridgeBinary, "version").Output()
	if err != nil || !strings.HasPrefix(string(out), "isolator-bridge ") {
		t.Errorf("version: %q, %v", out, err)
	}
}

// What can never be what it was given for is told at the start, with what is wrong
// with it.
func TestFilesThatAreSomethingElse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for flag, want := range map[string]string{
		"--watchdog=" + file:                    "not a watchdog device",
		"--facts-token=" + dir:                  "is no regular file",
		"--socket=/" + strings.Repeat("s", 107): "a socket's path at most 107",
	} {
		a := newAgent(t, volumetest.Start(t, volumetest.Config{}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // it may start
		cmd := exec.CommandContext(ctx, bridgeBinary, "serve", flag)
		cmd.Env = a.env
		out, err := cmd.CombinedOutput()
		cancel()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v: %s", flag, err, out)
		}
	}
}

// The help tells the times that hold where none is set.
func TestHelpTellsTheTimesOfCalls(t *testing.T) {
	cmd := exec.Command(bridgeBinary, "serve", "--help")
	cmd.Env = []string{"HOME=" + t.TempDir()}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	calls := engine.DefaultTimeouts()
	if calls.Create != calls.Mount || calls.Remove != calls.Query || calls.Unmount != calls.Query {
		t.Fatalf("the help knows two times only: %+v", calls)
	}
	for flag, want := range map[string]string{"--call-timeout": fmt.Sprintf("(default: %v for create and mount, else %v)", calls.Mount, calls.Query),
		"--call-margin": fmt.Sprintf("(default: %v)", calls.Margin)} {
		_, text, found := strings.Cut(string(out), flag+" ")
		line, _, _ := strings.Cut(text, "\n")
		if !found || !strings.Contains(line, want) {
			t.Errorf("%s: %q has no %q", flag, line, want)
		}
	}
}
