package core

import (
	"math"
	"slices"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

// goal is what an app's instances are to become now. def is nil when the app
// is to have none.
type goal struct {
	def *app.App
	n   int
	// replace: instances of other configurations are to be replaced.
	replace bool
}

// goalOf derives an app's goal: its definition, or as far as a running
// deployment has come with it.
func (c *Core) goalOf(id app.ID) goal {
	r := c.state.apps[id]
	if r == nil {
		return goal{}
	}
	d := c.state.locks[id]
	if d == nil {
		return goal{def: r.App, n: r.App.Instances}
	}
	return d.goalOf(id)
}

// goalOf is the goal of an app at the deployment's current step: what it was
// before its first action is reached, and what the latest action reached wants
// after that.
func (d *deployment) goalOf(id app.ID) goal {
	change := d.Changes[id]
	var g goal
	if change.From != nil {
		g = goal{def: change.From, n: change.From.Instances}
	} else if change.To != nil {
		g = goal{def: change.To}
	}
	for _, a := range d.actionsOf(id) {
		if a.step > d.Current {
			break
		}
		switch a.kind {
		case actionStart:
			g = goal{def: change.To}
		case actionScale:
			g = goal{def: change.To, n: change.To.Instances}
		case actionRestart:
			g = goal{def: change.To, n: change.To.Instances, replace: true}
		case actionStop:
			g = goal{}
		}
	}
	return g
}

// stepAction is what a step does to one app.
type stepAction struct {
	step int
	kind string
}

// actionsOf are the actions on one app in the order of their steps. A deployment
// may be of thousands of apps, each of which asks.
func (d *deployment) actionsOf(id app.ID) []stepAction {
	if d.byApp == nil {
		d.byApp = make(map[app.ID][]stepAction, len(d.Changes))
		for step, actions := range d.Steps {
			for _, a := range actions {
				d.byApp[a.App] = append(d.byApp[a.App], stepAction{step, a.Kind})
			}
		}
	}
	return d.byApp[id]
}

// reconcileApp brings the instances of an app closer to its goal.
func (c *Core) reconcileApp(tx *txn, id app.ID) {
	g := c.goalOf(id)
	c.expireLost(tx, id, g)
	list := c.state.instancesOf(id)
	if g.def == nil {
		for _, i := range list {
			if !i.Stop {
				c.stop(tx, i, "the app is deleted")
			}
		}
		return
	}
	if g.replace {
		c.replaceOld(tx, g, list)
		return
	}
	c.scale(tx, g, list)
}

// expireLost applies the unreachable strategy. A lost instance that holds a
// volume is not given up: nothing can take its place before its claim ends,
// and when its agent returns it runs on.
func (c *Core) expireLost(tx *txn, id app.ID, g goal) {
	for _, i := range c.state.instancesOf(id) {
		def := c.state.definition(i)
		if def == nil || !i.expunged(def.Unreachable, tx.now) || c.state.holdsVolume(i) {
			continue
		}
		c.giveUp(tx, i)
	}
}

// scale creates missing instances and stops surplus ones. Instances that
// wait always take the newest definition.
func (c *Core) scale(tx *txn, g goal, list []*instance) {
	var counted, uncounted []*instance
	stopping := 0
	for _, i := range c.state.instancesOf(g.def.ID) {
		if i.Stop {
			stopping++
		}
	}
	for _, i := range list {
		if i.Stop {
			continue
		}
		if i.Phase == waiting && i.Config != configOf(g.def) {
			i.retarget(g.def)
			tx.saveInstance(i)
		}
		if i.inactive(c.unreachable(i), tx.now) {
			uncounted = append(uncounted, i)
		} else {
			counted = append(counted, i)
		}
	}
	missing := g.n - len(counted)
	if g.def.Ordered() {
		// Who takes an ordinal waits until the one before is gone.
		missing -= stopping
	}
	c.createInstances(tx, g.def, missing)
	surplus := surplusOf(counted, g.def, len(counted)-g.n)
	if g.n == 0 {
		surplus = append(surplus, uncounted...)
	}
	for _, i := range surplus {
		c.stop(tx, i, "more instances than the app wants")
	}
}

func (c *Core) unreachable(i *instance) app.UnreachableStrategy {
	if def := c.state.definition(i); def != nil {
		return def.Unreachable
	}
	return app.UnreachableStrategy{}
}

// killOrder sorts instances so that those to be stopped first come first: what
// does not run before what runs, instances of older configurations before
// newer ones, then the app's kill selection (contract 5.1).
func killOrder(list []*instance, def *app.App) []*instance {
	out := slices.Clone(list)
	slices.SortStableFunc(out, func(a, b *instance) int {
		if d := killRank(a) - killRank(b); d != 0 {
			return d
		}
		if d := a.Config.Compare(b.Config); d != 0 {
			return d
		}
		d := a.started().Compare(b.started())
		if def.KillSelection == app.OldestFirst {
			return d
		}
		return -d
	})
	if def.Ordered() {
		return byOrdinal(out)
	}
	return out
}

// killRank orders instances by how far they have come; killRunning is the last.
func killRank(i *instance) int {
	switch {
	case i.Phase == waiting:
		return 0
	case i.lost():
		return 1
	case i.Phase == launching || i.Task.State == taskStaging:
		return 2
	case i.Task.State == taskStarting:
		return 3
	default:
		return killRunning
	}
}

const killRunning = 4

// replaceOld replaces instances of other configurations than the goal's.
func (c *Core) replaceOld(tx *txn, g goal, list []*instance) {
	var old, current, stopping []*instance
	for _, i := range list {
		switch {
		case i.Stop, i.Reserved != nil && i.Task != nil && i.Task.KillWhy != "" && i.Config != configOf(g.def):
			stopping = append(stopping, i)
		case i.Config == configOf(g.def):
			current = append(current, i)
		case i.Phase == waiting:
			// Never launched as what it was: it becomes a new one.
			i.retarget(g.def)
			tx.saveInstance(i)
			current = append(current, i)
		default:
			old = append(old, i)
		}
	}
	stopFirst := c.stopFirst(g.def, old, stopping)
	if len(old) == 0 && (!stopFirst || len(stopping) == 0) {
		c.scale(tx, g, current)
		return
	}
	c.roll(tx, g, old, current, len(stopping), stopFirst)
}

// stopFirst tells whether old instances must be gone before new ones start: the
// volumes of the old or new definition allow no other order, whatever the
// upgrade strategy says.
func (c *Core) stopFirst(def *app.App, old, stopping []*instance) bool {
	if c.bindsVolume(def) || def.Resident() {
		return true
	}
	for _, i := range slices.Concat(old, stopping) {
		if i.Task != nil && len(i.Task.Volumes) > 0 {
			return true
		}
	}
	return false
}

// roll does what the upgrade strategy allows now.
func (c *Core) roll(tx *txn, g goal, old, current []*instance, stopping int, stopFirst bool) {
	in := rollInput{n: g.n, min: g.def.Upgrade.MinimumHealthCapacity, over: g.def.Upgrade.MaximumOverCapacity,
		old: len(old), current: len(current), stopping: stopping, stopFirst: stopFirst}
	for _, i := range old {
		if def := c.state.definition(i); def != nil && i.healthy(def) {
			in.oldHealthy++
		}
	}
	for _, i := range current {
		if i.ready(g.def) {
			in.currentReady++
		}
	}
	kill, start := rollStep(in)
	c.createInstances(tx, g.def, start)
	if kill == 0 {
		return
	}
	unhealthyFirst := killOrder(old, g.def)
	slices.SortStableFunc(unhealthyFirst, func(a, b *instance) int {
		return boolRank(c.oldHealthy(a)) - boolRank(c.oldHealthy(b))
	})
	for _, i := range unhealthyFirst[:kill] {
		if i.Reserved != nil && !i.lost() {
			// The same instance runs the new configuration, on its volumes.
			c.kill(tx, i, "replaced by a new configuration")
			continue
		}
		c.stop(tx, i, "replaced by a new configuration")
	}
}

func (c *Core) oldHealthy(i *instance) bool {
	def := c.state.definition(i)
	return def != nil && i.healthy(def)
}

func boolRank(b bool) int {
	if b {
		return 1
	}
	return 0
}

// rollInput is what a rolling replacement depends on: the number of instances
// wanted, the upgrade strategy, and how many instances there are.
type rollInput struct {
	n         int
	min, over float64
	old, oldHealthy,
	current, currentReady,
	stopping int
	// stopFirst: a new instance starts only where an old one has ended.
	stopFirst bool
}

// rollStep returns how many old instances may be killed and how many new ones
// started now (contract 5.1). At least ceil(n*min) healthy instances are kept
// and at most floor(n*(1+over)) exist; where both are the same number and
// nothing could ever move, one more may exist, or with stopFirst one less.
func rollStep(in rollInput) (kill, start int) {
	const epsilon = 1e-9 // 3*(1+1/3.) is meant to be 4
	keep := int(math.Ceil(float64(in.n)*in.min - epsilon))
	most := int(math.Floor(float64(in.n)*(1+in.over) + epsilon))
	switch {
	case in.stopFirst:
		most = in.n
		keep = min(keep, in.n-1)
	case keep >= most:
		most = keep + 1
	}
	healthy := in.oldHealthy + in.currentReady
	unhealthy := in.old - in.oldHealthy
	kill = min(in.old, unhealthy+max(0, healthy-keep))
	start = min(in.n-in.current, most-in.old-in.current-in.stopping)
	return kill, max(0, start)
}
