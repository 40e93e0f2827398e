package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/programtest"
	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
)

// binary is dvdcli built with fault points.
var binary string

func TestMain(m *testing.M) {
	volumetest.Main()
	tags, err := releaseTags()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// The tests wait for processes and for settling more than they compute.
	flag.Parse()
	if err := flag.Set("test.parallel", "12"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(programtest.Run(m, func(dir string) { binary = filepath.Join(dir, "dvdcli") },
		programtest.Program{Name: "dvdcli", Package: "dvdcli", Flags: []string{"-tags", tags + ",faultpoints"}}))
}

// releaseTags are those with which the Makefile builds dvdcli.
func releaseTags() (string, error) {
	data, err := os.ReadFile("../Makefile")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if tags, ok := strings.CutPrefix(line, "DVDCLI_TAGS := "); ok {
			return strings.TrimSpace(tags), nil
		}
	}
	return "", errors.New("the Makefile has no DVDCLI_TAGS")
}

// release builds a program as it is released; tags may be empty.
func release(t testing.TB, dir, pkg, tags string) string {
	t.Helper()
	out := filepath.Join(dir, filepath.Base(pkg)+".release")
	build := exec.Command("go", "build", "-trimpath", "-tags", tags, "-ldflags", "-s -w", "-o", out, pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, text)
	}
	return out
}

// box is a host's directories for one dvdcli, apart from everything else.
type box struct {
	t       testing.TB
	dir     string
	env     []string
	program string // empty: the one with fault points
}

func newBox(t testing.TB, pluginDirs ...string) *box {
	t.Helper()
	b := &box{t: t, dir: t.TempDir()}
	b.set("DVDCLI_RUN_DIR", filepath.Join(b.dir, "run"))
	b.set("DVDCLI_STATE_DIR", filepath.Join(b.dir, "state"))
	b.set("DVDCLI_HOST_DIR", filepath.Join(b.dir, "host"))
	b.set("DVDCLI_PLUGIN_DIRS", strings.Join(pluginDirs, ":"))
	b.set("DVDCLI_POLICY", os.DevNull)
	b.set("DVDCLI_HOLDER", "agent")
	return b
}

func (b *box) set(key, value string) { b.env = append(b.env, key+"="+value) }

// with returns a copy with one more environment variable.
func (b *box) with(key, value string) *box {
	c := *b
	c.env = append(append([]string{}, b.env...), key+"="+value)
	return &c
}

func (b *box) policy(text string) {
	b.t.Helper()
	file := filepath.Join(b.dir, "policy.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	b.set("DVDCLI_POLICY", file)
}

// outcome is what a process left.
type outcome struct {
	stdout, stderr string
	code           int
	killed         bool
}

func (b *box) command(args ...string) *exec.Cmd {
	program := b.program
	if program == "" {
		program = binary
	}
	cmd := exec.Command(program, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + b.dir}, b.env...)
	return cmd
}

// run executes dvdcli as the isolator does: argv[0] is a path, stdin is
// /dev/null, stdout and stderr are pipes.
func (b *box) run(args ...string) outcome {
	b.t.Helper()
	cmd := b.command(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	out := outcome{stdout: stdout.String(), stderr: stderr.String()}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		out.code = exit.ExitCode()
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			out.killed = ws.Signal() == syscall.SIGKILL
		}
	case err != nil:
		b.t.Fatal(err)
	}
	return out
}

func (b *box) must(args ...string) string {
	b.t.Helper()
	out := b.run(args...)
	if out.code != 0 {
		b.t.Fatalf("dvdcli %s: exit %d: %s%s", strings.Join(args, " "), out.code, out.stdout, out.stderr)
	}
	return strings.TrimSpace(out.stdout)
}

// fails runs a command that must fail with this status, without a result, and
// returns what it said.
func (b *box) fails(code int, args ...string) string {
	b.t.Helper()
	out := b.run(args...)
	if out.code != code || out.stdout != "" || out.stderr == "" {
		b.t.Fatalf("dvdcli %s: exit %d, want %d; stdout %q, stderr %q", strings.Join(args, " "), out.code, code, out.stdout, out.stderr)
	}
	return out.stderr
}

func mountArgs(p *volumetest.Plugin, vol string, more ...string) []string {
	return append([]string{"mount", "--volumedriver=" + p.Name(), "--volumename=" + vol}, more...)
}

func unmountArgs(p *volumetest.Plugin, vol string, more ...string) []string {
	return append([]string{"unmount", "--volumedriver=" + p.Name(), "--volumename=" + vol}, more...)
}

// records are the ledger's.
func (b *box) records() []recordResult {
	b.t.Helper()
	var out []recordResult
	if err := json.Unmarshal([]byte(b.must("status", "--output=json")), &out); err != nil {
		b.t.Fatal(err)
	}
	return out
}

func (b *box) noRecords() {
	b.t.Helper()
	for _, r := range b.records() {
		b.t.Errorf("record left: %s %+v", r.State, r.Record)
	}
}

// expect checks how often a plugin got Mount and Unmount for a volume.
func expect(t testing.TB, p *volumetest.Plugin, vol string, mounts, unmounts int) {
	t.Helper()
	if m, u := calls(p, "Mount", vol), calls(p, "Unmount", vol); m != mounts || u != unmounts {
		t.Errorf("the plugin got %d mounts and %d unmounts, want %d and %d", m, u, mounts, unmounts)
	}
}

func calls(p *volumetest.Plugin, method, vol string) int {
	n := 0
	for _, r := range p.Calls(method) {
		if r.Name == vol {
			n++
		}
	}
	return n
}

// long says that the exhaustive versions of the tests are wanted.
func long() bool { return os.Getenv("DVDI_LONG") != "" }

// await polls until a condition holds.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
