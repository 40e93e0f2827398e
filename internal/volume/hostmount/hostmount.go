// Package hostmount reads mount tables of this host for the volume engine: the
// caller's own and those of other processes, whose mount namespaces may differ
// (proc(5), mount_namespaces(7)).
package hostmount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// stableReads bounds how often a table that keeps changing is read again.
const stableReads = 5

// Tables implements volume.MountTables by /proc and stat(2). Its zero value is
// not usable; see New. It is safe for concurrent use and keeps no state
// between calls.
type Tables struct {
	proc string
	// torn says that one reading of a mount table may lack mounts.
	torn func() bool
	// look is stat of a path with its links resolved; it may hang.
	look func(path string) (volume.PathFacts, error)
}

var (
	_ volume.MountTables = (*Tables)(nil)
	_ volume.Detacher    = (*Tables)(nil)
	_ volume.Namespaces  = (*Tables)(nil)
)

// New returns the mount tables of this host.
func New() *Tables { return &Tables{proc: "/proc", torn: torn, look: look} }

// Own implements volume.MountTables.
func (t *Tables) Own(ctx context.Context) (volume.MountTable, error) {
	return t.read(ctx, "self")
}

// OfProcess implements volume.MountTables. Paths in the answer are those that
// the process sees, relative to its own root directory.
func (t *Tables) OfProcess(ctx context.Context, pid int) (volume.MountTable, error) {
	if pid <= 0 {
		return volume.MountTable{}, fmt.Errorf("mount table of process %d: %w", pid, fs.ErrNotExist)
	}
	return t.read(ctx, strconv.Itoa(pid))
}

func (t *Tables) read(ctx context.Context, process string) (volume.MountTable, error) {
	if err := ctx.Err(); err != nil {
		return volume.MountTable{}, tableError(process, err)
	}
	dir := filepath.Join(t.proc, process)
	read := func() ([]byte, error) { return os.ReadFile(filepath.Join(dir, "mountinfo")) }
	if t.torn() {
		once := read
		read = func() ([]byte, error) { return readStable(ctx, once) }
	}
	text, err := read()
	if err != nil {
		return volume.MountTable{}, tableError(process, err)
	}
	namespace, err := os.Readlink(filepath.Join(dir, "ns", "mnt"))
	if err != nil {
		return volume.MountTable{}, tableError(process, err)
	}
	infos, err := mountinfo.GetMountsFromReader(bytes.NewReader(text), nil)
	if err != nil {
		return volume.MountTable{}, tableError(process, err)
	}
	table := volume.MountTable{Namespace: namespace, Mounts: make([]volume.MountPoint, 0, len(infos))}
	for _, info := range infos {
		table.Mounts = append(table.Mounts, volume.MountPoint{
			ID: info.ID, Parent: info.Parent,
			Path: info.Mountpoint, Root: info.Root,
			FSType: info.FSType, Source: info.Source,
			Major: info.Major, Minor: info.Minor,
			Propagation: info.Optional,
		})
	}
	return table, nil
}

// Namespace implements volume.Namespaces.
func (t *Tables) Namespace(pid int) (string, error) {
	namespace, err := os.Readlink(filepath.Join(t.proc, strconv.Itoa(pid), "ns", "mnt"))
	if err != nil {
		return "", tableError(strconv.Itoa(pid), err)
	}
	return namespace, nil
}

// tableError makes a process that ended while it was looked at a process that
// does not exist: the kernel answers ESRCH, or EINVAL for a zombie, which has
// no mount namespace any more.
func tableError(process string, err error) error {
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		err = fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return fmt.Errorf("mount table of process %s: %w", process, err)
}

// torn says that the kernel is one of before Linux 5.8: it hands a mount table out
// in pieces, and an unmount between two pieces may hide a mount that has nothing
// to do with it (fixed by "proc/mounts: add cursor"). One that cannot be told
// counts as old.
var torn = sync.OnceValue(func() bool {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return true
	}
	return before(unix.ByteSliceToString(name.Release[:]), 5, 8)
})

// before says whether a release such as "5.10.0-8-amd64" is older than a version.
func before(release string, major, minor int) bool {
	var a, b int
	if _, err := fmt.Sscanf(release, "%d.%d", &a, &b); err != nil {
		return true
	}
	return a < major || a == major && b < minor
}

// readStable reads until two readings agree. If the table never rests the last
// reading is returned.
func readStable(ctx context.Context, read func() ([]byte, error)) ([]byte, error) {
	last, err := read()
	if err != nil {
		return nil, err
	}
	for range stableReads {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		again, err := read()
		if err != nil {
			return nil, err
		}
		if bytes.Equal(last, again) {
			break
		}
		last = again
	}
	return last, nil
}

// Stat implements volume.MountTables. The kernel cannot be made to give up on
// a file system whose server hangs, so the look is left behind when ctx ends;
// its goroutine ends with the process, or when the server comes back.
func (t *Tables) Stat(ctx context.Context, path string) (volume.PathFacts, error) {
	return t.stat(ctx, path, func() {})
}

// stat calls ended when the look is over, whoever waited for it.
func (t *Tables) stat(ctx context.Context, path string, ended func()) (volume.PathFacts, error) {
	if !filepath.IsAbs(path) {
		ended()
		return volume.PathFacts{}, fmt.Errorf("stat %q: %w: the path is not absolute", path, fs.ErrInvalid)
	}
	if err := ctx.Err(); err != nil {
		ended()
		return volume.PathFacts{}, fmt.Errorf("stat %s: %w", path, err)
	}
	type result struct {
		facts volume.PathFacts
		err   error
	}
	done := make(chan result, 1)
	go func() {
		defer ended()
		facts, err := t.look(path)
		done <- result{facts, err}
	}()
	select {
	case r := <-done:
		return r.facts, r.err
	case <-ctx.Done():
		return volume.PathFacts{}, fmt.Errorf("stat %s: the file system there does not answer: %w", path, ctx.Err())
	}
}

func look(path string) (volume.PathFacts, error) {
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return volume.PathFacts{}, err
	}
	// Without FORCE_SYNC the kernel may answer from its cache for a FUSE or
	// network mount whose server is gone.
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, resolved, unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st); err != nil {
		return volume.PathFacts{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return volume.PathFacts{
		Resolved: resolved,
		IsDir:    uint32(st.Mode)&unix.S_IFMT == unix.S_IFDIR,
		Device:   unix.Mkdev(st.Dev_major, st.Dev_minor),
		Inode:    st.Ino,
	}, nil
}

// Detach implements volume.Detacher. What nobody serves gives ENOTCONN, which no
// mount in working order does.
func (t *Tables) Detach(ctx context.Context, path string) error {
	table, err := t.Own(ctx)
	if err != nil {
		return err
	}
	top, stacked := table.At(path)
	if stacked == 0 || !strings.HasPrefix(top.FSType, "fuse") {
		return fmt.Errorf("detach %s: not a FUSE mount", path)
	}
	if _, err := t.Stat(ctx, path); !errors.Is(err, unix.ENOTCONN) && !errors.Is(err, unix.ECONNABORTED) {
		return fmt.Errorf("detach %s: it is not dead (%w)", path, err)
	}
	if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("detach %s: %w", path, err)
	}
	return nil
}
