package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// formatVersion is the version of everything the store keeps on disk. A store
// or record with a higher one is refused and never rewritten.
const formatVersion = 1

// Kinds of volume.
const (
	kindDirectory = "directory"
	kindImage     = "image"
)

// record is what the store knows of a volume, kept in its volume.json.
type record struct {
	Format  int       `json:"format"`
	Name    string    `json:"name"`
	Kind    string    `json:"kind"`
	Size    int64     `json:"size,omitempty"` // bytes asked for, 0 if unsized
	Created time.Time `json:"created"`
	// Epoch counts the attachments that this volume has had; each gets the
	// next number.
	Epoch       uint64       `json:"epoch"`
	Attachments []attachment `json:"attachments,omitempty"`
	// Fenced are loop devices whose file system a forced detach has shut
	// down; who still has one open gets errors and writes nothing more.
	Fenced []string `json:"fenced,omitempty"`
}

// attachment says that a node has the volume, or is about to: it is written
// before the volume is mounted there and removed after it was unmounted.
type attachment struct {
	Node       string    `json:"node"`
	Epoch      uint64    `json:"epoch"`
	Mountpoint string    `json:"mountpoint"`
	Device     string    `json:"device,omitempty"` // loop device of an image
	BootID     string    `json:"boot_id"`          // of the node's machine
	Since      time.Time `json:"since"`
	// IDs are those of the mounts that share this attachment. Docker sends
	// one per container.
	IDs []string `json:"ids"`
}

// on returns the attachment of node, or nil.
func (r *record) on(node string) *attachment {
	for i := range r.Attachments {
		if r.Attachments[i].Node == node {
			return &r.Attachments[i]
		}
	}
	return nil
}

func (r *record) drop(node string) {
	r.Attachments = slices.DeleteFunc(r.Attachments, func(a attachment) bool { return a.Node == node })
}

// exclusive says whether only one node at a time may have the volume. An
// ext4 file system that two nodes mount is destroyed, whatever the mode.
func (r *record) exclusive(singleAttach bool) bool { return singleAttach || r.Kind == kindImage }

// unknownVolume is the error for a volume that the store does not have.
type unknownVolume struct{ name string }

func (e unknownVolume) Error() string { return fmt.Sprintf("volume %q does not exist", e.name) }

func readRecord(dir, name string) (*record, error) {
	path := filepath.Join(dir, "volume.json")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, unknownVolume{name}
	}
	if err != nil {
		return nil, fmt.Errorf("volume %q: %w", name, err)
	}
	r := new(record)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("volume %q: %s is damaged (%w); restore it or remove its directory", name, path, err)
	}
	if r.Format != formatVersion {
		return nil, fmt.Errorf("volume %q: %s has format %d, this plugin knows %d; use the plugin that wrote it",
			name, path, r.Format, formatVersion)
	}
	return r, nil
}

func (r *record) write(dir string) error {
	if err := writeJSON(filepath.Join(dir, "volume.json"), r); err != nil {
		return fmt.Errorf("volume %q: save record: %w", r.Name, err)
	}
	return nil
}

// writeJSON replaces path as a whole: a crash leaves the old content or the
// new one.
func writeJSON(path string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = file.Write(append(data, '\n'))
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes renames, creations and removals in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
