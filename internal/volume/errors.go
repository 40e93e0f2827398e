package volume

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Kind says what a caller may conclude from a failure. A Kind is itself an
// error, so that errors.Is(err, volume.NotFound) asks for it.
type Kind string

// The kinds of failure. Those of the first group come from drivers and their
// clients, the others from the engine.
const (
	// NotFound: the driver said that the volume does not exist.
	NotFound Kind = "volume not found"
	// AlreadyExists: the driver said that the volume exists.
	AlreadyExists Kind = "volume already exists"
	// Refused: the driver answered that it failed. The call is over.
	Refused Kind = "refused by the driver"
	// Unsupported: the driver lacks this call.
	Unsupported Kind = "not supported by the driver"
	// DriverUnknown: no driver of this name exists on this host. See
	// DriverUnknownError.
	DriverUnknown Kind = "driver unknown"
	// DriverUnreachable: the driver is defined but nothing could be sent to it.
	// The call had no effect.
	DriverUnreachable Kind = "driver unreachable"
	// Unsettled: the request was sent and no answer came. The driver may still
	// be working on it.
	Unsettled Kind = "call without an answer"

	// Garbled: the driver answered, so that it has finished, but whether it
	// succeeded cannot be told from the answer.
	Garbled Kind = "answer not understood"

	// Invalid: the caller's argument is wrong.
	Invalid Kind = "invalid argument"
	// Deadline: the call's own deadline passed while it waited for its turn;
	// nothing was sent on its behalf.
	Deadline Kind = "deadline exceeded"
	// InUse: another holder has the volume.
	InUse Kind = "volume in use"
	// OutdatedEpoch: a framework registered that the volume belongs to somebody
	// newer, here or on another host.
	OutdatedEpoch Kind = "epoch not valid here"
	// NotMounted: nothing is mounted; an error only where asked to be strict.
	NotMounted Kind = "not mounted"
	// BadPath: the driver answered Mount with success, and the path is empty,
	// relative, missing, not a directory or not what is mounted there.
	BadPath Kind = "mount path not usable"
	// Forbidden: the agent's policy does not allow it.
	Forbidden Kind = "forbidden by policy"
	// BadPolicy: the agent's policy cannot be read.
	BadPolicy Kind = "policy not readable"
	// BadRecord: a ledger record cannot be read, or is of a newer version.
	BadRecord Kind = "ledger record not usable"
	// LedgerFailed: the ledger could not be read or written.
	LedgerFailed Kind = "ledger not usable"
)

// Error makes a Kind usable as target of errors.Is.
func (k Kind) Error() string { return string(k) }

// Error is a failed operation on a volume or driver.
type Error struct {
	Kind Kind
	// Op is the engine's operation or the driver's call, such as "mount" or
	// "VolumeDriver.Mount".
	Op     string
	Driver string
	// Volume is empty for operations on a driver as a whole.
	Volume string
	// Status is the protocol's status (HTTP, gRPC, exit), 0 if none.
	Status int
	// Message is the driver's own text, or what is wrong. Never a secret.
	Message string
	// Elapsed is how long the operation took; 0 if not measured.
	Elapsed time.Duration
	// Hint says what to do about it.
	Hint string
	// Err is the cause, may be nil.
	Err error
}

// Error says what failed, on what, why, after how long, and what to do.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Op != "" {
		b.WriteString(e.Op)
	}
	if e.Volume != "" {
		fmt.Fprintf(&b, " volume %q", e.Volume)
	}
	if e.Driver != "" {
		fmt.Fprintf(&b, " with driver %q", e.Driver)
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	b.WriteString(string(e.Kind))
	if e.Status != 0 {
		fmt.Fprintf(&b, " (status %d)", e.Status)
	}
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	if e.Elapsed > 0 {
		fmt.Fprintf(&b, " (after %s)", e.Elapsed.Round(time.Millisecond))
	}
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return strings.TrimSpace(b.String())
}

// Is makes errors.Is(err, kind) true for the error's own kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(Kind)
	return ok && k == e.Kind
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// DriverUnknownError says that no driver of a name exists, where it was looked
// for, and which ones do exist. errors.Is(err, DriverUnknown) holds.
type DriverUnknownError struct {
	Driver string
	// Searched are the places looked at, in order.
	Searched []string
	// Existing are the names of drivers that were found there.
	Existing []string
}

// Error names the driver, the places and the alternatives.
func (e *DriverUnknownError) Error() string {
	existing := "no drivers exist there"
	if len(e.Existing) > 0 {
		existing = "drivers found: " + strings.Join(e.Existing, ", ")
	}
	return fmt.Sprintf("driver %q unknown: searched %s; %s; start or install the driver, or correct the name",
		e.Driver, strings.Join(e.Searched, ", "), existing)
}

// Is makes errors.Is(err, DriverUnknown) true.
func (e *DriverUnknownError) Is(target error) bool { return target == error(DriverUnknown) }

// KindOf returns the kind of err, or the empty Kind if it has none. The
// outermost *Error decides.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	var u *DriverUnknownError
	if errors.As(err, &u) {
		return DriverUnknown
	}
	return ""
}
