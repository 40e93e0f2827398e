package core

import (
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// moved says off which agent an instance was stopped to be moved.
type moved struct {
	AgentID string    `json:"agentId"`
	At      time.Time `json:"at"`
}

// moveAvoidance is how long an instance does not go back to the agent that it
// was moved off, even where its volume was last.
const moveAvoidance = 10 * time.Minute

// moveLabel keeps an app's instances where they are, whatever the policy of
// moving says, if its value is "false".
const moveLabel = "DVDI_MOVE"

// move stops an instance so that it runs elsewhere: its volumes are mounted
// there when they are seen unmounted here.
func (c *Core) move(tx *txn, k scheduler.Kill) {
	i := c.state.instances[k.InstanceID]
	if i == nil || i.Task == nil || i.Task.AgentID != k.AgentID || !c.movable(i) {
		return
	}
	i.Moved = &moved{AgentID: k.AgentID, At: tx.now}
	c.log.Info("moving an instance", zap.String("instance", i.ID), zap.String("from", k.AgentID), zap.String("why", k.Why))
	c.kill(tx, i, "moved: "+k.Why)
}

// addKind tells the scheduler what an instance that may be moved asks for, once
// for all of an app's configuration.
func (c *Core) addKind(s *scheduler.Snapshot, p *scheduler.Placed, i *instance) {
	if !p.Movable {
		return
	}
	p.VolumeZone = c.zoneOfVolumes(i)
	p.Kind = string(i.App) + " " + i.Config.String()
	if _, known := s.Kinds[p.Kind]; known {
		return
	}
	kind := c.pendingInstance(i, c.state.definition(i), s.Now)
	kind.ID, kind.Since, kind.NotBefore, kind.WaitFrom = "", time.Time{}, time.Time{}, time.Time{}
	kind.Labels, kind.Avoid, kind.AvoidUntil = nil, "", time.Time{}
	if s.Kinds == nil {
		s.Kinds = map[string]scheduler.Instance{}
	}
	s.Kinds[p.Kind] = kind
}

// zoneOfVolumes is the only zone in which an instance's volumes can be attached,
// empty for any.
func (c *Core) zoneOfVolumes(i *instance) string {
	for _, key := range i.Task.Volumes {
		if v := c.state.volumes[key]; v != nil && v.Home != nil && v.Home.Zone != "" && !c.anyZone(v, i) {
			return v.Home.Zone
		}
	}
	return ""
}

// movable tells whether an instance may be stopped to be started elsewhere: one
// that runs, whose data is not bound to the agent, alone or by others that use
// it, and of which no deployment is under way.
func (c *Core) movable(i *instance) bool {
	if i.Task == nil || slices.ContainsFunc(i.Task.Volumes, c.sharedVolume) || c.hasLocalVolume(i) {
		return false
	}
	def := c.state.definition(i)
	return def != nil && i.running() && !i.Stop && !i.Forgotten && i.Task.KillWhy == "" && i.Reserved == nil &&
		c.state.locks[i.App] == nil && def.Labels[moveLabel] != "false"
}

// sharedVolume tells whether several instances hold a volume: one of them alone
// cannot take it elsewhere.
func (c *Core) sharedVolume(key scheduler.VolumeKey) bool {
	v := c.state.volumes[key]
	return v != nil && v.Claim != nil && len(v.Claim.Holders) > 1
}

// arrived notes what it proves that a task has come to its agent: that its
// reservation was made, which the master's own TASK_STAGING does not, and, when
// it runs, that a move is over.
func (i *instance) arrived(state string) {
	if i.Reserved != nil && state != taskStaging {
		i.Reserved.Deadline = time.Time{}
	}
	if state == taskRunning && i.Moved != nil && i.Task.KillWhy == "" {
		i.Moved = nil
	}
}

// waitLabels set how long an app's instances wait at each step of preference.
var waitLabels = map[string]func(w *scheduler.Wait) *time.Duration{
	"DVDI_WAIT_ATTACHED":      func(w *scheduler.Wait) *time.Duration { return &w.Attached },
	"DVDI_WAIT_LAST_ATTACHED": func(w *scheduler.Wait) *time.Duration { return &w.LastAttached },
	"DVDI_WAIT_REPLICA":       func(w *scheduler.Wait) *time.Duration { return &w.Replica },
	"DVDI_WAIT_ZONE":          func(w *scheduler.Wait) *time.Duration { return &w.Zone },
}

// waitOf is how long an app's instances wait for better agents: the cluster's
// policy, changed by the app's labels. Nil: the policy as it is.
func waitOf(def *app.App, policy scheduler.Wait) *scheduler.Wait {
	w := policy
	changed := false
	for label, field := range waitLabels {
		if d, err := time.ParseDuration(def.Labels[label]); err == nil && d >= 0 {
			*field(&w), changed = d, true
		}
	}
	if !changed {
		return nil
	}
	return &w
}

// validateLabels refuses labels that speak to the framework and are not
// understood. The error is an *app.ValidationError.
func validateLabels(changes map[app.ID]appChange) error {
	var details []app.Detail
	for _, id := range upserted(changes) {
		labels := changes[id].To.Labels
		for _, label := range slices.Sorted(maps.Keys(waitLabels)) {
			value, given := labels[label]
			if d, err := time.ParseDuration(value); given && (err != nil || d < 0) {
				details = append(details, app.Detail{Path: "/labels/" + label, Errors: []string{"must be a duration such as 30s or 5m, got " + value}})
			}
		}
		if value, given := labels[moveLabel]; given && value != "true" && value != "false" {
			details = append(details, app.Detail{Path: "/labels/" + moveLabel, Errors: []string{"must be true or false, got " + value}})
		}
	}
	if len(details) == 0 {
		return nil
	}
	return &app.ValidationError{Message: "Object is not valid", Details: details}
}
