package app

import (
	"regexp"
	"slices"
	"strings"
)

// The variables by which apps told mesos-module-dvdi which volumes to mount; up
// to nine more volumes have a digit appended. The module's default driver was
// rexray.
const (
	moduleName          = "DVDI_VOLUME_NAME"
	moduleDriver        = "DVDI_VOLUME_DRIVER"
	moduleOptions       = "DVDI_VOLUME_OPTS"
	moduleContainerPath = "DVDI_VOLUME_CONTAINERPATH"
	moduleDefaultDriver = "rexray"
)

var moduleSuffixes = []string{"", "1", "2", "3", "4", "5", "6", "7", "8", "9"}

var plainPath = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*$`)

// moduleVolumes lists the suffixes of the module's variables that name a volume.
func (a *App) moduleVolumes() []string {
	var out []string
	for _, suffix := range moduleSuffixes {
		if _, given := a.Env[moduleName+suffix]; given {
			out = append(out, suffix)
		}
	}
	return out
}

// Deprecations says what in the definition is deprecated and what to write
// instead; each is one sentence for a person.
func (a *App) Deprecations() []string {
	var out []string
	for _, suffix := range a.moduleVolumes() {
		text := moduleName + suffix + " is deprecated: "
		if a.Container != nil && a.Container.Type == Docker {
			text += "it has no effect in DOCKER containers; remove it"
		} else {
			text += "declare the volume " + a.Env[moduleName+suffix].Value + " in container.volumes, with external and provider dvdi, and remove the variable"
		}
		out = append(out, text)
	}
	return out
}

// translateModuleEnv declares the volumes that the module's variables name. The
// variables stay, since the task may read them; a volume that is declared
// already is left as it is, so that a definition that was read can be written
// back. The module did not serve the Docker containerizer.
func translateModuleEnv(p *problems, a *App) {
	if a.Container != nil && a.Container.Type == Docker {
		return
	}
	for _, suffix := range a.moduleVolumes() {
		v, ok := a.moduleVolume(p, suffix)
		if !ok || slices.ContainsFunc(a.externals(), func(o Volume) bool { return o.External.Name == v.External.Name }) {
			continue
		}
		if a.Container == nil {
			a.Container = &Container{Type: Mesos}
		}
		a.Container.Volumes = append(a.Container.Volumes, v)
	}
}

// moduleVolume makes the volume of one set of variables.
func (a *App) moduleVolume(p *problems, suffix string) (Volume, bool) {
	ok := true
	text := func(name string) string {
		v := a.Env[name+suffix]
		if v.Secret != "" {
			p.add("/env/"+name+suffix, "must be text: it names a volume")
			ok = false
		}
		return strings.TrimSpace(v.Value)
	}
	name, driver, path := text(moduleName), text(moduleDriver), text(moduleContainerPath)
	if name == "" && ok {
		p.add("/env/"+moduleName+suffix, "must not be empty")
		ok = false
	}
	setDefault(&driver, moduleDefaultDriver)
	if path == "" {
		// The module left the volume where the plugin mounted it, and it is
		// there still; the isolator wants a place in the sandbox besides.
		path = name
		if !plainPath.MatchString(path) {
			path = "dvdi-volume" + suffix
		}
	}
	options := map[string]string{driverOption: driver}
	for pair := range strings.SplitSeq(text(moduleOptions), ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		key, value, found := strings.Cut(pair, "=")
		if !found {
			p.addf("/env/"+moduleOptions+suffix, "got %s, expected name=value,name=value", pair)
			ok = false
			continue
		}
		options["dvdi/"+strings.TrimSpace(key)] = strings.TrimSpace(value)
	}
	return Volume{ContainerPath: path, Mode: readWrite, External: &External{Provider: DVDI, Name: name, Options: options}}, ok
}
