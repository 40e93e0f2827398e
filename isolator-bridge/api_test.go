package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
)

// bridgeCLI runs a command of the bridge and decodes what it prints.
func (a *agent) bridgeCLI(args ...string) (map[string]any, error) {
	a.t.Helper()
	cmd := exec.Command(bridgeBinary, args...)
	cmd.Env = a.env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = &cliError{err, stderr.String()}
	}
	var value map[string]any
	if len(out) > 0 {
		if err := json.Unmarshal(out, &value); err != nil {
			a.t.Fatalf("%v printed %s: %v", args, out, err)
		}
	}
	return value, err
}

type cliError struct {
	error
	stderr string
}

func (e *cliError) Error() string { return e.error.Error() + ": " + e.stderr }

// states are the states of the volumes in an answer, by name.
func states(answer map[string]any) map[string]string {
	out := map[string]string{}
	list, _ := answer["volumes"].([]any)
	for _, v := range list {
		m := v.(map[string]any)
		state, _ := m["state"].(string)
		out[m["name"].(map[string]any)["name"].(string)] = state
	}
	return out
}

// A volume that two containers use is mounted once and unmounted with the
// second's end.
func TestReferencesPerContainer(t *testing.T) {
	t.Parallel()
	p := volumetest.Start(t, volumetest.Config{Counting: volumetest.CountRefusing})
	a := newAgent(t, p)
	b := a.start()
	for _, id := range []string{"c1", "c2", "c2"} { // repeating a call changes nothing
		out, err := a.bridgeCLI("prepare", "--container", id, "--volume", "driver=test,name=v")
		if err != nil {
			t.Fatal(err)
		}
		if s := states(out); s["v"] != "MOUNTED" {
			t.Errorf("%s: %v", id, out)
		}
	}
	if s := p.States()["v"]; !s.Mounted || s.Mounts != 1 {
		t.Errorf("plugin: %+v", s)
	}
	if out, err := a.bridgeCLI("cleanup", "--container", "c1"); err != nil || states(out)["v"] != "RELEASED" {
		t.Errorf("%v, %v", out, err)
	}
	if !p.States()["v"].Mounted {
		t.Error("unmounted under the second container")
	}
	if _, err := a.bridgeCLI("cleanup", "--container", "c2"); err != nil {
		t.Error(err)
	}
	if s := p.States()["v"]; s.Mounted || s.Mounts != 1 || s.Unmounts != 1 {
		t.Errorf("plugin: %+v", s)
	}
	if out, err := a.bridgeCLI("cleanup", "--container", "never-seen"); err != nil || len(states(out)) != 0 {
		t.Errorf("unknown container: %v, %v", out, err)
	}
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// The agent's reference and a container's are apart: dvdcli's unmount does not
// take the volume from the container.
func TestContainersAndAgentShare(t *testing.T) {
	t.Parallel()
	p := volumetest.Start(t, volumetest.Config{Counting: volumetest.CountRefusing})
	a := newAgent(t, p)
	b := a.start()
	if _, err := a.dvdcli("mount", "--volumedriver=test", "--volumename=v"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.bridgeCLI("prepare", "--container", "c1", "--volume", "driver=test,name=v"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.dvdcli("unmount", "--volumedriver=test", "--volumename=v"); err != nil {
		t.Fatal(err)
	}
	if !p.States()["v"].Mounted {
		t.Error("unmounted under the container")
	}
	if _, err := a.bridgeCLI("cleanup", "--container", "c1"); err != nil {
		t.Fatal(err)
	}
	if s := p.States()["v"]; s.Mounted || s.Mounts != 1 {
		t.Errorf("plugin: %+v", s)
	}
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// All or nothing: when one of three volumes fails none stays mounted, and the
// answer tells about each.
func TestPrepareIsAllOrNothing(t *testing.T) {
	t.Parallel()
	p := volumetest.Start(t, volumetest.Config{Counting: volumetest.CountRefusing})
	a := newAgent(t, p)
	b := a.start()
	p.Add(volumetest.Rule{Method: "Mount", Volume: "bad", Do: volumetest.DoAnswer, Status: 500, Body: `{"Err":"disk is sick"}`})
	args := []string{"prepare", "--container", "c1"}
	for _, v := range []string{"one", "bad", "two"} {
		args = append(args, "--volume", "driver=test,name="+v)
	}
	out, err := a.bridgeCLI(args...)
	if err == nil || !strings.Contains(err.Error(), "disk is sick") {
		t.Errorf("got %v", err)
	}
	s := states(out)
	if s["one"] != "RELEASED" || s["two"] != "RELEASED" || s["bad"] != "FAILED" {
		t.Errorf("states %v", s)
	}
	for name, s := range p.States() {
		if s.Mounted {
			t.Errorf("%s stays mounted", name)
		}
	}
	// Undoing that fails is owed and done later.
	p.Add(volumetest.Rule{Method: "Unmount", Volume: "one", Times: 1, Do: volumetest.DoAnswer, Status: 500, Body: `{"Err":"busy"}`})
	out, err = a.bridgeCLI(args...)
	if err == nil || states(out)["one"] != "OWED" {
		t.Errorf("%v, %v", out, err)
	}
	await(t, "the owed unmount", func() bool { return !p.States()["one"].Mounted })
	p.Clear()
	if _, err := a.bridgeCLI(args...); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// Repeating a call for a container that is prepared takes nothing from it, when
// the repetition fails neither: it may be running.
func TestFailedRepetitionTakesNothing(t *testing.T) {
	t.Parallel()
	p := volumetest.Start(t, volumetest.Config{})
	a := newAgent(t, p)
	b := a.start()
	prepare := []string{"prepare", "--container", "c1", "--volume", "driver=test,name=one", "--volume", "driver=test,name=two", "--volumeopts", "size=1"}
	if _, err := a.bridgeCLI(prepare...); err != nil {
		t.Fatal(err)
	}
	// The bridge may have it for a moment, for a look at the new record.
	lock, err := a.ledger().Lock(soon(t), ledger.Key{Driver: "test", Volume: "one"})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := a.bridgeCLI(append(slices.Clone(prepare), "--deadline=300ms")...); err == nil {
		t.Errorf("repeated although the volume is locked: %v", out)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	for _, change := range []string{"size=2", ""} {
		args := append(slices.Clone(prepare[:len(prepare)-1]), change)
		if change == "" {
			args = args[:len(args)-2]
		}
		if out, err := a.bridgeCLI(args...); err == nil || !strings.Contains(err.Error(), "other volumes or options") {
			t.Errorf("options %q: %v, %v", change, out, err)
		}
	}
	// The bridge has dealt with all of it when it answers the same call well.
	out, err := a.bridgeCLI(prepare...)
	if s := states(out); err != nil || s["one"] != "MOUNTED" || s["two"] != "MOUNTED" {
		t.Errorf("%v, %v", out, err)
	}
	for _, v := range []string{"one", "two"} {
		if s := p.States()[v]; !s.Mounted || s.Mounts != 1 || s.Unmounts != 0 {
			t.Errorf("%s: %+v", v, s)
		}
	}
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// With a run directory that is full a container can be cleaned up all the same.
func TestCleanupWithoutRoom(t *testing.T) {
	t.Parallel()
	needMounts(t)
	p := volumetest.Start(t, volumetest.Config{Bind: true})
	a := newAgent(t, p)
	run := a.variable("DVDCLI_RUN_DIR")
	if err := os.Mkdir(run, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", run, "tmpfs", 0, "size=256k,mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(run, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	b := a.start()
	if _, err := a.bridgeCLI("prepare", "--container", "c1", "--volume", "driver=test,name=v"); err != nil {
		t.Fatal(err)
	}
	filler, err := os.Create(filepath.Join(run, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for err = error(nil); err == nil; {
		_, err = filler.Write(make([]byte, 4096))
	}
	if err := filler.Close(); err != nil {
		t.Fatal(err)
	}
	out, err := a.bridgeCLI("cleanup", "--container", "c1")
	if err != nil || states(out)["v"] != "RELEASED" || !strings.Contains(fmt.Sprint(out["notes"]), "no space left") {
		t.Errorf("%v, %v", out, err)
	}
	await(t, "the unmount", func() bool { return !p.States()["v"].Mounted })
	b.kill()
}

// A command's environment names volumes as mesos-module-dvdi had it, and cannot
// choose what runs.
func TestPrepareFromEnvironment(t *testing.T) {
	t.Parallel()
	p := volumetest.Start(t, volumetest.Config{Name: "rexray"})
	a := newAgent(t, p)
	b := a.start()
	base := a.env
	dir, err := os.MkdirTemp("/tmp", "dvdi-bridge-test-") // where container paths may be made
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "deep", "er")
	a.env = append(base, "DVDI_VOLUME_NAME=bare", "DVDI_VOLUME_OPTS=size=5,iops=150", "DVDI_VOLUME_DVDCLI=/bin/evil", "DVDI_VOLUME_BACKUP=daily",
		"DVDI_VOLUME_NAME9=nine", "DVDI_VOLUME_DRIVER9=rexray", "DVDI_VOLUME_CONTAINERPATH9="+path, "DVDI_VOLUME_OPTS3=size=1")
	out, err := a.bridgeCLI("prepare", "--container", "c1", "--environment")
	if err != nil {
		t.Fatal(err)
	}
	if s := states(out); s["bare"] != "MOUNTED" || s["nine"] != "MOUNTED" || len(s) != 2 {
		t.Errorf("states %v", s)
	}
	if st, err := os.Stat(path); err != nil || !st.IsDir() {
		t.Errorf("container path not made: %v", err)
	}
	if o := p.States()["bare"].Options; o["size"] != "5" || o["iops"] != "150" {
		t.Errorf("options %v", o)
	}
	b.awaitLog("DVDI_VOLUME_DVDCLI is ignored")
	b.awaitLog("DVDI_VOLUME_BACKUP is no variable for a volume and is ignored")
	for _, wrong := range []string{"DVDI_VOLUME_NAME0=x", "DVDI_VOLUME_NAME10=x", "DVDI_VOLUME_CONTAINERPATH9=relative",
		"DVDI_VOLUME_CONTAINERPATH9=/nowhere/at/all", "DVDI_VOLUME_CONTAINERPATH9=/tmp/../nowhere", "DVDI_VOLUME_OPTS=dvdi.epoch=3"} {
		a.env = append(append([]string{}, base...), "DVDI_VOLUME_NAME=other", "DVDI_VOLUME_NAME9=otherNine", wrong)
		if _, err := a.bridgeCLI("prepare", "--container", "c2", "--environment"); err == nil {
			t.Errorf("%s accepted", wrong)
		}
	}
	a.env = append(append([]string{}, base...), "DVDI_VOLUME_NAME=other", "DVDI_VOLUME_EXPLICITCREATE= TRUE ")
	if _, err := a.bridgeCLI("prepare", "--container", "c3", "--environment"); err == nil || !strings.Contains(err.Error(), "NotFound") {
		t.Errorf("explicit create: %v", err)
	}
	if s := p.States()["other"]; s.Mounts != 0 {
		t.Errorf("mounted all the same: %+v", s)
	}
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// After a restart of the caller what it does not know any more is given up, and
// only of that owner.
func TestRecoverGivesUpUnknownContainers(t *testing.T) {
	t.Parallel()
	p := volumetest.Start(t, volumetest.Config{})
	a := newAgent(t, p)
	b := a.start()
	for _, c := range [][]string{{"known", "shim"}, {"orphan", "shim"}, {"lost", "shim"}, {"foreign", "executor"}} {
		if _, err := a.bridgeCLI("prepare", "--container", c[0], "--owner", c[1], "--volume", "driver=test,name="+c[0]); err != nil {
			t.Fatal(err)
		}
	}
	b.kill() // the bridge may die in between, too
	b = a.start()
	b.awaitLog(`"recovered"`)
	out, err := a.bridgeCLI("recover", "--owner", "shim", "--known", "known", "--known", "without-volumes", "--orphan", "orphan")
	if err != nil {
		t.Fatal(err)
	}
	actions := map[string]any{}
	for _, c := range out["containers"].([]any) {
		m := c.(map[string]any)
		actions[m["containerId"].(string)] = m["action"]
	}
	want := map[string]any{"known": "KEPT", "orphan": "LEFT", "lost": "CLEANED", "without-volumes": "STRANGE"}
	for id, action := range want {
		if actions[id] != action {
			t.Errorf("%s: %v, want %v", id, actions[id], action)
		}
	}
	for name, mounted := range map[string]bool{"known": true, "orphan": true, "lost": false, "foreign": true} {
		if p.States()[name].Mounted != mounted {
			t.Errorf("%s mounted: %t", name, !mounted)
		}
	}
	if out, err := a.bridgeCLI("usage", "--container", "known", "--owner", "shim"); err != nil || out["volumes"].([]any)[0].(map[string]any)["totalBytes"] == "0" {
		t.Errorf("usage: %v, %v", out, err)
	}
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// Another user's process is refused and told why; the refusal costs nothing.
func TestOtherUsersAreRefused(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root to become somebody else")
	}
	p := volumetest.Start(t, volumetest.Config{})
	a := newAgent(t, p)
	b := a.start()
	// The socket's directories are not the guard here.
	dir, err := os.MkdirTemp("", "dvdi-peer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b.kill()
	socket := filepath.Join(dir, "s")
	address := free(t)
	a.env = append(a.env, "DVDI_BRIDGE_SOCKET="+socket, "DVDI_BRIDGE_METRICS_ADDRESS="+address)
	binary := filepath.Join(dir, "isolator-bridge")
	if out, err := exec.Command("cp", bridgeBinary, binary).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	as := func(uid uint32) (string, error) {
		cmd := exec.Command(binary, "prepare", "--container", "c1", "--volume", "driver=test,name=v")
		cmd.Env = []string{"HOME=/", "DVDI_BRIDGE_SOCKET=" + socket}
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	b = a.start()
	b.awaitLog(`"recovered"`)
	if out, err := as(65534); err == nil || !strings.Contains(out, "PermissionDenied") || !strings.Contains(out, "user 65534") {
		t.Errorf("%v: %s", err, out)
	}
	if p.States()["v"].Mounts != 0 {
		t.Error("mounted")
	}
	await(t, "the refusal to be counted", func() bool { return refusals(t, address, "other_user") > 0 })
	b.kill()
	a.env = append(a.env, "DVDI_BRIDGE_ALLOW_USERS=12,65534")
	b = a.start()
	b.awaitLog(`"recovered"`)
	if out, err := as(65534); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

func TestTopAndReport(t *testing.T) {
	t.Parallel()
	p := volumetest.Start(t, volumetest.Config{})
	a := newAgent(t, p)
	b := a.start()
	if _, err := a.bridgeCLI("prepare", "--container", "c1", "--volume", "driver=test,name=vol-with-a-name"); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bridgeBinary, "top")
	cmd.Env = a.env
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "vol-with-a-name") || !strings.Contains(string(out), "1 mounted") || !strings.Contains(string(out), "container:c1") {
		t.Errorf("%v: %s", err, out)
	}
	await(t, "the report", func() bool {
		r, err := a.bridgeCLI("report")
		return err == nil && r["finished"] == true
	})
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}
