package api

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// fakeCore is a core.Service in memory: definitions and their versions are real,
// tasks and deployments are what a test puts in.
type fakeCore struct {
	mu          sync.Mutex // guards all below
	clock       time.Time
	versions    map[app.ID][]*app.App // oldest first; none: the app does not exist
	tasks       map[app.ID][]core.TaskView
	failures    map[app.ID]*core.TaskFailure
	deployments []core.DeploymentView
	queue       []core.QueueView
	claims      []core.ClaimView
	persistent  []core.PersistentView
	removals    []core.RemovalView
	bound       []core.BoundView
	leftovers   []core.LeftoverView
	changes     []core.Change
	kills       []core.Kill
	stale       int    // how many changes to refuse as stale
	pruned      app.ID // of it only the latest versions are kept
	err         error
	subscribers []chan core.BusEvent
	published   []core.BusEvent
}

func newFake() *fakeCore {
	return &fakeCore{
		clock:    time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		versions: map[app.ID][]*app.App{}, tasks: map[app.ID][]core.TaskView{}, failures: map[app.ID]*core.TaskFailure{},
	}
}

func (f *fakeCore) Info() core.Info {
	return core.Info{FrameworkID: "fw-1", Elected: true, Leader: "host:8080", Master: "master:5050", Connected: true}
}

func (f *fakeCore) current() map[app.ID]*app.App {
	out := map[app.ID]*app.App{}
	for id, v := range f.versions {
		out[id] = v[len(v)-1]
	}
	return out
}

func (f *fakeCore) view(a *app.App) core.AppView {
	v := core.AppView{App: a, Tasks: f.tasks[a.ID], LastFailure: f.failures[a.ID], Running: len(f.tasks[a.ID])}
	if a.ID == f.pruned {
		v.KeptSince = a.Version
	}
	for _, d := range f.deployments {
		if slices.Contains(d.Apps, a.ID) {
			v.Deployments = append(v.Deployments, d.ID)
		}
	}
	return v
}

func (f *fakeCore) Apps(context.Context) ([]core.AppView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []core.AppView
	current := f.current()
	for _, id := range sorted(current) {
		out = append(out, f.view(current[id]))
	}
	return out, f.err
}

func missing(id app.ID) error {
	return &core.NotFoundError{Message: fmt.Sprintf("App '%s' does not exist", id)}
}

func (f *fakeCore) App(_ context.Context, id app.ID) (core.AppView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := f.current()[id]
	if a == nil {
		return core.AppView{}, missing(id)
	}
	return f.view(a), nil
}

func (f *fakeCore) Versions(_ context.Context, id app.ID) ([]app.Timestamp, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []app.Timestamp
	for _, a := range f.versions[id] {
		out = append([]app.Timestamp{a.Version}, out...)
	}
	if out == nil {
		return nil, missing(id)
	}
	return out, nil
}

func (f *fakeCore) AppVersion(_ context.Context, id app.ID, v app.Timestamp) (*app.App, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.versions[id] {
		if a.Version == v {
			return a, nil
		}
	}
	return nil, &core.NotFoundError{Message: fmt.Sprintf("App '%s' does not exist in version %s", id, v)}
}

func (f *fakeCore) Change(_ context.Context, c core.Change) (core.DeploymentRef, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stale > 0 {
		f.stale--
		return core.DeploymentRef{}, core.ErrStale
	}
	if err := f.check(c); err != nil {
		return core.DeploymentRef{}, err
	}
	f.clock = f.clock.Add(time.Second)
	version := app.NewTimestamp(f.clock)
	f.changes = append(f.changes, c)
	for _, a := range c.Upsert {
		a := *a
		a.Version = version
		a.VersionInfo = &app.VersionInfo{LastScalingAt: version, LastConfigChangeAt: version}
		f.versions[a.ID] = append(f.versions[a.ID], &a)
	}
	for _, id := range c.Delete {
		delete(f.versions, id)
	}
	return core.DeploymentRef{ID: fmt.Sprintf("deployment-%d", len(f.changes)), Version: version}, nil
}

// Plan is simpler than the core's: what is changed is restarted.
func (f *fakeCore) Plan(_ context.Context, c core.Change) ([][]core.Action, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stale > 0 {
		f.stale--
		return nil, core.ErrStale
	}
	c.Force = true
	if err := f.check(c); err != nil {
		return nil, err
	}
	var steps [][]core.Action
	for _, id := range c.Delete {
		steps = append(steps, []core.Action{{Kind: "StopApplication", App: id}})
	}
	for _, a := range c.Upsert {
		steps = append(steps, []core.Action{{Kind: "RestartApplication", App: a.ID}})
	}
	return steps, nil
}

func (f *fakeCore) check(c core.Change) error {
	all := f.current()
	var ids []app.ID
	ports := app.NewServicePorts(slices.Values(slices.AppendSeq(slices.Clone(c.Upsert), maps.Values(all))), app.DefaultPortRange)
	for _, a := range c.Upsert {
		if c.CreateOnly && all[a.ID] != nil {
			return &core.ConflictError{Message: fmt.Sprintf("An app with id [%s] already exists.", a.ID)}
		}
		if err := ports.Assign(a, all[a.ID]); err != nil {
			return err
		}
		ids = append(ids, a.ID)
	}
	for _, id := range c.Delete {
		if all[id] == nil {
			return missing(id)
		}
		ids = append(ids, id)
		delete(all, id)
	}
	for _, a := range c.Upsert {
		all[a.ID] = a
	}
	if err := app.ValidateAll(all, ids); err != nil {
		return err
	}
	for _, d := range f.deployments {
		for _, id := range ids {
			if slices.Contains(d.Apps, id) && !c.Force {
				return &core.LockedError{App: id, Deployments: []string{d.ID}}
			}
		}
	}
	return f.err
}

func (f *fakeCore) Restart(ctx context.Context, id app.ID, force bool) (core.DeploymentRef, error) {
	v, err := f.App(ctx, id)
	if err != nil {
		return core.DeploymentRef{}, err
	}
	return f.Change(ctx, core.Change{Upsert: []*app.App{v.App}, Force: force})
}

func (f *fakeCore) KillTasks(_ context.Context, k core.Kill) ([]core.TaskView, *core.DeploymentRef, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if k.App != "" && f.versions[k.App] == nil {
		return nil, nil, missing(k.App)
	}
	f.kills = append(f.kills, k)
	var out []core.TaskView
	for id, tasks := range f.tasks {
		for _, t := range tasks {
			if (k.App == "" || k.App == id) && (len(k.TaskIDs) == 0 || slices.Contains(k.TaskIDs, t.ID)) && (k.Host == "" || k.Host == t.Host) {
				out = append(out, t)
			}
		}
	}
	slices.SortFunc(out, func(a, b core.TaskView) int { return strings.Compare(a.ID, b.ID) })
	if k.Scale && len(out) > 0 {
		return nil, &core.DeploymentRef{ID: "scale-1", Version: app.NewTimestamp(f.clock)}, nil
	}
	return out, nil, nil
}

func (f *fakeCore) Deployments(context.Context) ([]core.DeploymentView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.deployments), nil
}

func (f *fakeCore) CancelDeployment(_ context.Context, id string, force bool) (*core.DeploymentRef, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.deployments, func(d core.DeploymentView) bool { return d.ID == id })
	if i < 0 {
		return nil, &core.NotFoundError{Message: "DeploymentPlan " + id + " does not exist"}
	}
	f.deployments = slices.Delete(f.deployments, i, i+1)
	if force {
		return nil, nil
	}
	return &core.DeploymentRef{ID: "revert-1", Version: app.NewTimestamp(f.clock)}, nil
}

func (f *fakeCore) Queue(context.Context) ([]core.QueueView, error) { return f.queue, nil }

func (f *fakeCore) ResetDelay(_ context.Context, id app.ID) error {
	for _, q := range f.queue {
		if q.App.ID == id {
			return nil
		}
	}
	return &core.NotFoundError{Message: fmt.Sprintf("Application %s not found in tasks queue.", id)}
}

func (f *fakeCore) Claims(context.Context) ([]core.ClaimView, error) { return f.claims, nil }

func (f *fakeCore) PersistentVolumes(context.Context) ([]core.PersistentView, error) {
	return f.persistent, nil
}

func (f *fakeCore) ReleaseClaim(_ context.Context, key scheduler.VolumeKey, _ bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.claims)
	f.claims = slices.DeleteFunc(f.claims, func(c core.ClaimView) bool { return c.Claim.Key == key })
	if n == len(f.claims) {
		return &core.NotFoundError{Message: fmt.Sprintf("Nobody claims volume %s of driver %s", key.Name, key.Driver)}
	}
	return nil
}

func (f *fakeCore) Bound(context.Context) ([]core.BoundView, error) { return f.bound, nil }

func (f *fakeCore) Leftovers(context.Context) ([]core.LeftoverView, error) { return f.leftovers, nil }

func (f *fakeCore) Removals(context.Context) ([]core.RemovalView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.removals), nil
}

func (f *fakeCore) KeepVolume(_ context.Context, key scheduler.VolumeKey) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.removals)
	f.removals = slices.DeleteFunc(f.removals, func(r core.RemovalView) bool { return r.Key == key })
	if n == len(f.removals) {
		return &core.NotFoundError{Message: "Volume '" + key.Name + "' is not to be removed"}
	}
	return nil
}

func (f *fakeCore) ClaimUsed(_ context.Context, key scheduler.VolumeKey, use core.Use) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.claims {
		if c.Claim.Key == key && c.Claim.AgentID != use.AgentID {
			return &core.ConflictError{Message: "claimed elsewhere"}
		}
	}
	f.claims = append(f.claims, core.ClaimView{Apps: []app.ID{use.App},
		Claim: scheduler.Claim{Key: key, AgentID: use.AgentID, Hostname: use.Hostname, State: scheduler.Releasing}})
	return nil
}

func (f *fakeCore) Subscribe(ctx context.Context, buffer int) <-chan core.BusEvent {
	ch := make(chan core.BusEvent, buffer)
	f.mu.Lock()
	f.subscribers = append(f.subscribers, ch)
	f.mu.Unlock()
	context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.drop(ch)
	})
	return ch
}

// drop needs mu.
func (f *fakeCore) drop(ch chan core.BusEvent) {
	if i := slices.Index(f.subscribers, ch); i >= 0 {
		f.subscribers = slices.Delete(f.subscribers, i, i+1)
		close(ch)
	}
}

func (f *fakeCore) Publish(ev core.BusEvent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.published = append(f.published, ev)
	for _, ch := range slices.Clone(f.subscribers) {
		select {
		case ch <- ev:
		default:
			f.drop(ch)
		}
	}
}

func (f *fakeCore) listeners() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.subscribers)
}
