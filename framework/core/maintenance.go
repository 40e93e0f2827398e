package core

import (
	"slices"
	"time"

	"github.com/mesos-dvdi/dvdi/scheduler"
)

// maintenance is an announced time without an agent; length 0 has no end.
type maintenance struct {
	from   time.Time
	length time.Duration
}

// noteMaintenance remembers what an offer announces: whoever moves instances off
// an agent has to know also while none of its offers is at hand.
func (f *offerFlow) noteMaintenance(o scheduler.Offer) {
	if o.UnavailableFrom.IsZero() {
		delete(f.unavailable, o.AgentID)
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
		if now.Before(m.from.Add(-margin)) {
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
