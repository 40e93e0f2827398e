// Package mesostest simulates a Mesos cluster behind core.Mesos, for tests and
// benchmarks of what stands above it: agents with resources on which every task
// starts at once and runs until it is killed. Nothing of it is executed.
package mesostest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// Config describes the cluster. Zero values mean the defaults in brackets.
type Config struct {
	Agents int     // [3]
	CPUs   float64 // per agent [8]
	Mem    float64 // MiB per agent [16384]
	// OfferInterval is how often unused resources are offered [50ms].
	OfferInterval time.Duration
	// Outcome says in which state a launched task ends up; nil, and
	// "TASK_RUNNING", let it run. It must not block.
	Outcome func(core.Task) string
}

// Cluster implements core.Mesos for one core. Its methods may be called
// concurrently.
type Cluster struct {
	cfg    Config
	events chan core.Event
	wake   chan struct{} // something is to be sent

	mu         sync.Mutex // guards everything below
	agents     map[string]*agent
	tasks      map[string]*task
	offers     map[string]*agent
	queue      []core.Event
	nextOffer  int
	suppressed bool
}

type agent struct {
	id, host string
	free     []resource.Resource
	offer    string // outstanding, "" if none
	refused  time.Time
}

type task struct {
	core.Task
	agent *agent
	state string
}

// New returns a cluster; it does nothing before Run.
func New(cfg Config) *Cluster {
	if cfg.Agents == 0 {
		cfg.Agents = 3
	}
	if cfg.CPUs == 0 {
		cfg.CPUs = 8
	}
	if cfg.Mem == 0 {
		cfg.Mem = 16384
	}
	if cfg.OfferInterval == 0 {
		cfg.OfferInterval = 50 * time.Millisecond
	}
	c := &Cluster{
		cfg: cfg, events: make(chan core.Event), wake: make(chan struct{}, 1),
		agents: map[string]*agent{}, tasks: map[string]*task{}, offers: map[string]*agent{},
	}
	for i := range cfg.Agents {
		id := fmt.Sprintf("agent-%04d", i)
		c.agents[id] = &agent{id: id, host: fmt.Sprintf("host%d.test", i), free: []resource.Resource{
			{Name: "cpus", Kind: resource.Scalar, Scalar: resource.FromFloat(cfg.CPUs), AllocatedRole: "*"},
			{Name: "mem", Kind: resource.Scalar, Scalar: resource.FromFloat(cfg.Mem), AllocatedRole: "*"},
			{Name: "disk", Kind: resource.Scalar, Scalar: resource.FromFloat(100000), AllocatedRole: "*"},
			{Name: "ports", Kind: resource.Ranges, Ranges: []resource.Range{{Begin: 31000, End: 32000}}, AllocatedRole: "*"},
		}}
	}
	return c
}

// Run implements core.Mesos: it delivers events in order until ctx ends.
func (c *Cluster) Run(ctx context.Context, frameworkID string) error {
	defer close(c.events)
	if frameworkID == "" {
		frameworkID = "simulated-framework"
	}
	c.send(core.Subscribed{FrameworkID: frameworkID, MasterAddress: "simulated:5050", HeartbeatInterval: time.Minute})
	tick := time.NewTicker(c.cfg.OfferInterval)
	defer tick.Stop()
	for {
		for _, ev := range c.take() {
			select {
			case c.events <- ev:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			c.offer()
		case <-c.wake:
		}
	}
}

func (c *Cluster) take() []core.Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.queue
	c.queue = nil
	return out
}

func (c *Cluster) send(ev core.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.enqueue(ev)
}

// enqueue needs mu.
func (c *Cluster) enqueue(ev core.Event) {
	c.queue = append(c.queue, ev)
	select {
	case c.wake <- struct{}{}:
	default: // it is awake
	}
}

// Events implements core.Mesos.
func (c *Cluster) Events() <-chan core.Event { return c.events }

// offer offers what is free and not refused, in one event.
func (c *Cluster) offer() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.suppressed {
		return
	}
	now := time.Now()
	var out []scheduler.Offer
	for _, id := range slices.Sorted(maps.Keys(c.agents)) {
		a := c.agents[id]
		if a.offer != "" || now.Before(a.refused) {
			continue
		}
		c.nextOffer++
		a.offer = fmt.Sprintf("offer-%d", c.nextOffer)
		c.offers[a.offer] = a
		out = append(out, scheduler.Offer{ID: a.offer, AgentID: a.id, Hostname: a.host, Resources: slices.Clone(a.free)})
	}
	if len(out) > 0 {
		c.enqueue(core.Offers{Offers: out})
	}
}

// settle takes offers back. It needs mu.
func (c *Cluster) settle(ids []string, refuse time.Duration) {
	for _, id := range ids {
		if a := c.offers[id]; a != nil {
			delete(c.offers, id)
			a.offer, a.refused = "", time.Now().Add(refuse)
		}
	}
}

// Accept implements core.Mesos.
func (c *Cluster) Accept(_ context.Context, a core.Accept) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	held := c.offers[a.OfferIDs[0]]
	c.settle(a.OfferIDs, 0)
	for _, op := range a.Operations {
		if op.Task == nil {
			return fmt.Errorf("the simulated cluster knows no operation %v", op.Kind)
		}
		if held == nil {
			c.enqueue(core.Status{TaskID: op.Task.ID, AgentID: op.Task.AgentID, State: "TASK_DROPPED",
				Source: "SOURCE_MASTER", Reason: "REASON_INVALID_OFFERS", Time: time.Now()})
			continue
		}
		c.launch(held, *op.Task)
	}
	return nil
}

// launch needs mu.
func (c *Cluster) launch(a *agent, t core.Task) {
	running := &task{Task: t, agent: a, state: "TASK_RUNNING"}
	c.tasks[t.ID] = running
	a.use(t.Resources)
	c.enqueue(c.status(running, "TASK_STARTING"))
	if c.cfg.Outcome != nil {
		if state := c.cfg.Outcome(t); state != "" && state != "TASK_RUNNING" {
			c.end(running, state)
			return
		}
	}
	c.enqueue(c.status(running, "TASK_RUNNING"))
}

func (c *Cluster) status(t *task, state string) core.Status {
	s := core.Status{TaskID: t.ID, AgentID: t.agent.id, State: state, Source: "SOURCE_EXECUTOR", Time: time.Now(),
		UUID: []byte(t.ID + state), IPs: []string{"127.0.0.1"}}
	if state == "TASK_RUNNING" && len(t.App.Health) > 0 {
		healthy := true
		s.Healthy = &healthy
	}
	return s
}

// end needs mu.
func (c *Cluster) end(t *task, state string) {
	t.state = state
	delete(c.tasks, t.ID)
	t.agent.giveBack(t.Resources)
	c.enqueue(c.status(t, state))
}

func (a *agent) use(used []resource.Resource) {
	a.each(used, func(free, u resource.Resource) resource.Resource {
		if u.Kind == resource.Ranges {
			return free.WithRanges(resource.SubtractRanges(free.Ranges, u.Ranges))
		}
		return free.WithScalar(free.Scalar - u.Scalar)
	})
}

func (a *agent) giveBack(used []resource.Resource) {
	a.each(used, func(free, u resource.Resource) resource.Resource {
		if u.Kind == resource.Ranges {
			return free.WithRanges(resource.UnionRanges(free.Ranges, u.Ranges))
		}
		return free.WithScalar(free.Scalar + u.Scalar)
	})
}

func (a *agent) each(used []resource.Resource, change func(free, used resource.Resource) resource.Resource) {
	for _, u := range used {
		for i := range a.free {
			if a.free[i].Name == u.Name {
				a.free[i] = change(a.free[i], u)
			}
		}
	}
}

// AnswerInverseOffers implements core.Mesos: nobody makes any.
func (c *Cluster) AnswerInverseOffers(context.Context, []string, bool, time.Duration) error {
	return nil
}

// Decline implements core.Mesos.
func (c *Cluster) Decline(_ context.Context, ids []string, refuse time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle(ids, refuse)
	return nil
}

// Kill implements core.Mesos. Tasks end at once.
func (c *Cluster) Kill(_ context.Context, taskID, _ string, _ *time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.tasks[taskID]; t != nil {
		c.end(t, "TASK_KILLED")
	}
	return nil
}

// Fail ends all tasks of an app with a state, as if they had crashed.
func (c *Cluster) Fail(appID, state string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(c.tasks)) {
		if t := c.tasks[id]; string(t.App.ID) == appID {
			c.end(t, state)
		}
	}
}

// Running counts the tasks that run.
func (c *Cluster) Running() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.tasks)
}

// Acknowledge implements core.Mesos.
func (c *Cluster) Acknowledge(context.Context, core.Status) error { return nil }

// AcknowledgeOperation implements core.Mesos.
func (c *Cluster) AcknowledgeOperation(context.Context, core.OperationStatus) error { return nil }

// Reconcile implements core.Mesos.
func (c *Cluster) Reconcile(_ context.Context, refs []core.TaskRef) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(refs) == 0 {
		for _, id := range slices.Sorted(maps.Keys(c.tasks)) {
			refs = append(refs, core.TaskRef{TaskID: id, AgentID: c.tasks[id].agent.id})
		}
	}
	for _, r := range refs {
		state := "TASK_GONE"
		if t := c.tasks[r.TaskID]; t != nil {
			state = t.state
		}
		c.enqueue(core.Status{TaskID: r.TaskID, AgentID: r.AgentID, State: state, Source: "SOURCE_MASTER",
			Reason: "REASON_RECONCILIATION", Time: time.Now()})
	}
	return nil
}

// Suppress implements core.Mesos.
func (c *Cluster) Suppress(context.Context, []string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.suppressed = true
	return nil
}

// Revive implements core.Mesos.
func (c *Cluster) Revive(context.Context, []string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.suppressed = false
	for _, a := range c.agents {
		a.refused = time.Time{}
	}
	return nil
}

// UpdateRoles implements core.Mesos.
func (c *Cluster) UpdateRoles(context.Context, []string) error { return nil }

// Teardown implements core.Mesos.
func (c *Cluster) Teardown(context.Context) error { return nil }

// AgentRemoved implements core.Mesos.
func (c *Cluster) AgentRemoved(_ context.Context, agentID string) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.agents[agentID] == nil, nil
}

// UnreachableTasks implements core.Mesos. No agent is ever unreachable.
func (c *Cluster) UnreachableTasks(context.Context) ([]core.Status, error) { return nil, nil }

var _ core.Mesos = (*Cluster)(nil)
