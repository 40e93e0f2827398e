package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Listed is one file of the ledger as found.
type Listed struct {
	File string
	// Record is nil when Err says why it cannot be used.
	Record *Record
	Err    error
	// Hint says that the record is of an earlier boot or only in the state
	// directory.
	Hint bool
}

// List reads all records of both directories without locks, those of the run
// directory first, each in the order of their names. It changes nothing: files
// that cannot be read are told with Err.
func (l *Ledger) List() ([]Listed, error) {
	run, err := l.listDir(filepath.Join(l.cfg.RunDir, dirVolumes))
	if err != nil {
		return nil, err
	}
	current := map[Key]bool{}
	for i := range run {
		if r := run[i].Record; r != nil {
			run[i].Hint = r.BootID != l.boot
			current[r.Key()] = true
		}
	}
	kept, err := l.listDir(filepath.Join(l.cfg.StateDir, dirMounts))
	if err != nil {
		return nil, err
	}
	for _, k := range kept {
		if k.Record != nil && current[k.Record.Key()] {
			continue
		}
		k.Hint = true
		run = append(run, k)
	}
	return run, nil
}

func (l *Ledger) listDir(dir string) ([]Listed, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, failed("list the ledger", Key{}, err)
	}
	var out []Listed
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), recordSuffix) || strings.HasPrefix(e.Name(), tempPrefix) {
			continue
		}
		item := Listed{File: filepath.Join(dir, e.Name())}
		data, err := readFile(item.File)
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted meanwhile
		}
		if err == nil {
			item.Record, err = decode(data, e.Name())
		}
		item.Err = err
		out = append(out, item)
	}
	return out, nil
}

// IsNewer says that a record could not be read because a newer program wrote
// it.
func IsNewer(err error) bool {
	var newer errNewer
	return errors.As(err, &newer)
}

// Kept lists the files that were set aside, in both directories.
func (l *Ledger) Kept() ([]string, error) {
	var out []string
	for _, root := range []string{l.cfg.RunDir, l.cfg.StateDir} {
		entries, err := os.ReadDir(filepath.Join(root, dirSetAside))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, failed("list what was set aside", Key{}, err)
		}
		for _, e := range entries {
			out = append(out, filepath.Join(root, dirSetAside, e.Name()))
		}
	}
	return out, nil
}

// Leftovers lists temporary files that a crash left behind. They are harmless.
func (l *Ledger) Leftovers() ([]string, error) {
	var out []string
	for _, dir := range []string{
		filepath.Join(l.cfg.RunDir, dirVolumes), filepath.Join(l.cfg.StateDir, dirMounts),
		filepath.Join(l.cfg.StateDir, dirVolumes), filepath.Join(l.cfg.StateDir, dirDrivers),
		filepath.Join(l.cfg.StateDir, dirEpochs), filepath.Join(l.cfg.RunDir, dirLeases),
	} {
		found, err := filepath.Glob(filepath.Join(dir, tempPrefix+"*"))
		if err != nil {
			return nil, failed("list the ledger", Key{}, err)
		}
		out = append(out, found...)
	}
	return out, nil
}

// Sweep removes the temporary files that crashes left behind longer ago than age.
func (l *Ledger) Sweep(age time.Duration) error {
	files, err := l.Leftovers()
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range files {
		st, err := os.Lstat(f)
		if errors.Is(err, fs.ErrNotExist) || err == nil && l.Now().Sub(st.ModTime()) < age {
			continue
		}
		if err == nil {
			err = removeFile(f)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Peek reads the record of this boot without its lock; nil if there is none or
// none that can be read. It changes nothing.
func (l *Ledger) Peek(key Key) (*Record, error) {
	data, err := readFile(filepath.Join(l.cfg.RunDir, dirVolumes, key.fileName()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, failed("read the ledger", key, err)
	}
	rec, err := decode(data, key.fileName())
	if err != nil || rec.BootID != l.boot {
		return nil, nil //nolint:nilerr // damaged or of another boot: no record
	}
	return rec, nil
}

// PutAside moves a record file that List could not read out of the way, under
// its lock. It does nothing to a file that can be read by now, that a newer
// program wrote, or that is gone. IsLocked tells that somebody is working on it,
// IsUnread that the file may be as good as ever.
func (l *Ledger) PutAside(file string) (SetAside, error) {
	name := filepath.Base(file)
	lock, err := TryLockFile(filepath.Join(l.cfg.RunDir, dirLocks, strings.TrimSuffix(name, recordSuffix)+".lock"))
	if err != nil {
		return SetAside{}, err
	}
	var aside SetAside
	data, err := readFile(file)
	if err == nil {
		_, err = decode(data, name)
	}
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist), IsNewer(err):
		err = nil
	case !IsUnread(err):
		// Files lie two levels below the directory that keeps what is set aside.
		aside, err = setAside(filepath.Dir(filepath.Dir(file)), file, err)
	}
	return aside, errors.Join(err, lock.Unlock())
}

// Occupants returns the records of this boot, other than that of except, that
// say that they are mounted at this path, with links resolved.
func (l *Ledger) Occupants(resolved string, except Key) ([]*Record, error) {
	dir := filepath.Join(l.cfg.RunDir, dirVolumes)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, failed("list the ledger", except, err)
	}
	// Each mount asks this, and all but one of many records are of other paths.
	path, err := json.Marshal(resolved)
	if err != nil {
		return nil, failed("list the ledger", except, err)
	}
	var out []*Record
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), recordSuffix) || strings.HasPrefix(e.Name(), tempPrefix) || e.Name() == except.fileName() {
			continue
		}
		data, err := readFile(filepath.Join(dir, e.Name()))
		if err != nil || !bytes.Contains(data, path) {
			continue // gone meanwhile, or nobody can tell what it is about
		}
		r, err := decode(data, e.Name())
		if err != nil || r.BootID != l.boot || r.Resolved != resolved {
			continue
		}
		if r.Phase == PhaseMounted || r.Phase == PhasePending {
			out = append(out, r)
		}
	}
	return out, nil
}
