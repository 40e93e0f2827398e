package app

import (
	"maps"
	"math"
	"slices"
)

// GroupUpdate is a change to a group as a client sent it. Groups have no
// definition of their own here: a group is the apps whose ids lie below it, and
// a group's dependencies become those of its apps.
type GroupUpdate struct {
	opts     Options
	id       ID
	path     string // in the body, for messages
	apps     []*Update
	appPaths []string
	hasApps  bool
	groups   []*GroupUpdate
	hasGroup bool
	depends  []string // absolute ids, inherited by all apps below
	scaleBy  *float64
	rollback Timestamp
}

// ParseGroup reads the body of POST and PUT /v2/groups and /v2/groups/{id}. base
// is the group in the URL; the body's own id, if any, is relative to it. Errors
// are *SyntaxError and *ValidationError.
func ParseGroup(data []byte, base ID, opts Options) (*GroupUpdate, error) {
	v, err := decodeTree(data)
	if err != nil {
		return nil, err
	}
	return readGroup(v, "", base, nil, map[ID]bool{}, opts)
}

// readGroup reads a group at path of the body. defined are the apps that were read
// before it: groups may be nested, and ids are absolute as well as relative.
func readGroup(v any, path string, base ID, inherited []string, defined map[ID]bool, opts Options) (*GroupUpdate, error) {
	s := &shape{}
	o, ok := s.objectAt("", v)
	if !ok {
		return nil, within(path, s.err(msgShape))
	}
	g := &GroupUpdate{opts: opts, id: base, path: path, hasApps: o.has("apps"), hasGroup: o.has("groups")}
	name := o.pattern("id", idPattern)
	depends := o.paths("dependencies")
	apps, groups, pods := o.list("apps"), o.list("groups"), o.list("pods")
	if o.has("scaleBy") {
		f := o.num("scaleBy", 1, 0, math.MaxInt32)
		g.scaleBy = &f
	}
	version := o.str("version")
	enforce := o.boolean("enforceRole", opts.GroupRole)
	if err := s.err(msgShape); err != nil {
		return nil, within(path, err)
	}
	var p problems
	if len(pods) > 0 {
		p.add("/pods", "pods are not supported; define apps instead")
	}
	g.readID(&p, name, base)
	switch {
	case enforce && !opts.GroupRole:
		p.add("/enforceRole", "is not kept per group here; start the framework with --new_group_enforce_role=top, or set the role of each app")
	case !enforce && opts.GroupRole && o.has("enforceRole") && g.id != Root && g.id.Parent() == Root:
		p.add("/enforceRole", "is not kept per group here: the framework enforces it in all groups (--new_group_enforce_role=top)")
	}
	g.readAlone(&p, o, version)
	for i, dep := range depends {
		id, err := ResolveID(dep, g.id)
		if err != nil {
			p.add(indexed("/dependencies", i), err.Error())
		}
		g.depends = append(g.depends, string(id))
	}
	if err := p.err(msgInvalid); err != nil {
		return nil, within(path, err)
	}
	g.depends = unique(slices.Concat(inherited, g.depends))
	return g, g.readMembers(apps, groups, defined, opts)
}

func (g *GroupUpdate) readID(p *problems, name string, base ID) {
	if name == "" {
		return
	}
	id, err := ResolveID(name, base)
	switch {
	case err != nil:
		p.add("/id", err.Error())
	case !id.Within(base):
		p.addf("/id", "Identifier is not child of '%s'", base)
	}
	g.id = id
}

// readAlone holds that scaling and rolling back stand alone in their request.
func (g *GroupUpdate) readAlone(p *problems, o object, version string) {
	if version != "" {
		t, err := ParseTimestamp(version)
		if err != nil {
			p.add("/version", err.Error())
		}
		g.rollback = t
	}
	for _, key := range []string{"scaleBy", "version"} {
		if !o.has(key) {
			continue
		}
		for other := range o.fields {
			if other != key && other != "id" {
				p.add("/"+key, "not allowed in conjunction with other properties.")
				break
			}
		}
	}
}

func (g *GroupUpdate) readMembers(apps, groups []any, defined map[ID]bool, opts Options) error {
	opts.Base = g.id
	for i, v := range apps {
		path := indexed(g.path+"/apps", i)
		u, err := readUpdate(v, opts, true)
		if err != nil {
			return within(path, err)
		}
		if defined[u.id] {
			return within(path, invalidID("is defined twice"))
		}
		defined[u.id] = true
		if !u.id.Within(g.id) || u.id == g.id {
			return within(path, invalidID("Identifier is not child of '"+string(g.id)+"'"))
		}
		u.inherit(g.depends)
		g.apps = append(g.apps, u)
		g.appPaths = append(g.appPaths, path)
	}
	for i, v := range groups {
		path := indexed(g.path+"/groups", i)
		if m, ok := v.(map[string]any); ok && m["id"] == nil {
			return within(path, invalidID("not defined"))
		}
		sub, err := readGroup(v, path, g.id, g.depends, defined, opts)
		if err != nil {
			return err
		}
		g.groups = append(g.groups, sub)
	}
	return nil
}

func invalidID(message string) error {
	return &ValidationError{Message: msgInvalid, Details: []Detail{{Path: "/id", Errors: []string{message}}}}
}

// inherit adds dependencies of the enclosing groups.
func (u *Update) inherit(depends []string) {
	if len(depends) == 0 {
		return
	}
	u.fields = maps.Clone(u.fields)
	all := slices.Clone(asList(u.fields["dependencies"]))
	for _, d := range depends {
		all = append(all, d)
	}
	u.fields["dependencies"] = all
}

// ID is the absolute id of the group.
func (g *GroupUpdate) ID() ID { return g.id }

// Rollback returns the version to return to, if that is what the update asks
// for. Apply is not for such updates.
func (g *GroupUpdate) Rollback() (Timestamp, bool) { return g.rollback, !g.rollback.IsZero() }

// Apply returns which definitions the update sets and which apps it removes.
// apps are all current definitions. Where the update lists apps or groups, those
// of the group that are not listed are removed. Errors are *ValidationError.
func (g *GroupUpdate) Apply(apps map[ID]*App) (upsert []*App, remove []ID, err error) {
	if g.scaleBy != nil {
		upsert, err = g.scaled(apps)
		return upsert, nil, err
	}
	listed := map[ID]bool{}
	for i, u := range g.apps {
		next, err := u.Apply(u.id, apps[u.id], false)
		if err != nil {
			return nil, nil, within(g.appPaths[i], err)
		}
		listed[u.id] = true
		upsert = append(upsert, next)
	}
	for _, sub := range g.groups {
		u, r, err := sub.Apply(apps)
		if err != nil {
			return nil, nil, err
		}
		upsert, remove = append(upsert, u...), append(remove, r...)
	}
	for id := range apps {
		if g.drops(id) && !listed[id] {
			remove = append(remove, id)
		}
	}
	slices.Sort(remove)
	kept := make(map[ID]bool, len(upsert))
	for _, a := range upsert {
		kept[a.ID] = true
	}
	return upsert, slices.DeleteFunc(slices.Compact(remove), func(id ID) bool { return kept[id] }), nil
}

// drops says whether the update removes an app unless it lists it.
func (g *GroupUpdate) drops(id ID) bool {
	if !id.Within(g.id) || id == g.id {
		return false
	}
	if id.Parent() == g.id {
		return g.hasApps
	}
	if !g.hasGroup {
		return false
	}
	return !slices.ContainsFunc(g.groups, func(sub *GroupUpdate) bool { return id.Within(sub.id) })
}

// scaled multiplies the instances of every app of the group, rounding up.
func (g *GroupUpdate) scaled(apps map[ID]*App) ([]*App, error) {
	var out []*App
	for _, id := range slices.Sorted(maps.Keys(apps)) {
		if id == g.id || !id.Within(g.id) {
			continue
		}
		n := math.Ceil(float64(apps[id].Instances) * *g.scaleBy)
		if n > maxInstances {
			return nil, &ValidationError{Message: msgInvalid, Details: []Detail{{
				Path: "/scaleBy", Errors: []string{"makes too many instances of " + string(id)},
			}}}
		}
		u := Update{opts: g.opts, fields: map[string]any{"instances": number(int(n))}}
		next, err := u.Apply(id, apps[id], true)
		if err != nil {
			return nil, err
		}
		out = append(out, next)
	}
	return out, nil
}
