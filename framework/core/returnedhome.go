package core

import (
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

// A local volume outlives the id of its host's agent as a persistent one does, but
// no offer shows it: that the host is back, under whatever id, is all that there is
// to know. Where its disks were lost with the id nothing is lost by going there.

// homesLost notes that an agent with local volumes is gone for good. They are on its
// host as soon as that has another agent; until then what waits for them starts with
// new ones elsewhere after returnPatience.
func (tx *txn) homesLost(agentID string) {
	c := tx.c
	for _, v := range c.state.sortedVolumes() {
		if !v.Home.localOn(agentID) {
			continue
		}
		c.log.Warn("the agent with a local volume is gone for good", zap.String("driver", v.Key.Driver),
			zap.String("volume", v.Key.Name), zap.String("agent", agentID), zap.String("host", v.Home.Hostname))
		gone := *v.Home
		gone.Gone = tx.now
		v.Home = &gone
		tx.saveVolume(v)
		c.flow.wantRevive()
	}
	c.homesGone = true
	c.noteReturnedHomes(tx)
}

// localOn tells whether a local volume is on an agent that is not known to be gone.
func (h *home) localOn(agentID string) bool {
	return h != nil && h.Local && h.AgentID == agentID && h.Gone.IsZero()
}

// isGone tells whether the agent with a local volume was marked gone.
func (h *home) isGone() bool { return h != nil && !h.Gone.IsZero() }

// noteReturnedHomes finds local volumes on the hosts that they were on, which have
// other agents now.
func (c *Core) noteReturnedHomes(tx *txn) {
	if !c.homesGone {
		return
	}
	c.homesGone = false
	var agents map[string]string // by host
	for _, v := range c.state.sortedVolumes() {
		if !v.Home.isGone() {
			continue
		}
		if agents == nil {
			agents = c.agentsOnHosts()
		}
		id := agents[v.Home.Hostname]
		if id == "" || id == v.Home.AgentID {
			c.homesGone = true
			continue
		}
		c.log.Info("the host of a local volume has another agent", zap.String("driver", v.Key.Driver), zap.String("volume", v.Key.Name),
			zap.String("was", v.Home.AgentID), zap.String("agent", id), zap.String("host", v.Home.Hostname))
		back := *v.Home
		back.AgentID, back.Gone = id, time.Time{}
		v.Home = &back
		tx.saveVolume(v)
		c.flow.wantRevive()
	}
}

// agentsOnHosts are the agents that are known to be there, by their host's name:
// they make offers, run tasks or their bridges answer.
func (c *Core) agentsOnHosts() map[string]string {
	out := map[string]string{}
	if c.cfg.Bridges != nil {
		reports := c.cfg.Bridges.Reports()
		for _, id := range sortedKeys(c.bridges.seen) {
			if reports[id].known() {
				out[c.bridges.seen[id].agent.Hostname] = id
			}
		}
	}
	for _, i := range c.state.allInstances() {
		if i.running() && !i.Forgotten {
			out[i.Task.Hostname] = i.Task.AgentID
		}
	}
	for _, o := range c.flow.held {
		out[o.Hostname] = o.AgentID
	}
	return out
}

// homeUntil is when an instance may start without a local volume whose agent is
// gone, zero if there is none: then its host has had time to come back.
func (c *Core) homeUntil(i *instance, def *app.App) (until time.Time) {
	if !c.homesGone {
		return until
	}
	for key := range places(def.ForInstance(i.Ordinal)) {
		v := c.state.volumes[key]
		if v == nil || !v.Home.isGone() || c.everywhere(v, i) {
			continue
		}
		for _, since := range []time.Time{v.Home.Gone, i.Since} {
			if end := since.Add(returnPatience); end.After(until) {
				until = end
			}
		}
	}
	return until
}

// homeText says that an instance waits for the host of a local volume, empty if it
// does not.
func (c *Core) homeText(i *instance, now time.Time) string {
	def := c.state.definition(i)
	if def == nil {
		return ""
	}
	until := c.homeUntil(i, def)
	if !now.Before(until) {
		return ""
	}
	return fmt.Sprintf("waits until %s for the host of its local volumes, whose agent was marked gone, to come back under a new id of that agent; "+
		"without it, it starts elsewhere with new ones", until.UTC().Format(time.RFC3339))
}

// forgetGoneHomes forgets local volumes whose host has not come back.
func (c *Core) forgetGoneHomes(tx *txn) {
	if !c.homesGone {
		return
	}
	for _, v := range c.state.volumes {
		if !v.Home.isGone() || tx.now.Before(v.Home.Gone.Add(returnWindow)) {
			continue
		}
		c.log.Warn("a local volume is forgotten: its agent was marked gone and its host has not come back",
			zap.String("driver", v.Key.Driver), zap.String("volume", v.Key.Name), zap.String("host", v.Home.Hostname))
		v.Home = nil
		tx.saveVolume(v)
	}
}
