package scheduler

import (
	"slices"
	"time"
)

// Durations for which offers are refused where the policy says nothing.
const (
	DefaultRefuse        = 2 * time.Minute
	DefaultRefuseWaiting = 5 * time.Second
)

func (p *Policy) refuse() time.Duration {
	if p.Refuse > 0 {
		return p.Refuse
	}
	return DefaultRefuse
}

func (p *Policy) refuseWaiting() time.Duration {
	if p.RefuseWaiting > 0 {
		return p.RefuseWaiting
	}
	return DefaultRefuseWaiting
}

func (p *Policy) refuseUnfit() time.Duration {
	if p.RefuseUnfit > 0 {
		return p.RefuseUnfit
	}
	return p.refuseWaiting()
}

// economise gives back every offer that the plan does not use, and stops or
// restarts the flow of offers per role.
func (d *decision) economise() {
	waiting := d.waitingRoles()
	d.decline(waiting)
	d.flow(waiting)
}

// waitingRoles are the roles in which something needs offers: an instance that
// this plan does not launch, or data that is to be destroyed.
func (d *decision) waitingRoles() map[string]bool {
	roles := make(map[string]bool)
	for _, w := range d.waiting {
		roles[w.r.inst.Role] = true
	}
	if len(d.s.Wiped) > 0 {
		for _, r := range d.s.Roles {
			roles[r.Role] = true
		}
	}
	return roles
}

// decline refuses offers by how soon something could use them. An instance
// that began to wait later lifts refusals by a revive, so they may be long
// where nothing waits; where something does, only an agent that could not take
// it whatever it had left is refused for longer than a moment.
func (d *decision) decline(waiting map[string]bool) {
	byTime := make(map[time.Duration][]string)
	p := &d.s.Policy
	if d.shares == nil {
		all := make([]string, len(d.s.Offers))
		for i := range d.s.Offers {
			all[i] = d.s.Offers[i].ID
		}
		byTime[p.refuse()] = all
	}
	accepts := d.plan.Accepts
	for i := range d.shares {
		s := &d.shares[i]
		t := d.refuseShare(s, waiting)
		if len(s.ops) > 0 {
			accepts[0].Refuse = t
			accepts = accepts[1:]
			continue
		}
		for _, o := range s.offers {
			byTime[t] = append(byTime[t], d.s.Offers[o].ID)
		}
	}
	for t, ids := range byTime {
		if len(ids) > 0 {
			slices.Sort(ids)
			d.plan.Declines = append(d.plan.Declines, Decline{OfferIDs: ids, Refuse: t})
		}
	}
	slices.SortFunc(d.plan.Declines, func(a, b Decline) int { return int(a.Refuse - b.Refuse) })
}

func (d *decision) refuseShare(s *share, waiting map[string]bool) time.Duration {
	p := &d.s.Policy
	if s.role == "" && len(waiting) == 0 || s.role != "" && !waiting[s.role] {
		return p.refuse()
	}
	if p.refuseUnfit() > p.refuseWaiting() && d.unfit(s) {
		return p.refuseUnfit()
	}
	return p.refuseWaiting()
}

// unfit says whether an agent could take nothing that waits, whatever it had
// left.
func (d *decision) unfit(s *share) bool {
	if len(d.s.Wiped) > 0 {
		return false
	}
	for _, c := range d.waitingClasses() {
		if d.classVerdict(c, s) == fits {
			return false
		}
	}
	return true
}

// waitingClasses lists the classes of what waits, once each, up to a bound:
// beyond it offers are refused as if they were of use.
func (d *decision) waitingClasses() []*class {
	if d.unfitClasses == nil {
		d.unfitClasses = []*class{}
		for _, w := range d.waiting {
			if c := w.r.shape.class; !slices.Contains(d.unfitClasses, c) {
				d.unfitClasses = append(d.unfitClasses, c)
			}
			if len(d.unfitClasses) == mostUnfitClasses {
				break
			}
		}
	}
	return d.unfitClasses
}

const mostUnfitClasses = 64

// flow suppresses offers of roles in which nothing waits and revives them when
// something does: also where offers were refused before it began to wait.
func (d *decision) flow(waiting map[string]bool) {
	newest := make(map[string]time.Time)
	for _, w := range d.waiting {
		inst := w.r.inst
		at := inst.Since
		if inst.NotBefore.After(at) {
			at = inst.NotBefore
		}
		if !at.After(d.s.Now) && at.After(newest[inst.Role]) {
			newest[inst.Role] = at
		}
	}
	for _, r := range d.s.Roles {
		switch {
		case !waiting[r.Role] && !r.Suppressed && !d.s.Policy.NoSuppress:
			d.plan.Suppress = append(d.plan.Suppress, r.Role)
		case waiting[r.Role] && r.Suppressed,
			waiting[r.Role] && !r.FilteredAt.IsZero() && newest[r.Role].After(r.FilteredAt):
			d.plan.Revive = append(d.plan.Revive, r.Role)
		}
	}
	slices.Sort(d.plan.Suppress)
	slices.Sort(d.plan.Revive)
}
