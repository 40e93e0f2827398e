package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// fileName is the name of the state file within the state directory.
const fileName = "framework.db"

// lockWait is how long Open waits for another process to release the state, so
// that a restart does not fail on its predecessor's last moments.
const lockWait = 3 * time.Second

// The bucket of the store's own data; records of the core are in buckets named
// "r." and the kind.
var (
	bucketFormat = []byte("format")
	keyVersion   = []byte("version")
)

const recordPrefix = "r."

// Bolt is a Store in one bbolt file. Each Commit is one transaction that is on
// disk (fsync) when Commit returns.
type Bolt struct {
	path   string
	db     *bolt.DB
	format format
}

// OpenBolt opens the state in directory dir, which it creates when there is
// none. Errors are *Error and wrap ErrLocked, ErrDamaged, ErrNewer or the cause
// that the file system gave.
func OpenBolt(dir string) (*Bolt, error) { return openBolt(dir, current) }

// HasBolt says whether directory dir holds a state, or something in its place.
func HasBolt(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, fileName))
	return !errors.Is(err, fs.ErrNotExist)
}

func openBolt(dir string, f format) (*Bolt, error) {
	path := filepath.Join(dir, fileName)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, &Error{Op: "create", Path: dir, Err: err,
			Remedy: "choose a directory that this user may write with --data-dir"}
	}
	if err := refuseEmpty(path); err != nil {
		return nil, err
	}
	db, err := openFile(path)
	if err != nil {
		return nil, openError(path, err)
	}
	s := &Bolt{path: path, db: db, format: f}
	if err := s.checkFormat(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// refuseEmpty refuses a file without content. bbolt would make a new database of
// it, and a framework whose state was cut off would start everything anew.
func refuseEmpty(path string) error {
	info, err := os.Stat(path)
	if err != nil || info.Size() > 0 {
		return nil // Open tells what is wrong with a file that cannot be examined
	}
	return &Error{Op: "open", Path: path, Err: fmt.Errorf("%w: the file is empty", ErrDamaged),
		Remedy: "restore it from a backup; only if this framework has never run, delete it"}
}

// openFile opens the database. A damaged file can make bbolt panic where it
// follows page pointers; that is turned into an error here.
func openFile(path string) (db *bolt.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			db, err = nil, fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	return bolt.Open(path, 0o600, &bolt.Options{Timeout: lockWait})
}

func openError(path string, err error) error {
	e := &Error{Op: "open", Path: path, Err: err}
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		e.Err = ErrLocked
		e.Remedy = "stop the other dvdi-framework first, or give this one its own --data-dir"
	case errors.Is(err, fs.ErrPermission):
		e.Remedy = "run as the user that owns the file, or choose another --data-dir"
	case errors.Is(err, ErrDamaged), errors.Is(err, bolterrors.ErrInvalid),
		errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		e.Err = fmt.Errorf("%w: %w", ErrDamaged, err)
		e.Remedy = damagedRemedy
	default:
		e.Remedy = "check the file and the disk that it is on"
	}
	return e
}

const damagedRemedy = "restore the file from a backup; it is left as it is. " +
	"Starting without it would make a new framework that does not know the running tasks"

// checkFormat writes the version into a new file, migrates one that is older and
// refuses one that is newer than this program.
func (s *Bolt) checkFormat() error {
	return s.guard("read", func() error {
		return s.db.Update(func(tx *bolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists(bucketFormat)
			if err != nil {
				return fmt.Errorf("create the format bucket: %w", err)
			}
			raw := b.Get(keyVersion)
			if raw == nil {
				return s.putVersion(b)
			}
			if len(raw) != 4 {
				return fmt.Errorf("%w: the format version has %d bytes", ErrDamaged, len(raw))
			}
			v := int(binary.BigEndian.Uint32(raw))
			switch {
			case v > s.format.version:
				return fmt.Errorf("%w: format %d, known up to %d", ErrNewer, v, s.format.version)
			case v < s.format.version:
				return errors.Join(s.migrate(tx, v), s.putVersion(b))
			}
			return nil
		})
	})
}

func (s *Bolt) putVersion(b *bolt.Bucket) error {
	return b.Put(keyVersion, binary.BigEndian.AppendUint32(nil, uint32(s.format.version)))
}

// migrate changes the records within the transaction that sets the version.
func (s *Bolt) migrate(tx *bolt.Tx, from int) error {
	var records []Write
	err := forEach(tx, func(kind, key string, value []byte) error {
		records = append(records, Write{Kind: kind, Key: key, Value: append([]byte{}, value...)})
		return nil
	})
	if err != nil {
		return err
	}
	writes, err := s.format.migrate(from, records)
	if err != nil {
		return err
	}
	for _, w := range writes {
		if err := apply(tx, w); err != nil {
			return fmt.Errorf("%s %q: %w", w.Kind, w.Key, err)
		}
	}
	return nil
}

// guard runs fn, turns bbolt's panics on a damaged file into errors, and adds
// the file and the remedy to every error of the store itself.
func (s *Bolt) guard(op string, fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
		err = s.wrap(op, err)
	}()
	return fn()
}

func (s *Bolt) wrap(op string, err error) error {
	var own *recordError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own):
		return own.err
	case errors.Is(err, bolterrors.ErrDatabaseNotOpen):
		return &Error{Op: op, Path: s.path, Err: ErrClosed}
	case errors.Is(err, ErrNewer):
		return &Error{Op: op, Path: s.path, Err: err, Remedy: "start the version that wrote it, or a newer one"}
	case errors.Is(err, ErrDamaged):
		return &Error{Op: op, Path: s.path, Err: err, Remedy: damagedRemedy}
	default:
		return &Error{Op: op, Path: s.path, Err: err, Remedy: "check the disk: is it full or read-only?"}
	}
}

// recordError carries the error of Load's callback through bbolt unchanged.
type recordError struct{ err error }

func (e *recordError) Error() string { return e.err.Error() }

// Load implements Store.
func (s *Bolt) Load(fn func(kind, key string, value []byte) error) error {
	return s.guard("read", func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			return forEach(tx, func(kind, key string, value []byte) error {
				if err := fn(kind, key, value); err != nil {
					return &recordError{err}
				}
				return nil
			})
		})
	})
}

// forEach calls fn for every record of the transaction's state.
func forEach(tx *bolt.Tx, fn func(kind, key string, value []byte) error) error {
	return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
		kind, ok := cutRecordPrefix(name)
		if !ok {
			return nil
		}
		return b.ForEach(func(k, v []byte) error { return fn(kind, string(k), v) })
	})
}

func cutRecordPrefix(name []byte) (string, bool) {
	if len(name) < len(recordPrefix) || string(name[:len(recordPrefix)]) != recordPrefix {
		return "", false
	}
	return string(name[len(recordPrefix):]), true
}

// Commit implements Store.
func (s *Bolt) Commit(writes []Write) error {
	if len(writes) == 0 {
		return nil
	}
	return s.guard("write", func() error {
		return s.db.Update(func(tx *bolt.Tx) error {
			for _, w := range writes {
				if err := apply(tx, w); err != nil {
					return fmt.Errorf("%s %q: %w", w.Kind, w.Key, err)
				}
			}
			return nil
		})
	})
}

func apply(tx *bolt.Tx, w Write) error {
	b, err := tx.CreateBucketIfNotExists([]byte(recordPrefix + w.Kind))
	if err != nil {
		return err
	}
	if w.Value == nil {
		return b.Delete([]byte(w.Key))
	}
	return b.Put([]byte(w.Key), w.Value)
}

// Close implements Store. It waits for transactions under way.
func (s *Bolt) Close() error {
	return s.wrap("close", s.db.Close())
}
