package takeover

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// phase is how far an app's take-over has come. Each is written to the journal
// before the first effect that follows from it.
type phase string

const (
	planned    phase = "planned"    // nothing has happened
	created    phase = "created"    // the app may exist here, without instances
	suspending phase = "suspending" // Marathon is to end its tasks
	suspended  phase = "suspended"  // they have ended
	claimed    phase = "claimed"    // its volumes are claimed here where they were used
	starting   phase = "starting"   // its instances start here
	taken      phase = "taken"      // they run here

	stopping  phase = "stopping"  // on the way back: they are to end here
	stopped   phase = "stopped"   // they have ended here
	returning phase = "returning" // Marathon starts them again
	returned  phase = "returned"  // they run there; the app is gone here
)

// entry is the journal's record of one app.
type entry struct {
	Phase     phase `json:"phase"`
	Instances int   `json:"instances"` // at Marathon, before
	// Tasks are all that were seen at Marathon since the take-over began.
	Tasks []Task `json:"tasks,omitempty"`
	// LastFailure is the task that had failed last before the take-over began.
	LastFailure string   `json:"lastFailure,omitempty"`
	Volumes     []Volume `json:"volumes,omitempty"` // exclusive ones
	// Kept is how many instances Marathon keeps for their persistent volumes.
	Kept int `json:"kept,omitempty"`
	// Pinned is the host to which the app is bound on its way back.
	Pinned string `json:"pinned,omitempty"`
}

// Journal is the memory of a take-over: a file that is replaced as a whole with
// each step.
type Journal struct {
	path    string
	content struct {
		From string            `json:"from"`
		To   string            `json:"to"`
		Apps map[string]*entry `json:"apps"`
	}
}

// OpenJournal reads the journal of a take-over between two places, or begins one
// where there is no file.
func OpenJournal(path, from, to string) (*Journal, error) {
	j := &Journal{path: path}
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		j.content.From, j.content.To, j.content.Apps = from, to, map[string]*entry{}
		return j, nil
	case err != nil:
		return nil, fmt.Errorf("read the journal of the take-over: %w", err)
	}
	if err := json.Unmarshal(data, &j.content); err != nil || j.content.Apps == nil {
		return nil, fmt.Errorf("the file %s is no journal of a take-over; name another with --journal", path)
	}
	if j.content.From != from || j.content.To != to {
		return nil, fmt.Errorf("the journal %s is of a take-over from %s to %s, not from %s to %s; name another with --journal",
			path, j.content.From, j.content.To, from, to)
	}
	return j, nil
}

// save writes the journal: after it returns nil it survives a crash of the
// machine.
func (j *Journal) save() error {
	data, err := json.MarshalIndent(j.content, "", "  ")
	if err != nil {
		return fmt.Errorf("write the journal of the take-over: %w", err)
	}
	if err := replace(j.path, data); err != nil {
		return fmt.Errorf("write the journal of the take-over: %w", err)
	}
	return nil
}

func replace(path string, data []byte) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
