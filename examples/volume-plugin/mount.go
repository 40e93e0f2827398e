package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// canMount tries whether this process may mount at all: being root is not
// enough in a container.
func canMount(dir string) error {
	probe, err := os.MkdirTemp(dir, ".probe-*")
	if err != nil {
		return err
	}
	err = unix.Mount(probe, probe, "", unix.MS_BIND, "")
	if err == nil {
		err = unix.Unmount(probe, 0)
	}
	return errors.Join(err, os.Remove(probe))
}

// canMakeImages says what is missing for sized volumes, if anything.
func canMakeImages() error {
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		return fmt.Errorf("%w (Debian package e2fsprogs)", err)
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return control.Close()
}

// bindMount shows the directory data on target.
func bindMount(data, target string) error {
	if err := unix.Mount(data, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s on %s: %w", data, target, err)
	}
	return nil
}

// isMounted says whether something is mounted on target in this process's
// mount namespace.
func isMounted(target string) (bool, error) {
	infos, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(target))
	if err != nil {
		return false, fmt.Errorf("read the mount table: %w", err)
	}
	return len(infos) > 0, nil
}

// clearTarget unmounts target if something is mounted there and removes the
// link or the empty directory. It never deletes a file of a volume: a
// directory with content is left and reported.
func clearTarget(target string, flags int) error {
	mounted, err := isMounted(target)
	if err != nil {
		return err
	}
	if mounted {
		if err := unix.Unmount(target, flags); err != nil {
			return fmt.Errorf("unmount %s: %w; stop the process that has files open there", target, err)
		}
	}
	if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// ensureEmptyDir makes target an empty directory to mount on.
func ensureEmptyDir(target string) error {
	if err := clearTarget(target, 0); err != nil {
		return err
	}
	return os.Mkdir(target, 0o755)
}

// resolveDir creates dir and returns its real path, the one under which the
// mount table lists what is mounted in it.
func resolveDir(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// bootID changes when the machine reboots, which ends all its mounts.
func bootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("boot id: %w", err)
	}
	return string(data[:len(data)-1]), nil
}

// mountedFrom says whether what is mounted on target comes from the image.
func mountedFrom(target, image string) (bool, error) {
	infos, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(target))
	if err != nil {
		return false, fmt.Errorf("read the mount table: %w", err)
	}
	devices, err := loopsOf(image)
	if err != nil {
		return false, err
	}
	// The last entry is the one on top.
	return len(infos) > 0 && slices.Contains(devices, infos[len(infos)-1].Source), nil
}
