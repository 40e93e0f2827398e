// Package schedtest builds snapshots for tests of placement, and looks into
// plans. A test says what matters to it; everything else has defaults that let
// an instance run anywhere.
package schedtest

import (
	"fmt"
	"time"

	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// Role is the role of everything that a test does not give another.
const Role = "dvdi"

// Start is the time of a new world.
var Start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// World is a cluster under construction.
type World struct {
	scheduler.Snapshot
	offers  []*Offer
	pending []*Instance
	placed  []*Placed
	claims  []*Claim
	volumes []*Volume
	agents  []*Agent
}

// New returns an empty world at Start.
func New() *World {
	return &World{Snapshot: scheduler.Snapshot{Now: Start}}
}

// Decide decides about the world as it is.
func (w *World) Decide() scheduler.Plan { return scheduler.Decide(w.Build()) }

// Build returns the snapshot of the world as it is.
func (w *World) Build() scheduler.Snapshot {
	s := w.Snapshot
	for _, o := range w.offers {
		s.Offers = append(s.Offers, o.Offer)
	}
	for _, i := range w.pending {
		s.Pending = append(s.Pending, i.Instance)
	}
	for _, p := range w.placed {
		s.Placed = append(s.Placed, p.Placed)
	}
	for _, c := range w.claims {
		s.Claims = append(s.Claims, c.Claim)
	}
	for _, v := range w.volumes {
		s.Volumes = append(s.Volumes, v.VolumeFact)
	}
	for _, a := range w.agents {
		s.Agents = append(s.Agents, a.AgentFact)
	}
	return s
}

// Host is the host name of an agent: agent "a1" runs on host "a1.test".
func Host(agent string) string { return agent + ".test" }

// Offer is an offer under construction.
type Offer struct{ scheduler.Offer }

// Offer adds an offer of an agent with nothing in it.
func (w *World) Offer(agent string) *Offer {
	o := &Offer{scheduler.Offer{
		ID: fmt.Sprintf("offer-%d", len(w.offers)+1), AgentID: agent, Hostname: Host(agent),
	}}
	w.offers = append(w.offers, o)
	return o
}

// Agents adds offers of 4 cpus, 4 GiB, 10 GiB of disk and 1,000 ports for each
// of the named agents.
func (w *World) Agents(names ...string) {
	for _, n := range names {
		w.Offer(n).Usual()
	}
}

// Usual adds 4 cpus, 4096 MiB of memory, 10240 MiB of disk and ports 31000 to
// 31999.
func (o *Offer) Usual() *Offer {
	return o.CPUs(4).Mem(4096).Disk(10240).Ports(31000, 31999)
}

// Add adds any resource.
func (o *Offer) Add(r resource.Resource) *Offer {
	if r.AllocatedRole == "" {
		r.AllocatedRole = Role
	}
	o.Resources = append(o.Resources, r)
	return o
}

// CPUs adds unreserved cpus.
func (o *Offer) CPUs(n float64) *Offer { return o.Add(Scalar("cpus", n)) }

// Mem adds unreserved memory, in MiB.
func (o *Offer) Mem(mib float64) *Offer { return o.Add(Scalar("mem", mib)) }

// Disk adds unreserved space of the root disk, in MiB.
func (o *Offer) Disk(mib float64) *Offer { return o.Add(Scalar("disk", mib)) }

// GPUs adds unreserved GPUs.
func (o *Offer) GPUs(n float64) *Offer { return o.Add(Scalar("gpus", n)) }

// Ports adds unreserved host ports.
func (o *Offer) Ports(begin, end uint64) *Offer {
	return o.Add(resource.Resource{Name: "ports", Kind: resource.Ranges, Ranges: []resource.Range{{Begin: begin, End: end}}})
}

// Source adds a disk of some kind, with the path of its root, in MiB.
func (o *Offer) Source(t resource.SourceType, root string, mib float64) *Offer {
	r := Scalar("disk", mib)
	r.Disk = &resource.Disk{Source: t, Root: root}
	return o.Add(r)
}

// Attr sets an attribute of the agent.
func (o *Offer) Attr(name, value string) *Offer {
	if o.Attributes == nil {
		o.Attributes = make(map[string]string)
	}
	o.Attributes[name] = value
	return o
}

// In sets the agent's fault domain.
func (o *Offer) In(region, zone string) *Offer {
	o.Region, o.Zone = region, zone
	return o
}

// For gives all resources so far to another role's share.
func (o *Offer) For(role string) *Offer {
	for i := range o.Resources {
		o.Resources[i].AllocatedRole = role
	}
	return o
}

// Scalar is an unreserved scalar resource.
func Scalar(name string, v float64) resource.Resource {
	return resource.Resource{Name: name, Kind: resource.Scalar, Scalar: resource.FromFloat(v), AllocatedRole: Role}
}

// Static is a resource that the agent's operator reserved for a role.
func Static(r resource.Resource, role string) resource.Resource {
	return r.Reserve(resource.Reservation{Role: role})
}

// Instance is a pending instance under construction.
type Instance struct{ scheduler.Instance }

// Pending adds an instance of app "/app" that asks for 1 cpu and 128 MiB.
func (w *World) Pending(id string) *Instance {
	i := &Instance{scheduler.Instance{
		ID: id, App: "/app", Role: Role, CPUs: 1000, Mem: 128_000, Since: w.Now,
	}}
	w.pending = append(w.pending, i)
	return i
}

// Of sets the app.
func (i *Instance) Of(app string) *Instance {
	i.App = app
	return i
}

// Needs sets cpus and memory in MiB.
func (i *Instance) Needs(cpus, mem float64) *Instance {
	i.CPUs, i.Mem = resource.FromFloat(cpus), resource.FromFloat(mem)
	return i
}

// Port adds host ports; 0 is any.
func (i *Instance) Port(numbers ...uint32) *Instance {
	for _, n := range numbers {
		i.Ports = append(i.Ports, scheduler.Port{Number: n})
	}
	return i
}

// Where adds a constraint.
func (i *Instance) Where(field string, op scheduler.Operator, value string) *Instance {
	i.Constraints = append(i.Constraints, scheduler.Constraint{Field: field, Operator: op, Value: value})
	return i
}

// Mounts adds a volume of driver "drv".
func (i *Instance) Mounts(name string, access scheduler.AccessMode) *Instance {
	i.Volumes = append(i.Volumes, scheduler.VolumeRequest{Key: Key(name), Access: access})
	return i
}

// Key is the volume of driver "drv" with a name.
func Key(name string) scheduler.VolumeKey { return scheduler.VolumeKey{Driver: "drv", Name: name} }

// Persists adds a persistent volume of MiB in size.
func (i *Instance) Persists(t resource.SourceType, mib float64, path string) *Instance {
	i.Persistent = append(i.Persistent, scheduler.PersistentRequest{
		PersistenceID: i.ID + "#" + path, ContainerPath: path, Source: t, Size: resource.FromFloat(mib),
	})
	return i
}

// Placed is an instance with an agent under construction.
type Placed struct{ scheduler.Placed }

// Placed adds an instance of app "/app" that runs on an agent.
func (w *World) Placed(id, agent string) *Placed {
	p := &Placed{scheduler.Placed{ID: id, App: "/app", AgentID: agent, Hostname: Host(agent), Counts: true, CPUs: 1000, Mem: 128_000}}
	w.placed = append(w.placed, p)
	return p
}

// Attr sets an attribute of the agent at launch.
func (p *Placed) Attr(name, value string) *Placed {
	if p.Attributes == nil {
		p.Attributes = make(map[string]string)
	}
	p.Attributes[name] = value
	return p
}

// Claim is a claim under construction.
type Claim struct{ scheduler.Claim }

// Claim adds a claim of an agent on a volume of driver "drv".
func (w *World) Claim(volume, agent string, state scheduler.ClaimState, instances ...string) *Claim {
	c := &Claim{scheduler.Claim{
		Key: Key(volume), AgentID: agent, Hostname: Host(agent), State: state, Instances: instances,
	}}
	w.claims = append(w.claims, c)
	return c
}

// Volume is what is known of a volume, under construction.
type Volume struct{ scheduler.VolumeFact }

// Volume adds knowledge of a volume of driver "drv".
func (w *World) Volume(name string) *Volume {
	v := &Volume{scheduler.VolumeFact{Key: Key(name)}}
	w.volumes = append(w.volumes, v)
	return v
}

// Last sets where the volume was last used.
func (v *Volume) Last(agent string) *Volume {
	v.LastAgent, v.LastHostname = agent, Host(agent)
	return v
}

// Agent is what a bridge tells of an agent, under construction.
type Agent struct{ scheduler.AgentFact }

// Bridge adds the report of an agent's bridge, with a healthy driver "drv".
func (w *World) Bridge(agent string) *Agent {
	a := &Agent{scheduler.AgentFact{AgentID: agent, Known: true, Drivers: []scheduler.DriverFact{{Name: "drv", Healthy: true}}}}
	w.agents = append(w.agents, a)
	return a
}

// At is the offer with an index, in the order in which they were added.
func (w *World) At(i int) *Offer { return w.offers[i] }
