package fence

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// groupsOf finds the control groups of containers: <hierarchy>/<root>/<id>, of
// nested ones <parent>/mesos/<id> (src/slave/containerizer/mesos/paths.cpp). In
// the unified hierarchy there is no directory per controller.
func (h *Host) groupsOf(ids []string) ([]string, error) {
	roots := []string{filepath.Join(h.cfg.Cgroups, h.cfg.CgroupRoot)}
	hierarchies, err := os.ReadDir(h.cfg.Cgroups)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list control groups: %w", err)
	}
	for _, e := range hierarchies {
		if e.IsDir() {
			roots = append(roots, filepath.Join(h.cfg.Cgroups, e.Name(), h.cfg.CgroupRoot))
		}
	}
	var out []string
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return ignoreGone(err)
			}
			if d.IsDir() && slices.Contains(ids, d.Name()) {
				out = append(out, path)
				return filepath.SkipDir // killed with all that is below
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list control groups: %w", err)
		}
	}
	return out, nil
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// killGroup kills all processes of a control group and those below. The kernel
// does it at once where it can (cgroup.kill, Linux 5.14); otherwise processes
// that fork meanwhile are found by the next call, and those that the freezer has
// stopped are let go, to die.
func killGroup(dir string) error {
	err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
	if err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return ignoreGone(err)
	}
	pids, err := processesIn(dir)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if pid == 0 {
			continue // of another pid namespace; it counts as left
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d of control group %s: %w", pid, dir, err)
		}
	}
	return thaw(dir)
}

// thaw lets the processes of a control group and those below go on (cgroup v1,
// freezer-subsystem.rst). In other hierarchies there is nothing to do.
func thaw(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() != "freezer.state" {
			return ignoreGone(err)
		}
		return ignoreGone(os.WriteFile(path, []byte("THAWED"), 0))
	})
}

// populated counts the processes of a control group and those below.
func populated(dir string) (int, error) {
	pids, err := processesIn(dir)
	return len(pids), err
}

// processesIn tells the processes of a control group and those below; 0 stands
// for one of another pid namespace (cgroup-v2.rst).
func processesIn(dir string) (pids []int, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() != "cgroup.procs" {
			return ignoreGone(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return ignoreGone(err)
		}
		for _, line := range strings.Fields(string(data)) {
			pid, err := strconv.Atoi(line)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			pids = append(pids, pid)
		}
		return nil
	})
	return pids, err
}
