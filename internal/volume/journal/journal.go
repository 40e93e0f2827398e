package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// The files in the run directory.
const (
	currentName  = "calls.log"
	olderName    = "calls.1.log"
	positionName = "calls.read"
)

const (
	// full is the size of a file after which another one is begun: some ten
	// thousand calls.
	full = 1 << 20
	// maxLine bounds a line; a driver's name is the name of a file.
	maxLine = 4096
)

// line is a call as it is written. PID and At make every line one of a kind: by
// its first line a Reader knows a file again.
type line struct {
	At      time.Time `json:"at"`
	PID     int       `json:"pid"`
	Driver  string    `json:"driver"`
	Kind    string    `json:"kind"`
	Outcome string    `json:"outcome"`
	Seconds float64   `json:"seconds"`
}

// Journal writes calls down in a run directory. Any number of processes and
// goroutines may write at the same time, with or without a Reader.
type Journal struct {
	dir  string
	full int64
}

// New makes a Journal. It does no I/O.
func New(runDir string) *Journal { return &Journal{dir: runDir, full: full} }

// ErrFull says that a call was not written because another file could not be
// begun.
var ErrFull = errors.New("the journal of calls is full")

// Write writes calls down: with one write, without waiting for the disk or for
// anybody. Whoever made the calls has nothing to do about an error but tell it.
func (j *Journal) Write(calls ...Call) error {
	var lines []byte
	for _, c := range calls {
		text, err := json.Marshal(line{At: time.Now(), PID: os.Getpid(), Driver: c.Driver, Kind: c.Kind, Outcome: c.Outcome, Seconds: c.Took.Seconds()})
		if err != nil {
			return fmt.Errorf("journal of calls: %w", err)
		}
		if len(text) >= maxLine {
			return fmt.Errorf("journal of calls: a driver's name of %d bytes", len(c.Driver))
		}
		lines = append(append(lines, text...), '\n')
	}
	if len(lines) == 0 {
		return nil
	}
	// The second attempt is for the file that the first one began anew.
	for range 2 {
		again, err := j.append(lines)
		if err != nil {
			return fmt.Errorf("journal of calls: %w", err)
		}
		if !again {
			return nil
		}
	}
	return fmt.Errorf("journal of calls: %w", ErrFull)
}

// append writes to the current file; again says that it was full and another
// one has taken its place.
func (j *Journal) append(text []byte) (again bool, err error) {
	// Opened for each call, so that nobody writes to a file that was replaced
	// long ago. Without O_NONBLOCK a FIFO of that name would hang the caller.
	f, err := os.OpenFile(filepath.Join(j.dir, currentName), os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return false, err
	}
	if !st.Mode().IsRegular() {
		return false, fmt.Errorf("%s is not a regular file", f.Name())
	}
	if st.Size() >= j.full {
		if again, err := j.turn(f, st); again || err != nil {
			return again, err
		}
		if st.Size() >= 2*j.full {
			return false, ErrFull
		}
	}
	_, err = f.Write(text)
	return false, err
}

// turn makes a full file the older one, unless somebody else does or did. The
// lock keeps two writers from turning one after the other, which would throw
// away all that is in the older file; it is not waited for.
func (j *Journal) turn(f *os.File, mine os.FileInfo) (turned bool, err error) {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = nil
		}
		return false, err
	}
	named, err := os.Lstat(f.Name())
	switch {
	case errors.Is(err, os.ErrNotExist):
		return true, nil // another one will be made
	case err != nil:
		return false, err
	case !os.SameFile(mine, named):
		return true, nil
	}
	return true, os.Rename(f.Name(), filepath.Join(j.dir, olderName))
}
