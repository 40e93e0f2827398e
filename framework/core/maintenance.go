package core

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/scheduler"
)

// maintenance is an announced time without an agent; length 0 has no end.
type maintenance struct {
	from   time.Time
	length time.Duration
}

// An answer is what an inverse offer was answered with.
type answer struct {
	maintenance
	accept bool
}

// A drainLook is when the offers of all agents were asked for last because
// instances are to be moved off agents that are about to be unavailable, and how
// many there were and were being moved.
type drainLook struct {
	at          time.Time
	due, moving int
}

// noteMaintenance remembers what an offer announces: whoever moves instances off
// an agent has to know also while none of its offers is at hand.
func (f *offerFlow) noteMaintenance(o scheduler.Offer) {
	if o.UnavailableFrom.IsZero() {
		delete(f.unavailable, o.AgentID)
		delete(f.answered, o.AgentID)
		return
	}
	f.unavailable[o.AgentID] = maintenance{o.UnavailableFrom, o.UnavailableFor}
}

// addDraining tells the scheduler which agents are about to be unavailable.
func (c *Core) addDraining(s *scheduler.Snapshot, now time.Time) {
	margin := c.cfg.Policy.MaintenanceMargin
	if margin < 0 {
		return
	}
	for id, m := range c.flow.unavailable {
		if m.length > 0 && now.After(m.from.Add(m.length)) {
			delete(c.flow.unavailable, id)
			continue
		}
		if !c.leaving(id, now) {
			continue
		}
		at := slices.IndexFunc(s.Agents, func(f scheduler.AgentFact) bool { return f.AgentID == id })
		if at < 0 {
			s.Agents = append(s.Agents, scheduler.AgentFact{AgentID: id})
			at = len(s.Agents) - 1
		}
		s.Agents[at].Draining = true
	}
}

// leaving tells whether an agent is about to be unavailable, as early as the
// policy wants to know.
func (c *Core) leaving(agentID string, now time.Time) bool {
	m, announced := c.flow.unavailable[agentID]
	margin := c.cfg.Policy.MaintenanceMargin
	return announced && margin >= 0 && !now.Before(m.from.Add(-margin)) && (m.length == 0 || !now.After(m.from.Add(m.length)))
}

// inverseOffers answers whether agents will have been left when they become
// unavailable, and sees to it: the master sends these at once, where offers would
// tell of it only when the time is over for which they are declined.
func (c *Core) inverseOffers(tx *txn, offers []InverseOffer) {
	answers := map[bool][]string{}
	for _, o := range offers {
		accept := false // not of all that the framework has
		if o.AgentID != "" {
			c.flow.unavailable[o.AgentID] = maintenance{o.At, o.For}
			accept = c.leavesInTime(o.AgentID)
		}
		answers[accept] = append(answers[accept], o.ID)
		// Mesos makes it again whenever offers are asked for anew.
		if a := (answer{maintenance{o.At, o.For}, accept}); c.flow.answered[o.AgentID] != a {
			c.flow.answered[o.AgentID] = a
			c.log.Info("maintenance of an agent announced", zap.String("agent", o.AgentID), zap.Time("from", o.At), zap.Bool("left_in_time", accept))
		}
	}
	for accept, ids := range answers {
		tx.call(call{
			make: func(ctx context.Context) error {
				return c.mesos.AnswerInverseOffers(ctx, ids, accept, c.cfg.Policy.Refuse)
			},
			done: func(_ *txn, err error) {
				if err != nil {
					c.log.Info("inverse offers not answered; the master asks again", zap.Strings("offers", ids), zap.Error(err))
				}
			},
		})
	}
	c.flow.round = true
	c.tickDraining(tx.now)
}

// drains tells whether the policy moves instances off agents before these become
// unavailable.
func (c *Core) drains() bool { return c.mayMove() && c.cfg.Policy.Drain }

// leavesInTime tells whether nothing of the framework's will be on an agent when
// it becomes unavailable: nothing is, or all of it is moved before.
func (c *Core) leavesInTime(agentID string) bool {
	for _, i := range c.state.instances {
		if i.Task == nil || i.Task.AgentID != agentID {
			continue
		}
		if !c.drains() || c.cfg.Policy.MaintenanceMargin <= 0 || !c.movable(i) && i.Moved == nil {
			return false
		}
	}
	return true
}

// tickDraining asks for offers while something is to be moved off an agent that
// is about to be unavailable: otherwise nobody would know where there is room.
// Where the last time changed nothing it is done no more often than other offers
// come back that nothing could use: each time the master offers everything again
// and makes its inverse offers anew.
func (c *Core) tickDraining(now time.Time) {
	if !c.drains() || len(c.flow.unavailable) == 0 {
		return
	}
	look := drainLook{at: now}
	for _, i := range c.state.instances {
		if i.Moved != nil {
			look.moving++
		} else if i.Task != nil && c.leaving(i.Task.AgentID, now) && c.movable(i) {
			look.due++
		}
	}
	last := c.flow.drainLook
	same := look.due == last.due && look.moving == last.moving
	if look.due == 0 || look.moving >= c.cfg.Policy.MaxMoves || same && now.Sub(last.at) < c.cfg.Policy.RefuseUnfit {
		return
	}
	c.flow.drainLook = look
	c.flow.relook = true
	c.flow.wantRevive()
}
