package volumetest

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// store is the plugin's account of its volumes, on disk after every change.
type store struct {
	config Config

	mu      sync.Mutex // guards volumes
	volumes map[string]*State
}

func openStore(config Config) (*store, error) {
	s := &store{config: config, volumes: map[string]*State{}}
	data, err := os.ReadFile(s.file())
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &s.volumes); err != nil {
		return nil, err
	}
	for name, v := range s.volumes {
		if err := s.recall(name, v); err != nil {
			return nil, err
		}
	}
	return s, s.save()
}

// recall is what the plugin does about a volume when it starts again.
func (s *store) recall(name string, v *State) error {
	switch s.config.Restart {
	case RestartForgets:
		v.Mounted, v.IDs, v.Count = false, nil, 0
	case RestartRemounts:
		mounted, err := mountinfo.Mounted(s.mountpoint(name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if v.Mounted && !mounted {
			return s.show(name, v)
		}
	}
	return nil
}

func (s *store) file() string { return filepath.Join(s.config.Dir, "state.json") }

func (s *store) save() error {
	data, err := json.Marshal(s.volumes)
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.file()+".new", data, 0o644); err != nil {
		return err
	}
	return os.Rename(s.file()+".new", s.file())
}

// key makes any name a short file name.
func key(name string) string {
	encoded := hex.EncodeToString([]byte(name))
	return encoded[:min(len(encoded), 100)]
}

func (s *store) data(name string) string { return filepath.Join(s.config.Dir, "volumes", key(name)) }

// mountpoint is where the volume appears when it is mounted.
func (s *store) mountpoint(name string) string {
	if s.config.Bind {
		return filepath.Join(s.config.Dir, "mounts", key(name))
	}
	return s.data(name)
}

func (s *store) change(name string, change func(v *State) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, found := s.volumes[name]
	if !found {
		return fmt.Errorf("volume %s not found", name)
	}
	return errors.Join(change(v), s.save())
}

func (s *store) create(name string, options map[string]string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, found := s.volumes[name]; found {
		if s.config.CreateTwice {
			return errors.New("volume name already exists")
		}
		return nil
	}
	if err := os.MkdirAll(s.data(name), 0o755); err != nil {
		return err
	}
	s.volumes[name] = &State{Options: options}
	return s.save()
}

func (s *store) remove(name string) error {
	return s.change(name, func(v *State) error {
		if v.Mounted || v.Count != 0 {
			return fmt.Errorf("volume %s is in use (%d)", name, v.Count)
		}
		delete(s.volumes, name)
		return os.RemoveAll(s.data(name))
	})
}

// mount enters the mount in the account and makes it if it is not there.
func (s *store) mount(name, id string) (string, error) {
	err := s.change(name, func(v *State) error {
		known := slices.Contains(v.IDs, id)
		if known && s.config.Counting == CountRefusing {
			return errors.New("volume is already mounted by this id")
		}
		first := !v.Mounted
		if s.config.Counting == CountCalls || s.config.Counting == CountAfterUnmount {
			first = v.Count == 0 || !v.Mounted
		}
		if first {
			if err := s.show(name, v); err != nil {
				return err
			}
		}
		v.Count++
		if !known {
			v.IDs = append(v.IDs, id)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return s.mountpoint(name), nil
}

func (s *store) unmount(name, id string) error {
	return s.change(name, func(v *State) error {
		known := slices.Contains(v.IDs, id)
		if !known && s.config.Counting == CountRefusing {
			return errors.New("volume is not mounted by this id")
		}
		rest := slices.DeleteFunc(slices.Clone(v.IDs), func(other string) bool { return other == id })
		last := false
		switch s.config.Counting {
		case CountIDs, CountRefusing:
			last = known && len(rest) == 0
		case CountNothing, CountAfterUnmount:
			last = true
		case CountCalls:
			last = v.Count == 1
		}
		if last && v.Mounted {
			if err := s.hide(name, v); err != nil {
				return err
			}
		}
		v.IDs = rest
		switch s.config.Counting {
		case CountNothing:
			v.Count, v.IDs = 0, nil
		case CountAfterUnmount:
			v.Count = max(0, v.Count-1)
		case CountCalls:
			v.Count--
		default:
			v.Count = len(rest)
		}
		return nil
	})
}

// show really mounts: on top of whatever is there, as careless plugins do.
func (s *store) show(name string, v *State) error {
	if s.config.Bind {
		if err := os.MkdirAll(s.mountpoint(name), 0o755); err != nil {
			return err
		}
		if err := unix.Mount(s.data(name), s.mountpoint(name), "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind: %w", err)
		}
	}
	v.Mounted = true
	v.Mounts++
	return nil
}

func (s *store) hide(name string, v *State) error {
	if s.config.Bind {
		if err := unix.Unmount(s.mountpoint(name), 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount: %w", err)
		}
	}
	v.Mounted = false
	v.Unmounts++
	return nil
}

func (s *store) path(name string) (mountpoint string, err error) {
	err = s.change(name, func(v *State) error {
		mountpoint = s.claim(name, v)
		return nil
	})
	return mountpoint, err
}

// claim is what the plugin says about where a volume is mounted.
func (s *store) claim(name string, v *State) string {
	if v.Mounted || s.config.AlwaysMountpoint {
		return s.mountpoint(name)
	}
	return ""
}

func (s *store) describe(name string) (map[string]any, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, found := s.volumes[name]
	if !found {
		return nil, false
	}
	return map[string]any{"Name": name, "Mountpoint": s.claim(name, v)}, true
}

func (s *store) list() []map[string]any {
	s.mu.Lock()
	names := slices.Sorted(maps.Keys(s.volumes))
	s.mu.Unlock()
	var volumes []map[string]any
	for _, name := range names {
		if v, found := s.describe(name); found {
			volumes = append(volumes, v)
		}
	}
	return volumes
}

func (s *store) states() map[string]State {
	s.mu.Lock()
	defer s.mu.Unlock()
	states := map[string]State{}
	for name, v := range s.volumes {
		copied := *v
		copied.IDs = slices.Clone(v.IDs)
		states[name] = copied
	}
	return states
}

// unmountAll clears what is mounted below dir, for the end of a test.
func unmountAll(dir string) error {
	targets, err := mountedBelow(dir)
	if err != nil {
		return err
	}
	var failures []error
	for _, target := range targets {
		failures = append(failures, unix.Unmount(target, unix.MNT_DETACH))
	}
	return errors.Join(failures...)
}

func mountedBelow(dir string) ([]string, error) {
	infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return nil, err
	}
	var targets []string
	for _, info := range infos {
		targets = append(targets, info.Mountpoint)
	}
	return targets, nil
}
