package core

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

// The Mesos task states that the core tells apart.
const (
	taskStaging     = "TASK_STAGING"
	taskStarting    = "TASK_STARTING"
	taskRunning     = "TASK_RUNNING"
	taskKilling     = "TASK_KILLING"
	taskFinished    = "TASK_FINISHED"
	taskFailed      = "TASK_FAILED"
	taskKilled      = "TASK_KILLED"
	taskError       = "TASK_ERROR"
	taskDropped     = "TASK_DROPPED"
	taskGone        = "TASK_GONE"
	taskGoneByOp    = "TASK_GONE_BY_OPERATOR"
	taskUnreachable = "TASK_UNREACHABLE"
	taskLost        = "TASK_LOST"
	taskUnknown     = "TASK_UNKNOWN"
)

// started is when the instance's task was launched; waiting instances count as
// started last.
func (i *instance) started() time.Time {
	if i.Task == nil {
		return i.Since
	}
	return i.Task.StagedAt
}

// lost tells whether the agent of the instance's task is unreachable.
func (i *instance) lost() bool { return i.Task != nil && !i.Task.LostSince.IsZero() }

// running tells whether the instance's task runs as far as is known.
func (i *instance) running() bool {
	return i.Phase == active && !i.lost() && i.Task.State == taskRunning
}

// healthy tells whether the instance runs and passes its health checks.
func (i *instance) healthy(a *app.App) bool {
	if !i.running() {
		return false
	}
	return len(a.Health) == 0 || i.healthVerdict(a) == allAlive
}

// ready tells whether the instance is healthy and has passed its readiness
// check once.
func (i *instance) ready(a *app.App) bool {
	return i.healthy(a) && (len(a.Readiness) == 0 || i.Task.Ready)
}

// inactive tells whether a lost instance is to be replaced by now.
func (i *instance) inactive(u app.UnreachableStrategy, now time.Time) bool {
	return i.lost() && !u.Disabled &&
		!now.Before(i.Task.LostSince.Add(time.Duration(u.InactiveAfterSeconds)*time.Second))
}

// expunged tells whether a lost instance is to be given up by now.
func (i *instance) expunged(u app.UnreachableStrategy, now time.Time) bool {
	return i.lost() && !u.Disabled &&
		!now.Before(i.Task.LostSince.Add(time.Duration(u.ExpungeAfterSeconds)*time.Second))
}

// configOf is the time of a definition's last change other than scaling.
func configOf(a *app.App) app.Timestamp {
	if a.VersionInfo == nil {
		return a.Version
	}
	return a.VersionInfo.LastConfigChangeAt
}

// createInstance adds a waiting instance of a definition.
func (c *Core) createInstance(tx *txn, a *app.App, ordinal int) {
	id, err := newInstanceID(a.ID)
	if err != nil {
		c.log.Error("cannot create an instance; it is tried again", zap.String("app", string(a.ID)), zap.Error(err))
		return
	}
	i := &instance{ID: id, App: a.ID, Phase: waiting, Since: tx.now, Ordinal: ordinal}
	if err := i.chooseVolumes(a); err != nil {
		c.log.Error("cannot create an instance; it is tried again", zap.String("app", string(a.ID)), zap.Error(err))
		return
	}
	i.retarget(a)
	tx.saveInstance(i)
	tx.publish(instanceChanged(tx.now, i, "Scheduled"))
	c.flow.wantRevive()
}

// retarget has the instance run another definition at its next launch.
func (i *instance) retarget(a *app.App) { i.Version, i.Config = a.Version, configOf(a) }

// stop ends an instance for its app. What has no task is removed at once, or
// kept for its volumes; a lost task cannot be killed and is given up.
func (c *Core) stop(tx *txn, i *instance, why string) {
	switch {
	case i.Phase == waiting && c.park(tx, i):
	case i.Phase == waiting:
		tx.publish(instanceChanged(tx.now, i, "Killed"))
		tx.removeInstance(i)
	case i.lost():
		i.Stop = true
		c.giveUp(tx, i)
	default:
		i.Stop = true
		c.kill(tx, i, why)
	}
}

// giveUp takes a lost instance off its app. It is kept, uncounted, while it
// holds a volume: its task may still run.
func (c *Core) giveUp(tx *txn, i *instance) {
	tx.publish(instanceChanged(tx.now, i, "UnreachableInactive"))
	if c.state.holdsVolume(i) {
		i.Stop, i.Forgotten = true, true
		tx.saveInstance(i)
		c.touch(i.App)
		return
	}
	if !c.park(tx, i) {
		tx.removeInstance(i)
	}
}

// kill asks for an instance's task to be stopped; it is repeated until the
// task's end is reported.
func (c *Core) kill(tx *txn, i *instance, why string) {
	if i.Task.KillWhy != "" {
		tx.saveInstance(i)
		return
	}
	i.Task.KillWhy = why
	c.log.Info("killing task", zap.String("task", i.Task.ID), zap.String("why", why))
	c.sendKill(tx, i)
}

func (c *Core) sendKill(tx *txn, i *instance) {
	i.Task.KillSent = tx.now
	tx.saveInstance(i)
	c.callKill(tx, i.Task.ID, i.Task.AgentID)
}

// callKill sends a KILL. The grace period is in the task's own kill policy.
func (c *Core) callKill(tx *txn, taskID, agentID string) {
	tx.call(call{
		agent: agentID,
		make:  func(ctx context.Context) error { return c.mesos.Kill(ctx, taskID, agentID, nil) },
		done: func(_ *txn, err error) {
			if err != nil {
				c.log.Warn("kill not accepted by the master; it is repeated",
					zap.String("task", taskID), zap.Error(err))
			}
		},
	})
}

// ended handles the end of an instance's task: the instance waits to be
// launched again, or is removed.
func (c *Core) ended(tx *txn, i *instance, state string) {
	stopped := i.Stop || i.Forgotten
	t := i.Task
	i.Task = nil
	delete(c.readiness, t.ID)
	c.touch(i.App)
	if stopped || !c.wanted(i) {
		if !c.park(tx, i) {
			tx.removeInstance(i)
		}
		return
	}
	i.Phase, i.Since = waiting, tx.now
	goal := c.goalOf(i.App)
	if failureStates[state] && t.KillWhy == "" {
		c.delay(tx, i)
	}
	i.retarget(goal.def)
	tx.saveInstance(i)
	tx.publish(instanceChanged(tx.now, i, "Scheduled"))
	c.flow.wantRevive()
}

// wanted tells whether an instance whose task ended runs what its app is to
// run, so that it is launched again rather than replaced. An instance with
// volumes of its own becomes what is to run.
func (c *Core) wanted(i *instance) bool {
	goal := c.goalOf(i.App)
	return goal.def != nil && goal.n > 0 && (i.Reserved != nil || i.Config == configOf(goal.def))
}

// failureStates are the ends that count for the back-off (contract 5.2).
var failureStates = map[string]bool{
	taskFinished: true, taskFailed: true, taskError: true, taskDropped: true, taskGone: true,
}

// delay extends the back-off of an instance's app.
func (c *Core) delay(tx *txn, i *instance) {
	r := c.state.apps[i.App]
	if r == nil {
		return
	}
	c.noteReady(tx, r)
	def := c.state.definition(i)
	r.Backoff = r.Backoff.failed(def, i.Config, tx.now)
	tx.saveApp(r)
	c.log.Info("launch delayed after a failure", zap.String("app", string(i.App)),
		zap.Duration("delay", r.Backoff.Delay))
}
