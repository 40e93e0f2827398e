package scheduler

import "slices"

// check is the funnel: the first rule that a share fails for a request. static
// is the verdict of the request's class, which depends on the agent alone.
func (d *decision) check(r *request, s *share, static verdict) verdict {
	return d.funnel(r, s, static, r.mounts, false)
}

// funnel is check with the volumes given. For a stranger, an agent that neither
// the instance's volumes nor its reservation name, the answer is the same for
// all instances of a shape; what its volumes say to strangers comes on top.
func (d *decision) funnel(r *request, s *share, static verdict, ms []mount, stranger bool) verdict {
	a := &d.agents[s.agent]
	if static != fits && static <= failsConstraint {
		return static
	}
	if r.shape.app != nil && !d.allowsBeside(r.shape, s.agent) {
		return failsConstraint
	}
	if r.bound && (stranger || !d.holdsReservation(r.inst, s)) {
		return failsReservation
	}
	if r.joins && !d.joinsHere(r, s) {
		return failsReservation
	}
	if static != fits && static <= failsDriver {
		return static
	}
	worst := fits
	for i := range ms {
		worst = first(worst, d.claimVerdict(&ms[i], r.id, a))
	}
	if static == failsZone {
		worst = first(worst, failsZone)
	}
	switch {
	case worst != fits:
		return worst
	case d.attachLimit(r, a, ms):
		return failsAttachLimit
	case !stranger && r.avoiding && d.avoids(r.inst, a):
		return failsPreference
	case d.launchLimit(s):
		return failsLaunchLimit
	}
	if v := d.fit(r, s); v != fits {
		return v
	}
	if r.bound && static == failsScarce {
		return fits // it is there already
	}
	return static
}

// avoids says whether an instance was moved off an agent and must not go back
// yet.
func (d *decision) avoids(inst *Instance, a *agent) bool {
	return inst.Avoid == a.id && d.s.Now.Before(inst.AvoidUntil)
}

// attachLimit says whether the instance's volumes would exceed what a driver
// can attach to the agent.
func (d *decision) attachLimit(r *request, a *agent, ms []mount) bool {
	if a.fact == nil || !a.fact.Known {
		return false
	}
	inst := r.inst
	for i := range inst.Volumes {
		name := inst.Volumes[i].Key.Driver
		f, _ := a.driver(name)
		if f.AttachLimit <= 0 {
			continue
		}
		more := 0
		for j := range inst.Volumes {
			if inst.Volumes[j].Key.Driver == name && (j >= len(ms) || !ms[j].attachedTo(a)) {
				more++
			}
		}
		if more > 0 && f.Attached+a.attaching(name)+more > f.AttachLimit {
			return true
		}
	}
	return false
}

// attachedTo says whether the volume is on the agent already: a bridge reports
// it, or a claim there lives.
func (m *mount) attachedTo(a *agent) bool {
	return m.says&stepAttached.bit() != 0 && slices.Contains(m.fact.AttachedTo, a.id) ||
		slices.ContainsFunc(m.claims, func(c *Claim) bool { return c.AgentID == a.id })
}

// mayUse says whether a request may take from a portion. An instance that
// reserves takes only what it can put its own reservation on.
func (r *request) mayUse(p *portion) bool {
	switch p.use {
	case useOwned:
		return p.owner == r.inst.ID && r.inst.Reservation != nil
	case useUnreserved:
		return r.shape.class.unreserved || r.reserves()
	case useReserved:
		return r.shape.class.reserved && (!r.reserves() || p.refinable(r.inst.Role))
	}
	return false
}

// reserves says whether a launch has to reserve first.
func (r *request) reserves() bool {
	return !r.plain && len(r.inst.Persistent) > 0 && r.inst.Reservation == nil
}

// refinable says whether a reservation for a role may be put on top: Mesos
// wants each level to be for a role strictly below the one before.
func (p *portion) refinable(role string) bool {
	return len(p.res.Reservations) == 0 || p.res.Role() != role && covers(p.res.Role(), role)
}

// usable totals what a request may take of a share.
func (d *decision) usable(r *request, s *share) amounts {
	if !r.shape.class.resident {
		return r.shape.class.available(s)
	}
	var t amounts
	for i := range s.free {
		if p := &s.free[i]; r.mayUse(p) {
			p.addTo(&t)
		}
	}
	return t
}

// fit is the verdict of the resources.
func (d *decision) fit(r *request, s *share) verdict {
	exact := s.overlap || !r.plain
	if exact {
		d.cut(s)
	}
	have, need := d.usable(r, s), r.shape.needs
	switch {
	case have.cpus < need.cpus:
		return failsCPUs
	case have.mem < need.mem:
		return failsMemory
	case have.disk < need.disk, !d.disksFit(r, s):
		return failsDisk
	case have.gpus < need.gpus:
		return failsGPUs
	case have.ports < need.ports, exact && !d.portsFit(r, s):
		return failsPorts
	}
	return fits
}
