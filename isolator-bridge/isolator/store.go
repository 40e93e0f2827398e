package isolator

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// container is what is written down about a container before its first volume
// is mounted. It lives in the run directory: no container survives a reboot.
type container struct {
	Version int      `json:"version"`
	ID      string   `json:"id"`
	Owner   string   `json:"owner,omitempty"`
	Phase   phase    `json:"phase"`
	Volumes []wanted `json:"volumes"`
}

// wanted is a volume that a container asked for.
type wanted struct {
	Driver        string `json:"driver"`
	Volume        string `json:"volume"`
	ContainerPath string `json:"containerPath,omitempty"`
	// Options is a digest of the options, which may hold secrets; empty for a
	// container that an older bridge wrote down.
	Options string `json:"options,omitempty"`
}

// same says whether it is the same volume, asked for in the same way.
func (w wanted) same(v wanted) bool {
	if w.Options == "" || v.Options == "" {
		w.Options, v.Options = "", ""
	}
	return w == v
}

func (w wanted) key() ledger.Key { return ledger.Key{Driver: w.Driver, Volume: w.Volume} }

// phase is how far a container has come.
type phase string

const (
	// preparing: the caller was not told yet that the volumes are there.
	preparing phase = "preparing"
	prepared  phase = "prepared"
	// cleaning: the volumes are to be given up, whatever happens.
	cleaning phase = "cleaning"
)

const storeVersion = 1

// store keeps containers as files. Every container is written by one goroutine
// at a time.
type store struct{ dir string }

const storeSuffix = ".json"

func openStore(dir string) (store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return store{}, storeFailed("open the list of containers", err)
	}
	return store{dir}, nil
}

// name is safe whatever an id contains, and different for each owner and id.
func (s store) name(owner, id string) string {
	h := sha256.New()
	fmt.Fprintf(h, "%d:%s%s", len(owner), owner, id)
	return filepath.Join(s.dir, hex.EncodeToString(h.Sum(nil)[:16])+storeSuffix)
}

// load returns nil for a container that is not there. One whose file cannot be
// read is not there either: the ledger knows its volumes.
func (s store) load(owner, id string) (*container, error) {
	c, err := read(s.name(owner, id))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, storeFailed("read the container "+id, err)
	}
	return c, nil
}

func read(file string) (*container, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var c container
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", file, err)
	}
	if c.Version != storeVersion || c.ID == "" {
		return nil, fmt.Errorf("%s has version %d and names the container %q", file, c.Version, c.ID)
	}
	return &c, nil
}

// save replaces the file at once. A crash leaves the old or the new one.
func (s store) save(c *container) error {
	c.Version = storeVersion
	data, err := json.Marshal(c)
	if err != nil {
		return storeFailed("write the container "+c.ID, err)
	}
	file := s.name(c.Owner, c.ID)
	temp := file + ".new"
	err = os.WriteFile(temp, data, 0o600)
	if err == nil {
		err = os.Rename(temp, file)
	}
	if err != nil {
		if removeErr := os.Remove(temp); !errors.Is(removeErr, fs.ErrNotExist) {
			err = errors.Join(err, removeErr)
		}
		return storeFailed("write the container "+c.ID, err)
	}
	return nil
}

func (s store) remove(c *container) error {
	if err := os.Remove(s.name(c.Owner, c.ID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return storeFailed("forget the container "+c.ID, err)
	}
	return nil
}

// damaged is a file that cannot be read.
type damaged struct {
	file string
	err  error
}

// list reads all containers. Damaged files are moved out of the way; their
// volumes are found in the ledger. A file that cannot be opened or read, for want
// of descriptors or rights, is not damaged: it is an error.
func (s store) list() ([]*container, []damaged, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, nil, storeFailed("list containers", err)
	}
	var out []*container
	var bad []damaged
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), storeSuffix) {
			continue
		}
		file := filepath.Join(s.dir, e.Name())
		c, err := read(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if unread := (*fs.PathError)(nil); errors.As(err, &unread) {
			return nil, nil, storeFailed("read a container", err)
		}
		if err == nil && s.name(c.Owner, c.ID) != file {
			err = fmt.Errorf("it is about the container %q, which belongs elsewhere", c.ID)
		}
		if err == nil {
			out = append(out, c)
			continue
		}
		aside := strings.TrimSuffix(file, storeSuffix) + ".damaged"
		bad = append(bad, damaged{aside, errors.Join(err, os.Rename(file, aside))})
	}
	slices.SortFunc(out, func(a, b *container) int {
		return strings.Compare(a.Owner+"\x00"+a.ID, b.Owner+"\x00"+b.ID)
	})
	return out, bad, nil
}

func storeFailed(op string, err error) error {
	return &volume.Error{Kind: volume.LedgerFailed, Op: op, Err: err, Hint: "check the run directory: space, owner, rights"}
}
