package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// Events of the attach log.
const (
	eventAttach = "attach" // written before the volume is mounted on the node
	eventDetach = "detach" // written after it was unmounted there
	eventForce  = "force-detach"
)

// attachEvent is one line of the attach log.
type attachEvent struct {
	Time   time.Time `json:"time"`
	Event  string    `json:"event"`
	Volume string    `json:"volume"`
	Node   string    `json:"node"`
	Epoch  uint64    `json:"epoch"`
	Reason string    `json:"reason,omitempty"`
}

// attachLog is the store's history of who had which volume when, one JSON
// object per line, only ever appended to. The lines of one volume are in
// order, since they are written under its lock. Each is durable before the
// record changes; an attach whose epoch comes again belongs to a process that
// died in between and never took effect.
//
// Two nodes have written to an exclusive volume at once if, and only if, an
// attach with a new epoch follows one that no detach or force-detach ended.
type attachLog struct{ path string }

// append adds the event. A line that a crash left incomplete is closed first.
func (l attachLog) append(ctx context.Context, event attachEvent) error {
	event.Time = time.Now().UTC()
	line, err := json.Marshal(event)
	if err != nil {
		return fmt.Errorf("attach log: %w", err)
	}
	held, err := lock(ctx, l.path)
	if err != nil {
		return fmt.Errorf("attach log: %w", err)
	}
	defer held.unlock()
	end, err := held.file.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("attach log: %w", err)
	}
	if end > 0 {
		last := make([]byte, 1)
		if _, err := held.file.ReadAt(last, end-1); err != nil {
			return fmt.Errorf("attach log: %w", err)
		}
		if last[0] != '\n' {
			line = append([]byte("\n"), line...)
		}
	}
	if _, err := held.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("attach log: %w", err)
	}
	if err := held.file.Sync(); err != nil {
		return fmt.Errorf("attach log: %w", err)
	}
	return nil
}

// read returns all events; lines that a crash left incomplete are skipped.
func (l attachLog) read() ([]attachEvent, error) {
	data, err := os.ReadFile(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("attach log: %w", err)
	}
	var events []attachEvent
	for line := range bytes.Lines(data) {
		var event attachEvent
		if json.Unmarshal(line, &event) == nil {
			events = append(events, event)
		}
	}
	return events, nil
}
