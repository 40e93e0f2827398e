package fence

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// State is how far a lease has come.
type State int

// The states of a lease. Holding: it may be renewed. Fencing: it is over and
// something of the volume's use is left. Fenced: nothing is.
const (
	Holding State = iota
	Fencing
	Fenced
)

// Terms are what the holder of a lease is told.
type Terms struct {
	Lease time.Duration
	// Trusted says that the expiry may be relied upon, Reason why or why not.
	Trusted bool
	Reason  string
	// Grace is to be added to the lease before that.
	Grace time.Duration
	// Basis is to be quoted with the next renewal.
	Basis []byte
	State State

	// granted is the lease that was made, before the one that it took the place of
	// or that a registration without a lease ends.
	granted, before *lease
}

// Why a lease is not renewed.
var (
	// ErrNoLease: there is none for the volume under this epoch.
	ErrNoLease = errors.New("there is no lease under this epoch")
	// ErrOver: it has expired.
	ErrOver = errors.New("the lease is over")
	// ErrBasis: the basis was not given out in this boot.
	ErrBasis = errors.New("the basis is not of this boot")
	// ErrFencing: the volume's lease under an older epoch is over and not
	// everything that used it is gone yet.
	ErrFencing = errors.New("the volume is being fenced; try again when that is done")
	// ErrLeased: the epoch is registered with a lease, on which its framework may
	// rely.
	ErrLeased = errors.New("the epoch has a lease on this host; claim the volume anew, under a higher epoch, to have it without")
	// ErrSuperseded: something else is registered for the volume by now.
	ErrSuperseded = errors.New("another claim on the volume is registered")
)

// lease is one volume's.
type lease struct {
	key       ledger.Key
	framework string // empty: its registration cannot be read
	epoch     uint64
	length    time.Duration
	expires   time.Duration // CLOCK_BOOTTIME
	trust     trust
	state     State
	// working says that a goroutine fences it; dropped that nobody needs it any
	// more once that is done.
	working, dropped bool
	problem          string // why fencing has not come to its end
}

// over says whether the lease's time is over and not all of its users are gone.
func (l *lease) over(now time.Duration) bool {
	return l.state == Fencing || l.state == Holding && now >= l.expires
}

// trust says what enforces an expiry.
type trust struct {
	by     enforcer
	reason string
}

type enforcer int

const (
	nobody enforcer = iota
	theWatchdog
	theBackend
)

// basis is a time on the CLOCK_BOOTTIME scale of a boot.
const basisLength = 8 + bootHash

const bootHash = 8

func (k *Keeper) basis(at time.Duration) []byte {
	out := binary.BigEndian.AppendUint64(make([]byte, 0, basisLength), uint64(at))
	return append(out, k.boot[:]...)
}

func hashBoot(id string) (out [bootHash]byte) {
	sum := sha256.Sum256([]byte(id))
	copy(out[:], sum[:])
	return out
}

// basisTime reads a basis; one of another boot or of the future is refused.
func (k *Keeper) basisTime(basis []byte, now time.Duration) (time.Duration, error) {
	if len(basis) != basisLength || [bootHash]byte(basis[8:]) != k.boot {
		return 0, ErrBasis
	}
	at := time.Duration(binary.BigEndian.Uint64(basis))
	if at < 0 || at > now {
		return 0, fmt.Errorf("%w: it lies in the future", ErrBasis)
	}
	return at, nil
}
