package scheduler

import (
	"slices"
	"time"
)

// step is one step of preference: agents that are better than those of the
// next steps, and how long it is worth to wait for one of them.
type step struct {
	kind   stepKind
	agents []int32
	named  []string // agents by id or host name, offered or not, once it is waited for
	zone   bool     // agents in the volume's zone: too many to list
	wait   time.Duration
}

// stepKind is one of the steps of preference, the best first.
type stepKind int

const (
	stepAttached stepKind = iota
	stepLast
	stepReplica
	stepZone
	stepKinds
)

// whyStep and waitForStep say of an agent why it was chosen, and why it is
// waited for.
var (
	whyStep = [stepKinds]string{
		"its volumes are attached on ", "its volumes were last on ",
		"its volumes have a replica on ", "its volumes are in the zone of ",
	}
	waitForStep = [stepKinds]string{
		"where its volumes are attached", "where its volumes were last",
		"which has a replica of its volumes", "where its volumes can be attached",
	}
)

// step works out one step for a request for which something is known that would
// make agents better in this respect.
func (d *decision) step(k stepKind, r *request) step {
	st := step{kind: k, zone: k == stepZone, wait: d.patience(r.inst, k)}
	if !st.zone {
		st.agents = d.mostNamed(r.mounts, k)
	}
	return st
}

// patience is how long an instance waits for a step.
func (d *decision) patience(inst *Instance, k stepKind) time.Duration {
	w := &d.s.Policy.Wait
	if inst.Wait != nil {
		w = inst.Wait
	}
	return [stepKinds]time.Duration{w.Attached, w.LastAttached, w.Replica, w.Zone}[k]
}

// last names the agent where the volume was last, by id and host name.
func (f *VolumeFact) last() []string {
	var names []string
	if f.LastAgent != "" {
		names = append(names, f.LastAgent)
	}
	if f.LastHostname != "" {
		names = append(names, f.LastHostname)
	}
	return names
}

// mostNamed finds the agents that most volumes of an instance name: all of
// them where the volumes are together, else the largest part. The result is
// valid until the next call.
func (d *decision) mostNamed(ms []mount, k stepKind) []int32 {
	d.stepAgents = d.stepAgents[:0]
	var votes []int
	for i := range ms {
		if ms[i].says&k.bit() == 0 {
			continue
		}
		from := len(d.stepAgents)
		d.addNamed(&ms[i], k)
		if len(ms) > 1 {
			votes = d.vote(from, votes)
		}
	}
	if len(votes) > 1 {
		most := slices.Max(votes)
		kept := d.stepAgents[:0]
		for j, a := range d.stepAgents {
			if votes[j] == most {
				kept = append(kept, a)
			}
		}
		d.stepAgents = kept
	}
	slices.Sort(d.stepAgents)
	return d.stepAgents
}

// addNamed adds the agents that a volume names for a step.
func (d *decision) addNamed(m *mount, k stepKind) {
	if k == stepLast && m.last != none {
		d.stepAgents = append(d.stepAgents, m.last)
		return
	}
	from := len(d.stepAgents)
	for _, name := range d.namedBy(m.volume, k) {
		mine := d.appendAgents(d.stepAgents[from:], name)
		d.stepAgents = append(d.stepAgents[:from], mine...)
	}
}

// namedBy lists what a volume names for a step: the last agent by host name as
// well if its id has no offer, since it may have come back with a new id. The
// result is valid until the next call.
func (d *decision) namedBy(v *volume, k stepKind) []string {
	f := v.fact
	names := d.stepNames[:0]
	switch k {
	case stepAttached:
		return f.AttachedTo
	case stepReplica:
		return f.Replicas
	case stepLast:
		if f.LastAgent != "" {
			names = append(names, f.LastAgent)
		}
		if v.last == none && f.LastHostname != "" {
			names = append(names, f.LastHostname)
		}
	}
	d.stepNames = names
	return names
}

// stepNamed lists all that the volumes of a request name for a step.
func (d *decision) stepNamed(r *request, k stepKind) (names []string) {
	if k == stepZone {
		return r.zones()
	}
	for i := range r.mounts {
		if r.mounts[i].says&k.bit() == 0 {
			continue
		}
		for _, name := range d.namedBy(r.mounts[i].volume, k) {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// vote counts the agents from a place in the list on for the agents, which are
// listed once each.
func (d *decision) vote(from int, votes []int) []int {
	mine := d.stepAgents[from:]
	d.stepAgents = d.stepAgents[:from]
	for _, a := range mine {
		if j := slices.Index(d.stepAgents, a); j >= 0 {
			votes[j]++
		} else {
			d.stepAgents = append(d.stepAgents, a)
			votes = append(votes, 1)
		}
	}
	return votes
}

// appendAgents adds the agents that a name stands for: an agent id or a host
// name.
func (d *decision) appendAgents(to []int32, name string) []int32 {
	if a, ok := d.byAgent[name]; ok {
		if !slices.Contains(to, a) {
			to = append(to, a)
		}
		return to
	}
	for _, a := range d.hostAgents(name) {
		if !slices.Contains(to, a) {
			to = append(to, a)
		}
	}
	return to
}

// bestOf returns the best share among a few agents that can take the request.
func (d *decision) bestOf(r *request, agents []int32) (int32, bool) {
	best, bestKey := int32(-1), uint64(closed)
	for _, ai := range agents {
		for si := d.agents[ai].firstShare; si < d.agents[ai].endShare; si++ {
			s := &d.shares[si]
			if d.check(r, s, d.verdictOf(r.shape.class, si)) != fits {
				continue
			}
			if k := d.key(s, r.shape.class.available(s).mem); k < bestKey {
				best, bestKey = si, k
			}
		}
	}
	return best, best >= 0
}

// hopeless says whether all agents of a step are offered and none of them can
// take the instance for a reason that no waiting changes.
func (d *decision) hopeless(r *request, st *step) bool {
	if st.zone || len(st.agents) == 0 {
		return false
	}
	for _, ai := range st.agents {
		for si := d.agents[ai].firstShare; si < d.agents[ai].endShare; si++ {
			v := d.verdictOf(r.shape.class, si)
			if (v == fits || v > failsDriver) && !d.avoids(r.inst, &d.agents[ai]) {
				return false
			}
		}
	}
	return !d.missing(r, st.kind)
}

// prefer tries the steps of preference in order. It returns a share and why,
// or that the request has to wait for a step, or neither if any agent will do.
func (d *decision) prefer(r *request) (share int32, why string, wait *step) {
	for k := range stepKinds {
		if r.says&k.bit() == 0 {
			continue
		}
		st := d.step(k, r)
		if si, ok := d.inStep(r, &st); ok {
			return si, d.why(&st, &d.shares[si]), nil
		}
		if d.waitsFor(r, &st) {
			kept := st // only what is waited for needs to outlive this call
			kept.named, kept.agents = d.stepNamed(r, k), slices.Clone(st.agents)
			return -1, "", &kept
		}
	}
	return -1, "", nil
}

// waitsFor says whether it is still worth to wait for a step.
func (d *decision) waitsFor(r *request, st *step) bool {
	return !r.inst.Since.IsZero() && st.wait > 0 && d.s.Now.Before(r.inst.waitsFrom().Add(st.wait)) && !d.hopeless(r, st)
}

func (d *decision) inStep(r *request, st *step) (int32, bool) {
	if st.zone {
		return d.find(d.inZone(r), r)
	}
	return d.bestOf(r, st.agents)
}

func (d *decision) why(st *step, s *share) string {
	return whyStep[st.kind] + d.agents[s.agent].hostname
}
