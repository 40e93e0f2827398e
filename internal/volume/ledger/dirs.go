package ledger

import (
	"fmt"
	"os"
	"path/filepath"
)

// Dirs are the directories that the programs of one agent share.
type Dirs struct {
	// Run and State are those of Config.
	Run, State string
	// Host is that of Neighbours.
	Host string
}

// DefaultDirs are the directories that are used where none are named: the
// system's for root, those of the XDG base directory specification otherwise.
func DefaultDirs(uid int, getenv func(string) string) Dirs {
	d := Dirs{Run: "/run/dvdi", State: "/var/lib/dvdi"}
	if uid != 0 {
		d = userDirs(uid, getenv)
	}
	d.Host = filepath.Join(d.Run, "ledgers")
	return d
}

func userDirs(uid int, getenv func(string) string) Dirs {
	run := filepath.Join(os.TempDir(), fmt.Sprintf("dvdi-%d", uid))
	if dir := getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		run = filepath.Join(dir, "dvdi")
	}
	state := filepath.Join(run, "state")
	if home := getenv("HOME"); filepath.IsAbs(home) {
		state = filepath.Join(home, ".local", "state", "dvdi")
	}
	if dir := getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		state = filepath.Join(dir, "dvdi")
	}
	return Dirs{Run: run, State: state}
}

// Or returns d with the non-empty directories of named in their place.
func (d Dirs) Or(named Dirs) Dirs {
	for _, f := range []struct{ to, from *string }{{&d.Run, &named.Run}, {&d.State, &named.State}, {&d.Host, &named.Host}} {
		if *f.from != "" {
			*f.to = *f.from
		}
	}
	return d
}
