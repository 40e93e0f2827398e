package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
)

// groupJSON is a group, made of the apps that lie below it.
type groupJSON struct {
	ID           app.ID        `json:"id"`
	Apps         *[]appJSON    `json:"apps,omitempty"`
	Pods         *[]string     `json:"pods,omitempty"`
	Groups       *[]groupJSON  `json:"groups,omitempty"`
	Dependencies []app.ID      `json:"dependencies"`
	Version      app.Timestamp `json:"version"`
	EnforceRole  bool          `json:"enforceRole"`
}

// groupEmbed says which members of a group an answer holds.
type groupEmbed struct {
	groups, apps, pods bool
	app                embed
}

func groupEmbedOf(r *http.Request) groupEmbed {
	e := groupEmbed{app: embed{}.add(r)}
	values := r.URL.Query()["embed"]
	if len(values) == 0 {
		e.groups, e.apps, e.pods = true, true, true
		return e
	}
	for _, v := range values {
		switch v {
		case "group.groups":
			e.groups = true
		case "group.apps":
			e.apps = true
		case "group.pods":
			e.pods = true
		}
	}
	if e.app != (embed{}) {
		e.apps = true
	}
	return e
}

func groupID(p params) (app.ID, error) {
	if p["id"] == "" {
		return app.Root, nil
	}
	return appID(p["id"])
}

// inGroup returns the apps below a group; a group without any does not exist,
// except the root.
func (s *server) inGroup(ctx context.Context, id app.ID) ([]core.AppView, error) {
	all, err := s.svc.Apps(ctx)
	if err != nil {
		return nil, err
	}
	apps := slices.DeleteFunc(slices.Clone(all), func(a core.AppView) bool { return a.App.ID == id || !a.App.ID.Within(id) })
	if len(apps) == 0 && id != app.Root {
		return nil, noGroup(id)
	}
	return apps, nil
}

func noGroup(id app.ID) error {
	return &core.NotFoundError{Message: "Group '" + string(id) + "' does not exist"}
}

func (s *server) getGroup(w http.ResponseWriter, r *http.Request, p params) error {
	id, err := groupID(p)
	if err != nil {
		return err
	}
	apps, err := s.inGroup(r.Context(), id)
	if err != nil {
		return err
	}
	e := groupEmbedOf(r)
	running, err := s.running(r.Context(), e.app)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, s.withRole(e.view(id, apps, running)))
}

// withRole tells of a top-level group whether its name is the role of the apps
// in it, as the operator has decided for all groups.
func (s *server) withRole(g groupJSON) groupJSON {
	g.EnforceRole = s.cfg.App.GroupRole && g.ID != app.Root && g.ID.Parent() == app.Root
	if g.Groups != nil && g.ID == app.Root {
		for i, child := range *g.Groups {
			(*g.Groups)[i] = s.withRole(child)
		}
	}
	return g
}

// patchGroup takes what Marathon lets clients change of a group by itself, its
// enforceRole. That is the operator's decision here: the value that it has
// already is accepted.
func (s *server) patchGroup(w http.ResponseWriter, r *http.Request, p params) error {
	id, err := groupID(p)
	if err != nil {
		return err
	}
	data, err := body(r)
	if err != nil {
		return err
	}
	if _, err := app.ParseGroup(data, id, s.cfg.App); err != nil {
		return err
	}
	var members map[string]any
	if err := json.Unmarshal(data, &members); err != nil {
		return &app.SyntaxError{Message: "Invalid JSON", Details: err.Error()}
	}
	for name := range members {
		if name != "enforceRole" {
			return &app.ValidationError{Message: "Object is not valid", Details: []app.Detail{{
				Path: "/" + name, Errors: []string{"can not be changed by PATCH; use PUT"}}}}
		}
	}
	return s.getGroup(w, r, p)
}

// view renders a group of which apps are all the apps below it.
func (e groupEmbed) view(id app.ID, apps []core.AppView, running []core.DeploymentView) groupJSON {
	g := groupJSON{ID: id, Dependencies: []app.ID{}, Version: newest(apps)}
	direct := []appJSON{}
	below := map[app.ID][]core.AppView{}
	for _, a := range apps {
		if a.App.ID.Parent() == id {
			direct = append(direct, e.app.view(a, running))
			continue
		}
		child := a.App.ID.Parent()
		for child.Parent() != id {
			child = child.Parent()
		}
		below[child] = append(below[child], a)
	}
	if e.apps {
		g.Apps = &direct
	}
	if e.pods {
		g.Pods = &[]string{}
	}
	if e.groups {
		groups := []groupJSON{}
		for _, child := range sorted(below) {
			groups = append(groups, e.view(child, below[child], running))
		}
		g.Groups = &groups
	}
	return g
}

func sorted[V any](m map[app.ID]V) []app.ID {
	ids := make([]app.ID, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// newest is the latest version of the apps; the epoch when there are none.
func newest(apps []core.AppView) app.Timestamp {
	v := epoch
	for _, a := range apps {
		if a.App.Version.Compare(v) > 0 {
			v = a.App.Version
		}
	}
	return v
}

func (s *server) appsOfGroup(w http.ResponseWriter, r *http.Request, p params) error {
	id, err := groupID(p)
	if err != nil {
		return err
	}
	if _, err := s.inGroup(r.Context(), id); err != nil {
		return err
	}
	views, err := s.appViews(r, embed{}.add(r), func(a *app.App) bool { return a.ID != id && a.ID.Within(id) })
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, views)
}

// groupVersions lists the versions of all apps of a group, newest first: each
// is a state that the group was in.
func (s *server) groupVersions(w http.ResponseWriter, r *http.Request, p params) error {
	id, err := groupID(p)
	if err != nil {
		return err
	}
	apps, err := s.inGroup(r.Context(), id)
	if err != nil {
		return err
	}
	versions := []app.Timestamp{}
	for _, a := range apps {
		v, err := s.svc.Versions(r.Context(), a.App.ID)
		if err != nil {
			return err
		}
		versions = append(versions, v...)
	}
	slices.SortFunc(versions, func(a, b app.Timestamp) int { return b.Compare(a) })
	return writeJSON(w, http.StatusOK, slices.Compact(versions))
}

// groupVersion shows a group as it was at a time: the definitions of the apps
// that still exist and did then. Of deleted apps nothing is kept.
func (s *server) groupVersion(w http.ResponseWriter, r *http.Request, p params) error {
	at, err := app.ParseTimestamp(p["version"])
	if err != nil {
		return err
	}
	id, err := groupID(p)
	if err != nil {
		return err
	}
	now, err := s.inGroup(r.Context(), id)
	if err != nil {
		return err
	}
	var then []core.AppView
	for _, a := range now {
		old, err := s.definitionAt(r.Context(), a, at)
		if err != nil {
			return err
		}
		if old != nil {
			then = append(then, core.AppView{App: old})
		}
	}
	if len(then) == 0 {
		return &core.NotFoundError{Message: fmt.Sprintf("Group '%s' does not exist in version %s", id, at)}
	}
	e := groupEmbedOf(r)
	e.app = embed{} // there is no run-time state of that time
	return writeJSON(w, http.StatusOK, s.withRole(e.view(id, then, nil)))
}

// definitionAt is an app's definition at a time, nil if it did not exist. The error
// is a *core.NotFoundError where that is not known any more.
func (s *server) definitionAt(ctx context.Context, a core.AppView, at app.Timestamp) (*app.App, error) {
	if at.Compare(a.KeptSince) < 0 {
		return nil, &core.NotFoundError{Message: fmt.Sprintf("App '%s' does not exist in version %s any more; versions are kept since %s", a.App.ID, at, a.KeptSince)}
	}
	versions, err := s.svc.Versions(ctx, a.App.ID)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(versions, func(v app.Timestamp) bool { return v.Compare(at) <= 0 })
	if i < 0 {
		return nil, nil
	}
	return s.svc.AppVersion(ctx, a.App.ID, versions[i])
}

func (s *server) createGroup(w http.ResponseWriter, r *http.Request, p params) error {
	return s.changeGroup(w, r, p, true)
}

func (s *server) putGroup(w http.ResponseWriter, r *http.Request, p params) error {
	return s.changeGroup(w, r, p, false)
}

func (s *server) changeGroup(w http.ResponseWriter, r *http.Request, p params, create bool) error {
	base, err := groupID(p)
	if err != nil {
		return err
	}
	data, err := body(r)
	if err != nil {
		return err
	}
	g, err := app.ParseGroup(data, base, s.cfg.App)
	if err != nil {
		return err
	}
	if create {
		if err := s.mustBeNew(r.Context(), g.ID()); err != nil {
			return err
		}
	}
	for attempt := 1; ; attempt++ {
		change, err := s.groupChange(r.Context(), g)
		if err != nil {
			return err
		}
		if flag(r, "dryRun", false) {
			steps, err := s.svc.Plan(r.Context(), change)
			if errors.Is(err, core.ErrStale) && attempt < maxAttempts {
				continue
			}
			if err != nil {
				return err
			}
			return writeJSON(w, http.StatusOK, map[string]any{"steps": stepViews(steps)})
		}
		change.Force = flag(r, "force", false)
		d, err := s.svc.Change(r.Context(), change)
		if errors.Is(err, core.ErrStale) && attempt < maxAttempts {
			continue
		}
		s.groupChanged(g.ID(), d, err)
		if err != nil {
			return err
		}
		s.audit(r, d)
		s.warnOfDeprecated(d, change.Upsert...)
		if create {
			w.Header().Set("Location", "/v2/groups"+string(g.ID()))
			return writeDeployment(w, http.StatusCreated, d)
		}
		return writeDeployment(w, http.StatusOK, d)
	}
}

func (s *server) mustBeNew(ctx context.Context, id app.ID) error {
	apps, err := s.svc.Apps(ctx)
	if err != nil {
		return err
	}
	for _, a := range apps {
		switch {
		case a.App.ID == id:
			return &core.ConflictError{Message: "An app with the path " + string(id) + " already exists."}
		case id != app.Root && a.App.ID.Within(id):
			return &core.ConflictError{Message: "Group " + string(id) + " is already created. Use PUT to change this group."}
		}
	}
	return nil
}

// groupChange derives the change of apps that a change of a group means.
func (s *server) groupChange(ctx context.Context, g *app.GroupUpdate) (core.Change, error) {
	views, err := s.svc.Apps(ctx)
	if err != nil {
		return core.Change{}, err
	}
	current := make(map[app.ID]*app.App, len(views))
	for _, v := range views {
		current[v.App.ID] = v.App
	}
	var change core.Change
	if version, ok := g.Rollback(); ok {
		change, err = s.groupAt(ctx, g.ID(), version, views)
	} else {
		change.Upsert, change.Delete, err = g.Apply(current)
	}
	if err != nil {
		return core.Change{}, err
	}
	change.Base = map[app.ID]app.Timestamp{}
	for _, a := range change.Upsert {
		if old := current[a.ID]; old != nil {
			change.Base[a.ID] = old.Version
		} else {
			change.Base[a.ID] = app.Timestamp{}
		}
	}
	return change, nil
}

// groupAt returns every app of a group to what it was at a time; apps that are
// younger are removed. A time when there was no app of the group is none that it can
// go back to: that would remove them all.
func (s *server) groupAt(ctx context.Context, id app.ID, at app.Timestamp, all []core.AppView) (core.Change, error) {
	var change core.Change
	found := false
	for _, member := range all {
		if member.App.ID == id || !member.App.ID.Within(id) {
			continue
		}
		found = true
		old, err := s.definitionAt(ctx, member, at)
		if err != nil {
			return change, err
		}
		if old == nil {
			change.Delete = append(change.Delete, member.App.ID)
			continue
		}
		next := *old
		next.Version, next.VersionInfo = app.Timestamp{}, nil
		change.Upsert = append(change.Upsert, &next)
	}
	switch {
	case !found:
		return change, noGroup(id)
	case len(change.Upsert) == 0:
		return change, &app.ValidationError{Message: fmt.Sprintf("Group %s not available in version %s", id, at)}
	}
	return change, nil
}

func (s *server) deleteGroup(w http.ResponseWriter, r *http.Request, p params) error {
	id, err := groupID(p)
	if err != nil {
		return err
	}
	apps, err := s.inGroup(r.Context(), id)
	if err != nil {
		return err
	}
	change := core.Change{Force: flag(r, "force", false)}
	for _, a := range apps {
		change.Delete = append(change.Delete, a.App.ID)
	}
	d, err := s.svc.Change(r.Context(), change)
	s.groupChanged(id, d, err)
	if err != nil {
		return err
	}
	s.audit(r, d)
	return writeDeployment(w, http.StatusOK, d)
}

type groupChangeEvent struct {
	Type      string        `json:"eventType"`
	Timestamp app.Timestamp `json:"timestamp"`
	Group     app.ID        `json:"groupId"`
	Version   app.Timestamp `json:"version"`
	Reason    string        `json:"reason,omitempty"`
}

// groupChanged tells listeners how a change of a group went.
func (s *server) groupChanged(id app.ID, d core.DeploymentRef, err error) {
	now := app.NewTimestamp(time.Now())
	ev := groupChangeEvent{Type: "group_change_success", Timestamp: now, Group: id, Version: d.Version}
	if err != nil {
		_, answer := problemOf(err)
		ev.Type, ev.Version, ev.Reason = "group_change_failed", now, answer.Message
	}
	s.svc.Publish(core.BusEvent{Type: ev.Type, Data: ev})
}
