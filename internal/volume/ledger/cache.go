package ledger

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Cache lists a ledger again and again, for programs that run long: a file is
// read only when it was replaced. It is not safe for concurrent use.
type Cache struct {
	ledger *Ledger
	files  map[string]cachedFile
}

type cachedFile struct {
	inode    uint64
	size     int64
	modified unix.Timespec
	item     Listed
}

// NewCache makes a Cache of the ledger.
func (l *Ledger) NewCache() *Cache { return &Cache{ledger: l, files: map[string]cachedFile{}} }

// List is Ledger.List; callers must not change the records. Changed says
// whether anything differs from the last time.
func (c *Cache) List() (items []Listed, changed bool, err error) {
	files := make(map[string]cachedFile, len(c.files))
	run, runChanged, err := c.dir(filepath.Join(c.ledger.cfg.RunDir, dirVolumes), files)
	if err != nil {
		return nil, false, err
	}
	kept, keptChanged, err := c.dir(filepath.Join(c.ledger.cfg.StateDir, dirMounts), files)
	if err != nil {
		return nil, false, err
	}
	changed = runChanged || keptChanged || len(files) != len(c.files)
	c.files = files
	current := make(map[Key]bool, len(run))
	for i := range run {
		if r := run[i].Record; r != nil {
			run[i].Hint = r.BootID != c.ledger.boot
			current[r.Key()] = true
		}
	}
	for _, k := range kept {
		if k.Record != nil && current[k.Record.Key()] {
			continue
		}
		k.Hint = true
		run = append(run, k)
	}
	return run, changed, nil
}

func (c *Cache) dir(dir string, files map[string]cachedFile) (out []Listed, changed bool, err error) {
	at, err := os.Open(dir)
	if err != nil {
		return nil, false, failed("list the ledger", Key{}, err)
	}
	defer at.Close()
	entries, err := at.ReadDir(-1)
	if err != nil {
		return nil, false, failed("list the ledger", Key{}, err)
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), recordSuffix) || strings.HasPrefix(e.Name(), tempPrefix) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		st, err := lstat(at, e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted meanwhile
		}
		f := cachedFile{item: Listed{File: path}}
		if err == nil {
			f.inode, f.size, f.modified = st.Ino, st.Size, st.Mtim
			if old, ok := c.files[path]; ok && old.inode == f.inode && old.size == f.size && old.modified == f.modified {
				files[path] = old
				out = append(out, old.item)
				continue
			}
		}
		changed = true
		data, err := readFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			f.item.Record, err = decode(data, e.Name())
		}
		f.item.Err = err
		if !IsUnread(err) {
			files[path] = f
		}
		out = append(out, f.item)
	}
	return out, changed, nil
}

// lstat looks at a file of an open directory: of thousands of files the way to
// their directory costs more than they do.
func lstat(dir *os.File, name string) (st unix.Stat_t, err error) {
	for {
		err = unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if !errors.Is(err, unix.EINTR) {
			return st, err
		}
	}
}
