package marathon_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// attachment is a line of the reference plugin's log: a volume is attached to a
// node before it is mounted there, and detached after it was unmounted.
type attachment struct {
	Event  string `json:"event"`
	Volume string `json:"volume"`
	Node   string `json:"node"`
	Epoch  uint64 `json:"epoch"`
}

// readAttachments returns the whole log. A line that is being written is left
// for the next time.
func readAttachments(path string) ([]attachment, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []attachment
	for line := range bytes.Lines(data) {
		var a attachment
		if bytes.HasSuffix(line, []byte("\n")) && len(bytes.TrimSpace(line)) > 0 {
			if err := json.Unmarshal(line, &a); err != nil {
				return nil, fmt.Errorf("%s: %w in %s", path, err, line)
			}
			out = append(out, a)
		}
	}
	return out, nil
}

// twoWriters says where a volume was attached to a second node while a first
// had it, "" if nowhere. An attach whose epoch comes again repeats one that
// never took effect.
func twoWriters(log []attachment) string {
	holder := map[string]attachment{}
	for n, a := range log {
		held, isHeld := holder[a.Volume]
		switch {
		case a.Event != "attach":
			delete(holder, a.Volume)
		case isHeld && held.Epoch != a.Epoch:
			return fmt.Sprintf("line %d: volume %s is attached to %s while %s has it", n+1, a.Volume, a.Node, held.Node)
		default:
			holder[a.Volume] = a
		}
	}
	return ""
}
