package embeddedmesos

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/checkpoint"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/executor"
)

// ErrInUse is returned by Start when another cluster uses the directory.
var ErrInUse = errors.New("another embedded Mesos uses the directory")

// lockDir takes the directory for this cluster. The kernel frees it when the
// program ends, however that happens.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("%w %s: stop it, or choose another one", ErrInUse, dir)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// knownMounts is what the host had mounted before any volume was.
type knownMounts struct {
	Boot   string   `json:"boot"`
	Mounts []string `json:"mounts"`
}

// hostMounts returns the host's own mounts: those of the time when the cluster
// first started on this directory since the last boot. Later ones may be
// volumes.
func hostMounts(dir string) ([]string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("read the boot id: %w", err)
	}
	path := filepath.Join(dir, "mounts.json")
	var known knownMounts
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &known)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if now := strings.TrimSpace(string(boot)); known.Boot != now {
		known.Boot = now
		if known.Mounts, err = executor.MountKeys(); err != nil {
			return nil, err
		}
		if data, err = json.Marshal(known); err != nil {
			return nil, err
		}
		if err := checkpoint.Write(path, data); err != nil {
			return nil, err
		}
	}
	return known.Mounts, nil
}
