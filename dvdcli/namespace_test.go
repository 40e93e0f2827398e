package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
)

// inNamespace runs dvdcli in a mount namespace of its own, as an agent whose
// unit has PrivateMounts or MountFlags would.
func (b *box) inNamespace(propagation string, args ...string) outcome {
	b.t.Helper()
	cmd := exec.Command("unshare", append([]string{"--mount", "--propagation", propagation, binary}, args...)...)
	cmd.Env = b.command().Env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		b.t.Fatal(err)
	}
	return outcome{stdout: stdout.String(), stderr: stderr.String(), code: cmd.ProcessState.ExitCode()}
}

// An agent in a mount namespace of its own does not see what a plugin outside
// mounts: no path is printed, both namespaces are named, the mount is undone.
// When it was mounted for an agent outside, it stays.
func TestAgentInItsOwnMountNamespace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for a mount namespace")
	}
	p := volumetest.Start(t, volumetest.Config{Bind: true})
	b := newBox(t, p.PluginDir())
	b.known(p)
	out := b.inNamespace("private", mountArgs(p, "v")...)
	if out.code == 0 || out.stdout != "" || strings.Count(out.stderr, "mnt:[") != 2 {
		t.Errorf("%+v", out)
	}
	expect(t, p, "v", 1, 1)
	b.nothingMounted(p)

	b.must(mountArgs(p, "v")...)
	if out := b.inNamespace("private", mountArgs(p, "v")...); out.code != 0 || out.stdout != p.Mountpoint("v")+"\n" {
		t.Errorf("a mount from before the namespace is seen in it: %+v", out)
	}
	b.must(unmountArgs(p, "v")...)
	expect(t, p, "v", 2, 2)
}

// An agent in a slave mount namespace sees what the plugin outside mounts, if the
// plugin's directory is shared: this is how both are meant to be set up.
func TestAgentInASlaveMountNamespace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for a mount namespace")
	}
	dir := t.TempDir()
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && err != unix.EINVAL { // the plugin's end may have
			t.Error(err)
		}
	})
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	p := volumetest.Start(t, volumetest.Config{Dir: dir, Bind: true})
	b := newBox(t, p.PluginDir())
	for range 2 { // the second time a mount of which the first namespace knew
		if out := b.inNamespace("slave", mountArgs(p, "v")...); out.code != 0 || out.stdout != p.Mountpoint("v")+"\n" {
			t.Errorf("%+v", out)
		}
	}
	b.mountedOnce(p)
	if out := b.inNamespace("slave", unmountArgs(p, "v")...); out.code != 0 {
		t.Errorf("%+v", out)
	}
	expect(t, p, "v", 1, 1)
	b.nothingMounted(p)
}

// What an agent's namespace does not show is not gone while the plugin's shows
// it: it stays owed, or unsettled, and is undone by whoever can.
func TestMountedWhereOnlyThePluginSees(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for a mount namespace")
	}
	busy := volumetest.Rule{Method: "Unmount", Volume: "v", Do: volumetest.DoAnswer, Status: 500, Body: `{"Err":"device is busy"}`}
	for name, crash := range map[string]func(*box, *volumetest.Plugin){
		"undo refused": func(b *box, p *volumetest.Plugin) {
			p.Add(busy)
			if out := b.inNamespace("private", mountArgs(p, "v")...); out.code == 0 || out.stdout != "" {
				t.Errorf("%+v", out)
			}
			if out := b.inNamespace("private", unmountArgs(p, "v")...); out.code == 0 {
				t.Errorf("unmounted: %+v", out)
			}
		},
		"killed during mount": func(b *box, p *volumetest.Plugin) {
			p.Add(busy)
			b.with("DVDCLI_FAULT", "answered#2").inNamespace("private", mountArgs(p, "v")...) // the first answer is Create's
			if out := b.inNamespace("private", unmountArgs(p, "v")...); out.code == 0 {
				t.Errorf("unmounted: %+v", out)
			}
		},
		"unmount lost": func(b *box, p *volumetest.Plugin) {
			b.must(mountArgs(p, "v")...)
			p.Add(volumetest.Rule{Method: "Unmount", Volume: "v", Times: 1, At: volumetest.Before, Do: volumetest.DoDrop})
			hidden := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", `umount "$1" && shift && exec "$@"`,
				"sh", p.Mountpoint("v"), binary, "unmount", "--volumedriver=test", "--volumename=v")
			hidden.Env = b.command().Env
			if out, err := hidden.CombinedOutput(); err == nil {
				t.Errorf("unmounted: %s", out)
			}
			p.Add(busy)
			again := exec.Command("unshare", hidden.Args[1:]...)
			again.Env = hidden.Env
			if out, err := again.CombinedOutput(); err == nil {
				t.Errorf("unmounted: %s", out)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := volumetest.Start(t, volumetest.Config{Bind: true})
			b := patientBox(t, p)
			b.known(p)
			crash(b, p)
			if stackedAt(t, p.Mountpoint("v")) != 1 || len(b.records()) != 1 {
				t.Fatalf("%d mounts, ledger %+v", stackedAt(t, p.Mountpoint("v")), b.records())
			}
			p.Clear()
			b.must("ledger", "repair", "--yes", "--now")
			b.nothingMounted(p)
		})
	}
}

// Without room in the run directory nothing is mounted, and everything is
// unmounted.
func TestFullRunDirectory(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{Bind: os.Geteuid() == 0})
	b, run := boxOnTmpfs(t, p)
	b.must(mountArgs(p, "v")...)
	fill(t, run)
	if got := b.must(mountArgs(p, "v")...); got != p.Mountpoint("v") {
		t.Errorf("shared by the same holder: %q", got)
	}
	b.fails(exitLedger, mountArgs(p, "w")...)
	if out := b.run(unmountArgs(p, "v")...); out.code != 0 || !strings.Contains(out.stderr, "no space left") {
		t.Errorf("%+v", out)
	}
	expect(t, p, "v", 1, 1)
	b.must(unmountArgs(p, "w")...)
	b.nothingMounted(p)
}

// A run directory that became read-only, such as after a fault of its disk:
// nothing is mounted, and everything is unmounted, once.
func TestReadOnlyRunDirectory(t *testing.T) {
	for name, locks := range map[string]func(t *testing.T, run string){
		"as it was": func(*testing.T, string) {},
		"without locks": func(t *testing.T, run string) {
			files, err := filepath.Glob(filepath.Join(run, "locks", "*"))
			if err != nil || len(files) == 0 {
				t.Fatal(files, err)
			}
			for _, f := range files {
				if err := os.Remove(f); err != nil {
					t.Fatal(err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := mountingPlugin(t)
			b, run := boxOnTmpfs(t, p)
			b.must(mountArgs(p, "v")...)
			locks(t, run)
			if err := unix.Mount("", run, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
				t.Fatal(err)
			}
			if got := b.must(mountArgs(p, "v")...); got != p.Mountpoint("v") {
				t.Errorf("shared by the same holder: %q", got)
			}
			b.fails(exitLedger, mountArgs(p, "w")...)
			for range 2 {
				if out := b.run(unmountArgs(p, "v")...); out.code != 0 || strings.Count(out.stderr, "read-only") != 1 {
					t.Errorf("%+v", out)
				}
				b.must(unmountArgs(p, "w")...)
			}
			expect(t, p, "v", 1, 1)
			expect(t, p, "w", 0, 0)
			if n := stackedAt(t, p.Mountpoint("v")); n != 0 {
				t.Errorf("%d mounts left", n)
			}
			// And it goes on when the directory can be written again.
			if err := unix.Mount("", run, "", unix.MS_REMOUNT, ""); err != nil {
				t.Fatal(err)
			}
			b.must(mountArgs(p, "v")...)
			b.must(unmountArgs(p, "v")...)
			expect(t, p, "v", 2, 2)
			b.nothingMounted(p)
		})
	}
}

// A run directory that is full by the time the plugin answers: the mount is
// undone at once, and nothing is left that would have to settle.
func TestRunDirectoryFilledDuringMount(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{Bind: os.Geteuid() == 0})
	b, run := boxOnTmpfs(t, p)
	p.Add(volumetest.Rule{Method: "Mount", Volume: "v", Times: 1, Do: volumetest.DoHold})
	done := make(chan outcome)
	go func() { done <- b.run(mountArgs(p, "v")...) }()
	p.AwaitHeld(1)
	fill(t, run)
	p.Release()
	if out := <-done; out.code == 0 || out.stdout != "" || !strings.Contains(out.stderr, "no space left") {
		t.Errorf("%+v", out)
	}
	expect(t, p, "v", 1, 1)
	b.must(unmountArgs(p, "v")...)
	expect(t, p, "v", 1, 1)
	b.nothingMounted(p)
	if err := os.Remove(filepath.Join(run, "filler")); err != nil {
		t.Fatal(err)
	}
	b.must(mountArgs(p, "v")...)
	b.must(unmountArgs(p, "v")...)
	b.nothingMounted(p)
}

// boxOnTmpfs has its run directory on a small file system of its own.
func boxOnTmpfs(t *testing.T, p *volumetest.Plugin) (b *box, run string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a file system of its own")
	}
	b = newBox(t, p.PluginDir())
	run = filepath.Join(b.dir, "run")
	if err := os.Mkdir(run, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", run, "tmpfs", 0, "size=64k,mode=700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(run, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return b, run
}

// fill leaves no room in a directory's file system.
func fill(t *testing.T, dir string) {
	t.Helper()
	filler, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = filler.Write(make([]byte, 4096))
	}
	if err := filler.Close(); err != nil {
		t.Fatal(err)
	}
}

// Without root everything works with directories of the user's own.
func TestAsOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the other tests run as an ordinary user already")
	}
	const uid = 65534
	dir, err := os.MkdirTemp("", "dvdcli-user-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	copied, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	own := dir + "/dvdcli"
	if err := os.WriteFile(own, copied, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, dir + "/home", dir + "/plugins", dir + "/data"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir+"/home", uid, uid); err != nil {
		t.Fatal(err)
	}
	p := volumetest.Start(t, volumetest.Config{Dir: dir + "/data", PluginDir: dir + "/plugins"})
	if err := os.Chmod(p.Socket(), 0o777); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) outcome {
		cmd := exec.Command("setpriv", append([]string{"--reuid=65534", "--regid=65534", "--clear-groups", own}, args...)...)
		cmd.Env = []string{"HOME=" + dir + "/home", "XDG_RUNTIME_DIR=" + dir + "/home/run", "DVDCLI_PLUGIN_DIRS=" + p.PluginDir()}
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return outcome{stdout: stdout.String(), stderr: stderr.String(), code: cmd.ProcessState.ExitCode()}
	}
	chmod := func() {
		for _, d := range []string{"", "/volumes", "/mounts"} {
			if err := os.Chmod(dir+"/data"+d, 0o755); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
	}
	if out := run("create", "--volumedriver=test", "--volumename=v"); out.code != 0 {
		t.Fatalf("%+v", out)
	}
	chmod()
	if out := run(mountArgs(p, "v")...); out.code != 0 || out.stdout != p.Mountpoint("v")+"\n" {
		t.Errorf("%+v", out)
	}
	if out := run("status"); out.code != 0 || !strings.Contains(out.stdout, "user:65534") {
		t.Errorf("%+v", out)
	}
	if out := run(unmountArgs(p, "v")...); out.code != 0 {
		t.Errorf("%+v", out)
	}
	expect(t, p, "v", 1, 1)
	if _, err := os.Stat(dir + "/home/.local/state/dvdi"); err != nil {
		t.Error(err)
	}
}
