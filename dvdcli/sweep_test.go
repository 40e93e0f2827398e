package main

import (
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
)

// sweepSample is the share of the crash sweep that runs without DVDI_LONG: one
// case in so many.
const sweepSample = 12

// sampled says whether a case of the sweep runs now. Which ones do depends on
// their names alone.
func sampled(name string) bool {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // never fails
	return long() || h.Sum32()%sweepSample == 0
}

// temper is a way in which plugins differ.
type temper struct {
	name   string
	config volumetest.Config
}

// tempers are the plugins of the sweep. With root they mount, without they
// serve directories, which leaves fewer witnesses: that a plugin forgot a mount
// cannot be told from a directory that is still there.
func tempers() []temper {
	bind := os.Geteuid() == 0
	all := []temper{
		{"counting", volumetest.Config{Counting: volumetest.CountCalls, Bind: bind}},
		{"idempotent", volumetest.Config{Counting: volumetest.CountNothing, Bind: bind}},
		{"refusing", volumetest.Config{Counting: volumetest.CountRefusing, Bind: bind}},
		{"by id", volumetest.Config{Counting: volumetest.CountIDs, Bind: bind}},
		{"claims always", volumetest.Config{Counting: volumetest.CountRefusing, Bind: bind, AlwaysMountpoint: true}},
	}
	if bind {
		all = append(all, temper{"forgets", volumetest.Config{Counting: volumetest.CountRefusing, Bind: bind, Volatile: bind, Restart: volumetest.RestartForgets}})
	}
	return append(all, temper{"remounts", volumetest.Config{Counting: volumetest.CountRefusing, Bind: bind, Volatile: bind, Restart: volumetest.RestartRemounts}})
}

// patientBox has short times, so that calls without an answer settle soon. All
// others are to be answered within them, on a busy machine too.
func patientBox(t *testing.T, p *volumetest.Plugin) *box {
	return newBox(t, p.PluginDir()).settling("4s")
}

// settling is a copy whose calls are over that long after they began.
func (b *box) settling(limit string) *box {
	return b.with("DVDCLI_CALL_TIMEOUT", limit).with("DVDCLI_CALL_MARGIN", "100ms")
}

// known mounts some volume once, as on a host where the driver was used before.
func (b *box) known(p *volumetest.Plugin) {
	b.t.Helper()
	b.must(mountArgs(p, "known")...)
	b.must(unmountArgs(p, "known")...)
}

// agree makes one more call after a crash and checks that ledger, plugin and
// mount table agree afterwards.
func (b *box) agree(p *volumetest.Plugin, then string) {
	b.t.Helper()
	b.must(func() []string {
		if then == "unmount" {
			return unmountArgs(p, "v")
		}
		return mountArgs(p, "v")
	}()...)
	if then == "mount" {
		b.mountedOnce(p)
		b.must(unmountArgs(p, "v")...)
	}
	b.nothingMounted(p)
	// And it goes on as if nothing had happened.
	b.must(mountArgs(p, "v")...)
	b.mountedOnce(p)
	b.must(unmountArgs(p, "v")...)
	b.nothingMounted(p)
}

func (b *box) mountedOnce(p *volumetest.Plugin) {
	b.t.Helper()
	if s := p.States()["v"]; !s.Mounted || s.Count > 1 || len(s.IDs) > 1 {
		b.t.Errorf("plugin: %+v, want one mount", s)
	}
	if n := stackedAt(b.t, p.Mountpoint("v")); os.Geteuid() == 0 && n != 1 {
		b.t.Errorf("%d mounts in the mount table, want 1", n)
	}
	if r := b.records(); len(r) != 1 || r[0].State != "mounted" {
		b.t.Errorf("ledger: %+v", r)
	}
}

func (b *box) nothingMounted(p *volumetest.Plugin) {
	b.t.Helper()
	if s := p.States()["v"]; s.Mounted || s.Count != 0 || len(s.IDs) != 0 {
		b.t.Errorf("plugin: %+v, want no mount", s)
	}
	if n := stackedAt(b.t, p.Mountpoint("v")); n != 0 {
		b.t.Errorf("%d mounts in the mount table, want none", n)
	}
	for _, r := range b.records() {
		// An unmount does not wait for a Create without an answer.
		if r.State != "watched" && r.State != "unsettled create" {
			b.t.Errorf("record left: %s %+v", r.State, r.Record)
		}
	}
}

// stackedAt counts the mounts at a path in this mount namespace.
func stackedAt(t testing.TB, path string) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == path {
			n++
		}
	}
	return n
}

// SIGKILL at every step between the ledger and the plugin.
func TestKilledAtEveryStep(t *testing.T) {
	scenes := map[string]struct {
		before, crash func(*box, *volumetest.Plugin) outcome
	}{
		"fresh mount": {nil, func(b *box, p *volumetest.Plugin) outcome { return b.run(mountArgs(p, "v")...) }},
		"repeated mount": {func(b *box, p *volumetest.Plugin) outcome { return b.run(mountArgs(p, "v")...) },
			func(b *box, p *volumetest.Plugin) outcome { return b.run(mountArgs(p, "v")...) }},
		"unmount": {func(b *box, p *volumetest.Plugin) outcome { return b.run(mountArgs(p, "v")...) },
			func(b *box, p *volumetest.Plugin) outcome { return b.run(unmountArgs(p, "v")...) }},
		"refused mount": {func(b *box, p *volumetest.Plugin) outcome {
			p.Add(volumetest.Rule{Method: "Mount", Volume: "v", Times: 1, Do: volumetest.DoAnswer, Status: 500, Body: `{"Err":"no"}`})
			return outcome{}
		}, func(b *box, p *volumetest.Plugin) outcome { return b.run(mountArgs(p, "v")...) }},
		"refused unmount": {func(b *box, p *volumetest.Plugin) outcome {
			p.Add(volumetest.Rule{Method: "Unmount", Volume: "v", Times: 1, Do: volumetest.DoAnswer, Status: 500, Body: `{"Err":"no"}`})
			return b.run(mountArgs(p, "v")...)
		}, func(b *box, p *volumetest.Plugin) outcome { return b.run(unmountArgs(p, "v")...) }},
	}
	var passed atomic.Int32
	t.Cleanup(func() {
		if passed.Load() == 0 {
			t.Error("no case was killed")
		}
	})
	for sceneName, scene := range scenes {
		for _, temper := range tempers() {
			for _, at := range engine.FaultPoints() {
				for nth := 1; nth <= 3; nth++ {
					for _, then := range []string{"mount", "unmount"} {
						name := fmt.Sprintf("%s, %s, %s#%d, then %s", sceneName, temper.name, at, nth, then)
						if !sampled(name) {
							continue
						}
						t.Run(name, func(t *testing.T) {
							t.Parallel()
							p := volumetest.Start(t, temper.config)
							b := newBox(t, p.PluginDir())
							b.known(p)
							if scene.before != nil {
								scene.before(b, p)
							}
							out := scene.crash(b.settling("2s").with("DVDCLI_FAULT", fmt.Sprintf("%s#%d", at, nth)), p)
							if !out.killed {
								return // this scene does not pass the point so often
							}
							passed.Add(1)
							p.Clear()
							if temper.config.Restart != "" {
								p.Kill()
								p.Restart()
							}
							b.agree(p, then)
						})
					}
				}
			}
		}
	}
}

// SIGKILL during each call to the plugin, which goes on: it has its effect at
// once, with the next call, or after the call that followed.
func TestKilledDuringCall(t *testing.T) {
	for _, temper := range tempers() {
		for _, method := range []string{"Get", "Create", "Mount", "Unmount"} {
			for _, when := range []volumetest.Instant{volumetest.Before, volumetest.After} {
				for _, then := range []string{"mount", "unmount"} {
					name := fmt.Sprintf("%s, %s %s its effect, then %s", temper.name, method, when, then)
					if !sampled(name) && !strings.HasPrefix(name, "refusing") {
						continue
					}
					t.Run(name, func(t *testing.T) {
						t.Parallel()
						p := volumetest.Start(t, temper.config)
						b := patientBox(t, p)
						b.known(p)
						args := mountArgs(p, "v")
						if method == "Unmount" {
							b.must(args...)
							args = unmountArgs(p, "v")
						}
						p.Add(volumetest.Rule{Method: method, Volume: "v", Times: 1, At: when, Do: volumetest.DoHold})
						cmd := b.command(args...)
						if err := cmd.Start(); err != nil {
							t.Fatal(err)
						}
						p.AwaitHeld(1)
						if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
							t.Fatal(err)
						}
						if err := cmd.Wait(); err == nil {
							t.Fatal("not killed")
						}
						p.Release()
						b.agree(p, then)
					})
				}
			}
		}
	}
}

// The plugin hangs in Mount; dvdcli gives up in time; the unmount that follows
// every failed mount waits for the driver's time and finds nothing; then the
// mount is done after all.
func TestMountThatComesAfterItsUnmount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: a late plain directory cannot be told from an early one")
	}
	p := volumetest.Start(t, volumetest.Config{Counting: volumetest.CountRefusing, Bind: true})
	b := patientBox(t, p)
	b.known(p)
	p.Add(volumetest.Rule{Method: "Mount", Volume: "v", Times: 1, Do: volumetest.DoHold})
	if text := b.fails(exitUnsettled, mountArgs(p, "v")...); !strings.Contains(text, "without an answer") {
		t.Error(text)
	}
	b.must(unmountArgs(p, "v")...)
	p.Release()
	await(t, "the late mount", func() bool { return stackedAt(t, p.Mountpoint("v")) == 1 })
	b.must("ledger", "repair", "--yes")
	b.nothingMounted(p)
	expect(t, p, "v", 1, 1)
}

// SIGTERM during a call: dvdcli ends at once, says so, and leaves a ledger that
// the next call understands.
func TestSignalsEndCleanly(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			p := volumetest.Start(t, volumetest.Config{Counting: volumetest.CountRefusing})
			b := newBox(t, p.PluginDir())
			p.Add(volumetest.Rule{Method: "Mount", Volume: "v", Times: 1, Do: volumetest.DoHold})
			cmd := b.command(mountArgs(p, "v")...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			p.AwaitHeld(1)
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != exitUnsettled {
				t.Errorf("ended with %v", err)
			}
			if r := b.records(); len(r) != 1 || r[0].State != "unsettled mount" {
				t.Errorf("ledger: %+v", r)
			}
			p.Release()
			await(t, "mounted", func() bool { return p.States()["v"].Mounted })
			b.must("ledger", "repair", "--yes", "--now")
			b.nothingMounted(p)
		})
	}
}

// Deadlines hold whatever the plugin does, and one volume's trouble stays its
// own.
func TestHungPluginCall(t *testing.T) {
	t.Parallel()
	p := volumetest.Start(t, volumetest.Config{})
	b := newBox(t, p.PluginDir())
	b.must(mountArgs(p, "v")...)
	p.Add(volumetest.Rule{Method: "Unmount", Volume: "v", Do: volumetest.DoHold})
	text := b.fails(exitUnsettled, unmountArgs(p, "v", "--deadline=4s")...)
	for _, want := range []string{"unmount", `"v"`, `"test"`, "after"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q lacks %q", text, want)
		}
	}
	b.must(mountArgs(p, "other")...)
	b.must(unmountArgs(p, "other")...)
	text = b.fails(exitUnsettled, mountArgs(p, "v", "--deadline=4s")...)
	if !strings.Contains(text, "no answer") {
		t.Error(text)
	}
	p.Clear()
	p.Release()
}

func TestLedgerSurvivesDamage(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{})
	b := newBox(t, p.PluginDir())
	b.must(mountArgs(p, "v")...)
	files, err := filepath.Glob(filepath.Join(b.dir, "run", "volumes", "*.json"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if err := os.Truncate(files[0], 10); err != nil {
		t.Fatal(err)
	}
	if out := b.run("ledger", "verify"); out.code != exitFindings {
		t.Errorf("verify: %+v", out)
	}
	out := b.run(mountArgs(p, "v")...)
	if out.code != 0 || !strings.Contains(out.stderr, "set aside") {
		t.Errorf("mount: %+v", out)
	}
	if text := b.must("ledger", "list"); !strings.Contains(text, "set aside") {
		t.Error(text)
	}
	b.must(unmountArgs(p, "v")...)
	expect(t, p, "v", 1, 1)
}
