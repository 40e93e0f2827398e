package scheduler

// missing says whether an agent without an offer would be as good for a step as
// those that have offers: as many of the request's volumes name it. What such an
// agent could take nobody knows, so it is worth to wait for.
func (d *decision) missing(r *request, k stepKind) bool {
	offered, absent := map[int32]int{}, map[string]int{}
	most := 0
	for i := range r.mounts {
		if r.mounts[i].fact == nil {
			continue
		}
		agents, names := d.namedFor(r.mounts[i].fact, k)
		for _, a := range agents {
			offered[a]++
			most = max(most, offered[a])
		}
		for _, name := range names {
			absent[name]++
		}
	}
	for _, n := range absent {
		if n >= most {
			return true
		}
	}
	return false
}

// namedFor lists the agents with offers that a volume names for a step, and the
// names of those without. The last agent is known by its host, too: it may have
// come back with a new id.
func (d *decision) namedFor(f *VolumeFact, k stepKind) (agents []int32, absent []string) {
	names := f.AttachedTo
	switch k {
	case stepReplica:
		names = f.Replicas
	case stepLast:
		for _, name := range f.last() {
			if agents = d.appendAgents(nil, name); len(agents) > 0 {
				return agents, nil
			}
		}
		return nil, f.last()
	}
	for _, name := range names {
		if len(d.appendAgents(nil, name)) == 0 {
			absent = append(absent, name)
		}
		agents = d.appendAgents(agents, name)
	}
	return agents, absent
}
