package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
)

// rclone is rclone serving as a Docker volume plugin: FUSE mounts, IDs that it
// remembers over restarts, repeated mounts refused.
type rclone struct {
	t      *testing.T
	binary string
	dir    string
	cmd    *exec.Cmd
	log    bytes.Buffer
}

// startRclone starts Debian's.
func startRclone(t *testing.T) *rclone {
	t.Helper()
	return startRcloneOf(t, "rclone")
}

func startRcloneOf(t *testing.T, binary string) *rclone {
	t.Helper()
	for _, name := range []string{binary, "fusermount3"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed", name)
		}
	}
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		t.Skipf("no FUSE: %v", err)
	} else if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	r := &rclone{t: t, binary: binary, dir: t.TempDir()}
	for _, d := range []string{"plugins", "data", "cache", "base"} {
		if err := os.Mkdir(filepath.Join(r.dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(r.end)
	r.start()
	return r
}

func (r *rclone) plugins() string { return filepath.Join(r.dir, "plugins") }

func (r *rclone) start() {
	r.t.Helper()
	socket := filepath.Join(r.plugins(), "rclone.sock")
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		r.t.Fatal(err)
	}
	r.cmd = exec.Command(r.binary, "serve", "docker", "--socket-addr", socket,
		"--base-dir", filepath.Join(r.dir, "base"), "--cache-dir", filepath.Join(r.dir, "cache"), "--config", filepath.Join(r.dir, "none"))
	r.cmd.Stdout, r.cmd.Stderr = &r.log, &r.log
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	await(r.t, "rclone listens", func() bool {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
}

// stop ends rclone; with SIGKILL its mounts stay, dead.
func (r *rclone) stop(sig os.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(sig); err != nil {
		r.t.Fatal(err)
	}
	kill := time.AfterFunc(time.Minute, func() { _ = r.cmd.Process.Kill() })
	defer kill.Stop()
	_ = r.cmd.Wait() // it was told to end; how it does is its own affair
	r.cmd = nil
}

func (r *rclone) end() {
	if r.cmd != nil {
		r.stop(os.Interrupt)
	}
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		r.t.Error(err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], r.dir) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			if out, err := exec.CommandContext(ctx, "fusermount3", "-uz", f[4]).CombinedOutput(); err != nil {
				r.t.Errorf("unmounting %s: %v %s", f[4], err, out)
			}
			cancel()
		}
	}
	if r.t.Failed() {
		r.t.Log(r.log.String())
	}
}

func (r *rclone) mount(vol string) []string {
	return []string{"mount", "--volumedriver=rclone", "--volumename=" + vol, "--volumeopts=type=local", "--volumeopts=path=" + filepath.Join(r.dir, "data")}
}

func (r *rclone) unmount(vol string) []string {
	return []string{"unmount", "--volumedriver=rclone", "--volumename=" + vol}
}

func (r *rclone) path(vol string) string { return filepath.Join(r.dir, "base", vol) }

// The captured sequence in which dvdcli 0.2 fails: two containers, one volume.
func TestRcloneSharedVolume(t *testing.T) {
	r := startRclone(t)
	b := newBox(t, r.plugins())
	for range 2 {
		if got := b.must(r.mount("v")...); got != r.path("v") {
			t.Fatalf("path %q", got)
		}
	}
	if err := os.WriteFile(filepath.Join(r.path("v"), "file"), []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(r.dir, "data", "file")); err != nil || string(data) != "data" {
		t.Errorf("%q %v", data, err)
	}
	b.must(r.unmount("v")...)
	if n := stackedAt(t, r.path("v")); n != 0 {
		t.Errorf("%d mounts left", n)
	}
	b.noRecords()
	b.must(r.mount("v")...)
	b.must(r.unmount("v")...)
	b.must("remove", "--volumedriver=rclone", "--volumename=v")
}

// rclone keeps its mount IDs on disk and mounts again when it starts.
func TestRcloneRestarts(t *testing.T) {
	for _, sig := range []os.Signal{os.Interrupt, os.Kill} {
		t.Run(sig.String(), func(t *testing.T) {
			r := startRclone(t)
			b := newBox(t, r.plugins())
			b.must(r.mount("v")...)
			r.stop(sig)
			if sig == os.Kill {
				text := b.fails(exitFailure, r.mount("v")...)
				if !strings.Contains(text, "dead") {
					t.Errorf("a dead mount: %s", text)
				}
			}
			r.start()
			if sig == os.Kill {
				// It does not know the volume any more, and nobody serves the mount: an
				// unmount clears that away, as the isolator makes one.
				b.must(r.unmount("v")...)
				if n := stackedAt(t, r.path("v")); n != 0 {
					t.Fatalf("%d dead mounts left", n)
				}
			}
			if got := b.must(r.mount("v")...); got != r.path("v") || stackedAt(t, got) != 1 {
				t.Errorf("path %q, %d mounts", got, stackedAt(t, got))
			}
			b.must(r.unmount("v")...)
			if n := stackedAt(t, r.path("v")); n != 0 {
				t.Errorf("%d mounts left", n)
			}
			b.noRecords()
			b.must(r.mount("v")...)
			b.must(r.unmount("v")...)
		})
	}
}

// A reboot: the run directory is empty, the state directory is not, rclone has
// mounted again before the agent calls.
func TestRcloneAfterReboot(t *testing.T) {
	r := startRclone(t)
	b := newBox(t, r.plugins())
	b.must(r.mount("v")...)
	r.stop(os.Interrupt)
	if err := os.RemoveAll(filepath.Join(b.dir, "run")); err != nil {
		t.Fatal(err)
	}
	r.start()
	if got := b.must(r.mount("v")...); got != r.path("v") || stackedAt(t, got) != 1 {
		t.Errorf("path %q, %d mounts", got, stackedAt(t, got))
	}
	b.must(r.unmount("v")...)
	if n := stackedAt(t, r.path("v")); n != 0 {
		t.Errorf("%d mounts left", n)
	}
	b.noRecords()
}

// SIGKILL at every step with the real plugin; one volume at a time, since rclone
// 1.60 locks up when mounts and unmounts of different volumes overlap. The long
// form has rclone 1.75.1 too, which takes a second Create for success.
func TestRcloneKilledAtEveryStep(t *testing.T) {
	t.Run("1.60.1", func(t *testing.T) { startRclone(t).killedAtEveryStep(t) })
	if long() {
		t.Run("1.75.1", func(t *testing.T) { startRcloneOf(t, volumetest.RcloneModule(t)).killedAtEveryStep(t) })
	}
}

func (r *rclone) killedAtEveryStep(t *testing.T) {
	known := newBox(t, r.plugins())
	known.must(r.mount("known")...)
	known.must(r.unmount("known")...)
	for _, command := range []string{"mount", "unmount"} {
		for _, at := range []string{"locked", "intent-kept", "intent", "answered", "answered#2", "result", "result-kept", "released", "deleted"} {
			for _, then := range []string{"mount", "unmount"} {
				name := command + " at " + at + " then " + then
				if !sampled("rclone " + name) {
					continue
				}
				t.Run(name, func(t *testing.T) {
					b := newBox(t, r.plugins())
					vol := strings.NewReplacer(" ", "-", "#", "").Replace(name)
					args := r.mount(vol)
					if command == "unmount" {
						b.must(args...)
						args = r.unmount(vol)
					}
					out := b.settling("5s").with("DVDCLI_FAULT", at).run(args...)
					if !out.killed && out.code != 0 {
						t.Fatalf("%+v", out)
					}
					if then == "mount" {
						if got := b.must(r.mount(vol)...); got != r.path(vol) || stackedAt(t, got) != 1 {
							t.Errorf("path %q, %d mounts", got, stackedAt(t, got))
						}
					}
					b.must(r.unmount(vol)...)
					if n := stackedAt(t, r.path(vol)); n != 0 {
						t.Errorf("%d mounts left", n)
					}
					b.must(r.mount(vol)...)
					b.must(r.unmount(vol)...)
				})
			}
		}
	}
}

// A volume that dvdcli 0.2 mounted, which sends no ID, is unmounted by ours, and
// the other way round.
func TestRcloneLiveUpgrade(t *testing.T) {
	r := startRclone(t)
	b := newBox(t, r.plugins())
	incumbent := func(method, body string) {
		t.Helper()
		post(t, filepath.Join(r.plugins(), "rclone.sock"), method, body)
	}
	b.must("create", "--volumedriver=rclone", "--volumename=v", "--volumeopts=type=local", "--volumeopts=path="+filepath.Join(r.dir, "data"))
	for _, first := range []string{"mount", "unmount"} {
		incumbent("Mount", `{"Name":"v"}`)
		if stackedAt(t, r.path("v")) != 1 {
			t.Fatal("not mounted")
		}
		if first == "mount" {
			if got := b.must(r.mount("v")...); got != r.path("v") {
				t.Errorf("path %q", got)
			}
		}
		b.must(r.unmount("v")...)
		if n := stackedAt(t, r.path("v")); n != 0 {
			t.Errorf("%d mounts left", n)
		}
		b.noRecords()
	}
	// Taken over, then given back to 0.2.
	incumbent("Mount", `{"Name":"v"}`)
	b.must(r.mount("v")...)
	incumbent("Unmount", `{"Name":"v"}`)
	b.must(r.unmount("v")...)
	b.noRecords()
}
