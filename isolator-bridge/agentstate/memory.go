package agentstate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"

	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// memory is which container named which volumes. It lives in the run directory:
// after a reboot no container of before is alive.
type memory struct {
	file  string
	names map[string][]ledger.Key
}

// memoryVersion is the version of the file.
const memoryVersion = 1

type memoryFile struct {
	Version    int                     `json:"version"`
	Containers map[string][]ledger.Key `json:"containers"`
}

// loadMemory reads the file. A missing file is an empty memory; a damaged one
// is too, with an error: what is lost is looked for in the checkpoints again.
func loadMemory(file string) (memory, error) {
	m := memory{file: file, names: map[string][]ledger.Key{}}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	var content memoryFile
	if err == nil {
		err = json.Unmarshal(data, &content)
	}
	if err == nil && content.Version != memoryVersion {
		err = fmt.Errorf("it has version %d, this program knows %d", content.Version, memoryVersion)
	}
	if err != nil {
		return m, fmt.Errorf("what containers named before, in %s: %w", file, err)
	}
	if content.Containers != nil {
		m.names = content.Containers
	}
	return m, nil
}

// update takes in a view and writes the file if anything changed.
func (m *memory) update(v View, live func(ledger.Key) bool) error {
	if v.CheckpointsErr != nil {
		return nil
	}
	next := map[string][]ledger.Key{}
	present := map[string]bool{}
	for _, cp := range v.Checkpoints {
		present[cp.ContainerID] = true
		if cp.Problem == "" {
			next[cp.ContainerID] = cp.Volumes
		}
	}
	for id, keys := range m.names {
		if _, fresh := next[id]; fresh {
			continue
		}
		_, listed := v.Listed[id]
		if present[id] || listed || anyOf(keys, live) {
			next[id] = keys
		}
	}
	if reflect.DeepEqual(next, m.names) {
		return nil
	}
	if err := m.save(next); err != nil {
		return err // and tried again with the next look
	}
	m.names = next
	return nil
}

func anyOf(keys []ledger.Key, is func(ledger.Key) bool) bool {
	for _, k := range keys {
		if is(k) {
			return true
		}
	}
	return false
}

// save replaces the file at once, not durably: it is about this boot.
func (m *memory) save(names map[string][]ledger.Key) error {
	data, err := json.Marshal(memoryFile{Version: memoryVersion, Containers: names})
	if err != nil {
		return err
	}
	temp := m.file + ".new"
	if err := os.MkdirAll(filepath.Dir(m.file), 0o700); err != nil {
		return fmt.Errorf("remember what containers named: %w", err)
	}
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		return fmt.Errorf("remember what containers named: %w", err)
	}
	if err := os.Rename(temp, m.file); err != nil {
		return fmt.Errorf("remember what containers named: %w", err)
	}
	return nil
}
