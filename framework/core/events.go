package core

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/scheduler"
)

// handleEvent takes an event of the master.
func (c *Core) handleEvent(tx *txn, ev Event) {
	switch ev := ev.(type) {
	case Subscribed:
		c.subscribed(tx, ev)
	case Disconnected:
		c.disconnected(tx, ev)
	case Offers:
		for _, o := range ev.Offers {
			c.flow.held[o.ID] = o
			c.flow.noteMaintenance(o)
			c.link.agentSeen(o.AgentID, tx.now)
		}
		c.flow.round = true
		c.noteAgents(tx, ev.Offers)
		c.agentsBack(tx, ev.Offers)
	case Rescind:
		delete(c.flow.held, ev.OfferID)
	case InverseOffers:
		c.inverseOffers(tx, ev.Offers)
	case Failure:
		c.agentFailure(tx, ev)
	case Status:
		c.handleStatus(tx, ev)
	case OperationStatus:
		c.operationStatus(tx, ev)
	case MasterError:
		c.log.Error("the master ended the subscription", zap.String("message", ev.Message))
	default:
		c.log.Warn("unknown event ignored", zap.String("type", fmt.Sprintf("%T", ev)))
	}
}

// subscribed starts a new subscription: offers are void, and every task is
// reconciled at once, since statuses were missed.
func (c *Core) subscribed(tx *txn, ev Subscribed) {
	known := c.state.meta.FrameworkID
	if known != "" && known != ev.FrameworkID && len(c.state.instances) > 0 {
		tx.fatal = fmt.Errorf("the master gave the framework id %s while tasks of %s are stored: "+
			"going on would start everything a second time; point --master at the cluster "+
			"that knows %s", ev.FrameworkID, known, known)
		return
	}
	if known != ev.FrameworkID {
		c.state.meta.FrameworkID = ev.FrameworkID
		tx.saveMeta()
	}
	c.flow.reset()
	c.flow.wantRevive()
	c.link.connected = true
	c.link.since = tx.now
	clear(c.link.agents)
	c.link.master = ev.MasterAddress
	c.link.region = ev.Region
	if ev.Roles != nil {
		c.link.roles = ev.Roles // the next tick asks for those that are missing
	}
	c.link.reconcileAt = tx.now.Add(c.cfg.ReconcileDelay)
	c.link.probeAt = tx.now
	c.info.set(func(i *Info) {
		i.FrameworkID, i.Master, i.Connected = ev.FrameworkID, ev.MasterAddress, true
	})
	c.log.Info("subscribed", zap.String("framework", ev.FrameworkID), zap.String("master", ev.MasterAddress),
		zap.String("version", ev.MasterVersion))
	tx.publish(registered(tx.now, ev, known != ""))
	c.reconcileTasks(tx)
	c.repeatKills(tx)
}

// repeatKills sends the kills again that an ended subscription, or an earlier
// life of this process, may not have sent.
func (c *Core) repeatKills(tx *txn) {
	for _, i := range c.state.allInstances() {
		if i.Task != nil && i.Task.KillWhy != "" && !i.lost() {
			c.sendKill(tx, i)
		}
	}
}

// agentsBack asks for the tasks on agents that were unreachable and now make
// offers. The master tells of tasks that returned with their agent, but not of
// those that did not.
func (c *Core) agentsBack(tx *txn, offers []scheduler.Offer) {
	back := map[string]bool{}
	for _, o := range offers {
		back[o.AgentID] = true
	}
	var refs []TaskRef
	for _, i := range c.state.instances {
		if i.lost() && back[i.Task.AgentID] {
			refs = append(refs, TaskRef{TaskID: i.Task.ID, AgentID: i.Task.AgentID})
		}
	}
	if len(refs) > 0 {
		tx.call(c.reconcileCall(refs))
	}
}

func (c *Core) disconnected(tx *txn, ev Disconnected) {
	c.flow.reset()
	clear(c.link.agents)
	c.link.connected = false
	c.info.set(func(i *Info) { i.Connected = false })
	c.log.Warn("disconnected from the master", zap.Error(ev.Cause))
	tx.publish(disconnectedEvent(tx.now))
}

// agentFailure: an agent was removed, for being unreachable or gone. Statuses
// tell the fate of its tasks; for claims without a task the master is asked.
func (c *Core) agentFailure(tx *txn, ev Failure) {
	if ev.ExecutorID != "" || ev.AgentID == "" {
		return
	}
	c.link.agentAway(ev.AgentID)
	if c.state.hasClaimOn(ev.AgentID) || c.state.hasReservationOn(ev.AgentID) || c.state.hasHomeOn(ev.AgentID) {
		c.probeAgents(tx, true)
	}
}

// operationStatus acknowledges feedback on operations. Launches give none.
func (c *Core) operationStatus(tx *txn, s OperationStatus) {
	c.operationOutcome(tx, s)
	if len(s.UUID) == 0 {
		return
	}
	tx.call(call{
		agent: s.AgentID,
		make:  func(ctx context.Context) error { return c.mesos.AcknowledgeOperation(ctx, s) },
		done: func(_ *txn, err error) {
			if err != nil {
				c.log.Info("operation status not acknowledged; it is repeated",
					zap.String("operation", s.OperationID), zap.Error(err))
			}
		},
	})
}

// reconcileTasks asks for the state of every task that is known, and of those
// that are not.
func (c *Core) reconcileTasks(tx *txn) {
	var refs []TaskRef
	for _, i := range c.state.allInstances() {
		if i.Task != nil {
			refs = append(refs, TaskRef{TaskID: i.Task.ID, AgentID: i.Task.AgentID})
		}
	}
	if len(refs) > 0 {
		tx.call(c.reconcileCall(refs))
	}
}

// reconcileCall asks for the named tasks, for all with none.
func (c *Core) reconcileCall(refs []TaskRef) call {
	return call{
		make: func(ctx context.Context) error { return c.mesos.Reconcile(ctx, refs) },
		done: func(_ *txn, err error) {
			if err != nil && !errors.Is(err, ErrNotSubscribed) {
				c.log.Warn("reconciliation not accepted by the master; it is repeated", zap.Error(err))
			}
		},
	}
}
