// Package snapshot is what the bridge knows of its agent's volumes at one time,
// for those who tell it to others.
package snapshot

import (
	"sync"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// Container is a user of a volume.
type Container struct {
	ID string
	// FrameworkID, ExecutorID and TaskID are empty where they are not known.
	FrameworkID, ExecutorID, TaskID string
	// Live says that it is, or may be, running.
	Live bool
}

// Volume is one volume on which there is anything to say.
type Volume struct {
	Key ledger.Key
	// Record is that of the ledger, nil if there is none; it must not be changed.
	Record *ledger.Record
	// Containers are those that named it to Mesos's isolator or to the bridge.
	Containers []Container
	// Leaked says that none of them is left; LeakedSince since when.
	Leaked      bool
	LeakedSince time.Time
	// Problem says what is wrong and stays wrong.
	Problem string
}

// Snapshot is all volumes at one time. It is never changed after Publish.
type Snapshot struct {
	Time time.Time
	// Looked is when the look at the agent began.
	Looked  time.Time
	Volumes map[ledger.Key]Volume
	// ContainersKnown says that the agent is up, recovered and answered, and
	// that its checkpoints were read.
	ContainersKnown bool
	// Agent says in words what is known of the agent.
	Agent string
}

// Board has the newest snapshot. It is safe for concurrent use.
type Board struct {
	mu      sync.Mutex // guards both
	current Snapshot
	next    chan struct{}
}

// NewBoard makes a Board with an empty snapshot.
func NewBoard() *Board { return &Board{next: make(chan struct{})} }

// Publish replaces the snapshot and wakes those who wait.
func (b *Board) Publish(s Snapshot) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.current = s
	close(b.next)
	b.next = make(chan struct{})
}

// Current is the newest snapshot and a channel that is closed with the next.
func (b *Board) Current() (Snapshot, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.current, b.next
}
