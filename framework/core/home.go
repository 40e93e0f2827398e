package core

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// home is where a volume is, if its kind binds it to a place. It is learned when
// a task runs with the volume, and kept beyond claims and beyond the agents'
// answers: an app that comes back goes there.
type home struct {
	AgentID  string `json:"agentId"`
	Hostname string `json:"hostname"`
	// Task ran with it there last: the agent's fate is asked for by it.
	Task string `json:"task"`
	// Local volumes exist on that host only. Stated: that is the word of the
	// volume's class, not only of its driver.
	Local  bool `json:"local,omitempty"`
	Stated bool `json:"stated,omitempty"`
	// Zone is the only one in which it can be attached; empty: in any, or nobody
	// knows which.
	Zone string `json:"zone,omitempty"`
	// ZoneTold: the zone is the word of the volume's driver, not of its class.
	ZoneTold bool `json:"zoneTold,omitempty"`
	// Gone is when the agent of a local volume was marked gone, zero if it was not:
	// the volume is there if its host comes back, and binds nobody until then.
	Gone time.Time `json:"gone,omitzero"`
}

// places are the external volumes of a definition for one instance that the
// scheduler is told of, by what names them.
func places(def *app.App) map[scheduler.VolumeKey]*app.External {
	out := map[scheduler.VolumeKey]*app.External{}
	for _, n := range def.ExternalVolumes() {
		if e := def.Container.Volumes[n].External; e.Provider == app.DVDI {
			out[scheduler.VolumeKey{Driver: e.Driver(), Name: e.Name}] = e
		}
	}
	return out
}

// scopeOf says on how many hosts a volume exists, as one of the Scope constants
// of app: by its class or the operator's settings (stated), else by what its
// driver on an agent says. Empty: nobody knows.
func (c *Core) scopeOf(e *app.External, agentID string) (scope string, stated bool) {
	access := e.Access()
	switch {
	case e.Class != nil && e.Class.Scope != "":
		return e.Class.Scope, true
	case access == app.AccessManyReaders, access == app.AccessManyWriters, c.cfg.GlobalScope[e.Driver()]:
		return app.ScopeGlobal, true
	case c.cfg.Bridges == nil:
		return "", false
	}
	if r := c.cfg.Bridges.Reports()[agentID]; r != nil {
		return r.Scopes[e.Driver()], false
	}
	return "", false
}

// noteHomes records where the volumes of a task are that runs or has run: it was
// started, so they are mounted there.
func (c *Core) noteHomes(tx *txn, i *instance) {
	def := c.state.definition(i)
	if i.Task == nil || def == nil || def.Container == nil {
		return
	}
	for key, e := range places(def.ForInstance(i.Ordinal)) {
		v := c.state.volumes[key]
		var old *home
		if v != nil {
			old = v.Home
		}
		now := c.homeOf(e, i.Task, old)
		if equalHomes(old, now) {
			continue
		}
		if v == nil {
			v = &volumeRecord{Key: key}
		}
		v.Home = now
		tx.saveVolume(v)
		if now != nil {
			c.log.Info("volume is bound to a place", zap.String("driver", key.Driver), zap.String("volume", key.Name),
				zap.String("agent", now.AgentID), zap.String("host", now.Hostname), zap.Bool("local", now.Local), zap.String("zone", now.Zone))
		}
	}
}

// homeOf is where a volume is that a task has mounted, nil if that binds it to
// nothing. What nobody says at present is as it was.
func (c *Core) homeOf(e *app.External, t *task, old *home) *home {
	scope, stated := c.scopeOf(e, t.AgentID)
	h := &home{AgentID: t.AgentID, Hostname: t.Hostname, Task: t.ID, Local: scope == app.ScopeLocal, Stated: stated}
	if scope == "" && old != nil {
		h.Local, h.Stated = old.Local, old.Stated
	}
	switch {
	case e.Class != nil && e.Class.Zonal:
		h.Zone = c.zoneOf(t)
		if h.Zone == "" && old != nil {
			h.Zone = old.Zone
		}
	case !h.Local && (scope != app.ScopeGlobal || !stated):
		h.Zone = c.zoneTold(e, t, old)
		h.ZoneTold = h.Zone != ""
	}
	if !h.Local && h.Zone == "" {
		return nil
	}
	return h
}

// zoneOf is the zone of a task's agent: of its fault domain, else of its storage
// as its bridge says.
func (c *Core) zoneOf(t *task) string {
	zone := t.Zone
	if zone == "" && c.cfg.Bridges != nil {
		if r := c.cfg.Bridges.Reports()[t.AgentID]; r != nil {
			zone = r.Agent.Zone
		}
	}
	return zone
}

// zoneTold is the zone in which a volume can be attached by the word of its
// driver, as the bridge of the task's agent passes it on. Only a zone that the
// agent is in counts: a driver may have words of its own for zones (or one for
// all), in which no agent is, and nothing could run with its volumes any more.
func (c *Core) zoneTold(e *app.External, t *task, old *home) string {
	remembered := ""
	if old != nil && old.ZoneTold {
		remembered = old.Zone
	}
	key := scheduler.VolumeKey{Driver: e.Driver(), Name: e.Name}
	var told string
	if c.cfg.Bridges != nil {
		if r := c.cfg.Bridges.Reports()[t.AgentID]; r != nil {
			told = r.Volumes[key].Zone
		}
	}
	switch {
	case told == "", told == remembered:
		return remembered
	case told == c.zoneOf(t):
		return told
	}
	c.log.Info("the zone that a driver tells of a volume does not count: it is not that of the agent which has it mounted",
		zap.String("driver", key.Driver), zap.String("volume", key.Name), zap.String("zone", told),
		zap.String("agent", t.AgentID), zap.String("agent_zone", c.zoneOf(t)))
	return ""
}

func equalHomes(a, b *home) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// noteReports looks again at the volumes in use on agents of which the scopes of
// drivers, zones of volumes or the agent's own have become known or are others
// than before.
func (c *Core) noteReports(tx *txn) {
	changed := map[string]bool{}
	reports := c.cfg.Bridges.Reports()
	for id, r := range reports {
		if old := c.bridges.looked[id]; r != old {
			changed[id] = r.tellsPlaces(old)
			c.bridges.looked[id] = r
		}
	}
	maps.DeleteFunc(c.bridges.looked, func(id string, _ *BridgeReport) bool { return reports[id] == nil })
	maps.DeleteFunc(changed, func(_ string, yes bool) bool { return !yes })
	if len(changed) == 0 {
		return
	}
	for _, i := range c.state.allInstances() {
		if i.Task != nil && changed[i.Task.AgentID] && hasStarted(i.Task) {
			c.noteHomes(tx, i)
		}
	}
}

// tellsPlaces tells whether a report says anything on places that the one before
// it, nil if there was none, does not.
func (r *BridgeReport) tellsPlaces(before *BridgeReport) bool {
	if before == nil {
		before = &BridgeReport{}
	}
	if !maps.Equal(r.Scopes, before.Scopes) || r.Agent.Zone != before.Agent.Zone {
		return true
	}
	for key, v := range r.Volumes {
		if v.Zone != "" && v.Zone != before.Volumes[key].Zone {
			return true
		}
	}
	return false
}

// hasStarted tells whether a task is known to have got its volumes.
func hasStarted(t *task) bool {
	return !t.StartedAt.IsZero() || t.State == taskStarting || t.State == taskKilling
}

// bind tells the scheduler of the place that a volume is bound to which an
// instance waits for.
func (c *Core) bind(f *scheduler.VolumeFact, instanceID string) {
	v := c.state.volumes[f.Key]
	if v.Home == nil {
		return
	}
	if !c.anyZone(v, c.state.instances[instanceID]) {
		f.Zone = v.Home.Zone
	}
	if v.Home.Local && !v.Home.isGone() && !c.everywhere(v, c.state.instances[instanceID]) {
		f.Local, f.LastAgent, f.LastHostname = true, v.Home.AgentID, v.Home.Hostname
	}
}

// everywhere tells whether somebody who knows better says by now that a volume
// which was local exists everywhere: its class, the operator's settings, or, if
// only its driver had said so, its driver.
func (c *Core) everywhere(v *volumeRecord, i *instance) bool {
	scope, stated := c.scopeFor(v, i)
	return scope == app.ScopeGlobal && (stated || !v.Home.Stated)
}

// anyZone tells whether the class or the operator's settings say by now that a
// volume exists everywhere whose driver had told a zone.
func (c *Core) anyZone(v *volumeRecord, i *instance) bool {
	if !v.Home.ZoneTold {
		return false
	}
	scope, stated := c.scopeFor(v, i)
	return stated && scope == app.ScopeGlobal
}

// scopeFor is the scope of a volume as an instance names it.
func (c *Core) scopeFor(v *volumeRecord, i *instance) (scope string, stated bool) {
	if i == nil {
		return "", false
	}
	def := c.state.definition(i)
	if def == nil || def.Container == nil {
		return "", false
	}
	e := places(def.ForInstance(i.Ordinal))[v.Key]
	if e == nil {
		return "", false
	}
	return c.scopeOf(e, v.Home.AgentID)
}

// hasLocalVolume tells whether a volume of an instance's task exists on its host
// only.
func (c *Core) hasLocalVolume(i *instance) bool {
	return slices.ContainsFunc(i.Task.Volumes, func(key scheduler.VolumeKey) bool {
		v := c.state.volumes[key]
		return v != nil && v.Home != nil && v.Home.Local && !v.Home.isGone() && !c.everywhere(v, i)
	})
}

func (s *state) hasHomeOn(agentID string) bool {
	for _, v := range s.volumes {
		if v.Home.localOn(agentID) {
			return true
		}
	}
	return false
}

// leaveHome forgets by an operator's force where a volume is that nobody claims.
func (c *Core) leaveHome(tx *txn, v *volumeRecord, force bool) error {
	if !force {
		return &ConflictError{Message: v.Home.text(v.Key) + ". Where that is forgotten an app may start elsewhere, with a new and empty volume of that name"}
	}
	c.log.Warn("place of a volume forgotten by force of an operator", zap.String("driver", v.Key.Driver),
		zap.String("volume", v.Key.Name), zap.String("agent", v.Home.AgentID))
	v.Home = nil
	tx.saveVolume(v)
	c.flow.wantRevive()
	return nil
}

// BoundView is a volume that nobody claims, but that can be used in one place only:
// it exists on one agent, or can be attached in one zone.
type BoundView struct {
	Key scheduler.VolumeKey
	// App ran with it there last.
	App               app.ID
	AgentID, Hostname string
	Epoch             uint64
	Zone              string // empty: it exists on that agent only
	// Text says in words where it is and what would end that.
	Text string
}

// Bound implements Service.
func (c *Core) Bound(ctx context.Context) ([]BoundView, error) {
	return look(ctx, c, func(*txn) (out []BoundView, err error) {
		for _, v := range c.state.sortedVolumes() {
			if v.Home == nil || v.Claim != nil || v.Reclaim.due() {
				continue
			}
			view := BoundView{
				Key: v.Key, App: appOfTask(v.Home.Task), AgentID: v.Home.AgentID, Hostname: v.Home.Hostname, Epoch: v.Epoch,
				Text: v.Home.text(v.Key) + ". An app that starts with it goes there. To have that forgotten, so that one may start elsewhere " +
					"with a new and empty volume of that name: " + releaseCall(v.Key),
			}
			if v.Home.isGone() {
				view.Text = v.Home.text(v.Key) + ". To have that forgotten: " + releaseCall(v.Key)
			}
			if !v.Home.Local {
				view.Zone = v.Home.Zone
			}
			out = append(out, view)
		}
		return out, nil
	})
}

// text says where a volume is.
func (h *home) text(key scheduler.VolumeKey) string {
	what := fmt.Sprintf("volume %s of driver %s", key.Name, key.Driver)
	if h.isGone() {
		return fmt.Sprintf("%s was on host %s, whose agent %s was marked gone, and is used again if that host comes back under a new id of its agent",
			what, h.Hostname, h.AgentID)
	}
	if h.Local {
		return fmt.Sprintf("%s exists on agent %s (%s) only", what, h.Hostname, h.AgentID)
	}
	return fmt.Sprintf("%s can be attached in zone %s only", what, h.Zone)
}
