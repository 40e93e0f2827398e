package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// store is the directory that all nodes share, as they would share a storage
// array. Its layout is described in the README. Every change to a volume is
// made under that volume's lock, so any number of plugin processes may use
// one store; volumes never wait for each other.
type store struct {
	root         string
	singleAttach bool
	log          attachLog
}

// storeSettings is the content of store.json: what all plugins that share a
// store have to agree on.
type storeSettings struct {
	Format       int  `json:"format"`
	SingleAttach bool `json:"single_attach"`
}

var storeDirs = []string{"volumes", "locks", "nodes", "making", "removing"}

// createStore opens the store under root and makes it first if need be. It
// fails if the store was made with another attach mode.
func createStore(ctx context.Context, root string, singleAttach bool) (*store, error) {
	for _, dir := range storeDirs {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o711); err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
	}
	held, err := lock(ctx, filepath.Join(root, "locks", "store"))
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", root, err)
	}
	defer held.unlock()
	s, err := openStore(root)
	if errors.Is(err, fs.ErrNotExist) {
		settings := storeSettings{Format: formatVersion, SingleAttach: singleAttach}
		if err := writeJSON(filepath.Join(root, "store.json"), settings); err != nil {
			return nil, fmt.Errorf("store %s: %w", root, err)
		}
		return openStore(root)
	}
	if err == nil && s.singleAttach != singleAttach {
		return nil, fmt.Errorf("store %s was made with --single-attach=%t; start this plugin the same way, or give it another --root",
			root, s.singleAttach)
	}
	return s, err
}

// openStore opens a store that exists.
func openStore(root string) (*store, error) {
	path := filepath.Join(root, "store.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	var settings storeSettings
	if err := json.Unmarshal(data, &settings); err != nil {
		return nil, fmt.Errorf("store: %s is damaged: %w", path, err)
	}
	if settings.Format != formatVersion {
		return nil, fmt.Errorf("store: %s has format %d, this plugin knows %d; use the plugin that wrote it",
			path, settings.Format, formatVersion)
	}
	return &store{
		root:         root,
		singleAttach: settings.SingleAttach,
		log:          attachLog{path: filepath.Join(root, "attach.log")},
	}, nil
}

var plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$`)

// keyOf is the name of a volume's directory. Volume names come from users and
// may hold anything; what is not plainly harmless is hashed, and the prefix
// keeps the two sorts apart.
func keyOf(name string) string {
	if plainName.MatchString(name) {
		return "v-" + name
	}
	sum := sha256.Sum256([]byte(name))
	return "h-" + hex.EncodeToString(sum[:])
}

func (s *store) dir(name string) string     { return filepath.Join(s.root, "volumes", keyOf(name)) }
func (s *store) dataDir(name string) string { return filepath.Join(s.dir(name), "data") }
func (s *store) image(name string) string   { return filepath.Join(s.dir(name), "image.ext4") }

func (s *store) lockVolume(ctx context.Context, name string) (*fileLock, error) {
	held, err := lock(ctx, filepath.Join(s.root, "locks", keyOf(name)))
	if err != nil {
		return nil, fmt.Errorf("volume %q: %w", name, err)
	}
	return held, nil
}

// get returns the record of a volume as it is now, without its lock.
func (s *store) get(name string) (*record, error) { return readRecord(s.dir(name), name) }

// lockExisting takes the lock of a volume and reads its record.
func (s *store) lockExisting(ctx context.Context, name string) (*record, *fileLock, error) {
	held, err := s.lockVolume(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	r, err := s.get(name)
	if err == nil {
		return r, held, nil
	}
	if errors.As(err, new(unknownVolume)) { // no volume, no lock file
		err = errors.Join(err, held.remove())
	}
	held.unlock()
	return nil, nil, err
}

// update runs change on the record under the volume's lock. What change did
// to the record is not saved; that is its own business, as is the order
// between saving and doing.
func (s *store) update(ctx context.Context, name string, change func(*record) error) error {
	r, held, err := s.lockExisting(ctx, name)
	if err != nil {
		return err
	}
	defer held.unlock()
	return change(r)
}

func (s *store) save(r *record) error { return r.write(s.dir(r.Name)) }

// list returns all volumes by name. Records that cannot be read do not hide
// the others: they come as errors beside them.
func (s *store) list() ([]*record, error) {
	entries, err := os.ReadDir(filepath.Join(s.root, "volumes"))
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	var records []*record
	var failures []error
	for _, entry := range entries {
		r, err := readRecord(filepath.Join(s.root, "volumes", entry.Name()), strings.TrimPrefix(entry.Name(), "v-"))
		switch {
		case errors.As(err, new(unknownVolume)): // removed since ReadDir
		case err != nil:
			failures = append(failures, err)
		default:
			records = append(records, r)
		}
	}
	slices.SortFunc(records, func(a, b *record) int { return strings.Compare(a.Name, b.Name) })
	return records, errors.Join(failures...)
}

// create makes the volume. It appears with its content or not at all. An
// equal one that exists already is success; a different one is an error.
func (s *store) create(ctx context.Context, name, kind string, size int64) error {
	held, err := s.lockVolume(ctx, name)
	if err != nil {
		return err
	}
	defer held.unlock()
	existing, err := s.get(name)
	if err == nil {
		if existing.Kind == kind && existing.Size == size {
			return nil
		}
		return fmt.Errorf("volume %q already exists as %s; remove it first, or create it with the same options", name, existing.describe())
	}
	if !errors.As(err, new(unknownVolume)) {
		return err
	}
	return s.build(ctx, &record{
		Format: formatVersion, Name: name, Kind: kind, Size: size, Created: time.Now().UTC(),
	})
}

// build makes the volume beside the others and moves it in when complete.
func (s *store) build(ctx context.Context, r *record) (err error) {
	making := filepath.Join(s.root, "making", keyOf(r.Name))
	if err := os.RemoveAll(making); err != nil { // left by a crash
		return fmt.Errorf("volume %q: %w", r.Name, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("create volume %q: %w", r.Name, err), os.RemoveAll(making))
		}
	}()
	if err := os.Mkdir(making, 0o711); err != nil {
		return err
	}
	if r.Kind == kindImage {
		err = makeImage(ctx, filepath.Join(making, "image.ext4"), r.Size)
	} else {
		err = os.Mkdir(filepath.Join(making, "data"), 0o755)
	}
	if err != nil {
		return err
	}
	if err := r.write(making); err != nil {
		return err
	}
	if err := os.Rename(making, s.dir(r.Name)); err != nil {
		return err
	}
	return syncDir(filepath.Join(s.root, "volumes"))
}

// remove deletes the volume and its data, unless some node has it.
func (s *store) remove(ctx context.Context, name string) error {
	r, held, err := s.lockExisting(ctx, name)
	if err != nil {
		return err
	}
	defer held.unlock()
	if len(r.Attachments) > 0 {
		return fmt.Errorf("volume %q is attached to %s; unmount it there first", name, r.holders())
	}
	if err := s.discard(name); err != nil {
		return fmt.Errorf("remove volume %q: %w", name, err)
	}
	return held.remove()
}

// discard moves the volume out of sight in one step and then deletes it.
func (s *store) discard(name string) error {
	removing := filepath.Join(s.root, "removing", keyOf(name))
	if err := os.RemoveAll(removing); err != nil { // left by a crash
		return err
	}
	if err := os.Rename(s.dir(name), removing); err != nil {
		return err
	}
	if err := syncDir(filepath.Join(s.root, "volumes")); err != nil {
		return err
	}
	return os.RemoveAll(removing)
}

// sweep deletes what creations and removals that were cut short left behind.
// A volume that some process is working on right now is left to it.
func (s *store) sweep() error {
	var failures []error
	for _, dir := range []string{"making", "removing"} {
		entries, err := os.ReadDir(filepath.Join(s.root, dir))
		if err != nil {
			return fmt.Errorf("store: %w", err)
		}
		for _, entry := range entries {
			held, err := tryLock(filepath.Join(s.root, "locks", entry.Name()))
			if errors.Is(err, errLocked) {
				continue
			}
			if err == nil {
				err = os.RemoveAll(filepath.Join(s.root, dir, entry.Name()))
				held.unlock()
			}
			failures = append(failures, err)
		}
	}
	return errors.Join(failures...)
}

func (r *record) describe() string {
	if r.Size == 0 {
		return r.Kind
	}
	return r.Kind + " of " + formatSize(r.Size)
}

func (r *record) holders() string {
	var nodes []string
	for _, a := range r.Attachments {
		nodes = append(nodes, fmt.Sprintf("node %q since %s", a.Node, a.Since.Format(time.RFC3339)))
	}
	return strings.Join(nodes, ", ")
}
