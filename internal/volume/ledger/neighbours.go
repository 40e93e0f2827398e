package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Neighbours is where the ledgers of one host know of each other: a directory
// with one file per run directory. Several agents on one host have a ledger
// each; what one of them mounted must not be taken for an ownerless mount by
// another, nor be unmounted by it.
type Neighbours struct {
	// Dir is the directory; made if missing.
	Dir string
}

// homeSeparator stands between the run and the state directory of a ledger: the
// one byte that no path has.
const homeSeparator = "\x00"

// Join makes a ledger known. It writes only the first time.
func (n Neighbours) Join(l *Ledger) error {
	if err := privateDir(n.Dir); err != nil {
		return failed("join the host's ledgers", Key{}, err)
	}
	sum := sha256.Sum256([]byte(l.cfg.RunDir))
	name := hex.EncodeToString(sum[:12])
	home := l.cfg.RunDir + homeSeparator + l.cfg.StateDir
	if data, err := readFile(filepath.Join(n.Dir, name)); err == nil && string(data) == home {
		return nil
	}
	if err := writeFile(n.Dir, name, []byte(home), false); err != nil {
		return failed("join the host's ledgers", Key{}, err)
	}
	return nil
}

// dirHostLocks is where the locks of Neighbours.Lock are.
const dirHostLocks = "locks"

// Lock lets one of the host's ledgers at a time find out who holds a volume and
// mount or unmount it. It waits until ctx ends and fails as Ledger.Lock does.
// It is taken after the volume's own lock.
func (n Neighbours) Lock(ctx context.Context, key Key) (*FileLock, error) {
	dir := filepath.Join(n.Dir, dirHostLocks)
	if err := privateDir(dir); err != nil {
		return nil, failed("lock for this host", key, err)
	}
	lock, err := lockFile(ctx, filepath.Join(dir, key.FileName()+".lock"), dir)
	if err != nil {
		return nil, lockFailed(ctx, key, err)
	}
	return lock, nil
}

// Holding returns another run directory of this host that has a record of the
// volume in l's boot, or an empty string.
func (n Neighbours) Holding(l *Ledger, key Key) (string, error) {
	return n.first(l, key, func(*Record) bool { return true })
}

// Unmounting returns another run directory of this host with an Unmount of the
// volume that has no answer and, as over says, may still be going on; or an empty
// string.
func (n Neighbours) Unmounting(l *Ledger, key Key, over func(Call) bool) (string, error) {
	return n.first(l, key, func(r *Record) bool {
		return r.Call != nil && r.Call.Op == OpUnmount && !over(*r.Call)
	})
}

// Using returns another run directory of this host whose holders use the mount
// that rec, a record of l, is about, or may be about to; or an empty string.
func (n Neighbours) Using(l *Ledger, rec *Record) (string, error) {
	return n.first(l, rec.Key(), func(r *Record) bool {
		if r.Phase == "" {
			return true // whatever stands there, somebody keeps it
		}
		mounting := r.Call != nil && r.Call.Op == OpMount
		if len(r.Holders) == 0 || r.Phase != PhaseMounted && !mounting {
			return false
		}
		return r.Path == "" || rec.Path == "" || r.Path == rec.Path || r.Resolved != "" && r.Resolved == rec.Resolved
	})
}

// first returns the first run directory of others with a record of l's boot that
// satisfies is. One that cannot be understood has no phase.
func (n Neighbours) first(l *Ledger, key Key, is func(*Record) bool) (string, error) {
	others, err := n.others(l)
	if err != nil {
		return "", err
	}
	for _, other := range others {
		r, err := other.foreign(key)
		if err != nil {
			return "", err
		}
		if r != nil && is(r) {
			return other.cfg.RunDir, nil
		}
	}
	return "", nil
}

// Owing opens the other ledgers of this host that owe an Unmount of the volume;
// with sure only those that know that the driver got the Mount. Those that cannot be opened, such as those of another user, are left out.
func (n Neighbours) Owing(l *Ledger, key Key, sure bool) ([]*Ledger, error) {
	others, err := n.others(l)
	if err != nil {
		return nil, err
	}
	var out []*Ledger
	for _, other := range others {
		if r, err := other.foreign(key); err != nil || r == nil || r.Phase != PhasePending || r.Call != nil || sure && r.Doubt {
			continue
		}
		if opened, err := Open(other.cfg); err == nil {
			out = append(out, opened)
		}
	}
	return out, nil
}

// foreign reads the record of this boot without its lock; nil if there is none or
// nothing that would have to be unmounted, one without a phase if it cannot be
// understood. It makes nothing: the run directory may be of somebody else.
func (l *Ledger) foreign(key Key) (*Record, error) {
	data, err := readFile(filepath.Join(l.cfg.RunDir, dirVolumes, key.fileName()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, failed("read the ledger of "+l.cfg.RunDir, key, err)
	}
	r, err := decode(data, key.fileName())
	switch {
	case err != nil:
		return &Record{}, nil //nolint:nilerr // damaged: a record all the same
	case r.BootID != l.boot || r.Phase == PhaseReleased:
		return nil, nil
	}
	return r, nil
}

// others are the ledgers that joined, but l. Those whose run directory is gone
// are forgotten.
func (n Neighbours) others(l *Ledger) ([]*Ledger, error) {
	entries, err := os.ReadDir(n.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, failed("read the host's ledgers", Key{}, err)
	}
	var out []*Ledger
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) || e.IsDir() {
			continue
		}
		file := filepath.Join(n.Dir, e.Name())
		data, err := readFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, failed("read the host's ledgers", Key{}, err)
		}
		runDir, stateDir, _ := strings.Cut(string(data), homeSeparator)
		if runDir == l.cfg.RunDir {
			continue
		}
		if _, err := os.Stat(runDir); errors.Is(err, fs.ErrNotExist) {
			if err := removeFile(file); err != nil {
				return nil, failed("forget a ledger of this host", Key{}, err)
			}
			continue
		}
		out = append(out, &Ledger{cfg: Config{RunDir: runDir, StateDir: stateDir, Clock: l.cfg.Clock}, boot: l.boot})
	}
	return out, nil
}
