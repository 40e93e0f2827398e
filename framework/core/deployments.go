package core

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

// The kinds of deployment actions (contract 1.5).
const (
	actionStart   = "StartApplication"
	actionStop    = "StopApplication"
	actionScale   = "ScaleApplication"
	actionRestart = "RestartApplication"
)

// planSteps orders a set of changes: apps that go are stopped, new ones are
// started without instances, then each level of dependencies is scaled or
// restarted after the one that it depends on. all are the definitions that are
// valid after the change; unfinished names what is left to do for an app whose
// definition asks for nothing new.
func planSteps(changes map[app.ID]appChange, all map[app.ID]*app.App, unfinished func(*app.App) string) ([][]Action, error) {
	levels, err := dependencyLevels(all, changes)
	if err != nil {
		return nil, err
	}
	var stops, starts []Action
	byLevel := map[int][]Action{}
	for _, id := range sortedKeys(changes) {
		ch := changes[id]
		switch {
		case ch.To == nil:
			stops = append(stops, Action{Kind: actionStop, App: id})
		case ch.From == nil:
			starts = append(starts, Action{Kind: actionStart, App: id})
			if ch.To.Instances > 0 {
				byLevel[levels[id]] = append(byLevel[levels[id]], Action{Kind: actionScale, App: id})
			}
		case configOf(ch.From) != configOf(ch.To):
			byLevel[levels[id]] = append(byLevel[levels[id]], Action{Kind: actionRestart, App: id})
		case ch.From.Instances != ch.To.Instances && unfinished(ch.To) != actionRestart:
			byLevel[levels[id]] = append(byLevel[levels[id]], Action{Kind: actionScale, App: id})
		default:
			if kind := unfinished(ch.To); kind != "" {
				byLevel[levels[id]] = append(byLevel[levels[id]], Action{Kind: kind, App: id})
			}
		}
	}
	var steps [][]Action
	for _, step := range [][]Action{stops, starts} {
		if len(step) > 0 {
			steps = append(steps, step)
		}
	}
	for _, level := range sortedKeys(byLevel) {
		steps = append(steps, byLevel[level])
	}
	return steps, nil
}

func sortedKeys[K int | app.ID | string, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// dependencyLevels returns for each app that exists after the changes how long the
// longest chain of dependencies below it is. A dependency on a group is one on all
// its apps.
func dependencyLevels(all map[app.ID]*app.App, changes map[app.ID]appChange) (map[app.ID]int, error) {
	on := app.NewDependencyTargets(all)
	levels := make(map[app.ID]int, len(changes))
	visiting := map[app.ID]bool{}
	var visit func(id app.ID) (int, error)
	visit = func(id app.ID) (int, error) {
		if level, done := levels[id]; done {
			return level, nil
		}
		if visiting[id] {
			return 0, &app.ValidationError{
				Message: "Object is not valid",
				Details: []app.Detail{{Path: "/", Errors: []string{"Dependency graph has cyclic dependencies."}}},
			}
		}
		visiting[id] = true
		defer delete(visiting, id)
		level := 0
		for _, dep := range all[id].Dependencies {
			for _, other := range on.Of(id, dep) {
				below, err := visit(other)
				if err != nil {
					return 0, err
				}
				level = max(level, below+1)
			}
		}
		levels[id] = level
		return level, nil
	}
	for _, id := range upserted(changes) {
		if _, err := visit(id); err != nil {
			return nil, err
		}
	}
	return levels, nil
}

// startDeployment stores a deployment of changes that are already applied to
// the definitions. Without steps nothing is stored: it has finished.
func (c *Core) startDeployment(tx *txn, version app.Timestamp, changes map[app.ID]appChange, steps [][]Action) (DeploymentRef, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return DeploymentRef{}, fmt.Errorf("make a deployment id: %w", err)
	}
	s := c.state
	s.meta.Sequence++
	tx.saveMeta()
	d := &deployment{ID: id.String(), Sequence: s.meta.Sequence, Version: version, Steps: steps, Changes: changes}
	tx.publish(deploymentInfo(tx.now, d))
	if len(steps) == 0 {
		tx.publish(deploymentEnded(tx.now, d, true, ""))
	} else {
		tx.saveDeployment(d)
	}
	for id := range changes {
		c.touch(id)
	}
	c.log.Info("deployment started", zap.String("deployment", d.ID), zap.Any("steps", steps))
	return DeploymentRef{ID: d.ID, Version: version}, nil
}

// advanceDeployments moves those of the named deployments on whose current step
// is done.
func (c *Core) advanceDeployments(tx *txn, ids map[string]bool) {
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		d := c.state.deployments[id]
		if d == nil || !c.stepDone(d) {
			continue
		}
		tx.publish(deploymentStep(tx.now, d))
		for _, a := range d.Steps[d.Current] {
			if a.Kind == actionStop {
				c.appGone(tx, a.App)
			}
		}
		d.Current++
		if d.Current < len(d.Steps) {
			tx.publish(deploymentInfo(tx.now, d))
			tx.saveDeployment(d)
			for id := range d.Changes {
				c.touch(id)
			}
			continue
		}
		c.log.Info("deployment finished", zap.String("deployment", d.ID))
		tx.publish(deploymentEnded(tx.now, d, true, ""))
		tx.removeDeployment(d)
		c.reclaimOrdinals(tx, d)
	}
}

func (c *Core) appGone(tx *txn, id app.ID) {
	if r := c.state.apps[id]; r != nil && len(r.App.Health) > 0 {
		tx.publish(newEvent("remove_health_check_event", tx.now, fields{"appId": id}))
	}
	tx.removeApp(id)
	tx.publish(appTerminated(tx.now, id))
	c.log.Info("app deleted", zap.String("app", string(id)))
}

func (c *Core) stepDone(d *deployment) bool {
	for _, a := range d.Steps[d.Current] {
		if !c.actionDone(d, a) {
			return false
		}
	}
	return true
}

func (c *Core) actionDone(d *deployment, a Action) bool {
	list := c.state.instancesOf(a.App)
	switch a.Kind {
	case actionStop:
		return len(list) == 0
	case actionStart:
		return true
	}
	def := d.Changes[a.App].To
	ready := 0
	for _, i := range list {
		switch {
		case i.Stop:
			return false
		case a.Kind == actionRestart && i.Config != configOf(def):
			return false
		case i.ready(def):
			ready++
		}
	}
	return ready == def.Instances && ready == c.reachable(list)
}

// reachable counts the instances that are not lost.
func (c *Core) reachable(list []*instance) int {
	n := 0
	for _, i := range list {
		if !i.lost() {
			n++
		}
	}
	return n
}

// Deployments implements Service.
func (c *Core) Deployments(ctx context.Context) ([]DeploymentView, error) {
	return look(ctx, c, func(tx *txn) (out []DeploymentView, err error) {
		for _, d := range c.state.sortedDeployments() {
			out = append(out, c.deploymentView(d))
		}
		return out, nil
	})
}

func (c *Core) deploymentView(d *deployment) DeploymentView {
	v := DeploymentView{ID: d.ID, Version: d.Version, Apps: sortedKeys(d.Changes), Current: d.Current + 1}
	for _, step := range d.Steps {
		v.Steps = append(v.Steps, slices.Clone(step))
	}
	for _, a := range d.Steps[d.Current] {
		v.Readiness = append(v.Readiness, c.readinessOf(a.App)...)
	}
	return v
}

// CancelDeployment implements Service. Without force the definitions from
// before the deployment are deployed again.
func (c *Core) CancelDeployment(ctx context.Context, id string, force bool) (*DeploymentRef, error) {
	return ask(ctx, c, func(tx *txn) (*DeploymentRef, error) {
		d := c.state.deployments[id]
		if d == nil {
			return nil, &NotFoundError{Message: fmt.Sprintf("DeploymentPlan %s does not exist", id)}
		}
		if force {
			c.cancel(tx, d, "canceled by force")
			return nil, nil
		}
		revert := Change{Force: true}
		configs := map[app.ID]app.Timestamp{}
		for _, id := range sortedKeys(d.Changes) {
			if from := d.Changes[id].From; from != nil {
				revert.Upsert = append(revert.Upsert, from)
				configs[id] = configOf(from)
			} else {
				revert.Delete = append(revert.Delete, id)
			}
		}
		started, err := c.change(tx, revert, configs)
		if err != nil {
			return nil, fmt.Errorf("revert deployment %s: %w", id, err)
		}
		return &started, nil
	})
}

// cancel stops a deployment where it is. What it stopped for deletion stays an
// app with the definition that it had.
func (c *Core) cancel(tx *txn, d *deployment, why string) {
	c.log.Info("deployment canceled", zap.String("deployment", d.ID), zap.String("why", why))
	tx.publish(deploymentEnded(tx.now, d, false, why))
	tx.removeDeployment(d)
}
