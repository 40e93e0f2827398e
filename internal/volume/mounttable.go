package volume

import (
	"context"
	"path/filepath"
)

// MountTables reads what the kernel knows about mounts. Implementations are
// safe for concurrent use and never hang longer than ctx, dead network and FUSE
// file systems included.
type MountTables interface {
	// Own reads the mount table of the calling process.
	Own(ctx context.Context) (MountTable, error)
	// OfProcess reads the mount table of another process's mount namespace.
	// An error that wraps fs.ErrNotExist or fs.ErrPermission: it is gone, or
	// may not be looked at.
	OfProcess(ctx context.Context, pid int) (MountTable, error)
	// Stat tells what the calling process sees at an absolute path, following
	// symbolic links. An error wraps fs.ErrNotExist if there is nothing; a dead
	// FUSE mount gives its errno (ENOTCONN); a hung one gives ctx's error.
	Stat(ctx context.Context, path string) (PathFacts, error)
}

// Namespaces is implemented by MountTables that can tell a process's mount
// namespace without reading its table.
type Namespaces interface {
	// Namespace is MountTable.Namespace of the process. It fails as
	// MountTables.OfProcess does.
	Namespace(pid int) (string, error)
}

// Detacher is implemented by MountTables that can take away a dead mount.
type Detacher interface {
	// Detach takes away the mount on top at path, if it is a FUSE mount that
	// nobody serves any more, and leaves any other mount alone with an error.
	Detach(ctx context.Context, path string) error
}

// PathFacts is what stat(2) tells of a path.
type PathFacts struct {
	// Resolved is the path with symbolic links resolved, as it appears in a
	// mount table.
	Resolved string
	IsDir    bool
	// Device is st_dev.
	Device uint64
	// Inode is st_ino.
	Inode uint64
}

// MountTable is a snapshot of one mount namespace.
type MountTable struct {
	// Namespace identifies it within this boot: the link text of
	// /proc/<pid>/ns/mnt, such as "mnt:[4026531841]".
	Namespace string
	// Mounts in the kernel's order: of several at one path the last is on top.
	// They do not change after Indexed.
	Mounts []MountPoint
	index  map[string]stack // by path; nil without Indexed
}

// stack is what is mounted at one path.
type stack struct{ top, size int }

// Indexed is the table for a caller who asks it for many paths.
func (t MountTable) Indexed() MountTable {
	t.index = make(map[string]stack, len(t.Mounts))
	for i, m := range t.Mounts {
		t.index[m.Path] = stack{top: i, size: t.index[m.Path].size + 1}
	}
	return t
}

// MountPoint is one line of a mount table (proc(5), /proc/pid/mountinfo).
type MountPoint struct {
	ID, Parent int
	// Path is absolute, unescaped.
	Path string
	// Root is the directory of the file system that is mounted here.
	Root   string
	FSType string
	Source string
	// Major and Minor of st_dev of files on it.
	Major, Minor int
	// Propagation holds the optional fields, such as "shared:1" or "master:2".
	Propagation string
}

// At returns the mount on top at exactly this path, and how many are stacked
// there (0 if it is no mount point). The path is cleaned, not resolved.
func (t MountTable) At(path string) (top MountPoint, stacked int) {
	path = filepath.Clean(path)
	if t.index != nil {
		if at := t.index[path]; at.size > 0 {
			return t.Mounts[at.top], at.size
		}
		return MountPoint{}, 0
	}
	for _, m := range t.Mounts {
		if m.Path == path {
			top = m
			stacked++
		}
	}
	return top, stacked
}
