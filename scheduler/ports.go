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

// pickPorts chooses the host ports of a request that fits. Ports left to us
// are taken from a place in the ranges that the seed and the instance decide,
// first: an instance that takes the lowest free port would get the one that
// another has just given up, while proxies still send to it.
func (d *decision) pickPorts(r *request, s *share, first uint64) []uint32 {
	chosen := d.room.ports(int(r.shape.needs.ports))
	free := r.freePorts(s)
	var fixed []resource.Range
	if !r.plain {
		for i, p := range r.inst.Ports {
			if p.Number != 0 {
				chosen[i] = p.Number
				fixed = append(fixed, resource.Range{Begin: uint64(p.Number), End: uint64(p.Number)})
			}
		}
	}
	if len(fixed) == len(chosen) {
		return chosen
	}
	if fixed != nil {
		free = resource.SubtractRanges(free, resource.NormalizeRanges(fixed))
	}
	total := resource.CountRanges(free)
	next := first % total
	for i := range chosen {
		if chosen[i] == 0 {
			chosen[i] = uint32(resource.NthValue(free, next))
			next = (next + 1) % total
		}
	}
	return chosen
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
