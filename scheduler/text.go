package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

func textBackOff(inst *Instance) string {
	return fmt.Sprintf("is delayed until %s because earlier starts failed; a change of the app or a reset of its delay ends that",
		clock(inst.NotBefore))
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// text explains in words what an instance waits for and what would end it.
func (d *decision) text(w *wait, out *Waiting) string {
	r, ms := w.r, w.r.mounts
	if d.wiped[r.inst.ID] {
		return "waits until its volumes are destroyed, as was asked for"
	}
	var parts []string
	for i := range ms {
		if t := d.volumeText(&ms[i], r.inst.ID); t != "" {
			parts = append(parts, t)
		}
	}
	if res := r.inst.Reservation; res != nil {
		parts = append(parts, d.reservationText(res))
	}
	if agents, shared := d.sharedPin(r); shared && r.joins {
		parts = append(parts, d.sharedText(agents, r))
	}
	if w.step != nil {
		parts = append(parts, d.stepText(w))
	}
	if r.inst.Avoid != "" && d.s.Now.Before(r.inst.AvoidUntil) {
		parts = append(parts, fmt.Sprintf("it was moved off agent %s and goes back there only after %s",
			d.names([]string{r.inst.Avoid})[0], clock(r.inst.AvoidUntil)))
	}
	if len(parts) > 0 {
		if out.Best != "" && len(out.Lacks) > 0 && w.step == nil && d.pinOffered(r) {
			parts = append(parts, fmt.Sprintf("%s lacks %s", out.Best, strings.Join(out.Lacks, ", ")))
		}
		return strings.Join(parts, "; ")
	}
	if out.Offers == 0 {
		return "no agent offers resources to role " + r.inst.Role + "; it starts with the next offer that fits"
	}
	return d.funnelText(out)
}

// pinOffered says whether an agent that the request is bound to has offers.
func (d *decision) pinOffered(r *request) bool {
	agents, pinned := d.pins(r)
	return pinned && len(agents) > 0
}

func (d *decision) funnelText(out *Waiting) string {
	var b strings.Builder
	fmt.Fprintf(&b, "none of %d agents can take it:", out.Offers)
	for i, c := range out.Counts {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, " %d %s", c.Agents, inWords[c.Reason])
	}
	if out.Best != "" && len(out.Lacks) > 0 {
		fmt.Fprintf(&b, "; %s comes closest and lacks %s", out.Best, strings.Join(out.Lacks, ", "))
	}
	return b.String()
}

// inWords completes "n agents ...".
var inWords = map[Reason]string{
	UnfulfilledRole:         "offer nothing that its roles may use",
	UnfulfilledConstraint:   "do not match its constraints",
	NoReservationFound:      "do not hold its reservation",
	AgentMaintenance:        "are in maintenance or draining",
	DriverMissing:           "lack a working volume driver",
	VolumeHeldElsewhere:     "are not where its volume is held",
	VolumeReleasing:         "are not where its volume is being unmounted",
	FenceNotExpired:         "have to wait for the fence of its volume",
	VolumeIsLocal:           "do not have its local volume",
	WrongZone:               "are in another zone than its volume",
	AttachLimit:             "cannot attach more volumes",
	WaitingForPreferred:     "would do, but a better one is worth to wait for",
	LaunchLimit:             "have had their share of launches for this round",
	InsufficientCPUs:        "have too few cpus",
	InsufficientMemory:      "have too little memory",
	InsufficientDisk:        "have too little disk",
	InsufficientGPUs:        "have too few gpus",
	InsufficientPorts:       "lack free host ports",
	DeclinedScarceResources: "keep their gpus for others",
}

// volumeText says what keeps a volume, or nothing if it is free to use.
func (d *decision) volumeText(m *mount, id string) string {
	for _, c := range m.claims {
		here, there := c.onAgent(m.req, id), d.elsewhere(c, m.req, id)
		if here == fits && there == fits {
			continue
		}
		return fmt.Sprintf("volume %s (driver %s) %s", m.req.Key.Name, m.req.Key.Driver, d.claimText(c, id, here, there))
	}
	if d.foreign(m) {
		return fmt.Sprintf("volume %s (driver %s) is mounted on agent %s by somebody outside of this framework; it starts there, or elsewhere when it is unmounted",
			m.req.Key.Name, m.req.Key.Driver, strings.Join(d.names(m.fact.AttachedTo), ", "))
	}
	if m.fact != nil && m.fact.bound() {
		return fmt.Sprintf("volume %s (driver %s) exists on agent %s only; it starts when that agent has room, "+
			"or elsewhere, with a new and empty volume, once an operator marks the agent gone or releases the volume by force",
			m.req.Key.Name, m.req.Key.Driver, cmp.Or(m.fact.LastHostname, m.fact.LastAgent))
	}
	return ""
}

// claimText tells the state of a claim, given that it keeps the instance from
// starting here, there or both.
func (d *decision) claimText(c *Claim, id string, here, there verdict) string {
	host := cmp.Or(c.Hostname, c.AgentID)
	others := othersThan(c.Instances, id)
	switch {
	case c.State == Lost:
		return fmt.Sprintf("is held by agent %s, which is unreachable%s; it starts when the agent comes back, or elsewhere once an operator marks the agent gone or releases the claim by force",
			host, heldBy(others))
	case c.State == Fenced && there == failsFence:
		return fmt.Sprintf("is held by agent %s until its fence expires at %s", host, clock(c.FenceAt))
	case here != fits:
		return fmt.Sprintf("is held on agent %s%s; it starts when that has stopped and the volume is unmounted there", host, heldBy(others))
	case c.State == Releasing:
		return fmt.Sprintf("is being unmounted on agent %s; it starts there with the agent's next offer, or elsewhere when the agent's bridge confirms the unmount or an operator releases the claim by force", host)
	case len(others) > 0:
		return fmt.Sprintf("is held on agent %s%s; it starts there when the agent has room, since a shared volume stays on one agent", host, heldBy(others))
	}
	return fmt.Sprintf("is held on agent %s for this instance; it starts there when the agent has room", host)
}

func heldBy(others []string) string {
	switch len(others) {
	case 0:
		return ""
	case 1:
		return " by instance " + others[0]
	}
	return fmt.Sprintf(" by instance %s and %d more", others[0], len(others)-1)
}

func othersThan(ids []string, id string) []string {
	out := slices.DeleteFunc(slices.Clone(ids), func(s string) bool { return s == id })
	slices.Sort(out)
	return out
}

func (d *decision) reservationText(res *ReservationState) string {
	host := d.names([]string{res.AgentID})[0]
	if !res.Deadline.IsZero() {
		return fmt.Sprintf("waits until agent %s offers what was reserved there; given up at %s", host, clock(res.Deadline))
	}
	return fmt.Sprintf("its persistent volumes are on agent %s; it starts when that agent offers them", host)
}

// sharedText says where the shared volumes of a request are.
func (d *decision) sharedText(agents []int32, r *request) string {
	var hosts []string
	for _, a := range agents {
		hosts = append(hosts, d.agents[a].hostname)
	}
	if len(hosts) == 0 {
		for i := range r.inst.Persistent {
			if q := &r.inst.Persistent[i]; q.Shared && q.AgentID != "" {
				hosts = append(hosts, q.AgentID)
			}
		}
	}
	return fmt.Sprintf("a persistent volume that it shares is on agent %s; it starts when that agent offers it and has room", strings.Join(hosts, ", "))
}

func (d *decision) stepText(w *wait) string {
	if w.step.zone {
		return fmt.Sprintf("waits until %s for an agent that is known to be in zone %s, as its volumes are; after that one of unknown zone will do",
			clock(w.r.inst.waitsFrom().Add(w.step.wait)), strings.Join(w.step.named, ", "))
	}
	return fmt.Sprintf("waits until %s for agent %s, %s; after that another agent will do",
		clock(w.r.inst.waitsFrom().Add(w.step.wait)), strings.Join(d.names(w.step.named), " or "), waitForStep[w.step.kind])
}

// names turns agent ids into host names where they are known, without
// repetition.
func (d *decision) names(ids []string) []string {
	var out []string
	for _, id := range ids {
		if i, ok := d.byAgent[id]; ok {
			id = d.agents[i].hostname
		}
		if !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}

// until is when waiting ends by time alone, zero if it does not.
func (d *decision) until(w *wait) time.Time {
	ms := w.r.mounts
	if w.step != nil {
		return w.r.inst.waitsFrom().Add(w.step.wait)
	}
	t := w.r.inst.AvoidUntil
	if !t.After(d.s.Now) {
		t = time.Time{}
	}
	for i := range ms {
		for _, c := range ms[i].claims {
			switch d.elsewhere(c, ms[i].req, w.r.inst.ID) {
			case fits:
			case failsFence:
				if c.FenceAt.After(t) {
					t = c.FenceAt
				}
			default:
				return time.Time{}
			}
		}
	}
	return t
}

// lacks lists everything that keeps a share from taking a request.
func (d *decision) lacks(w *wait, s *share) []string {
	r, a := w.r, &d.agents[s.agent]
	out := d.lacksAsAgent(r, s)
	if r.inst.Reservation != nil && !d.holdsReservation(r.inst, s) {
		out = append(out, "its reservation")
	}
	ms := r.mounts
	for i := range ms {
		if v := d.claimVerdict(&ms[i], r.inst.ID, a); v != fits {
			out = append(out, fmt.Sprintf("volume %s (%s)", ms[i].req.Key, reasonOf[v]))
		}
	}
	if d.avoids(r.inst, a) {
		out = append(out, "permission to go back where it was moved off")
	}
	if d.attachLimit(r, a, ms) {
		out = append(out, "room to attach its volumes")
	}
	have, need := d.usable(r, s), r.shape.needs
	out = appendShort(out, "cpus", have.cpus, need.cpus)
	out = appendShort(out, "MiB of memory", have.mem, need.mem)
	out = appendShort(out, "MiB of disk", have.disk, need.disk)
	out = appendShort(out, "gpus", have.gpus, need.gpus)
	if have.disk >= need.disk && !d.disksFit(r, s) {
		out = append(out, "disks for its persistent volumes")
	}
	if !d.portsFit(r, s) {
		out = append(out, portsText(r, s))
	}
	return out
}

// lacksAsAgent lists what does not depend on what the agent has left.
func (d *decision) lacksAsAgent(r *request, s *share) []string {
	a, c := &d.agents[s.agent], r.shape.class
	var out []string
	if s.role != "" && s.role != c.role || !c.usable(s) {
		out = append(out, "resources for role "+c.role)
	}
	if d.remoteRegion(c.all, a) {
		out = append(out, fmt.Sprintf("the local region (it is in %s)", a.region))
	}
	out = append(out, d.failedConstraints(r, s.agent)...)
	if a.maintenance {
		out = append(out, "an end of its maintenance")
	}
	for _, name := range c.drivers {
		if f, known := a.driver(name); known && !f.Healthy {
			out = append(out, "a working driver "+name)
		}
	}
	if !c.zoneMatches(a) {
		out = append(out, fmt.Sprintf("zone %s (it is in %s)", strings.Join(c.zones, ", "), a.zone))
	}
	if a.hasGPUs && !c.gpus {
		out = append(out, "permission to use an agent with gpus")
	}
	return out
}

func (d *decision) failedConstraints(r *request, on int32) []string {
	var out []string
	p := d.agents[on].place()
	for i := range r.inst.Constraints {
		c := &r.inst.Constraints[i]
		ok := d.allowsAgent(c, &p)
		if c.counts() && r.shape.app != nil {
			ok = d.countAllows(r.shape.app, c, on)
		}
		if ok {
			continue
		}
		v, has := p.field(c.Field)
		if !has {
			v = "absent"
		}
		out = append(out, fmt.Sprintf("%s (it is %s)", strings.TrimSpace(fmt.Sprintf("%s %s %s", c.Field, c.Operator, c.Value)), v))
	}
	return out
}

func appendShort(out []string, what string, have, need resource.Milli) []string {
	if have >= need {
		return out
	}
	return append(out, fmt.Sprintf("%s %s (has %s, needs %s)", need-have, what, have, need))
}

func portsText(r *request, s *share) string {
	free := r.freePorts(s)
	for _, p := range r.inst.Ports {
		if p.Number != 0 && !resource.ContainsValue(free, uint64(p.Number)) {
			return fmt.Sprintf("host port %d", p.Number)
		}
	}
	return fmt.Sprintf("host ports (has %d, needs %d)", resource.CountRanges(free), len(r.inst.Ports))
}
