package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// FormatVersion is the version of the records that this code writes. Records
// of a higher version are refused and left untouched: a newer program wrote
// them. See the package comment for the format.
const FormatVersion = 1

// Phase says how far a mount has come. A record whose Call is set is in the
// middle of that call, whatever its phase.
type Phase string

// The phases of a record.
const (
	// PhaseNew: nothing is mounted yet; the record exists for the call that it
	// holds (create, mount, remove).
	PhaseNew Phase = "new"
	// PhaseMounted: the driver answered Mount, the path was checked.
	PhaseMounted Phase = "mounted"
	// PhasePending: nobody holds the volume any more and an Unmount is owed to
	// the driver, because it failed or its caller died.
	PhasePending Phase = "pending-unmount"
	// PhaseWatched: a Mount got no answer and, when its time was over, nothing
	// was mounted. The record stays for a while: should the mount appear late,
	// it will be undone.
	PhaseWatched Phase = "watched"
	// PhaseReleased: the driver answered Unmount. What is left to do is to
	// delete the record.
	PhaseReleased Phase = "released"
)

// PathKind says what a driver's mount path is.
type PathKind string

// The kinds of mount path.
const (
	KindUnknown    PathKind = ""
	KindMountPoint PathKind = "mountpoint"
	KindDirectory  PathKind = "directory"
)

// Op is a call to a driver that changes something.
type Op string

// The calls that are recorded before they are made.
const (
	OpCreate  Op = "create"
	OpRemove  Op = "remove"
	OpMount   Op = "mount"
	OpUnmount Op = "unmount"
)

// Call is a call to a driver that was begun and has no recorded answer.
type Call struct {
	Op      Op        `json:"op"`
	Started time.Time `json:"started"`
	// StartedBoot and SettledBoot are on the CLOCK_BOOTTIME scale: the clock
	// may be set, the host may sleep. At SettledBoot the driver is taken to have
	// finished, one way or the other.
	StartedBoot time.Duration `json:"startedBoot"`
	SettledBoot time.Duration `json:"settledBoot"`
	// PID made the call; for people only.
	PID int `json:"pid"`
	// Server is the process that got the call, nil if that is not known: once it
	// has ended, so has the call.
	Server *volume.Process `json:"server,omitempty"`
}

// Holder is somebody for whom the volume is mounted: an agent or a person.
type Holder struct {
	Name  string    `json:"name"`
	Since time.Time `json:"since"`
	// Instance is the framework's instance that asked, if it said so
	// (dvdi.instance).
	Instance string `json:"instance,omitempty"`
}

// Record is what is known about one volume of one driver in one run directory.
type Record struct {
	Version int    `json:"version"`
	Driver  string `json:"driver"`
	Volume  string `json:"volume"`
	// BootID is the boot in which the record was written. A record of another
	// boot is a hint, not a fact.
	BootID string `json:"bootId"`
	Phase  Phase  `json:"phase"`

	// MountID is what the driver gets as ID with Mount and Unmount. It is empty
	// for a mount that was adopted from a caller that sends none.
	MountID string `json:"mountId"`
	// Adopted says that the mount was found, not made.
	Adopted bool     `json:"adopted,omitempty"`
	Holders []Holder `json:"holders,omitempty"`
	// Since is when the volume was mounted or adopted.
	Since time.Time `json:"since,omitzero"`
	// Epoch is the registered one under which it was mounted or taken last, 0 for
	// none.
	Epoch uint64 `json:"epoch,omitempty"`

	// Path is what the driver answered; Resolved is the same without symbolic
	// links, as it appears in the mount table.
	Path     string   `json:"path,omitempty"`
	Resolved string   `json:"resolved,omitempty"`
	Kind     PathKind `json:"kind,omitempty"`
	// Device is st_dev of Path, FSType and Source are those of the mount.
	Device uint64 `json:"device,omitempty"`
	FSType string `json:"fsType,omitempty"`
	Source string `json:"source,omitempty"`
	// Namespace is the mount namespace in which Path was seen.
	Namespace string `json:"namespace,omitempty"`

	// Target, BackendID, Context and PublishContext belong to the driver and go
	// back to it unread.
	Target         string            `json:"target,omitempty"`
	BackendID      string            `json:"backendId,omitempty"`
	Context        map[string]string `json:"context,omitempty"`
	PublishContext map[string]string `json:"publishContext,omitempty"`

	// Options as given, without the values of secrets.
	Options map[string]string `json:"options,omitempty"`

	// Call is set while a call has no answer.
	Call *Call `json:"call,omitempty"`

	// Doubt says that a call for this mount ID never got an answer: the driver
	// may hold the ID or not.
	Doubt bool `json:"doubt,omitempty"`

	// Attempts, LastError and NextTryBoot (CLOCK_BOOTTIME) are about the
	// Unmount that is owed.
	Attempts    int           `json:"attempts,omitempty"`
	LastError   string        `json:"lastError,omitempty"`
	NextTryBoot time.Duration `json:"nextTryBoot,omitempty"`
	// EarlierBoot says that what is watched for is a mount of an earlier boot.
	EarlierBoot bool `json:"earlierBoot,omitempty"`
	// WatchUntilBoot ends PhaseWatched (CLOCK_BOOTTIME).
	WatchUntilBoot time.Duration `json:"watchUntilBoot,omitempty"`
}

// Ref names the volume towards its driver.
func (r *Record) Ref() volume.Ref {
	return volume.Ref{Name: r.Volume, BackendID: r.BackendID, Context: r.Context}
}

// Key names the record.
func (r *Record) Key() Key { return Key{Driver: r.Driver, Volume: r.Volume} }

// HeldBy says whether a holder of this name has the volume.
func (r *Record) HeldBy(holder string) bool {
	return slices.ContainsFunc(r.Holders, func(h Holder) bool { return h.Name == holder })
}

// Hold adds a holder; one that is already there is left as it is.
func (r *Record) Hold(h Holder) {
	if !r.HeldBy(h.Name) {
		r.Holders = append(r.Holders, h)
	}
}

// Release removes a holder.
func (r *Record) Release(holder string) {
	r.Holders = slices.DeleteFunc(r.Holders, func(h Holder) bool { return h.Name == holder })
}

// Clone returns a copy whose slices and Call can be changed independently; the
// maps are shared and never changed in place.
func (r *Record) Clone() *Record {
	c := *r
	c.Holders = slices.Clone(r.Holders)
	if r.Call != nil {
		call := *r.Call
		c.Call = &call
	}
	return &c
}

// errNewer marks a record of a format that this code does not know.
type errNewer struct{ version int }

func (e errNewer) Error() string {
	return fmt.Sprintf("it has format version %d, this program knows %d", e.version, FormatVersion)
}

// decode reads a record and checks that it says what its name says. What follows
// it are lines with later ones, of which the last whole one counts: a crash may
// have cut off the one that it came upon.
func decode(data []byte, name string) (*Record, error) {
	if r, err := decodeOne(data, name); err == nil {
		return r, nil // nothing follows, as in almost all files
	}
	first, rest := firstValue(data)
	r, err := decodeOne(first, name)
	if err != nil {
		return nil, err
	}
	for line := range bytes.Lines(rest) {
		later, err := decodeOne(line, name)
		if newer := (errNewer{}); errors.As(err, &newer) {
			return nil, err
		}
		if err == nil {
			r = later
		}
	}
	return r, nil
}

// firstValue divides a file behind its first JSON value; one without a whole one
// is all of it.
func firstValue(data []byte) (first, rest []byte) {
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(new(json.RawMessage)); err != nil {
		return data, nil
	}
	return data[:dec.InputOffset()], data[dec.InputOffset():]
}

// versionOf is the format version of a file's first value; 0 for what has none.
func versionOf(data []byte) int {
	first, _ := firstValue(data)
	var head struct {
		Version int `json:"version"`
	}
	if json.Unmarshal(first, &head) != nil {
		return 0
	}
	return head.Version
}

// checkVersion returns an error for which IsNewer holds if the file has a format
// that this code does not know.
func checkVersion(data []byte) error {
	if v := versionOf(data); v > FormatVersion {
		return errNewer{v}
	}
	return nil
}

func decodeOne(data []byte, name string) (*Record, error) {
	var r Record
	err := json.Unmarshal(data, &r)
	if err != nil {
		// In what is no record of this format there may still be a version.
		r.Version = versionOf(data)
	}
	switch {
	case r.Version > FormatVersion:
		return nil, errNewer{r.Version}
	case r.Version < 1:
		return nil, fmt.Errorf("no format version")
	case err != nil:
		return nil, fmt.Errorf("not a record: %w", err)
	}
	if r.Driver == "" || r.Volume == "" {
		return nil, fmt.Errorf("it names no driver or volume")
	}
	if r.Key().fileName() != name {
		return nil, fmt.Errorf("it is about driver %q volume %q, which belongs elsewhere", r.Driver, r.Volume)
	}
	switch r.Phase {
	case PhaseNew, PhaseMounted, PhasePending, PhaseWatched, PhaseReleased:
	default:
		return nil, fmt.Errorf("unknown phase %q", r.Phase)
	}
	if r.Phase == PhaseMounted && r.Path == "" {
		return nil, fmt.Errorf("mounted without a path")
	}
	return &r, nil
}
