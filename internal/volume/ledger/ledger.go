package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// Config says where a ledger lives.
type Config struct {
	// RunDir holds what is mounted in this boot; StateDir what outlives it.
	// Both are made if missing. They must be absolute.
	RunDir   string
	StateDir string
	// Clock is the real one by default.
	Clock Clock
}

// Ledger is the records of one run directory. It is safe for concurrent use by
// goroutines and by processes.
type Ledger struct {
	cfg  Config
	boot string
}

const (
	dirVolumes  = "volumes"
	dirLocks    = "locks"
	dirMounts   = "mounts"
	dirDrivers  = "drivers"
	dirEpochs   = "epochs"
	dirLeases   = "leases"
	dirSetAside = "set-aside"
	dirRefusals = "refusals"
)

// Open opens the ledger, making its directories where they are missing. It
// fails with volume.LedgerFailed when they cannot be made, belong to somebody
// else or are writable for all.
func Open(cfg Config) (*Ledger, error) {
	for _, dir := range []string{cfg.RunDir, cfg.StateDir} {
		if !filepath.IsAbs(dir) {
			return nil, failed("open the ledger", Key{}, fmt.Errorf("directory %q is not absolute", dir))
		}
	}
	for _, dir := range []string{
		cfg.RunDir, filepath.Join(cfg.RunDir, dirVolumes), filepath.Join(cfg.RunDir, dirLocks), filepath.Join(cfg.RunDir, dirLeases),
		cfg.StateDir, filepath.Join(cfg.StateDir, dirMounts), filepath.Join(cfg.StateDir, dirVolumes), filepath.Join(cfg.StateDir, dirDrivers),
		filepath.Join(cfg.StateDir, dirEpochs),
	} {
		if err := privateDir(dir); err != nil {
			return nil, failed("open the ledger", Key{}, err)
		}
	}
	boot, err := cfg.Clock.bootID()
	if err != nil {
		return nil, failed("open the ledger", Key{}, err)
	}
	return &Ledger{cfg: cfg, boot: boot}, nil
}

// RunDir is the run directory.
func (l *Ledger) RunDir() string { return l.cfg.RunDir }

// StateDir is the state directory.
func (l *Ledger) StateDir() string { return l.cfg.StateDir }

// BootID is this boot.
func (l *Ledger) BootID() string { return l.boot }

// SinceBoot is the time in this boot on the scale of the records.
func (l *Ledger) SinceBoot() (time.Duration, error) {
	d, err := l.cfg.Clock.sinceBoot()
	if err != nil {
		return 0, failed("read the clock", Key{}, err)
	}
	return d, nil
}

// Now is the time of day, for people.
func (l *Ledger) Now() time.Time { return l.cfg.Clock.now() }

// Entry is one volume's place in the ledger, locked for its owner until Close.
// It is not safe for concurrent use.
type Entry struct {
	ledger *Ledger
	key    Key
	lock   *FileLock
	// gone says that the record was deleted, so that the lock file can go too.
	gone bool
}

// Lock locks one volume and waits for that until ctx ends. It fails with
// volume.Deadline when another process kept it that long, otherwise with
// volume.LedgerFailed.
func (l *Ledger) Lock(ctx context.Context, key Key) (*Entry, error) {
	lock, err := lockFile(ctx, l.lockPath(key), filepath.Join(l.cfg.RunDir, dirLocks))
	if err != nil {
		return nil, lockFailed(ctx, key, err)
	}
	return &Entry{ledger: l, key: key, lock: lock}, nil
}

func lockFailed(ctx context.Context, key Key, err error) error {
	if ctx.Err() == nil {
		return failed("lock", key, err)
	}
	return &volume.Error{Kind: volume.Deadline, Op: "lock", Driver: key.Driver, Volume: key.Volume, Err: err,
		Message: "another dvdcli or the isolator-bridge is working on this volume",
		Hint:    "see `dvdcli status` for what it does; if the driver hangs, restart the driver"}
}

// LockDriver locks a whole driver and waits for that until ctx ends. Volumes'
// locks are taken before it, never after. It fails as Lock does.
func (l *Ledger) LockDriver(ctx context.Context, driver string) (*FileLock, error) {
	key := Key{Driver: driver}
	lock, err := lockFile(ctx, filepath.Join(l.cfg.RunDir, dirLocks, "driver-"+key.FileName()+".lock"), l.cfg.RunDir)
	if err != nil {
		if ctx.Err() != nil {
			return nil, &volume.Error{Kind: volume.Deadline, Op: "wait for the driver", Driver: driver, Err: err,
				Message: "another call to this driver is going on", Hint: "see `dvdcli status`; if the driver hangs, restart it"}
		}
		return nil, failed("lock the driver", key, err)
	}
	return lock, nil
}

// TryLock locks one volume without waiting; IsLocked tells that somebody else
// has it.
func (l *Ledger) TryLock(key Key) (*Entry, error) {
	lock, err := TryLockFile(l.lockPath(key))
	if err != nil {
		if IsLocked(err) {
			return nil, err
		}
		return nil, failed("lock", key, err)
	}
	return &Entry{ledger: l, key: key, lock: lock}, nil
}

// Close releases the lock.
func (e *Entry) Close() error {
	if e.gone {
		return e.lock.unlockAndRemove()
	}
	return e.lock.Unlock()
}

// Loaded is what the ledger holds about a volume.
type Loaded struct {
	// Current is the record of this boot, nil if there is none.
	Current *Record
	// Hint is a record of an earlier boot, or one whose run directory was
	// emptied: a driver may still hold its mount ID. Nil if there is none or if
	// Current exists.
	Hint *Record
	// SetAside tells the records that could not be read and where they are now.
	SetAside []SetAside
}

// SetAside is a file that could not be read and was moved out of the way.
type SetAside struct {
	File   string `json:"file"`
	Reason string `json:"reason"`
}

// Load reads the volume's record. One that is damaged is set aside. It fails
// with volume.BadRecord for a record of a newer format and with
// volume.LedgerFailed for one that cannot be read now, see IsUnread; both are
// left alone.
func (e *Entry) Load() (Loaded, error) {
	var out Loaded
	current, aside, err := e.ledger.loadAt(e.ledger.cfg.RunDir, dirVolumes, e.key)
	out.SetAside = append(out.SetAside, aside...)
	if err != nil {
		return out, err
	}
	if current != nil && current.BootID == e.ledger.boot {
		out.Current = current
		return out, nil
	}
	kept, aside, err := e.ledger.loadAt(e.ledger.cfg.StateDir, dirMounts, e.key)
	out.SetAside = append(out.SetAside, aside...)
	if err != nil {
		return out, err
	}
	switch {
	case kept != nil && current != nil && kept.MountID == current.MountID:
		out.Hint = current // the same mount; the run directory knows more of it
	case kept != nil:
		out.Hint = kept
	default:
		out.Hint = current
	}
	return out, nil
}

func (l *Ledger) loadAt(root, dir string, key Key) (*Record, []SetAside, error) {
	path := filepath.Join(root, dir, key.fileName())
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if IsUnread(err) {
		return nil, nil, failed("read the ledger", key, err)
	}
	if err == nil {
		var rec *Record
		if rec, err = decode(data, key.fileName()); err == nil {
			return rec, nil, nil
		}
	}
	if IsNewer(err) {
		return nil, nil, newerRecord(key, fmt.Errorf("%s: %w", path, err))
	}
	aside, moveErr := setAside(root, path, err)
	if moveErr != nil {
		return nil, nil, failed("set a damaged record aside", key, errors.Join(moveErr, err))
	}
	return nil, []SetAside{aside}, nil
}

func newerRecord(key Key, err error) error {
	return &volume.Error{Kind: volume.BadRecord, Op: "read the ledger", Driver: key.Driver, Volume: key.Volume,
		Message: "written by a newer program", Err: err,
		Hint: "use that program, or forget the record with `dvdcli ledger forget` if the volume is not mounted"}
}

// Save writes the volume's record durably into the run directory. It sets
// Version and BootID.
func (e *Entry) Save(rec *Record) error {
	s, err := e.stage(e.ledger.cfg.RunDir, dirVolumes, rec, true)
	if err == nil {
		err = s.commit()
	}
	if err != nil {
		return failed("write the ledger", e.key, err)
	}
	e.gone = false
	return nil
}

// Intend writes the record durably into both directories, the state directory
// first, and calls between in between. If one of them has no room, neither is
// changed: nobody would take back what the other one says.
func (e *Entry) Intend(rec *Record, between func()) error {
	kept, err := e.stage(e.ledger.cfg.StateDir, dirMounts, rec, true)
	if err != nil {
		return failed("write the ledger", e.key, err)
	}
	saved, err := e.stage(e.ledger.cfg.RunDir, dirVolumes, rec, true)
	if err != nil {
		return failed("write the ledger", e.key, errors.Join(err, kept.discard()))
	}
	if err := kept.commit(); err != nil {
		return failed("write the ledger", e.key, errors.Join(err, saved.discard()))
	}
	between()
	if err := saved.commit(); err != nil {
		return failed("write the ledger", e.key, err)
	}
	e.gone = false
	return nil
}

// Keep writes the record into the state directory, where it outlives a reboot.
// Without durable it may be lost with the power, which leaves what was there.
func (e *Entry) Keep(rec *Record, durable bool) error {
	if !durable {
		done, err := e.amend(rec)
		if err != nil {
			return failed("write the ledger", e.key, err)
		}
		if done {
			return nil
		}
	}
	s, err := e.stage(e.ledger.cfg.StateDir, dirMounts, rec, durable)
	if err == nil {
		err = s.commit()
	}
	if err != nil {
		return failed("write the ledger", e.key, err)
	}
	return nil
}

// amend adds the record to the file in the state directory, if there is one. A
// new file would have to be written to the disk before it takes the other one's
// place, even if nobody asks for that.
func (e *Entry) amend(rec *Record) (done bool, err error) {
	if err := e.sign(rec); err != nil {
		return false, err
	}
	data, err := json.Marshal(rec)
	if err != nil {
		return false, err
	}
	// The line may follow one that a crash cut off.
	return appendFile(filepath.Join(e.ledger.cfg.StateDir, dirMounts, e.key.fileName()), fmt.Appendf(nil, "\n%s\n", data))
}

// sign makes a record one of this program and boot.
func (e *Entry) sign(rec *Record) error {
	if rec.Key() != e.key {
		return fmt.Errorf("record is about driver %q volume %q", rec.Driver, rec.Volume)
	}
	rec.Version, rec.BootID = FormatVersion, e.ledger.boot
	return nil
}

func (e *Entry) stage(root, dir string, rec *Record, durable bool) (staged, error) {
	if err := e.sign(rec); err != nil {
		return staged{}, err
	}
	data, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return staged{}, err
	}
	return stage(filepath.Join(root, dir), e.key.fileName(), append(data, '\n'), durable)
}

// Delete removes what both directories hold about the mount; the volume's
// Identity stays. It is not durable: a power failure may bring back the record
// in the state directory, which is then a hint that proves nothing.
func (e *Entry) Delete() error {
	err := errors.Join(
		removeFile(filepath.Join(e.ledger.cfg.StateDir, dirMounts, e.key.fileName())),
		removeFile(filepath.Join(e.ledger.cfg.RunDir, dirVolumes, e.key.fileName())))
	if err != nil {
		return failed("delete from the ledger", e.key, err)
	}
	e.gone = true
	return nil
}

// Unused tells Close that no record exists, so that no lock file stays behind.
func (e *Entry) Unused() { e.gone = true }

func (l *Ledger) lockPath(key Key) string {
	return filepath.Join(l.cfg.RunDir, dirLocks, key.FileName()+".lock")
}

func setAside(root, path string, reason error) (SetAside, error) {
	dir := filepath.Join(root, dirSetAside)
	if err := privateDir(dir); err != nil {
		return SetAside{}, err
	}
	base := strings.TrimSuffix(filepath.Base(path), recordSuffix)
	for n := 1; n < 1000; n++ {
		to := filepath.Join(dir, fmt.Sprintf("%s.%d", base, n))
		if _, err := os.Lstat(to); err == nil {
			continue
		}
		if err := os.Rename(path, to); err != nil {
			return SetAside{}, err
		}
		return SetAside{File: to, Reason: reason.Error()}, nil
	}
	return SetAside{}, fmt.Errorf("%s is full: look at what it holds and empty it", dir)
}

func failed(op string, key Key, err error) error {
	return &volume.Error{Kind: volume.LedgerFailed, Op: op, Driver: key.Driver, Volume: key.Volume, Err: err,
		Hint: "check the directories in DVDCLI_RUN_DIR, DVDCLI_STATE_DIR and DVDCLI_HOST_DIR: space, owner, rights"}
}
