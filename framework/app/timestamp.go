package app

import (
	"encoding/json"
	"fmt"
	"time"
)

const timestampLayout = "2006-01-02T15:04:05.000Z"

// NewTimestamp cuts t to milliseconds, in UTC. Timestamps of the same
// millisecond are equal by ==.
func NewTimestamp(t time.Time) Timestamp {
	if t.IsZero() {
		return Timestamp{}
	}
	return Timestamp(time.UnixMilli(t.UnixMilli()).UTC())
}

// ParseTimestamp reads an ISO-8601 time. The error is a *ValidationError with
// Marathon's message.
func ParseTimestamp(s string) (Timestamp, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05.999999999Z0700"} {
		if t, err := time.Parse(layout, s); err == nil {
			return NewTimestamp(t), nil
		}
	}
	return Timestamp{}, &ValidationError{
		Message: fmt.Sprintf("Invalid timestamp provided '%s'. Expecting ISO-8601 datetime string.", s),
	}
}

// Time returns t as a time in UTC.
func (t Timestamp) Time() time.Time { return time.Time(t) }

// IsZero says whether t is unset.
func (t Timestamp) IsZero() bool { return time.Time(t).IsZero() }

// Compare orders timestamps by time: -1, 0 or +1.
func (t Timestamp) Compare(u Timestamp) int { return time.Time(t).Compare(time.Time(u)) }

// String renders t as Marathon does, for example 2015-01-02T03:04:05.006Z.
func (t Timestamp) String() string { return time.Time(t).UTC().Format(timestampLayout) }

// MarshalJSON writes the string form.
func (t Timestamp) MarshalJSON() ([]byte, error) { return json.Marshal(t.String()) }

// UnmarshalJSON reads any form that ParseTimestamp reads.
func (t *Timestamp) UnmarshalJSON(data []byte) error {
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("timestamp: %w", err)
	}
	v, err := ParseTimestamp(s)
	if err != nil {
		return err
	}
	*t = v
	return nil
}
