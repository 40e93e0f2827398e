package core

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

// Change implements Service.
func (c *Core) Change(ctx context.Context, ch Change) (DeploymentRef, error) {
	return ask(ctx, c, func(tx *txn) (DeploymentRef, error) { return c.change(tx, ch, nil) })
}

// Plan implements Service.
func (c *Core) Plan(ctx context.Context, ch Change) ([][]Action, error) {
	return look(ctx, c, func(tx *txn) ([][]Action, error) {
		p, err := c.plan(tx.now, ch, nil)
		return p.steps, err
	})
}

// change applies a set of changes as one deployment. All checks come before
// the first effect; configs is as for plan.
func (c *Core) change(tx *txn, ch Change, configs map[app.ID]app.Timestamp) (DeploymentRef, error) {
	p, err := c.plan(tx.now, ch, configs)
	if err != nil {
		return DeploymentRef{}, err
	}
	ref, err := c.deploy(tx, p.version, p.changes, p.steps, ch.Force)
	if err == nil && ch.Wipe {
		for _, id := range ch.Delete {
			c.wipeApp(tx, id)
		}
	}
	return ref, err
}

// plannedChange is what a Change comes to.
type plannedChange struct {
	version app.Timestamp
	changes map[app.ID]appChange
	steps   [][]Action
}

// plan checks a set of changes, but for locks, and returns what they come to. It
// has no effect. configs overrides the time of the last configuration change: apps
// that go back to an earlier configuration keep the instances that still run it.
func (c *Core) plan(now time.Time, ch Change, configs map[app.ID]app.Timestamp) (plannedChange, error) {
	if err := c.checkExistence(ch); err != nil {
		return plannedChange{}, err
	}
	version := c.nextVersion(now, ch)
	changes, err := c.versioned(ch, version, configs)
	if err != nil {
		return plannedChange{}, err
	}
	all := c.definitionsAfter(changes)
	if err := app.ValidateAll(all, upserted(changes)); err != nil {
		return plannedChange{}, err
	}
	if err := validateLabels(changes); err != nil {
		return plannedChange{}, err
	}
	steps, err := planSteps(changes, all, c.unfinished)
	if err != nil {
		return plannedChange{}, err
	}
	return plannedChange{version, changes, steps}, nil
}

// deploy stores changed definitions and starts their deployment, in place of
// those that lock the apps if that is forced.
func (c *Core) deploy(tx *txn, version app.Timestamp, changes map[app.ID]appChange, steps [][]Action, force bool) (DeploymentRef, error) {
	conflicts := c.conflicts(changes)
	if err := c.checkLocks(changes, conflicts, len(steps) > 0, force); err != nil {
		return DeploymentRef{}, err
	}
	for _, d := range conflicts {
		c.cancel(tx, d, "a newer deployment took its place by force")
	}
	for _, id := range sortedKeys(changes) {
		if to := changes[id].To; to != nil {
			c.storeDefinition(tx, to)
		}
	}
	return c.startDeployment(tx, version, changes, steps)
}

func (c *Core) checkExistence(ch Change) error {
	for _, a := range ch.Upsert {
		if ch.CreateOnly && c.state.apps[a.ID] != nil {
			return &ConflictError{Message: fmt.Sprintf("An app with id [%s] already exists.", a.ID)}
		}
	}
	for _, id := range ch.Delete {
		if c.state.apps[id] == nil {
			return appNotFound(id)
		}
	}
	for _, id := range sortedKeys(ch.Base) {
		var current app.Timestamp
		if r := c.state.apps[id]; r != nil {
			current = r.App.Version
		}
		if current != ch.Base[id] {
			return fmt.Errorf("change app %s: %w", id, ErrStale)
		}
	}
	return nil
}

func appNotFound(id app.ID) error {
	return &NotFoundError{Message: fmt.Sprintf("App '%s' does not exist", id)}
}

// nextVersion is the time now, or the next millisecond that no version of the
// affected apps has: versions are keys.
func (c *Core) nextVersion(now time.Time, ch Change) app.Timestamp {
	v := app.NewTimestamp(now)
	for _, a := range ch.Upsert {
		for _, known := range c.state.sortedVersions(a.ID)[:min(1, len(c.state.versions[a.ID]))] {
			if known.Compare(v) >= 0 {
				v = app.NewTimestamp(known.Time().Add(time.Millisecond))
			}
		}
	}
	return v
}

// versioned gives the new definitions their service ports and versions. A
// definition that changes nothing but the number of instances keeps the time
// of its last configuration change; one that changes nothing at all is left
// out.
func (c *Core) versioned(ch Change, version app.Timestamp, configs map[app.ID]app.Timestamp) (map[app.ID]appChange, error) {
	changes := map[app.ID]appChange{}
	for _, id := range ch.Delete {
		changes[id] = appChange{From: c.state.apps[id].App}
	}
	fresh := make([]*app.App, len(ch.Upsert))
	for i, a := range ch.Upsert {
		fresh[i] = withOwnPorts(a)
	}
	ports := app.NewServicePorts(c.definitionsAnd(fresh), c.cfg.ServicePorts)
	for i, a := range ch.Upsert {
		to := fresh[i]
		var from *app.App
		if r := c.state.apps[a.ID]; r != nil {
			from = r.App
		}
		if err := ports.Assign(to, from); err != nil {
			return nil, err
		}
		same := from != nil && from.SameConfig(to)
		if same && from.Instances == to.Instances && c.state.locks[a.ID] == nil && !c.state.outdated(from) {
			continue
		}
		to.Version = version
		to.VersionInfo = &app.VersionInfo{LastScalingAt: version, LastConfigChangeAt: version}
		if same {
			to.VersionInfo.LastConfigChangeAt = configOf(from)
		}
		if config, ok := configs[a.ID]; ok {
			to.VersionInfo.LastConfigChangeAt = config
		}
		changes[a.ID] = appChange{From: from, To: to}
	}
	return changes, nil
}

// definitionsAnd are all current definitions and more.
func (c *Core) definitionsAnd(more []*app.App) iter.Seq[*app.App] {
	return func(yield func(*app.App) bool) {
		for _, r := range c.state.apps {
			if !yield(r.App) {
				return
			}
		}
		for _, a := range more {
			if !yield(a) {
				return
			}
		}
	}
}

// outdated tells whether instances of other configurations than the
// definition's are left, as after a canceled deployment.
func (s *state) outdated(def *app.App) bool {
	return slices.ContainsFunc(s.instancesOf(def.ID), func(i *instance) bool {
		return !i.Stop && i.Config != configOf(def)
	})
}

// unfinished names the action that an earlier deployment of the app has not
// finished, empty if there is none: whoever takes its place finishes it.
func (c *Core) unfinished(to *app.App) string {
	switch {
	case c.state.outdated(to):
		return actionRestart
	case c.state.locks[to.ID] != nil:
		return actionScale
	default:
		return ""
	}
}

// withOwnPorts copies a definition so far that assigning service ports leaves
// the original as it is.
func withOwnPorts(a *app.App) *app.App {
	out := *a
	out.Ports = slices.Clone(a.Ports)
	if a.Container != nil {
		container := *a.Container
		container.PortMappings = slices.Clone(a.Container.PortMappings)
		out.Container = &container
	}
	return &out
}

// upserted lists the apps that exist after the changes.
func upserted(changes map[app.ID]appChange) []app.ID {
	var out []app.ID
	for _, id := range sortedKeys(changes) {
		if changes[id].To != nil {
			out = append(out, id)
		}
	}
	return out
}

// definitionsAfter returns all definitions as they are after the changes.
func (c *Core) definitionsAfter(changes map[app.ID]appChange) map[app.ID]*app.App {
	all := c.state.definitions()
	for id, ch := range changes {
		if ch.To == nil {
			delete(all, id)
		} else {
			all[id] = ch.To
		}
	}
	return all
}

// conflicts returns the running deployments that change one of the apps.
func (c *Core) conflicts(changes map[app.ID]appChange) []*deployment {
	var out []*deployment
	for _, id := range sortedKeys(changes) {
		if d := c.state.locks[id]; d != nil && !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	return out
}

func (c *Core) checkLocks(changes map[app.ID]appChange, conflicts []*deployment, needsDeployment, force bool) error {
	if len(conflicts) > 0 && !force {
		locked := &LockedError{}
		for _, d := range conflicts {
			locked.Deployments = append(locked.Deployments, d.ID)
		}
		for _, id := range sortedKeys(changes) {
			if c.state.locks[id] != nil {
				locked.App = id
				break
			}
		}
		return locked
	}
	if needsDeployment && len(c.state.deployments)-len(conflicts) >= c.cfg.MaxDeployments {
		return &TooManyDeploymentsError{Limit: c.cfg.MaxDeployments}
	}
	return nil
}

// storeDefinition makes a definition the app's current one.
func (c *Core) storeDefinition(tx *txn, a *app.App) {
	r := c.state.apps[a.ID]
	if r == nil {
		r = &appRecord{}
	}
	r.App = a
	for _, h := range a.Health {
		tx.publish(newEvent("add_health_check_event", tx.now, fields{"appId": a.ID, "version": a.Version, "healthCheck": h}))
	}
	tx.saveVersion(a)
	tx.saveApp(r)
	c.endLeftStrays(tx, a.ID)
}

// Restart implements Service.
func (c *Core) Restart(ctx context.Context, id app.ID, force bool) (DeploymentRef, error) {
	return ask(ctx, c, func(tx *txn) (ref DeploymentRef, err error) {
		r := c.state.apps[id]
		if r == nil {
			return ref, appNotFound(id)
		}
		version := c.nextVersion(tx.now, Change{Upsert: []*app.App{r.App}})
		to := *r.App
		to.Version = version
		to.VersionInfo = &app.VersionInfo{LastScalingAt: version, LastConfigChangeAt: version}
		changes := map[app.ID]appChange{id: {From: r.App, To: &to}}
		return c.deploy(tx, version, changes, [][]Action{{{Kind: actionRestart, App: id}}}, force)
	})
}
