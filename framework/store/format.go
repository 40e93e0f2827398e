package store

import "fmt"

// FormatVersion is the version of the record formats that this program writes.
// A store of an older version is migrated when it is opened; a newer one is
// refused.
const FormatVersion = 1

// migration brings records from one format version to the next: it gets all of
// them, sorted by kind and key, and returns the changes.
type migration func(records []Write) ([]Write, error)

// format is a version and the way to it: steps[n] leads from version n+1 to n+2.
// Stores get it as a value so that tests can have a future of their own.
type format struct {
	version int
	steps   []migration
}

// current is this program's format.
var current = format{version: FormatVersion}

// migrate returns the changes that bring records of version from to f's, which
// are to be committed at once with the new version.
func (f format) migrate(from int, records []Write) ([]Write, error) {
	if from < 1 || from > f.version {
		return nil, fmt.Errorf("%w: format %d, known are 1 to %d", ErrNewer, from, f.version)
	}
	now := map[recordID][]byte{}
	for _, r := range records {
		now[recordID{r.Kind, r.Key}] = r.Value
	}
	changed := map[recordID]bool{}
	for v := from; v < f.version; v++ {
		writes, err := f.steps[v-1](sorted(now))
		if err != nil {
			return nil, fmt.Errorf("migrate from format %d to %d: %w", v, v+1, err)
		}
		for _, w := range writes {
			id := recordID{w.Kind, w.Key}
			changed[id] = true
			if w.Value == nil {
				delete(now, id)
			} else {
				now[id] = w.Value
			}
		}
	}
	var out []Write
	for id := range changed {
		out = append(out, Write{Kind: id.kind, Key: id.key, Value: now[id]})
	}
	sortWrites(out)
	return out, nil
}

func sorted(records map[recordID][]byte) []Write {
	out := make([]Write, 0, len(records))
	for id, value := range records {
		out = append(out, Write{Kind: id.kind, Key: id.key, Value: value})
	}
	sortWrites(out)
	return out
}
