package ledger

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// A cached listing is the same as one that reads everything, after any change.
func TestCacheListsWhatListDoes(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(Config{RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state")})
	if err != nil {
		t.Fatal(err)
	}
	c := l.NewCache()
	same := func(wantChange bool) {
		t.Helper()
		want, err := l.List()
		if err != nil {
			t.Fatal(err)
		}
		got, changed, err := c.List()
		if err != nil {
			t.Fatal(err)
		}
		if changed != wantChange {
			t.Errorf("changed: %t, want %t", changed, wantChange)
		}
		if len(got) != len(want) {
			t.Fatalf("%d items, want %d", len(got), len(want))
		}
		for i := range want {
			if got[i].File != want[i].File || got[i].Hint != want[i].Hint || (got[i].Err == nil) != (want[i].Err == nil) || !reflect.DeepEqual(got[i].Record, want[i].Record) {
				t.Errorf("item %d: %+v, want %+v", i, got[i], want[i])
			}
		}
		if _, changed, err := c.List(); err != nil || changed {
			t.Errorf("changed without a change: %v", err)
		}
	}
	change := func(key Key, do func(*Entry) error) {
		t.Helper()
		e, err := l.Lock(context.Background(), key)
		if err != nil {
			t.Fatal(err)
		}
		if err := do(e); err != nil {
			t.Fatal(err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	same(false)
	for _, name := range []string{"a", "b", "c"} {
		key := Key{Driver: "d", Volume: name}
		change(key, func(e *Entry) error {
			rec := &Record{Driver: "d", Volume: name, Phase: PhaseNew, MountID: "1"}
			if err := e.Keep(rec, false); err != nil {
				return err
			}
			return e.Save(rec)
		})
		same(true)
		change(key, func(e *Entry) error {
			return e.Save(&Record{Driver: "d", Volume: name, Phase: PhaseMounted, Path: "/x", MountID: "2"})
		})
		same(true)
	}
	change(Key{Driver: "d", Volume: "b"}, func(e *Entry) error { return e.Delete() })
	same(true)
	file := filepath.Join(dir, "run", "volumes", Key{Driver: "d", Volume: "a"}.FileName()+".json")
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	same(true)
}
