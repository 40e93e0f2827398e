package scheduler

import (
	"slices"

	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// expire lists the reservations that never came: no offer shows them and their
// deadline is over.
func (d *decision) expire() {
	for i := range d.requests {
		if !d.requests[i].bound {
			continue
		}
		inst := d.requests[i].inst
		res := inst.Reservation
		if res.Deadline.IsZero() || d.s.Now.Before(res.Deadline) {
			continue
		}
		if !slices.ContainsFunc(d.owners[inst.ID], func(si int32) bool { return d.holdsReservation(inst, &d.shares[si]) }) {
			d.plan.Expired = append(d.plan.Expired, inst.ID)
		}
	}
	slices.Sort(d.plan.Expired)
}

// fate is what happens to what an instance has reserved.
type fate uint8

const (
	keep    fate = iota
	destroy      // the user asked for it: volumes and reservations go
	free         // reservations without data go
	report       // nobody knows the instance
	stray        // it is not what the instance runs on: data is told of, the rest goes
)

// kept is what happens to what an instance has reserved. home is the agent where
// that is kept, nil: wherever it shows.
type kept struct {
	fate fate
	home *ReservationState
}

// on says what happens on an agent. What an instance has on its host under
// another id is its own, unless an attempt there was given up.
func (k kept) on(a *agent) fate {
	if k.fate != keep || k.home == nil || k.home.AgentID == a.id {
		return k.fate
	}
	sameHost := k.home.Hostname == "" || k.home.Hostname == a.hostname // as far as is known
	if sameHost && !slices.Contains(k.home.GivenUp, a.id) {
		return keep
	}
	return stray
}

// release destroys and unreserves what the snapshot says, and lists what is
// ours without being anybody's. Resources that do not carry our labels never
// get here: classify gives them no owner.
func (d *decision) release() {
	if len(d.owners) == 0 {
		return
	}
	fates := d.fates()
	for si := range d.shares {
		s := &d.shares[si]
		for _, id := range s.ownersLeft() {
			k, known := fates[id]
			f := k.on(&d.agents[s.agent])
			if !known {
				f = report
				if d.s.Policy.ReleaseUnknown && !s.hasVolumes(id) {
					f = free
				}
			}
			switch f {
			case destroy:
				s.giveBack(id, true)
			case free:
				s.giveBack(id, false)
			case stray:
				s.giveBack(id, false)
				if s.hasVolumes(id) {
					d.plan.Leftovers = append(d.plan.Leftovers, d.leftover(s, id))
				}
			case report:
				d.plan.Leftovers = append(d.plan.Leftovers, d.leftover(s, id))
			}
		}
	}
}

func (d *decision) fates() map[string]kept {
	fates := make(map[string]kept, len(d.s.Known)+len(d.s.Placed)+len(d.requests))
	home := func(id string) *ReservationState {
		if h, known := d.s.Homes[id]; known {
			return &h
		}
		return nil
	}
	for _, id := range d.s.Known {
		fates[id] = kept{keep, home(id)}
	}
	for i := range d.s.Placed {
		id := d.s.Placed[i].ID
		fates[id] = kept{keep, home(id)}
	}
	for i := range d.requests {
		inst := d.requests[i].inst
		if inst.Reservation == nil {
			// It has given up an earlier reservation, of which a part shows.
			fates[inst.ID] = kept{fate: stray}
		} else {
			fates[inst.ID] = kept{keep, inst.Reservation}
		}
		for j := range inst.Persistent {
			if q := &inst.Persistent[j]; q.inOwnName() {
				fates[d.ownerFor(&d.requests[i], q)] = kept{fate: keep}
			}
		}
	}
	for _, id := range d.s.Wiped {
		fates[id] = kept{fate: destroy}
	}
	return fates
}

// ownersLeft lists the instances that have something reserved in the share
// which this plan does not use.
func (s *share) ownersLeft() []string {
	var ids []string
	for i := range s.free {
		if p := &s.free[i]; p.use == useOwned && !p.spent() && !slices.Contains(ids, p.owner) {
			ids = append(ids, p.owner)
		}
	}
	slices.Sort(ids)
	return ids
}

func (p *portion) spent() bool {
	return p.res.Kind == resource.Scalar && p.left <= 0 || p.res.Kind == resource.Ranges && len(p.ranges) == 0
}

func (s *share) hasVolumes(owner string) bool {
	return slices.ContainsFunc(s.free, func(p portion) bool {
		return p.use == useOwned && p.owner == owner && p.res.IsPersistent()
	})
}

// giveBack destroys an instance's volumes, if asked to, and unreserves the
// rest. Volumes that are not destroyed stay reserved.
func (s *share) giveBack(id string, volumes bool) {
	var destroyed, unreserved []resource.Resource
	for i := range s.free {
		p := &s.free[i]
		if p.use != useOwned || p.owner != id || p.spent() || p.res.IsPersistent() && !volumes {
			continue
		}
		if p.res.IsPersistent() {
			if p.res.Shared && slices.ContainsFunc(destroyed, func(r resource.Resource) bool {
				return r.Disk.PersistenceID == p.res.Disk.PersistenceID
			}) {
				p.use = useNone // in another of the offers, too
				continue
			}
			destroyed = append(destroyed, *p.res)
		}
		unreserved = append(unreserved, p.rest().WithoutPersistence())
		p.use = useNone
	}
	s.ops = appendByProvider(s.ops, OpDestroy, id, destroyed)
	s.ops = appendByProvider(s.ops, OpUnreserve, id, unreserved)
}

func (d *decision) leftover(s *share, id string) Leftover {
	a := &d.agents[s.agent]
	l := Leftover{AgentID: a.id, Hostname: a.hostname, InstanceID: id}
	for i := range s.free {
		p := &s.free[i]
		if p.use != useOwned || p.owner != id || p.spent() {
			continue
		}
		if p.res.IsPersistent() {
			l.PersistenceIDs = append(l.PersistenceIDs, p.res.Disk.PersistenceID)
		}
		l.Resources = append(l.Resources, p.rest())
	}
	return l
}
