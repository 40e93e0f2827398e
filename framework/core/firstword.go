package core

import (
	"fmt"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

// firstWord bounds how long the first word of a new agent's bridge is waited for.
// A bridge answers in milliseconds, and where there is none the connection is
// refused as fast; what is waited for is a bridge that does not answer.
const firstWord = 10 * time.Second

// expectBridge notes that an agent is new: its bridge is asked for the first time.
func (c *Core) expectBridge(agentID string, now time.Time) {
	c.bridges.expected[agentID] = now.Add(firstWord)
}

// noteFirstWords forgets the bridges that have said something or were waited for
// long enough, and keeps until when to wait for the others.
func (c *Core) noteFirstWords(now time.Time) {
	c.bridges.waitUntil = time.Time{}
	if len(c.bridges.expected) == 0 {
		return
	}
	reports := c.cfg.Bridges.Reports()
	for id, until := range c.bridges.expected {
		if reports[id] != nil || !now.Before(until) {
			delete(c.bridges.expected, id)
			continue
		}
		if until.After(c.bridges.waitUntil) {
			c.bridges.waitUntil = until
		}
	}
}

// bridgesUntil is until when an instance waits because a bridge is to know of a
// volume of it before the launch, for the fence or the removal that its class asks
// for: a bridge that gets to know of it later can do neither. Zero if there is
// nothing to wait for.
func (c *Core) bridgesUntil(def *app.App) time.Time {
	if c.bridges.waitUntil.IsZero() {
		return time.Time{}
	}
	for _, n := range def.ExternalVolumes() {
		e := def.Container.Volumes[n].External
		if e.Lease(def) > 0 || e.Class != nil && e.Class.Reclaim == app.ReclaimDelete {
			return c.bridges.waitUntil
		}
	}
	return time.Time{}
}

// bridgesText says that an instance waits for bridges, empty if it does not.
func (c *Core) bridgesText(i *instance, now time.Time) string {
	def := c.state.definition(i)
	if def == nil {
		return ""
	}
	until := c.bridgesUntil(def)
	if !now.Before(until) {
		return ""
	}
	return fmt.Sprintf("waits until %s at most for the bridges of new agents, which have to know of its volumes before they are mounted "+
		"in order to fence or to remove them", until.UTC().Format(time.RFC3339))
}
