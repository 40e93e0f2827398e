package api

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
)

// maxAttempts bounds how often an update is derived again because another
// request changed the app meanwhile.
const maxAttempts = 10

// appID makes the id of the part of a path that names an app or group.
func appID(s string) (app.ID, error) {
	id, err := app.ResolveID(s, app.Root)
	if err != nil {
		return "", &app.ValidationError{
			Message: "Object is not valid",
			Details: []app.Detail{{Path: "/id", Errors: []string{err.Error()}}},
		}
	}
	return id, nil
}

// knownID is appID for requests about an app that has to exist: no app has an
// id that breaks the grammar.
func knownID(p params) (app.ID, error) {
	id, err := appID(p["id"])
	if err != nil {
		return "", &core.NotFoundError{Message: "App '/" + p["id"] + "' does not exist"}
	}
	return id, nil
}

// running returns the deployments if the embedding needs them.
func (s *server) running(ctx context.Context, e embed) ([]core.DeploymentView, error) {
	if !e.readiness {
		return nil, nil
	}
	return s.svc.Deployments(ctx)
}

func (s *server) listApps(w http.ResponseWriter, r *http.Request, _ params) error {
	q := r.URL.Query()
	want := func(*app.App) bool { return true }
	if text := q.Get("label"); text != "" {
		sel, err := parseSelector(text)
		if err != nil {
			return err
		}
		want = func(a *app.App) bool { return sel.matches(a.Labels) }
	}
	cmd, id := strings.ToLower(q.Get("cmd")), strings.ToLower(q.Get("id"))
	views, err := s.appViews(r, embed{counts: true, deployments: true}.add(r), func(a *app.App) bool {
		return strings.Contains(strings.ToLower(a.Cmd), cmd) && strings.Contains(string(a.ID), id) && want(a)
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"apps": views})
}

func (s *server) appViews(r *http.Request, e embed, want func(*app.App) bool) ([]appJSON, error) {
	apps, err := s.svc.Apps(r.Context())
	if err != nil {
		return nil, err
	}
	running, err := s.running(r.Context(), e)
	if err != nil {
		return nil, err
	}
	views := []appJSON{}
	for _, a := range apps {
		if want(a.App) {
			views = append(views, e.view(a, running))
		}
	}
	return views, nil
}

func (s *server) groupApps(w http.ResponseWriter, r *http.Request, p params) error {
	group, err := groupID(p)
	if err != nil {
		return err
	}
	if _, err := s.inGroup(r.Context(), group); err != nil {
		return err
	}
	views, err := s.appViews(r, embed{counts: true, deployments: true}.add(r), func(a *app.App) bool {
		return a.ID != group && a.ID.Within(group)
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"*": views})
}

func (s *server) getApp(w http.ResponseWriter, r *http.Request, p params) error {
	id, err := knownID(p)
	if err != nil {
		return err
	}
	a, err := s.svc.App(r.Context(), id)
	if err != nil {
		return err
	}
	e := embed{counts: true, tasks: true, lastFailure: true, deployments: true}.add(r)
	running, err := s.running(r.Context(), e)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"app": e.view(a, running)})
}

func (s *server) createApp(w http.ResponseWriter, r *http.Request, _ params) error {
	data, err := body(r)
	if err != nil {
		return err
	}
	a, err := app.Parse(data, s.cfg.App)
	if err != nil {
		return err
	}
	d, err := s.svc.Change(r.Context(), core.Change{Upsert: []*app.App{a}, CreateOnly: true, Force: flag(r, "force", false)})
	if err != nil {
		return err
	}
	s.audit(r, d)
	s.warnOfDeprecated(d, a)
	a = s.asStored(r.Context(), a, d)
	s.posted(r, d, a)
	w.Header().Set("Location", "/v2/apps"+string(a.ID))
	w.Header().Set("Marathon-Deployment-Id", d.ID)
	created := core.AppView{App: a, Deployments: []string{d.ID}}
	e := embed{counts: true, deployments: true, tasks: true}
	return writeJSON(w, http.StatusCreated, e.view(created, nil))
}

// asStored returns the definition as the core stored it, with the version and
// service ports that it got.
func (s *server) asStored(ctx context.Context, a *app.App, d core.DeploymentRef) *app.App {
	if stored, err := s.svc.AppVersion(ctx, a.ID, d.Version); err == nil {
		return stored
	}
	// Deleted again already: what was asked for is the best answer left.
	c := *a
	c.Version = d.Version
	return &c
}

// posted tells listeners of /v2/events that a client changed one app.
func (s *server) posted(r *http.Request, d core.DeploymentRef, a *app.App) {
	s.svc.Publish(core.BusEvent{Type: "api_post_event", Data: apiPostEvent{
		Type: "api_post_event", Timestamp: d.Version, ClientIP: clientIP(r), URI: r.URL.Path,
		Definition: a,
	}})
}

// warnOfDeprecated tells listeners, and the log, of accepted definitions that use
// what is deprecated. Marathon has no such event.
func (s *server) warnOfDeprecated(d core.DeploymentRef, apps ...*app.App) {
	for _, a := range apps {
		for _, text := range a.Deprecations() {
			s.log.Warn("deprecated definition", zap.String("app", string(a.ID)), zap.String("what", text))
			s.svc.Publish(core.BusEvent{Type: "deprecation_event", Extension: true,
				Data: deprecationEvent{"deprecation_event", d.Version, a.ID, text}})
		}
	}
}

type deprecationEvent struct {
	Type      string        `json:"eventType"`
	Timestamp app.Timestamp `json:"timestamp"`
	App       app.ID        `json:"appId"`
	Message   string        `json:"message"`
}

type apiPostEvent struct {
	Type       string        `json:"eventType"`
	Timestamp  app.Timestamp `json:"timestamp"`
	ClientIP   string        `json:"clientIp"`
	URI        string        `json:"uri"`
	Definition *app.App      `json:"appDefinition"`
}

func (s *server) putApp(w http.ResponseWriter, r *http.Request, p params) error {
	return s.updateOne(w, r, p, flag(r, "partialUpdate", true), true)
}

func (s *server) patchApp(w http.ResponseWriter, r *http.Request, p params) error {
	return s.updateOne(w, r, p, true, false)
}

func (s *server) updateOne(w http.ResponseWriter, r *http.Request, p params, partial, create bool) error {
	id, err := appID(p["id"])
	if err != nil {
		return err
	}
	data, err := body(r)
	if err != nil {
		return err
	}
	u, err := app.ParseUpdate(data, s.cfg.App)
	if err != nil {
		return err
	}
	out, err := s.update(r, []target{{id, u}}, partial, create)
	if err != nil {
		return err
	}
	s.posted(r, out.ref, s.asStored(r.Context(), out.apps[0], out.ref))
	if out.created {
		w.Header().Set("Location", "/v2/apps"+string(id))
		return writeDeployment(w, http.StatusCreated, out.ref)
	}
	return writeDeployment(w, http.StatusOK, out.ref)
}

func (s *server) putApps(w http.ResponseWriter, r *http.Request, _ params) error {
	return s.updateMany(w, r, flag(r, "partialUpdate", true), true)
}

func (s *server) patchApps(w http.ResponseWriter, r *http.Request, _ params) error {
	return s.updateMany(w, r, true, false)
}

func (s *server) updateMany(w http.ResponseWriter, r *http.Request, partial, create bool) error {
	data, err := body(r)
	if err != nil {
		return err
	}
	updates, err := app.ParseUpdates(data, s.cfg.App)
	if err != nil {
		return err
	}
	targets := make([]target, 0, len(updates))
	for _, u := range updates {
		targets = append(targets, target{u.ID(), u})
	}
	out, err := s.update(r, targets, partial, create)
	if err != nil {
		return err
	}
	return writeDeployment(w, http.StatusOK, out.ref)
}

// target is an app and what to do to it.
type target struct {
	id     app.ID
	update *app.Update
}

// updated is the outcome of an update.
type updated struct {
	ref     core.DeploymentRef
	apps    []*app.App
	created bool // at least one app is new
}

// update applies the updates as one change. It derives them again when another
// request was faster, so that no update is lost.
func (s *server) update(r *http.Request, targets []target, partial, create bool) (updated, error) {
	for attempt := 1; ; attempt++ {
		out, change, err := s.derive(r.Context(), targets, partial, create)
		if err != nil {
			return updated{}, err
		}
		change.Force = flag(r, "force", false)
		out.ref, err = s.svc.Change(r.Context(), change)
		if errors.Is(err, core.ErrStale) && attempt < maxAttempts {
			continue
		}
		if err != nil {
			return updated{}, err
		}
		s.audit(r, out.ref)
		s.warnOfDeprecated(out.ref, out.apps...)
		return out, nil
	}
}

// derive makes the new definitions from the current ones.
func (s *server) derive(ctx context.Context, targets []target, partial, create bool) (updated, core.Change, error) {
	var out updated
	change := core.Change{Base: map[app.ID]app.Timestamp{}}
	for _, t := range targets {
		stored, err := s.stored(ctx, t.id)
		if err != nil {
			return out, change, err
		}
		if stored == nil {
			if _, rollback := t.update.Rollback(); rollback || !create {
				return out, change, &core.NotFoundError{Message: "App '" + string(t.id) + "' does not exist"}
			}
			out.created = true
			change.Base[t.id] = app.Timestamp{}
		} else {
			change.Base[t.id] = stored.Version
		}
		next, err := s.next(ctx, t, stored, partial)
		if err != nil {
			return out, change, err
		}
		out.apps = append(out.apps, next)
	}
	change.Upsert = out.apps
	return out, change, nil
}

// stored returns the current definition, nil if there is none.
func (s *server) stored(ctx context.Context, id app.ID) (*app.App, error) {
	v, err := s.svc.App(ctx, id)
	var missing *core.NotFoundError
	if errors.As(err, &missing) {
		return nil, nil
	}
	return v.App, err
}

func (s *server) next(ctx context.Context, t target, stored *app.App, partial bool) (*app.App, error) {
	version, rollback := t.update.Rollback()
	if !rollback {
		return t.update.Apply(t.id, stored, partial)
	}
	old, err := s.svc.AppVersion(ctx, t.id, version)
	if err != nil {
		return nil, err
	}
	next := *old
	next.Version, next.VersionInfo = app.Timestamp{}, nil
	return &next, nil
}

func (s *server) deleteApp(w http.ResponseWriter, r *http.Request, p params) error {
	id, err := knownID(p)
	if err != nil {
		return err
	}
	d, err := s.svc.Change(r.Context(), core.Change{
		Delete: []app.ID{id}, Force: flag(r, "force", true), Wipe: flag(r, "wipe", false),
	})
	if err != nil {
		return err
	}
	s.audit(r, d)
	return writeDeployment(w, http.StatusOK, d)
}

func (s *server) restartApp(w http.ResponseWriter, r *http.Request, p params) error {
	id, err := knownID(p)
	if err != nil {
		return err
	}
	d, err := s.svc.Restart(r.Context(), id, flag(r, "force", false))
	if err != nil {
		return err
	}
	s.audit(r, d)
	return writeDeployment(w, http.StatusOK, d)
}

func (s *server) appVersions(w http.ResponseWriter, r *http.Request, p params) error {
	id, err := knownID(p)
	if err != nil {
		return err
	}
	versions, err := s.svc.Versions(r.Context(), id)
	if err != nil {
		return err
	}
	if versions == nil {
		versions = []app.Timestamp{}
	}
	return writeJSON(w, http.StatusOK, map[string]any{"versions": versions})
}

func (s *server) appVersion(w http.ResponseWriter, r *http.Request, p params) error {
	version, err := app.ParseTimestamp(p["version"])
	if err != nil {
		return err
	}
	id, err := knownID(p)
	if err != nil {
		return err
	}
	a, err := s.svc.AppVersion(r.Context(), id, version)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, a)
}
