package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// makeImage creates a sparse file of size bytes with an ext4 file system.
func makeImage(ctx context.Context, path string, size int64) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(file.Truncate(size), file.Close()); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mkfs.ext4: %w: %s", err, strings.TrimSpace(string(out)))
	}
	file, err = os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// mountImage mounts the image on target through a loop device that the kernel
// frees by itself when the last user of the mount is gone, or when this
// process dies before mounting. It returns the device.
func mountImage(image, target string) (string, error) {
	loop, err := attachLoop(image)
	if err != nil {
		return "", fmt.Errorf("loop device for %s: %w", image, err)
	}
	defer func() { _ = loop.Close() }()
	if err := unix.Mount(loop.Name(), target, "ext4", unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return "", fmt.Errorf("mount %s on %s: %w", image, target, err)
	}
	return loop.Name(), nil
}

// attachLoop connects a free loop device to the image. The device is the
// caller's until the file is closed.
func attachLoop(image string) (*os.File, error) {
	backing, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = backing.Close() }()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = control.Close() }()

	config := unix.LoopConfig{Fd: uint32(backing.Fd())}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	copy(config.Info.File_name[:len(config.Info.File_name)-1], image)
	for {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free one: %w", err)
		}
		loop, err := os.OpenFile("/dev/loop"+strconv.Itoa(number), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &config)
		if err == nil {
			return loop, nil
		}
		_ = loop.Close()
		if !errors.Is(err, unix.EBUSY) { // EBUSY: another process was faster
			return nil, fmt.Errorf("configure %s: %w", loop.Name(), err)
		}
	}
}

// loopsOf returns the loop devices of this machine that are connected to the
// image: mounts in other mount namespaces show up here too.
func loopsOf(image string) ([]string, error) {
	want, err := os.Stat(image)
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	var devices []string
	for _, file := range files {
		backing, err := os.ReadFile(file)
		if err != nil {
			continue // released since the listing
		}
		got, err := os.Stat(strings.TrimSuffix(string(backing), "\n"))
		if err == nil && os.SameFile(want, got) {
			devices = append(devices, "/dev/"+filepath.Base(filepath.Dir(filepath.Dir(file))))
		}
	}
	return devices, nil
}

// awaitRelease waits until device no longer uses the image. After an unmount
// that takes an instant, unless a container still has the file system mounted
// in a mount namespace of its own.
func awaitRelease(ctx context.Context, image, device string) error {
	for {
		devices, err := loopsOf(image)
		if err != nil || !slices.Contains(devices, device) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is still in use through %s, by a mount in another mount namespace; stop the container that has it",
				image, device)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// ext4Shutdown is EXT4_IOC_SHUTDOWN of Linux's fs/ext4: write back what is
// dirty, then fail every further access, whoever has the file system mounted.
const ext4Shutdown = 0x8004587d

// fenceImage cuts off everyone who still uses the file system mounted on
// target, as a storage array does when it revokes an attachment.
func fenceImage(target string) error {
	dir, err := os.Open(target)
	if err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	defer func() { _ = dir.Close() }()
	if err := unix.IoctlSetPointerInt(int(dir.Fd()), ext4Shutdown, 0); err != nil {
		return fmt.Errorf("fence %s: %w", target, err)
	}
	return nil
}
