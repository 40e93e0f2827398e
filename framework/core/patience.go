package core

import (
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

// waitFrom is when an instance that waits begins to wait for a preferred agent.
// While it could not be launched at all it did not wait for any: what counts is
// the first moment at which its back-off was over. The back-off belongs to the
// app, whose other instances may prolong it again and again: from that moment on
// that does not count, and before it no longer than the app's greatest launch
// delay. An instance with a place elsewhere is therefore launched there at most
// that delay and its patience after it began to wait, once no back-off is in the
// way.
func (c *Core) waitFrom(i *instance, def *app.App) time.Time {
	from := i.Ready
	if r := c.state.apps[i.App]; from.IsZero() && r != nil {
		from = r.Backoff.until(i.Config)
	}
	if most := i.Since.Add(seconds(def.MaxLaunchDelaySeconds)); from.After(most) {
		from = most
	}
	for _, hold := range []time.Time{i.Since, c.adoptUntil(i, def), i.returnUntil(), c.homeUntil(i, def)} {
		if hold.After(from) {
			from = hold
		}
	}
	return from
}

// noteReady notes, before the back-off of an app is prolonged, which of its
// instances could have been launched until now, and since when.
func (c *Core) noteReady(tx *txn, r *appRecord) {
	for _, i := range c.state.byApp[r.App.ID] {
		until := r.Backoff.until(i.Config)
		if i.Phase != waiting || !i.Ready.IsZero() || until.After(tx.now) || !i.Since.Before(tx.now) {
			continue
		}
		i.Ready = i.Since
		if until.After(i.Ready) {
			i.Ready = until
		}
		tx.saveInstance(i)
	}
}
