package core

import (
	"slices"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

// freeOrdinals returns a function that hands out the lowest ordinals that no
// instance of the app has. A lost instance that is to be replaced gives its
// ordinal on: whoever takes its place takes its volumes, once their claims end.
func (c *Core) freeOrdinals(id app.ID, now time.Time) func() int {
	used := map[int]bool{}
	for _, i := range c.state.instancesOf(id) {
		if !i.inactive(c.unreachable(i), now) {
			used[i.Ordinal] = true
		}
	}
	next := 0
	return func() int {
		for used[next] {
			next++
		}
		used[next] = true
		return next
	}
}

// createInstances adds waiting instances of a definition.
func (c *Core) createInstances(tx *txn, a *app.App, n int) {
	if n > 0 {
		n -= c.resume(tx, a, n)
	}
	if n <= 0 {
		return
	}
	ordinal := c.freeOrdinals(a.ID, tx.now)
	for range n {
		c.createInstance(tx, a, ordinal())
	}
}

// byOrdinal sorts instances of an ordered app so that those to be stopped first
// come first: what has the ordinal of another, then the highest ordinals, so
// that those from 0 on are left. The order within an ordinal is kept.
func byOrdinal(list []*instance) []*instance {
	var doubles, rest []*instance
	last := map[int]*instance{}
	for _, i := range list {
		last[i.Ordinal] = i
	}
	for _, i := range list {
		if last[i.Ordinal] == i {
			rest = append(rest, i)
		} else {
			doubles = append(doubles, i)
		}
	}
	slices.SortStableFunc(rest, func(a, b *instance) int { return b.Ordinal - a.Ordinal })
	return append(doubles, rest...)
}
