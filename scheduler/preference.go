package scheduler

import (
	"fmt"
	"slices"
	"time"
)

// step is one step of preference: agents that are better than those of the
// next steps, and how long it is worth to wait for one of them.
type step struct {
	what   string // "where its volumes are attached"
	agents []int32
	named  []string // agents by id or host name, offered or not
	zone   bool     // agents in the volume's zone: too many to list
	wait   time.Duration
}

// steps lists the steps of preference that exist for an instance, best first.
func (d *decision) steps(inst *Instance, ms []mount) []step {
	w := d.s.Policy.Wait
	if inst.Wait != nil {
		w = *inst.Wait
	}
	var out []step
	add := func(what string, wait time.Duration, names func(*VolumeFact) []string) {
		if s := d.mostNamed(ms, names); len(s.named) > 0 {
			s.what, s.wait = what, wait
			out = append(out, s)
		}
	}
	if len(ms) == 0 {
		return nil
	}
	add("attached", w.Attached, func(f *VolumeFact) []string { return f.AttachedTo })
	add("last attached", w.LastAttached, (*VolumeFact).last)
	add("replicated", w.Replica, func(f *VolumeFact) []string { return f.Replicas })
	if zones := d.zonesOf(inst); len(zones) > 0 {
		out = append(out, step{what: "in the same zone", named: zones, zone: true, wait: w.Zone})
	}
	return out
}

// last names the agent where the volume was last: by id, and by host name in
// case the agent came back with a new id.
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
// them where the volumes are together, else the largest part.
func (d *decision) mostNamed(ms []mount, names func(*VolumeFact) []string) step {
	var s step
	var votes []int
	for i := range ms {
		if ms[i].fact == nil {
			continue
		}
		var mine []int32
		for _, n := range names(ms[i].fact) {
			if !slices.Contains(s.named, n) {
				s.named = append(s.named, n)
			}
			mine = d.appendAgents(mine, n)
		}
		for _, a := range mine {
			if j := slices.Index(s.agents, a); j >= 0 {
				votes[j]++
			} else {
				s.agents = append(s.agents, a)
				votes = append(votes, 1)
			}
		}
	}
	if len(votes) > 1 {
		most := slices.Max(votes)
		kept := s.agents[:0]
		for j, a := range s.agents {
			if votes[j] == most {
				kept = append(kept, a)
			}
		}
		s.agents = kept
	}
	slices.Sort(s.agents)
	return s
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
		for _, si := range d.agents[ai].shares {
			s := &d.shares[si]
			if d.check(r, s, d.classVerdict(r.shape.class, s)) != fits {
				continue
			}
			if k := d.key(r.shape.class, s); k < bestKey {
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
		for _, si := range d.agents[ai].shares {
			v := d.classVerdict(r.shape.class, &d.shares[si])
			if (v == fits || v > failsDriver) && !d.avoids(r.inst, &d.agents[ai]) {
				return false
			}
		}
	}
	return true
}

// prefer tries the steps of preference in order. It returns a share and why,
// or that the request has to wait for a step, or neither if any agent will do.
func (d *decision) prefer(r *request, ms []mount) (share int32, why string, wait *step) {
	steps := d.steps(r.inst, ms)
	for i := range steps {
		st := &steps[i]
		if si, ok := d.inStep(r, st); ok {
			return si, d.whyStep(st, &d.shares[si]), nil
		}
		if d.waitsFor(r, st) {
			return -1, "", st
		}
	}
	return -1, "", nil
}

// waitsFor says whether it is still worth to wait for a step.
func (d *decision) waitsFor(r *request, st *step) bool {
	return !r.inst.Since.IsZero() && st.wait > 0 && d.s.Now.Before(r.inst.Since.Add(st.wait)) && !d.hopeless(r, st)
}

func (d *decision) inStep(r *request, st *step) (int32, bool) {
	if st.zone {
		return d.find(d.inZone(r.inst), r)
	}
	return d.bestOf(r, st.agents)
}

func (d *decision) whyStep(st *step, s *share) string {
	return fmt.Sprintf("its volumes are %s on %s", st.what, d.agents[s.agent].hostname)
}
