package core

import (
	"context"
	"maps"
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

// An answer is what an inverse offer was answered with: accepted, or why not.
type answer struct {
	maintenance
	why string
}

// A drainLook is when the offers of all agents were asked for last because
// instances are to be moved off agents that are about to be unavailable, which
// there were and how many were being moved.
type drainLook struct {
	at     time.Time
	since  time.Time // of the first of the looks that found the same
	due    map[string]bool
	moving int
	// stuck are those that no offer had room for, as far as is known.
	stuck map[string]bool
}

// stuckAfter is the least time after which the offers of all agents have come that
// were asked for.
const stuckAfter = 10 * time.Second

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
// tell of it only when the time is over for which they are declined. Whoever plans
// the maintenance sees the answers in the master's maintenance status
// (docs/maintenance.md of apache/mesos), and the reasons in the log.
func (c *Core) inverseOffers(tx *txn, offers []InverseOffer) {
	answers := map[bool][]string{}
	for _, o := range offers {
		why := "it is for all that the framework has"
		if o.AgentID != "" {
			c.flow.unavailable[o.AgentID] = maintenance{o.At, o.For}
			why = c.whatStays(o.AgentID)
		}
		answers[why == ""] = append(answers[why == ""], o.ID)
		// Mesos makes it again whenever offers are asked for anew.
		if a := (answer{maintenance{o.At, o.For}, why}); c.flow.answered[o.AgentID] != a {
			c.flow.answered[o.AgentID] = a
			c.log.Info("maintenance of an agent announced", zap.String("agent", o.AgentID), zap.Time("from", o.At),
				zap.Bool("left_in_time", why == ""), zap.String("why_not", why))
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

// whatStays says what of the framework's will still be on an agent when it becomes
// unavailable, and why; empty if nothing will: nothing is there, or all of it is
// moved before, as far as is known.
func (c *Core) whatStays(agentID string) string {
	first, why := "", ""
	for _, i := range c.state.instances {
		if i.Task == nil || i.Task.AgentID != agentID || first != "" && first < i.ID {
			continue
		}
		if reason := c.whyStays(i); reason != "" {
			first, why = i.ID, reason
		}
	}
	if first == "" {
		return ""
	}
	return "instance " + first + " stays there: " + why
}

// whyStays says why an instance is not moved off an agent in time, empty if it is.
func (c *Core) whyStays(i *instance) string {
	def := c.state.definition(i)
	switch {
	case i.Moved != nil:
		return ""
	case !c.drains() || c.cfg.Policy.MaintenanceMargin <= 0:
		return "the framework moves nothing off agents before their maintenance (--max_moves, --move_draining, --draining_seconds)"
	case i.Reserved != nil || c.hasLocalVolume(i):
		return "its volumes exist on that agent only"
	case slices.ContainsFunc(i.Task.Volumes, c.sharedVolume):
		return "others use its volumes there, too"
	case def != nil && def.Labels[moveLabel] == "false":
		return "the label " + moveLabel + " of its app keeps it"
	case !c.movable(i):
		return "it does not run, or its app is being changed"
	case c.flow.drainLook.stuck[i.ID]:
		return "no other agent has room for it"
	}
	return ""
}

// tickDraining asks for offers while something is to be moved off an agent that
// is about to be unavailable: otherwise nobody would know where there is room.
// Where the last time changed nothing it is done no more often than other offers
// come back that nothing could use: each time the master offers everything again
// and makes its inverse offers anew.
func (c *Core) tickDraining(now time.Time) {
	if !c.drains() || len(c.flow.unavailable) == 0 {
		c.flow.drainLook = drainLook{}
		return
	}
	look := drainLook{at: now, since: now, due: map[string]bool{}}
	for _, i := range c.state.instances {
		if i.Moved != nil {
			look.moving++
		} else if i.Task != nil && c.leaving(i.Task.AgentID, now) && c.movable(i) {
			look.due[i.ID] = true
		}
	}
	last := &c.flow.drainLook
	same := maps.Equal(look.due, last.due) && look.moving == last.moving
	if len(look.due) == 0 {
		c.flow.drainLook = drainLook{}
		return
	}
	if look.moving >= c.cfg.Policy.MaxMoves || same && now.Sub(last.at) < c.cfg.Policy.RefuseUnfit {
		return
	}
	look.findStuck(last, same, max(c.cfg.Policy.RefuseUnfit, stuckAfter))
	c.flow.drainLook = look
	c.flow.relook = true
	c.flow.wantRevive()
}

// findStuck tells what has found no room since the last look: all that was due, if
// nothing was moved for so long although more could be. What was stuck before is so
// until it goes.
func (l *drainLook) findStuck(last *drainLook, same bool, patience time.Duration) {
	l.stuck = maps.Clone(last.stuck)
	maps.DeleteFunc(l.stuck, func(id string, _ bool) bool { return !l.due[id] })
	if !same {
		return
	}
	l.since = last.since
	if l.at.Sub(l.since) >= patience {
		l.stuck = l.due
	}
}
