package core

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// reclaim is kept with a volume whose class says that it is removed when nobody
// owns it any more. What is due stays due over crashes until it is done, or an
// operator keeps the volume: nothing is launched on it before, so that whoever
// uses the name next starts with a new volume.
type reclaim struct {
	// App claimed it last, for its instance with that Ordinal if PerInstance.
	App         app.ID `json:"app"`
	PerInstance bool   `json:"perInstance,omitempty"`
	Ordinal     int    `json:"ordinal,omitempty"`
	// Task had it last: the agent's fate is asked for by it. Bridge is the agent's
	// attribute that says where its bridge is.
	Task   string `json:"task"`
	Bridge string `json:"bridge,omitempty"`
	// Gone says that the master has removed that agent for good.
	Gone bool `json:"gone,omitempty"`
	// Due is since when the volume is to be removed, zero if it is not; Why says
	// who ended.
	Due time.Time `json:"due,omitzero"`
	Why string    `json:"why,omitempty"`
}

func (r *reclaim) due() bool { return r != nil && !r.Due.IsZero() }

// removing is the removal of one volume. It is not stored.
type removing struct {
	asking  bool
	problem string // why it is not done yet
	// next is when it is tried again, pause after which time.
	next  time.Time
	pause time.Duration
}

// The pauses between two attempts to remove a volume double from the first to
// the last; removeTimeout bounds one, since backends may take their time.
const (
	firstRemovePause = time.Second
	lastRemovePause  = 5 * time.Minute
	removeTimeout    = 2 * time.Minute
)

// noteReclaim keeps what the classes of the volumes that a launch claims say
// about their end. The latest claim counts.
func (c *Core) noteReclaim(tx *txn, i *instance, def *app.App) {
	for _, n := range def.ExternalVolumes() {
		e := def.Container.Volumes[n].External
		v := c.state.volumes[scheduler.VolumeKey{Driver: e.Driver(), Name: e.NameFor(i.Ordinal)}]
		if v == nil || !slices.Contains(i.Task.Volumes, v.Key) {
			continue
		}
		var now *reclaim
		if e.Class != nil && e.Class.Reclaim == app.ReclaimDelete {
			now = &reclaim{App: i.App, PerInstance: e.PerInstance(), Ordinal: i.Ordinal, Task: i.Task.ID, Bridge: i.Task.Attributes[bridgeAttribute]}
		}
		if now != nil || v.Reclaim != nil {
			v.Reclaim = now
			tx.saveVolume(v)
		}
	}
}

// reclaimApp has the volumes removed that a deleted app leaves behind. A volume
// that another app names, in any version that it can go back to, stays.
func (c *Core) reclaimApp(tx *txn, id app.ID) {
	for _, v := range c.state.volumes {
		r := v.Reclaim
		if r == nil || r.due() || r.App != id && c.state.apps[r.App] != nil || c.namedBeside(v, "") {
			continue
		}
		c.removeVolume(tx, v, fmt.Sprintf("app %s was deleted", r.App))
	}
}

// reclaimOrdinals has the volumes removed of instances that the apps of a
// finished deployment were scaled down by. An app that is suspended, with no
// instance at all, keeps everything; so does one that does not name the volume
// any more and may go back to a version that does.
func (c *Core) reclaimOrdinals(tx *txn, d *deployment) {
	for id := range d.Changes {
		r := c.state.apps[id]
		if r == nil || r.App.Instances == 0 || !r.App.Ordered() {
			continue
		}
		used := map[int]bool{}
		for _, i := range c.state.byApp[id] {
			used[i.Ordinal] = true
		}
		for _, v := range c.state.volumes {
			rc := v.Reclaim
			if rc == nil || rc.due() || rc.App != id || !rc.PerInstance || used[rc.Ordinal] || !names(r.App, v) || c.namedBeside(v, id) {
				continue
			}
			c.removeVolume(tx, v, fmt.Sprintf("app %s was scaled down: it has no instance %d any more", id, rc.Ordinal))
		}
	}
}

// reclaimWiped has the volumes removed whose users are all killed to lose them.
func (c *Core) reclaimWiped(tx *txn, killed []*instance) {
	ids := map[string]bool{}
	for _, i := range killed {
		ids[i.ID] = true
	}
	for _, i := range killed {
		if i.Task == nil {
			continue
		}
		for _, key := range i.Task.Volumes {
			v := c.state.volumes[key]
			if v == nil || v.Reclaim == nil || v.Reclaim.due() || v.Claim == nil ||
				slices.ContainsFunc(v.Claim.Holders, func(h string) bool { return !ids[h] }) {
				continue
			}
			c.removeVolume(tx, v, fmt.Sprintf("the tasks of app %s that used it were killed and wiped", i.App))
		}
	}
}

// names tells whether a definition names a volume, for the instance that had it.
func names(def *app.App, v *volumeRecord) bool {
	return slices.ContainsFunc(def.ExternalVolumes(), func(n int) bool {
		e := def.Container.Volumes[n].External
		return e.Driver() == v.Key.Driver && e.NameFor(v.Reclaim.Ordinal) == v.Key.Name
	})
}

// namedBeside tells whether a version of any app but one names a volume.
func (c *Core) namedBeside(v *volumeRecord, id app.ID) bool {
	for other, versions := range c.state.versions {
		if other == id {
			continue
		}
		for _, def := range versions {
			if names(def, v) {
				return true
			}
		}
	}
	return false
}

// removeVolume writes down that a volume is to be removed once it is free.
func (c *Core) removeVolume(tx *txn, v *volumeRecord, why string) {
	v.Reclaim.Due, v.Reclaim.Why = tx.now, why
	tx.saveVolume(v)
	c.log.Info("volume is to be removed, as its class says", zap.String("driver", v.Key.Driver), zap.String("volume", v.Key.Name),
		zap.String("why", why))
}

// keepVolume ends what is due without removing anything.
func (c *Core) keepVolume(tx *txn, v *volumeRecord, why string) {
	v.Reclaim = nil
	delete(c.bridges.removals, v.Key)
	tx.saveVolume(v)
	c.log.Warn("volume that was to be removed is kept", zap.String("driver", v.Key.Driver), zap.String("volume", v.Key.Name), zap.String("why", why))
	c.flow.wantRevive()
}

// tickReclaim removes what is due and claimed by nobody.
func (c *Core) tickReclaim(tx *txn) {
	if c.restored() {
		return // somebody may use it of whom the backup does not know
	}
	var due []*volumeRecord
	for _, v := range c.state.volumes {
		if v.Reclaim.due() && v.Claim == nil {
			due = append(due, v)
		}
	}
	slices.SortFunc(due, func(a, b *volumeRecord) int { return compareVolumes(a.Key, b.Key) })
	for _, v := range due {
		c.tryRemove(tx, v)
	}
}

// tryRemove has an agent's bridge remove a volume, unless that is under way or
// it is too early to try again.
func (c *Core) tryRemove(tx *txn, v *volumeRecord) {
	rm := c.bridges.removals[v.Key]
	if rm == nil {
		rm = &removing{}
		c.bridges.removals[v.Key] = rm
	}
	if rm.asking || tx.now.Before(rm.next) {
		return
	}
	agentID, problem := c.remover(v)
	if problem != "" {
		c.notRemoved(v, rm, problem)
		return
	}
	rm.asking = true
	frameworkID, e, due := c.state.meta.FrameworkID, Epoch{AgentID: agentID, Key: v.Key, Number: v.Epoch}, v.Reclaim.Due
	var removed bool
	var reason string
	tx.aside(call{
		make: func(ctx context.Context) (err error) {
			ctx, cancel := context.WithTimeout(ctx, removeTimeout)
			defer cancel()
			removed, reason, err = c.cfg.Bridges.Remove(ctx, frameworkID, e)
			return err
		},
		done: func(tx *txn, err error) {
			rm.asking = false
			if err != nil {
				reason = err.Error()
			}
			if v.Reclaim == nil || !v.Reclaim.Due.Equal(due) {
				c.log.Warn("volume was being removed when an operator had it kept", zap.String("driver", v.Key.Driver),
					zap.String("volume", v.Key.Name), zap.Bool("removed", removed), zap.String("reason", reason))
				return
			}
			if !removed || err != nil {
				rm.pause = min(max(2*rm.pause, firstRemovePause), lastRemovePause)
				rm.next = tx.now.Add(rm.pause)
				c.notRemoved(v, rm, reason)
				return
			}
			c.volumeRemoved(tx, v, agentID)
		},
	})
}

func (c *Core) notRemoved(v *volumeRecord, rm *removing, problem string) {
	if rm.problem == problem {
		return
	}
	rm.problem = problem
	c.log.Warn("volume not removed yet", zap.String("driver", v.Key.Driver), zap.String("volume", v.Key.Name), zap.String("problem", problem))
}

// volumeRemoved forgets a volume, but not its epochs: agents remember them.
func (c *Core) volumeRemoved(tx *txn, v *volumeRecord, agentID string) {
	c.log.Info("volume removed", zap.String("driver", v.Key.Driver), zap.String("volume", v.Key.Name),
		zap.String("agent", agentID), zap.String("why", v.Reclaim.Why))
	tx.publish(extension(newEvent("volume_removed_event", tx.now, fields{"driver": v.Key.Driver, "name": v.Key.Name, "appId": v.Reclaim.App,
		"agentId": agentID, "reason": v.Reclaim.Why})))
	v.Reclaim, v.Home, v.LastAgent, v.LastHostname = nil, nil, "", ""
	delete(c.bridges.removals, v.Key)
	tx.saveVolume(v)
	c.flow.wantRevive()
}

// remover is the agent through which a volume is removed: the one that had it
// last, since nobody else can say that it is not mounted there; another one that
// had it for this framework only after that one was removed for good. Bridges
// remove nothing for who never registered it with them. The problem says why
// there is none.
func (c *Core) remover(v *volumeRecord) (agentID, problem string) {
	if c.cfg.Bridges == nil {
		return "", "no bridge of any agent is asked: give --bridge_token_file or --bridge_cert"
	}
	reports := c.cfg.Bridges.Reports()
	for _, id := range sortedKeys(reports) {
		if reports[id].Volumes[v.Key].Attached && (id == v.LastAgent || v.Home == nil || !v.Home.Local) {
			return "", "it is mounted on agent " + id
		}
	}
	last := fmt.Sprintf("agent %s (%s), which had it last,", v.LastHostname, v.LastAgent)
	switch r := reports[v.LastAgent]; {
	case r.known() && !r.Removal:
		return "", "the bridge of " + last + " is too old to remove volumes: upgrade it"
	case r.known():
		return v.LastAgent, ""
	case !v.Reclaim.Gone:
		return "", "the bridge of " + last + " does not answer"
	}
	for _, id := range sortedKeys(reports) {
		if r := reports[id]; r.known() && r.Removal && r.serves(v.Key.Driver) &&
			r.Volumes[v.Key].Framework == c.state.meta.FrameworkID {
			return id, ""
		}
	}
	return "", last + " is gone for good, and no other that had it for this framework has a bridge that answers: remove it in its storage, " +
		"then have the framework forget that"
}

// serves tells whether a driver of the agent works.
func (r *BridgeReport) serves(driver string) bool {
	return slices.ContainsFunc(r.Agent.Drivers, func(d scheduler.DriverFact) bool { return d.Name == driver && d.Healthy })
}

// reclaimsLost looks at the volumes that are to be removed, or will be, whose
// agent the master has removed for good. A local one is gone with it.
func (tx *txn) reclaimsLost(agentID string) {
	c := tx.c
	for _, v := range c.state.volumes {
		if v.Reclaim == nil || v.LastAgent != agentID {
			continue
		}
		if v.Home != nil && v.Home.Local && v.Home.AgentID == agentID {
			c.log.Warn("volume is gone with its agent: there is nothing to remove", zap.String("driver", v.Key.Driver),
				zap.String("volume", v.Key.Name), zap.String("agent", agentID))
			v.Reclaim = nil
			delete(c.bridges.removals, v.Key)
			c.flow.wantRevive()
		} else {
			v.Reclaim.Gone = true
		}
		tx.saveVolume(v)
	}
}

// reclaimRefs are the tasks by which the master is asked for the agents of
// volumes that are to be removed, where their bridge does not answer.
func (c *Core) reclaimRefs() []TaskRef {
	var refs []TaskRef
	var reports map[string]*BridgeReport
	for _, v := range c.state.volumes {
		if !v.Reclaim.due() || v.Claim != nil || v.Reclaim.Gone || c.cfg.Bridges == nil {
			continue
		}
		if reports == nil {
			reports = c.cfg.Bridges.Reports()
		}
		if !reports[v.LastAgent].known() {
			refs = append(refs, TaskRef{TaskID: v.Reclaim.Task, AgentID: v.LastAgent})
		}
	}
	slices.SortFunc(refs, func(a, b TaskRef) int { return cmp.Compare(a.TaskID, b.TaskID) })
	return refs
}

// hasReclaimOn tells whether a volume is to be removed, or will be, that an
// agent had last.
func (s *state) hasReclaimOn(agentID string) bool {
	for _, v := range s.volumes {
		if v.Reclaim != nil && v.LastAgent == agentID {
			return true
		}
	}
	return false
}

// removalText says that instances of an app wait for the removal of a volume,
// empty if they do not.
func (c *Core) removalText(i *instance) string {
	def := c.state.definition(i)
	if def == nil {
		return ""
	}
	for _, n := range def.ExternalVolumes() {
		e := def.Container.Volumes[n].External
		if v := c.state.volumes[scheduler.VolumeKey{Driver: e.Driver(), Name: e.NameFor(i.Ordinal)}]; v != nil && v.Reclaim.due() {
			return c.removalView(v).Text
		}
	}
	return ""
}

// forgetReclaims keeps a restored state from destroying what it may know too
// little of: what is due is kept, and so is what belongs to no app.
func (s *state) forgetReclaims() {
	for _, v := range s.volumes {
		if v.Reclaim.due() || v.Reclaim != nil && s.apps[v.Reclaim.App] == nil {
			v.Reclaim = nil
		}
	}
}

// Removals implements Service.
func (c *Core) Removals(ctx context.Context) ([]RemovalView, error) {
	return look(ctx, c, func(*txn) (out []RemovalView, err error) {
		for _, v := range c.state.sortedVolumes() {
			if v.Reclaim.due() && v.Claim == nil {
				out = append(out, c.removalView(v))
			}
		}
		return out, nil
	})
}

func (c *Core) removalView(v *volumeRecord) RemovalView {
	out := RemovalView{Key: v.Key, App: v.Reclaim.App, AgentID: v.LastAgent, Hostname: v.LastHostname, Epoch: v.Epoch,
		Since: v.Reclaim.Due, Why: v.Reclaim.Why}
	var b strings.Builder
	fmt.Fprintf(&b, "volume %s of driver %s is to be removed with its data: %s, and its class says so", v.Key.Name, v.Key.Driver, v.Reclaim.Why)
	if v.Claim != nil {
		b.WriteString("; that waits for the end of its use")
	} else if rm := c.bridges.removals[v.Key]; rm != nil {
		out.Problem, out.Next = rm.problem, rm.next
		if rm.problem != "" {
			fmt.Fprintf(&b, "; not done yet: %s", rm.problem)
		}
	}
	fmt.Fprintf(&b, ". To keep it: %s", keepCall(v.Key))
	out.Text = b.String()
	return out
}

// keepCall is the call of the API by which an operator keeps a volume.
func keepCall(key scheduler.VolumeKey) string {
	return "DELETE " + volumePath(key) + "/removal"
}

// KeepVolume implements Service.
func (c *Core) KeepVolume(ctx context.Context, key scheduler.VolumeKey) error {
	return c.do(ctx, func(tx *txn) error {
		v := c.state.volumes[key]
		if v == nil || !v.Reclaim.due() {
			return &NotFoundError{Message: fmt.Sprintf("Volume '%s' of driver '%s' is not to be removed", key.Name, key.Driver)}
		}
		c.keepVolume(tx, v, "an operator said so")
		return nil
	})
}
