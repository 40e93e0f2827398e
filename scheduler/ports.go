package scheduler

import (
	"slices"

	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// freePorts are the host ports of a share that a request may take. The result
// must not be changed.
func (r *request) freePorts(s *share) []resource.Range {
	var free []resource.Range
	for i := range s.free {
		p := &s.free[i]
		if p.what != ports || !r.mayUse(p) {
			continue
		}
		if free == nil {
			free = p.ranges
		} else {
			free = resource.UnionRanges(free, p.ranges)
		}
	}
	return free
}

func (d *decision) portsFit(r *request, s *share) bool {
	if len(r.inst.Ports) == 0 {
		return true
	}
	free := r.freePorts(s)
	if resource.CountRanges(free) < uint64(len(r.inst.Ports)) {
		return false
	}
	for i, p := range r.inst.Ports {
		if p.Number == 0 {
			continue
		}
		if !resource.ContainsValue(free, uint64(p.Number)) || slices.Contains(r.inst.Ports[:i], p) {
			return false
		}
	}
	return true
}

// ownPorts are the host ports of a share that are reserved for the instance
// itself.
func (r *request) ownPorts(s *share) []resource.Range {
	var own []resource.Range
	for i := range s.free {
		if p := &s.free[i]; p.what == ports && p.use == useOwned && r.mayUse(p) {
			own = resource.UnionRanges(own, p.ranges)
		}
	}
	return own
}

// pickPorts chooses the host ports of a request that fits. Of the ports left to
// us those that are reserved for the instance go first: nobody else can use them.
// The others are taken from a place in the ranges that the seed and the instance
// decide, first: an instance that takes the lowest free port would get the one
// that another has just given up, while proxies still send to it.
func (d *decision) pickPorts(r *request, s *share, first uint64) []uint32 {
	chosen := d.room.ports(int(r.shape.needs.ports))
	free := r.freePorts(s)
	if r.plain {
		fillPorts(chosen, free, first)
		return chosen
	}
	var fixed []resource.Range
	for i, p := range r.inst.Ports {
		if p.Number != 0 {
			chosen[i] = p.Number
			fixed = append(fixed, resource.Range{Begin: uint64(p.Number), End: uint64(p.Number)})
		}
	}
	if len(fixed) == len(chosen) {
		return chosen
	}
	if fixed != nil {
		free = resource.SubtractRanges(free, resource.NormalizeRanges(fixed))
	}
	if own := intersect(r.ownPorts(s), free); len(own) > 0 {
		fillPorts(chosen, own, first)
		free = resource.SubtractRanges(free, own)
	}
	fillPorts(chosen, free, first)
	return chosen
}

// fillPorts replaces the zeros among the chosen ports by free ones, each taken once,
// from the place first on. Where there are too few, zeros are left.
func fillPorts(chosen []uint32, free []resource.Range, first uint64) {
	total := resource.CountRanges(free)
	if total == 0 {
		return
	}
	next, left := first%total, total
	for i := range chosen {
		if chosen[i] == 0 && left > 0 {
			chosen[i] = uint32(resource.NthValue(free, next))
			next = (next + 1) % total
			left--
		}
	}
}

// portRanges adds host ports, as ranges of a resource, to an empty slice.
func portRanges(rs []resource.Range, numbers []uint32) []resource.Range {
	for _, p := range numbers {
		rs = append(rs, resource.Range{Begin: uint64(p), End: uint64(p)})
	}
	if len(rs) == 1 {
		return rs
	}
	return resource.NormalizeRanges(rs)
}

// intersect returns what is in both.
func intersect(a, b []resource.Range) []resource.Range {
	if resource.ContainsRanges(b, a) {
		return a
	}
	return resource.SubtractRanges(a, resource.SubtractRanges(a, b))
}
