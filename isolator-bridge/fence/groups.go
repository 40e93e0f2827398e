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

	"github.com/mesos-dvdi/dvdi/isolator-bridge/agentstate"
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

// membersOf finds the processes of those containers whose groups are not among
// the known ones: should CgroupRoot not be the agent's, a group named after them
// is elsewhere. Only ids that nothing else can have count.
func (h *Host) membersOf(ids, known []string) ([]user, error) {
	named := map[string]bool{}
	for _, id := range ids {
		if agentstate.MadeByMesos(id) {
			named[id] = true
		}
	}
	for _, group := range known {
		delete(named, filepath.Base(group))
	}
	if len(named) == 0 {
		return nil, nil
	}
	entries, err := os.ReadDir(h.cfg.Proc)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var out []user
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		dir := filepath.Join(h.cfg.Proc, e.Name())
		text, err := os.ReadFile(filepath.Join(dir, "cgroup"))
		if ended(err) || errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("control group of process %d: %w", pid, err)
		}
		if group := agentstate.GroupNamed(string(text), named); group != "" && !zombie(dir) {
			out = append(out, user{pid, "control group " + group + "; is --agent-cgroups-root right?"})
		}
	}
	return out, nil
}

// zombie says that nothing of a process runs any more. In the unified hierarchy
// it keeps its control group until its parent has asked for its end.
func zombie(dir string) bool {
	threads, err := os.ReadDir(filepath.Join(dir, "task"))
	if err != nil || len(threads) > 1 {
		return ended(err)
	}
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return ended(err)
	}
	// The name, in brackets, may hold anything.
	state := strings.TrimSpace(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	return strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X")
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
