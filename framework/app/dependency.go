package app

import "slices"

// DependencyTargets resolves dependencies among apps. Thousands of apps may depend on
// the same group: its members are looked for once. It is not safe for concurrent use,
// and for as long as the apps stay the same.
type DependencyTargets struct {
	apps    map[ID]*App
	members map[ID][]ID // of the groups that were asked for
}

// NewDependencyTargets resolves dependencies among these apps.
func NewDependencyTargets(apps map[ID]*App) DependencyTargets {
	return DependencyTargets{apps: apps, members: map[ID][]ID{}}
}

// Of is what a dependency of the app from is on: the app of that id, or the apps of
// the group without from itself.
func (t DependencyTargets) Of(from, dep ID) []ID {
	if t.apps[dep] != nil {
		return []ID{dep}
	}
	members, known := t.members[dep]
	if !known {
		for id := range t.apps {
			if id.Within(dep) {
				members = append(members, id)
			}
		}
		t.members[dep] = members
	}
	if !from.Within(dep) {
		return members
	}
	return slices.DeleteFunc(slices.Clone(members), func(id ID) bool { return id == from })
}
