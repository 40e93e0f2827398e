package core

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// LeftoverView is what carries our labels on an agent although nothing runs or
// will run on it. It may hold data: only an operator can say that it does not, by
// destroying it.
type LeftoverView struct {
	AgentID, Hostname string
	InstanceID        string
	// PersistenceIDs are those of its volumes, empty if there are none.
	PersistenceIDs []string
	// Bytes is the disk space of it all.
	Bytes int64
	// Text says in words why it is left alone and how to get rid of it.
	Text string
}

type leftoverKey struct{ agentID, instanceID string }

// keptAside is what is known of a leftover.
type keptAside struct {
	view      LeftoverView
	resources []resource.Resource
}

// diskBytes is the disk space of resources; a shared volume that shows more than
// once is one.
func diskBytes(list []resource.Resource) int64 {
	var mib resource.Milli
	seen := map[string]bool{}
	for _, r := range list {
		if r.Name != "disk" || r.IsPersistent() && seen[r.Disk.PersistenceID] {
			continue
		}
		if r.IsPersistent() {
			seen[r.Disk.PersistenceID] = true
		}
		mib += r.Scalar
	}
	return int64(mib) * (1 << 20) / 1000
}

// addHome tells the scheduler where an instance that does not wait has its
// reservation: what shows of it elsewhere came when it had been given up.
func addHome(s *scheduler.Snapshot, i *instance) {
	if i.Reserved == nil || i.Phase == waiting || i.Phase == wiping {
		return
	}
	if s.Homes == nil {
		s.Homes = map[string]scheduler.ReservationState{}
	}
	s.Homes[i.ID] = scheduler.ReservationState{AgentID: i.Reserved.AgentID, Hostname: i.Reserved.Hostname, GivenUp: i.GivenUp}
}

// noteLeftovers keeps for GET /v2/volumes, and logs once, what is ours on agents
// without anybody's running on it, or takes it over where that is asked for.
func (c *Core) noteLeftovers(tx *txn, offers []scheduler.Offer, list []scheduler.Leftover) {
	before := map[leftoverKey]bool{}
	if len(c.flow.leftovers) > 0 {
		offered := map[string]bool{}
		for _, o := range offers {
			offered[o.AgentID] = true
		}
		for k := range c.flow.leftovers {
			if offered[k.agentID] {
				before[k] = true
				delete(c.flow.leftovers, k)
			}
		}
	}
	for _, l := range list {
		// An app for it may have come since it was logged.
		if c.state.instances[l.InstanceID] == nil && c.adopt(tx, l) {
			continue
		}
		k := leftoverKey{l.AgentID, l.InstanceID}
		if last, again := c.flow.leftovers[k]; again { // in another role's offers
			l.PersistenceIDs = append(last.view.PersistenceIDs, l.PersistenceIDs...)
			l.Resources = append(last.resources, l.Resources...)
		}
		v := LeftoverView{AgentID: l.AgentID, Hostname: l.Hostname, InstanceID: l.InstanceID, PersistenceIDs: l.PersistenceIDs,
			Bytes: diskBytes(l.Resources), Text: c.leftoverText(l)}
		c.flow.leftovers[k] = keptAside{v, l.Resources}
		if !before[k] {
			before[k] = true
			c.log.Warn("resources carry our labels, but nothing runs on them; they are left alone",
				zap.String("instance", l.InstanceID), zap.String("agent", l.AgentID), zap.String("host", l.Hostname),
				zap.Strings("volumes", l.PersistenceIDs), zap.String("text", v.Text))
		}
	}
}

func (c *Core) leftoverText(l scheduler.Leftover) string {
	why := "no instance of that name is known"
	if i := c.state.instances[l.InstanceID]; i != nil {
		why = "the instance has made new volumes"
		if i.Reserved != nil {
			why = fmt.Sprintf("the instance has its volumes on agent %s (%s)", i.Reserved.Hostname, i.Reserved.AgentID)
		}
	}
	what := "resources are"
	if len(l.PersistenceIDs) > 0 {
		what = fmt.Sprintf("volumes %s are", strings.Join(l.PersistenceIDs, ", "))
	}
	return fmt.Sprintf("%s reserved on agent %s (%s) for instance %s, and nothing runs on them: %s. They are left alone, since they may hold data. "+
		"After you made sure that nobody needs it, destroy and unreserve them with the operator API of Mesos (DESTROY_VOLUMES, UNRESERVE_RESOURCES)",
		what, l.Hostname, l.AgentID, l.InstanceID, why)
}

// Leftovers implements Service: what the latest offers of each agent showed since
// the framework started.
func (c *Core) Leftovers(ctx context.Context) ([]LeftoverView, error) {
	return look(ctx, c, func(*txn) (out []LeftoverView, err error) {
		for _, l := range c.flow.leftovers {
			v := l.view
			v.PersistenceIDs = slices.Clone(v.PersistenceIDs)
			out = append(out, v)
		}
		slices.SortFunc(out, func(a, b LeftoverView) int {
			return cmp.Or(strings.Compare(a.AgentID, b.AgentID), strings.Compare(a.InstanceID, b.InstanceID))
		})
		return out, nil
	})
}
