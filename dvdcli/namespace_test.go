package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

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
