package dockerplugin

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// place is a directory and what is looked for in it.
type place struct {
	dir            string
	sockets, files bool
}

func placesOf(dirs []string) []place {
	if len(dirs) == 0 {
		return []place{
			{dir: socketsDir, sockets: true},
			{dir: "/etc/docker/plugins", files: true},
			{dir: "/usr/lib/docker/plugins", files: true},
		}
	}
	var places []place
	for _, dir := range dirs {
		places = append(places, place{dir: filepath.Clean(dir), sockets: true, files: true})
	}
	return places
}

// found is a plugin as discovery knows it.
type found struct {
	name     string
	source   string // the file that defines it
	endpoint endpoint
	managed  *managed // nil for a legacy plugin
	problem  error    // why it cannot be used
}

// unusable is the error for a plugin that exists but cannot be talked to.
func unusable(driver, source string, err error) error {
	return &volume.Error{
		Kind: volume.DriverUnreachable, Op: "open", Driver: driver, Err: err,
		Hint: "correct " + source,
	}
}

// find looks a name up in Docker's order: managed plugins, then sockets, then
// files, directory by directory.
func (d *Drivers) find(name string) (found, error) {
	if managed, ok, err := d.findManaged(name); err != nil || ok {
		return managed, err
	}
	for _, candidate := range d.candidates(name) {
		f, ok := candidate.look(name)
		if !ok {
			continue
		}
		if f.problem != nil {
			return found{}, unusable(name, f.source, f.problem)
		}
		return f, nil
	}
	return found{}, d.unknown(name)
}

// candidate is a path where a plugin may be defined.
type candidate struct {
	path string
	read func(path string) (endpoint, bool, error)
}

// look reads the candidate; ok says that the path defines a plugin at all.
func (c candidate) look(name string) (f found, ok bool) {
	e, ok, err := c.read(c.path)
	return found{name: name, source: c.path, endpoint: e, problem: err}, ok
}

// candidates lists the paths that could define name, best first. A name that
// would lead out of the directories has none, and neither has a second spelling
// of another name.
func (d *Drivers) candidates(name string) []candidate {
	if !filepath.IsLocal(name) || !canonical(name) || strings.ContainsRune(name, 0) {
		return nil
	}
	var sockets, files []candidate
	for _, p := range d.places {
		flat, nested := filepath.Join(p.dir, name), filepath.Join(p.dir, name, name)
		if p.sockets {
			sockets = append(sockets, candidate{flat + ".sock", readSocket}, candidate{nested + ".sock", readSocket})
		}
		if p.files {
			files = append(files,
				candidate{flat + ".spec", readSpec}, candidate{nested + ".spec", readSpec},
				candidate{flat + ".json", readJSON}, candidate{nested + ".json", readJSON})
		}
	}
	return append(sockets, files...)
}

// canonical says that no other name leads to the same files. Records of what is
// mounted and an operator's rules go by name: "./p" or "p/p" for the plugin "p"
// would get past both.
func canonical(name string) bool {
	dir, base := filepath.Split(name)
	return filepath.Clean(name) == name && base != filepath.Base(dir)
}

// unknown says where a name was looked for and what is there instead.
func (d *Drivers) unknown(name string) error {
	e := &volume.DriverUnknownError{Driver: name, Searched: d.Places()}
	for _, f := range d.all() {
		if name := untagged(f.name); f.problem == nil && !slices.Contains(e.Existing, name) {
			e.Existing = append(e.Existing, name)
		}
	}
	return e
}

// Places are the directories in which drivers are looked for, that of the managed
// plugins included.
func (d *Drivers) Places() []string {
	var out []string
	for _, p := range d.places {
		out = append(out, p.dir)
	}
	if d.config.DockerRoot != "" {
		out = append(out, d.managedDir())
	}
	return out
}

// List implements volume.Drivers.
func (d *Drivers) List(ctx context.Context) ([]volume.DriverInfo, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list drivers: %w", err)
	}
	infos := []volume.DriverInfo{}
	for _, f := range d.all() {
		info := volume.DriverInfo{Name: untagged(f.name), Kind: Kind, Source: f.source, Address: f.endpoint.address()}
		if f.problem != nil {
			info.Problem = f.problem.Error()
		}
		infos = append(infos, info)
	}
	return infos, nil
}

// all returns every plugin there is, by name; those of one name in the order
// in which find would take them. Directories that are missing or closed to us
// hold nothing.
func (d *Drivers) all() []found {
	plugins := d.allManaged()
	for _, name := range d.names() {
		for _, candidate := range d.candidates(name) {
			if f, ok := candidate.look(name); ok {
				plugins = append(plugins, f)
			}
		}
	}
	slices.SortStableFunc(plugins, func(a, b found) int { return cmp.Compare(untagged(a.name), untagged(b.name)) })
	return plugins
}

// names collects the names that files in the directories suggest.
func (d *Drivers) names() []string {
	var names []string
	for _, p := range d.places {
		for _, file := range append(readNames(p.dir, ""), nestedNames(p.dir)...) {
			switch ext := filepath.Ext(file); ext {
			case ".sock", ".spec", ".json":
				names = append(names, strings.TrimSuffix(file, ext))
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// nestedNames lists the files NAME/NAME.* of a directory.
func nestedNames(dir string) []string {
	var names []string
	for _, sub := range readNames(dir, "") {
		names = append(names, readNames(filepath.Join(dir, sub), sub+".")...)
	}
	return names
}

func readNames(dir, prefix string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), prefix) {
			names = append(names, entry.Name())
		}
	}
	return names
}
