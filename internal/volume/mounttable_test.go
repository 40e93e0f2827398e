package volume

import "testing"

// An indexed table answers as one that is searched.
func TestIndexedMountTable(t *testing.T) {
	plain := MountTable{Mounts: []MountPoint{
		{ID: 1, Path: "/"}, {ID: 2, Path: "/a"}, {ID: 3, Path: "/a/b"}, {ID: 4, Path: "/a"}, {ID: 5, Path: "/a"},
	}}
	indexed := plain.Indexed()
	for path, want := range map[string]struct{ id, stacked int }{
		"/": {1, 1}, "/a": {5, 3}, "/a/": {5, 3}, "/a/b": {3, 1}, "/a/b/../b": {3, 1}, "/b": {}, "": {}, "a": {},
	} {
		for name, table := range map[string]MountTable{"searched": plain, "indexed": indexed} {
			top, stacked := table.At(path)
			if top.ID != want.id || stacked != want.stacked {
				t.Errorf("%s: %q: mount %d of %d, want %+v", name, path, top.ID, stacked, want)
			}
		}
	}
}
