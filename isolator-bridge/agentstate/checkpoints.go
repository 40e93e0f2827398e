// Package agentstate sees what the Mesos agent sees: the checkpoints in which
// its docker/volume isolator names the volumes of each container, what its API
// says of its containers, and what the kernel knows of them. From these it
// proves that a container is gone; where one of them says nothing, nothing is
// proven.
package agentstate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// Checkpoint is what the agent's isolator wrote about a container before it
// mounted the container's volumes (docker/volume/state.proto in Mesos,
// DockerVolumes: a list of driver and name).
type Checkpoint struct {
	// ContainerID is the leaf id of the container: the isolator leaves the
	// parents of nested containers out.
	ContainerID string
	Volumes     []ledger.Key
	// Problem says why the file cannot be used; Volumes are unknown then.
	Problem string
	// Written is when the file was written.
	Written time.Time
}

// maxCheckpoint bounds what is read: a volume takes some hundred bytes.
const maxCheckpoint = 1 << 20

// Checkpoints reads the directory that the agent has as
// --docker_volume_checkpoint_dir. It is not safe for concurrent use.
type Checkpoints struct {
	dir string
	// canonical makes the key under which the ledger knows a volume.
	canonical func(ledger.Key) ledger.Key
	// known are the files as last read, so that only what changed is read again.
	known map[string]remembered
}

type remembered struct {
	stamp      stamp
	checkpoint Checkpoint
}

// stamp changes with each replacement of a file.
type stamp struct {
	inode    uint64
	size     int64
	modified time.Time
	owner    uint32
	mode     fs.FileMode
}

// NewCheckpoints makes a reader of the directory. The volumes that it tells are
// those of the ledger, whatever name of a driver a task used: canonical is
// engine.Engine.Canonical.
func NewCheckpoints(dir string, canonical func(ledger.Key) ledger.Key) *Checkpoints {
	return &Checkpoints{dir: dir, canonical: canonical, known: map[string]remembered{}}
}

// Read returns the checkpoints of all containers, in the order of their ids. It
// changes nothing: files that are damaged or belong to somebody else are told
// with Problem. It fails if the directory cannot be listed; fs.ErrNotExist
// means that the agent has not made it yet, or has another one.
func (c *Checkpoints) Read() ([]Checkpoint, error) {
	owners, err := c.owners()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return nil, fmt.Errorf("read the agent's checkpoints: %w", err)
	}
	var out []Checkpoint
	now := make(map[string]remembered, len(entries))
	for _, e := range entries {
		if !e.IsDir() {
			continue // the isolator makes directories only
		}
		r, found := c.one(e.Name(), owners)
		if !found {
			continue
		}
		now[e.Name()] = r
		out = append(out, r.checkpoint)
	}
	c.known = now
	return out, nil
}

// owners are the users whose checkpoints are believed: root, this one, and the
// one to whom the agent's directory belongs.
func (c *Checkpoints) owners() ([]uint32, error) {
	st, err := os.Stat(c.dir)
	if err != nil {
		return nil, fmt.Errorf("read the agent's checkpoints: %w", err)
	}
	return []uint32{0, uint32(os.Geteuid()), ownerOf(st)}, nil
}

func ownerOf(st fs.FileInfo) uint32 {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return ^uint32(0)
	}
	return sys.Uid
}

func stampOf(st fs.FileInfo) stamp {
	s := stamp{size: st.Size(), modified: st.ModTime(), owner: ownerOf(st), mode: st.Mode()}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		s.inode = sys.Ino
	}
	return s
}

// one reads the checkpoint of one container. A directory without the file is
// one of which the agent died before it wrote it, hence before any mount; it is
// told like an empty file.
func (c *Checkpoints) one(id string, owners []uint32) (remembered, bool) {
	path := filepath.Join(c.dir, id, "volumes")
	cp := Checkpoint{ContainerID: id}
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(filepath.Dir(path)); err != nil {
			return remembered{}, false // removed meanwhile
		}
		cp.Problem = "the file is missing"
		return remembered{checkpoint: cp}, true
	}
	if err != nil {
		cp.Problem = err.Error()
		return remembered{checkpoint: cp}, true
	}
	s := stampOf(st)
	if before, ok := c.known[id]; ok && before.stamp == s {
		return before, true
	}
	cp.Written = st.ModTime()
	switch {
	case !st.Mode().IsRegular():
		cp.Problem = "it is not a regular file"
	case !slices.Contains(owners, s.owner):
		cp.Problem = fmt.Sprintf("it belongs to user %d, not to the agent's", s.owner)
	case st.Mode().Perm()&0o002 != 0:
		cp.Problem = "every user may write it"
	default:
		cp.Volumes, err = parse(path)
		if err != nil {
			cp.Problem = err.Error()
		}
		for i, key := range cp.Volumes {
			cp.Volumes[i] = c.canonical(key)
		}
	}
	return remembered{stamp: s, checkpoint: cp}, true
}

func parse(path string) ([]ledger.Key, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxCheckpoint+1))
	if err != nil {
		return nil, err
	}
	switch {
	case len(data) > maxCheckpoint:
		return nil, fmt.Errorf("it is larger than %d bytes", maxCheckpoint)
	case len(strings.TrimSpace(string(data))) == 0:
		return nil, errors.New("it is empty")
	}
	var state struct {
		Volumes []struct {
			Driver string `json:"driver"`
			Name   string `json:"name"`
		} `json:"volumes"`
	}
	if err := json.Unmarshal(data, &state); err != nil {
		return nil, fmt.Errorf("it is damaged: %w", err)
	}
	var keys []ledger.Key
	for _, v := range state.Volumes {
		if v.Driver == "" || v.Name == "" {
			return nil, errors.New("it is damaged: a volume without driver or name")
		}
		keys = append(keys, ledger.Key{Driver: v.Driver, Volume: v.Name})
	}
	return keys, nil
}
