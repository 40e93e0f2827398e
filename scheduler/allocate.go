package scheduler

import (
	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// takingOrder is the order in which uses are drawn on: what only this instance
// or this role can use goes first, so that more is left for others.
var takingOrder = [...]use{useOwned, useReserved, useUnreserved}

// A launch is decided by totals per share; what it takes is cut out of the
// offered resources later, share by share, when everything is decided. Going
// from agent to agent for each launch would cost more than all else on a large
// cluster, since no cache holds the resources of all agents.

// queued is a launch that is decided and not cut yet. r is the request or, where
// the request is plain, another plain one of its shape: what is cut for them is
// the same but for the ports, and no cache holds all requests.
type queued struct {
	id, why string
	port    uint64 // decides which ports it gets
	r       *request
	next    int32 // the next one on the same share
}

// none is the place of nothing.
const none = -1

// launch puts a request on a share that fits it.
func (d *decision) launch(r *request, share int32, why string) {
	s := &d.shares[share]
	a := &d.agents[s.agent]
	ms := r.mounts
	for i := range ms {
		if f, known := a.driver(ms[i].req.Key.Driver); known && f.AttachLimit > 0 && !ms[i].attachedTo(a) {
			a.attach(f.Name)
		}
	}
	for i := range ms {
		ms[i].take(r.inst, a)
	}
	d.enqueue(s, r, why)
	if r.plain && !s.overlap {
		s.spend(r)
	} else {
		d.cut(s)
		s.count()
	}
	s.launches++
	a.load++
	for i := a.firstShare; i < a.endShare; i++ {
		d.shares[i].version++
	}
	if r.app != nil {
		r.app.launched(s.agent)
	}
}

// enqueue puts a launch at the end of a share's queue.
func (d *decision) enqueue(s *share, r *request, why string) {
	q := queued{id: r.id, why: why, port: mix(d.s.Seed, r.id), r: r, next: none}
	if r.plain {
		if r.shape.sample == nil {
			r.shape.sample = r
		}
		q.r = r.shape.sample
	}
	at := int32(len(d.queue))
	d.queue = append(d.queue, q)
	if s.first == none {
		s.first = at
	} else {
		d.queue[s.last].next = at
	}
	s.last = at
}

// spend takes what a request needs off the totals, in takingOrder.
func (s *share) spend(r *request) {
	want := r.shape.needs
	if r.shape.class.reserved {
		want = s.total[useReserved].spend(want)
	}
	if r.shape.class.unreserved {
		s.total[useUnreserved].spend(want)
	}
}

// spend takes as much of what is wanted as there is and returns the rest.
func (t *amounts) spend(want amounts) (rest amounts) {
	got := amounts{
		min(t.cpus, want.cpus), min(t.mem, want.mem), min(t.disk, want.disk), min(t.gpus, want.gpus),
		min(t.ports, want.ports),
	}
	*t = t.minus(got)
	return want.minus(got)
}

// cut turns the queued launches of a share into operations.
func (d *decision) cut(s *share) {
	if s.first == none {
		return
	}
	if s.ops == nil {
		s.ops = make([]Operation, 0, s.launches)
	}
	for next := s.first; next != none; {
		q := &d.queue[next]
		next = q.next
		d.cutOne(s, q)
	}
	s.first, s.last = none, none
}

func (d *decision) cutOne(s *share, q *queued) {
	l := d.room.launch()
	l.InstanceID, l.Why = q.id, q.why
	r := q.r
	var cuts []cut
	if r.reserves() {
		cuts, _ = d.cutDisks(r, s) // it fits: check has found the same pieces
		s.spendDisks(cuts)
	}
	d.take(r, s, l, q.port)
	if !r.plain && len(r.inst.Persistent) > 0 {
		d.launchOnDisks(r, s, l, cuts)
	}
	s.ops = append(s.ops, Operation{Kind: OpLaunch, InstanceID: q.id, Launch: l})
}

// take cuts what a request needs out of a share that fits it.
func (d *decision) take(r *request, s *share, l *Launch, port uint64) {
	n := r.shape.needs
	used := d.room.resources(n.kinds() + min(1, int(n.ports)))
	used = r.takeScalar(used, s, cpus, n.cpus)
	used = r.takeScalar(used, s, mem, n.mem)
	used = r.takeScalar(used, s, disk, n.disk)
	used = r.takeScalar(used, s, gpus, n.gpus)
	if n.ports > 0 {
		l.Ports = d.pickPorts(r, s, port)
		used = d.takePorts(r, used, s, l.Ports)
	}
	l.Resources = used
}

// kinds is how many of the scalars are wanted.
func (a *amounts) kinds() (n int) {
	for _, m := range [...]resource.Milli{a.cpus, a.mem, a.disk, a.gpus} {
		if m > 0 {
			n++
		}
	}
	return n
}

func (r *request) takeScalar(used []resource.Resource, s *share, w what, want resource.Milli) []resource.Resource {
	for _, u := range takingOrder {
		for i := range s.free {
			if want <= 0 {
				return used
			}
			p := &s.free[i]
			if p.what != w || p.use != u || p.left <= 0 || !r.mayUse(p) {
				continue
			}
			m := min(want, p.left)
			used = append(used, p.res.WithScalar(m))
			p.left -= m
			want -= m
		}
	}
	return used
}

func (d *decision) takePorts(r *request, used []resource.Resource, s *share, numbers []uint32) []resource.Resource {
	want := portRanges(d.room.ranges(len(numbers)), numbers)
	for _, u := range takingOrder {
		for i := range s.free {
			p := &s.free[i]
			if p.what != ports || p.use != u || !r.mayUse(p) {
				continue
			}
			got := intersect(want, p.ranges)
			if len(got) == 0 {
				continue
			}
			used = append(used, p.res.WithRanges(got))
			p.ranges = resource.SubtractRanges(p.ranges, got)
			if len(got) == len(want) {
				return used
			}
			want = resource.SubtractRanges(want, got)
		}
	}
	return used
}
