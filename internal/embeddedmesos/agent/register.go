package agent

import (
	"fmt"
	"slices"
	"strings"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/checkpoint"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

const (
	// registerRetry and registerRetryMax bound the interval between two
	// attempts to register (REGISTRATION_BACKOFF_FACTOR and
	// REGISTER_RETRY_INTERVAL_MAX of src/slave/constants.hpp).
	registerRetry    = time.Second
	registerRetryMax = time.Minute
)

// mastership is what the agent knows of its master.
type mastership struct {
	sender     link.Sender // nil without connection
	registered bool
	attempt    *time.Timer // of the next registration
	pings      *time.Timer // fires when pings stay away
	timeout    time.Duration
}

// connect keeps a connection to whichever master leads.
func (p *process) connect() {
	for p.cfg.Cable.AwaitMaster(p.ctx) == nil {
		if p.ctx.Err() != nil {
			return
		}
		inbox := make(chan link.ToAgent)
		sender := p.cfg.Cable.Connect(inbox)
		p.post(func() { p.connected(sender) })
		p.pump(inbox)
		p.post(func() { p.disconnected(sender) })
		sender.Close()
	}
}

// pump hands over messages until the connection or the process ends.
func (p *process) pump(inbox <-chan link.ToAgent) {
	for {
		select {
		case <-p.ctx.Done():
			return
		case message, open := <-inbox:
			if !open {
				return
			}
			p.post(func() { p.receive(message) })
		}
	}
}

func (p *process) connected(sender link.Sender) {
	p.master = mastership{sender: sender}
	p.register(registerRetry)
}

func (p *process) disconnected(sender link.Sender) {
	if p.master.sender != sender {
		return
	}
	p.master.stopTimers()
	p.master = mastership{}
}

func (m *mastership) stopTimers() {
	for _, t := range []*time.Timer{m.attempt, m.pings} {
		if t != nil {
			t.Stop()
		}
	}
}

// register asks the master to accept the agent, again and again until it does.
func (p *process) register(next time.Duration) {
	sender := p.master.sender
	if sender == nil || p.ending {
		return
	}
	p.master.registered = false
	p.master.stopTimers()
	sender.Send(p.registration())
	p.master.attempt = p.after(next, func() {
		if p.master.sender == sender && !p.master.registered {
			p.register(min(2*next, registerRetryMax))
		}
	})
}

func (p *process) registration() link.ToMaster {
	process := link.Process{
		PID:          "slave(1)@" + p.address,
		Version:      version,
		Capabilities: capabilities(),
	}
	if p.info.ID == nil {
		return link.Register{Process: process, Info: p.info, Checkpointed: p.resources.copy()}
	}
	m := link.Reregister{
		Process:      process,
		Info:         p.info,
		Checkpointed: p.resources.copy(),
		Operations:   p.resources.updates(),
	}
	for _, r := range p.runs {
		if !r.orphan {
			m.Tasks = append(m.Tasks, r.linkTask())
		}
	}
	slices.SortFunc(m.Tasks, func(a, b link.Task) int {
		return strings.Compare(a.Info.TaskID.Value, b.Info.TaskID.Value)
	})
	for _, f := range p.frameworks {
		m.Frameworks = append(m.Frameworks, *f)
	}
	return m
}

// receive handles a message of the master (src/slave/slave.cpp).
func (p *process) receive(message link.ToAgent) {
	switch m := message.(type) {
	case link.Registered:
		p.accepted(m.AgentID, m.PingTimeout)
	case link.Reregistered:
		p.accepted(m.AgentID, m.PingTimeout)
		for _, kill := range m.Kill {
			p.killTask(kill)
		}
		for _, task := range m.Reconcile {
			p.reconcileTask(task)
		}
	case link.Ping:
		p.ping(m)
	case link.Run:
		p.runTask(m)
	case link.KillTask:
		p.killTask(m)
	case link.Acknowledge:
		p.acknowledge(m)
	case link.Apply:
		p.apply(m)
	case link.AcknowledgeOperation:
		p.acknowledgeOperation(m)
	case link.ShutdownFramework:
		p.shutdownFramework(m.FrameworkID.Value)
	case link.ShutdownAgent:
		p.shutdown(m.Message)
	case link.Message:
		p.log.Info("Command executor takes no messages", zap.String("executor", m.ExecutorID.Value))
	}
}

// send drops messages while there is no connection: whatever matters is
// repeated until the master answers.
func (p *process) send(m link.ToMaster) {
	if p.master.sender != nil {
		p.master.sender.Send(m)
	}
}

func (p *process) accepted(id mesos.AgentID, pingTimeout time.Duration) {
	if p.info.ID != nil && p.info.ID.Value != id.Value {
		p.fail("register", fmt.Errorf("the master calls agent %s by another id, %s", p.info.ID.Value, id.Value))
		return
	}
	if p.info.ID == nil {
		p.info.ID = &id
		if err := p.checkpointInfo(); err != nil {
			p.fail("register", err)
			return
		}
		p.agent.registered(id.Value)
	}
	p.master.stopTimers()
	p.master.registered, p.master.timeout = true, pingTimeout
	p.awaitPing()
	select {
	case <-p.registered:
	default:
		close(p.registered)
	}
	p.log.Info("Registered with master", zap.String("id", id.Value))
	for _, r := range p.runs {
		p.resend(r)
	}
	p.resendOperations()
}

// checkpointInfo makes the id the agent's for good.
func (p *process) checkpointInfo() error {
	id := p.info.ID.Value
	if err := checkID("agent", id); err != nil {
		return err
	}
	if err := checkpoint.WriteMessage(p.layout.slaveInfo(id), &p.info); err != nil {
		return err
	}
	return symlink(id, p.layout.latest())
}

// ping answers the master's health check.
func (p *process) ping(m link.Ping) {
	p.send(link.Pong{})
	if !m.Connected && p.master.registered {
		p.log.Info("Master takes the agent for disconnected, registering again")
		p.register(registerRetry)
		return
	}
	if p.master.registered {
		p.awaitPing()
	}
}

// awaitPing registers again when pings stay away, since the master may have
// given the agent up.
func (p *process) awaitPing() {
	if p.master.pings != nil {
		p.master.pings.Stop()
	}
	if p.master.timeout <= 0 {
		return
	}
	var timer *time.Timer
	timer = p.after(p.master.timeout, func() {
		// A ping that came meanwhile, while the loop was busy, is what counts.
		if p.master.registered && p.master.pings == timer {
			p.log.Info("No pings from the master, registering again")
			p.register(registerRetry)
		}
	})
	p.master.pings = timer
}

// shutdown ends everything on the master's order: executors, tasks, and the
// agent process. The agent's id is void from then on.
func (p *process) shutdown(reason string) {
	if p.ending {
		return
	}
	p.log.Warn("Master orders the agent to shut down", zap.String("reason", reason))
	p.ending = true
	p.master.stopTimers()
	for id := range p.frameworks {
		p.shutdownFramework(id)
	}
	p.endIfIdle()
}
