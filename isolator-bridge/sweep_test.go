package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/isolator"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/reaper"
)

// faultPoints are the places where the bridge can be killed while it prepares
// or cleans up a container: all of them with DVDI_LONG set, otherwise the
// bridge's own and every third of the engine's, which has a sweep of its own.
func faultPoints() []string {
	var out []string
	for _, p := range isolator.FaultPoints() {
		out = append(out, string(p))
	}
	for n, p := range engine.FaultPoints() {
		if long() {
			out = append(out, string(p), string(p)+"#2")
		} else if n%3 == 2 {
			out = append(out, string(p)+"#2")
		}
	}
	return out
}

func long() bool { return os.Getenv("DVDI_LONG") != "" }

// The bridge is killed at every step of a container's life. Whatever its caller
// does afterwards, repeat the call or give the container up, each volume is
// mounted once while the container needs it, and not mounted in the end.
func TestBridgeKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	for _, point := range faultPoints() {
		for _, during := range []string{"prepare", "cleanup"} {
			for _, repeat := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s during %s, repeated: %t", point, during, repeat), func(t *testing.T) {
					t.Parallel()
					killedAt(t, point, during, repeat)
				})
			}
		}
	}
}

func killedAt(t *testing.T, point, during string, repeat bool) {
	p := volumetest.Start(t, volumetest.Config{Counting: volumetest.CountRefusing})
	a := newAgent(t, p)
	prepare := []string{"prepare", "--container", "c1", "--volume", "driver=test,name=one", "--volume", "driver=test,name=two"}
	cleanup := []string{"cleanup", "--container", "c1"}
	if during == "cleanup" {
		b := a.start()
		if _, err := a.bridgeCLI(prepare...); err != nil {
			t.Fatal(err)
		}
		b.kill()
	}
	env := a.env
	a.env = append(env, "DVDI_BRIDGE_FAULT="+point)
	b := a.start()
	args := prepare
	if during == "cleanup" {
		args = cleanup
	}
	// It fails where the bridge dies; points that are not on the way let it pass.
	if _, err := a.bridgeCLI(args...); err != nil {
		t.Logf("killed: %.60s", err)
	}
	b.kill()
	a.env = env
	b = a.start()
	if repeat && during == "prepare" {
		out, err := a.bridgeCLI(prepare...)
		if err != nil {
			t.Fatal(err)
		}
		for name, s := range states(out) {
			if s != "MOUNTED" || !p.States()[name].Mounted {
				t.Errorf("%s: %s, %+v", name, s, p.States()[name])
			}
		}
		if _, err := a.bridgeCLI(cleanup...); err != nil {
			t.Errorf("cleanup: %v", err)
		}
	} else if repeat {
		if _, err := a.bridgeCLI(cleanup...); err != nil {
			t.Errorf("cleanup: %v", err)
		}
	} else if _, err := a.bridgeCLI("recover", "--none"); err != nil {
		t.Errorf("recover: %v", err)
	}
	a.nothingLeft(p, "one", "two")
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// A container whose driver hangs holds up, at the start of the bridge, neither
// the cleaning up of others nor what else the bridge is for.
func TestStartBesideAHungDriver(t *testing.T) {
	t.Parallel()
	p := volumetest.Start(t, volumetest.Config{Counting: volumetest.CountRefusing})
	a := newAgent(t, p)
	a.env = append(a.env, "DVDCLI_CALL_TIMEOUT=5m") // nothing here may hang on it
	b := a.start()
	for _, c := range []string{"a-hung", "b-other"} {
		if _, err := a.bridgeCLI("prepare", "--container", c, "--volume", "driver=test,name="+c); err != nil {
			t.Fatal(err)
		}
	}
	p.Add(volumetest.Rule{Method: "Unmount", Volume: "a-hung", Do: volumetest.DoHold})
	cleanup := make(chan error, 1)
	go func() {
		_, err := a.bridgeCLI("cleanup", "--container", "a-hung")
		cleanup <- err
	}()
	p.AwaitHeld(1)
	b.kill()
	if <-cleanup == nil {
		t.Fatal("cleaned up although the driver hangs")
	}
	// The cleaning up of the other one was cut short before it began.
	files, err := filepath.Glob(filepath.Join(a.variable("DVDCLI_RUN_DIR"), "containers", "*.json"))
	if err != nil || len(files) != 2 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, bytes.ReplaceAll(data, []byte(`"prepared"`), []byte(`"cleaning"`)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b = a.start()
	await(t, "the other container to be cleaned up", func() bool { return !p.States()["b-other"].Mounted })
	if _, err := a.bridgeCLI("prepare", "--container", "c", "--volume", "driver=test,name=c"); err != nil {
		t.Error(err)
	}
	p.Clear()
	p.Release()
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// A mount that completes after its caller gave up is undone, also where nobody
// would have been given its path.
func TestLateMountAtAForbiddenPath(t *testing.T) {
	t.Parallel()
	needMounts(t)
	p := volumetest.Start(t, volumetest.Config{Counting: volumetest.CountRefusing, Bind: true})
	a := newAgent(t, p)
	policy := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(policy, []byte("defaults:\n  root: /nowhere\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.env = append(a.env, "DVDCLI_POLICY="+policy, "DVDCLI_CALL_TIMEOUT=3s", "DVDCLI_CALL_MARGIN=1ms")
	b := a.start()
	p.Add(volumetest.Rule{Method: "Mount", Volume: "v", Times: 1, Do: volumetest.DoHold})
	if out, err := a.dvdcli("mount", "--volumedriver=test", "--volumename=v"); err == nil {
		t.Fatalf("mounted at %s", out)
	}
	await(t, "the look-out", func() bool {
		rec, err := a.ledger().Peek(ledger.Key{Driver: "test", Volume: "v"})
		return err == nil && rec != nil && rec.Phase == ledger.PhaseWatched
	})
	p.Release()
	await(t, "the mount to be undone", func() bool { return p.States()["v"].Unmounts == 1 })
	a.nothingLeft(p, "v")
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// nothingLeft waits until the volumes are unmounted and the ledger is empty.
func (a *agent) nothingLeft(p *volumetest.Plugin, volumes ...string) {
	a.t.Helper()
	for _, v := range volumes {
		await(a.t, v+" to be unmounted", func() bool { return !p.States()[v].Mounted })
		if s := p.States()[v]; s.Mounts != s.Unmounts {
			a.t.Errorf("%s: %+v", v, s)
		}
	}
	await(a.t, "an empty ledger", func() bool {
		items, err := a.ledger().List()
		if err != nil {
			a.t.Fatal(err)
		}
		// A mount that got no answer is looked out for for a while.
		return !slices.ContainsFunc(items, func(i ledger.Listed) bool {
			return i.Record == nil || i.Record.Phase != ledger.PhaseWatched
		})
	})
}

// ledger opens the agent's ledger.
func (a *agent) ledger() *ledger.Ledger {
	a.t.Helper()
	l, err := ledger.Open(ledger.Config{RunDir: a.variable("DVDCLI_RUN_DIR"), StateDir: a.variable("DVDCLI_STATE_DIR")})
	if err != nil {
		a.t.Fatal(err)
	}
	return l
}

func (a *agent) variable(name string) string {
	for _, kv := range a.env {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}

// The bridge is killed while it gives up a leak.
func TestBridgeKilledWhileReaping(t *testing.T) {
	t.Parallel()
	var points []string
	for _, p := range reaper.FaultPoints() {
		points = append(points, string(p))
	}
	for _, p := range []engine.FaultPoint{engine.FaultLocked, engine.FaultIntent, engine.FaultAnswered, engine.FaultReleased, engine.FaultDeleted} {
		points = append(points, string(p))
	}
	for _, point := range points {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			r := newLeakRig(t, volumetest.Config{Counting: volumetest.CountRefusing})
			r.run("c1", "v")
			r.run("c2", "w")
			r.mesos.lists("c2")
			env := r.env
			r.env = append(env, "DVDI_BRIDGE_FAULT="+point)
			b := r.start()
			err := <-b.done // it dies of the fault
			b.cmd = nil
			if err == nil {
				t.Fatal("the bridge ended well")
			}
			r.env = env
			b = r.start()
			r.goes("v")
			r.stays("w")
			if s := r.plugin.States()["v"]; s.Mounts != 1 || s.Unmounts != 1 {
				t.Errorf("%+v", s)
			}
			if err := b.stop(); err != nil {
				t.Error(err)
			}
		})
	}
}
