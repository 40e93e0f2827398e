package scheduler

import (
	"cmp"
	"slices"

	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// A shared persistent volume is made by the first instance that names its id;
// those that come later join it: nothing is created, they run on its agent, and
// their tasks get the volume as it is offered (docs/shared-resources.md of Mesos:
// a shared volume is offered also while tasks use it, and several tasks of one
// ACCEPT may use it).

// joins says whether an instance without a reservation names a shared volume.
func joins(inst *Instance) bool {
	return inst.Reservation == nil && slices.ContainsFunc(inst.Persistent, func(q PersistentRequest) bool { return q.Shared })
}

// indexShared notes the shared volumes of a share.
func (d *decision) indexShared(si int32) {
	s := &d.shares[si]
	for i := range s.free {
		if p := &s.free[i]; p.use == useOwned && p.res.Shared && p.res.IsPersistent() {
			d.shareVolume(si, p.res.Disk.PersistenceID)
		}
	}
}

func (d *decision) shareVolume(si int32, id string) {
	if d.shared == nil {
		d.shared = make(map[string]int32)
	}
	d.shared[id] = si
}

// sharedHome says whether a shared volume exists, and which share holds it;
// negative where no offer of this round does.
func (d *decision) sharedHome(q *PersistentRequest) (share int32, exists bool) {
	if si, offered := d.shared[q.PersistenceID]; offered {
		return si, true
	}
	return -1, q.AgentID != ""
}

// inOwnName says whether a volume is reserved in its own name, not in that of the
// instance that makes it.
func (q *PersistentRequest) inOwnName() bool { return q.Shared && len(q.Labels) > 0 }

// ownerFor is in whose name a volume of a request is reserved.
func (d *decision) ownerFor(r *request, q *PersistentRequest) string {
	if q.inOwnName() {
		if owner, ours := d.ownerOf(q.Labels); ours {
			return owner
		}
	}
	return r.id
}

// makeFirst puts the launches after all other operations where a shared volume is
// made after a launch: a CREATE ends what later tasks of an ACCEPT may have of the
// shared volumes that earlier ones use (remainingSharedResources in Mesos'
// Master::_accept).
func makeFirst(ops []Operation) {
	first := slices.IndexFunc(ops, func(o Operation) bool { return o.Kind == OpLaunch })
	if first < 0 || !slices.ContainsFunc(ops[first:], func(o Operation) bool {
		return o.Kind == OpCreate && slices.ContainsFunc(o.Resources, func(r resource.Resource) bool { return r.Shared })
	}) {
		return
	}
	slices.SortStableFunc(ops, func(a, b Operation) int { return cmp.Compare(launchRank(a), launchRank(b)) })
}

func launchRank(o Operation) int {
	if o.Kind == OpLaunch {
		return 1
	}
	return 0
}

// joinsHere says whether a share has the shared volumes of a request that exist.
func (d *decision) joinsHere(r *request, s *share) bool {
	for i := range r.inst.Persistent {
		q := &r.inst.Persistent[i]
		if !q.Shared {
			continue
		}
		if si, exists := d.sharedHome(q); exists && (si < 0 || &d.shares[si] != s) {
			return false
		}
	}
	return true
}

// sharedPin is the agents that a request's shared volumes bind it to.
func (d *decision) sharedPin(r *request) (agents []int32, pinned bool) {
	for i := range r.inst.Persistent {
		q := &r.inst.Persistent[i]
		if !q.Shared {
			continue
		}
		switch si, exists := d.sharedHome(q); {
		case exists && si >= 0:
			return []int32{d.shares[si].agent}, true
		case exists:
			return d.appendAgents(nil, q.AgentID), true
		}
	}
	return nil, false
}

// offerShared has a volume that a launch of this round makes be there for the
// launches that follow.
func (d *decision) offerShared(s *share, owner string, p portion) {
	p.use, p.owner, p.what = useOwned, owner, other
	s.free = append(slices.Clip(s.free), p) // the array behind holds other shares' portions, too
	a := &d.agents[s.agent]
	for si := a.firstShare; si < a.endShare; si++ {
		if &d.shares[si] == s {
			d.shareVolume(si, p.res.Disk.PersistenceID)
		}
	}
}
