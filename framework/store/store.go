// Package store keeps the framework's state through crashes and restarts. It
// knows nothing of what the values mean: the core encodes its records and
// commits them in transactions.
package store

import (
	"errors"
	"fmt"
)

// Errors that a caller decides on. They come wrapped in an *Error.
var (
	// ErrLocked means that another process has the state open.
	ErrLocked = errors.New("the state is in use by another process")
	// ErrDamaged means that the state cannot be read.
	ErrDamaged = errors.New("the state cannot be read")
	// ErrNewer means that a newer program wrote the state.
	ErrNewer = errors.New("the state was written by a newer version of this program")
	// ErrClosed means that the store was closed before the call.
	ErrClosed = errors.New("the state is closed")
)

// Error is a failure of the store: what was attempted, on which file, why, and
// what a person can do about it.
type Error struct {
	Op     string
	Path   string
	Err    error
	Remedy string
}

func (e *Error) Error() string {
	text := fmt.Sprintf("%s state %s: %v", e.Op, e.Path, e.Err)
	if e.Remedy != "" {
		text += "; " + e.Remedy
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// Write is one change of a transaction: the record Key of Kind gets Value, or
// is deleted when Value is nil.
type Write struct {
	Kind  string
	Key   string
	Value []byte
}

// Store is durable storage of records. Implementations allow calls from several
// goroutines.
type Store interface {
	// Load calls fn for every record, in the order of kind and key. The value
	// is valid only during the call. Load stops at fn's error and returns it.
	Load(fn func(kind, key string, value []byte) error) error
	// Commit applies all writes or none. When it returns nil they survive a
	// crash of the process and of the machine. After an error it is unknown
	// whether they were applied: the caller reads the store afresh.
	Commit(writes []Write) error
	// Close releases the store for other processes.
	Close() error
}
