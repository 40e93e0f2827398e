package scheduler

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// RecordVersion is the version of the record format that this package writes.
// It reads this and earlier versions.
const RecordVersion = 1

// Record is one decision: what was known, and what was decided. Records are
// kept as JSON, one per line, and can be replayed anywhere.
type Record struct {
	Snapshot Snapshot
	Plan     Plan
}

// wireRecord is a record as it is written. Plan is absent where only a snapshot
// was kept.
type wireRecord struct {
	Version  int             `json:"dvdiDecision"`
	At       time.Time       `json:"at"`
	Snapshot json.RawMessage `json:"snapshot"`
	Plan     json.RawMessage `json:"plan,omitempty"`
}

// EncodeRecord returns the record as one line of JSON with its newline. Equal
// records give equal bytes.
func EncodeRecord(r Record) ([]byte, error) {
	plan, err := EncodePlan(r.Plan)
	if err != nil {
		return nil, err
	}
	return encodeLine(r.Snapshot, plan)
}

// EncodeSnapshot returns a snapshot as one line of JSON, a record without plan.
func EncodeSnapshot(s Snapshot) ([]byte, error) { return encodeLine(s, nil) }

func encodeLine(s Snapshot, plan []byte) ([]byte, error) {
	snapshot, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode snapshot: %w", err)
	}
	line, err := json.Marshal(wireRecord{RecordVersion, s.Now, snapshot, plan})
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	return append(line, '\n'), nil
}

// EncodePlan returns a plan as JSON. Two plans are the same decision if and
// only if their encodings are equal.
func EncodePlan(p Plan) ([]byte, error) {
	b, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode plan: %w", err)
	}
	return b, nil
}

// ErrNoPlan means that a record holds a snapshot without a plan.
var ErrNoPlan = errors.New("the record holds no plan")

// DecodeRecord reads one line. A record without plan gives the snapshot and
// ErrNoPlan. Fields that this version does not know are an error: without them
// the decision could be another.
func DecodeRecord(line []byte) (Record, error) {
	var w wireRecord
	if err := decodeStrictly(line, &w); err != nil {
		return Record{}, fmt.Errorf("decode record: %w", err)
	}
	if w.Version < 1 || w.Version > RecordVersion {
		return Record{}, fmt.Errorf("decode record: its version is %d, this program reads 1 to %d; use the program that wrote it", w.Version, RecordVersion)
	}
	var r Record
	if err := decodeStrictly(w.Snapshot, &r.Snapshot); err != nil {
		return Record{}, fmt.Errorf("decode snapshot: %w", err)
	}
	if w.Plan == nil {
		return r, ErrNoPlan
	}
	if err := decodeStrictly(w.Plan, &r.Plan); err != nil {
		return Record{}, fmt.Errorf("decode plan: %w", err)
	}
	return r, nil
}

// DecodeSnapshot reads the snapshot of a line, with or without a plan.
func DecodeSnapshot(line []byte) (Snapshot, error) {
	r, err := DecodeRecord(line)
	if errors.Is(err, ErrNoPlan) {
		err = nil
	}
	return r.Snapshot, err
}

func decodeStrictly(b []byte, to any) error {
	if len(b) == 0 {
		return errors.New("it is empty")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return err
	}
	if d.More() {
		return errors.New("there is more than one value; give one line at a time")
	}
	return nil
}

// Replay decides again about the record's snapshot and says whether the plan
// is the one that was recorded.
func (r *Record) Replay() (plan Plan, same bool, err error) {
	plan = Decide(r.Snapshot)
	was, err := EncodePlan(r.Plan)
	if err != nil {
		return plan, false, err
	}
	is, err := EncodePlan(plan)
	if err != nil {
		return plan, false, err
	}
	return plan, bytes.Equal(was, is), nil
}
