package core

import (
	"time"

	"go.uber.org/zap"
)

// tick looks at everything that depends on time.
func (c *Core) tick(tx *txn) {
	c.syncChecks()
	c.rolesStale = true
	c.tickBridges(tx)
	c.tickReclaim(tx)
	if !c.link.connected {
		c.lostStrategies(tx)
		return
	}
	for _, i := range c.state.instances {
		c.tickInstance(tx, i)
	}
	c.lostStrategies(tx)
	c.tickHold(tx)
	c.tickEnding(tx)
	c.forgetGone(tx)
	c.forgetGoneHomes(tx)
	c.probeAgents(tx, false)
	c.tickDraining(tx.now)
	if !tx.now.Before(c.link.reconcileAt) {
		c.link.reconcileAt = tx.now.Add(c.cfg.ReconcileInterval)
		c.reconcileTasks(tx)
		tx.call(c.reconcileCall(nil))
		c.probeAgents(tx, true)
	}
	if c.backoffEnded(tx.now) || c.waitEnded(tx.now) {
		c.flow.wantRevive()
	}
	if c.flow.revive {
		c.flow.round = true
	}
}

// tickInstance repeats kills and ends launches that come to nothing.
func (c *Core) tickInstance(tx *txn, i *instance) {
	if i.Task == nil || i.lost() {
		return
	}
	t := i.Task
	since := tx.now.Sub(t.StagedAt)
	switch {
	case t.KillWhy != "":
		if tx.now.Sub(t.KillSent) >= c.cfg.KillRetry {
			c.sendKill(tx, i)
		}
	case i.Phase == launching && since >= c.cfg.LaunchConfirm:
		c.kill(tx, i, "its launch was not confirmed in time")
	case i.Phase == active && (t.State == taskStaging || t.State == taskStarting) && since >= c.cfg.LaunchTimeout:
		c.kill(tx, i, "it did not run in time")
	}
	if i.Phase == launching && c.settledNow(i, tx.now) {
		tx.call(c.reconcileCall([]TaskRef{{TaskID: t.ID, AgentID: t.AgentID}}))
	}
}

// settledNow tells whether an unconfirmed launch is due for a question to the
// master: when an answer is first believed, and again from time to time.
func (c *Core) settledNow(i *instance, now time.Time) bool {
	since := i.Since
	if c.link.since.After(since) {
		since = c.link.since
	}
	age := now.Sub(since)
	if age < c.cfg.LaunchSettle {
		return false
	}
	return (age-c.cfg.LaunchSettle)%(confirmEvery) < c.cfg.Tick
}

// confirmEvery is how often the master is asked about a launch without status.
const confirmEvery = 30 * time.Second

// lostStrategies touches the apps with lost instances, whose strategies depend
// on time.
func (c *Core) lostStrategies(tx *txn) {
	for _, i := range c.state.instances {
		if i.lost() && !i.Forgotten {
			c.touch(i.App)
		}
	}
}

// backoffEnded tells whether the back-off of something that waits ended within
// the last tick.
func (c *Core) backoffEnded(now time.Time) bool {
	for _, i := range c.state.instances {
		r := c.state.apps[i.App]
		if i.Phase != waiting || r == nil {
			continue
		}
		until := r.Backoff.until(i.Config)
		if !until.IsZero() && !now.Before(until) && now.Sub(until) < 2*c.cfg.Tick {
			return true
		}
	}
	return false
}

// waitEnded tells whether an instance has waited long enough for a preferred
// agent: others that were declined meanwhile are asked for again.
func (c *Core) waitEnded(now time.Time) bool {
	for id, w := range c.flow.looks {
		if !w.Until.IsZero() && !now.Before(w.Until) {
			w.Until = time.Time{}
			c.flow.looks[id] = w
			c.log.Debug("an instance has waited long enough for a preferred agent", zap.String("instance", id))
			return true
		}
	}
	return false
}
