package scheduler

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"regexp"
	"slices"
)

// decision is the state of one round. It lives for one call of Decide.
type decision struct {
	s *Snapshot

	agents  []agent
	shares  []share
	byAgent map[string]int32
	byHost  map[string][]int32 // nil until needed
	facts   map[string]*AgentFact
	// ordered are the places in the snapshot of the pending instances, in the order
	// in which these are placed; turn is the reverse.
	ordered, turn []int32
	// mounts are those of all requests, in order of placing; firstMount is by turn
	// and has one more at the end.
	mounts     []mount
	firstMount []int32

	classes  map[string]*class
	shapes   map[string]*shape
	patterns map[string]*regexp.Regexp
	shared   map[string]int32   // shares by the shared persistent volume that they hold, nil for none
	owners   map[string][]int32 // shares by the instance that reserved in them
	requests []request
	queue    []queued // launches of all shares, not all of them cut
	waiting  []wait
	barred   []wait // those that this round may not place
	fields   map[string]*field

	wiped     map[string]bool
	moved     map[string]int32 // instances stopped to be moved, and the shares that have room
	budget    int              // what is left of explainBudget
	prospects *prospects       // of what waits, nil until needed

	last   leafOf
	keyBuf []byte
	// stepNames and stepAgents hold those of the step of preference at hand.
	stepNames  []string
	stepAgents []int32
	room       room
	plan       Plan
}

// wait is a request that this round could not place.
type wait struct {
	r    *request
	step *step // the preference that it waits for, nil if none
	// version is that of the app when it was tried: constraints that count
	// may answer otherwise at a later one.
	version int
}

// Decide returns what should be done about a snapshot. It is pure: the same
// snapshot gives the same plan, whatever the order of its slices, and the
// snapshot is not changed.
//
// Within a plan each launch sees what those before it take: resources, host
// ports, exclusive volumes, attach limits and counted constraints.
func Decide(snapshot Snapshot) Plan {
	snapshot.Policy = snapshot.Policy.WithDefaults()
	d := &decision{s: &snapshot}
	if d.idle() {
		d.economise()
		return d.plan
	}
	d.prepare()
	d.indexOffers()
	d.indexVolumes()
	d.readRequests(d.countPlaced())
	d.expire()
	d.room = newRoom(len(d.requests))
	d.queue = make([]queued, 0, len(d.requests))
	d.place()
	for i := range d.shares {
		d.cut(&d.shares[i])
	}
	d.release()
	d.accept()
	d.economise()
	d.explain()
	d.move()
	return d.plan
}

// idle says whether the offers need not even be looked at.
func (d *decision) idle() bool {
	return len(d.s.Pending) == 0 && len(d.s.Wiped) == 0 && d.s.Policy.MaxMoves == 0 && !d.labelled()
}

// labelled says whether an offer holds a reservation that may be ours.
func (d *decision) labelled() bool {
	if len(d.s.Policy.Ours) == 0 {
		return false
	}
	for i := range d.s.Offers {
		rs := d.s.Offers[i].Resources
		for j := range rs {
			if len(rs[j].Reservations) > 0 && len(rs[j].ReservationLabels()) > 0 {
				return true
			}
		}
	}
	return false
}

func (d *decision) prepare() {
	s := d.s
	d.facts = make(map[string]*AgentFact, len(s.Agents))
	for i := range s.Agents {
		d.facts[s.Agents[i].AgentID] = &s.Agents[i]
	}
	d.order()
	d.requests = make([]request, len(d.turn))
	d.classes = make(map[string]*class)
	d.shapes = make(map[string]*shape)
	d.owners = make(map[string][]int32)
	d.patterns = make(map[string]*regexp.Regexp)
	d.fields = make(map[string]*field)
	d.wiped = make(map[string]bool, len(s.Wiped))
	for _, id := range s.Wiped {
		d.wiped[id] = true
	}
}

// apps are the apps of which something is pending.
type apps struct {
	of      []int32 // app by instance, in the order of the snapshot
	pending []int32 // instances that are pending, by app
	placed  map[int32][]placedAt
	states  map[int32]*appState
}

// countPlaced counts the instances that have an agent, per agent and per app.
// An instance that is pending counts nowhere: its place is to be decided.
func (d *decision) countPlaced() *apps {
	pending := d.s.Pending
	byName := newLookup[string](len(pending))
	seed := maphash.MakeSeed()
	as := &apps{of: make([]int32, len(pending)), states: make(map[int32]*appState)}
	for i := range pending {
		name := pending[i].App
		a := byName.add(name, maphash.String(seed, name), int32(len(as.pending)))
		if int(a) == len(as.pending) {
			as.pending = append(as.pending, 0)
		}
		as.of[i] = a
		as.pending[a]++
	}
	as.placed = d.addPlaced(func(app string) (int32, bool) { return byName.find(app, maphash.String(seed, app)) })
	return as
}

// state is that of a pending instance's app, nil where nothing depends on it.
func (as *apps) state(i int32, inst *Instance) *appState {
	a := as.of[i]
	alone := as.pending[a] == 1 && len(as.placed[a]) == 0
	if alone && !slices.ContainsFunc(inst.Constraints, func(c Constraint) bool { return c.counts() }) {
		return nil
	}
	state := as.states[a]
	if state == nil {
		state = newAppState(as.placed[a])
		state.instances += int(as.pending[a])
		as.states[a] = state
	}
	state.instances = max(state.instances, inst.AppInstances)
	return state
}

// addPlaced counts the placed instances on their agents. It returns, per app of
// which something is pending, those of them that are not pending themselves.
func (d *decision) addPlaced(number func(app string) (int32, bool)) (placed map[int32][]placedAt) {
	if len(d.s.Placed) == 0 {
		return nil
	}
	pending := make(map[string]bool, len(d.s.Pending))
	for i := range d.s.Pending {
		pending[d.s.Pending[i].ID] = true
	}
	placed = make(map[int32][]placedAt)
	for i := range d.s.Placed {
		p := &d.s.Placed[i]
		at, offered := d.byAgent[p.AgentID]
		if !offered {
			at = absent
		}
		if a, known := number(p.App); known {
			if pending[p.ID] {
				continue
			}
			placed[a] = append(placed[a], placedAt{p, at})
		}
		if offered {
			d.agents[at].load++
			d.agents[at].before++
		}
	}
	return placed
}

// Ranks of requests: what can run on few agents goes first.
const (
	rankReserved uint8 = iota
	rankPinned
	rankFree
)

// readRequests completes the requests with what the decision asks for again and
// again, and puts those that can run on few agents first.
func (d *decision) readRequests(as *apps) {
	var byRank [rankFree + 1]int
	for turn, i := range d.ordered {
		inst, r := &d.s.Pending[i], &d.requests[turn]
		r.mounts, r.app = d.mountsOf(turn), as.state(i, inst)
		d.read(r, inst)
		byRank[r.rank]++
	}
	if byRank[rankFree] == len(d.requests) {
		return
	}
	slices.SortStableFunc(d.requests, func(a, b request) int { return cmp.Compare(a.rank, b.rank) })
}

func (d *decision) read(r *request, inst *Instance) {
	r.inst = d.found(inst)
	r.id = inst.ID
	r.bound = r.inst.Reservation != nil
	r.joins = joins(r.inst)
	r.plain = !resident(r.inst) && !slices.ContainsFunc(inst.Ports, func(p Port) bool { return p.Number != 0 })
	r.avoiding = inst.Avoid != "" && d.s.Now.Before(inst.AvoidUntil)
	r.barred = inst.NotBefore.After(d.s.Now) || d.wiped[inst.ID]
	for i := range r.mounts {
		r.says |= r.mounts[i].says
	}
	r.shape = d.shapeOf(r)
	_, pinned := d.pins(r)
	switch {
	case r.bound:
		r.rank = rankReserved
	case pinned:
		r.rank = rankPinned
	default:
		r.rank = rankFree
		// Claims of this plan bind only what shares its volumes.
		r.free = !r.joins && !slices.ContainsFunc(r.mounts, func(m mount) bool { return m.users > 1 })
	}
}

// pins lists the agents that a request is bound to, if it is. Nothing outside
// of the list passes check; what is in it need not either.
func (d *decision) pins(r *request) (agents []int32, pinned bool) {
	if res := r.inst.Reservation; res != nil {
		return d.appendAgents(nil, res.AgentID), true
	}
	if r.joins {
		if agents, pinned := d.sharedPin(r); pinned {
			return agents, true
		}
	}
	for i := range r.mounts {
		m := &r.mounts[i]
		for _, c := range m.claims {
			if d.elsewhere(c, m.req, r.inst.ID) != fits {
				return d.appendAgents(nil, c.AgentID), true
			}
		}
		if d.foreign(m) {
			return d.appendNamed(nil, m.fact.AttachedTo), true
		}
		if m.says&saysLocal != 0 {
			return d.appendNamed(nil, m.fact.last()), true
		}
	}
	for i := range r.inst.Constraints {
		c := &r.inst.Constraints[i]
		if !isHostname(c.Field) {
			continue
		}
		if v, ok := d.literal(c); ok {
			return d.hostAgents(v), true
		}
	}
	return nil, false
}

func (d *decision) appendNamed(to []int32, names []string) []int32 {
	for _, n := range names {
		to = d.appendAgents(to, n)
	}
	return to
}

// place launches what can be launched. Requests whose constraints depend on
// how the rest of the app is spread get another chance as long as that changes.
func (d *decision) place() {
	again := make([]*request, 0)
	for i := range d.requests {
		d.placeOne(&d.requests[i])
	}
	defer func() { d.waiting = append(d.waiting, d.barred...) }()
	for progress := true; progress; {
		progress = false
		again = again[:0]
		rest := d.waiting[:0:0]
		for _, w := range d.waiting {
			if w.r.regroups() && w.version != w.r.shape.app.version {
				again = append(again, w.r)
			} else {
				rest = append(rest, w)
			}
		}
		if len(again) == 0 {
			return
		}
		d.waiting = rest
		for _, r := range again {
			before := len(d.waiting)
			d.placeOne(r)
			progress = progress || len(d.waiting) == before
		}
	}
}

// regroups says whether a launch of the same app can make room for the request.
func (r *request) regroups() bool {
	return slices.ContainsFunc(r.inst.Constraints, func(c Constraint) bool { return c.Operator == GroupBy })
}

func (d *decision) placeOne(r *request) {
	if r.barred {
		d.barred = append(d.barred, wait{r: r})
		return
	}
	si, why, st := d.choose(r)
	if si < 0 {
		w := wait{r: r, step: st}
		if r.shape.app != nil {
			w.version = r.shape.app.version
		}
		d.waiting = append(d.waiting, w)
		return
	}
	d.launch(r, si, why)
	d.refresh(si)
}

// choose finds the share for a request: among the agents it is bound to, or
// by preference, or any. A negative share means that it waits.
func (d *decision) choose(r *request) (share int32, why string, wait *step) {
	if !r.free {
		if agents, pinned := d.pins(r); pinned {
			si, ok := d.bestOf(r, agents)
			if !ok {
				return -1, "", nil
			}
			return si, d.whyPinned(r, &d.shares[si]), nil
		}
	}
	if si, why, st := d.prefer(r); si >= 0 || st != nil {
		return si, why, st
	}
	sh := r.shape
	// A claim that binds to no agent may still rule one out, or spare it an
	// attachment: such an instance does not speak for its shape.
	special := r.avoiding || r.joins || slices.ContainsFunc(r.mounts, func(m mount) bool { return len(m.claims) > 0 })
	if !special && sh.exhausted && (sh.app == nil || sh.exhaustedAt == sh.app.version) {
		return -1, "", nil
	}
	si, ok := d.anywhere(r)
	if !ok {
		if !special {
			sh.exhaust()
		}
		return -1, "", nil
	}
	if d.s.Policy.Pack {
		return si, "the fullest agent that fits", nil
	}
	return si, "the agent with the fewest instances that fits", nil
}

// exhaust remembers that no agent can take the shape any more.
func (sh *shape) exhaust() {
	sh.exhausted = true
	if sh.app != nil {
		sh.exhaustedAt = sh.app.version
	}
}

// anywhere finds the best share of the request's class. Where a constraint
// counts by a field with few values, the values with fewest instances go first
// and only their agents are searched.
func (d *decision) anywhere(r *request) (int32, bool) {
	c := r.partition()
	if c == nil {
		return d.find(r.shape.class, r)
	}
	g := d.group(r.shape.app, c.Field)
	if g.field.offered > mostParts {
		return d.find(r.shape.class, r)
	}
	var buf [mostParts]int32
	values := buf[:0]
	for v := range int32(g.field.offered) {
		if g.allows(c, v, r.shape.app.instances) {
			values = append(values, v)
		}
	}
	slices.SortStableFunc(values, func(a, b int32) int { return cmp.Compare(g.counts[a], g.counts[b]) })
	for _, v := range values {
		if si, ok := d.find(d.narrowed(r, g.field, v), r); ok {
			return si, true
		}
	}
	return -1, false
}

// mostParts bounds how many parts a search is split into. A field with more
// values tells agents apart nearly one by one, as their host names do: there a
// search that skips those which are out is the faster.
const mostParts = 64

// partition returns the constraint by whose values the search is split.
func (r *request) partition() *Constraint {
	for i := range r.shape.counting {
		if c := &r.shape.counting[i]; !isHostname(c.Field) {
			return c
		}
	}
	return nil
}

func (d *decision) whyPinned(r *request, s *share) string {
	host := d.agents[s.agent].hostname
	if r.inst.Reservation != nil {
		return "its reservation and volumes are on " + host
	}
	if _, shared := d.sharedPin(r); shared {
		return "a volume that it shares is on " + host
	}
	for i := range r.mounts {
		m := &r.mounts[i]
		switch {
		case len(m.claims) > 0:
			return fmt.Sprintf("volume %s is claimed on %s", m.req.Key, host)
		case m.fact != nil && m.fact.bound():
			return fmt.Sprintf("volume %s exists on %s only", m.req.Key, host)
		case d.foreign(m):
			return fmt.Sprintf("volume %s is mounted on %s", m.req.Key, host)
		}
	}
	return "its constraints name " + host
}

// accept turns what was decided per share into the plan's accepts.
func (d *decision) accept() {
	for i := range d.shares {
		s := &d.shares[i]
		if len(s.ops) == 0 {
			continue
		}
		makeFirst(s.ops)
		a := &d.agents[s.agent]
		acc := Accept{AgentID: a.id, Hostname: a.hostname, Operations: s.ops}
		for _, o := range s.offers {
			acc.OfferIDs = append(acc.OfferIDs, d.s.Offers[o].ID)
		}
		d.plan.Accepts = append(d.plan.Accepts, acc)
	}
}

// String names the volume as users write it, driver/name.
func (k VolumeKey) String() string { return k.Driver + "/" + k.Name }
