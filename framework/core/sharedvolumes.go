package core

import (
	"maps"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// A shared persistent volume belongs to all instances of its app. The first one
// that is launched makes it, the others run on the same agent with it (Mesos'
// docs/shared-resources.md). Its disk is reserved in its own name rather than in
// that of an instance, so that it outlives each of them, and it is destroyed when
// the last instance that has it is wiped.
//
// An instance has the volume from the time that it has a reservation. Until then
// it only names the one that it is going to have.

// shared names the instance's shared volume at a path, empty if it has none.
func (i *instance) shared(path string) string {
	for _, v := range i.Local {
		if v.Shared && v.ContainerPath == path {
			return v.ID
		}
	}
	return ""
}

func sharesIn(list []localVolume, volume string) bool {
	return slices.ContainsFunc(list, func(v localVolume) bool { return v.Shared && v.ID == volume })
}

// keepsShared tells whether an instance has its shared volumes and is to keep them.
func (i *instance) keepsShared() bool {
	return i.Reserved != nil && i.Reserved.Gone.IsZero() && !i.Wipe
}

// sortedOf are all instances of an app by their ids.
func (s *state) sortedOf(id app.ID) []*instance {
	return slices.SortedFunc(maps.Values(s.byApp[id]), func(a, b *instance) int { return strings.Compare(a.ID, b.ID) })
}

// settleShared has the instances of an app that only name a shared volume name the
// same: the one that the others have, else one that is made for all of them.
func (c *Core) settleShared(tx *txn) {
	waits := map[app.ID]bool{}
	for _, i := range c.state.instances {
		if i.Phase == waiting && i.Reserved == nil && slices.ContainsFunc(i.Local, func(v localVolume) bool { return v.Shared }) {
			waits[i.App] = true
		}
	}
	for id := range waits {
		list := c.state.sortedOf(id)
		for _, i := range list {
			if i.Phase == waiting && i.Reserved == nil {
				c.nameShared(tx, i, list)
			}
		}
	}
}

// nameShared names the shared volumes that an instance is going to have.
func (c *Core) nameShared(tx *txn, i *instance, all []*instance) {
	for n := range i.Local {
		v := &i.Local[n]
		if !v.Shared {
			continue
		}
		id := sharedAt(v.ContainerPath, all)
		if id == "" {
			var err error
			if id, err = newPersistenceID(i.App, v.ContainerPath); err != nil {
				c.log.Error("cannot name a new volume; the old name is used again", zap.Error(err))
				continue
			}
		}
		if id != v.ID {
			v.ID = id
			tx.saveInstance(i)
		}
	}
}

// sharedAt is the shared volume at a path of an app's instances: the one that they
// have, else the first that is only a name, empty if there is none.
func sharedAt(path string, all []*instance) (name string) {
	for _, i := range all {
		if id := i.shared(path); id != "" && i.keepsShared() {
			return id
		}
	}
	for _, i := range all {
		if id := i.shared(path); id != "" && i.Reserved == nil && !wasShared(id, all) {
			return id
		}
	}
	return ""
}

// wasShared tells whether a shared volume is or was somebody's who does not keep
// it: it is to be destroyed, or its agent is gone.
func wasShared(volume string, all []*instance) bool {
	return slices.ContainsFunc(all, func(i *instance) bool {
		return i.Reserved != nil && sharesIn(i.Local, volume) || i.Former != nil && sharesIn(i.Former.Local, volume)
	})
}

// hasOtherShared tells whether an app's instances have other shared volumes by now
// than those of one whose agent was gone.
func (c *Core) hasOtherShared(id app.ID, before []localVolume) bool {
	return slices.ContainsFunc(before, func(v localVolume) bool {
		if !v.Shared {
			return false
		}
		for _, other := range c.state.byApp[id] {
			if id := other.shared(v.ContainerPath); id != "" && id != v.ID && other.keepsShared() {
				return true
			}
		}
		return false
	})
}

// disownShared is called for an instance whose reservation did not come. If nobody
// else has its shared volumes they did not come either: should they come late, they
// are nobody's, since others may have been made by then.
func (c *Core) disownShared(tx *txn, i *instance) {
	all := c.state.sortedOf(i.App)
	for _, v := range slices.Clone(i.Local) {
		if !v.Shared || wasShared(v.ID, all) {
			continue
		}
		fresh, err := newPersistenceID(i.App, v.ContainerPath)
		if err != nil {
			c.log.Error("cannot name a new volume; the old name is used again", zap.Error(err))
			return
		}
		for _, other := range all {
			if sharesIn(other.Local, v.ID) {
				other.rename(v.ID, fresh)
				tx.saveInstance(other)
			}
		}
	}
}

// leaveFormer has an instance give its former volumes up. Nobody asked for those
// that it shared to be destroyed: should they show up, they do not go with the
// instances that were wiped alone.
func (c *Core) leaveFormer(tx *txn, i *instance) {
	if i.Former == nil {
		return
	}
	former := i.Former.Local
	i.Former = nil
	for _, other := range c.state.byApp[i.App] {
		kept := slices.DeleteFunc(slices.Clone(other.Local), func(v localVolume) bool { return v.Shared && sharesIn(former, v.ID) })
		if other.Wipe && len(kept) < len(other.Local) {
			other.Local = kept
			tx.saveInstance(other)
		}
	}
}

func (i *instance) rename(was, now string) {
	for n := range i.Local {
		if i.Local[n].ID == was {
			i.Local[n].ID = now
		}
	}
}

// share completes the request for a volume that an instance has with others.
func (c *Core) share(r *scheduler.PersistentRequest, id app.ID) {
	r.Shared = true
	r.Labels = []resource.Label{{Key: frameworkLabel, Value: c.state.meta.FrameworkID}, {Key: instanceLabel, Value: r.PersistenceID}}
	for _, i := range c.state.sortedOf(id) {
		if i.keepsShared() && sharesIn(i.Local, r.PersistenceID) {
			r.AgentID = i.Reserved.AgentID
			return
		}
	}
}

// addShared tells the scheduler which shared volumes are somebody's, and which are
// to be destroyed since all who have them are wiped.
func (c *Core) addShared(s *scheduler.Snapshot) {
	kept := map[string]bool{}
	for _, i := range c.state.instances {
		for _, v := range i.Local {
			if v.Shared {
				kept[v.ID] = kept[v.ID] || i.Phase != wiping
			}
		}
		if i.Former == nil {
			continue
		}
		for _, v := range i.Former.Local {
			if v.Shared {
				kept[v.ID] = true // it may be back
			}
		}
	}
	for id, keep := range kept {
		if keep {
			s.Known = append(s.Known, id)
		} else {
			s.Wiped = append(s.Wiped, id)
		}
	}
}

// lastOf are the shared volumes of a wiped instance that nobody has who is not
// wiped: they are destroyed with it.
func (s *state) lastOf(i *instance) (volumes []string) {
	for _, v := range i.Local {
		if !v.Shared {
			continue
		}
		kept := false
		for _, other := range s.byApp[i.App] {
			kept = kept || other.Phase != wiping && sharesIn(other.Local, v.ID) ||
				other.Former != nil && sharesIn(other.Former.Local, v.ID)
		}
		if !kept {
			volumes = append(volumes, v.ID)
		}
	}
	return volumes
}

// givenBack are the wiped instances that are done when what carries a label is
// destroyed and unreserved: one by its own name, unless a shared volume goes with
// it; else those that had the shared volume of that name.
func (s *state) givenBack(label string) []*instance {
	if i := s.instances[label]; i != nil {
		if i.Phase != wiping || len(s.lastOf(i)) > 0 {
			return nil
		}
		return []*instance{i}
	}
	var out []*instance
	for _, i := range s.instances {
		if i.Phase == wiping && sharesIn(i.Local, label) {
			out = append(out, i)
		}
	}
	return out
}
