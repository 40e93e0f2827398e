package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
)

// mountingPlugin is one in a process of its own that really mounts.
func mountingPlugin(t *testing.T) *volumetest.Plugin {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	return volumetest.StartProcess(t, volumetest.Config{Bind: true, Counting: volumetest.CountNothing})
}

// The isolator unmounts after every failed mount. A task whose mount is refused
// must not take the volume from a container of Docker that way; an unmount that
// follows no failure still ends what dvdcli 0.2 mounted.
func TestUnmountAfterARefusalTakesNothing(t *testing.T) {
	for name, opts := range map[string]string{"policy": "--volumeopts=evil=1", "epoch": "--volumeopts=dvdi.epoch=never",
		"options": "--volumeopts==1"} {
		t.Run(name, func(t *testing.T) {
			p := mountingPlugin(t)
			b := newBox(t, p.PluginDir())
			b.policy("drivers:\n  test:\n    forbiddenOptions: [evil]\n")
			post(t, p.Socket(), "Create", `{"Name":"v"}`)
			post(t, p.Socket(), "Mount", `{"Name":"v","ID":"docker"}`)
			for range 3 { // the task is tried again
				if out := b.run(mountArgs(p, "v", opts)...); out.code == 0 {
					t.Fatalf("mounted: %+v", out)
				}
				if out := b.run(unmountArgs(p, "v")...); out.code != 0 || !strings.Contains(out.stderr, "left alone") {
					t.Fatalf("unmount: %+v", out)
				}
			}
			expect(t, p, "v", 1, 0)
			b.must(unmountArgs(p, "v")...)
			expect(t, p, "v", 1, 1)
			b.noRecords()
		})
	}
}

// A refusal counts for the unmount that follows it and no longer: what the same
// agent mounts afterwards it can unmount.
func TestRefusalEndsWithAMount(t *testing.T) {
	p := mountingPlugin(t)
	b := newBox(t, p.PluginDir())
	b.policy("drivers:\n  test:\n    forbiddenOptions: [evil]\n")
	if out := b.run(mountArgs(p, "v", "--volumeopts=evil=1")...); out.code == 0 {
		t.Fatalf("mounted: %+v", out)
	}
	b.must(mountArgs(p, "v")...)
	b.must(unmountArgs(p, "v")...)
	expect(t, p, "v", 1, 1)
	post(t, p.Socket(), "Mount", `{"Name":"v"}`) // by dvdcli 0.2
	b.must(unmountArgs(p, "v")...)
	expect(t, p, "v", 2, 2)
}

// A call whose plugin was killed is over at once: the next mount does not wait
// for the end of its time, which would be later than its own deadline.
func TestCallEndsWithItsPlugin(t *testing.T) {
	for _, method := range []string{"Create", "Mount", "Unmount"} {
		t.Run(method, func(t *testing.T) {
			p := mountingPlugin(t)
			b := newBox(t, p.PluginDir())
			p.Add(volumetest.Rule{Method: method, Times: 1, Do: volumetest.DoExit})
			args := mountArgs(p, "v")
			if method == "Unmount" {
				b.must(args...)
				args = unmountArgs(p, "v")
			}
			if out := b.run(args...); out.code == 0 {
				t.Fatalf("%+v", out)
			}
			p.Restart()
			b.must(mountArgs(p, "v", "--deadline=50s")...)
			b.must(unmountArgs(p, "v")...)
			b.noRecords()
		})
	}
}

// A Create that goes on keeps nobody from unmounting: nothing is mounted.
func TestUnmountDoesNotWaitForACreate(t *testing.T) {
	p := mountingPlugin(t)
	b := newBox(t, p.PluginDir())
	p.Add(volumetest.Rule{Method: "Create", Times: 1, Do: volumetest.DoHold})
	cmd := b.command(mountArgs(p, "v")...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.AwaitHeld(1)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it tells the signal
	b.must(unmountArgs(p, "v", "--deadline=1m")...)
	expect(t, p, "v", 0, 0)
	p.Release()
	b.must(mountArgs(p, "v", "--deadline=1m")...)
	b.must(unmountArgs(p, "v")...)
	b.noRecords()
}

// A mount whose caller was killed at once leaves time for the next one, by the
// times that are used where the policy names none.
func TestDefaultTimesLeaveTheNextMountItsTurn(t *testing.T) {
	d := engine.DefaultTimeouts()
	for call, limit := range map[string]time.Duration{"Create": d.Create, "Mount": d.Mount, "Unmount": d.Unmount, "Remove": d.Remove} {
		if over := limit + d.Margin; over >= mountDeadline {
			t.Errorf("a %s is over after %s, and a mount may take %s", call, over, mountDeadline)
		}
	}
}
