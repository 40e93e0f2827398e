package master

import (
	"fmt"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/gogo/protobuf/proto"
	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

// agents are all agents that the master knows; those that are unreachable or
// gone are in the registry.
type agents struct {
	registered map[string]*agent
	// recovered are in the registry and have not come back since the master
	// took over.
	recovered map[string]mesos.AgentInfo
	// unreachableTasks are the tasks that an unreachable agent may still run.
	unreachableTasks map[string][]taskKey
	next             int
}

func newAgents() *agents {
	return &agents{
		registered:       make(map[string]*agent),
		recovered:        make(map[string]mesos.AgentInfo),
		unreachableTasks: make(map[string][]taskKey),
	}
}

// sorted returns the registered agents in the order of registration.
func (as *agents) sorted() []*agent {
	list := make([]*agent, 0, len(as.registered))
	for _, a := range as.registered {
		list = append(list, a)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].seq < list[j].seq })
	return list
}

// presence is what the master can say about an agent id.
type presence int

const (
	agentUnknown presence = iota
	agentRecovered
	agentRegistered
	agentUnreachable
	agentGone
)

// whereabouts is presence for an id that may be missing.
func (m *Master) whereabouts(id *mesos.AgentID) presence { return m.presence(id.GetValue()) }

func (m *Master) presence(id string) presence {
	switch {
	case m.agents.registered[id] != nil:
		return agentRegistered
	case has(m.agents.recovered, id):
		return agentRecovered
	case has(m.registry.unreachable, id):
		return agentUnreachable
	case has(m.registry.gone, id):
		return agentGone
	}
	return agentUnknown
}

func has[V any](set map[string]V, key string) bool {
	_, ok := set[key]
	return ok
}

// taskKey names a task of a framework.
type taskKey struct{ framework, task string }

// agent is an agent that is registered: it may be disconnected, but it is not
// unreachable yet.
type agent struct {
	info         mesos.AgentInfo
	process      link.Process
	conn         link.Agent
	seq          int
	connected    bool
	active       bool // gets offered
	registered   time.Time
	reregistered time.Time

	checkpointed resources
	total        resources            // with reservations and volumes applied
	used         resources            // offered or allocated, of all frameworks
	usedBy       map[string]resources // the same by framework
	tasks        map[taskKey]*task
	killed       map[taskKey]bool // KILL was asked for
	operations   map[string]*operation
	offers       map[string]*offer

	silent     int // pings in a row without an answer
	answered   bool
	ping       *time.Timer
	reregister *time.Timer

	draining   *mesos.DrainInfo
	drainStart time.Time
}

func (a *agent) id() string { return a.info.ID.Value }

// host is the agent's machine for the maintenance schedule.
func (a *agent) host() machine {
	return machine{Hostname: strings.ToLower(a.info.Hostname), IP: a.address().Hostname()}
}

// address is host and port of the agent's libprocess address.
func (a *agent) address() *url.URL {
	_, hostport, _ := strings.Cut(a.process.PID, "@")
	return &url.URL{Host: hostport}
}

// url is where the agent's own HTTP endpoints are, as offers say it.
func (a *agent) url() *mesos.URL {
	name, _, _ := strings.Cut(a.process.PID, "@")
	address := mesos.Address{Hostname: ptr(a.info.Hostname), IP: ptr(a.address().Hostname())}
	if port, err := strconv.ParseInt(a.address().Port(), 10, 32); err == nil {
		address.Port = int32(port)
	}
	return &mesos.URL{Scheme: "http", Address: address, Path: ptr("/" + name)}
}

func (a *agent) capable(c mesos.AgentInfo_Capability_Type) bool {
	for _, have := range a.process.Capabilities {
		if have.Type == c {
			return true
		}
	}
	return false
}

// available is what nobody has been offered or uses, and what is shared, which
// always is available (allocator's Slave::getAvailable).
func (a *agent) available() resources {
	shared := a.total.shared()
	if len(shared) == 0 {
		return a.total.minus(a.used.unallocated())
	}
	free := a.total.nonShared().minus(a.used.nonShared().unallocated())
	free.add(shared...)
	return free
}

// take books resources for a framework; release returns them.
func (a *agent) take(framework string, rs []mesos.Resource) {
	a.used.add(rs...)
	by := a.usedBy[framework]
	by.add(rs...)
	a.usedBy[framework] = by
}

func (a *agent) release(framework string, rs []mesos.Resource) {
	a.used.subtract(rs...)
	by := a.usedBy[framework]
	by.subtract(rs...)
	a.usedBy[framework] = by
}

// receive handles a message of an agent. Messages of a connection that is not
// the agent's current one come from a process that is over.
func (m *Master) receive(from link.Agent, message link.ToMaster) {
	switch message := message.(type) {
	case link.Register:
		m.registerAgent(from, message)
		return
	case link.Reregister:
		m.reregisterAgent(from, message)
		return
	}
	a := m.agents.byConnection(from)
	if a == nil {
		m.log.Warn("message of an agent that is not registered ignored",
			zap.String("agent", from.Name()), zap.String("message", fmt.Sprintf("%T", message)))
		return
	}
	switch message := message.(type) {
	case link.Pong:
		a.answered = true
		a.silent = 0
	case link.Update:
		m.statusUpdate(a, message)
		m.checkDrained(a)
	case link.OperationUpdate:
		m.operationUpdate(a, message)
	case link.ExecutorExited:
		m.executorExited(a, message)
	case link.Unregister:
		m.unregisterAgent(a, "agent unregistered")
	default:
		m.log.Error("message of an unknown type ignored", zap.String("message", fmt.Sprintf("%T", message)))
	}
}

func (as *agents) byConnection(conn link.Agent) *agent {
	for _, a := range as.registered {
		if a.conn == conn {
			return a
		}
	}
	return nil
}

// registerAgent gives a new agent its id (Master::registerSlave).
func (m *Master) registerAgent(from link.Agent, message link.Register) {
	for _, a := range m.agents.sorted() {
		if a.process.PID != message.Process.PID {
			continue
		}
		if a.conn == from {
			// Its first answer was lost.
			from.Send(link.Registered{AgentID: *a.info.ID, PingTimeout: m.cfg.Timing.pingTimeout()})
			return
		}
		m.unregisterAgent(a, "a new agent registered at the same address")
	}
	info := *proto.Clone(&message.Info).(*mesos.AgentInfo)
	info.ID = &mesos.AgentID{Value: fmt.Sprintf("%s-S%d", m.cfg.ID, m.nextAgent)}
	a, err := m.newAgent(from, message.Process, info, message.Checkpointed)
	if err != nil {
		m.refuseAgent(from, err)
		return
	}
	m.nextAgent++
	if err := m.registry.admit(info); err != nil {
		m.fail(err)
		return
	}
	m.addAgent(a)
	from.Send(link.Registered{AgentID: *info.ID, PingTimeout: m.cfg.Timing.pingTimeout()})
	m.log.Info("agent registered", zap.String("agent", a.id()), zap.String("hostname", info.Hostname))
	m.allocate()
}

func (m *Master) refuseAgent(conn link.Agent, reason error) {
	m.log.Warn("agent refused", zap.String("agent", conn.Name()), zap.Error(reason))
	conn.Send(link.ShutdownAgent{Message: reason.Error()})
}

// newAgent checks what an agent says of itself.
func (m *Master) newAgent(conn link.Agent, process link.Process, info mesos.AgentInfo, checkpointed []mesos.Resource) (*agent, error) {
	if info.Domain != nil && m.cfg.Domain == nil {
		return nil, refusedf("Agent is configured with a fault domain but the master has none")
	}
	a := &agent{
		info:       info,
		process:    process,
		conn:       conn,
		connected:  true,
		active:     true,
		registered: time.Now(),
		usedBy:     make(map[string]resources),
		tasks:      make(map[taskKey]*task),
		killed:     make(map[taskKey]bool),
		operations: make(map[string]*operation),
		offers:     make(map[string]*offer),
	}
	if m.schedule.isDown(a.host()) {
		return nil, refusedf("Machine is `DOWN`")
	}
	return a, a.setResources(checkpointed)
}

// setResources computes the agent's total from what it was configured with and
// what it has checkpointed (applyCheckpointedResources).
func (a *agent) setResources(checkpointed []mesos.Resource) error {
	total, err := upgradeResources(a.info.Resources)
	if err != nil {
		return fmt.Errorf("resources of the agent: %w", err)
	}
	kept, err := upgradeResources(checkpointed)
	if err != nil {
		return fmt.Errorf("checkpointed resources of the agent: %w", err)
	}
	for _, r := range kept {
		c := conversion{consumed: resources{stripped(r)}, converted: resources{r}}
		if total, err = c.apply(total); err != nil {
			return fmt.Errorf("checkpointed resource %s is not among the agent's resources %s", resourceText(&r), total)
		}
	}
	a.total, a.checkpointed = total, kept
	return nil
}

// stripped is what a reserved resource or a volume was made of.
func stripped(r mesos.Resource) mesos.Resource {
	r = *proto.Clone(&r).(*mesos.Resource)
	if n := len(r.Reservations); n > 0 && r.Reservations[0].GetType() == mesos.Resource_ReservationInfo_STATIC {
		r.Reservations = r.Reservations[:1]
	} else {
		r.Reservations = nil
	}
	withoutVolume(&r)
	return r
}

func withoutVolume(r *mesos.Resource) {
	if r.Disk == nil {
		return
	}
	r.Shared = nil
	if r.Disk.Source == nil {
		r.Disk = nil
		return
	}
	r.Disk = &mesos.Resource_DiskInfo{Source: r.Disk.Source}
}

func (m *Master) addAgent(a *agent) {
	a.seq = m.agents.next
	m.agents.next++
	m.agents.registered[a.id()] = a
	delete(m.agents.recovered, a.id())
	if m.registry.deactivated[a.id()] {
		a.active = false
	}
	if info, ok := m.registry.draining[a.id()]; ok {
		a.draining = &info
	}
	a.answered = true
	m.pingAgent(a)
}
