package scheduler_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/resource"
	"github.com/mesos-dvdi/dvdi/scheduler/schedtest"
)

// TestSimulation plays the framework and the cluster around Decide for half an
// hour of made-up time: tasks that fail, slow unmounts, partitions, lost hosts,
// updates and scaling. After each step the invariants hold; when the trouble
// ends every instance runs. A seed that fails is played again by the command that
// the failure prints.
func TestSimulation(t *testing.T) {
	seeds := 40
	if exhaustive() {
		seeds = 1000
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("to play it again: DVDI_LONG=1 go test ./scheduler -count=1 -run '^TestSimulation$/^seed=%d$'", seed)
				}
			})
			s := newSimulation(t, uint64(seed))
			for range 900 {
				s.trouble()
				s.step()
			}
			s.peace()
			for range 900 {
				s.step()
			}
			s.mustRunEverything()
		})
	}
}

// simulation is a cluster and a framework.
type simulation struct {
	t          *testing.T
	rnd        *rand.Rand
	now        time.Time
	policy     scheduler.Policy
	hosts      []*host
	insts      []*task
	claims     map[scheduler.VolumeKey]*scheduler.Claim
	last       map[scheduler.VolumeKey]*host
	unmounts   []unmount
	flow       scheduler.RoleState
	launched   int
	suppressed int
	next       int
}

// host is an agent with its host. mounted is the truth: what is mounted there
// whoever knows it.
type host struct {
	id, zone  string
	cpus, mem resource.Milli
	reachable bool
	alive     bool
	refused   time.Time
	mounted   map[scheduler.VolumeKey]bool
	healsAt   time.Time
}

// task is an instance. on is where its task runs, nil while it is pending.
type task struct {
	inst    scheduler.Instance
	on      *host
	deleted bool
}

// unmount is what the isolator will do, some time after a task has ended.
type unmount struct {
	at  time.Time
	on  *host
	key scheduler.VolumeKey
}

func newSimulation(t *testing.T, seed uint64) *simulation {
	s := &simulation{
		t: t, rnd: rand.New(rand.NewPCG(seed, 7)), now: schedtest.Start,
		claims: make(map[scheduler.VolumeKey]*scheduler.Claim),
		last:   make(map[scheduler.VolumeKey]*host),
		flow:   scheduler.RoleState{Role: schedtest.Role},
	}
	s.policy = scheduler.Policy{
		Refuse: 5 * time.Minute, RefuseUnfit: time.Minute, RefuseWaiting: 5 * time.Second,
		Wait:                 scheduler.Wait{LastAttached: time.Duration(s.rnd.IntN(20)) * time.Second},
		Pack:                 s.rnd.IntN(4) == 0,
		MaxInstancesPerOffer: s.rnd.IntN(3),
	}
	for i := range 3 + s.rnd.IntN(8) {
		s.hosts = append(s.hosts, &host{
			id: fmt.Sprintf("h%d", i), zone: fmt.Sprintf("z%d", i%3), cpus: 8000, mem: 8192_000,
			reachable: true, alive: true, mounted: make(map[scheduler.VolumeKey]bool),
		})
	}
	for i := range 3 * len(s.hosts) {
		s.addInstance(fmt.Sprintf("/app%d", i%5), fmt.Sprintf("v%d", i))
	}
	return s
}

func (s *simulation) addInstance(app, volume string) {
	s.next++
	in := schedtest.New().Pending(fmt.Sprintf("i%d", s.next)).Of(app).Mounts(volume, scheduler.OneTask)
	in.Needs(float64(1+s.rnd.IntN(10))/10, float64(32*(1+s.rnd.IntN(30)))).Port(0)
	in.Since = s.now
	switch app {
	case "/app1":
		in.Where("@zone", scheduler.GroupBy, "")
	case "/app2":
		in.Where("hostname", scheduler.MaxPer, "6")
	case "/app3":
		in.Where("@zone", scheduler.Unlike, "z2")
	}
	s.insts = append(s.insts, &task{inst: in.Instance})
}

// step is one second: the cluster moves on, the framework hears of it, decides
// and acts.
func (s *simulation) step() {
	s.now = s.now.Add(time.Second)
	s.cluster()
	snapshot := s.snapshot()
	plan := scheduler.Decide(snapshot)
	s.apply(&snapshot, plan)
	s.check()
}

// cluster does the unmounts that are due and lets partitions heal.
func (s *simulation) cluster() {
	s.unmounts = slices.DeleteFunc(s.unmounts, func(u unmount) bool {
		if s.now.Before(u.at) || !u.on.alive {
			return !u.on.alive
		}
		if s.usedOn(u.key, u.on) {
			return true // a newer task took the volume over, the ledger keeps it
		}
		delete(u.on.mounted, u.key)
		if !u.on.reachable {
			return true // the bridge tells when it is back
		}
		s.settle(u.key, u.on)
		return true
	})
	for _, h := range s.hosts {
		if !h.reachable && !h.healsAt.IsZero() && !s.now.Before(h.healsAt) {
			s.heal(h)
		}
	}
}

// usedOn says whether a task uses the volume on a host, known or not.
func (s *simulation) usedOn(key scheduler.VolumeKey, h *host) bool {
	return slices.ContainsFunc(s.insts, func(t *task) bool { return t.on == h && t.inst.Volumes[0].Key == key })
}

// settle is the bridge's report that a volume is unmounted.
func (s *simulation) settle(key scheduler.VolumeKey, h *host) {
	if c := s.claims[key]; c != nil && c.AgentID == h.id && !h.mounted[key] {
		delete(s.claims, key)
	}
}

// trouble makes at most one thing go wrong.
func (s *simulation) trouble() {
	h := s.hosts[s.rnd.IntN(len(s.hosts))]
	t := s.insts[s.rnd.IntN(len(s.insts))]
	switch s.rnd.IntN(60) {
	case 0, 1, 2: // a task fails
		if t.on != nil && t.on.reachable {
			s.end(t)
			t.inst.NotBefore = s.now.Add(time.Duration(s.rnd.IntN(10)) * time.Second)
		}
	case 3: // an update: a new instance wants the volume of the old one
		if !t.deleted {
			s.addInstance(t.inst.App, t.inst.Volumes[0].Key.Name)
			s.remove(t)
		}
	case 4: // a partition: the task runs on, nobody sees it
		if h.reachable && h.alive {
			h.reachable, h.healsAt = false, s.now.Add(time.Duration(1+s.rnd.IntN(120))*time.Second)
			s.lose(h)
		}
	case 5: // the host dies; the operator finds out later
		if h.alive && s.rnd.IntN(3) == 0 {
			h.reachable, h.alive = false, false
			h.mounted = make(map[scheduler.VolumeKey]bool)
			h.healsAt = s.now.Add(time.Duration(30+s.rnd.IntN(120)) * time.Second)
			s.lose(h)
		}
	case 6: // scaled up and down
		s.addInstance("/app4", fmt.Sprintf("w%d", s.next))
		if !t.deleted && len(s.insts) > 3*len(s.hosts) {
			s.remove(t)
		}
	}
}

// end is a terminal status: the unmount follows later.
func (s *simulation) end(t *task) {
	key := t.inst.Volumes[0].Key
	if c := s.claims[key]; c != nil && slices.Contains(c.Instances, t.inst.ID) {
		c.State = scheduler.Releasing
		c.Instances = nil
	}
	s.unmounts = append(s.unmounts, unmount{s.now.Add(time.Duration(s.rnd.IntN(30)) * time.Second), t.on, key})
	t.on.refused = time.Time{} // more is offered than was refused
	t.on = nil
	t.inst.Since = s.now
}

func (s *simulation) remove(t *task) {
	t.deleted = true
	if t.on != nil && t.on.reachable {
		s.end(t)
	}
}

// lose is TASK_UNREACHABLE for all tasks of a host: their claims are held, and
// the instances are to run again.
func (s *simulation) lose(h *host) {
	for key, c := range s.claims {
		if c.AgentID == h.id {
			s.claims[key].State = scheduler.Lost
		}
	}
}

// heal brings a host back: with its tasks after a partition, empty after it
// died, when the operator has marked the old agent as gone.
func (s *simulation) heal(h *host) {
	died := !h.alive
	h.reachable, h.alive, h.healsAt, h.refused = true, true, time.Time{}, time.Time{}
	for _, t := range s.insts {
		if t.on != h {
			continue
		}
		if died {
			t.on = nil
			t.inst.Since = s.now
		} else if t.deleted {
			s.end(t)
		}
	}
	for key, c := range s.claims {
		switch {
		case c.AgentID != h.id:
		case died:
			delete(s.claims, key)
		case s.usedOn(key, h):
			c.State = scheduler.Held
		default:
			c.State = scheduler.Releasing
			s.settle(key, h)
		}
	}
}

// peace ends all trouble.
func (s *simulation) peace() {
	for _, h := range s.hosts {
		if !h.reachable {
			s.heal(h)
		}
	}
}

func (s *simulation) snapshot() scheduler.Snapshot {
	snap := scheduler.Snapshot{Now: s.now, Seed: s.rnd.Uint64(), Policy: s.policy, Roles: []scheduler.RoleState{s.flow}}
	for _, h := range s.hosts {
		if h.reachable && !s.flow.Suppressed && !s.now.Before(h.refused) {
			snap.Offers = append(snap.Offers, s.offer(h))
		}
	}
	for _, t := range s.insts {
		switch {
		case t.on != nil:
			snap.Placed = append(snap.Placed, scheduler.Placed{
				ID: t.inst.ID, App: t.inst.App, AgentID: t.on.id, Hostname: schedtest.Host(t.on.id), Zone: t.on.zone,
				Counts: !t.deleted,
			})
		case !t.deleted:
			snap.Pending = append(snap.Pending, t.inst)
		}
	}
	for _, c := range s.claims {
		snap.Claims = append(snap.Claims, *c)
	}
	for key, h := range s.last {
		snap.Volumes = append(snap.Volumes, scheduler.VolumeFact{Key: key, LastAgent: h.id, LastHostname: schedtest.Host(h.id)})
	}
	return snap
}

func (s *simulation) offer(h *host) scheduler.Offer {
	cpus, mem := h.cpus, h.mem
	for _, t := range s.insts {
		if t.on == h {
			cpus, mem = cpus-t.inst.CPUs, mem-t.inst.Mem
		}
	}
	o := schedtest.New().Offer(h.id).CPUs(cpus.Float()).Mem(mem.Float()).Ports(31000, 31999).In("r", h.zone)
	o.ID = fmt.Sprintf("%s@%d", h.id, s.now.Unix())
	return o.Offer
}

func (s *simulation) host(id string) *host {
	return s.hosts[slices.IndexFunc(s.hosts, func(h *host) bool { return h.id == id })]
}

// apply does what the plan says and checks each launch against the truth.
func (s *simulation) apply(snap *scheduler.Snapshot, plan scheduler.Plan) {
	on := schedtest.On(plan)
	if len(on)+len(plan.Waiting) != len(snap.Pending) {
		s.t.Fatalf("%s: %d launched and %d waiting of %d", s.now, len(on), len(plan.Waiting), len(snap.Pending))
	}
	refuse := func(id string, d time.Duration) {
		i := slices.IndexFunc(snap.Offers, func(o scheduler.Offer) bool { return o.ID == id })
		s.host(snap.Offers[i].AgentID).refused = s.now.Add(d)
		if d > s.policy.RefuseWaiting {
			s.flow.FilteredAt = s.now
		}
	}
	for _, d := range plan.Declines {
		for _, id := range d.OfferIDs {
			refuse(id, d.Refuse)
		}
	}
	for _, a := range plan.Accepts {
		refuse(a.OfferIDs[0], a.Refuse)
	}
	for _, t := range s.insts {
		if agent, ok := on[t.inst.ID]; ok && t.on == nil {
			s.launch(t, s.host(agent))
		}
	}
	if len(plan.Suppress) > 0 {
		s.flow.Suppressed = true
		s.suppressed++
	}
	if len(plan.Revive) > 0 {
		s.flow.Suppressed, s.flow.FilteredAt = false, time.Time{}
		for _, h := range s.hosts {
			h.refused = time.Time{}
		}
	}
}

func (s *simulation) launch(t *task, h *host) {
	key := t.inst.Volumes[0].Key
	for _, other := range s.hosts {
		if other != h && other.mounted[key] {
			s.t.Fatalf("%s: %s starts on %s while volume %s is mounted on %s", s.now, t.inst.ID, h.id, key, other.id)
		}
	}
	for _, other := range s.insts {
		if other.on != nil && other.inst.Volumes[0].Key == key {
			s.t.Fatalf("%s: %s starts on %s while %s uses volume %s", s.now, t.inst.ID, h.id, other.inst.ID, key)
		}
	}
	t.on = h
	h.mounted[key] = true
	s.last[key] = h
	s.claims[key] = &scheduler.Claim{
		Key: key, AgentID: h.id, Hostname: schedtest.Host(h.id), State: scheduler.Held, Instances: []string{t.inst.ID},
	}
	s.launched++
}

// check holds the invariants of the whole.
func (s *simulation) check() {
	for _, h := range s.hosts {
		cpus, mem := h.cpus, h.mem
		for _, t := range s.insts {
			if t.on == h {
				cpus, mem = cpus-t.inst.CPUs, mem-t.inst.Mem
			}
		}
		if cpus < 0 || mem < 0 {
			s.t.Fatalf("%s: %s is over-committed by %s cpus and %s MiB", s.now, h.id, -cpus, -mem)
		}
	}
}

func (s *simulation) mustRunEverything() {
	for _, t := range s.insts {
		if t.on == nil && !t.deleted {
			snap := s.snapshot()
			w := schedtest.Waits(scheduler.Decide(snap), t.inst.ID)
			s.t.Errorf("%s does not run in the end: %+v; claim %+v, flow %+v", t.inst.ID, w, s.claims[t.inst.Volumes[0].Key], s.flow)
		}
	}
	if s.launched < len(s.insts)/2 || s.suppressed == 0 {
		s.t.Errorf("only %d launches of %d instances, %d times suppressed: the simulation does not simulate", s.launched, len(s.insts), s.suppressed)
	}
}
