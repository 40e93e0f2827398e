package scheduler

import (
	"slices"
	"strings"
)

// claimTable holds the claims of the snapshot and those that this plan makes.
type claimTable map[VolumeKey][]*Claim

// newClaimTable indexes the claims on wanted volumes, all if want is nil, with
// room for those that the plan will make.
func newClaimTable(claims []Claim, want map[VolumeKey]bool, room int) claimTable {
	t := make(claimTable, room)
	for i := range claims {
		if c := &claims[i]; want == nil || want[c.Key] {
			t[c.Key] = append(t[c.Key], c)
		}
	}
	for _, cs := range t {
		slices.SortFunc(cs, func(a, b *Claim) int {
			return strings.Compare(a.AgentID, b.AgentID)
		})
	}
	return t
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

// take records that an instance launched by this plan uses the volume.
func (t claimTable) take(v *VolumeRequest, inst *Instance, a *agent) {
	if !v.Exclusive() {
		return
	}
	old := t[v.Key]
	for i, c := range old {
		if c.AgentID == a.id {
			// The snapshot stays as it was given: the table gets a copy.
			n := *c
			n.State = Held
			if len(c.Instances) == 0 {
				n.Access = v.Strictest()
			} else {
				n.Access = min(c.Access, v.Strictest())
			}
			if !slices.Contains(n.Instances, inst.ID) {
				n.Instances = append(slices.Clone(n.Instances), inst.ID)
			}
			old[i] = &n
			return
		}
	}
	// One allocation for the claim, its instance and its place in the table.
	n := &struct {
		claim Claim
		inst  [1]string
		place [1]*Claim
	}{inst: [1]string{inst.ID}}
	n.claim = Claim{
		Key: v.Key, AgentID: a.id, Hostname: a.hostname, Access: v.Strictest(),
		Instances: n.inst[:], State: Held,
	}
	n.place[0] = &n.claim
	if old == nil {
		t[v.Key] = n.place[:]
	} else {
		t[v.Key] = append(old, &n.claim)
	}
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

// mount is one volume of an instance with all that is known of it.
type mount struct {
	req    *VolumeRequest
	claims []*Claim
	fact   *VolumeFact
}

// mounts looks up the volumes of an instance; the result is valid until the
// next call.
func (d *decision) mounts(inst *Instance) []mount {
	if d.mountsOf == inst && d.mountsAt == d.claimed {
		return d.mountBuf
	}
	d.mountsOf, d.mountsAt = inst, d.claimed
	ms := d.mountBuf[:0]
	for i := range inst.Volumes {
		v := &inst.Volumes[i]
		ms = append(ms, mount{req: v, claims: d.claims[v.Key], fact: d.volumes[v.Key]})
	}
	d.mountBuf = ms
	return ms
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
	if m.fact == nil {
		return worst
	}
	if d.foreign(m) && !slices.Contains(m.fact.AttachedTo, a.id) {
		worst = first(worst, failsHeld)
	}
	if m.fact.bound() && !m.fact.lastOn(a) {
		worst = first(worst, failsLocal)
	}
	return worst
}

// foreign says whether a bridge that answers reports an exclusive volume
// mounted where no claim of ours is: somebody outside of the framework uses it.
func (d *decision) foreign(m *mount) bool {
	if m.fact == nil || len(m.claims) > 0 || !m.req.Exclusive() || m.req.BackendExclusive {
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
