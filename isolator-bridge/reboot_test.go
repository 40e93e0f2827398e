package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
)

// reboot makes what is on disk look as after a reboot: the run directory is
// empty, the state directory was written in another boot, mounts and plugin are
// gone.
func (r *leakRig) reboot() {
	r.t.Helper()
	r.plugin.Kill()
	if err := os.RemoveAll(r.variable("DVDCLI_RUN_DIR")); err != nil {
		r.t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(r.variable("DVDCLI_STATE_DIR"), "mounts", "*.json"))
	if err != nil {
		r.t.Fatal(err)
	}
	boot := []byte(r.ledger().BootID())
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			r.t.Fatal(err)
		}
		if err := os.WriteFile(file, bytes.ReplaceAll(data, boot, []byte("11111111-2222-3333-4444-555555555555")), 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
}

// After a reboot a plugin mounts again what it had. No container needs it any
// more: it is unmounted, whether the plugin comes up before the bridge or after.
// A volume that was mounted since stays.
func TestReboot(t *testing.T) {
	t.Parallel()
	for _, late := range []bool{false, true} {
		name := "plugin up before the bridge"
		if late {
			name = "plugin up after the bridge"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			needMounts(t)
			r := newLeakRig(t, volumetest.Config{Counting: volumetest.CountRefusing, Restart: volumetest.RestartRemounts, Volatile: true, Bind: true})
			r.run("c1", "old", "again")
			r.reboot()
			if !late {
				r.plugin.Restart()
				r.run("c2", "again")
			}
			r.mesos.lists("c2")
			b := r.start()
			b.awaitLog(`"recovered"`)
			if late {
				r.plugin.Restart()
				r.run("c2", "again")
			}
			r.goes("old")
			r.stays("again")
			items, err := r.ledger().List()
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range items {
				if i.Record == nil || i.Record.Volume == "old" && i.Record.Phase != ledger.PhaseWatched {
					t.Errorf("left: %+v", i.Record)
				}
			}
			if err := b.stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Volumes that containers of before the ledger named, or of which the ledger was
// lost, are adopted for the living and undone for the dead, as soon as the agent
// tells which is which.
func TestMountsWithoutARecord(t *testing.T) {
	t.Parallel()
	needMounts(t)
	for name, late := range map[string]bool{"agent up before the bridge": false, "agent up after the bridge": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newLeakRig(t, volumetest.Config{Bind: true, Counting: volumetest.CountNothing})
			r.run("living", "needed")
			r.run("dead", "unneeded")
			for _, dir := range []string{"DVDCLI_RUN_DIR", "DVDCLI_STATE_DIR"} {
				if err := os.RemoveAll(r.variable(dir)); err != nil {
					t.Fatal(err)
				}
			}
			r.mesos.lists("living")
			if late {
				r.mesos.set(func(f *fakeAgent) { f.status, f.body = 503, "Agent has not finished recovery" })
			}
			b := r.start()
			b.awaitLog(`"recovered"`)
			if late {
				r.stays("unneeded")
				r.mesos.lists("living")
			}
			r.goes("unneeded")
			r.stays("needed")
			b.awaitLog("adopted the mount")
			if rec, err := r.ledger().Peek(ledger.Key{Driver: "test", Volume: "needed"}); err != nil || rec == nil || !rec.HeldBy("agent") {
				t.Errorf("%+v, %v", rec, err)
			}
			report, err := r.bridgeCLI("report")
			if err != nil || !strings.Contains(fmt.Sprint(report["items"]), "adopted the mount") {
				t.Errorf("%v, %v", report, err)
			}
			r.mesos.lists("another")
			r.goes("needed")
			if err := b.stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// needMounts skips tests in which only a mount table shows what is there.
func needMounts(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
}

func unmountAt(path string) error { return unix.Unmount(path, 0) }
