package scheduler

import "fmt"

// The enumerations are written as words, so that a record stays readable and
// keeps its meaning when constants are added.

var (
	accessNames    = []string{OneTask: "one-task", OneAgent: "one-agent", ManyReaders: "many-readers", ManyWriters: "many-writers"}
	claimNames     = []string{Held: "held", Releasing: "releasing", Lost: "lost", Fenced: "fenced"}
	operationNames = []string{OpLaunch: "launch", OpReserve: "reserve", OpUnreserve: "unreserve", OpCreate: "create", OpDestroy: "destroy"}
)

// String returns the mode as it is written in records.
func (m AccessMode) String() string { return nameOf(accessNames, int(m)) }

// String returns the state as it is written in records.
func (s ClaimState) String() string { return nameOf(claimNames, int(s)) }

// String returns the kind as it is written in records.
func (k OperationKind) String() string { return nameOf(operationNames, int(k)) }

// MarshalText implements encoding.TextMarshaler.
func (m AccessMode) MarshalText() ([]byte, error) {
	return marshalName("access mode", accessNames, int(m))
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *AccessMode) UnmarshalText(text []byte) error {
	return unmarshalName("access mode", accessNames, text, m)
}

// MarshalText implements encoding.TextMarshaler.
func (s ClaimState) MarshalText() ([]byte, error) {
	return marshalName("state of a claim", claimNames, int(s))
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *ClaimState) UnmarshalText(text []byte) error {
	return unmarshalName("state of a claim", claimNames, text, s)
}

// MarshalText implements encoding.TextMarshaler.
func (k OperationKind) MarshalText() ([]byte, error) {
	return marshalName("kind of operation", operationNames, int(k))
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *OperationKind) UnmarshalText(text []byte) error {
	return unmarshalName("kind of operation", operationNames, text, k)
}

func nameOf(names []string, i int) string {
	if i < len(names) && names[i] != "" {
		return names[i]
	}
	return fmt.Sprintf("unknown(%d)", i)
}

func marshalName(what string, names []string, i int) ([]byte, error) {
	if i >= len(names) || names[i] == "" {
		return nil, fmt.Errorf("encode %s: %d is not one", what, i)
	}
	return []byte(names[i]), nil
}

func unmarshalName[T ~uint8](what string, names []string, text []byte, to *T) error {
	for i, n := range names {
		if n != "" && n == string(text) {
			*to = T(i)
			return nil
		}
	}
	return fmt.Errorf("decode %s: %q is not one of %q", what, text, names)
}
