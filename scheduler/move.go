package scheduler

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// move stops instances that should run elsewhere, at most as many at a time as
// the policy allows: off agents that are draining, and from the fullest to the
// emptiest agent if balancing is on. The instance is stopped only if an agent
// other than its own could take it now, as far as Snapshot.Kinds says what it asks
// for, beside the others that are moved; where it goes is decided when it is pending, by the rules for
// everything that is. It runs last: it takes from what the round has left.
func (d *decision) move() {
	room := d.s.Policy.MaxMoves
	if !d.s.Policy.moves() {
		return
	}
	var movable []*Placed
	for i := range d.s.Placed {
		p := &d.s.Placed[i]
		if p.Moving {
			room--
		} else if p.Movable {
			movable = append(movable, p)
		}
	}
	for i := range d.s.Pending {
		// One that was stopped and has not found a place yet is on the move, too.
		if p := &d.s.Pending[i]; p.Avoid != "" && d.s.Now.Before(p.AvoidUntil) {
			room--
		}
	}
	slices.SortFunc(movable, func(a, b *Placed) int { return strings.Compare(a.ID, b.ID) })
	if d.s.Policy.Drain {
		room = d.drain(movable, room)
	}
	if d.s.Policy.balances() && len(d.waiting) == 0 {
		d.balance(movable, room)
	}
}

// moves says whether anything is ever moved. Then offers are wanted also when
// nothing waits: without them nobody knows where there is room, or maintenance.
func (p *Policy) moves() bool { return p.MaxMoves > 0 && (p.Drain || p.balances()) }

func (p *Policy) balances() bool { return p.Balance > 0 && !p.Pack }

func (d *decision) drain(movable []*Placed, room int) int {
	tries := triesPerMove * room
	full := make(map[stay]bool)
	for _, p := range movable {
		if room <= 0 || tries <= 0 {
			return room
		}
		if !d.leaving(p.AgentID) || full[stayOf(p)] {
			continue
		}
		tries--
		if to := d.roomFor(p); to >= 0 {
			d.stop(p, to, fmt.Sprintf("agent %s is draining; %s has room", p.Hostname, d.hostOf(to)))
			room--
		} else {
			full[stayOf(p)] = true
		}
	}
	return room
}

// leaving says whether an agent is about to go: by its bridge or the master, or
// by the maintenance that its offers announce.
func (d *decision) leaving(id string) bool {
	if i, ok := d.byAgent[id]; ok {
		return d.agents[i].maintenance
	}
	f := d.facts[id]
	return f != nil && f.Draining
}

// triesPerMove bounds how many instances are looked at for each move that the
// policy allows: each costs a walk over the agents.
const triesPerMove = 16

// emptiest is the smallest number of instances on an agent with offers.
func (d *decision) emptiest() int {
	least := math.MaxInt
	for i := range d.agents {
		least = min(least, d.agents[i].load)
	}
	return least
}

// roomFor returns the share of the emptiest agent that could take a placed
// instance, -1 if there is none.
func (d *decision) roomFor(p *Placed) int32 {
	r := d.successor(p)
	best := int32(-1)
	for i := range d.shares {
		s := &d.shares[i]
		a := &d.agents[s.agent]
		if a.id == p.AgentID || a.maintenance || best >= 0 && a.load >= d.agents[d.shares[best].agent].load {
			continue
		}
		t := s.total[useUnreserved].plus(s.total[useReserved])
		if t.cpus >= p.CPUs && t.mem >= p.Mem && d.takesOver(r, p, s) {
			best = int32(i)
		}
	}
	return best
}

// successor is what a placed instance will ask for when it is pending again, nil
// if nobody says. Its own volumes do not count: they come along.
func (d *decision) successor(p *Placed) *request {
	kind, known := d.s.Kinds[p.Kind]
	if !known {
		return nil
	}
	inst := kind
	inst.ID = p.ID
	r := &request{inst: &inst, id: p.ID, plain: !resident(&inst) &&
		!slices.ContainsFunc(inst.Ports, func(p Port) bool { return p.Number != 0 })}
	for i := range inst.Volumes {
		r.mounts = append(r.mounts, mount{&inst.Volumes[i], &volume{}})
	}
	if slices.ContainsFunc(inst.Constraints, func(c Constraint) bool { return c.counts() }) {
		r.app = newAppState(d.without(p))
		r.app.instances = max(r.app.instances+1, inst.AppInstances)
	}
	key := d.classKey(r, false)
	d.keyBuf = key
	r.shape = newShape(r, d.classFor(key, r, false))
	return r
}

// without lists the other instances of an app, those that this round has moved
// where it moved them.
func (d *decision) without(p *Placed) []placedAt {
	var list []placedAt
	for i := range d.s.Placed {
		q := &d.s.Placed[i]
		if q.App != p.App || q.ID == p.ID {
			continue
		}
		to, isMoved := d.moved[q.ID]
		if isMoved {
			a := &d.agents[d.shares[to].agent]
			c := *q
			c.AgentID, c.Hostname, c.Region, c.Zone, c.Attributes = a.id, a.hostname, a.region, a.zone, a.attributes
			q = &c
		}
		at, offered := d.byAgent[q.AgentID]
		if !offered {
			at = absent
		}
		list = append(list, placedAt{q, at})
	}
	return list
}

// takesOver says whether a share could take what a placed instance asks for.
func (d *decision) takesOver(r *request, p *Placed, s *share) bool {
	if zone := d.agents[s.agent].zone; p.VolumeZone != "" && zone != "" && zone != p.VolumeZone {
		return false
	}
	return r == nil || d.funnel(r, s, d.classVerdict(r.shape.class, s), nil, true) == fits
}

// stay are instances that find room nowhere alike: of the same kind, on the same
// agent. Room only shrinks within a round, so one is looked at for all.
type stay struct {
	kind, agent, zone string
	cpus, mem         resource.Milli
}

func stayOf(p *Placed) stay { return stay{p.Kind, p.AgentID, p.VolumeZone, p.CPUs, p.Mem} }

func (d *decision) hostOf(share int32) string { return d.agents[d.shares[share].agent].hostname }

// balance moves instances while the difference between the fullest agent and
// one that has room is at least the policy's. A move narrows the difference by
// two, so a policy below two would move for ever and counts as two.
func (d *decision) balance(movable []*Placed, room int) {
	loads := make(map[string]int)
	for i := range d.s.Placed {
		p := &d.s.Placed[i]
		if _, gone := d.moved[p.ID]; !gone {
			loads[p.AgentID]++
		}
	}
	emptiest := d.emptiest()
	least := max(d.s.Policy.Balance, 2)
	slices.SortStableFunc(movable, func(a, b *Placed) int {
		return cmp.Or(cmp.Compare(loads[b.AgentID], loads[a.AgentID]), strings.Compare(a.AgentID, b.AgentID))
	})
	tries := triesPerMove * room
	full := make(map[stay]bool)
	for _, p := range movable {
		if room <= 0 || tries <= 0 || loads[p.AgentID]-emptiest < least {
			return // those that follow are on agents with no more
		}
		if _, gone := d.moved[p.ID]; gone || full[stayOf(p)] {
			continue
		}
		tries--
		to := d.roomFor(p)
		full[stayOf(p)] = to < 0
		if to < 0 || loads[p.AgentID]-d.agents[d.shares[to].agent].load < least {
			continue
		}
		d.stop(p, to, fmt.Sprintf("agent %s has %d instances and %s has %d", p.Hostname,
			loads[p.AgentID], d.hostOf(to), d.agents[d.shares[to].agent].load))
		loads[p.AgentID]--
		room--
	}
}

// stop moves an instance to where a share has room, as far as the round's own
// books go: the rest of the round counts it there.
func (d *decision) stop(p *Placed, to int32, why string) {
	d.plan.Kills = append(d.plan.Kills, Kill{InstanceID: p.ID, AgentID: p.AgentID, Why: why})
	if d.moved == nil {
		d.moved = make(map[string]int32)
	}
	d.moved[p.ID] = to
	s := &d.shares[to]
	d.agents[s.agent].load++
	r := d.successor(p)
	if r == nil {
		s.total[useUnreserved].cpus -= p.CPUs
		s.total[useUnreserved].mem -= p.Mem
		return
	}
	d.settle(r, s)
}

// settle takes from a share all that a moved instance will ask for there, so that
// others that are moved in the round find neither its host ports and GPUs nor its
// places for volumes. Nothing is launched: the round's operations are made already.
func (d *decision) settle(r *request, s *share) {
	a := &d.agents[s.agent]
	for i := range r.inst.Volumes {
		if f, known := a.driver(r.inst.Volumes[i].Key.Driver); known && f.AttachLimit > 0 {
			a.attach(f.Name)
		}
	}
	d.take(r, s, d.room.launch(), mix(d.s.Seed, r.id))
	s.count()
}
