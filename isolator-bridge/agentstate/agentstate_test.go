package agentstate

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answers is an agent that says what a test wants.
type answers struct {
	containers []Container
	loads      []Workload
	err        error
}

func (a *answers) Containers(context.Context) ([]Container, error) { return a.containers, a.err }
func (a *answers) Workloads(context.Context) ([]Workload, error)   { return a.loads, a.err }

// world is a host without processes, but for what a test puts there.
type world struct {
	t    *testing.T
	dir  string
	host Host
}

func newWorld(t *testing.T) *world {
	dir := t.TempDir()
	w := &world{t: t, dir: dir, host: Host{Proc: filepath.Join(dir, "proc"), Cgroups: filepath.Join(dir, "cgroup"), WorkDir: filepath.Join(dir, "work")}}
	for _, sub := range []string{"proc", "cgroup", "checkpoints"} {
		w.mkdir(sub)
	}
	return w
}

func (w *world) mkdir(path string) {
	w.t.Helper()
	if err := os.MkdirAll(filepath.Join(w.dir, path), 0o755); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) write(path, text string) {
	w.t.Helper()
	w.mkdir(filepath.Dir(path))
	if err := os.WriteFile(filepath.Join(w.dir, path), []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) process(pid, cgroup, environ, mountinfo, cwd string) {
	w.t.Helper()
	dir := "proc/" + pid
	w.write(dir+"/cgroup", cgroup)
	w.write(dir+"/environ", environ)
	w.write(dir+"/mountinfo", mountinfo)
	for name, target := range map[string]string{"cwd": cwd, "root": "/"} {
		if err := os.Symlink(target, filepath.Join(w.dir, dir, name)); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) watcher(a Agent) *Watcher {
	w.t.Helper()
	out, err := NewWatcher(filepath.Join(w.dir, "checkpoints"), a, w.host, filepath.Join(w.dir, "named.json"), untagged)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

func TestTracesOfContainers(t *testing.T) {
	w := newWorld(t)
	w.mkdir("cgroup/memory/mesos/by-v1")
	w.mkdir("cgroup/mesos/by-v2")
	w.mkdir("cgroup/cpu/mesos/parent/mesos/by-nested")
	w.process("10", "0::/mesos/by-cgroup\n", "", "", "/")
	w.process("11", "", "A=b\x00MESOS_SANDBOX=/x/runs/by-environ\x00", "", "/")
	w.process("12", "", "", "1 2 0:3 / /x/runs/by-mount/vol rw - ext4 a rw\n", "/")
	w.process("13", "", "", "", "/x/runs/by-cwd")
	w.process("14", "", "PATH=/x/not-by-prefix-1:/by-suffix", "", "/")
	w.mkdir("proc/15") // ended while it was looked at
	w.process("16", "", "X=by:colon", "", "/")
	// Two processes of one mount namespace with roots of their own: what the one
	// does not see the other may.
	w.process("17", "", "", "1 2 0:3 / /x rw - ext4 a rw\n", "/")
	w.process("18", "", "", "1 2 0:3 / /x/runs/by-root/vol rw - ext4 a rw\n", "/elsewhere")
	root := filepath.Join(w.dir, "proc", "18", "root")
	if err := errors.Join(os.Remove(root), os.Symlink("/chroot", root)); err != nil {
		t.Fatal(err)
	}
	for _, pid := range []string{"17", "18"} {
		w.mkdir("proc/" + pid + "/ns")
		if err := os.Symlink("mnt:[1]", filepath.Join(w.dir, "proc", pid, "ns", "mnt")); err != nil {
			t.Fatal(err)
		}
	}
	ids := []string{"by-v1", "by-v2", "by-nested", "by-cgroup", "by-environ", "by-mount", "by-cwd", "by:colon", "by-root", "by-prefix", "not-by-prefix", "gone"}
	traces, err := w.host.Traces(ids)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids[:9] {
		if traces[id] == "" {
			t.Errorf("%s: no trace", id)
		}
	}
	for _, id := range ids[9:] {
		if traces[id] != "" {
			t.Errorf("%s: %s", id, traces[id])
		}
	}
}

// A process that may not be looked at could be anybody's.
func TestUnreadableProcessProvesNothing(t *testing.T) {
	w := newWorld(t)
	w.process("10", "", "", "", "/")
	// A directory cannot be read as a file: an error, for root, too.
	if err := os.Remove(filepath.Join(w.dir, "proc/10/environ")); err != nil {
		t.Fatal(err)
	}
	w.mkdir("proc/10/environ")
	p := w.watcher(&answers{}).Prove(context.Background(), View{Listed: map[string]Container{"other": {}}}, []string{"c"})
	if p["c"].Gone || !strings.Contains(p["c"].Reason, "process 10") {
		t.Errorf("%+v", p["c"])
	}
}

func TestProofs(t *testing.T) {
	w := newWorld(t)
	w.mkdir("cgroup/mesos/with-cgroup")
	w.write("work/meta/slaves/S/frameworks/F/executors/E/runs/with-sentinel/executor.sentinel", "")
	listed := map[string]Container{"alive": {ID: "alive"}}
	ended := []Workload{{Containers: []string{"ended"}, Ended: true}, {Containers: []string{"again"}, Ended: true}, {Containers: []string{"again"}}}
	for _, test := range []struct {
		name, id string
		view     View
		agent    answers
		gone     bool
	}{
		{"not listed among others", "c", View{Listed: listed}, answers{}, true},
		{"listed", "alive", View{Listed: listed}, answers{}, false},
		{"with a control group", "with-cgroup", View{Listed: listed}, answers{}, false},
		{"agent does not answer", "c", View{AgentErr: ErrUnauthorized}, answers{}, false},
		{"empty list", "c", View{Listed: map[string]Container{}}, answers{}, false},
		{"empty list, and an end stated", "ended", View{Listed: map[string]Container{}}, answers{loads: ended}, true},
		{"empty list, one task ended and another not", "again", View{Listed: map[string]Container{}}, answers{loads: ended}, false},
		{"empty list, no state", "ended", View{Listed: map[string]Container{}}, answers{err: errors.New("no")}, false},
		{"empty list, an end on disk", "with-sentinel", View{Listed: map[string]Container{}}, answers{}, true},
	} {
		if p := w.watcher(&test.agent).Prove(context.Background(), test.view, []string{test.id}); p[test.id].Gone != test.gone {
			t.Errorf("%s: %+v", test.name, p[test.id])
		}
	}
}

// What a container named is remembered over damage and over a restart, and
// forgotten with the container.
func TestMemory(t *testing.T) {
	w := newWorld(t)
	key := ledger.Key{Driver: "d", Volume: "v"}
	live := true
	isLive := func(ledger.Key) bool { return live }
	w.write("checkpoints/c/volumes", `{"volumes":[{"driver":"d","name":"v"}]}`)
	a := &answers{}
	first := w.watcher(a)
	v := first.Look(context.Background())
	if err := first.Remember(v, isLive); err != nil {
		t.Fatal(err)
	}
	w.write("checkpoints/c/volumes", `{"volu`)
	second := w.watcher(a)
	v = second.Look(context.Background())
	if got := second.Named(v)[key]; !reflect.DeepEqual(got, []string{"c"}) {
		t.Errorf("named by %v", got)
	}
	if dark := second.Dark(v); len(dark) != 0 {
		t.Errorf("dark: %+v", dark)
	}
	w.write("checkpoints/unknown/volumes", "")
	v = second.Look(context.Background())
	if dark := second.Dark(v); len(dark) != 1 || dark[0].ContainerID != "unknown" {
		t.Errorf("dark: %+v", dark)
	}
	if err := os.RemoveAll(filepath.Join(w.dir, "checkpoints/c")); err != nil {
		t.Fatal(err)
	}
	v = second.Look(context.Background())
	if err := second.Remember(v, isLive); err != nil {
		t.Fatal(err)
	}
	if _, known := second.Remembered("c"); !known {
		t.Error("forgotten while its volume is mounted")
	}
	live = false
	if err := second.Remember(v, isLive); err != nil {
		t.Fatal(err)
	}
	if _, known := second.Remembered("c"); known {
		t.Error("remembered for ever")
	}
}

// untagged stands for the names that the engine knows drivers by.
func untagged(key ledger.Key) ledger.Key {
	return ledger.Key{Driver: strings.TrimSuffix(key.Driver, ":latest"), Volume: key.Volume}
}

// A task may call the driver by another of its names than the ledger does: its
// volume is in use all the same.
func TestCheckpointsByAnyNameOfTheDriver(t *testing.T) {
	w := newWorld(t)
	w.write("checkpoints/c/volumes", `{"volumes":[{"driver":"d:latest","name":"v"}]}`)
	watcher := w.watcher(&answers{})
	for range 2 { // the second time as it was remembered
		v := watcher.Look(context.Background())
		if got := watcher.Named(v)[ledger.Key{Driver: "d", Volume: "v"}]; !reflect.DeepEqual(got, []string{"c"}) {
			t.Errorf("named by %v", got)
		}
	}
}

// A replaced checkpoint is read again, whatever its size.
func TestCheckpointsAreReadAgainWhenReplaced(t *testing.T) {
	w := newWorld(t)
	c := NewCheckpoints(filepath.Join(w.dir, "checkpoints"), untagged)
	for _, name := range []string{"a", "b", "c"} {
		w.write("checkpoints/x/new", `{"volumes":[{"driver":"d","name":"`+name+`"}]}`)
		if err := os.Rename(filepath.Join(w.dir, "checkpoints/x/new"), filepath.Join(w.dir, "checkpoints/x/volumes")); err != nil {
			t.Fatal(err)
		}
		got, err := c.Read()
		if err != nil || len(got) != 1 || len(got[0].Volumes) != 1 || got[0].Volumes[0].Volume != name {
			t.Errorf("%+v, %v", got, err)
		}
	}
	big := strings.Repeat(" ", maxCheckpoint+1)
	for _, bad := range []string{"", "  \n", "{", `{"volumes":[{"driver":"d"}]}`, big, "[]"} {
		w.write("checkpoints/x/volumes", bad)
		// The same inode may be written twice within the clock's grain.
		c = NewCheckpoints(c.dir, untagged)
		if got, err := c.Read(); err != nil || len(got) != 1 || got[0].Problem == "" {
			t.Errorf("%.20q: %+v, %v", bad, got, err)
		}
	}
}

func TestCredentialFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c")
	for text, want := range map[string]Credential{
		`{"principal":"p","secret":"s"}`: {Principal: "p", Secret: "s"},
		"p s\n":                          {Principal: "p", Secret: "s"},
		"":                               {},
		"{}":                             {},
		"one two three":                  {},
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := LoadCredential(file)
		if got != want || (err == nil) != (want != Credential{}) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

// A hung agent costs its time-out, no more.
func TestCallsEnd(t *testing.T) {
	api, err := NewAPI(APIConfig{URL: "http://127.0.0.1:1", Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	if _, err := api.Containers(context.Background()); err == nil {
		t.Error("nobody listens there")
	}
}
