package dockerplugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// maxManagedConfig bounds the size of a managed plugin's config.json.
const maxManagedConfig = 1 << 20

// managed is what Docker records of a plugin that it installed itself, in
// plugins/<id>/config.json below its root (moby's plugin/v2.Plugin).
type managed struct {
	dir string // plugins/<id>

	id, name        string // the name with its tag
	enabled         bool
	socket          string // file name
	propagatedMount string
	volumeDriver    bool
}

// isPluginID knows the ids that Docker gives plugins.
func isPluginID(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// managedDir is where the managed plugins are recorded.
func (d *Drivers) managedDir() string { return filepath.Join(d.config.DockerRoot, "plugins") }

// findManaged looks for an installed plugin by name, name without :latest, id
// or a prefix of it that is long enough to be meant as one. A plugin that is
// found and cannot be used is an error: Docker does not fall back to a legacy
// plugin of that name either.
func (d *Drivers) findManaged(name string) (f found, ok bool, err error) {
	var byID []found
	for _, f := range d.allManaged() {
		if f.name == name || f.name == name+":latest" {
			return d.useManaged(f, name)
		}
		if mayBeID(name) && strings.HasPrefix(f.managed.id, name) {
			byID = append(byID, f)
		}
	}
	switch len(byID) {
	case 0:
		return found{}, false, nil
	case 1:
		return d.useManaged(byID[0], name)
	}
	return found{}, false, &volume.Error{
		Kind: volume.Invalid, Op: "open", Driver: name,
		Message: "several managed plugins have an id that begins so", Hint: "give more of the id, or the name",
	}
}

// Canonical implements volume.Namer: a managed plugin is called by its name,
// without the tag that Docker adds to names that have none.
func (d *Drivers) Canonical(name string) string {
	if mayBeID(name) {
		var called []string
		for _, f := range d.allManaged() {
			if strings.HasPrefix(f.managed.id, name) {
				called = append(called, f.name)
			}
		}
		if len(called) == 1 {
			name = called[0]
		}
	}
	return untagged(name)
}

// untagged is a name without the tag that Docker adds to names that have none.
func untagged(name string) string { return strings.TrimSuffix(name, ":latest") }

// mayBeID says whether a name is long enough to be meant as the beginning of an
// id, and looks like one.
func mayBeID(name string) bool {
	return len(name) >= 12 && len(name) <= 64 && isPluginID(name+strings.Repeat("0", 64-len(name)))
}

func (d *Drivers) useManaged(f found, name string) (found, bool, error) {
	if f.problem == nil {
		return f, true, nil
	}
	hint := "see docker plugin inspect " + f.name
	if errors.Is(f.problem, errDisabled) {
		hint = "enable it with docker plugin enable " + f.name
	}
	return found{}, false, &volume.Error{
		Kind: volume.DriverUnreachable, Op: "open", Driver: name, Err: f.problem, Hint: hint,
	}
}

var errDisabled = errors.New("the managed plugin is disabled")

// allManaged reads the records of all managed plugins. One that cannot be read
// is listed by its id.
func (d *Drivers) allManaged() []found {
	if d.config.DockerRoot == "" {
		return nil
	}
	var plugins []found
	for _, id := range readNames(d.managedDir(), "") {
		if isPluginID(id) {
			plugins = append(plugins, d.readManaged(id))
		}
	}
	return plugins
}

func (d *Drivers) readManaged(id string) found {
	dir := filepath.Join(d.managedDir(), id)
	f := found{name: id, source: filepath.Join(dir, "config.json"), managed: &managed{dir: dir, id: id}}
	content, err := os.ReadFile(f.source)
	if err == nil && len(content) > maxManagedConfig {
		err = fmt.Errorf("%s is larger than %d bytes", f.source, maxManagedConfig)
	}
	if err == nil {
		f.managed, err = parseManaged(content)
	}
	if err != nil {
		f.problem = err
		f.managed = &managed{dir: dir, id: id}
		return f
	}
	f.managed.dir, f.managed.id, f.name = dir, id, f.managed.name
	switch {
	case !f.managed.volumeDriver:
		f.problem = errors.New("the managed plugin is no volume driver")
	case !f.managed.enabled:
		f.problem = errDisabled
	default:
		f.endpoint, f.problem = d.managedEndpoint(f.managed)
	}
	return f
}

// managedEndpoint finds the socket of an enabled plugin.
func (d *Drivers) managedEndpoint(m *managed) (endpoint, error) {
	var tried []string
	for _, p := range d.places {
		if !p.sockets {
			continue
		}
		socket := filepath.Join(p.dir, m.id, m.socket)
		e, ok, err := readSocket(socket)
		if err != nil {
			return endpoint{}, err
		}
		if ok {
			return e, nil
		}
		tried = append(tried, socket)
	}
	return endpoint{}, fmt.Errorf("the managed plugin has no socket (%s); is the Docker daemon running?", strings.Join(tried, ", "))
}

func parseManaged(content []byte) (*managed, error) {
	var record struct {
		Plugin struct {
			Name    string
			Enabled bool
			Config  struct {
				PropagatedMount string
				Interface       struct {
					Socket string
					Types  []any // "docker.volumedriver/1.0", or an object in old versions
				}
			}
		} `json:"plugin"`
	}
	if err := json.Unmarshal(content, &record); err != nil {
		return nil, fmt.Errorf("not the record of a managed plugin: %w", err)
	}
	p := record.Plugin
	if p.Name == "" {
		return nil, errors.New("not the record of a managed plugin: it has no name")
	}
	socket := p.Config.Interface.Socket
	if socket == "" || socket != filepath.Base(socket) || !filepath.IsLocal(socket) {
		return nil, fmt.Errorf("managed plugin %s: the socket's name %q is no file name", p.Name, socket)
	}
	m := &managed{name: p.Name, enabled: p.Enabled, socket: socket, propagatedMount: p.Config.PropagatedMount}
	for _, t := range p.Config.Interface.Types {
		m.volumeDriver = m.volumeDriver || isVolumeDriver(t)
	}
	return m, nil
}

// isVolumeDriver understands both forms of an interface type.
func isVolumeDriver(t any) bool {
	switch t := t.(type) {
	case string:
		return strings.HasPrefix(strings.ToLower(t), "docker.volumedriver/")
	case map[string]any:
		prefix, _ := t["Prefix"].(string)
		capability, _ := t["Capability"].(string)
		return prefix == "docker" && strings.EqualFold(capability, "volumedriver")
	}
	return false
}

// rescope makes a path inside the plugin's file system one of this host (as
// moby's plugin/v2.Plugin.ScopedPath). A path cannot lead out of it.
func (m *managed) rescope(p string) string {
	if m == nil || p == "" {
		return p
	}
	p = path.Clean("/" + p)
	if m.propagatedMount != "" {
		base := path.Clean("/" + m.propagatedMount)
		if rest, ok := strings.CutPrefix(p, strings.TrimSuffix(base, "/")); ok && (rest == "" || rest[0] == '/') {
			return filepath.Join(m.dir, "propagated-mount", rest)
		}
	}
	return filepath.Join(m.dir, "rootfs", p)
}
