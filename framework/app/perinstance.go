package app

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// instanceVariable stands in a volume's name for the ordinal of the instance
// that mounts it.
const instanceVariable = "${instance}"

// ordinalEnv is the variable by which a task learns its ordinal.
const ordinalEnv = "DVDI_INSTANCE_ORDINAL"

// PerInstance says whether each instance has a volume of its own.
func (e *External) PerInstance() bool { return strings.Contains(e.Name, instanceVariable) }

// NameFor is the volume's name for the instance with that ordinal.
func (e *External) NameFor(ordinal int) string {
	return strings.ReplaceAll(e.Name, instanceVariable, strconv.Itoa(ordinal))
}

// Ordered says whether the app's instances have ordinals that matter: those of
// the volumes that each instance has for itself. They count from 0, and an
// instance that takes another's place takes its ordinal.
func (a *App) Ordered() bool {
	return len(a.volumes(func(v Volume) bool { return v.External != nil && v.External.PerInstance() })) > 0
}

// ForInstance is the definition as the instance with that ordinal runs it: the
// names of volumes hold the ordinal, options of classes are spelled out, and the
// task finds its ordinal in DVDI_INSTANCE_ORDINAL. The definition itself is
// returned where there is nothing to fill in.
func (a *App) ForInstance(ordinal int) *App {
	if len(a.volumes(func(v Volume) bool { return v.External != nil && (v.External.PerInstance() || v.External.Class != nil) })) == 0 {
		return a
	}
	out := *a
	container := *a.Container
	container.Volumes = slices.Clone(container.Volumes)
	out.Container = &container
	for i, v := range container.Volumes {
		if v.External == nil {
			continue
		}
		e := *v.External
		e.Name = e.NameFor(ordinal)
		e.Options = e.plainOptions()
		container.Volumes[i].External = &e
	}
	if a.Ordered() {
		out.Env = maps.Clone(a.Env)
		if out.Env == nil {
			out.Env = map[string]EnvVar{}
		}
		if _, taken := out.Env[ordinalEnv]; !taken {
			out.Env[ordinalEnv] = EnvVar{Value: strconv.Itoa(ordinal)}
		}
	}
	return &out
}

// couldCollide says whether two volume names could mean the same volume, as
// "data-${instance}" and "data-3" do.
func couldCollide(a, b string) bool {
	if a == b {
		return true
	}
	return expandsTo(a, b) || expandsTo(b, a)
}

// expandsTo says whether an instance's ordinal makes name of pattern.
func expandsTo(pattern, name string) bool {
	before, _, found := strings.Cut(pattern, instanceVariable)
	if !found || !strings.HasPrefix(name, before) {
		return false
	}
	digits := name[len(before):]
	end := 0
	for end < len(digits) && digits[end] >= '0' && digits[end] <= '9' {
		end++
	}
	for ; end > 0; end-- {
		if strings.ReplaceAll(pattern, instanceVariable, digits[:end]) == name {
			return true
		}
	}
	return false
}

// validateInstanceNames refuses volume names of which one could become the
// other when the ordinal is filled in. Equal names are another rule's.
func validateInstanceNames(p *problems, apps map[ID]*App, changed []ID) {
	paths := treePaths{apps: apps}
	all, patterns := namesInUse(apps)
	for _, id := range changed {
		for _, v := range apps[id].externals() {
			others := patterns // two plain names can only be equal
			if v.External.PerInstance() {
				others = all
			}
			for _, w := range others {
				if v.External.Name != w.name && couldCollide(v.External.Name, w.name) {
					p.addf(paths.of(id)+"/container", "Volume name '%s' in %s can mean the same volume as '%s' in %s", v.External.Name, id, w.name, w.app)
				}
			}
		}
	}
}

// nameInUse is the name of an external volume of an app.
type nameInUse struct {
	app  ID
	name string
}

// namesInUse lists the names of all apps' external volumes, and those of them
// that become another for each instance.
func namesInUse(apps map[ID]*App) (all, patterns []nameInUse) {
	for id, a := range apps {
		for _, v := range a.externals() {
			n := nameInUse{id, v.External.Name}
			all = append(all, n)
			if v.External.PerInstance() {
				patterns = append(patterns, n)
			}
		}
	}
	return all, patterns
}
