package app

import (
	"cmp"
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

// expandsTo says whether an instance's ordinal makes name of pattern, as 3 makes
// "data-3" of "data-${instance}".
func expandsTo(pattern, name string) bool {
	before, _, found := strings.Cut(pattern, instanceVariable)
	if !found || !strings.HasPrefix(name, before) {
		return false
	}
	digits := name[len(before):]
	end := 0
	for end < len(digits) && isDigit(digits[end]) {
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
// other when the ordinal is filled in, and those that could become the same. Equal
// names are another rule's.
func validateInstanceNames(p *problems, apps map[ID]*App, changed []ID) {
	patterns := patternsInUse(apps)
	if len(patterns) == 0 {
		return
	}
	isChanged := make(map[ID]bool, len(changed))
	for _, id := range changed {
		isChanged[id] = true
	}
	type clash struct{ changed, other nameInUse }
	var clashes []clash
	for _, pair := range meeting(apps, isChanged) {
		switch {
		case isChanged[pair[0].app]:
			clashes = append(clashes, clash{pair[0], pair[1]})
		case isChanged[pair[1].app]:
			clashes = append(clashes, clash{pair[1], pair[0]})
		}
	}
	for id, a := range apps {
		for _, v := range a.externals() {
			plain := nameInUse{id, v.External.Name}
			for _, pattern := range patterns.that(plain.name) {
				switch {
				case isChanged[id]:
					clashes = append(clashes, clash{plain, pattern})
				case isChanged[pattern.app]:
					clashes = append(clashes, clash{pattern, plain})
				}
			}
		}
	}
	slices.SortFunc(clashes, func(a, b clash) int {
		return cmp.Or(strings.Compare(string(a.changed.app), string(b.changed.app)), strings.Compare(string(a.other.app), string(b.other.app)))
	})
	paths := treePaths{apps: apps}
	for _, c := range clashes {
		p.addf(paths.of(c.changed.app)+"/container", "Volume name '%s' in %s can mean the same volume as '%s' in %s",
			c.changed.name, c.changed.app, c.other.name, c.other.app)
	}
}

// nameInUse is the name of an external volume of an app.
type nameInUse struct {
	app  ID
	name string
}

// namePatterns are the names that become another for each instance, by what
// stands in them before the ordinal: thousands of apps may each have one.
type namePatterns map[string][]nameInUse

func patternsInUse(apps map[ID]*App) namePatterns {
	out := namePatterns{}
	for id, a := range apps {
		for _, v := range a.externals() {
			if before, _, found := strings.Cut(v.External.Name, instanceVariable); found {
				out[before] = append(out[before], nameInUse{id, v.External.Name})
			}
		}
	}
	return out
}

// that returns the patterns of which an instance's ordinal makes the name.
func (n namePatterns) that(name string) []nameInUse {
	var out []nameInUse
	for i := range len(name) {
		if name[i] < '0' || name[i] > '9' {
			continue
		}
		for _, pattern := range n[name[:i]] {
			if expandsTo(pattern.name, name) {
				out = append(out, pattern)
			}
		}
	}
	return out
}
