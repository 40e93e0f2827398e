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

// WithDefaults returns the policy that Decide follows: durations of refusal
// that are not set are filled in, since Mesos would make a refused offer again
// at once.
func (p Policy) WithDefaults() Policy {
	if p.Refuse <= 0 {
		p.Refuse = DefaultRefuse
	}
	if p.RefuseWaiting <= 0 {
		p.RefuseWaiting = DefaultRefuseWaiting
	}
	if p.RefuseUnfit <= 0 {
		p.RefuseUnfit = p.RefuseWaiting
	}
	return p
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
		byTime[p.Refuse] = all
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
		return p.Refuse
	}
	if p.RefuseUnfit > p.RefuseWaiting && d.unfit(s) {
		return p.RefuseUnfit
	}
	return p.RefuseWaiting
}

// unfit says whether an agent could take nothing that waits, whatever it had
// left: it fails a rule about the agent itself, or what waits is bound to other
// agents by something of which the end is no matter of time.
func (d *decision) unfit(s *share) bool {
	if d.prospects == nil {
		d.prospects = d.findProspects()
	}
	p := d.prospects
	fit := func(c *class) bool { return d.classVerdict(c, s) == fits }
	return !p.many && !slices.ContainsFunc(p.anywhere, fit) && !slices.ContainsFunc(p.bound[s.agent], fit)
}

// prospects are the classes of what waits.
type prospects struct {
	many     bool // too many to tell: any agent may be of use
	anywhere []*class
	bound    map[int32][]*class // by the agents that they are bound to
}

const mostProspects = 64

func (d *decision) findProspects() *prospects {
	p := &prospects{many: len(d.s.Wiped) > 0, bound: make(map[int32][]*class)}
	for i := range d.waiting {
		w := &d.waiting[i]
		c := w.r.shape.class
		if agents, pinned := d.pins(w.r); pinned && d.until(w).IsZero() {
			for _, a := range agents {
				if !slices.Contains(p.bound[a], c) {
					p.bound[a] = append(p.bound[a], c)
				}
			}
		} else if !slices.Contains(p.anywhere, c) {
			p.anywhere = append(p.anywhere, c)
		}
		if len(p.anywhere) > mostProspects {
			p.many = true
			return p
		}
	}
	return p
}

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
		case !waiting[r.Role] && !r.Suppressed && !d.s.Policy.NoSuppress && !d.s.Policy.moves():
			d.plan.Suppress = append(d.plan.Suppress, r.Role)
		case (waiting[r.Role] || d.s.Policy.moves()) && r.Suppressed,
			waiting[r.Role] && !r.FilteredAt.IsZero() && newest[r.Role].After(r.FilteredAt):
			d.plan.Revive = append(d.plan.Revive, r.Role)
		}
	}
	slices.Sort(d.plan.Suppress)
	slices.Sort(d.plan.Revive)
}
