package scheduler

import "github.com/mesos-dvdi/dvdi/scheduler/resource"

// takingOrder is the order in which uses are drawn on: what only this instance
// or this role can use goes first, so that more is left for others.
var takingOrder = [...]use{useOwned, useReserved, useUnreserved}

// take cuts what a request needs out of a share that fits it.
func (d *decision) take(r *request, s *share) (used []resource.Resource, hostPorts []uint32) {
	n := r.shape.needs
	used = make([]resource.Resource, 0, 4)
	used = r.takeScalar(used, s, cpus, n.cpus)
	used = r.takeScalar(used, s, mem, n.mem)
	used = r.takeScalar(used, s, disk, n.disk)
	used = r.takeScalar(used, s, gpus, n.gpus)
	if len(r.inst.Ports) > 0 {
		hostPorts = d.pickPorts(r, s)
		used = r.takePorts(used, s, portRanges(hostPorts))
	}
	return used, hostPorts
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
			s.count(p, -m)
			want -= m
		}
	}
	return used
}

func (r *request) takePorts(used []resource.Resource, s *share, want []resource.Range) []resource.Resource {
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
			want = resource.SubtractRanges(want, got)
		}
	}
	return used
}

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
	l := &Launch{InstanceID: r.inst.ID, Why: why}
	var cuts []cut
	if r.reserves() {
		cuts, _ = d.cutDisks(r, s) // it fits: check has found the same pieces
		s.spend(cuts)
	}
	l.Resources, l.Ports = d.take(r, s)
	if len(r.inst.Persistent) > 0 {
		d.launchOnDisks(r, s, l, cuts)
	}
	if s.ops == nil {
		s.ops = make([]Operation, 0, d.roomForOps)
	}
	s.ops = append(s.ops, Operation{Kind: OpLaunch, InstanceID: r.inst.ID, Launch: l})
	s.launches++
	a.load++
	a.version++
	if r.app != nil {
		r.app.launched(a)
	}
}
