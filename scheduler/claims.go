package scheduler

import (
	"hash/maphash"
	"slices"
	"strings"
)

// volume is what a round knows of an external volume that something pending
// wants.
type volume struct {
	claims []*Claim // those of the snapshot and those that the plan makes
	fact   *VolumeFact
	users  int32 // how many pending requests name it
	last   int32 // the agent that the fact names as the last, none if that has no offer
	says   says
}

// says are the things that a fact says of a volume: a bit for each step of
// preference that it names something for, and saysLocal. Most facts say little,
// and no cache holds them all.
type says uint8

const saysLocal says = 1 << stepKinds

func (k stepKind) bit() says { return 1 << k }

// tell notes what a fact says of a volume.
func (d *decision) tell(v *volume, f *VolumeFact) {
	v.fact, v.says, v.last = f, 0, none
	if a, offered := d.byAgent[f.LastAgent]; offered {
		v.last = a
	}
	for k, known := range [stepKinds]bool{
		stepAttached: len(f.AttachedTo) > 0,
		stepLast:     f.LastAgent != "" || v.last == none && f.LastHostname != "",
		stepReplica:  len(f.Replicas) > 0,
		stepZone:     f.Zone != "",
	} {
		if known {
			v.says |= stepKind(k).bit()
		}
	}
	if f.bound() {
		v.says |= saysLocal
	}
}

// mount is one volume of an instance with all that is known of it.
type mount struct {
	req *VolumeRequest
	*volume
}

// indexVolumes looks up, once per round, what the snapshot says of the volumes
// of pending instances. A large framework that has one instance to place does
// not have to index what all the others use.
func (d *decision) indexVolumes() {
	s := d.s
	requests := d.makeMounts()
	// A volume lies where the first mount of it does, in order of placing.
	volumes := make([]volume, requests)
	byKey := newLookup[VolumeKey](requests)
	seed := maphash.MakeSeed()
	hashes := make([]uint64, 0, requests)
	for i := range s.Pending {
		for j := range s.Pending[i].Volumes {
			hashes = append(hashes, s.Pending[i].Volumes[j].Key.hash(seed))
		}
	}
	for i, next := 0, 0; i < len(s.Pending); i++ {
		at := d.firstMount[d.turn[i]]
		for j := range s.Pending[i].Volumes {
			req := &s.Pending[i].Volumes[j]
			v := &volumes[byKey.add(req.Key, hashes[next], at)]
			v.users++
			d.mounts[at] = mount{req, v}
			at, next = at+1, next+1
		}
	}
	byKey.findEach(len(s.Volumes), func(i int) (*VolumeKey, uint64) {
		return &s.Volumes[i].Key, s.Volumes[i].Key.hash(seed)
	}, func(i int, at int32) { d.tell(&volumes[at], &s.Volumes[i]) })
	byKey.findEach(len(s.Claims), func(i int) (*VolumeKey, uint64) {
		return &s.Claims[i].Key, s.Claims[i].Key.hash(seed)
	}, func(i int, at int32) { volumes[at].claims = append(volumes[at].claims, &s.Claims[i]) })
	for i := range volumes {
		if cs := volumes[i].claims; len(cs) > 1 {
			slices.SortFunc(cs, func(a, b *Claim) int { return strings.Compare(a.AgentID, b.AgentID) })
		}
	}
}

// makeMounts makes room for the mounts of all requests, in order of placing, and
// returns how many there are.
func (d *decision) makeMounts() (requests int) {
	first := make([]int32, len(d.turn)+1)
	for i, t := range d.turn {
		first[t+1] = int32(len(d.s.Pending[i].Volumes))
	}
	for i := range d.turn {
		first[i+1] += first[i]
	}
	d.firstMount, d.mounts = first, make([]mount, first[len(d.turn)])
	return len(d.mounts)
}

// mountsOf are those of the request with a turn.
func (d *decision) mountsOf(turn int) []mount {
	from, to := d.firstMount[turn], d.firstMount[turn+1]
	return d.mounts[from:to:to]
}

// Exclusive says whether the volume may be used on one agent only. A request
// that writes to a volume for readers is as exclusive as can be.
func (v *VolumeRequest) Exclusive() bool {
	return v.Access == OneTask || v.Access == OneAgent || (v.Access == ManyReaders && !v.ReadOnly)
}

// Single says whether one task only may use the volume.
func (v *VolumeRequest) Single() bool {
	return v.Access == OneTask || (v.Access == ManyReaders && !v.ReadOnly)
}

// Strictest is the access that a claim for the request has.
func (v *VolumeRequest) Strictest() AccessMode {
	if v.Single() {
		return OneTask
	}
	return v.Access
}

// take records that an instance launched by this plan uses the volume, for
// those that come after it and want it too.
func (m *mount) take(inst *Instance, a *agent) {
	if !m.req.Exclusive() || m.users == 1 {
		return
	}
	for i, c := range m.claims {
		if c.AgentID == a.id {
			// The snapshot stays as it was given: the table gets a copy.
			n := *c
			n.State = Held
			if len(c.Instances) == 0 {
				n.Access = m.req.Strictest()
			} else {
				n.Access = min(c.Access, m.req.Strictest())
			}
			if !slices.Contains(n.Instances, inst.ID) {
				n.Instances = append(slices.Clone(n.Instances), inst.ID)
			}
			m.claims[i] = &n
			return
		}
	}
	m.claims = append(m.claims, &Claim{
		Key: m.req.Key, AgentID: a.id, Hostname: a.hostname, Access: m.req.Strictest(),
		Instances: []string{inst.ID}, State: Held,
	})
}

// usedByOther says whether a claim has a live instance other than the given.
func (c *Claim) usedByOther(id string) bool {
	return slices.ContainsFunc(c.Instances, func(s string) bool { return s != id })
}

// onAgent is the verdict of a claim for a launch on the agent that it names.
func (c *Claim) onAgent(v *VolumeRequest, id string) verdict {
	if c.usedByOther(id) && (c.Access == OneTask || v.Single()) {
		return failsHeld
	}
	return fits
}

// elsewhere is the verdict of a claim for a launch on any other agent.
func (d *decision) elsewhere(c *Claim, v *VolumeRequest, id string) verdict {
	if c.State == Held || c.usedByOther(id) && c.State == Releasing {
		return failsHeld
	}
	if v.BackendExclusive {
		return fits
	}
	switch c.State {
	case Releasing:
		return failsReleasing
	case Fenced:
		if c.FenceAt.After(d.s.Now) {
			return failsFence
		}
		return fits
	}
	return failsHeld
}

// claimVerdict says whether claims and locality let an instance use a volume
// on an agent.
func (d *decision) claimVerdict(m *mount, id string, a *agent) verdict {
	worst := fits
	for _, c := range m.claims {
		if c.AgentID == a.id {
			worst = first(worst, c.onAgent(m.req, id))
		} else {
			worst = first(worst, d.elsewhere(c, m.req, id))
		}
	}
	if m.says&(saysLocal|stepAttached.bit()) == 0 {
		return worst
	}
	if d.foreign(m) && !slices.Contains(m.fact.AttachedTo, a.id) {
		worst = first(worst, failsHeld)
	}
	if m.says&saysLocal != 0 && !m.fact.lastOn(a) {
		worst = first(worst, failsLocal)
	}
	return worst
}

// foreign says whether a bridge that answers reports an exclusive volume
// mounted where no claim of ours is: somebody outside of the framework uses it.
func (d *decision) foreign(m *mount) bool {
	if m.says&stepAttached.bit() == 0 || len(m.claims) > 0 || !m.req.Exclusive() || m.req.BackendExclusive {
		return false
	}
	return slices.ContainsFunc(m.fact.AttachedTo, func(id string) bool {
		f := d.facts[id]
		return f != nil && f.Known
	})
}

// bound says whether the volume exists on one agent only.
func (f *VolumeFact) bound() bool {
	return f.Local && (f.LastAgent != "" || f.LastHostname != "")
}

// lastOn says whether the volume was last used on an agent: by id, or by host
// name, since an agent that lost its state comes back with a new id.
func (f *VolumeFact) lastOn(a *agent) bool {
	return f.LastAgent != "" && f.LastAgent == a.id ||
		f.LastHostname != "" && f.LastHostname == a.hostname
}
