package journal

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// book counts calls by driver.
type book map[string]int

func (b book) take(c Call) { b[c.Driver]++ }

func call(driver string) Call {
	return Call{Driver: driver, Kind: kindMount, Outcome: outcomeOK, Took: 1500 * time.Microsecond}
}

func write(t *testing.T, j *Journal, c Call, times int) {
	t.Helper()
	for range times {
		if err := j.Write(c); err != nil {
			t.Fatal(err)
		}
	}
}

func reader(t *testing.T, dir string) *Reader {
	t.Helper()
	r, err := NewReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// read reads and expects no loss.
func read(t *testing.T, r *Reader, b book) {
	t.Helper()
	if lost, err := r.Read(b.take); err != nil || lost != (Lost{}) {
		t.Errorf("%+v, %v", lost, err)
	}
}

// What was written is what is read.
func TestCallComesThrough(t *testing.T) {
	dir := t.TempDir()
	want := Call{Driver: "a\"b\n", Kind: kindUnmount, Outcome: "refused", Took: 1500 * time.Microsecond}
	write(t, New(dir), want, 1)
	var got []Call
	if lost, err := reader(t, dir).Read(func(c Call) { got = append(got, c) }); err != nil || lost != (Lost{}) || len(got) != 1 || got[0] != want {
		t.Errorf("%+v, %+v, %v, want %+v", got, lost, err, want)
	}
}

// Calls of many writers are read once each, while they are written, over
// restarts of the reader, and over the change of files.
func TestEachCallIsReadOnce(t *testing.T) {
	dir := t.TempDir()
	const writers, calls = 8, 400
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			j := New(dir)
			j.full = 400 << 10 // of about 350 kB in all: at most one change
			for range calls {
				if err := j.Write(call(string(rune('a' + w)))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		all.Wait()
	}()
	got := book{}
	r := reader(t, dir)
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		read(t, r, got)
		r = reader(t, dir)
	}
	small := New(dir)
	small.full = 1 // each call begins another file
	for range 50 {
		write(t, small, call("turning"), 1)
		read(t, r, got)
		if len(got)%2 == 0 {
			r = reader(t, dir)
		}
	}
	for w := range writers {
		if n := got[string(rune('a'+w))]; n != calls {
			t.Errorf("writer %d: %d calls, want %d", w, n, calls)
		}
	}
	if got["turning"] != 50 {
		t.Errorf("%d calls while files change, want 50", got["turning"])
	}
}

// Nobody reads: the journal stays small, and the reader says that it missed
// something if it had been there before.
func TestBounded(t *testing.T) {
	dir := t.TempDir()
	j := New(dir)
	j.full = 10 << 10
	r, got := reader(t, dir), book{}
	write(t, j, call("first"), 1)
	read(t, r, got)
	for range 1000 {
		write(t, j, call("d"), 1)
		var size int64
		for _, name := range []string{currentName, olderName} {
			if st, err := os.Stat(filepath.Join(dir, name)); err == nil {
				size += st.Size()
			}
		}
		if size > 2*j.full+2*maxLine {
			t.Fatalf("%d bytes", size)
		}
	}
	lost, err := r.Read(got.take)
	if err != nil || !lost.Overrun || lost.Damaged != 0 {
		t.Errorf("%+v, %v", lost, err)
	}
	if got["first"] != 1 || got["d"] < 50 || got["d"] > 200 {
		t.Errorf("%v", got)
	}
	write(t, j, call("last"), 1)
	read(t, r, got)
	if got["last"] != 1 {
		t.Errorf("%v", got)
	}
}

// What is no call is left out and counted; a line is taken when it is complete.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, currentName)
	add := func(text string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	good := `{"driver":"d","kind":"mount","outcome":"ok","seconds":0.5}`
	r, got := reader(t, dir), book{}
	read(t, r, got) // there is no journal
	add(good[:20])
	read(t, r, got)
	add(good[20:] + "\n")
	read(t, r, got)
	if got["d"] != 1 {
		t.Errorf("%v", got)
	}
	bad := []string{"", "\x00\xff", "null", `{"driver":"d","kind":"x","outcome":"ok"}`, `{"driver":"d","kind":"mount","outcome":"x"}`,
		`{"driver":"","kind":"mount","outcome":"ok"}`, `{"driver":"d","kind":"mount","outcome":"ok","seconds":-1}`,
		strings.Repeat("x", 3*maxLine), strings.Repeat(" ", maxLine) + good}
	add(strings.Join(bad, "\n") + "\n" + good + "\n")
	if lost, err := r.Read(got.take); err != nil || lost.Damaged != len(bad) || got["d"] != 2 {
		t.Errorf("%+v, %v, %v", lost, err, got)
	}
	read(t, reader(t, dir), got) // nothing is told again
	if err := os.WriteFile(filepath.Join(dir, positionName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := NewReader(dir)
	if err == nil {
		t.Error("a damaged position was taken for a good one")
	}
	if _, err := again.Read(got.take); err != nil || got["d"] != 4 {
		t.Errorf("%v, %v", err, got)
	}
}

// A writer that cannot begin another file, because somebody who is frozen holds
// the lock, waits for nobody and stays within bounds.
func TestFrozenWriterHoldsUpNobody(t *testing.T) {
	dir := t.TempDir()
	j := New(dir)
	j.full = 1 << 10
	write(t, j, call("d"), 1)
	f, err := os.Open(filepath.Join(dir, currentName))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if err = j.Write(call("d")); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrFull) {
		t.Errorf("%v", err)
	}
	st, err := f.Stat()
	if err != nil || st.Size() > 2*j.full+maxLine {
		t.Errorf("%d bytes, %v", st.Size(), err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	write(t, j, call("d"), 1)
}

// Whatever stands in the place of the journal, nobody waits for it or writes
// through it.
func TestStrangeFiles(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"pipe":      func(path string) error { return unix.Mkfifo(path, 0o600) },
		"link":      func(path string) error { return os.Symlink(path+".target", path) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := put(filepath.Join(dir, currentName)); err != nil {
				t.Fatal(err)
			}
			if err := New(dir).Write(call("d")); err == nil {
				t.Error("written")
			}
			if _, err := reader(t, dir).Read(book{}.take); err == nil {
				t.Error("read")
			}
			if _, err := os.Stat(filepath.Join(dir, currentName+".target")); err == nil {
				t.Error("written through the link")
			}
		})
	}
	if err := New(filepath.Join(t.TempDir(), "missing")).Write(call("d")); err == nil {
		t.Error("written into a directory that is not there")
	}
	if err := New(t.TempDir()).Write(call(strings.Repeat("x", maxLine))); err == nil {
		t.Error("a line without bound")
	}
}
