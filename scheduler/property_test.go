package scheduler_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/resource"
	"github.com/mesos-dvdi/dvdi/scheduler/schedtest"
)

// anyWorld draws a small cluster in which everything competes: few agents, few
// volumes, more instances than fit.
func anyWorld(t *rapid.T) scheduler.Snapshot {
	w := reserving()
	w.Seed = rapid.Uint64Range(0, 3).Draw(t, "seed")
	w.Policy.Pack = rapid.Bool().Draw(t, "pack")
	w.Policy.MaxInstancesPerOffer = rapid.IntRange(0, 3).Draw(t, "launch limit")
	w.Policy.ReleaseUnknown = rapid.Bool().Draw(t, "release unknown")
	w.Policy.RestrictGPUAgents = rapid.Bool().Draw(t, "restrict gpus")
	w.Policy.RefuseUnfit = rapid.SampledFrom([]time.Duration{0, time.Minute}).Draw(t, "unfit")
	w.Roles = []scheduler.RoleState{{Role: schedtest.Role, Suppressed: rapid.Bool().Draw(t, "suppressed")}, {Role: "other"}}
	agents := rapid.IntRange(0, 5).Draw(t, "agents")
	for a := range agents {
		anyAgent(t, w, agentName(a))
	}
	for v := range 4 {
		anyVolume(t, w, fmt.Sprintf("v%d", v))
	}
	for i := range rapid.IntRange(0, 10).Draw(t, "pending") {
		anyInstance(t, w, fmt.Sprintf("x%d", i))
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "placed") {
		a := anyAgentName(t)
		w.Placed(fmt.Sprintf("p%d", i), a).Attr("rack", rackOf(a)).App = anyApp(t)
	}
	if rapid.Bool().Draw(t, "wipe") {
		w.Wiped = []string{rapid.SampledFrom([]string{"x0", "x1", "gone"}).Draw(t, "wiped")}
	}
	return w.Build()
}

func agentName(a int) string { return fmt.Sprintf("a%d", a) }

func anyAgentName(t *rapid.T) string { return agentName(rapid.IntRange(0, 5).Draw(t, "agent")) }

func anyApp(t *rapid.T) string {
	return rapid.SampledFrom([]string{"/app", "/other"}).Draw(t, "app")
}

func rackOf(agent string) string { return "r" + string('0'+rune(agent[1]-'0')%2) }

func anyAgent(t *rapid.T, w *schedtest.World, name string) {
	for range rapid.IntRange(1, 3).Draw(t, "offers") {
		o := w.Offer(name)
		o.Attr("rack", rackOf(name)).In("r", "z"+rackOf(name)[1:])
		for range rapid.IntRange(1, 6).Draw(t, "resources") {
			anyResource(t, o)
		}
		if rapid.IntRange(0, 9).Draw(t, "role") == 0 {
			o.For("other")
		}
	}
	if rapid.Bool().Draw(t, "bridge") {
		f := w.Bridge(name)
		f.Drivers[0].Healthy = rapid.IntRange(0, 5).Draw(t, "unhealthy") > 0
		f.Drivers[0].AttachLimit = rapid.IntRange(0, 3).Draw(t, "attach limit")
		f.Draining = rapid.IntRange(0, 9).Draw(t, "draining") == 0
	}
}

func anyResource(t *rapid.T, o *schedtest.Offer) {
	n := float64(rapid.IntRange(1, 40).Draw(t, "amount")) / 10
	owner := rapid.SampledFrom([]string{"x0", "x1", "x2", "gone"}).Draw(t, "owner")
	switch rapid.IntRange(0, 12).Draw(t, "kind") {
	case 0, 1, 2:
		o.CPUs(n)
	case 3, 4, 5:
		o.Mem(n * 100)
	case 6:
		o.Disk(n * 100)
	case 7:
		o.Ports(31000+uint64(n), 31002+uint64(n))
		o.Resources = keepPortsDisjoint(o.Resources)
	case 8:
		o.Add(schedtest.Static(schedtest.Scalar("cpus", n), schedtest.Role))
	case 9:
		o.Add(owned(schedtest.Scalar("mem", n*100), owner))
	case 10:
		o.Add(volume(n*100, owner, fmt.Sprintf("d%d", len(o.Resources))))
	case 11:
		o.Source(resource.SourceMount, fmt.Sprintf("/%s/%d", o.ID, len(o.Resources)), n*100)
	case 12:
		// Somebody else's.
		o.Add(schedtest.Scalar("disk", n*100).Reserve(resource.Reservation{
			Role: schedtest.Role, Dynamic: true, Labels: []resource.Label{{Key: "fw", Value: "F2"}, {Key: "inst", Value: owner}},
		}).Persist("x", "p", "data"))
	}
}

// keepPortsDisjoint drops a second ports resource: Mesos never offers a port
// twice.
func keepPortsDisjoint(rs []resource.Resource) []resource.Resource {
	seen := false
	return slices.DeleteFunc(rs, func(r resource.Resource) bool {
		again := r.Name == "ports" && seen
		seen = seen || r.Name == "ports"
		return again
	})
}

func anyVolume(t *rapid.T, w *schedtest.World, name string) {
	if rapid.Bool().Draw(t, "claimed") {
		c := w.Claim(name, anyAgentName(t), scheduler.ClaimState(rapid.IntRange(0, 3).Draw(t, "state")))
		if rapid.Bool().Draw(t, "in use") {
			c.Instances = []string{rapid.SampledFrom([]string{"x0", "x1", "p0"}).Draw(t, "holder")}
		}
		c.Access = scheduler.AccessMode(rapid.IntRange(0, 1).Draw(t, "claim access"))
		c.FenceAt = w.Now.Add(time.Duration(rapid.IntRange(-1, 1).Draw(t, "fence")) * time.Second)
	}
	if rapid.Bool().Draw(t, "known") {
		v := w.Volume(name).Last(anyAgentName(t))
		v.Local = rapid.IntRange(0, 3).Draw(t, "local") == 0
		if rapid.IntRange(0, 2).Draw(t, "attached") == 0 {
			v.AttachedTo = []string{anyAgentName(t)}
		}
		v.Zone = rapid.SampledFrom([]string{"", "", "z0", "z1"}).Draw(t, "zone")
	}
}

func anyInstance(t *rapid.T, w *schedtest.World, id string) {
	i := resident(w, id).Of(anyApp(t))
	i.Since = w.Now.Add(-time.Duration(rapid.IntRange(0, 2).Draw(t, "since")) * time.Second)
	i.Needs(float64(rapid.IntRange(0, 30).Draw(t, "cpus"))/10, float64(rapid.IntRange(0, 300).Draw(t, "mem")))
	i.Port(rapid.SliceOfN(rapid.SampledFrom([]uint32{0, 0, 31002}), 0, 2).Draw(t, "ports")...)
	i.AppInstances = rapid.IntRange(0, 8).Draw(t, "instances of the app")
	i.AcceptUnreserved = rapid.Bool().Draw(t, "unreserved")
	i.AcceptReserved = rapid.Bool().Draw(t, "reserved")
	for _, n := range rapid.SliceOfNDistinct(rapid.IntRange(0, 3), 0, 2, rapid.ID).Draw(t, "volumes") {
		i.Mounts(fmt.Sprintf("v%d", n), scheduler.AccessMode(rapid.IntRange(0, 3).Draw(t, "access")))
		i.Volumes[len(i.Volumes)-1].BackendExclusive = rapid.IntRange(0, 3).Draw(t, "backend") == 0
	}
	for range rapid.IntRange(0, 2).Draw(t, "constraints") {
		c := rapid.SampledFrom([]scheduler.Constraint{
			{Field: "hostname", Operator: scheduler.Unique}, {Field: "rack", Operator: scheduler.Unique},
			{Field: "hostname", Operator: scheduler.Cluster, Value: "a1.test"},
			{Field: "rack", Operator: scheduler.Cluster}, {Field: "rack", Operator: scheduler.GroupBy, Value: "2"},
			{Field: "hostname", Operator: scheduler.GroupBy}, {Field: "@zone", Operator: scheduler.Like, Value: "z[01]"},
			{Field: "rack", Operator: scheduler.Unlike, Value: "r0"}, {Field: "hostname", Operator: scheduler.MaxPer, Value: "2"},
		}).Draw(t, "constraint")
		i.Constraints = append(i.Constraints, c)
	}
	switch rapid.IntRange(0, 5).Draw(t, "persistent") {
	case 0:
		i.Persists(resource.SourceRoot, 50, "d0")
	case 1:
		i.Persists(resource.SourceMount, 50, "d1")
	case 2:
		i.Persists(resource.SourceRoot, 50, "d0")
		i.Reservation = &scheduler.ReservationState{AgentID: anyAgentName(t), PersistenceIDs: []string{id + "#d0"}}
	}
}

func TestPropertyNeverOverCommits(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := anyWorld(rt)
		plan := scheduler.Decide(s)
		offers := make(map[string]*scheduler.Offer)
		for i := range s.Offers {
			offers[s.Offers[i].ID] = &s.Offers[i]
		}
		use := func(id string) *scheduler.Offer {
			o := offers[id]
			if o == nil {
				rt.Fatalf("offer %s is used twice or does not exist", id)
			}
			delete(offers, id)
			return o
		}
		for _, a := range plan.Accepts {
			var offered []resource.Resource
			role := ""
			for _, id := range a.OfferIDs {
				o := use(id)
				if o.AgentID != a.AgentID {
					rt.Fatalf("offer %s is not of agent %s", id, a.AgentID)
				}
				if r := o.Resources[0].AllocatedRole; role != "" && r != role {
					rt.Fatalf("offers of roles %s and %s in one accept", role, r)
				} else {
					role = r
				}
				offered = append(offered, o.Resources...)
			}
			applyTo(rt, offered, a.Operations)
			if a.Refuse <= 0 {
				rt.Fatalf("accept without a bound on the rest: %s", a.Refuse)
			}
		}
		for _, d := range plan.Declines {
			for _, id := range d.OfferIDs {
				use(id)
			}
			if d.Refuse <= 0 {
				rt.Fatalf("declined for %s", d.Refuse)
			}
		}
		if len(offers) > 0 {
			rt.Fatalf("%d offers are neither used nor declined", len(offers))
		}
	})
}

func TestPropertyOneClaimPerExclusiveVolume(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := anyWorld(rt)
		plan := scheduler.Decide(s)
		on := schedtest.On(plan)
		type holder struct{ id, agent string }
		for v := range 4 {
			key := schedtest.Key(fmt.Sprintf("v%d", v))
			var holders []holder
			strict := false // one task only
			for i := range s.Pending {
				inst := &s.Pending[i]
				agent, launched := on[inst.ID]
				for _, r := range inst.Volumes {
					if !launched || r.Key != key || !exclusiveAccess(&r) {
						continue
					}
					holders = append(holders, holder{inst.ID, agent})
					strict = strict || r.Access != scheduler.OneAgent
					for _, c := range s.Claims {
						if c.Key == key {
							mayReplace(rt, &s, &c, &r, inst.ID, agent)
						}
					}
				}
			}
			for _, h := range holders {
				if h.agent != holders[0].agent {
					rt.Fatalf("volume %s is launched on two agents: %v", key, holders)
				}
			}
			if strict && len(holders) > 1 {
				rt.Fatalf("volume %s for one task is given to %v", key, holders)
			}
		}
	})
}

func exclusiveAccess(r *scheduler.VolumeRequest) bool {
	return r.Access == scheduler.OneTask || r.Access == scheduler.OneAgent || r.Access == scheduler.ManyReaders && !r.ReadOnly
}

// mayReplace fails if a launch breaks a claim that lives.
func mayReplace(t *rapid.T, s *scheduler.Snapshot, c *scheduler.Claim, r *scheduler.VolumeRequest, id, agent string) {
	others := slices.ContainsFunc(c.Instances, func(i string) bool { return i != id })
	if agent == c.AgentID {
		if others && (c.Access == scheduler.OneTask || r.Access != scheduler.OneAgent) {
			t.Fatalf("%s launched beside %v on volume %s", id, c.Instances, c.Key)
		}
		return
	}
	over := c.State == scheduler.Fenced && !s.Now.Before(c.FenceAt)
	backend := r.BackendExclusive && (c.State == scheduler.Lost || c.State == scheduler.Fenced || c.State == scheduler.Releasing && !others)
	if !over && !backend {
		t.Fatalf("%s launched on %s while %s holds volume %s (state %d)", id, agent, c.AgentID, c.Key, c.State)
	}
}

func TestPropertyDestroysOnlyWhatIsWiped(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := anyWorld(rt)
		for _, a := range scheduler.Decide(s).Accepts {
			for _, o := range a.Operations {
				for _, r := range o.Resources {
					fw, _ := resource.LabelValue(r.ReservationLabels(), "fw")
					inst, _ := resource.LabelValue(r.ReservationLabels(), "inst")
					switch {
					case o.Kind != scheduler.OpDestroy && o.Kind != scheduler.OpUnreserve:
					case fw != "F1":
						rt.Fatalf("touches what is not ours: %+v", r)
					case o.Kind == scheduler.OpDestroy && !slices.Contains(s.Wiped, inst):
						rt.Fatalf("destroys what nobody asked for: %+v", r)
					}
				}
			}
		}
	})
}

func TestPropertySamePlanInAnyOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := anyWorld(rt)
		before := encoded(rt, s)
		want := scheduler.Decide(s)
		if after := encoded(rt, s); before != after {
			rt.Fatalf("the snapshot was changed from\n%s\nto\n%s", before, after)
		}
		if again := scheduler.Decide(s); !reflect.DeepEqual(want, again) {
			rt.Fatalf("the same snapshot gave\n%+v\nand\n%+v", want, again)
		}
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "shuffle"), 0))
		shuffle(r, s.Offers)
		shuffle(r, s.Pending)
		shuffle(r, s.Placed)
		shuffle(r, s.Claims)
		shuffle(r, s.Volumes)
		shuffle(r, s.Agents)
		shuffle(r, s.Roles)
		for i := range s.Offers {
			shuffle(r, s.Offers[i].Resources)
		}
		if got := scheduler.Decide(s); !reflect.DeepEqual(want, got) {
			rt.Fatalf("shuffled\n%+v\nnot\n%+v", got, want)
		}
	})
}

func encoded(t *rapid.T, s scheduler.Snapshot) string {
	line, err := scheduler.EncodeSnapshot(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(line)
}

func shuffle[T any](r *rand.Rand, s []T) {
	r.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
}

func TestPropertyEveryInstanceIsAccountedFor(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := anyWorld(rt)
		plan := scheduler.Decide(s)
		on := schedtest.On(plan)
		for i := range s.Pending {
			id := s.Pending[i].ID
			w := schedtest.Waits(plan, id)
			if (on[id] != "") == (w != nil) {
				rt.Fatalf("%s is launched on %q and waits for %+v", id, on[id], w)
			}
			if w == nil || slices.Contains(s.Wiped, id) {
				continue
			}
			if w.Text == "" {
				rt.Fatalf("%s waits without a word", id)
			}
			n := 0
			for _, c := range w.Counts {
				n += c.Agents
			}
			if n != w.Offers {
				rt.Fatalf("%s: %d agents give a reason, of %d: %+v; %+v in\n%+v", id, n, w.Offers, w, s.Pending[i], plan)
			}
		}
		if len(on)+len(plan.Waiting) != len(s.Pending) {
			rt.Fatalf("%d launched, %d wait, %d pending", len(on), len(plan.Waiting), len(s.Pending))
		}
	})
}

// TestPropertyPlacedIfItFitsAlone compares with a plain search over all agents
// that shares no code with the library.
func TestPropertyPlacedIfItFitsAlone(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := anyWorld(rt)
		s.Wiped = nil
		for _, inst := range slices.Clone(s.Pending) {
			if len(inst.Persistent) > 0 {
				continue // TestDisks has their rules
			}
			alone := s
			alone.Pending = []scheduler.Instance{inst}
			got := schedtest.On(scheduler.Decide(alone))[inst.ID] != ""
			if want := fitsSomewhere(&alone, &inst); got != want {
				rt.Fatalf("%s launched: %t, a plain search says %t\n%+v\n%+v", inst.ID, got, want, inst, scheduler.Decide(alone).Waiting)
			}
		}
	})
}

func fitsSomewhere(s *scheduler.Snapshot, inst *scheduler.Instance) bool {
	for i := range s.Offers {
		if fitsOn(s, inst, &s.Offers[i]) {
			return true
		}
	}
	return false
}

func fitsOn(s *scheduler.Snapshot, inst *scheduler.Instance, at *scheduler.Offer) bool {
	if at.Resources[0].AllocatedRole != inst.Role {
		return false
	}
	var have resource.Resources
	gpus := false
	for _, o := range s.Offers {
		if o.AgentID != at.AgentID {
			continue
		}
		for _, r := range o.Resources {
			gpus = gpus || r.Name == "gpus"
			if r.AllocatedRole == inst.Role && acceptable(inst, &r) {
				have = append(have, r)
			}
		}
	}
	return len(have) > 0 && !(gpus && s.Policy.RestrictGPUAgents) && enough(inst, have) &&
		constraintsHold(s, inst, at) && volumesUsable(s, inst, at)
}

func acceptable(inst *scheduler.Instance, r *resource.Resource) bool {
	any := !inst.AcceptReserved && !inst.AcceptUnreserved
	switch {
	case r.Disk != nil || len(r.ReservationLabels()) > 0:
		return false
	case len(r.Reservations) > 0:
		return r.Role() == inst.Role && (any || inst.AcceptReserved)
	}
	return any || inst.AcceptUnreserved
}

func enough(inst *scheduler.Instance, have resource.Resources) bool {
	ports := map[uint64]bool{}
	for _, r := range have {
		for _, x := range r.Ranges {
			for p := x.Begin; p <= x.End; p++ {
				ports[p] = true
			}
		}
	}
	for _, p := range inst.Ports {
		if p.Number != 0 {
			if !ports[uint64(p.Number)] {
				return false
			}
			delete(ports, uint64(p.Number))
		}
	}
	for _, p := range inst.Ports {
		if p.Number == 0 {
			if len(ports) == 0 {
				return false
			}
			for q := range ports {
				delete(ports, q)
				break
			}
		}
	}
	return have.Scalar("cpus") >= inst.CPUs && have.Scalar("mem") >= inst.Mem && have.Scalar("disk") >= inst.Disk
}

func constraintsHold(s *scheduler.Snapshot, inst *scheduler.Instance, at *scheduler.Offer) bool {
	fieldOf := func(field, host, zone string, attrs map[string]string) string {
		switch field {
		case "hostname":
			return host
		case "@zone":
			return zone
		}
		return attrs[field]
	}
	for _, c := range inst.Constraints {
		mine := fieldOf(c.Field, at.Hostname, at.Zone, at.Attributes)
		counts := map[string]int{}
		for _, p := range s.Placed {
			if p.App == inst.App {
				counts[fieldOf(c.Field, p.Hostname, p.Zone, p.Attributes)]++
			}
		}
		ok := true
		switch c.Operator {
		case scheduler.Unique:
			ok = counts[mine] == 0
		case scheduler.MaxPer:
			n, _ := strconv.Atoi(c.Value)
			ok = counts[mine] < n
		case scheduler.Cluster:
			if c.Value != "" {
				ok = mine == c.Value
				break
			}
			home := ""
			for v, n := range counts {
				if home == "" || n > counts[home] || n == counts[home] && v < home {
					home = v
				}
			}
			ok = home == "" || home == mine
		case scheduler.GroupBy:
			ok = groupTakes(counts, mine, c.Value, inst.AppInstances)
		case scheduler.Like:
			ok = regexp.MustCompile("^(" + c.Value + ")$").MatchString(mine)
		case scheduler.Unlike:
			ok = !regexp.MustCompile("^(" + c.Value + ")$").MatchString(mine)
		}
		if !ok {
			return false
		}
	}
	return true
}

// groupTakes says whether GROUP_BY lets a group have one more instance.
func groupTakes(counts map[string]int, mine, value string, instances int) bool {
	groups, err := strconv.Atoi(value)
	all, least := 1, counts[mine]
	for _, n := range counts {
		all += n
		least = min(least, n)
	}
	if err != nil {
		return counts[mine] == 0 || counts[mine] == least
	}
	if counts[mine] == 0 {
		return len(counts) < groups
	}
	// One more here, and the parts that are larger than others still number no
	// more than what does not divide evenly.
	instances = max(instances, all)
	larger := 0
	for g, n := range counts {
		if g == mine {
			n++
		}
		larger += max(0, n-instances/groups)
	}
	return counts[mine]+1 <= instances/groups || counts[mine] == instances/groups && larger <= instances%groups
}

func volumesUsable(s *scheduler.Snapshot, inst *scheduler.Instance, at *scheduler.Offer) bool {
	facts := map[string]scheduler.AgentFact{}
	for _, f := range s.Agents {
		facts[f.AgentID] = f
	}
	if facts[at.AgentID].Draining {
		return false
	}
	more := 0
	for _, r := range inst.Volumes {
		if f := facts[at.AgentID]; f.Known && !f.Drivers[0].Healthy {
			return false
		}
		attached, claimed := false, false
		for _, c := range s.Claims {
			if c.Key != r.Key {
				continue
			}
			claimed = true
			attached = attached || c.AgentID == at.AgentID
			if !claimAllows(s, &c, &r, inst.ID, at.AgentID) {
				return false
			}
		}
		for _, v := range s.Volumes {
			if v.Key != r.Key {
				continue
			}
			here := slices.Contains(v.AttachedTo, at.AgentID)
			attached = attached || here
			stranger := slices.ContainsFunc(v.AttachedTo, func(a string) bool { return facts[a].Known })
			if stranger && !here && !claimed && exclusiveAccess(&r) && !r.BackendExclusive {
				return false
			}
			if v.Local && v.LastAgent != at.AgentID || v.Zone != "" && v.Zone != at.Zone {
				return false
			}
		}
		if !attached {
			more++
		}
	}
	f := facts[at.AgentID]
	return more == 0 || !f.Known || f.Drivers[0].AttachLimit == 0 || more <= f.Drivers[0].AttachLimit
}

func claimAllows(s *scheduler.Snapshot, c *scheduler.Claim, r *scheduler.VolumeRequest, id, agent string) bool {
	others := slices.ContainsFunc(c.Instances, func(i string) bool { return i != id })
	if agent == c.AgentID {
		return !others || c.Access == scheduler.OneAgent && (r.Access == scheduler.OneAgent || r.Access == scheduler.ManyWriters)
	}
	switch c.State {
	case scheduler.Releasing:
		return !others && r.BackendExclusive
	case scheduler.Lost:
		return r.BackendExclusive
	case scheduler.Fenced:
		return r.BackendExclusive || !c.FenceAt.After(s.Now)
	}
	return false
}
