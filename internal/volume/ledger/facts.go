package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// Identity is what a driver wants back with every call for a volume, for as
// long as the volume exists.
type Identity struct {
	Version   int               `json:"version"`
	Driver    string            `json:"driver"`
	Volume    string            `json:"volume"`
	BackendID string            `json:"backendId,omitempty"`
	Context   map[string]string `json:"context,omitempty"`
}

// Identity reads the volume's identity; the zero value if none was kept.
func (e *Entry) Identity() (Identity, error) { return e.ledger.Identity(e.key) }

// Identity reads a volume's identity without its lock; the zero value if none
// was kept.
func (l *Ledger) Identity(key Key) (Identity, error) {
	var id Identity
	if err := l.readFact(dirVolumes, key, &id); err != nil {
		return Identity{}, failedFact("read the identity", key, err)
	}
	return id, nil
}

// SaveIdentity keeps the volume's identity durably.
func (e *Entry) SaveIdentity(id Identity) error {
	id.Version, id.Driver, id.Volume = FormatVersion, e.key.Driver, e.key.Volume
	if err := e.ledger.writeFact(dirVolumes, e.key.fileName(), id); err != nil {
		return failedFact("write the identity", e.key, err)
	}
	return nil
}

// DeleteIdentity forgets the identity of a volume that was removed.
func (e *Entry) DeleteIdentity() error {
	if err := removeFile(filepath.Join(e.ledger.cfg.StateDir, dirVolumes, e.key.fileName())); err != nil {
		return failed("delete the identity", e.key, err)
	}
	return nil
}

// DriverFacts is what was learned about a driver.
type DriverFacts struct {
	Version int    `json:"version"`
	Driver  string `json:"driver"`
	// Kind is what its mount paths were so far; a mount point once, a mount
	// point always.
	Kind PathKind `json:"kind,omitempty"`
}

// DriverFacts reads what was learned about a driver; the zero value if nothing.
func (l *Ledger) DriverFacts(driver string) (DriverFacts, error) {
	key := Key{Driver: driver}
	var facts DriverFacts
	if err := l.readFact(dirDrivers, key, &facts); err != nil {
		return DriverFacts{}, failedFact("read what is known of the driver", key, err)
	}
	return facts, nil
}

// LearnKind keeps durably what a driver's mount paths are. A mount point that
// somebody else learned meanwhile stays. It waits for others until ctx ends.
func (l *Ledger) LearnKind(ctx context.Context, driver string, kind PathKind) (err error) {
	key := Key{Driver: driver}
	lock, err := lockFile(ctx, filepath.Join(l.cfg.RunDir, dirLocks, "facts-"+key.FileName()+".lock"), l.cfg.RunDir)
	if err != nil {
		return failed("keep what is known of the driver", key, err)
	}
	defer func() { err = errors.Join(err, lock.unlockAndRemove()) }()
	facts, err := l.DriverFacts(driver)
	if err != nil || facts.Kind == kind || facts.Kind == KindMountPoint {
		return err
	}
	err = l.writeFact(dirDrivers, key.fileName(), DriverFacts{Version: FormatVersion, Driver: driver, Kind: kind})
	if err != nil {
		return failedFact("keep what is known of the driver", key, err)
	}
	return nil
}

// failedFact is failed, or, for a file of a newer format, the error that says so.
func failedFact(op string, key Key, err error) error {
	if IsNewer(err) {
		return newerRecord(key, err)
	}
	return failed(op, key, err)
}

// readFact reads a file of the state directory into v, setting aside what is no
// JSON. A missing file leaves v as it is.
func (l *Ledger) readFact(dir string, key Key, v any) error {
	path := filepath.Join(l.cfg.StateDir, dir, key.fileName())
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if IsUnread(err) {
		return err
	}
	if err == nil {
		if newer := checkVersion(data); newer != nil {
			return fmt.Errorf("%s: %w", path, newer)
		}
		if err = json.Unmarshal(data, v); err == nil {
			return nil
		}
	}
	if _, moveErr := setAside(l.cfg.StateDir, path, err); moveErr != nil {
		return fmt.Errorf("%s: %w", path, errors.Join(err, moveErr))
	}
	return nil
}

func (l *Ledger) writeFact(dir, name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(l.cfg.StateDir, dir), name, append(data, '\n'), true)
}

// replaceFile is writeFile for what is written without having been read under the
// same lock: a file of a newer format is refused.
func replaceFile(dir, name string, data []byte, durable bool) error {
	path := filepath.Join(dir, name)
	old, err := readFile(path)
	if err == nil {
		err = checkVersion(old)
	}
	if IsNewer(err) {
		return fmt.Errorf("%s: %w", path, err)
	}
	return writeFile(dir, name, data, durable)
}
