package core

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// cluster is a master with agents as a framework sees them: offers, statuses
// that are repeated until acknowledged, reconciliation as in
// Master::reconcileTasks. It outlives the cores that connect to it and watches
// that no volume is ever in use on two agents or by two tasks that do not
// share it.
type cluster struct {
	mu         sync.Mutex // guards everything below
	agents     map[string]*agent
	tasks      map[string]*clusterTask
	conn       *conn
	nextOffer  int
	nextUUID   int
	calls      []string
	inverse    map[string]bool // answers to inverse offers by their ids
	violations []string
	launches   map[string]int // by task id
	// refuse makes Accept fail with this error; lose has it take effect all
	// the same.
	refuse error
	lose   bool
	// invalid makes Accept refuse to send its first task, with this reason.
	invalid string
	// refuseRoles is what UpdateRoles answers.
	refuseRoles error
	// stubborn tasks ignore a kill.
	stubborn bool
	// silent tasks never report a status.
	silent bool
	// unhealthy tasks fail their health check.
	unhealthy bool
	region    string
	role      string // for which everything is offered
	// swallow has reservations and volumes not come, and their launches dropped.
	swallow bool
	// revokes says that the backend takes a volume from a task on an
	// unreachable agent for good; revoked are the tasks that lost theirs.
	revokes bool
	revoked map[string]bool
}

type agent struct {
	id, host    string
	zone        string
	unavailable time.Time // start of its maintenance
	cpus, mem   float64
	unreachable bool
	gone        bool // marked gone by an operator
	offered     string
	refused     time.Time
	// reserved is what instances have here; late is what was reserved while the
	// cluster swallows it.
	reserved, late []resource.Resource
}

type clusterTask struct {
	id, agent string
	app       *app.App
	state     string
	pending   []Status // not acknowledged, oldest first
	former    bool     // of a framework id that was given up: nobody tells of it
	options   map[int]map[string]string
	secrets   map[string]string
}

func newCluster(hosts ...string) *cluster {
	c := &cluster{agents: map[string]*agent{}, tasks: map[string]*clusterTask{}, launches: map[string]int{}, revoked: map[string]bool{},
		inverse: map[string]bool{}, role: "*"}
	for i, h := range hosts {
		id := fmt.Sprintf("S%d", i)
		c.agents[id] = &agent{id: id, host: h, cpus: 8, mem: 8192}
	}
	return c
}

// conn is one core's connection to the cluster.
type conn struct {
	c         *cluster
	events    chan Event
	suppress  bool
	connected bool
	poke      chan struct{}
}

func (c *cluster) connect() *conn {
	return &conn{c: c, events: make(chan Event, 10000), poke: make(chan struct{}, 1)}
}

const testFramework = "framework-1"

// Run implements Mesos: it makes offers once a second, as the allocator does.
func (n *conn) Run(ctx context.Context, frameworkID string) error {
	defer close(n.events)
	if frameworkID != "" && frameworkID != testFramework {
		return ErrFrameworkRemoved
	}
	n.c.subscribe(n)
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		n.c.offer(n)
		select {
		case <-ctx.Done():
			n.c.disconnect(n)
			return ctx.Err()
		case <-ticker.C:
		case <-n.poke:
		}
	}
}

func (c *cluster) subscribe(n *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = n
	n.connected = true
	for _, a := range c.agents {
		a.offered, a.refused = "", time.Time{}
	}
	n.events <- Subscribed{FrameworkID: testFramework, MasterAddress: "master:5050", Region: c.region}
	for _, id := range slices.Sorted(maps.Keys(c.tasks)) {
		for _, s := range c.tasks[id].pending {
			n.events <- s
		}
	}
}

func (c *cluster) disconnect(n *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n.connected = false
	if c.conn == n {
		c.conn = nil
	}
}

func (c *cluster) offer(n *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n.suppress || !n.connected {
		return
	}
	var offers []scheduler.Offer
	for _, id := range slices.Sorted(maps.Keys(c.agents)) {
		a := c.agents[id]
		if a.unreachable || a.gone || a.offered != "" || time.Now().Before(a.refused) {
			continue
		}
		cpus, mem := a.cpus, a.mem
		for _, t := range c.tasks {
			if t.agent == id && live(t.state) {
				cpus -= t.app.CPUs
				mem -= t.app.Mem
			}
		}
		if cpus <= 0 {
			continue
		}
		c.nextOffer++
		a.offered = fmt.Sprintf("O%d", c.nextOffer)
		offers = append(offers, scheduler.Offer{ID: a.offered, AgentID: id, Hostname: a.host, Zone: a.zone, UnavailableFrom: a.unavailable, Resources: []resource.Resource{
			{Name: "cpus", Kind: resource.Scalar, Scalar: milli(cpus), AllocatedRole: c.role},
			{Name: "mem", Kind: resource.Scalar, Scalar: milli(mem), AllocatedRole: c.role},
			{Name: "disk", Kind: resource.Scalar, Scalar: milli(10000), AllocatedRole: c.role},
			{Name: "ports", Kind: resource.Ranges, Ranges: []resource.Range{{Begin: 31000, End: 32000}}, AllocatedRole: c.role},
		}})
		last := &offers[len(offers)-1]
		last.Resources = append(last.Resources, c.unused(a)...)
	}
	if len(offers) > 0 {
		n.events <- Offers{Offers: offers}
	}
}

func live(state string) bool {
	switch state {
	case taskStaging, taskStarting, taskRunning, taskKilling, taskUnreachable:
		return true
	}
	return false
}

func (n *conn) Events() <-chan Event { return n.events }

func (c *cluster) agentOfOffer(id string) *agent {
	for _, a := range c.agents {
		if a.offered == id {
			return a
		}
	}
	return nil
}

// Accept implements Mesos. Tasks start after a moment.
func (n *conn) Accept(ctx context.Context, a Accept) error {
	c := n.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refuse != nil && !c.lose {
		return c.refuse
	}
	if c.invalid != "" {
		return fmt.Errorf("accept: %w", &InvalidTaskError{TaskID: a.Operations[0].Task.ID, Reason: c.invalid})
	}
	valid := true
	for _, id := range a.OfferIDs {
		ag := c.agentOfOffer(id)
		if ag == nil {
			valid = false
			continue
		}
		ag.offered = ""
		ag.refused = time.Now().Add(a.Refuse)
	}
	for _, op := range a.Operations {
		if op.Task == nil {
			c.reserve(c.agents[a.AgentID], op)
			continue
		}
		t := &clusterTask{id: op.Task.ID, agent: op.Task.AgentID, app: op.Task.App, state: taskStaging,
			options: op.Task.VolumeOptions, secrets: op.Task.SecretValues}
		c.calls = append(c.calls, "launch "+t.id)
		c.launches[t.id]++
		if c.launches[t.id] > 1 {
			c.violations = append(c.violations, "launched twice: "+t.id)
		}
		if !valid || c.swallow {
			c.send(Status{TaskID: t.id, AgentID: t.agent, State: taskDropped, Source: sourceMaster, Reason: "REASON_INVALID_OFFERS"})
			continue
		}
		c.tasks[t.id] = t
		c.watch()
		if !c.silent {
			time.AfterFunc(100*time.Millisecond, func() { c.move(t.id, taskStaging, taskStarting) })
			time.AfterFunc(200*time.Millisecond, func() { c.move(t.id, taskStarting, taskRunning) })
		}
	}
	return c.refuse
}

// unused is what instances have reserved on an agent and no task of theirs uses.
func (c *cluster) unused(a *agent) (out []resource.Resource) {
	for _, r := range a.reserved {
		id, _ := resource.LabelValue(r.ReservationLabels(), instanceLabel)
		used := false
		for _, t := range c.tasks {
			of, _ := instanceOfTask(t.id)
			used = used || of == id && t.agent == a.id && live(t.state)
		}
		if !used {
			out = append(out, r)
		}
	}
	return out
}

// reserve does what an operation that is no launch says. Volumes are never
// destroyed here: no test asks for that.
func (c *cluster) reserve(a *agent, op Operation) {
	c.calls = append(c.calls, op.Kind.String())
	to := &a.reserved
	if c.swallow {
		to = &a.late
	}
	without := func(r resource.Resource) {
		if i := slices.IndexFunc(*to, func(have resource.Resource) bool {
			return have.Name == r.Name && !have.IsPersistent() && have.Scalar == r.Scalar
		}); i >= 0 {
			*to = slices.Delete(*to, i, i+1)
		}
	}
	for _, r := range op.Resources {
		switch op.Kind {
		case scheduler.OpReserve:
			*to = append(*to, r)
		case scheduler.OpCreate:
			without(r)
			*to = append(*to, r)
		case scheduler.OpUnreserve:
			without(r)
		default:
			c.violations = append(c.violations, fmt.Sprintf("%s %+v", op.Kind, r))
		}
	}
}

// watch notes a volume that two agents, or two tasks that do not share it, use
// at the same time. An agent that is gone runs nothing.
func (c *cluster) watch() {
	type use struct {
		agents map[string]bool
		tasks  int
		shared bool
	}
	uses := map[string]*use{}
	for _, t := range c.tasks {
		if !live(t.state) || c.agents[t.agent].gone || t.app.Container == nil {
			continue
		}
		if c.revoked[t.id] = c.revoked[t.id] || c.revokes && c.agents[t.agent].unreachable; c.revoked[t.id] {
			continue
		}
		for _, v := range t.app.Container.Volumes {
			if v.External == nil {
				continue
			}
			u := uses[v.External.Name]
			if u == nil {
				u = &use{agents: map[string]bool{}, shared: true}
				uses[v.External.Name] = u
			}
			u.agents[t.agent] = true
			u.tasks++
			u.shared = u.shared && v.External.Shared
		}
	}
	for name, u := range uses {
		if len(u.agents) > 1 || u.tasks > 1 && !u.shared {
			c.violations = append(c.violations, fmt.Sprintf("two writers on %s: %+v", name, *u))
		}
	}
}

// move changes a task's state if it is in the state from (any, if empty).
func (c *cluster) move(id, from, to string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.tasks[id]
	if t == nil || from != "" && t.state != from || !live(t.state) || c.agents[t.agent].unreachable {
		return
	}
	c.update(t, to)
}

// update has a task's executor report a state.
func (c *cluster) update(t *clusterTask, state string) {
	t.state = state
	c.nextUUID++
	s := Status{TaskID: t.id, AgentID: t.agent, State: state, Source: "SOURCE_EXECUTOR",
		UUID: fmt.Appendf(nil, "u%d", c.nextUUID), Time: time.Now()}
	if state == taskRunning && len(t.app.Health) > 0 {
		healthy := !c.unhealthy
		s.Healthy = &healthy
	}
	t.pending = append(t.pending, s)
	c.send(s)
	c.watch()
}

func (c *cluster) send(e Event) {
	if c.conn != nil && c.conn.connected {
		c.conn.events <- e
	}
}

// AnswerInverseOffers implements Mesos.
func (n *conn) AnswerInverseOffers(_ context.Context, ids []string, accept bool, _ time.Duration) error {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	for _, id := range ids {
		n.c.inverse[id] = accept
	}
	return nil
}

// Decline implements Mesos.
func (n *conn) Decline(_ context.Context, ids []string, refuse time.Duration) error {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	for _, id := range ids {
		if a := n.c.agentOfOffer(id); a != nil {
			a.offered = ""
			a.refused = time.Now().Add(refuse)
		}
	}
	return nil
}

// Kill implements Mesos.
func (n *conn) Kill(_ context.Context, taskID, _ string, _ *time.Duration) error {
	c := n.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, "kill "+taskID)
	t := c.tasks[taskID]
	if t != nil && !c.stubborn {
		time.AfterFunc(100*time.Millisecond, func() { c.move(taskID, "", taskKilled) })
	}
	return nil
}

// Acknowledge implements Mesos. The master forgets a task when its terminal
// status is acknowledged.
func (n *conn) Acknowledge(_ context.Context, s Status) error {
	c := n.c
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.tasks[s.TaskID]
	if t == nil {
		return nil
	}
	t.pending = slices.DeleteFunc(t.pending, func(p Status) bool { return string(p.UUID) == string(s.UUID) })
	if !live(t.state) && len(t.pending) == 0 {
		delete(c.tasks, s.TaskID)
	}
	return nil
}

func (n *conn) AcknowledgeOperation(context.Context, OperationStatus) error { return nil }

// Reconcile implements Mesos.
func (n *conn) Reconcile(_ context.Context, refs []TaskRef) error {
	c := n.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(refs) == 0 {
		// Tasks on unreachable agents are not among those that the master tells of.
		for id, t := range c.tasks {
			if !c.agents[t.agent].unreachable && !t.former {
				refs = append(refs, TaskRef{TaskID: id, AgentID: t.agent})
			}
		}
	}
	for _, r := range refs {
		s := Status{TaskID: r.TaskID, AgentID: r.AgentID, Source: sourceMaster, Reason: reasonReconciliation}
		a := c.agents[r.AgentID]
		t := c.tasks[r.TaskID]
		if t != nil && t.former {
			t = nil
		}
		switch {
		case t != nil && a.unreachable:
			s.State = taskUnreachable
		case t != nil:
			s.State = t.state
		case a == nil:
			s.State = taskUnknown
		case a.gone:
			s.State = taskGoneByOp
		case a.unreachable:
			s.State = taskUnreachable
		default:
			s.State = taskGone
		}
		c.send(s)
	}
	return nil
}

func (n *conn) Suppress(context.Context, []string) error {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	n.suppress = true
	return nil
}

func (n *conn) Revive(context.Context, []string) error {
	n.c.mu.Lock()
	n.suppress = false
	for _, a := range n.c.agents {
		a.refused = time.Time{}
	}
	n.c.mu.Unlock()
	signal(n.poke)
	return nil
}

// UpdateRoles implements Mesos.
func (n *conn) UpdateRoles(_ context.Context, roles []string) error {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	n.c.calls = append(n.c.calls, "roles "+strings.Join(roles, " "))
	return n.c.refuseRoles
}

func (n *conn) Teardown(context.Context) error { return nil }

// AgentRemoved implements Mesos.
func (n *conn) AgentRemoved(_ context.Context, agentID string) (bool, error) {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	a := n.c.agents[agentID]
	return a == nil || a.gone, nil
}

// partition makes an agent unreachable: its tasks run on.
func (c *cluster) partition(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.agents[id].unreachable = true
	c.agents[id].offered = ""
	for _, t := range c.tasks {
		if t.agent == id && live(t.state) && !t.former {
			c.send(Status{TaskID: t.id, AgentID: id, State: taskUnreachable, Source: sourceMaster, Reason: "REASON_AGENT_REMOVED"})
		}
	}
	c.send(Failure{AgentID: id})
}

// heal brings a partitioned agent back.
func (c *cluster) heal(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.agents[id].unreachable = false
	for _, t := range c.tasks {
		if t.agent == id && live(t.state) && !t.former {
			c.send(Status{TaskID: t.id, AgentID: id, State: t.state, Source: sourceMaster, Reason: "REASON_AGENT_REREGISTERED"})
		}
	}
}

// markGone does what MARK_AGENT_GONE does; the caller means that the host is
// off. An unreachable agent gets no FAILURE a second time.
func (c *cluster) markGone(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.agents[id]
	wasThere := !a.unreachable
	a.gone, a.unreachable = true, false
	for _, t := range c.tasks {
		if t.agent == id && live(t.state) {
			t.state = taskGoneByOp
			c.send(Status{TaskID: t.id, AgentID: id, State: taskGoneByOp, Source: sourceMaster, Reason: reasonRemovedByOperator})
			delete(c.tasks, t.id)
		}
	}
	if wasThere {
		c.send(Failure{AgentID: id})
	}
}

// end has all live tasks of an app end by themselves.
func (c *cluster) end(id app.ID, state string) {
	for _, t := range c.liveTasks(id) {
		c.move(t, "", state)
	}
}

// liveTasks lists the ids of an app's live tasks.
func (c *cluster) liveTasks(id app.ID) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, t := range c.tasks {
		if t.app.ID == id && live(t.state) {
			out = append(out, t.id)
		}
	}
	slices.Sort(out)
	return out
}

// agentsOf lists the agents on which an app has live tasks.
func (c *cluster) agentsOf(id app.ID) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, t := range c.tasks {
		if t.app.ID == id && live(t.state) {
			out = append(out, t.agent)
		}
	}
	slices.Sort(out)
	return out
}

// launched counts the tasks that were ever launched.
func (c *cluster) launched() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.launches)
}

func (c *cluster) noViolations() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.violations)
}

// set changes the cluster's behaviour.
func (c *cluster) set(change func(c *cluster)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(c)
}

// UnreachableTasks implements Mesos.
func (n *conn) UnreachableTasks(context.Context) (out []Status, err error) {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	for id, t := range n.c.tasks {
		if n.c.agents[t.agent].unreachable && !t.former {
			out = append(out, Status{TaskID: id, AgentID: t.agent, State: taskUnreachable, Source: sourceMaster})
		}
	}
	return out, nil
}
