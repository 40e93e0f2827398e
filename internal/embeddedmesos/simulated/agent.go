package simulated

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/google/uuid"
	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

const (
	// registerRetry is how long an agent waits for the answer to its
	// registration (REGISTRATION_BACKOFF_FACTOR of src/slave/constants.hpp).
	registerRetry = time.Second
	retryMax      = time.Minute
)

// Agent is an agent and its host. Its methods may be called from any goroutine.
type Agent struct {
	cluster *Cluster
	cfg     AgentConfig
	cable   *link.Cable
	ip      string
	known   chan struct{} // closed when it has an id

	lifecycle sync.Mutex         // serialises Start and LoseHost
	stop      context.CancelFunc // guarded by lifecycle; nil while the host is off
	ended     chan struct{}      // guarded by lifecycle

	mu         sync.Mutex // guards all below
	info       mesos.AgentInfo
	sender     link.Sender // nil while there is no connection
	registered bool
	down       bool // the master has ordered it to end
	heard      time.Time
	patience   time.Duration // without a ping, before it registers again
	frameworks map[string]*mesos.FrameworkInfo
	tasks      map[string]*task
	disks      disks
	operations []*operation
	mounts     map[Volume]map[string]bool // by the tasks that use them; none: about to be unmounted
	power      int                        // counts losses of the host: timers of an earlier life do nothing
	destroyed  []string                   // ids of persistent volumes
}

// task is what an agent knows of one.
type task struct {
	framework string
	info      mesos.TaskInfo
	state     mesos.TaskState
	statuses  []mesos.TaskStatus
	pending   []*mesos.TaskStatus // not acknowledged, oldest first
	retry     *time.Timer
}

// operation is one whose outcome has not been acknowledged.
type operation struct {
	update link.OperationUpdate
	retry  *time.Timer
}

func newAgent(c *Cluster, cfg AgentConfig, n int) *Agent {
	port := int32(5051)
	a := &Agent{
		known:   make(chan struct{}),
		cluster: c, cfg: cfg, cable: c.network.Cable(fmt.Sprintf("agent%d", n)),
		ip: fmt.Sprintf("10.%d.%d.%d", n>>16, n>>8&0xff, n&0xff),
		info: mesos.AgentInfo{
			Hostname: cfg.Hostname, Port: &port, Resources: cfg.resources(),
			Attributes: cfg.attributes(), Domain: cfg.domain(),
		},
	}
	a.reset()
	return a
}

// reset forgets what does not outlive the host's power. It needs mu.
func (a *Agent) reset() {
	a.power++
	a.registered = false
	a.frameworks = make(map[string]*mesos.FrameworkInfo)
	a.tasks = make(map[string]*task)
	a.mounts = make(map[Volume]map[string]bool)
	a.operations = nil
}

// ID returns the agent's id, empty until it has registered.
func (a *Agent) ID() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.info.ID.GetValue()
}

// IP returns the address that the agent gives; nothing listens there.
func (a *Agent) IP() string { return a.ip }

// Config returns what the agent was made from.
func (a *Agent) Config() AgentConfig { return a.cfg }

// Hostname returns the name in offers.
func (a *Agent) Hostname() string { return a.cfg.Hostname }

// Partition cuts the agent off from the master; tasks go on.
func (a *Agent) Partition() { a.cable.Cut() }

// Heal ends a partition.
func (a *Agent) Heal() { a.cable.Heal() }

// LoseHost ends the host as a power failure does: agent, tasks and mounts are
// gone at once. What is on disk stays.
func (a *Agent) LoseHost() {
	a.lifecycle.Lock()
	defer a.lifecycle.Unlock()
	if a.stop == nil {
		return
	}
	a.stop()
	<-a.ended
	a.stop = nil
	a.mu.Lock()
	a.stopTimers()
	mounts := a.mounts
	a.reset()
	a.mu.Unlock()
	for v := range mounts {
		a.cluster.unmount(v, a)
	}
}

// stopTimers needs mu.
func (a *Agent) stopTimers() {
	for _, t := range a.tasks {
		if t.retry != nil {
			t.retry.Stop()
		}
	}
	for _, o := range a.operations {
		if o.retry != nil {
			o.retry.Stop()
		}
	}
}

// StartHost brings a lost host back: the agent registers with its id and its
// reservations, without tasks. It does nothing while the host runs.
func (a *Agent) StartHost() { a.start() }

// StartHostAnew starts a lost host whose agent has lost its id, as an operator has
// it forget one that is marked gone (meta/slaves/latest removed): it registers with
// a new id, and still has its reservations and volumes. The host must be off.
func (a *Agent) StartHostAnew() {
	a.mu.Lock()
	a.info.ID, a.down, a.known = nil, false, make(chan struct{})
	a.mu.Unlock()
	a.start()
}

func (a *Agent) start() {
	a.lifecycle.Lock()
	defer a.lifecycle.Unlock()
	if a.stop != nil {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	a.stop, a.ended = stop, make(chan struct{})
	go a.run(ctx, a.ended)
}

// run keeps a connection to whichever master leads.
func (a *Agent) run(ctx context.Context, ended chan struct{}) {
	defer close(ended)
	for ctx.Err() == nil && a.cable.AwaitMaster(ctx) == nil {
		inbox := make(chan link.ToAgent)
		sender := a.cable.Connect(inbox)
		a.mu.Lock()
		a.sender, a.registered, a.heard = sender, false, time.Now()
		a.mu.Unlock()
		a.converse(ctx, inbox)
		a.mu.Lock()
		a.sender, a.registered = nil, false
		a.mu.Unlock()
		sender.Close()
		if a.isDown() {
			a.end()
			return
		}
	}
}

func (a *Agent) isDown() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.down
}

// end is what remains of an agent that the master has shut down: its tasks have
// ended and their volumes are unmounted by its recovery.
func (a *Agent) end() {
	a.mu.Lock()
	a.stopTimers()
	mounts := a.mounts
	a.reset()
	a.mu.Unlock()
	for v := range mounts {
		a.cluster.unmount(v, a)
	}
}

// converse registers and handles messages until the connection ends.
func (a *Agent) converse(ctx context.Context, inbox <-chan link.ToAgent) {
	again := time.NewTicker(registerRetry)
	defer again.Stop()
	a.register()
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
			a.registerAgain()
		case m, open := <-inbox:
			if !open {
				return
			}
			a.mu.Lock()
			a.receive(m)
			down := a.down
			a.mu.Unlock()
			if down {
				return
			}
		}
	}
}

func (a *Agent) register() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.registered = false
	a.send(a.registration())
}

// registerAgain repeats a registration without an answer, and registers anew
// when pings stay away, since the master may have given the agent up.
func (a *Agent) registerAgain() {
	a.mu.Lock()
	defer a.mu.Unlock()
	silent := time.Since(a.heard)
	if !a.registered && silent >= registerRetry || a.registered && a.patience > 0 && silent >= a.patience {
		a.registered = false
		a.heard = time.Now()
		a.send(a.registration())
	}
}

// send needs mu. What is sent without a connection is lost, and repeated.
func (a *Agent) send(m link.ToMaster) {
	if a.sender != nil {
		a.sender.Send(m)
	}
}

var capabilities = []mesos.AgentInfo_Capability_Type{
	mesos.AgentInfo_Capability_MULTI_ROLE,
	mesos.AgentInfo_Capability_HIERARCHICAL_ROLE,
	mesos.AgentInfo_Capability_RESERVATION_REFINEMENT,
	mesos.AgentInfo_Capability_RESOURCE_PROVIDER,
	mesos.AgentInfo_Capability_AGENT_OPERATION_FEEDBACK,
}

// registration needs mu.
func (a *Agent) registration() link.ToMaster {
	process := link.Process{PID: fmt.Sprintf("slave(1)@%s:%d", a.ip, *a.info.Port), Version: "1.12.0"}
	for _, c := range capabilities {
		if c == mesos.AgentInfo_Capability_AGENT_OPERATION_FEEDBACK && a.cfg.Mute {
			continue
		}
		process.Capabilities = append(process.Capabilities, mesos.AgentInfo_Capability{Type: c})
	}
	if a.info.ID == nil {
		return link.Register{Process: process, Info: a.info, Checkpointed: a.disks.checkpointed.Clone()}
	}
	m := link.Reregister{Process: process, Info: a.info, Checkpointed: a.disks.checkpointed.Clone()}
	for _, id := range a.taskIDs() {
		m.Tasks = append(m.Tasks, a.tasks[id].linked())
	}
	for _, f := range a.frameworks {
		m.Frameworks = append(m.Frameworks, *f)
	}
	sort.Slice(m.Frameworks, func(i, j int) bool { return m.Frameworks[i].ID.GetValue() < m.Frameworks[j].ID.GetValue() })
	for _, o := range a.operations {
		m.Operations = append(m.Operations, o.update)
	}
	return m
}

// taskIDs needs mu.
func (a *Agent) taskIDs() []string {
	ids := make([]string, 0, len(a.tasks))
	for id := range a.tasks {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (t *task) linked() link.Task {
	out := link.Task{FrameworkID: mesos.FrameworkID{Value: t.framework}, Info: t.info, State: t.state, Statuses: slices.Clone(t.statuses)}
	if n := len(t.statuses); n > 0 {
		latest := t.statuses[n-1]
		out.Latest = &latest
	}
	return out
}

// receive handles a message of the master. It needs mu.
func (a *Agent) receive(message link.ToAgent) {
	switch m := message.(type) {
	case link.Registered:
		a.accepted(m.AgentID, m.PingTimeout)
	case link.Reregistered:
		a.accepted(m.AgentID, m.PingTimeout)
		for _, k := range m.Kill {
			a.kill(k)
		}
		for _, r := range m.Reconcile {
			if a.tasks[r.TaskID.Value] == nil {
				a.sendOnce(r.Framework.GetID(), r.TaskID, mesos.REASON_RECONCILIATION)
			}
		}
	case link.Ping:
		a.heard = time.Now()
		a.send(link.Pong{})
		if !m.Connected && a.registered {
			a.registered = false
			a.send(a.registration())
		}
	case link.Run:
		a.launch(m)
	case link.KillTask:
		a.kill(m)
	case link.Acknowledge:
		a.acknowledged(m)
	case link.Apply:
		a.apply(m)
	case link.AcknowledgeOperation:
		a.operations = slices.DeleteFunc(a.operations, func(o *operation) bool {
			done := bytes.Equal(o.update.UUID, m.UUID) && bytes.Equal(o.update.StatusUUID, m.StatusUUID)
			if done && o.retry != nil {
				o.retry.Stop()
			}
			return done
		})
	case link.ShutdownFramework:
		for _, id := range a.taskIDs() {
			if t := a.tasks[id]; t.framework == m.FrameworkID.Value {
				a.drop(t)
			}
		}
		delete(a.frameworks, m.FrameworkID.Value)
	case link.ShutdownAgent:
		a.cluster.log.Info("simulated agent shuts down", zap.String("agent", a.cfg.Hostname), zap.String("reason", m.Message))
		a.down = true
	}
}

// accepted needs mu.
func (a *Agent) accepted(id mesos.AgentID, patience time.Duration) {
	if a.info.ID == nil {
		close(a.known)
	}
	a.info.ID = &id
	a.registered, a.patience, a.heard = true, patience, time.Now()
	for _, taskID := range a.taskIDs() {
		a.sendHead(a.tasks[taskID], a.cluster.cfg.StatusRetry)
	}
	for _, o := range a.operations {
		a.sendOperation(o, a.cluster.cfg.StatusRetry)
	}
}

// apply needs mu.
func (a *Agent) apply(m link.Apply) {
	for _, o := range a.operations {
		if bytes.Equal(o.update.UUID, m.UUID) {
			a.sendOperation(o, a.cluster.cfg.StatusRetry)
			return
		}
	}
	status := uuid.New()
	o := &operation{update: link.OperationUpdate{
		FrameworkID: m.FrameworkID, UUID: m.UUID, OperationID: m.Operation.GetID().GetValue(),
		Operation: m.Operation, State: mesos.OPERATION_FINISHED, StatusUUID: status[:],
	}}
	if err := a.disks.apply(&m.Operation); err != nil {
		o.update.State, o.update.Message = mesos.OPERATION_FAILED, err.Error()
	} else if m.Operation.Destroy != nil {
		for i := range m.Operation.Destroy.Volumes {
			a.destroyed = append(a.destroyed, m.Operation.Destroy.Volumes[i].Disk.GetPersistence().GetID())
		}
	}
	a.operations = append(a.operations, o)
	a.sendOperation(o, a.cluster.cfg.StatusRetry)
}

// sendOperation needs mu.
func (a *Agent) sendOperation(o *operation, interval time.Duration) {
	a.send(o.update)
	if o.retry != nil {
		o.retry.Stop()
	}
	o.retry = a.after(interval, func() {
		if slices.Contains(a.operations, o) {
			a.sendOperation(o, min(2*interval, retryMax))
		}
	})
}

// after calls f with mu held unless the host has been lost meanwhile. It needs
// mu.
func (a *Agent) after(d time.Duration, f func()) *time.Timer {
	power := a.power
	return time.AfterFunc(d, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.power == power {
			f()
		}
	})
}
