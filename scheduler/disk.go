package scheduler

import (
	"cmp"
	"slices"

	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// cut is a piece of a portion that becomes one persistent volume.
type cut struct {
	req     *PersistentRequest
	portion int
	size    resource.Milli
}

// disksFit says whether a share has the disks that a request needs: all of
// them or none.
func (d *decision) disksFit(r *request, s *share) bool {
	if !r.reserves() {
		return true // volumes that exist are the matter of holdsReservation
	}
	_, ok := d.cutDisks(r, s)
	return ok
}

// cutDisks finds a piece of disk for each persistent volume of a request and
// leaves enough of the agent's root disk for the task itself.
func (d *decision) cutDisks(r *request, s *share) ([]cut, bool) {
	reqs := make([]*PersistentRequest, 0, len(r.inst.Persistent))
	for i := range r.inst.Persistent {
		q := &r.inst.Persistent[i]
		if q.Shared {
			if _, exists := d.sharedHome(q); exists {
				continue // it is joined, not made
			}
		}
		reqs = append(reqs, q)
	}
	slices.SortStableFunc(reqs, func(a, b *PersistentRequest) int { return cmp.Compare(b.Size, a.Size) })
	left := make([]resource.Milli, len(s.free))
	for i := range s.free {
		if p := &s.free[i]; p.res.Name == "disk" && r.mayReserveDisk(p) {
			left[i] = p.left
		}
	}
	c := cutter{d: d, r: r, s: s, left: left, tries: cutTries}
	if !c.next(reqs) {
		return nil, false
	}
	return c.cuts, true
}

// cutTries bounds the search for disks on one agent. Greedy choice fails only
// where several volumes compete for few disks, so a small bound does.
const cutTries = 1000

// cutter tries disks for volumes one after the other and goes back where the
// rest does not fit.
type cutter struct {
	d     *decision
	r     *request
	s     *share
	left  []resource.Milli
	cuts  []cut
	tries int
}

func (c *cutter) next(reqs []*PersistentRequest) bool {
	if len(reqs) == 0 {
		return c.rootLeft() >= c.r.shape.needs.disk
	}
	for _, i := range c.candidates(reqs[0]) {
		if c.tries--; c.tries < 0 {
			return false
		}
		size := reqs[0].Size
		if reqs[0].Source == resource.SourceMount {
			size = c.left[i] // a mount disk is taken whole
		}
		c.left[i] -= size
		c.cuts = append(c.cuts, cut{reqs[0], i, size})
		if c.next(reqs[1:]) {
			return true
		}
		c.left[i] += size
		c.cuts = c.cuts[:len(c.cuts)-1]
	}
	return false
}

// rootLeft is how much of the root disk the task itself may still use.
func (c *cutter) rootLeft() resource.Milli {
	var m resource.Milli
	for i := range c.s.free {
		if p := &c.s.free[i]; p.what == disk && c.r.mayUse(p) {
			m += c.left[i]
		}
	}
	return m
}

// candidates lists the disks for a volume in the order of preference: path
// disks largest first, mount disks smallest first (contract 3.3.2).
func (c *cutter) candidates(q *PersistentRequest) []int {
	var is []int
	for i := range c.s.free {
		if c.left[i] >= q.Size && c.left[i] > 0 && c.d.diskMatches(q, &c.s.free[i], c.left[i]) {
			is = append(is, i)
		}
	}
	slices.SortStableFunc(is, func(a, b int) int {
		if q.Source == resource.SourceMount {
			return cmp.Compare(c.left[a], c.left[b])
		}
		return cmp.Compare(c.left[b], c.left[a])
	})
	return is
}

// diskMatches says whether a disk is of the kind that a volume asks for.
func (d *decision) diskMatches(q *PersistentRequest, p *portion, left resource.Milli) bool {
	info := resource.Disk{}
	if p.res.Disk != nil {
		info = *p.res.Disk
	}
	if info.Source != q.Source || info.Profile != q.Profile {
		return false
	}
	if q.Source == resource.SourceMount && (left != p.res.Scalar || q.MaxSize > 0 && left > q.MaxSize) {
		return false
	}
	for i := range q.Constraints {
		c := &q.Constraints[i]
		re := d.regexp(c.Value)
		if re == nil || re.MatchString(info.Root) != (c.Operator == Like) {
			return false
		}
	}
	return true
}

// mayReserveDisk says whether a request may make a volume of a disk.
func (r *request) mayReserveDisk(p *portion) bool {
	if p.use == useDisk {
		return p.refinable(r.inst.Role)
	}
	return p.what == disk && r.mayUse(p)
}

// holdsReservation says whether a share has all volumes that an instance has
// reserved.
func (d *decision) holdsReservation(inst *Instance, s *share) bool {
	return d.agents[s.agent].id == inst.Reservation.AgentID &&
		s.holdsVolumes(inst.ID, inst.Reservation.PersistenceIDs)
}

func (s *share) holdsVolumes(owner string, ids []string) bool {
	for _, id := range ids {
		if s.volume(owner, id) == nil {
			return false
		}
	}
	return true
}

func (s *share) volume(owner, id string) *portion {
	for i := range s.free {
		p := &s.free[i]
		if p.use == useOwned && (p.owner == owner || p.res.Shared) && p.res.IsPersistent() && p.res.Disk.PersistenceID == id {
			return p
		}
	}
	return nil
}

// found gives an instance the reservation that offers show: a reservation
// which came after it was given up is used rather than made again, and one whose
// agent has come back with a new id is used there: an agent keeps its reservations
// beyond its id (Mesos' src/slave/paths.hpp, getResourcesInfoPath).
func (d *decision) found(inst *Instance) *Instance {
	if len(inst.Persistent) == 0 {
		return inst
	}
	ids := make([]string, len(inst.Persistent))
	for i := range ids {
		ids[i] = inst.Persistent[i].PersistenceID
	}
	if was := inst.Reservation; was != nil {
		ids = was.PersistenceIDs
		if _, offered := d.byAgent[was.AgentID]; offered || was.Hostname == "" || len(ids) == 0 {
			return inst
		}
	}
	for _, si := range d.owners[inst.ID] {
		s := &d.shares[si]
		a := &d.agents[s.agent]
		if was := inst.Reservation; was != nil && (a.hostname != was.Hostname || slices.Contains(was.GivenUp, a.id)) {
			continue
		}
		if (s.role == "" || s.role == inst.Role) && s.holdsVolumes(inst.ID, ids) {
			with := *inst
			with.Reservation = &ReservationState{AgentID: a.id, Hostname: a.hostname, PersistenceIDs: ids}
			return &with
		}
	}
	return inst
}

// launchOnDisks completes a launch of an instance with persistent volumes:
// those that exist are added to what the task uses; else everything is
// reserved and the volumes are created in the same ACCEPT.
func (d *decision) launchOnDisks(r *request, s *share, l *Launch, cuts []cut) {
	if !r.reserves() {
		for _, id := range r.inst.Reservation.PersistenceIDs {
			p := s.volume(r.inst.ID, id)
			if p == nil {
				continue // named twice, and taken already
			}
			l.Resources = append(l.Resources, *p.res)
			if !p.res.Shared {
				p.use, p.left = useNone, 0
			}
		}
		return
	}
	by := resource.Reservation{
		Role: r.inst.Role, Principal: d.s.Policy.Principal, Dynamic: true, Labels: r.inst.Labels,
	}
	reserve := make([]resource.Resource, 0, len(l.Resources)+len(cuts))
	for i := range l.Resources {
		l.Resources[i] = l.Resources[i].Reserve(by)
		reserve = append(reserve, l.Resources[i])
	}
	var joined, create []resource.Resource
	for i := range r.inst.Persistent {
		if q := &r.inst.Persistent[i]; q.Shared {
			if p := s.volume(r.id, q.PersistenceID); p != nil {
				joined = append(joined, *p.res)
			}
		}
	}
	for _, c := range cuts {
		whose := by
		if c.req.inOwnName() {
			whose.Labels = c.req.Labels
		}
		piece := s.free[c.portion].res.WithScalar(c.size).Reserve(whose)
		reserve = append(reserve, piece)
		v := piece.Persist(c.req.PersistenceID, d.s.Policy.Principal, c.req.ContainerPath)
		v.Shared = c.req.Shared
		create = append(create, v)
		if v.Shared {
			d.offerShared(s, d.ownerFor(r, c.req), portion{left: v.Scalar, res: &v})
		}
	}
	s.ops = appendByProvider(s.ops, OpReserve, r.inst.ID, reserve)
	s.ops = appendByProvider(s.ops, OpCreate, r.inst.ID, create)
	l.Resources = append(append(l.Resources, create...), joined...)
}

// spendDisks takes the pieces off the share's free portions.
func (s *share) spendDisks(cuts []cut) {
	for _, c := range cuts {
		s.free[c.portion].left -= c.size
	}
}

// appendByProvider adds one operation per resource provider: Mesos takes
// resources of one provider per operation.
func appendByProvider(ops []Operation, kind OperationKind, inst string, rs []resource.Resource) []Operation {
	slices.SortStableFunc(rs, func(a, b resource.Resource) int { return cmp.Compare(a.ProviderID, b.ProviderID) })
	for len(rs) > 0 {
		n := slices.IndexFunc(rs, func(x resource.Resource) bool { return x.ProviderID != rs[0].ProviderID })
		if n < 0 {
			n = len(rs)
		}
		ops = append(ops, Operation{Kind: kind, InstanceID: inst, Resources: slices.Clip(rs[:n])})
		rs = rs[n:]
	}
	return ops
}
