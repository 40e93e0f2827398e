package scheduler

import (
	"encoding/binary"
	"slices"

	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// class is a set of instances that the same agents could ever take: same role,
// constraints on the agent, drivers and zone. What an agent is decides, not
// what it has left, so a class's verdicts hold for the whole round.
type class struct {
	role                 string
	unreserved, reserved bool
	constraints          []Constraint // those that depend on the agent alone
	all                  []Constraint // all, for the rule of remote regions
	drivers              []string
	zones                []string // zones of volumes, all must match
	zoneKnown            bool     // only agents whose zone is known to match
	gpus                 bool     // asks for GPUs or may use agents with them
	resident             bool     // has or makes a reservation
	only                 *groupValue

	parts    map[groupValue]*class
	asked    int       // how often a verdict was asked for without the table
	verdicts []verdict // per share, counted from 1, 0 where not worked out; nil until needed
	tree     *tree     // nil until needed
}

// groupValue narrows a class to agents with one value of a field.
type groupValue struct {
	field *field
	value int32
}

// shape is a set of instances that differ in nothing that matters except the
// identity of their volumes.
type shape struct {
	class *class
	needs amounts
	app   *appState // set if constraints count instances

	counting []Constraint // these constraints

	// sample is a plain request of the shape, once one is launched.
	sample *request

	// exhausted remembers that no agent can take the shape any more, at this
	// version of the app.
	exhausted   bool
	exhaustedAt int

	// Memos of the explanation, made after all is placed: how the agents answer,
	// and what is said of instances with nothing special about them.
	tally *tally
	plain *Waiting
}

// request is one pending instance with what was worked out for it.
type request struct {
	inst   *Instance
	id     string
	mounts []mount
	app    *appState // nil where nothing depends on the app's other instances
	shape  *shape
	rank   uint8
	// What decides is held here, since no cache holds all instances: whether it
	// has a reservation, is kept off an agent that it was moved off, must not be
	// placed in this round, is bound to no agent and cannot be bound by others,
	// and wants nothing but amounts and as many ports.
	bound, avoiding, barred, free, plain bool
	// joins: it names shared persistent volumes, which may exist.
	joins bool
	says  says // of any of its volumes
}

// shapeOf finds the shape of a request, and with it its class.
func (d *decision) shapeOf(r *request) *shape {
	inst := r.inst
	key := d.classKey(r, false)
	split := len(key)
	for _, m := range []resource.Milli{inst.CPUs, inst.Mem, inst.Disk, inst.GPUs} {
		key = binary.AppendVarint(key, int64(m))
	}
	key = binary.AppendUvarint(key, uint64(len(inst.Ports)))
	for _, p := range inst.Ports {
		key = binary.AppendUvarint(key, uint64(p.Number))
	}
	key = append(key, bit(inst.Reservation != nil))
	key = appendPersistent(key, inst)
	if slices.ContainsFunc(inst.Constraints, func(c Constraint) bool { return c.counts() }) {
		key = appendString(key, inst.App)
		key = appendConstraints(key, inst.Constraints, true)
	}
	d.keyBuf = key
	if s, ok := d.shapes[string(key)]; ok {
		return s
	}
	s := newShape(r, d.classFor(key[:split], r, false))
	d.shapes[string(key)] = s
	return s
}

func newShape(r *request, c *class) *shape {
	inst := r.inst
	s := &shape{
		counting: slices.DeleteFunc(slices.Clone(inst.Constraints), func(c Constraint) bool { return !c.counts() }),
		class:    c,
		needs:    amounts{inst.CPUs, inst.Mem, inst.Disk, inst.GPUs, int64(len(inst.Ports))},
	}
	if len(s.counting) > 0 {
		s.app = r.app
	}
	return s
}

func (d *decision) classFor(key []byte, r *request, zoneKnown bool) *class {
	if c, ok := d.classes[string(key)]; ok {
		return c
	}
	inst := r.inst
	c := &class{
		role: inst.Role, unreserved: inst.AcceptUnreserved, reserved: inst.AcceptReserved,
		all: inst.Constraints, zoneKnown: zoneKnown, zones: r.zones(),
		gpus:     inst.GPUs > 0 || inst.GPUUnrestricted || !d.s.Policy.RestrictGPUAgents,
		resident: resident(inst),
	}
	if !c.unreserved && !c.reserved {
		c.unreserved, c.reserved = true, true
	}
	for _, k := range inst.Constraints {
		if !k.counts() {
			c.constraints = append(c.constraints, k)
		}
	}
	for i := range inst.Volumes {
		if n := inst.Volumes[i].Key.Driver; !slices.Contains(c.drivers, n) {
			c.drivers = append(c.drivers, n)
		}
	}
	d.classes[string(key)] = c
	return c
}

// narrowed is the class of a request restricted to agents with one value of a
// field.
func (d *decision) narrowed(r *request, f *field, value int32) *class {
	only := groupValue{f, value}
	whole := r.shape.class
	c := whole.parts[only]
	if c == nil {
		part := *whole
		part.only, part.parts, part.asked, part.verdicts, part.tree = &only, nil, 0, nil, nil
		c = &part
		if whole.parts == nil {
			whole.parts = make(map[groupValue]*class)
		}
		whole.parts[only] = c
	}
	return c
}

// inZone is the class restricted to agents that are known to be in the zone of
// the volumes.
func (d *decision) inZone(r *request) *class {
	key := d.classKey(r, true)
	d.keyBuf = key
	return d.classFor(key, r, true)
}

// classKey encodes everything that a class depends on.
func (d *decision) classKey(r *request, zoneKnown bool) []byte {
	inst := r.inst
	key := d.keyBuf[:0]
	key = appendString(key, inst.Role)
	key = append(key, bit(inst.AcceptUnreserved)|bit(inst.AcceptReserved)<<1|bit(inst.GPUs > 0)<<2|
		bit(inst.GPUUnrestricted)<<3|bit(resident(inst))<<4|bit(zoneKnown)<<5)
	key = appendConstraints(key, inst.Constraints, false)
	for _, m := range r.mounts {
		key = append(key, 'V')
		key = appendString(key, m.req.Key.Driver)
		if m.says&stepZone.bit() != 0 {
			key = appendString(key, m.fact.Zone)
		} else {
			key = append(key, 0)
		}
	}
	return append(key, 'E')
}

func resident(inst *Instance) bool { return len(inst.Persistent) > 0 || inst.Reservation != nil }

func appendConstraints(key []byte, cs []Constraint, counting bool) []byte {
	for i := range cs {
		c := &cs[i]
		if c.counts() != counting {
			// Only its field matters here: it may admit remote regions.
			if !counting && (c.Field == fieldRegion || c.Field == fieldZone) {
				key = append(key, 'R')
			}
			continue
		}
		key = append(key, 'C')
		key = appendString(key, c.Field)
		key = appendString(key, string(c.Operator))
		key = appendString(key, c.Value)
	}
	return key
}

func appendPersistent(key []byte, inst *Instance) []byte {
	for i := range inst.Persistent {
		p := &inst.Persistent[i]
		key = append(key, 'P', byte(p.Source), bit(p.Shared))
		key = binary.AppendVarint(key, int64(p.Size))
		key = binary.AppendVarint(key, int64(p.MaxSize))
		key = appendString(key, p.Profile)
		key = appendConstraints(key, p.Constraints, false)
		if p.Shared {
			key = appendString(key, p.PersistenceID)
			key = appendString(key, p.AgentID)
		}
	}
	return key
}

func appendString(key []byte, s string) []byte {
	return append(binary.AppendUvarint(key, uint64(len(s))), s...)
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// zones lists the zones that the volumes of a request are in.
func (r *request) zones() []string {
	var zs []string
	for _, m := range r.mounts {
		if m.says&stepZone.bit() != 0 && !slices.Contains(zs, m.fact.Zone) {
			zs = append(zs, m.fact.Zone)
		}
	}
	return zs
}

// verdictOf is classVerdict from a table. A class that is asked for few agents has
// none: there may be as many classes as instances.
func (d *decision) verdictOf(c *class, share int32) verdict {
	if c.verdicts == nil {
		if c.asked++; c.asked < len(d.shares)/16 {
			return d.classVerdict(c, &d.shares[share])
		}
		c.verdicts = make([]verdict, len(d.shares))
	}
	v := &c.verdicts[share]
	if *v == 0 {
		*v = d.classVerdict(c, &d.shares[share]) + 1
	}
	return *v - 1
}

// verdict is the first rule of the class that a share fails.
func (d *decision) classVerdict(c *class, s *share) verdict {
	a := &d.agents[s.agent]
	switch {
	case s.role != "" && s.role != c.role, !c.usable(s):
		return failsRole
	case !d.allowed(c, a), c.only != nil && c.only.field.of[s.agent] != c.only.value:
		return failsConstraint
	case a.maintenance:
		return failsMaintenance
	case !hasDrivers(c, a):
		return failsDriver
	case !c.zoneMatches(a):
		return failsZone
	case a.hasGPUs && !c.gpus:
		return failsScarce
	}
	return fits
}

// usable says whether the share holds anything that the class may use.
func (c *class) usable(s *share) bool {
	for i := range s.free {
		switch s.free[i].use {
		case useUnreserved:
			if c.unreserved || c.resident {
				return true
			}
		case useReserved:
			if c.reserved {
				return true
			}
		case useOwned, useDisk:
			if c.resident {
				return true
			}
		}
	}
	return false
}

func (d *decision) allowed(c *class, a *agent) bool {
	if d.remoteRegion(c.all, a) {
		return false
	}
	p := a.place()
	for i := range c.constraints {
		if !d.allowsAgent(&c.constraints[i], &p) {
			return false
		}
	}
	return true
}

func hasDrivers(c *class, a *agent) bool {
	for _, name := range c.drivers {
		if f, known := a.driver(name); known && !f.Healthy {
			return false
		}
	}
	return true
}

// zoneMatches tests the zones of the volumes. An agent whose zone nobody told
// passes, unless the class wants to be sure.
func (c *class) zoneMatches(a *agent) bool {
	if a.zone == "" {
		return !c.zoneKnown
	}
	return !slices.ContainsFunc(c.zones, func(z string) bool { return z != a.zone })
}

// available is what instances of the class may use of a share, at most: which
// reservations an instance can build upon is left to the check.
func (c *class) available(s *share) amounts {
	var t amounts
	if c.unreserved || c.resident {
		t = t.plus(s.total[useUnreserved])
	}
	if c.reserved {
		t = t.plus(s.total[useReserved])
	}
	return t
}
