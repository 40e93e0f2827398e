package volumetest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Rclone is a running `rclone serve docker`: a volume plugin that was not
// written here. Volumes are FUSE mounts; it needs Create options, see Options.
type Rclone struct {
	t      testing.TB
	binary string
	dir    string
	plugin string // directory of the socket
	cmd    *exec.Cmd
	output *bytes.Buffer
}

// RcloneDebian returns Debian's rclone (1.60.1 in Debian 12), whose Create
// refuses a volume that exists. Without it the test is skipped, or fails if it
// runs as root and could have it.
func RcloneDebian(t testing.TB) (binary string) {
	t.Helper()
	needFUSE(t)
	binary, err := exec.LookPath("rclone")
	if err != nil {
		missing(t, "rclone")
	}
	return binary
}

// RcloneModule builds rclone 1.75.1, whose Create accepts a volume that exists.
// The environment may name one that is built already (DVDI_TEST_RCLONE).
func RcloneModule(t testing.TB) (binary string) {
	t.Helper()
	needFUSE(t)
	if binary := os.Getenv("DVDI_TEST_RCLONE"); binary != "" {
		return binary
	}
	sources, err := exec.Command("go", "list", "-f", "{{.Dir}}", "github.com/mesos-dvdi/dvdi/internal/volume").Output()
	if err != nil {
		t.Fatalf("find the sources of rclone: %v", err)
	}
	binary = filepath.Join(t.TempDir(), "rclone")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, ".")
	build.Dir = filepath.Join(strings.TrimSpace(string(sources)), "testdata", "rclone")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build rclone: %v\n%s", err, out)
	}
	return binary
}

func needFUSE(t testing.TB) {
	t.Helper()
	fuse, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	if err := fuse.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("fusermount3"); err != nil {
		missing(t, "fuse3")
	}
}

// missing ends the test for want of a Debian package.
func missing(t testing.TB, pkg string) {
	t.Helper()
	if os.Geteuid() == 0 {
		t.Fatalf("Debian package %s is missing: apt-get install %s", pkg, pkg)
	}
	t.Skipf("Debian package %s is missing", pkg)
}

// StartRclone runs the plugin until the end of the test; its driver's name is
// rclone.
func StartRclone(t testing.TB, binary string) *Rclone {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r := &Rclone{t: t, binary: binary, dir: dir, plugin: filepath.Join(dir, "plugins")}
	for _, sub := range []string{r.plugin, filepath.Join(dir, "volumes"), filepath.Join(dir, "cache"), filepath.Join(dir, "data")} {
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		r.Stop()
		r.unmountLeft()
	})
	r.Restart()
	return r
}

// PluginDir is the directory to search for the plugin.
func (r *Rclone) PluginDir() string { return r.plugin }

// Socket is the plugin's socket.
func (r *Rclone) Socket() string { return filepath.Join(r.plugin, "rclone.sock") }

// Data is the directory in which the volumes' files are.
func (r *Rclone) Data() string { return filepath.Join(r.dir, "data") }

// Options are what Create needs for a volume of local files.
func (r *Rclone) Options() map[string]string {
	return map[string]string{"type": "local", "path": r.Data(), "vfs-cache-mode": "off"}
}

// PID is the plugin's process.
func (r *Rclone) PID() int { return r.cmd.Process.Pid }

// Stop ends rclone with SIGTERM, at which it unmounts its volumes.
func (r *Rclone) Stop() { r.end(unix.SIGTERM) }

// Kill ends rclone with SIGKILL, which leaves dead FUSE mounts.
func (r *Rclone) Kill() { r.end(unix.SIGKILL) }

func (r *Rclone) end(signal unix.Signal) {
	r.t.Helper()
	if r.cmd == nil {
		return
	}
	if err := r.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		r.t.Errorf("rclone: %v", err)
	}
	// A test may have left it stopped.
	if err := r.cmd.Process.Signal(unix.SIGCONT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		r.t.Errorf("rclone: %v", err)
	}
	// One that hangs in its unmounts ends by a signal that it cannot wait with.
	hung := time.AfterFunc(patience, func() { _ = r.cmd.Process.Kill() })
	_ = r.cmd.Wait() // ended by the signal
	hung.Stop()
	r.cmd = nil
	if r.t.Failed() {
		r.t.Logf("rclone: %s", r.output)
	}
}

// Freeze stops rclone as SIGSTOP does: its mounts hang. It returns when all
// threads have stopped: the signal alone leaves them time for an answer.
func (r *Rclone) Freeze() {
	r.t.Helper()
	if err := r.cmd.Process.Signal(unix.SIGSTOP); err != nil {
		r.t.Fatal(err)
	}
	eventually(r.t, func() bool { return allThreadsStopped(r.t, r.PID()) })
}

// Thaw ends Freeze.
func (r *Rclone) Thaw() {
	r.t.Helper()
	if err := r.cmd.Process.Signal(unix.SIGCONT); err != nil {
		r.t.Fatal(err)
	}
}

// Restart starts rclone again; it mounts what it remembers before it answers.
func (r *Rclone) Restart() {
	r.t.Helper()
	r.Kill()
	if err := os.Remove(r.Socket()); err != nil && !errors.Is(err, os.ErrNotExist) {
		r.t.Fatal(err)
	}
	r.output = new(bytes.Buffer)
	r.cmd = exec.Command(r.binary, "serve", "docker",
		"--socket-addr", r.Socket(), "--base-dir", filepath.Join(r.dir, "volumes"),
		"--cache-dir", filepath.Join(r.dir, "cache"), "--config", filepath.Join(r.dir, "rclone.conf"),
		"--dir-cache-time", "0s")
	r.cmd.Stdout, r.cmd.Stderr = r.output, r.output
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	eventually(r.t, func() bool { return answers(r.Socket()) })
}

// unmountLeft clears mounts whose server is gone; an ordinary user needs
// fusermount3 for that.
func (r *Rclone) unmountLeft() {
	r.t.Helper()
	targets, err := mountedBelow(r.dir)
	if err != nil {
		r.t.Error(err)
	}
	for _, target := range targets {
		if out, err := exec.Command("fusermount3", "-u", "-z", target).CombinedOutput(); err != nil {
			r.t.Errorf("unmount %s: %v: %s", target, err, out)
		}
	}
}
