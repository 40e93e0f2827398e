package resource

import "fmt"

// The enumerations are written as words in records; the zero Kind, which is
// not valid in an offer, is the empty word.

var (
	kindNames   = []string{"", Scalar: "scalar", Ranges: "ranges", Set: "set"}
	sourceNames = []string{SourceRoot: "root", SourcePath: "path", SourceMount: "mount", SourceBlock: "block", SourceRaw: "raw"}
)

// MarshalText implements encoding.TextMarshaler.
func (k Kind) MarshalText() ([]byte, error) {
	return marshalName("kind of resource", kindNames, int(k))
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *Kind) UnmarshalText(text []byte) error {
	return unmarshalName("kind of resource", kindNames, text, k)
}

// String returns the source as Marathon's volumes name it.
func (s SourceType) String() string {
	if int(s) < len(sourceNames) {
		return sourceNames[s]
	}
	return fmt.Sprintf("unknown(%d)", s)
}

// MarshalText implements encoding.TextMarshaler.
func (s SourceType) MarshalText() ([]byte, error) {
	return marshalName("disk source", sourceNames, int(s))
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *SourceType) UnmarshalText(text []byte) error {
	return unmarshalName("disk source", sourceNames, text, s)
}

func marshalName(what string, names []string, i int) ([]byte, error) {
	if i >= len(names) {
		return nil, fmt.Errorf("encode %s: %d is not one", what, i)
	}
	return []byte(names[i]), nil
}

func unmarshalName[T ~uint8](what string, names []string, text []byte, to *T) error {
	for i, n := range names {
		if n == string(text) {
			*to = T(i)
			return nil
		}
	}
	return fmt.Errorf("decode %s: %q is not one of %q", what, text, names)
}
