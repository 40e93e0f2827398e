package core

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

// Sources and reasons of statuses that decide on claims.
const (
	sourceMaster         = "SOURCE_MASTER"
	sourceExecutor       = "SOURCE_EXECUTOR"
	reasonReconciliation = "REASON_RECONCILIATION"
	// reasonRemovedByOperator is what the master sends when an operator marks
	// an agent gone (Master::markGone, Master::__removeSlave).
	reasonRemovedByOperator = "REASON_AGENT_REMOVED_BY_OPERATOR"
)

// handleStatus takes a task status; it is acknowledged after the commit.
func (c *Core) handleStatus(tx *txn, s Status) {
	c.acknowledge(tx, s)
	id, ours := instanceOfTask(s.TaskID)
	i := c.state.instances[id]
	if !ours || i == nil || i.Task == nil || i.Task.ID != s.TaskID {
		if i = c.state.instances[s.TaskID]; i == nil { // not even a stray that is known
			c.handleStray(tx, s)
			return
		}
	}
	switch s.State {
	case taskStaging, taskStarting, taskRunning, taskKilling:
		c.taskAlive(tx, i, s)
	case taskUnreachable, taskLost, taskUnknown:
		c.taskLost(tx, i, s)
	case taskFinished, taskFailed, taskKilled, taskError, taskDropped, taskGone, taskGoneByOp:
		c.taskEnded(tx, i, s)
	default:
		c.log.Warn("task status in an unknown state ignored",
			zap.String("task", s.TaskID), zap.String("state", s.State))
	}
}

func (c *Core) acknowledge(tx *txn, s Status) {
	if len(s.UUID) == 0 {
		return
	}
	tx.call(call{
		agent: s.AgentID,
		make:  func(ctx context.Context) error { return c.mesos.Acknowledge(ctx, s) },
		done: func(_ *txn, err error) {
			if err != nil {
				c.log.Info("status not acknowledged; the agent repeats it",
					zap.String("task", s.TaskID), zap.String("state", s.State), zap.Error(err))
			}
		},
	})
}

// taskAlive handles a status of a task that runs or is about to.
func (c *Core) taskAlive(tx *txn, i *instance, s Status) {
	t := i.Task
	if c.restored() {
		c.seenAlive[t.ID] = true
	}
	if t.State == s.State && i.Phase == active && !i.lost() && !c.changed(t, s) {
		return
	}
	i.Phase, t.State = active, s.State
	i.arrived(s.State)
	if hasStarted(t) || s.State == taskRunning {
		c.noteHomes(tx, i)
	}
	back := !t.LostSince.IsZero()
	if back {
		t.LostSince = time.Time{}
		c.log.Info("task is reachable again", zap.String("task", t.ID), zap.String("agent", t.AgentID))
	}
	if s.State == taskRunning && t.StartedAt.IsZero() {
		t.StartedAt = tx.now
		if !s.Time.IsZero() {
			t.StartedAt = s.Time
		}
	}
	if len(s.IPs) > 0 {
		t.IPs = s.IPs
	}
	if s.Check != nil {
		t.Check = s.Check
	}
	tx.saveInstance(i)
	c.touch(i.App)
	tx.publish(statusUpdate(tx.now, i, s))
	tx.publish(instanceChanged(tx.now, i, conditionOf(s.State)))
	if def := c.state.definition(i); s.Healthy != nil && def != nil {
		if n := executorCheck(def); n >= 0 {
			c.healthResult(tx, i, def, n, *s.Healthy, s.Message)
		}
	}
	if (i.Forgotten || i.Stop) && !i.Left {
		c.kill(tx, i, "the instance is not wanted any more")
	}
}

// changed tells whether a status says something that the task does not show.
func (c *Core) changed(t *task, s Status) bool {
	return s.Healthy != nil || s.Check != nil || (len(s.IPs) > 0 && !slices.Equal(t.IPs, s.IPs))
}

// taskLost handles a task of which nothing is known: its agent is partitioned
// from the master, or unknown to it. It may run and write on.
func (c *Core) taskLost(tx *txn, i *instance, s Status) {
	if s.State == taskUnknown && i.lost() && i.Forgotten && !i.Left && !c.state.holdsVolume(i) {
		// Not even its agent is known any more. Should it come back it is a stray.
		c.ended(tx, i, s.State)
		return
	}
	if c.unsettled(tx, i, s) || i.lost() {
		return
	}
	i.Phase, i.Task.State = active, s.State
	i.Task.LostSince = tx.now
	c.log.Warn("task is unreachable", zap.String("task", s.TaskID), zap.String("agent", i.Task.AgentID),
		zap.String("state", s.State), zap.String("reason", s.Reason))
	tx.saveInstance(i)
	c.link.probeAt = tx.now.Add(c.cfg.ProbeInterval)
	c.flow.round = true // what waits for its volumes waits for another reason now
	c.touch(i.App)
	tx.publish(statusUpdate(tx.now, i, s))
	tx.publish(instanceChanged(tx.now, i, "Unreachable"))
	if i.Stop {
		c.giveUp(tx, i)
	}
}

// unsettled tells whether a reconciliation's "I do not know this task" is too
// early to be believed: the launch may still be on its way to the master.
func (c *Core) unsettled(tx *txn, i *instance, s Status) bool {
	if i.Phase != launching || s.Reason != reasonReconciliation {
		return false
	}
	if s.State != taskGone && s.State != taskUnknown {
		return false
	}
	since := i.Since
	if c.link.since.After(since) {
		since = c.link.since
	}
	return tx.now.Before(since.Add(c.cfg.LaunchSettle))
}

// taskEnded handles a terminal status.
func (c *Core) taskEnded(tx *txn, i *instance, s Status) {
	if c.unsettled(tx, i, s) {
		return
	}
	neverRan := i.Phase == launching && s.Source == sourceMaster &&
		(s.State == taskDropped || s.State == taskError)
	t := i.Task
	t.State = s.State
	c.log.Info("task ended", zap.String("task", t.ID), zap.String("state", s.State),
		zap.String("source", s.Source), zap.String("reason", s.Reason), zap.String("message", s.Message))
	tx.publish(statusUpdate(tx.now, i, s))
	tx.publish(instanceChanged(tx.now, i, conditionOf(s.State)))
	if t.KillWhy == "" && s.State != taskKilled {
		c.recordFailure(tx, i, s)
	}
	if hasStarted(t) || s.State == taskFinished || s.Source == sourceExecutor {
		c.noteHomes(tx, i)
	}
	tx.release(i, neverRan)
	c.ended(tx, i, s.State)
	if s.State == taskGoneByOp {
		c.agentGone(tx, s)
	}
}

// agentGone handles the claims of an agent that a status calls gone.
func (c *Core) agentGone(tx *txn, s Status) {
	if s.Source != sourceMaster {
		// A draining agent relabels its own kills before it unmounts.
		return
	}
	switch s.Reason {
	case reasonRemovedByOperator:
		tx.agentRemoved(s.AgentID, "the agent was marked gone")
	case reasonReconciliation:
		c.goneReconciled(tx, s.AgentID)
	}
}

func (c *Core) recordFailure(tx *txn, i *instance, s Status) {
	r := c.state.apps[i.App]
	if r == nil {
		return
	}
	r.LastFailure = &TaskFailure{
		AppID: i.App, Host: i.Task.Hostname, Message: s.Message, State: s.State, TaskID: s.TaskID,
		Timestamp: app.NewTimestamp(tx.now), Version: i.Version, AgentID: i.Task.AgentID,
	}
	tx.saveApp(r)
}
