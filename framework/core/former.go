package core

import (
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

// When the framework gives up its id (Abandon), its tasks end without a word to
// it: the master tells each agent to end them once that agent is registered, and
// the executors have a grace period then. volumeRecord.Ending remembers where.

// defaultEndingHold is the time within which a task of a former framework id has ended on an
// agent that is registered: the agents' executor_shutdown_grace_period is 5 s
// unless told otherwise.
const defaultEndingHold = time.Minute

// agentSeen notes that an agent is registered: it makes offers.
func (l *link) agentSeen(agentID string, now time.Time) {
	if _, known := l.agents[agentID]; !known {
		l.agents[agentID] = now
	}
}

// agentAway notes that an agent is not registered any more.
func (l *link) agentAway(agentID string) { delete(l.agents, agentID) }

// endingUntil is until when nothing may use what a definition mounts, because
// tasks of a former framework id may still be ending with it; zero means now. It
// counts from when their agent was seen to be registered. Where the claim does not
// bind the volume to that agent, because the backend refuses two attachments, an
// agent that does not show up holds up nobody for longer.
func (c *Core) endingUntil(i *instance, def *app.App) (until time.Time) {
	for _, r := range c.requestsOf(i, def) {
		v := c.state.volumes[r.Key]
		if v == nil || v.Ending == "" {
			continue
		}
		from := c.link.since
		if seen, ok := c.link.agents[v.Ending]; ok {
			from = seen
		}
		if at := from.Add(c.cfg.EndingHold); at.After(until) {
			until = at
		}
	}
	return until
}

// tickEnding frees the volumes whose agents have been registered for long enough.
func (c *Core) tickEnding(tx *txn) {
	for _, v := range c.state.volumes {
		seen, ok := c.link.agents[v.Ending]
		if v.Ending == "" || !ok || tx.now.Before(seen.Add(c.cfg.EndingHold)) {
			continue
		}
		c.log.Info("the task of a former framework id should have ended; its volume is used again",
			zap.String("driver", v.Key.Driver), zap.String("volume", v.Key.Name), zap.String("agent", v.Ending))
		v.Ending = ""
		tx.saveVolume(v)
		c.flow.wantRevive()
	}
}
