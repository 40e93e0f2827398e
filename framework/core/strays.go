package core

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// A stray is a task of this framework that is no instance's current one: of an
// instance that was given up or replaced, or of a state that was lost. It must
// not run on, since the volumes that it uses may be given to others; but its
// end alone does not free them, so what it may have mounted is claimed first.

// handleStray takes the status of a task that no instance has.
func (c *Core) handleStray(tx *txn, s Status) {
	switch s.State {
	case taskStaging, taskStarting, taskRunning, taskKilling:
		c.endStray(tx, s)
	case taskUnreachable, taskLost:
		if c.restored() {
			c.adoptStray(tx, s)
		}
	case taskGoneByOp:
		c.agentGone(tx, s)
	case taskFinished, taskFailed, taskKilled, taskError, taskDropped, taskGone:
		tx.publish(unknownTerminated(tx.now, s))
	}
}

// endStray kills a stray when that is safe for its volumes.
func (c *Core) endStray(tx *txn, s Status) {
	_, volumes, known := c.exclusiveVolumes(s.TaskID)
	switch {
	case !known && c.mayPredateBackup(s.TaskID):
		c.leaveStray(tx, s)
	case len(volumes) > 0:
		c.adoptStray(tx, s)
	case s.State != taskKilling:
		c.log.Warn("killing a task that belongs to no instance",
			zap.String("task", s.TaskID), zap.String("agent", s.AgentID), zap.String("state", s.State))
		c.callKill(tx, s.TaskID, s.AgentID)
	}
}

// leaveStray leaves a stray alone whose app is not known: it may hold any volume,
// under a definition that is lost. It is remembered, so that its app, once
// somebody defines it again, does not start beside it.
func (c *Core) leaveStray(tx *txn, s Status) {
	c.log.Warn("a task runs on whose app the restored backup does not know; it is left alone, as are its volumes. "+
		"Define its app again to take its place", zap.String("task", s.TaskID), zap.String("agent", s.AgentID))
	i := c.strayInstance(tx, appOfTask(s.TaskID), s)
	i.Left = true
	tx.saveInstance(i)
}

// appOfTask is the app that a task's id names.
func appOfTask(taskID string) app.ID {
	path, _, _ := strings.Cut(taskID, instanceMark)
	return app.ID("/" + strings.ReplaceAll(path, "_", "/"))
}

// endLeftStrays ends the strays that were left alone for want of a definition.
func (c *Core) endLeftStrays(tx *txn, id app.ID) {
	for _, i := range c.state.byApp[id] {
		if !i.Left {
			continue
		}
		i.Left, i.Stop = false, true
		_, volumes, _ := c.exclusiveVolumes(i.Task.ID)
		for _, r := range volumes {
			c.claimForStray(tx, i, r)
		}
		if i.lost() {
			tx.saveInstance(i)
			continue
		}
		c.kill(tx, i, "its app is defined again")
	}
}

// strayInstance is a new record of a stray, uncounted; it is not yet stored.
func (c *Core) strayInstance(tx *txn, id app.ID, s Status) *instance {
	i := &instance{
		ID: s.TaskID, App: id, Phase: active, Since: tx.now, Forgotten: true,
		Task: &task{ID: s.TaskID, AgentID: s.AgentID, Hostname: c.hostnameOf(s.AgentID), State: s.State, StagedAt: tx.now,
			Role: c.cfg.DefaultRole},
	}
	if r := c.state.apps[id]; r != nil {
		i.retarget(r.App)
		i.Task.Role = roleOf(r.App, c.cfg.DefaultRole)
	}
	return i
}

// mayPredateBackup tells whether a task may be one that a restored backup does
// not know: its instance was made before the restoration, as the version 1 UUID
// in its id tells.
func (c *Core) mayPredateBackup(taskID string) bool {
	restored := c.state.meta.RestoredAt
	if restored.IsZero() {
		return false
	}
	id, _ := instanceOfTask(taskID)
	_, made, _ := strings.Cut(id, instanceMark)
	u, err := uuid.Parse(made)
	if err != nil || u.Version() != 1 {
		return true
	}
	return time.Unix(u.Time().UnixTime()).Before(restored)
}

// adoptStray makes a stray an instance of its own, uncounted and to be stopped:
// it holds the volumes that it may have mounted, its kill is repeated, and the
// volumes stay with its agent after its end, as with every other task.
func (c *Core) adoptStray(tx *txn, s Status) {
	id, volumes, known := c.exclusiveVolumes(s.TaskID)
	if !known || len(volumes) == 0 {
		return
	}
	i := c.strayInstance(tx, id, s)
	i.Stop = true
	c.log.Warn("a task that belongs to no instance is to end; its volumes stay with its agent",
		zap.String("task", s.TaskID), zap.String("agent", s.AgentID), zap.String("state", s.State))
	for _, r := range volumes {
		c.claimForStray(tx, i, r)
	}
	if s.State == taskUnreachable || s.State == taskLost {
		i.Task.LostSince = tx.now
		tx.saveInstance(i)
		return
	}
	c.kill(tx, i, "it belongs to no instance")
}

// claimForStray has a stray hold a volume, unless another task does.
func (c *Core) claimForStray(tx *txn, i *instance, r scheduler.VolumeRequest) {
	v := c.state.volumes[r.Key]
	if v != nil && v.Claim != nil && v.Claim.AgentID != i.Task.AgentID {
		if !c.restored() || c.confirmed(v.Claim) {
			c.log.Error("a stray task may use a volume that is claimed on another agent",
				zap.String("task", i.Task.ID), zap.String("agent", i.Task.AgentID), zap.String("claimed_on", v.Claim.AgentID),
				zap.String("driver", r.Key.Driver), zap.String("volume", r.Key.Name))
			i.Task.Volumes = append(i.Task.Volumes, r.Key) // which nothing else may use beside it
			return
		}
		// The task was launched after the backup, which could only be once the
		// volume was free to move.
		tx.endClaim(v, "a task that the restored backup does not know has it on another agent")
	}
	tx.claim(i, []scheduler.VolumeRequest{r})
}

// confirmed tells whether a task that holds the claim was seen alive since this
// core started, so that the claim is more than a backup's memory.
func (c *Core) confirmed(held *claim) bool {
	return slices.ContainsFunc(held.Holders, func(id string) bool {
		i := c.state.instances[id]
		return i != nil && i.Task != nil && c.seenAlive[i.Task.ID]
	})
}

// hostnameOf is the host name of an agent as far as an offer or a task tells it,
// otherwise its id.
func (c *Core) hostnameOf(agentID string) string {
	for _, o := range c.flow.held {
		if o.AgentID == agentID {
			return o.Hostname
		}
	}
	for _, i := range c.state.instances {
		if i.Task != nil && i.Task.AgentID == agentID && i.Task.Hostname != "" {
			return i.Task.Hostname
		}
	}
	return agentID
}

func compareVolumes(a, b scheduler.VolumeKey) int {
	return cmp.Or(cmp.Compare(a.Driver, b.Driver), cmp.Compare(a.Name, b.Name))
}
