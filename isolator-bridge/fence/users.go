package fence

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// subject is a volume as the kernel knows it: a directory of a file system.
type subject struct {
	major, minor int
	root         string // within the file system
	device       uint64 // st_dev
	// places are those at which this namespace had it: where another one has it
	// too, that was handed down to it.
	places []string
	// whole says that the volume is the whole file system: whatever is on its
	// device is on the volume.
	whole bool
	// source, if not empty, is what was mounted: of a network file system several
	// exports may share a device, each shown as a whole.
	source string
	// namespaces are those in which the driver or the host itself have it
	// mounted: no copies of it for a container.
	namespaces []string
}

// subjectOf finds the volume of a record in this namespace's mount table; nil if
// the record tells of nothing that could be used.
func (h *Host) subjectOf(ctx context.Context, rec *ledger.Record) (*subject, error) {
	if rec == nil || rec.Resolved == "" {
		return nil, nil
	}
	table, err := h.cfg.Mounts.Own(ctx)
	if err != nil {
		return nil, fmt.Errorf("mount table: %w", err)
	}
	m, found := mountOf(table, rec.Resolved)
	if !found {
		return nil, nil
	}
	if rec.Kind == ledger.KindMountPoint && m.Path != rec.Resolved {
		return nil, nil // it is gone; what lies below is not the volume
	}
	s := &subject{major: m.Major, minor: m.Minor, device: rec.Device, namespaces: []string{table.Namespace, rec.Namespace}}
	if first, err := os.Readlink(filepath.Join(h.cfg.Proc, "1", "ns", "mnt")); err == nil {
		s.namespaces = append(s.namespaces, first)
	}
	s.root = path.Join(m.Root, strings.TrimPrefix(rec.Resolved, m.Path))
	s.whole = s.root == "/" && rec.Kind == ledger.KindMountPoint
	if overNetwork(m.FSType) {
		s.whole, s.source = false, m.Source
	}
	s.places, _ = s.placesIn(table)
	return s, nil
}

// overNetwork knows the file systems of which several exports share a device.
func overNetwork(fsType string) bool {
	switch fsType {
	case "nfs", "nfs4", "cifs", "smb3", "ceph", "9p":
		return true
	}
	return false
}

// mountOf is the mount on which a path lies: the last of those with the longest
// path.
func mountOf(table volume.MountTable, p string) (best volume.MountPoint, found bool) {
	for _, m := range table.Mounts {
		if within(p, m.Path) && (!found || len(m.Path) >= len(best.Path)) {
			best, found = m, true
		}
	}
	return best, found
}

func within(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}

// placesIn are the paths at which a mount table shows the subject. copies are
// those that are mounts of the subject itself, or of a part of it.
func (s *subject) placesIn(table volume.MountTable) (places, copies []string) {
	for _, m := range table.Mounts {
		if m.Major != s.major || m.Minor != s.minor || s.source != "" && s.source != m.Source {
			continue
		}
		switch {
		case within(m.Root, s.root):
			places, copies = append(places, m.Path), append(copies, m.Path)
		case within(s.root, m.Root):
			places = append(places, path.Join(m.Path, strings.TrimPrefix(s.root, m.Root)))
		}
	}
	return places, copies
}

// user is a process that uses a subject.
type user struct {
	pid int
	how string
}

// all finds the processes that have something of the subject open: a file, a
// directory, a mapping; this process and the spared one are passed over. With
// copies also those whose mount namespace has it at a place of its own, as a
// container has. With an error, which tells of a process that may not be looked at, the list holds what
// was found all the same. Init is no task: where it may not be looked at, as in a
// container, it is passed over.
func (l *looking) all(ctx context.Context) ([]user, error) {
	entries, err := os.ReadDir(l.host.cfg.Proc)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var out []user
	var unseen error
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || pid == l.spare {
			continue
		}
		how, err := l.at(ctx, pid)
		switch {
		case ended(err), pid == 1 && errors.Is(err, fs.ErrPermission):
		case err != nil:
			unseen = fmt.Errorf("whether process %d uses it cannot be seen: %w", pid, err)
		case how != "":
			out = append(out, user{pid, how})
		}
	}
	return out, unseen
}

// ended says that a process ended while it was looked at.
func ended(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL)
}

// looking is one look at all processes.
type looking struct {
	host    *Host
	subject *subject
	copies  bool
	// inherited are other namespaces that have the subject where this one had it.
	inherited map[string]inheritance
	// spare is a process that is no user, 0 for none.
	spare  int
	tables map[string]seenTable
}

// seenTable is what a mount namespace shows of the subject.
type seenTable struct {
	places, copies []string
}

// at says how a process uses the subject; empty if it does not.
func (l *looking) at(ctx context.Context, pid int) (string, error) {
	table, namespace, err := l.table(ctx, pid)
	if err != nil {
		return "", err
	}
	if l.copies && !slices.Contains(l.subject.namespaces, namespace) {
		for _, place := range table.copies {
			if !slices.Contains(l.subject.places, place) {
				return "mount at " + place, nil
			}
		}
		if len(table.copies) > 0 {
			l.inherited[namespace] = inheritance{pid, table.copies}
		}
	}
	dir := filepath.Join(l.host.cfg.Proc, strconv.Itoa(pid))
	links := []string{"cwd", "root", "exe"}
	descriptors, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return "", err
	}
	for _, d := range descriptors {
		links = append(links, "fd/"+d.Name())
	}
	for _, link := range links {
		if l.on(filepath.Join(dir, link), table) {
			return link, nil
		}
	}
	return l.mapping(dir, table)
}

// table reads a process's mount namespace, once for all processes that share it.
func (l *looking) table(ctx context.Context, pid int) (seenTable, string, error) {
	namespace, err := os.Readlink(filepath.Join(l.host.cfg.Proc, strconv.Itoa(pid), "ns", "mnt"))
	if err != nil {
		return seenTable{}, "", err
	}
	if t, known := l.tables[namespace]; known {
		return t, namespace, nil
	}
	mounts, err := l.host.cfg.Mounts.OfProcess(ctx, pid)
	if err != nil {
		return seenTable{}, "", err
	}
	var t seenTable
	t.places, t.copies = l.subject.placesIn(mounts)
	l.tables[namespace] = t
	return t, namespace, nil
}

// on says whether a link of /proc leads onto the subject. The device tells also
// of what was detached from the mount table.
func (l *looking) on(link string, table seenTable) bool {
	var st unix.Stat_t
	if l.subject.whole {
		return statNoSync(link, &st) == nil && st.Dev == l.subject.device
	}
	target, err := os.Readlink(link)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(table.places, func(place string) bool { return within(target, place) })
}

// statNoSync stats without asking a network file system's server, which may be
// dead.
func statNoSync(name string, st *unix.Stat_t) error {
	var x unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, name, unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &x); err != nil {
		return err
	}
	st.Dev = unix.Mkdev(x.Dev_major, x.Dev_minor)
	return nil
}

// mapping looks for a mapped file: device and path stand in /proc/<pid>/maps.
func (l *looking) mapping(dir string, table seenTable) (string, error) {
	data, err := os.ReadFile(filepath.Join(dir, "maps"))
	if err != nil {
		return "", err
	}
	// They differ on btrfs, where stat(2) tells a device of the subvolume's own.
	devices := []string{fmt.Sprintf("%02x:%02x", l.subject.major, l.subject.minor),
		fmt.Sprintf("%02x:%02x", unix.Major(l.subject.device), unix.Minor(l.subject.device))}
	for line := range strings.Lines(string(data)) {
		fields := strings.SplitN(strings.TrimSpace(line), " ", 6)
		if len(fields) < 6 || !slices.Contains(devices, fields[3]) {
			continue
		}
		name := strings.TrimSpace(fields[5])
		if l.subject.whole || slices.ContainsFunc(table.places, func(place string) bool { return within(name, place) }) {
			return "mapping of " + name, nil
		}
	}
	return "", nil
}

// kill kills users and says who they are: whether they are gone shows the next
// look.
func (h *Host) kill(users []user) error {
	var left []string
	for _, u := range users {
		left = append(left, fmt.Sprintf("%d (%s)", u.pid, u.how))
		if u.pid == 1 {
			continue
		}
		h.cfg.Log.Warn("killing a process that uses a volume whose lease is over", zap.Int("pid", u.pid), zap.String("how", u.how))
		if err := unix.Kill(u.pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d: %w", u.pid, err)
		}
	}
	return fmt.Errorf("processes still use it: %s", strings.Join(left, ", "))
}
