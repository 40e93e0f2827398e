package scheduler

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// Fields of constraints that are not attributes.
const (
	fieldHostname   = "hostname"
	fieldAtHostname = "@hostname"
	fieldRegion     = "@region"
	fieldZone       = "@zone"
)

// isHostname says whether a constraint's field is the agent's host name.
func isHostname(field string) bool { return field == fieldHostname || field == fieldAtHostname }

// place is where an agent is, as constraints see it.
type place struct {
	hostname, region, zone string
	attributes             map[string]string
}

func (a *agent) place() place {
	return place{a.hostname, a.region, a.zone, a.attributes}
}

// field returns the value of a constraint's field; an agent without fault
// domain has neither region nor zone.
func (p *place) field(name string) (value string, ok bool) {
	switch name {
	case fieldHostname, fieldAtHostname:
		return p.hostname, true
	case fieldRegion:
		return p.region, p.region != ""
	case fieldZone:
		return p.zone, p.zone != ""
	}
	value, ok = p.attributes[name]
	return value, ok
}

// Field returns the value that a constraint's field has for a placed instance,
// false where its agent has no such attribute or fault domain.
func (p *Placed) Field(name string) (value string, ok bool) {
	at := place{p.Hostname, p.Region, p.Zone, p.Attributes}
	return at.field(name)
}

// counts says whether the constraint looks at the app's other instances; the
// rest depend on the agent alone.
func (c *Constraint) counts() bool {
	switch c.Operator {
	case Unique, GroupBy, MaxPer:
		return true
	case Cluster:
		return c.Value == ""
	}
	return false
}

// literal returns the one value that a constraint on the agent alone allows, if
// there is only one.
func (d *decision) literal(c *Constraint) (string, bool) {
	switch c.Operator {
	case Cluster:
		return c.Value, c.Value != ""
	case Like:
		re := d.regexp(c.Value)
		if re == nil {
			return "", false
		}
		// The pattern is anchored; what is between the anchors is literal if
		// no character has a meaning.
		return c.Value, regexp.QuoteMeta(c.Value) == c.Value
	}
	return "", false
}

// allowsAgent is the rule of a constraint that depends on the agent alone
// (contract 4). A missing field fails every operator except UNLIKE. A pattern
// that is not valid matches nothing.
func (d *decision) allowsAgent(c *Constraint, p *place) bool {
	v, ok := p.field(c.Field)
	if !ok {
		return c.Operator == Unlike
	}
	switch c.Operator {
	case Cluster:
		return c.Value == "" || v == c.Value
	case Is:
		return sameScalar(v, c.Value)
	case Like:
		re := d.regexp(c.Value)
		return re != nil && re.MatchString(v)
	case Unlike:
		re := d.regexp(c.Value)
		return re != nil && !re.MatchString(v)
	}
	return true
}

// sameScalar compares as text, or as numbers with three decimals if both are.
func sameScalar(a, b string) bool {
	if a == b {
		return true
	}
	x, okX := scalar(a)
	y, okY := scalar(b)
	return okX && okY && x == y
}

// scalar reads a number as Mesos writes scalars; words that stand for numbers
// elsewhere, as "inf", are words.
func scalar(s string) (resource.Milli, bool) {
	if strings.Trim(s, "-.0123456789") != "" {
		return 0, false
	}
	x, err := strconv.ParseFloat(s, 64)
	if err != nil || math.Abs(x) >= math.MaxInt64/1000 {
		return 0, false
	}
	return resource.FromFloat(x), true
}

// regexp compiles a pattern that has to match a whole value, once per round;
// nil if it is not valid.
func (d *decision) regexp(pattern string) *regexp.Regexp {
	re, ok := d.patterns[pattern]
	if !ok {
		if compiled, err := regexp.Compile(`\A(?:` + pattern + `)\z`); err == nil {
			re = compiled
		}
		d.patterns[pattern] = re
	}
	return re
}

// field is a field of constraints over the agents of a round: values are numbered
// so that counting costs no comparison of words.
type field struct {
	name    string
	values  []string // the offered ones first, sorted
	offered int
	numbers map[string]int32
	of      []int32 // per agent, absent where it has none
}

const absent = -1

// number is that of a value, which may be one that no offered agent has.
func (f *field) number(value string) int32 {
	n, known := f.numbers[value]
	if !known {
		n = int32(len(f.values))
		f.numbers[value] = n
		f.values = append(f.values, value)
	}
	return n
}

// field numbers the values of a field, when first asked for.
func (d *decision) field(name string) *field {
	if f, ok := d.fields[name]; ok {
		return f
	}
	f := &field{name: name, numbers: make(map[string]int32), of: make([]int32, len(d.agents))}
	for i := range d.agents {
		p := d.agents[i].place()
		if v, ok := p.field(name); ok {
			f.number(v)
		}
	}
	slices.Sort(f.values)
	f.offered = len(f.values)
	for n, v := range f.values {
		f.numbers[v] = int32(n)
	}
	for i := range d.agents {
		f.of[i] = absent
		p := d.agents[i].place()
		if v, ok := p.field(name); ok {
			f.of[i] = f.numbers[v]
		}
	}
	d.fields[name] = f
	return f
}

// group counts an app's instances by the value of one field.
type group struct {
	field  *field
	counts map[int32]int // by the value's number
	// levels counts the values by their number of instances, least is the
	// smallest such number: both kept up to date so that a check costs no walk
	// over the values.
	levels map[int]int
	least  int
	// home is the value that CLUSTER without a value keeps to: that of the
	// first instance.
	home int32
}

func newGroup(f *field) group {
	return group{field: f, counts: make(map[int32]int), levels: make(map[int]int), home: absent}
}

// add counts one more instance with a value. Counts only grow in a round.
func (g *group) add(value int32) {
	n := g.counts[value]
	g.counts[value] = n + 1
	g.levels[n+1]++
	if n == 0 {
		g.least = 1
		return
	}
	if g.levels[n]--; g.levels[n] == 0 {
		delete(g.levels, n)
		if g.least == n {
			g.least = n + 1
		}
	}
}

// allows is the rule of a constraint that depends on the app's other instances,
// of which there are to be so many in all.
func (g *group) allows(c *Constraint, value int32, instances int) bool {
	if value == absent {
		return false
	}
	n := g.counts[value]
	switch c.Operator {
	case Unique:
		return n == 0
	case MaxPer:
		most, err := strconv.Atoi(strings.TrimSpace(c.Value))
		return err == nil && n < most
	case Cluster:
		return len(g.counts) == 0 || g.home == value
	case GroupBy:
		return g.allowsGroup(c, n, instances)
	}
	return true
}

// allowsGroup spreads instances evenly over as many groups as the constraint
// says: each takes its part of them, and of the rest one. Without such a number
// a group must not have more than any other that was seen so far, and a new one
// may always be opened (Marathon divides by zero there).
func (g *group) allowsGroup(c *Constraint, n, instances int) bool {
	groups, err := strconv.Atoi(strings.TrimSpace(c.Value))
	if err != nil || groups <= 0 {
		return n == 0 || n <= g.least
	}
	if n == 0 {
		return len(g.counts) < groups
	}
	part := instances / groups
	return n < part || n == part && instances%groups > g.beyond(part)
}

// beyond is how many instances the values have in excess of a number each.
func (g *group) beyond(part int) (sum int) {
	for n, values := range g.levels {
		sum += max(0, n-part) * values
	}
	return sum
}

// mostUsed is the value that most instances have, the first of these by name.
// Who came first is not known of instances that were there before the round.
func (g *group) mostUsed() int32 {
	best := int32(absent)
	for v, n := range g.counts {
		if best == absent || n > g.counts[best] || n == g.counts[best] && g.field.values[v] < g.field.values[best] {
			best = v
		}
	}
	return best
}

// appState is what a round knows of an app's other instances.
type appState struct {
	placed    []placedAt
	instances int           // how many there are to be
	onAgent   map[int32]int // instances by agent
	groups    []group
	added     []int32 // the agents on which this round launches instances
	version   int     // counts launches of this round
}

// placedAt is a placed instance and its agent, absent where that has no offer.
type placedAt struct {
	*Placed
	at int32
}

func newAppState(placed []placedAt) *appState {
	a := &appState{placed: placed, onAgent: make(map[int32]int)}
	for _, p := range placed {
		if p.at != absent {
			a.onAgent[p.at]++
		}
		if p.Counts {
			a.instances++
		}
	}
	return a
}

// group returns an app's counts for a field, made when first asked for.
func (d *decision) group(a *appState, name string) *group {
	for i := range a.groups {
		if a.groups[i].field.name == name {
			return &a.groups[i]
		}
	}
	g := newGroup(d.field(name))
	for _, p := range a.placed {
		if v, ok := p.Field(name); ok && p.Counts {
			g.add(g.field.number(v))
		}
	}
	g.home = g.mostUsed()
	for _, on := range a.added {
		g.launched(on)
	}
	a.groups = append(a.groups, g)
	return &a.groups[len(a.groups)-1]
}

// launched counts one more instance on an agent.
func (a *appState) launched(on int32) {
	a.version++
	a.onAgent[on]++
	a.added = append(a.added, on)
	for i := range a.groups {
		a.groups[i].launched(on)
	}
}

func (g *group) launched(on int32) {
	v := g.field.of[on]
	if v == absent {
		return
	}
	if len(g.counts) == 0 {
		g.home = v
	}
	g.add(v)
}

// allowsBeside says whether the constraints of a shape that count instances allow
// an agent.
func (d *decision) allowsBeside(s *shape, on int32) bool {
	for i := range s.counting {
		if !d.countAllows(s.app, &s.counting[i], on) {
			return false
		}
	}
	return true
}

func (d *decision) countAllows(a *appState, c *Constraint, on int32) bool {
	g := d.group(a, c.Field)
	return g.allows(c, g.field.of[on], a.instances)
}

// remoteRegion says whether an agent is outside of the master's region and the
// instance has not asked for that by an @region or @zone constraint.
func (d *decision) remoteRegion(cs []Constraint, a *agent) bool {
	local := d.s.Policy.LocalRegion
	if local == "" || a.region == "" || a.region == local {
		return false
	}
	return !slices.ContainsFunc(cs, func(c Constraint) bool {
		return c.Field == fieldRegion || c.Field == fieldZone
	})
}
