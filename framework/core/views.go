package core

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// Apps implements Service.
func (c *Core) Apps(ctx context.Context) ([]AppView, error) {
	return look(ctx, c, func(tx *txn) (out []AppView, err error) {
		for _, id := range c.state.appIDs() {
			out = append(out, c.appView(c.state.apps[id]))
		}
		return out, nil
	})
}

// App implements Service. It does not wait for the core's goroutine where the
// app was asked for lately.
func (c *Core) App(ctx context.Context, id app.ID) (AppView, error) {
	if v, ok := c.board.get(id); ok {
		return v, nil
	}
	return look(ctx, c, func(tx *txn) (out AppView, err error) {
		r := c.state.apps[id]
		if r == nil {
			return out, appNotFound(id)
		}
		out = c.appView(r)
		c.board.put(id, out, tx.now.UnixNano())
		return out, nil
	})
}

func (c *Core) appView(r *appRecord) AppView {
	v := AppView{App: r.App}
	if limit := c.cfg.MaxVersions; len(c.state.versions[r.App.ID]) >= limit {
		v.KeptSince = c.state.sortedVersions(r.App.ID)[limit-1]
	}
	if r.LastFailure != nil {
		failure := *r.LastFailure
		v.LastFailure = &failure
	}
	if d := c.state.locks[r.App.ID]; d != nil {
		v.Deployments = []string{d.ID}
	}
	for _, i := range c.state.instancesOf(r.App.ID) {
		if i.Task == nil && i.Reserved == nil {
			continue
		}
		v.Tasks = append(v.Tasks, c.taskView(i))
		if i.Task != nil {
			v.count(i, c.state.definition(i))
		}
	}
	for _, i := range c.state.parkedOf(r.App.ID) {
		v.Tasks = append(v.Tasks, c.taskView(i))
	}
	return v
}

// count adds an instance to the numbers that Marathon shows (contract 5.3).
func (v *AppView) count(i *instance, def *app.App) {
	switch {
	case i.Phase == launching, i.Task.State == taskStaging:
		v.Staged++
	case i.Task.State == taskRunning:
		v.Running++
	}
	if def == nil {
		return
	}
	switch i.healthVerdict(def) {
	case allAlive:
		v.Healthy++
	case someDead:
		v.Unhealthy++
	}
}

func (c *Core) taskView(i *instance) TaskView {
	t := i.Task
	if t == nil {
		return i.reservedView()
	}
	v := TaskView{
		ID: t.ID, InstanceID: i.ID, AppID: i.App, Host: t.Hostname, AgentID: t.AgentID, State: t.State,
		StagedAt: t.StagedAt, StartedAt: t.StartedAt, Version: i.Version,
		Ports: slices.Clone(t.Ports), IPs: slices.Clone(t.IPs), Check: t.Check,
		Region: t.Region, Zone: t.Zone, Role: t.Role, Local: i.localViews(),
	}
	for _, n := range slices.Sorted(maps.Keys(t.Health)) {
		v.Health = append(v.Health, *t.Health[n])
	}
	return v
}

func (c *Core) readinessOf(id app.ID) []ReadinessView {
	var out []ReadinessView
	for _, i := range c.state.instancesOf(id) {
		def := c.state.definition(i)
		if def == nil || len(def.Readiness) == 0 || !i.running() {
			continue
		}
		last := c.readiness[i.Task.ID]
		out = append(out, ReadinessView{
			AppID: id, Name: def.Readiness[0].Name, TaskID: i.Task.ID, Ready: i.Task.Ready,
			LastStatus: last.Status, LastType: last.ContentType, LastBody: last.Body,
		})
	}
	return out
}

// Versions implements Service.
func (c *Core) Versions(ctx context.Context, id app.ID) ([]app.Timestamp, error) {
	return look(ctx, c, func(tx *txn) (out []app.Timestamp, err error) {
		if c.state.apps[id] == nil {
			return out, appNotFound(id)
		}
		out = c.state.sortedVersions(id)
		return out, nil
	})
}

// AppVersion implements Service.
func (c *Core) AppVersion(ctx context.Context, id app.ID, v app.Timestamp) (*app.App, error) {
	return look(ctx, c, func(tx *txn) (out *app.App, err error) {
		if c.state.apps[id] == nil {
			return out, appNotFound(id)
		}
		out = c.state.versions[id][v]
		if out == nil {
			return out, &NotFoundError{Message: fmt.Sprintf("App '%s' does not exist in version %s", id, v)}
		}
		return out, nil
	})
}

// KillTasks implements Service. It returns the tasks as they were before.
func (c *Core) KillTasks(ctx context.Context, k Kill) ([]TaskView, *DeploymentRef, error) {
	type killed struct {
		tasks []TaskView
		ref   *DeploymentRef
	}
	out, err := ask(ctx, c, func(tx *txn) (out killed, err error) {
		list, err := c.selected(k)
		if err != nil {
			return out, err
		}
		for _, i := range list {
			out.tasks = append(out.tasks, c.taskView(i))
		}
		if len(list) > 0 && k.Scale {
			out.ref, err = c.killAndScale(tx, list, k.Force)
			return out, err
		}
		if k.Wipe {
			c.reclaimWiped(tx, list)
		}
		for _, i := range list {
			c.killByUser(tx, i, k.Wipe)
		}
		return out, nil
	})
	return out.tasks, out.ref, err
}

// selected returns the instances that a kill names. Unknown task ids are
// skipped.
func (c *Core) selected(k Kill) ([]*instance, error) {
	if k.App != "" && c.state.apps[k.App] == nil {
		return nil, appNotFound(k.App)
	}
	list := c.state.allInstances()
	return slices.DeleteFunc(list, func(i *instance) bool {
		return i.Task == nil && (!k.Wipe || i.Reserved == nil) || i.Forgotten ||
			k.App != "" && i.App != k.App ||
			k.Host != "" && k.Host != "*" && i.hostname() != k.Host ||
			len(k.TaskIDs) > 0 && !slices.Contains(k.TaskIDs, i.taskID()) ||
			len(k.TaskIDs) == 0 && k.App == ""
	}), nil
}

// killByUser stops a task; its instance is launched again, after a wipe as a
// new one. A lost task cannot be killed: it is when its agent returns.
func (c *Core) killByUser(tx *txn, i *instance, wipe bool) {
	if wipe {
		i.Stop, i.Wipe = true, i.Reserved != nil
	}
	if i.Task == nil {
		c.park(tx, i)
		return
	}
	if i.lost() {
		if !c.state.holdsVolume(i) {
			c.giveUp(tx, i)
			return
		}
		i.Task.KillWhy = "killed by the user"
		tx.saveInstance(i)
		return
	}
	c.kill(tx, i, "killed by the user")
}

// killAndScale stops the named tasks for good and lowers their apps' instances.
func (c *Core) killAndScale(tx *txn, list []*instance, force bool) (*DeploymentRef, error) {
	ch := Change{Force: force}
	less := map[app.ID]int{}
	for _, i := range list {
		less[i.App]++
	}
	for _, id := range sortedKeys(less) {
		a := *c.state.apps[id].App
		a.Instances = max(0, a.Instances-less[id])
		ch.Upsert = append(ch.Upsert, &a)
	}
	ref, err := c.change(tx, ch, nil)
	if err != nil {
		return nil, err
	}
	for _, i := range list {
		c.stop(tx, i, "killed by the user")
	}
	return &ref, nil
}

// Queue implements Service.
func (c *Core) Queue(ctx context.Context) ([]QueueView, error) {
	return look(ctx, c, func(tx *txn) (out []QueueView, err error) {
		for _, id := range c.state.appIDs() {
			if v, ok := c.queueView(c.state.apps[id], tx.now); ok {
				out = append(out, v)
			}
		}
		return out, nil
	})
}

func (c *Core) queueView(r *appRecord, now time.Time) (QueueView, bool) {
	v := QueueView{App: r.App, Role: roleOf(r.App, c.cfg.DefaultRole)}
	var held []*instance
	for _, i := range c.state.instancesOf(r.App.ID) {
		if i.lost() && c.state.holdsVolume(i) {
			held = append(held, i)
		}
		if i.Phase != waiting {
			continue
		}
		v.Count++
		if v.Since.IsZero() || i.Since.Before(v.Since) {
			v.Since = i.Since
		}
		if left := r.Backoff.until(i.Config).Sub(now); left > v.Delay {
			v.Delay = left
		}
		v.Waiting = append(v.Waiting, c.waitingView(i))
	}
	if v.Count == 0 {
		// Nothing waits in their place, since their strategy is to wait for
		// their agent. The queue is where a person looks for the reason.
		for _, i := range held {
			v.Count++
			v.Since = i.Task.LostSince
			v.Waiting = append(v.Waiting, c.heldView(i))
		}
	}
	n := c.countsOf(r.App.ID)
	v.Processed, v.Unused = n.processed, n.unused
	v.LastUnused, v.LastUsed = n.lastUnused, n.lastUsed
	return v, v.Count > 0
}

// waitingView says why an instance waits, as the last decision found.
func (c *Core) waitingView(i *instance) scheduler.Waiting {
	w, ok := c.flow.looks[i.ID]
	if !ok {
		return scheduler.Waiting{InstanceID: i.ID, Text: "no offers have been looked at yet: " + c.linkText()}
	}
	w.Counts = slices.Clone(w.Counts)
	w.Lacks = slices.Clone(w.Lacks)
	return w
}

// heldView says what keeps a lost instance from being launched elsewhere.
func (c *Core) heldView(i *instance) scheduler.Waiting {
	w := scheduler.Waiting{InstanceID: i.ID}
	var texts []string
	for _, key := range i.Task.Volumes {
		if v := c.state.volumes[key]; v != nil && v.Claim != nil {
			texts = append(texts, c.state.claimText(v))
		}
	}
	w.Text = strings.Join(texts, "; ")
	return w
}

func (c *Core) linkText() string {
	if !c.link.connected {
		return "the framework is not subscribed with a Mesos master"
	}
	return "subscribed with the master at " + c.link.master
}

// ResetDelay implements Service.
func (c *Core) ResetDelay(ctx context.Context, id app.ID) error {
	return c.do(ctx, func(tx *txn) error {
		r := c.state.apps[id]
		queued := false
		if r != nil {
			_, queued = c.queueView(r, tx.now)
		}
		if !queued {
			return &NotFoundError{Message: fmt.Sprintf("Application %s not found in tasks queue.", id)}
		}
		r.Backoff = backoff{}
		tx.saveApp(r)
		c.flow.wantRevive()
		c.log.Info("launch delay reset", zap.String("app", string(id)))
		return nil
	})
}
