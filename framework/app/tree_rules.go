package app

import (
	"fmt"
	"slices"
	"strings"
)

// ValidateAll checks the rules that concern several apps: ids that are app and
// group at once, volume names that several apps use without sharing, and cyclic
// dependencies. apps is the whole set as it would be after the change; only
// breaches that involve an app of changed are reported, so that an old one does
// not block everything else. The error is a *ValidationError.
func ValidateAll(apps map[ID]*App, changed []ID) error {
	var p problems
	validateTreeIDs(&p, apps, changed)
	validateVolumeSharing(&p, apps, changed)
	validateInstanceNames(&p, apps, changed)
	validateDependencies(&p, apps, changed)
	return p.err(msgInvalid)
}

func validateTreeIDs(p *problems, apps map[ID]*App, changed []ID) {
	groups := map[ID]bool{} // the changed apps, and whether they are groups, too
	for _, id := range changed {
		groups[id] = false
	}
	var seen ID // most apps lie in the group of the one before
	for id := range apps {
		parent := id.Parent()
		if parent == seen {
			continue
		}
		seen = parent
		for group := parent; group != Root; group = group.Parent() {
			if _, concerned := groups[group]; concerned {
				groups[group] = true
			}
		}
	}
	for _, id := range changed {
		if apps[id] == nil {
			continue
		}
		clash := groups[id]
		for group := id.Parent(); group != Root; group = group.Parent() {
			clash = clash || apps[group] != nil
		}
		if clash {
			p.add("/", "Groups and Applications may not have the same identifier.")
			return
		}
	}
}

// volumeUse is one app's use of a volume name.
type volumeUse struct {
	id     ID
	shared bool
}

func validateVolumeSharing(p *problems, apps map[ID]*App, changed []ID) {
	concerned := map[string]bool{}
	isChanged := make(map[ID]bool, len(changed))
	for _, id := range changed {
		isChanged[id] = true
		for _, v := range apps[id].externals() {
			concerned[v.External.Name] = true
		}
	}
	if len(concerned) == 0 {
		return
	}
	uses := map[string][]volumeUse{}
	for id, a := range apps {
		for _, v := range a.externals() {
			if name := v.External.Name; concerned[name] {
				uses[name] = append(uses[name], volumeUse{id, !v.uniqueName()})
			}
		}
	}
	paths := treePaths{apps: apps}
	for _, name := range sortedKeys(uses) {
		users := uses[name]
		slices.SortFunc(users, func(a, b volumeUse) int { return strings.Compare(string(a.id), string(b.id)) })
		if !slices.ContainsFunc(users, func(u volumeUse) bool { return isChanged[u.id] }) {
			continue
		}
		for _, u := range users {
			if others := unsharedOthers(users, u.id); len(others) > 0 {
				p.addf(paths.of(u.id)+"/container", "Volume name '%s' in %s conflicts with volume(s) of same name in app(s): %s",
					name, u.id, strings.Join(others, ", "))
			}
		}
	}
}

// unsharedOthers are the other apps that do not declare the volume shared. An
// app may share a volume only with apps that say so too.
func unsharedOthers(users []volumeUse, id ID) []string {
	var out []string
	for _, u := range users {
		if u.id != id && !u.shared {
			out = append(out, string(u.id))
		}
	}
	return out
}

func (a *App) externals() []Volume {
	if a == nil {
		return nil
	}
	var out []Volume
	for _, i := range a.ExternalVolumes() {
		out = append(out, a.Container.Volumes[i])
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// treePaths renders where an app is in the tree of groups, as Marathon's
// messages do: "/groups(0)/apps(1)". Members are counted in the order of ids.
type treePaths struct{ apps map[ID]*App }

func (t treePaths) of(id ID) string {
	var b strings.Builder
	group := Root
	for _, seg := range id.Parent().segments() {
		child := ID(strings.TrimSuffix(string(group), "/") + "/" + seg)
		fmt.Fprintf(&b, "/groups(%d)", slices.Index(t.groups(group), child))
		group = child
	}
	fmt.Fprintf(&b, "/apps(%d)", slices.Index(t.members(group), id))
	return b.String()
}

// members are the apps directly in group, sorted.
func (t treePaths) members(group ID) []ID {
	var out []ID
	for id := range t.apps {
		if id.Parent() == group {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// groups are the groups directly in group, sorted.
func (t treePaths) groups(group ID) []ID {
	seen := map[ID]bool{}
	var out []ID
	for id := range t.apps {
		if !id.Within(group) {
			continue
		}
		for g := id.Parent(); g != group && g != Root; g = g.Parent() {
			if g.Parent() == group && !seen[g] {
				seen[g] = true
				out = append(out, g)
			}
		}
	}
	slices.Sort(out)
	return out
}

// validateDependencies looks for cycles through the changed apps. A dependency
// on a group is one on every app in it.
func validateDependencies(p *problems, apps map[ID]*App, changed []ID) {
	g := dependencyGraph{apps: apps, state: map[ID]visit{}, on: NewDependencyTargets(apps)}
	for _, id := range changed {
		if apps[id] != nil && g.cyclic(id) {
			p.add("/dependencies", "Dependency graph has cyclic dependencies.")
			return
		}
	}
}

type visit uint8

const (
	unseen visit = iota
	open
	done
)

type dependencyGraph struct {
	apps  map[ID]*App
	state map[ID]visit
	on    DependencyTargets
}

func (g *dependencyGraph) cyclic(id ID) bool {
	switch g.state[id] {
	case open:
		return true
	case done:
		return false
	}
	g.state[id] = open
	for _, dep := range g.apps[id].Dependencies {
		for _, next := range g.on.Of(id, dep) {
			if g.cyclic(next) {
				return true
			}
		}
	}
	g.state[id] = done
	return false
}
