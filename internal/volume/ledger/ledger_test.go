package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// lockHelper in the environment makes the test binary take a lock and keep it.
const lockHelper = "LEDGER_TEST_LOCK"

func TestMain(m *testing.M) {
	if path := os.Getenv(lockHelper); path != "" {
		if _, err := TryLockFile(path); err != nil {
			os.Exit(1)
		}
		_, _ = os.Stdout.WriteString("locked\n")
		select {} // until killed
	}
	goleak.VerifyTestMain(m)
}

func open(t *testing.T, dir string) *Ledger {
	t.Helper()
	l, err := Open(Config{RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state")})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func lock(t *testing.T, l *Ledger, key Key) *Entry {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	e, err := l.Lock(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func closeEntry(t *testing.T, e *Entry) {
	t.Helper()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, e *Entry) Loaded {
	t.Helper()
	got, err := e.Load()
	if err != nil {
		t.Fatal(err)
	}
	return got
}

var sample = Key{Driver: "d", Volume: "v"}

func record() *Record {
	return &Record{Driver: "d", Volume: "v", Phase: PhaseMounted, MountID: "id", Path: "/p", Kind: KindMountPoint, Device: 5,
		Holders: []Holder{{Name: "agent", Since: time.Unix(1, 0).UTC()}}, Options: map[string]string{"size": "5"},
		PublishContext: map[string]string{"device": "/dev/sdb"}, Call: &Call{Op: OpMount, StartedBoot: time.Second}}
}

func TestRecordSurvivesReopening(t *testing.T) {
	dir := t.TempDir()
	e := lock(t, open(t, dir), sample)
	want := record()
	if err := e.Save(want); err != nil {
		t.Fatal(err)
	}
	closeEntry(t, e)

	e = lock(t, open(t, dir), sample)
	defer closeEntry(t, e)
	got := load(t, e)
	a, b := asJSON(t, want), asJSON(t, got.Current)
	if a != b || got.Hint != nil || len(got.SetAside) != 0 {
		t.Errorf("saved %s\nloaded %s\n%+v", a, b, got)
	}
	if err := e.Delete(); err != nil {
		t.Fatal(err)
	}
	if got := load(t, e); got.Current != nil {
		t.Errorf("after Delete: %+v", got)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// What is in the run directory counts only in the boot that wrote it.
func TestAnotherBootsRecordIsAHint(t *testing.T) {
	dir := t.TempDir()
	boot := func(name string) *Ledger {
		l, err := Open(Config{RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state"),
			Clock: Clock{BootID: func() (string, error) { return name, nil }}})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	e := lock(t, boot("one"), sample)
	if err := e.Keep(record(), true); err != nil {
		t.Fatal(err)
	}
	if err := e.Save(record()); err != nil {
		t.Fatal(err)
	}
	closeEntry(t, e)
	e = lock(t, boot("two"), sample)
	defer closeEntry(t, e)
	if got := load(t, e); got.Current != nil || got.Hint == nil || got.Hint.BootID != "one" {
		t.Errorf("%+v", got)
	}
	items, err := e.ledger.List()
	if err != nil || len(items) != 1 || !items[0].Hint {
		t.Errorf("%+v %v", items, err)
	}
	if r, err := e.ledger.Peek(sample); r != nil || err != nil {
		t.Errorf("peek: %+v %v", r, err)
	}
}

func TestDamagedFilesAreSetAside(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "cut": `{"version":1,"dri`, "zeros": strings.Repeat("\x00", 100), "no version": `{"driver":"d"}`,
		"of another volume": `{"version":1,"driver":"d","volume":"w","phase":"mounted","path":"/p"}`,
		"unknown phase":     `{"version":1,"driver":"d","volume":"v","phase":"flying"}`,
		"mounted nowhere":   `{"version":1,"driver":"d","volume":"v","phase":"mounted"}`,
	} {
		t.Run(name, func(t *testing.T) {
			l := open(t, t.TempDir())
			path := filepath.Join(l.RunDir(), dirVolumes, sample.fileName())
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			items, err := l.List()
			if err != nil || len(items) != 1 || items[0].Err == nil {
				t.Errorf("list: %+v %v", items, err)
			}
			e := lock(t, l, sample)
			defer closeEntry(t, e)
			got := load(t, e)
			if got.Current != nil || len(got.SetAside) != 1 {
				t.Fatalf("%+v", got)
			}
			if data, err := os.ReadFile(got.SetAside[0].File); err != nil || string(data) != content {
				t.Errorf("kept %q, %v", data, err)
			}
			if kept, err := l.Kept(); err != nil || len(kept) != 1 {
				t.Errorf("kept %v %v", kept, err)
			}
		})
	}
}

// Things that are no files at all must neither hang nor stop the reader.
func TestStrangeFiles(t *testing.T) {
	l := open(t, t.TempDir())
	path := filepath.Join(l.RunDir(), dirVolumes, sample.fileName())
	for name, make := range map[string]func() error{
		"fifo":      func() error { return syscall.Mkfifo(path, 0o600) },
		"directory": func() error { return os.Mkdir(path, 0o700) },
		"symlink":   func() error { return os.Symlink("/etc/passwd", path) },
	} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
		e := lock(t, l, sample)
		if got := load(t, e); len(got.SetAside) != 1 || got.Current != nil {
			t.Errorf("%s: %+v", name, got)
		}
		closeEntry(t, e)
	}
}

func TestNewerRecordIsLeftAlone(t *testing.T) {
	l := open(t, t.TempDir())
	const newer = `{"version":99,"what":"ever"}`
	for _, path := range []string{
		filepath.Join(l.RunDir(), dirVolumes, sample.fileName()),
		filepath.Join(l.StateDir(), dirMounts, sample.fileName()),
	} {
		if err := os.WriteFile(path, []byte(newer), 0o600); err != nil {
			t.Fatal(err)
		}
		e := lock(t, l, sample)
		if _, err := e.Load(); !errors.Is(err, volume.BadRecord) {
			t.Errorf("load: %v", err)
		}
		closeEntry(t, e)
		if _, err := l.PutAside(path); err != nil {
			t.Error(err)
		}
		if data, err := os.ReadFile(path); err != nil || string(data) != newer {
			t.Errorf("%q %v", data, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPutAside(t *testing.T) {
	l := open(t, t.TempDir())
	e := lock(t, l, sample)
	if err := e.Save(record()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(l.RunDir(), dirVolumes, sample.fileName())
	if _, err := l.PutAside(path); !IsLocked(err) {
		t.Errorf("took a file from somebody who works on it: %v", err)
	}
	closeEntry(t, e)
	if got, err := l.PutAside(path); err != nil || got.File != "" {
		t.Errorf("put a good record aside: %+v %v", got, err)
	}
	if err := os.Truncate(path, 3); err != nil {
		t.Fatal(err)
	}
	if got, err := l.PutAside(path); err != nil || filepath.Dir(got.File) != filepath.Join(l.RunDir(), dirSetAside) {
		t.Errorf("%+v %v", got, err)
	}
}

// Only one has the lock, whatever the others do, and a removed lock file keeps
// nobody in.
func TestLockExcludes(t *testing.T) {
	l := open(t, t.TempDir())
	var inside atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := range 20 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				e, err := l.Lock(ctx, sample)
				cancel()
				if err != nil {
					t.Error(err)
					return
				}
				if inside.Add(1) != 1 {
					t.Error("two have the lock")
				}
				inside.Add(-1)
				if i%3 == 0 {
					e.Unused() // its file goes
				}
				if err := e.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestLockWaitEnds(t *testing.T) {
	l := open(t, t.TempDir())
	e := lock(t, l, sample)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := l.Lock(ctx, sample); !errors.Is(err, volume.Deadline) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if _, err := l.TryLock(sample); !IsLocked(err) {
		t.Errorf("%v", err)
	}
	closeEntry(t, lock(t, l, Key{Driver: "d", Volume: "other"}))
	closeEntry(t, e)
	closeEntry(t, lock(t, l, sample))
}

// The kernel releases the lock of a process that is killed.
func TestLockEndsWithItsProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), lockHelper+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := TryLockFile(path); !IsLocked(err) {
		t.Errorf("lock of a living process: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("not killed")
	}
	got, err := TryLockFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := got.Unlock(); err != nil {
		t.Error(err)
	}
}

// A crash between writing and renaming leaves the old record and a file that is
// told as a leftover.
func TestLeftoversAreNoRecords(t *testing.T) {
	l := open(t, t.TempDir())
	e := lock(t, l, sample)
	defer closeEntry(t, e)
	if err := e.Save(record()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.RunDir(), dirVolumes, tempPrefix+"123"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if items, err := l.List(); err != nil || len(items) != 1 {
		t.Errorf("%+v %v", items, err)
	}
	if got, err := l.Leftovers(); err != nil || len(got) != 1 {
		t.Errorf("%v %v", got, err)
	}
	if err := l.Sweep(time.Hour); err != nil {
		t.Fatal(err)
	}
	if got, err := l.Leftovers(); err != nil || len(got) != 1 {
		t.Errorf("somebody may still be writing it: %v %v", got, err)
	}
	if err := l.Sweep(0); err != nil {
		t.Fatal(err)
	}
	if got, err := l.Leftovers(); err != nil || len(got) != 0 {
		t.Errorf("%v %v", got, err)
	}
	if items, err := l.List(); err != nil || len(items) != 1 {
		t.Errorf("%+v %v", items, err)
	}
}

func TestDirectoriesOfOthersAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(string) error{
		"writable for all": func(d string) error { return errors.Join(os.Mkdir(d, 0o700), os.Chmod(d, 0o777)) },
		"a file":           func(d string) error { return os.WriteFile(d, nil, 0o600) },
	} {
		dir := filepath.Join(t.TempDir(), "run")
		if err := spoil(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Config{RunDir: dir, StateDir: t.TempDir()}); !errors.Is(err, volume.LedgerFailed) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(Config{RunDir: "run", StateDir: t.TempDir()}); !errors.Is(err, volume.LedgerFailed) {
		t.Errorf("relative: %v", err)
	}
}

func TestIdentityAndFacts(t *testing.T) {
	dir := t.TempDir()
	e := lock(t, open(t, dir), sample)
	if err := e.SaveIdentity(Identity{BackendID: "vol-1", Context: map[string]string{"zone": "a"}}); err != nil {
		t.Fatal(err)
	}
	if err := e.ledger.LearnKind(t.Context(), "d", KindMountPoint); err != nil {
		t.Fatal(err)
	}
	closeEntry(t, e)
	l := open(t, dir)
	if id, err := l.Identity(sample); err != nil || id.BackendID != "vol-1" || id.Context["zone"] != "a" {
		t.Errorf("%+v %v", id, err)
	}
	if f, err := l.DriverFacts("d"); err != nil || f.Kind != KindMountPoint {
		t.Errorf("%+v %v", f, err)
	}
	if f, err := l.DriverFacts("other"); err != nil || f.Kind != KindUnknown {
		t.Errorf("%+v %v", f, err)
	}
	path := filepath.Join(dir, "state", dirDrivers, Key{Driver: "d"}.fileName())
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if f, err := l.DriverFacts("d"); err != nil || f.Kind != KindUnknown {
		t.Errorf("damaged: %+v %v", f, err)
	}
	if err := os.WriteFile(path, []byte(`{"version":7}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := l.DriverFacts("d"); !errors.Is(err, volume.BadRecord) {
		t.Errorf("newer: %v", err)
	}
}

func TestNeighbours(t *testing.T) {
	n := Neighbours{Dir: filepath.Join(t.TempDir(), "host")}
	a, b := open(t, t.TempDir()), open(t, t.TempDir())
	if got, err := n.Holding(a, sample); got != "" || err != nil {
		t.Errorf("nobody joined: %q %v", got, err)
	}
	for _, l := range []*Ledger{a, b} {
		if err := n.Join(l); err != nil {
			t.Fatal(err)
		}
	}
	e := lock(t, a, sample)
	defer closeEntry(t, e)
	if err := e.Save(record()); err != nil {
		t.Fatal(err)
	}
	if got, err := n.Holding(b, sample); got != a.RunDir() || err != nil {
		t.Errorf("%q %v", got, err)
	}
	later := *b
	later.boot = "another boot"
	if got, err := n.Holding(&later, sample); got != "" || err != nil {
		t.Errorf("of another boot: %q %v", got, err)
	}
	if got, err := n.Holding(a, sample); got != "" || err != nil {
		t.Errorf("its own: %q %v", got, err)
	}
	if err := os.RemoveAll(a.RunDir()); err != nil {
		t.Fatal(err)
	}
	if got, err := n.Holding(b, sample); got != "" || err != nil {
		t.Errorf("gone: %q %v", got, err)
	}
	if entries, err := os.ReadDir(n.Dir); err != nil || len(entries) != 1 {
		t.Errorf("%v %v", entries, err)
	}
}

// Who is at a path is found whatever bytes the path has, and nobody else is.
func TestOccupants(t *testing.T) {
	l := open(t, t.TempDir())
	for i, path := range []string{"/vol/a", "/vol/ab", `/vol/"quoted" <&> \ ü`, "/vol/new\nline"} {
		key := Key{Driver: "d", Volume: fmt.Sprint("v", i)}
		e := lock(t, l, key)
		r := record()
		r.Driver, r.Volume, r.Phase, r.Path, r.Resolved, r.Call = key.Driver, key.Volume, PhaseMounted, path, path, nil
		if err := errors.Join(e.Save(r), e.Close()); err != nil {
			t.Fatal(err)
		}
		if got, err := l.Occupants(path, Key{}); err != nil || len(got) != 1 || got[0].Key() != key {
			t.Errorf("%q: %+v %v", path, got, err)
		}
		if got, err := l.Occupants(path, key); err != nil || len(got) != 0 {
			t.Errorf("%q but %v: %+v %v", path, key, got, err)
		}
	}
	if got, err := l.Occupants("/vol", Key{}); err != nil || len(got) != 0 {
		t.Errorf("%+v %v", got, err)
	}
}

// An intent that one of the directories cannot hold leaves both as they were.
func TestIntentIsAllOrNothing(t *testing.T) {
	for _, full := range []string{"run", "state"} {
		t.Run(full, func(t *testing.T) {
			l := open(t, t.TempDir())
			e := lock(t, l, sample)
			defer closeEntry(t, e)
			before := record()
			if err := errors.Join(e.Save(before), e.Keep(before, true)); err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(l.RunDir(), dirVolumes)
			if full == "state" {
				dir = filepath.Join(l.StateDir(), dirMounts)
			}
			// A directory that moved away has no room either, for root too.
			if err := os.Rename(dir, dir+".away"); err != nil {
				t.Fatal(err)
			}
			after := before.Clone()
			after.MountID = "another"
			if err := e.Intend(after, func() { t.Error("went on") }); !errors.Is(err, volume.LedgerFailed) {
				t.Errorf("%v", err)
			}
			if err := os.Rename(dir+".away", dir); err != nil {
				t.Fatal(err)
			}
			for _, from := range []struct{ root, dir string }{{l.RunDir(), dirVolumes}, {l.StateDir(), dirMounts}} {
				r, _, err := l.loadAt(from.root, from.dir, sample)
				if err != nil || r.MountID != before.MountID {
					t.Errorf("%s: %+v %v", from.dir, r, err)
				}
			}
			if left, err := l.Leftovers(); err != nil || len(left) != 0 {
				t.Errorf("%v %v", left, err)
			}
			if err := e.Intend(after, func() {}); err != nil {
				t.Fatal(err)
			}
			if loaded, err := e.Load(); err != nil || loaded.Current.MountID != "another" {
				t.Errorf("%+v %v", loaded, err)
			}
		})
	}
}

// What is kept without being durable follows what was: a line that a crash cut off
// is as if it had never been written.
func TestKeptLines(t *testing.T) {
	l := open(t, t.TempDir())
	e := lock(t, l, sample)
	defer closeEntry(t, e)
	intent := record()
	intent.Phase, intent.Path, intent.Call = PhaseNew, "", &Call{Op: OpMount}
	result := record()
	kept := func(want *Record) {
		t.Helper()
		r, aside, err := l.loadAt(l.StateDir(), dirMounts, sample)
		if err != nil || len(aside) != 0 || r == nil || r.Phase != want.Phase || r.Path != want.Path || (r.Call == nil) != (want.Call == nil) {
			t.Errorf("%+v, %v, %v, want %+v", r, aside, err, want)
		}
	}
	file := filepath.Join(l.StateDir(), dirMounts, sample.fileName())
	if err := e.Keep(result, false); err != nil { // nothing that it could follow
		t.Fatal(err)
	}
	kept(result)
	if err := e.Intend(intent, func() {}); err != nil {
		t.Fatal(err)
	}
	kept(intent)
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Keep(result, false); err != nil {
		t.Fatal(err)
	}
	kept(result)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for n := len(before); n < len(whole)-2; n++ { // the last bytes are "}" and the end of the line
		if err := os.WriteFile(file, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		kept(intent)
	}
	if err := e.Keep(result, false); err != nil { // behind the cut-off line
		t.Fatal(err)
	}
	kept(result)
	if err := os.WriteFile(file, append(whole, []byte(`{"version":7}`+"\n")...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.loadAt(l.StateDir(), dirMounts, sample); !errors.Is(err, volume.BadRecord) {
		t.Errorf("a line of a newer program: %v", err)
	}
	if err := os.WriteFile(file, append([]byte("x"), whole...), 0o600); err != nil {
		t.Fatal(err)
	}
	if r, aside, err := l.loadAt(l.StateDir(), dirMounts, sample); r != nil || len(aside) != 1 || err != nil {
		t.Errorf("damaged: %+v %v %v", r, aside, err)
	}
}

// Another ledger uses a mount if somebody holds it there, or is about to, at the
// same path as far as is known.
func TestNeighboursUsing(t *testing.T) {
	n := Neighbours{Dir: filepath.Join(t.TempDir(), "host")}
	a, b := open(t, t.TempDir()), open(t, t.TempDir())
	if err := n.Join(a); err != nil {
		t.Fatal(err)
	}
	e := lock(t, a, sample)
	defer closeEntry(t, e)
	mine := record()
	mine.Path, mine.Resolved = "/vol/v", "/data/vol/v"
	for name, c := range map[string]struct {
		change       func(*Record)
		using, owing bool
	}{
		"mounted":               {func(*Record) {}, true, false},
		"mounted by a link":     {func(r *Record) { r.Path = "/link" }, true, false},
		"mounted elsewhere":     {func(r *Record) { r.Path, r.Resolved = "/x", "/x" }, false, false},
		"being mounted":         {func(r *Record) { r.Phase, r.Path, r.Call = PhaseNew, "", &Call{Op: OpMount} }, true, false},
		"being created":         {func(r *Record) { r.Phase, r.Path, r.Call = PhaseNew, "", &Call{Op: OpCreate} }, false, false},
		"owed":                  {func(r *Record) { r.Phase, r.Holders, r.Call = PhasePending, nil, nil }, false, true},
		"owed, in doubt":        {func(r *Record) { r.Phase, r.Holders, r.Call, r.Doubt = PhasePending, nil, nil, true }, false, true},
		"owed and on its way":   {func(r *Record) { r.Phase, r.Holders, r.Call = PhasePending, nil, &Call{Op: OpUnmount} }, false, false},
		"looked out for":        {func(r *Record) { r.Phase, r.Holders = PhaseWatched, nil }, false, false},
		"given up":              {func(r *Record) { r.Phase = PhaseReleased }, false, false},
		"held by nobody at all": {func(r *Record) { r.Holders = nil }, false, false},
	} {
		theirs := mine.Clone()
		theirs.Hold(Holder{Name: "agent"})
		c.change(theirs)
		if err := e.Save(theirs); err != nil {
			t.Fatal(err)
		}
		if got, err := n.Using(b, mine); err != nil || (got == a.RunDir()) != c.using {
			t.Errorf("%s: used in %q, %v", name, got, err)
		}
		owing, err := n.Owing(b, sample, false)
		if err != nil || (len(owing) == 1) != c.owing {
			t.Errorf("%s: %d owe, %v", name, len(owing), err)
		}
		sure, err := n.Owing(b, sample, true)
		if err != nil || (len(sure) == 1) != (c.owing && !theirs.Doubt) {
			t.Errorf("%s: %d are sure to owe, %v", name, len(sure), err)
		}
		open := theirs.Call != nil && theirs.Call.Op == OpUnmount
		for over, unmounting := range map[bool]bool{true: false, false: open} {
			if got, err := n.Unmounting(b, sample, func(Call) bool { return over }); err != nil || (got == a.RunDir()) != unmounting {
				t.Errorf("%s: unmounting in %q, %v", name, got, err)
			}
		}
		for _, l := range owing {
			if l.RunDir() != a.RunDir() || l.StateDir() != a.StateDir() {
				t.Errorf("%s: %s, %s", name, l.RunDir(), l.StateDir())
			}
		}
	}
}

func TestDefaultDirs(t *testing.T) {
	env := map[string]string{"HOME": "/home/u", "XDG_RUNTIME_DIR": "/run/user/7"}
	getenv := func(k string) string { return env[k] }
	if got := DefaultDirs(0, getenv); got != (Dirs{"/run/dvdi", "/var/lib/dvdi", "/run/dvdi/ledgers"}) {
		t.Errorf("%+v", got)
	}
	if got := DefaultDirs(7, getenv); got != (Dirs{"/run/user/7/dvdi", "/home/u/.local/state/dvdi", "/run/user/7/dvdi/ledgers"}) {
		t.Errorf("%+v", got)
	}
	if got := DefaultDirs(7, getenv).Or(Dirs{State: "/s"}); got.State != "/s" || got.Run != "/run/user/7/dvdi" {
		t.Errorf("%+v", got)
	}
	if got := DefaultDirs(7, func(string) string { return "" }); !filepath.IsAbs(got.Run) || !filepath.IsAbs(got.State) {
		t.Errorf("%+v", got)
	}
}

// Any bytes in a record file give a record about its own volume, or an error.
func FuzzDecode(f *testing.F) {
	valid, err := json.Marshal(func() *Record { r := record(); r.Version = FormatVersion; return r }())
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{string(valid), "", "{}", "null", "[]", `{"version":1}`, `{"version":99}`, `{"version":-1}`, `{"version":1e3}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decode(data, sample.fileName())
		if (r == nil) == (err == nil) {
			t.Fatalf("%+v %v", r, err)
		}
		if r != nil && (r.Key() != sample || r.Version > FormatVersion) {
			t.Errorf("%+v", r)
		}
	})
}

// Any driver and volume give a file name that is one component, not hidden, not
// too long, and theirs alone.
func FuzzFileName(f *testing.F) {
	f.Add("d", "v", "d", "w")
	f.Add("a", "bc", "ab", "c")
	f.Add("..", "../..", ".", "/")
	f.Add("", "", "\x00", strings.Repeat("ü", 300))
	f.Fuzz(func(t *testing.T, d1, v1, d2, v2 string) {
		a, b := Key{d1, v1}, Key{d2, v2}
		for _, k := range []Key{a, b} {
			name := k.fileName()
			if strings.ContainsAny(name, "/\x00\n") || strings.HasPrefix(name, ".") || len(name) > 200 || filepath.Base(name) != name {
				t.Errorf("%q", name)
			}
		}
		if (a == b) != (a.FileName() == b.FileName()) {
			t.Errorf("%q and %q: %q and %q", a, b, a.FileName(), b.FileName())
		}
	})
}
