package scheduler

import (
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
	x, errX := strconv.ParseFloat(a, 64)
	y, errY := strconv.ParseFloat(b, 64)
	return errX == nil && errY == nil && resource.FromFloat(x) == resource.FromFloat(y)
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

// group counts an app's instances by the value of one field.
type group struct {
	field  string
	values map[string]int
	// levels counts the values by their number of instances, least is the
	// smallest such number: both kept up to date so that a check costs no walk.
	levels map[int]int
	least  int
	// home is the value that CLUSTER without a value keeps to: that of the
	// first instance, empty while there is none.
	home string
}

func newGroup(field string) group {
	return group{field: field, values: make(map[string]int), levels: make(map[int]int)}
}

// add counts one more instance with a value. Counts only grow in a round.
func (g *group) add(value string) {
	n := g.values[value]
	g.values[value] = n + 1
	g.levels[n+1]++
	if n == 0 {
		g.least = 1
		return
	}
	if g.levels[n]--; g.levels[n] == 0 && g.least == n {
		g.least = n + 1
	}
}

// allowsCount is the rule of a constraint that depends on the app's other
// instances.
func (g *group) allowsCount(c *Constraint, p *place) bool {
	v, ok := p.field(c.Field)
	return ok && g.allowsValue(c, v)
}

func (g *group) allowsValue(c *Constraint, v string) bool {
	n := g.values[v]
	switch c.Operator {
	case Unique:
		return n == 0
	case MaxPer:
		most, err := strconv.Atoi(strings.TrimSpace(c.Value))
		return err == nil && n < most
	case Cluster:
		return len(g.values) == 0 || g.home == v
	case GroupBy:
		return g.allowsGroup(c, n)
	}
	return true
}

// allowsGroup opens a new group always, and adds to one that exists if enough
// groups are open and none of them has fewer. Without a number of groups those
// seen so far count (Marathon divides by zero there).
func (g *group) allowsGroup(c *Constraint, n int) bool {
	if n == 0 {
		return true
	}
	want, err := strconv.Atoi(strings.TrimSpace(c.Value))
	if err != nil {
		want = 0
	}
	return len(g.values) >= want && n <= g.least
}

// mostUsed is the value that most instances have, the first of these by name.
// Who came first is not known of instances that were there before the round.
func (g *group) mostUsed() string {
	value, most := "", 0
	for v, n := range g.values {
		if n > most || n == most && v < value {
			value, most = v, n
		}
	}
	return value
}

// appState is what a round knows of an app's other instances.
type appState struct {
	placed  []*Placed
	onAgent map[string]int // instances by agent id
	groups  []group
	added   []place // where this round launches instances
	version int     // counts launches of this round
}

func newAppState(placed []*Placed) *appState {
	a := &appState{placed: placed, onAgent: make(map[string]int, len(placed))}
	for _, p := range placed {
		a.onAgent[p.AgentID]++
	}
	return a
}

// group returns the counts for a field, made when first asked for.
func (a *appState) group(field string) *group {
	for i := range a.groups {
		if a.groups[i].field == field {
			return &a.groups[i]
		}
	}
	g := newGroup(field)
	for _, p := range a.placed {
		at := place{p.Hostname, p.Region, p.Zone, p.Attributes}
		if v, ok := at.field(field); ok && p.Counts {
			g.add(v)
		}
	}
	g.home = g.mostUsed()
	for i := range a.added {
		g.launched(&a.added[i])
	}
	a.groups = append(a.groups, g)
	return &a.groups[len(a.groups)-1]
}

// launched counts one more instance.
func (a *appState) launched(on *agent) {
	a.version++
	a.onAgent[on.id]++
	p := on.place()
	a.added = append(a.added, p)
	for i := range a.groups {
		a.groups[i].launched(&p)
	}
}

func (g *group) launched(at *place) {
	v, ok := at.field(g.field)
	if !ok {
		return
	}
	if len(g.values) == 0 {
		g.home = v
	}
	g.add(v)
}

// allows says whether an app's constraints that count instances allow an agent.
func (a *appState) allows(cs []Constraint, on *agent) bool {
	p := on.place()
	for i := range cs {
		if cs[i].counts() && !a.group(cs[i].Field).allowsCount(&cs[i], &p) {
			return false
		}
	}
	return true
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
