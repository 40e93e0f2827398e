package scheduler

import (
	"cmp"
	"slices"
	"strings"
)

// explainBudget bounds how many pairs of agent and kind of instance a round
// looks at to explain what waits. Beyond it explanations look at a sample of
// fewer agents, which Waiting.Offers shows.
const (
	explainBudget = 2_000_000
	explainSample = 64
)

// tally is how the agents answer for one shape, volumes left aside.
type tally struct {
	looked   int
	verdicts []verdict // per share looked at
	counts   [verdicts]int
	best     *int32 // memo of bestOfTally
}

// explain makes an entry for each instance that waits. It runs when all is
// placed, so that it tells what is left, not what there was.
func (d *decision) explain() {
	d.budget = explainBudget
	d.plan.Waiting = make([]Waiting, 0, len(d.waiting))
	for i := range d.waiting {
		d.plan.Waiting = append(d.plan.Waiting, d.explainOne(&d.waiting[i]))
	}
	slices.SortFunc(d.plan.Waiting, func(a, b Waiting) int { return strings.Compare(a.InstanceID, b.InstanceID) })
}

func (d *decision) explainOne(w *wait) Waiting {
	r := w.r
	out := Waiting{InstanceID: r.inst.ID}
	if r.inst.NotBefore.After(d.s.Now) {
		out.Until = r.inst.NotBefore
		out.Counts = []ReasonCount{{BackingOff, 0}}
		out.Text = textBackOff(r.inst)
		return out
	}
	plain := w.step == nil && d.plain(r)
	if plain && r.shape.plain != nil {
		out = *r.shape.plain
		out.InstanceID = r.inst.ID
		return out
	}
	counts, best := d.count(w)
	out.Offers = d.tallyOf(r).looked
	for v, n := range counts {
		if n > 0 && verdict(v) != fits {
			out.Counts = append(out.Counts, ReasonCount{reasonOf[v], n})
		}
	}
	if best >= 0 {
		s := &d.shares[best]
		out.Best = d.agents[s.agent].hostname
		out.Lacks = d.lacks(w, s)
	}
	out.Text = d.text(w, &out)
	out.Until = d.until(w)
	if len(out.Counts) == 0 {
		out.Counts = []ReasonCount{{NoOffers, 0}}
	}
	if plain {
		r.shape.plain = &out
	}
	return out
}

// plain says whether nothing about an instance makes its explanation differ
// from that of others of its shape.
func (d *decision) plain(r *request) bool {
	return r.inst.Reservation == nil && r.inst.Avoid == "" && !d.wiped[r.inst.ID] &&
		!slices.ContainsFunc(r.mounts, func(m mount) bool { return len(m.claims) > 0 || m.fact != nil })
}

// count gives the first failing rule per agent, and the share that comes
// closest. All agents but those that the instance's volumes name answer alike
// for its shape, so only these few are looked at for the instance itself.
func (d *decision) count(w *wait) (counts [verdicts]int, best int32) {
	t := d.tallyOf(w.r)
	strangers := d.otherwise(w)
	named := d.namedShares(w)
	counts = t.countsWith(strangers)
	closest := nearest{share: -1}
	for _, si := range named {
		if int(si) >= t.looked {
			continue
		}
		counts[first(t.verdicts[si], strangers)]--
		v := d.verdictFor(w, &d.shares[si])
		counts[v]++
		closest.consider(si, d.score(w.r, si, v))
	}
	if si := d.bestOfTally(w.r, t); si >= 0 && !slices.Contains(named, si) {
		closest.consider(si, d.score(w.r, si, first(t.verdicts[si], strangers)))
	}
	return counts, closest.share
}

// countsWith is the tally if each share fails a further rule as well.
func (t *tally) countsWith(also verdict) [verdicts]int {
	counts := t.counts
	if also == fits {
		return counts
	}
	for v := also + 1; v < verdicts; v++ {
		counts[also] += counts[v]
		counts[v] = 0
	}
	counts[also] += counts[fits]
	counts[fits] = 0
	return counts
}

// nearest is the share that came closest so far.
type nearest struct {
	share int32 // negative: none yet
	score score
}

func (n *nearest) consider(si int32, sc score) {
	if n.share < 0 || sc.better(n.score) {
		n.share, n.score = si, sc
	}
}

// otherwise is what the volumes and preferences of an instance say to an agent
// that they do not name.
func (d *decision) otherwise(w *wait) verdict {
	ms := w.r.mounts
	worst := fits
	nobody := agent{}
	for i := range ms {
		worst = first(worst, d.claimVerdict(&ms[i], w.r.inst.ID, &nobody))
	}
	if w.step != nil {
		worst = first(worst, failsPreference)
	}
	return worst
}

// namedShares lists the shares on agents that the instance's reservation,
// volumes, preferences or move name.
func (d *decision) namedShares(w *wait) []int32 {
	ms := w.r.mounts
	var agents []int32
	if res := w.r.inst.Reservation; res != nil {
		agents = d.appendAgents(agents, res.AgentID)
	}
	if a, ok := d.byAgent[w.r.inst.Avoid]; ok {
		agents = append(agents, a)
	}
	for i := range ms {
		for _, c := range ms[i].claims {
			agents = d.appendAgents(agents, c.AgentID)
		}
		if f := ms[i].fact; f != nil {
			agents = d.appendNamed(agents, f.AttachedTo)
			agents = d.appendNamed(agents, f.last())
		}
	}
	if w.step != nil && w.step.zone {
		for i := range d.agents {
			if d.agents[i].zone != "" && !slices.Contains(agents, int32(i)) {
				agents = append(agents, int32(i))
			}
		}
	} else if w.step != nil {
		agents = d.appendNamed(agents, w.step.named)
	}
	var shares []int32
	for _, a := range agents {
		for si := d.agents[a].firstShare; si < d.agents[a].endShare; si++ {
			shares = append(shares, si)
		}
	}
	return shares
}

// verdictFor is the verdict of one share, the preference that the request
// waits for included.
func (d *decision) verdictFor(w *wait, s *share) verdict {
	v := d.funnel(w.r, s, d.classVerdict(w.r.shape.class, s), w.r.mounts, false)
	if w.step != nil && (v == fits || v > failsPreference) && !d.satisfies(w.step, s) {
		return failsPreference
	}
	return v
}

func (d *decision) satisfies(st *step, s *share) bool {
	if st.zone {
		a := &d.agents[s.agent]
		return a.zone != "" && !slices.ContainsFunc(st.named, func(z string) bool { return z != a.zone })
	}
	return slices.Contains(st.agents, s.agent)
}

func (d *decision) tallyOf(r *request) *tally {
	if t := r.shape.tally; t != nil {
		return t
	}
	n := len(d.shares)
	if d.budget < n {
		n = min(n, explainSample)
	}
	d.budget -= n
	t := &tally{looked: n, verdicts: make([]verdict, n)}
	for i := range n {
		s := &d.shares[i]
		v := d.funnel(r, s, d.classVerdict(r.shape.class, s), nil, true)
		t.verdicts[i] = v
		t.counts[v]++
	}
	r.shape.tally = t
	return t
}

// score says how near a share came: how late in the funnel it failed, then how
// few kinds of resources it lacks, then how large a part of them.
type score struct {
	v     verdict
	kinds int
	part  float64
}

func (a score) better(b score) bool {
	if a.v != b.v && (a.v < failsCPUs || b.v < failsCPUs) {
		return b.v != fits && (a.v == fits || a.v > b.v)
	}
	return cmp.Or(cmp.Compare(a.kinds, b.kinds), cmp.Compare(a.part, b.part)) < 0
}

func (d *decision) score(r *request, si int32, v verdict) score {
	sc := score{v: v}
	if v < failsCPUs {
		return sc
	}
	have, need := d.usable(r, &d.shares[si]), r.shape.needs
	for _, x := range [...][2]float64{
		{float64(have.cpus), float64(need.cpus)}, {float64(have.mem), float64(need.mem)},
		{float64(have.disk), float64(need.disk)}, {float64(have.gpus), float64(need.gpus)},
	} {
		if x[0] < x[1] {
			sc.kinds++
			sc.part += 1 - x[0]/x[1]
		}
	}
	if v == failsPorts || v == failsDisk && have.disk >= need.disk {
		sc.kinds++
	}
	return sc
}

func (d *decision) bestOfTally(r *request, t *tally) int32 {
	if t.best == nil {
		closest := nearest{share: -1}
		for i := range t.verdicts {
			closest.consider(int32(i), d.score(r, int32(i), t.verdicts[i]))
		}
		t.best = &closest.share
	}
	return *t.best
}
