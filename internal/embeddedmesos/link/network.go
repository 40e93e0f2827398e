package link

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// ErrListening is returned by Listen while another master listens.
var ErrListening = errors.New("a master already listens on this network")

// Receiver is the master's side of all agent connections. Its methods are
// called on the agents' goroutines and must not block; calls that concern one
// connection come one at a time and in order.
type Receiver interface {
	// Receive hands over a message.
	Receive(from Agent, message ToMaster)
	// Lost tells that the agent process behind the connection ended. Nothing
	// of that connection follows it.
	Lost(agent Agent)
}

// Network joins the leading master and its agents. It outlives both: a master
// that starts again listens on the same network, an agent that starts again
// connects over the same cable. It is safe for concurrent use.
type Network struct {
	mu       sync.Mutex // guards all below
	listener *Listener
	appeared chan struct{} // closed when a master listens
	cables   map[string]*Cable
}

// NewNetwork returns a network without a master.
func NewNetwork() *Network {
	return &Network{appeared: make(chan struct{}), cables: make(map[string]*Cable)}
}

// Cable returns the agent's cable to the master, the same one for the same
// name.
func (n *Network) Cable(agent string) *Cable {
	n.mu.Lock()
	defer n.mu.Unlock()
	cable := n.cables[agent]
	if cable == nil {
		cable = &Cable{network: n, agent: agent}
		n.cables[agent] = cable
	}
	return cable
}

// Listen makes receiver the leading master. It fails with ErrListening while
// another one leads.
func (n *Network) Listen(receiver Receiver) (*Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listener != nil {
		return nil, fmt.Errorf("listen for agents: %w", ErrListening)
	}
	n.listener = &Listener{network: n, receiver: receiver, connections: make(map[*connection]struct{})}
	close(n.appeared)
	return n.listener, nil
}

// Listener is a master's presence on the network.
type Listener struct {
	network     *Network
	receiver    Receiver
	connections map[*connection]struct{} // guarded by network.mu
}

// Close takes the master off the network: its agents see their inboxes closed,
// those behind a cut cable when the cable is healed. Closing twice is harmless.
func (l *Listener) Close() {
	l.network.mu.Lock()
	if l.network.listener != l {
		l.network.mu.Unlock()
		return
	}
	l.network.listener = nil
	l.network.appeared = make(chan struct{})
	connections := l.connections
	l.connections = nil
	l.network.mu.Unlock()
	for c := range connections {
		c.masterEnded()
	}
}

func (l *Listener) forget(c *connection) {
	l.network.mu.Lock()
	defer l.network.mu.Unlock()
	delete(l.connections, c)
}

// Cable is what joins one agent to whichever master leads. It implements
// Master and is safe for concurrent use.
type Cable struct {
	network *Network
	agent   string

	mu   sync.Mutex // guards cut and open; taken before a connection's mu
	cut  bool
	open []*connection
}

var _ Master = (*Cable)(nil)

// AwaitMaster waits until a master leads. It returns ctx's error otherwise.
func (c *Cable) AwaitMaster(ctx context.Context) error {
	c.network.mu.Lock()
	appeared := c.network.appeared
	c.network.mu.Unlock()
	select {
	case <-appeared:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("agent %s waits for a leading master: %w", c.agent, ctx.Err())
	}
}

// Connect opens a connection to the leading master. The inbox may have any
// capacity: what the agent does not read waits in an unbounded queue. The
// inbox is closed when the master ends, after the Sender's Close, and at once
// when no master leads.
func (c *Cable) Connect(inbox chan<- ToAgent) Sender {
	c.mu.Lock()
	defer c.mu.Unlock()
	conn := &connection{
		cable:  c,
		cut:    c.cut,
		queue:  NewQueue[ToAgent](),
		closed: make(chan struct{}),
		stop:   make(chan struct{}),
		pumped: make(chan struct{}),
	}
	if !conn.attach() {
		conn.queue.Close()
	}
	c.open = append(c.open, conn)
	go conn.pump(inbox)
	return agentEnd{conn}
}

// Cut partitions the agent from the master: messages in both directions are
// lost and neither side learns of the other's end.
func (c *Cable) Cut() { c.set(true) }

// Heal undoes Cut. Ends that were hidden by it become known now.
func (c *Cable) Heal() { c.set(false) }

func (c *Cable) set(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = cut
	for _, conn := range c.open {
		conn.setCut(cut)
	}
	if !cut {
		c.dropEnded()
	}
}

// dropEnded needs mu.
func (c *Cable) dropEnded() {
	kept := c.open[:0]
	for _, conn := range c.open {
		if !conn.over() {
			kept = append(kept, conn)
		}
	}
	clear(c.open[len(kept):])
	c.open = kept
}

// connection is one agent process's conversation with one master. It is the
// Agent that the master holds and the Sender that the agent holds.
type connection struct {
	cable    *Cable
	listener *Listener // nil when no master led at Connect
	queue    *Queue[ToAgent]
	closed   chan struct{} // see Agent.Closed
	stop     chan struct{} // closed by the agent's Close: ends the pump
	pumped   chan struct{} // closed when the pump has ended

	mu         sync.Mutex // guards all below and orders the receiver's calls
	cut        bool
	agentGone  bool // Close was called
	lostTold   bool
	masterGone bool
}

var (
	_ Agent  = (*connection)(nil)
	_ Sender = agentEnd{}
)

// attach finds the leading master; it reports false when there is none.
func (c *connection) attach() bool {
	n := c.cable.network
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listener == nil {
		return false
	}
	c.listener = n.listener
	n.listener.connections[c] = struct{}{}
	return true
}

// Name implements Agent.
func (c *connection) Name() string { return c.cable.agent }

// Send implements Agent.
func (c *connection) Send(message ToAgent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut || c.agentGone || c.masterGone {
		return
	}
	c.queue.Put(message)
}

// Closed implements Agent.
func (c *connection) Closed() <-chan struct{} { return c.closed }

func (c *connection) masterEnded() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.masterGone = true
	if !c.cut {
		c.queue.Close()
	}
}

func (c *connection) setCut(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = cut
	if cut {
		return
	}
	if c.masterGone {
		c.queue.Close()
	}
	c.tellLost()
}

// tellLost needs mu.
func (c *connection) tellLost() {
	if !c.agentGone || c.cut || c.lostTold || c.listener == nil {
		return
	}
	c.lostTold = true
	close(c.closed)
	c.listener.forget(c)
	if !c.masterGone {
		c.listener.receiver.Lost(c)
	}
}

// over reports whether nothing can happen on the connection any more.
func (c *connection) over() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.agentGone && (c.lostTold || c.listener == nil)
}

// pump moves queued messages into the agent's inbox. The connection's agent
// end owns it: Close waits for it.
func (c *connection) pump(inbox chan<- ToAgent) {
	defer close(c.pumped)
	defer close(inbox)
	for {
		select {
		case <-c.stop:
			return
		case <-c.queue.Ready():
		}
		messages, open := c.queue.Take()
		for _, message := range messages {
			select {
			case <-c.stop:
				return
			case inbox <- message:
			}
		}
		if !open {
			return
		}
	}
}

// agentEnd is the agent's side of a connection.
type agentEnd struct{ *connection }

// Send implements Sender.
func (e agentEnd) Send(message ToMaster) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cut || e.agentGone || e.masterGone || e.listener == nil {
		return
	}
	e.listener.receiver.Receive(e.connection, message)
}

// Close implements Sender.
func (e agentEnd) Close() {
	e.mu.Lock()
	if !e.agentGone {
		e.agentGone = true
		close(e.stop)
		e.tellLost()
	}
	e.mu.Unlock()
	<-e.pumped
	e.cable.mu.Lock()
	defer e.cable.mu.Unlock()
	e.cable.dropEnded()
}
