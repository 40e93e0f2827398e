package ledger

import (
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

// Registration says under which epoch a framework may have a volume mounted on
// this host. Epochs grow with each claim on the volume anywhere in the cluster,
// so that a mount that was ordered long ago is known for one. It outlives a
// reboot.
type Registration struct {
	Version int    `json:"version"`
	Driver  string `json:"driver"`
	Volume  string `json:"volume"`
	// Framework is whose epochs these are.
	Framework string `json:"framework"`
	// Epoch is the highest that was registered; 0 in a Registration that stands
	// for none.
	Epoch uint64 `json:"epoch"`
	// Withdrawn says that the epoch has ended here, too.
	Withdrawn bool `json:"withdrawn,omitempty"`
	// Lease, if not 0, is how long each renewal lasts: the volume may be mounted
	// only while the Lease holds.
	Lease time.Duration `json:"lease,omitempty"`
	// Trusted says that something outside of this host's software ends the use
	// of the volume when the lease ends, and did before the first mount.
	Trusted bool `json:"trusted,omitempty"`
	// Fenced says that the lease ended and that everything that used the volume
	// under the epoch was stopped.
	Fenced bool `json:"fenced,omitempty"`
	// NeverRegistered says that the framework withdrew the epoch without having
	// registered any for this volume here: that gives it no right to the data.
	NeverRegistered bool `json:"neverRegistered,omitempty"`
}

// Key names the volume.
func (r Registration) Key() Key { return Key{Driver: r.Driver, Volume: r.Volume} }

// Registration reads what is registered for the volume; Epoch is 0 if nothing
// is. volume.BadRecord if it is damaged, volume.LedgerFailed if it cannot be
// read now, see IsUnread: a mount that should be refused must not pass for that.
func (l *Ledger) Registration(key Key) (Registration, error) {
	return readRegistration(filepath.Join(l.cfg.StateDir, dirEpochs, key.fileName()), key)
}

func readRegistration(path string, key Key) (Registration, error) {
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Registration{}, nil
	}
	if IsUnread(err) {
		return Registration{}, failed("read the registered epoch", key, err)
	}
	if newer := checkVersion(data); err == nil && newer != nil {
		return Registration{}, newerRecord(key, fmt.Errorf("%s: %w", path, newer))
	}
	var r Registration
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err == nil && (r.Epoch == 0 || r.Driver == "" || r.Volume == "") {
		err = errors.New("it is incomplete")
	}
	if err != nil {
		return Registration{}, &volume.Error{Kind: volume.BadRecord, Op: "read the registered epoch", Driver: key.Driver, Volume: key.Volume,
			Err: fmt.Errorf("%s: %w", path, err), Hint: "the next launch by the framework writes it anew; remove the file if no framework uses the volume"}
	}
	return r, nil
}

// Registrations lists all registrations that can be read, in the order of
// their file names, and joins the errors of the others.
func (l *Ledger) Registrations() ([]Registration, error) {
	dir := filepath.Join(l.cfg.StateDir, dirEpochs)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, failed("list the registered epochs", Key{}, err)
	}
	var out []Registration
	var errs []error
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), recordSuffix) || strings.HasPrefix(e.Name(), tempPrefix) {
			continue
		}
		r, err := readRegistration(filepath.Join(dir, e.Name()), Key{})
		if err != nil {
			errs = append(errs, err)
		} else if r.Epoch > 0 {
			out = append(out, r)
		}
	}
	return out, errors.Join(errs...)
}

// Registration reads what is registered for the volume, as Ledger.Registration.
func (e *Entry) Registration() (Registration, error) { return e.ledger.Registration(e.key) }

// SaveRegistration keeps the registration durably.
func (e *Entry) SaveRegistration(r Registration) error {
	r.Version, r.Driver, r.Volume = FormatVersion, e.key.Driver, e.key.Volume
	if err := e.ledger.writeFact(dirEpochs, e.key.fileName(), r); err != nil {
		return failedFact("write the registered epoch", e.key, err)
	}
	return nil
}

// DeleteRegistration forgets what was registered.
func (e *Entry) DeleteRegistration() error {
	err := errors.Join(removeFile(filepath.Join(e.ledger.cfg.StateDir, dirEpochs, e.key.fileName())),
		removeFile(filepath.Join(e.ledger.cfg.RunDir, dirLeases, e.key.fileName())))
	if err != nil {
		return failed("delete the registered epoch", e.key, err)
	}
	return nil
}

// Lease is until when a Registration with a lease counts. It lies in the run
// directory: no lease outlives a boot.
type Lease struct {
	Version int    `json:"version"`
	BootID  string `json:"bootId"`
	Epoch   uint64 `json:"epoch"`
	// ExpiresBoot is on the CLOCK_BOOTTIME scale.
	ExpiresBoot time.Duration `json:"expiresBoot"`
}

// Lease reads a volume's lease. The zero value, which is over, if there is none
// of this boot or none that can be read.
func (l *Ledger) Lease(key Key) Lease {
	data, err := readFile(filepath.Join(l.cfg.RunDir, dirLeases, key.fileName()))
	if err != nil {
		return Lease{}
	}
	var lease Lease
	if checkVersion(data) != nil || json.Unmarshal(data, &lease) != nil || lease.BootID != l.boot {
		return Lease{}
	}
	return lease
}

// SaveLease writes a volume's lease. Only the bridge does, without the volume's
// lock: an operation that takes long must not keep a lease from being renewed.
func (l *Ledger) SaveLease(key Key, epoch uint64, expiresBoot time.Duration) error {
	data, err := json.Marshal(Lease{Version: FormatVersion, BootID: l.boot, Epoch: epoch, ExpiresBoot: expiresBoot})
	if err == nil {
		err = replaceFile(filepath.Join(l.cfg.RunDir, dirLeases), key.fileName(), append(data, '\n'), false)
	}
	if err != nil {
		return failedFact("write the lease", key, err)
	}
	return nil
}
