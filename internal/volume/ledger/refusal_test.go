package ledger

import (
	"os"
	"path/filepath"
	"testing"
)

// A refusal is one holder's, of one volume and one boot, until it is forgotten.
// What cannot be read counts as one.
func TestRefusal(t *testing.T) {
	boot := "one"
	dir := t.TempDir()
	open := func() *Ledger {
		l, err := Open(Config{RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state"),
			Clock: Clock{BootID: func() (string, error) { return boot, nil }}})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	key := Key{Driver: "d", Volume: "v"}
	want := func(key Key, holder string, want bool) {
		t.Helper()
		if got, err := open().Refused(key, holder); err != nil || got != want {
			t.Errorf("%v for %s: %v, %v", key, holder, got, err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	want(key, "a", false)
	must(open().DeleteRefusal(key, "a"))
	must(open().SaveRefusal(key, "a"))
	must(open().SaveRefusal(key, "a"))
	want(key, "a", true)
	want(key, "b", false)
	want(Key{Driver: "d", Volume: "w"}, "a", false)
	boot = "two"
	want(key, "a", false)
	boot = "one"
	must(os.WriteFile(filepath.Join(open().refusalDir(), refusalName(key, "a")), []byte("{"), 0o600))
	want(key, "a", true)
	must(open().DeleteRefusal(key, "a"))
	want(key, "a", false)
}
