package executor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/dockervolume"
)

// arrange makes the volumes appear where the task expects them.
func arrange(l Launch) error {
	if l.Link {
		for _, m := range l.Mounts {
			if err := link(l.Sandbox, m); err != nil {
				return err
			}
		}
		return nil
	}
	foreign, err := foreignMounts(l)
	if err != nil {
		return err
	}
	if err := detachPropagation(); err != nil {
		return err
	}
	for _, path := range foreign {
		// A mount that went with the one above it is as good as hidden.
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("hide the mount at %s: %w", path, err)
		}
	}
	for _, m := range l.Mounts {
		if err := bind(m); err != nil {
			return err
		}
	}
	return nil
}

// MountKeys returns a key for each mount of this mount namespace. Taken before
// the first volume is mounted they tell the host's own mounts from volumes.
func MountKeys() ([]string, error) {
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	keys := make([]string, len(mounts))
	for n, m := range mounts {
		keys[n] = mountKey(m)
	}
	return keys, nil
}

func mountKey(m *mountinfo.Info) string {
	return fmt.Sprintf("%d:%d %s %s", m.Major, m.Minor, m.Root, m.Mountpoint)
}

// foreignMounts returns the mount points of other containers' volumes. This
// namespace is a copy of the host's: where the host's mounts are not shared
// ones, an unmount there has no effect here, and the copy would keep a volume
// in use that was unmounted long ago and may be attached elsewhere by now.
// What is mounted already is a volume if it was not there when the cluster
// first started, or if its kind is one that volumes have and hosts seldom do:
// another cluster's, then.
func foreignMounts(l Launch) ([]string, error) {
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	host := make(map[string]bool)
	for _, key := range l.HostMounts {
		host[key] = true
	}
	shared := make(map[int]bool)
	for _, m := range mounts {
		shared[m.ID] = strings.Contains(m.Optional, "shared:")
	}
	var foreign []string
	for _, m := range mounts {
		removable := strings.HasPrefix(m.Source, "/dev/loop") || strings.HasPrefix(m.FSType, "fuse")
		if shared[m.Parent] || host[mountKey(m)] && !removable || needed(l, m.Mountpoint) {
			continue
		}
		foreign = append(foreign, m.Mountpoint)
	}
	return foreign, nil
}

// needed tells whether a mount point is, holds or is below something that the
// container has to see.
func needed(l Launch, point string) bool {
	if slices.ContainsFunc(append(l.Keep, l.Sandbox), func(path string) bool { return within(path, point) }) {
		return true
	}
	for _, m := range l.Mounts {
		if within(m.Source, point) || within(point, m.Source) || within(m.Target, point) {
			return true
		}
	}
	return false
}

// within tells whether path is dir or below it.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// detachPropagation keeps mounts of this namespace out of others, while
// unmounting outside still takes effect here where the host's mounts are
// shared ones.
func detachPropagation() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make mounts private to the container: %w", err)
	}
	return nil
}

func bind(m dockervolume.Mount) error {
	if err := unix.Mount(m.Source, m.Target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind volume %s at %s: %w", m.Source, m.Target, err)
	}
	if !m.ReadOnly {
		return nil
	}
	var stat unix.Statfs_t
	if err := unix.Statfs(m.Target, &stat); err != nil {
		return fmt.Errorf("bind volume %s at %s: %w", m.Source, m.Target, err)
	}
	// A remount must repeat the flags that are to stay.
	const keep = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME | unix.MS_RELATIME
	flags := uintptr(stat.Flags)&keep | unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY
	if err := unix.Mount("", m.Target, "", flags, ""); err != nil {
		return fmt.Errorf("make volume %s at %s read-only: %w", m.Source, m.Target, err)
	}
	return nil
}

// link stands in for bind where mounting is not permitted. It cannot make a
// volume read-only, and cannot cover a directory of the host.
func link(sandbox string, m dockervolume.Mount) error {
	if m.Target == m.Source {
		return nil
	}
	if rel, err := filepath.Rel(sandbox, m.Target); err != nil || !filepath.IsLocal(rel) {
		return fmt.Errorf("volume %s cannot appear at the absolute path %s without root: "+
			"use a path relative to the sandbox, or run the agent as root", m.Source, m.Target)
	}
	if err := os.Remove(m.Target); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("link volume %s: %w", m.Source, err)
	}
	if err := os.Symlink(m.Source, m.Target); err != nil {
		return fmt.Errorf("link volume %s: %w", m.Source, err)
	}
	return nil
}
