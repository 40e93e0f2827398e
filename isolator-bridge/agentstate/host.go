package agentstate

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// Host looks for traces of containers in the kernel.
type Host struct {
	// Proc is where procfs is mounted; empty: /proc.
	Proc string
	// Cgroups is where the control groups are mounted; empty: /sys/fs/cgroup.
	Cgroups string
	// CgroupRoot is the agent's --cgroups_root; empty: mesos.
	CgroupRoot string
	// WorkDir is the agent's --work_dir; empty: unknown.
	WorkDir string
}

func (h Host) withDefaults() Host {
	for _, d := range []struct {
		field *string
		value string
	}{{&h.Proc, "/proc"}, {&h.Cgroups, "/sys/fs/cgroup"}, {&h.CgroupRoot, "mesos"}} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	return h
}

// hostInit is no container's process, and may be one that even root may not look
// at.
const hostInit = 1

// Traces tells, for each of the ids, what is left of that container: a control
// group, or a process that belongs to it by control group, environment, working
// or root directory, or by a mount in its sandbox. Ids without a trace are not
// in the answer. An error means that nothing is known.
func (h Host) Traces(ids []string) (map[string]string, error) {
	h = h.withDefaults()
	traces := map[string]string{}
	if err := h.controlGroups(ids, traces); err != nil {
		return nil, err
	}
	processes, err := os.ReadDir(h.Proc)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	search := newSearch(ids, traces)
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || pid == os.Getpid() || pid == hostInit {
			continue
		}
		if err := h.process(p.Name(), search); err != nil {
			return nil, fmt.Errorf("look at process %d: %w", pid, err)
		}
	}
	return traces, nil
}

// process looks for ids in what the kernel tells of a process. A process that
// ends meanwhile has no trace. One that may not be looked at could be anything:
// an error.
func (h Host) process(pid string, s *search) error {
	dir := filepath.Join(h.Proc, pid)
	for _, file := range []string{"cgroup", "environ"} {
		if err := s.read(dir, pid, file); err != nil {
			return unlessIrrelevant(dir, err)
		}
	}
	root := ""
	for _, link := range []string{"cwd", "root"} {
		target, err := os.Readlink(filepath.Join(dir, link))
		if err != nil {
			return unlessIrrelevant(dir, err)
		}
		s.note(target, "process "+pid+" ("+link+")")
		root = target
	}
	// Of the processes that share a mount namespace and a root one tells for all.
	if namespace, err := os.Readlink(filepath.Join(dir, "ns", "mnt")); err == nil {
		view := namespace + " " + root
		if s.views[view] {
			return nil
		}
		s.views[view] = true
	}
	if err := s.read(dir, pid, "mountinfo"); err != nil {
		return unlessIrrelevant(dir, err)
	}
	return nil
}

// search looks for ids in texts.
type search struct {
	// words are the ids that have no trace yet and are words, others those that
	// are none.
	words  map[string]bool
	others []string
	traces map[string]string
	views  map[string]bool // mount namespaces that were read
}

func newSearch(ids []string, traces map[string]string) *search {
	s := &search{words: map[string]bool{}, traces: traces, views: map[string]bool{}}
	for _, id := range ids {
		if strings.ContainsFunc(id, func(r rune) bool { return r >= 0x80 || !wordByte(byte(r)) }) {
			s.others = append(s.others, id)
		} else {
			s.words[id] = true
		}
	}
	return s
}

func (s *search) read(dir, pid, file string) error {
	data, err := os.ReadFile(filepath.Join(dir, file))
	if err == nil {
		s.note(string(data), "process "+pid+" ("+file+")")
	}
	return err
}

// note looks at each word of a text once, however many ids there are.
func (s *search) note(text, where string) {
	for i := 0; i < len(text); i++ {
		start := i
		for i < len(text) && wordByte(text[i]) {
			i++
		}
		if id := text[start:i]; s.words[id] {
			delete(s.words, id)
			s.trace(id, where)
		}
	}
	for _, id := range s.others {
		if mentions(text, id) {
			s.trace(id, where)
		}
	}
}

func (s *search) trace(id, where string) {
	if _, known := s.traces[id]; !known {
		s.traces[id] = where
	}
}

// unlessIrrelevant is nil for a process that ended, and for one of another user
// where this program is not root: the agent of an ordinary user has containers
// of that user only.
func unlessIrrelevant(dir string, err error) error {
	if gone(err) {
		return nil
	}
	if !errors.Is(err, fs.ErrPermission) || os.Geteuid() == 0 {
		return err
	}
	st, statErr := os.Stat(dir)
	if statErr != nil || ownerOf(st) != uint32(os.Geteuid()) {
		return nil //nolint:nilerr // gone, or not ours
	}
	return err
}

// gone says that a process ended while it was looked at; a zombie has no
// directories and no mount namespace any more.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL)
}

// Mounted says which process has the mount at path in its mount namespace at
// another place too, as containers have it; empty if none.
func (h Host) Mounted(path string, mount volume.MountPoint) (string, error) {
	h = h.withDefaults()
	processes, err := os.ReadDir(h.Proc)
	if err != nil {
		return "", fmt.Errorf("list processes: %w", err)
	}
	seen := map[string]bool{}
	for _, p := range processes {
		if pid, err := strconv.Atoi(p.Name()); err != nil || pid == hostInit {
			continue
		}
		dir := filepath.Join(h.Proc, p.Name())
		namespace, err := os.Readlink(filepath.Join(dir, "ns", "mnt"))
		if err == nil && seen[namespace] {
			continue
		}
		var text []byte
		if err == nil {
			text, err = os.ReadFile(filepath.Join(dir, "mountinfo"))
		}
		if err != nil {
			if err := unlessIrrelevant(dir, err); err != nil {
				return "", fmt.Errorf("mounts of process %s: %w", p.Name(), err)
			}
			continue
		}
		seen[namespace] = true
		found, err := mountinfo.GetMountsFromReader(bytes.NewReader(text), func(m *mountinfo.Info) (skip, stop bool) {
			return m.Major != mount.Major || m.Minor != mount.Minor || m.Root != mount.Root || m.Mountpoint == path, false
		})
		if err != nil {
			return "", fmt.Errorf("mounts of process %s: %w", p.Name(), err)
		}
		if len(found) > 0 {
			return "process " + p.Name() + " at " + found[0].Mountpoint, nil
		}
	}
	return "", nil
}

// mentions says whether a text has the id as a word of its own.
func mentions(text, id string) bool {
	for from := 0; ; {
		i := strings.Index(text[from:], id)
		if i < 0 {
			return false
		}
		start, end := from+i, from+i+len(id)
		if (start == 0 || !wordByte(text[start-1])) && (end == len(text) || !wordByte(text[end])) {
			return true
		}
		from = start + 1
	}
}

func wordByte(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '-' || b == '_' || b == '.'
}

// controlGroups finds the containers' control groups: <hierarchy>/<root>/<id>,
// those of nested containers below mesos/ in their parent's
// (src/slave/containerizer/mesos/isolators/cgroups, containerizer::paths).
func (h Host) controlGroups(ids []string, traces map[string]string) error {
	wanted := map[string]bool{}
	for _, id := range ids {
		wanted[id] = true
	}
	hierarchies, err := os.ReadDir(h.Cgroups)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no control groups on this host
	}
	if err != nil {
		return fmt.Errorf("list control groups: %w", err)
	}
	roots := []string{filepath.Join(h.Cgroups, h.CgroupRoot)}
	for _, e := range hierarchies {
		roots = append(roots, filepath.Join(h.Cgroups, e.Name(), h.CgroupRoot))
	}
	for _, root := range roots {
		if err := walkGroups(root, 0, func(dir, id string) {
			if _, known := traces[id]; wanted[id] && !known {
				traces[id] = "control group " + dir
			}
		}); err != nil {
			return fmt.Errorf("list control groups: %w", err)
		}
	}
	return nil
}

// maxNesting is more than containers are nested (Mesos allows 32).
const maxNesting = 32

func walkGroups(dir string, depth int, visit func(dir, id string)) error {
	if depth > maxNesting {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		path := filepath.Join(dir, e.Name())
		visit(path, e.Name())
		if err := walkGroups(filepath.Join(path, "mesos"), depth+1, visit); err != nil {
			return err
		}
	}
	return nil
}

// Completed says whether the agent has written down that the executor of this
// container, or of the container around it, has ended: the file
// executor.sentinel in the directory of its run (src/slave/paths.hpp).
func (h Host) Completed(id string) (bool, error) {
	if h.WorkDir == "" || strings.ContainsAny(id, "/*?[\\") {
		return false, nil
	}
	const runs = "slaves/*/frameworks/*/executors/*/runs"
	outer := []string{id}
	nested, err := filepath.Glob(filepath.Join(h.WorkDir, runs, "*", "containers", id))
	if err != nil {
		return false, err
	}
	deeper, err := filepath.Glob(filepath.Join(h.WorkDir, runs, "*", "containers", "*", "containers", id))
	if err != nil {
		return false, err
	}
	for _, n := range nested {
		outer = append(outer, filepath.Base(filepath.Dir(filepath.Dir(n))))
	}
	for _, n := range deeper {
		outer = append(outer, filepath.Base(filepath.Dir(filepath.Dir(filepath.Dir(filepath.Dir(n))))))
	}
	for _, o := range outer {
		found, err := filepath.Glob(filepath.Join(h.WorkDir, "meta", runs, o, "executor.sentinel"))
		if err != nil {
			return false, err
		}
		if len(found) > 0 {
			return true, nil
		}
	}
	return false, nil
}
