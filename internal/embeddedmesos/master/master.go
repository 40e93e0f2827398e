package master

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

// errStopped is the answer to whoever still asks a master that ended.
var errStopped = errors.New("the embedded master has ended")

// Master is a running master. Its exported methods may be called from any
// goroutine.
type Master struct {
	cfg     Config
	info    *mesos.MasterInfo
	started time.Time
	log     *zap.Logger

	mailbox  *link.Queue[func()]
	listener *link.Listener
	server   *http.Server
	faults   faults
	serving  sync.WaitGroup     // HTTP server and state goroutine
	streams  sync.WaitGroup     // event streams being written, see enterStream
	stop     context.CancelFunc // ends the state goroutine
	stopped  <-chan struct{}
	ending   sync.Once

	entry sync.Mutex // guards ended, and adding to streams before their end is waited for
	ended bool       // no further stream begins

	// All below is owned by the state goroutine.

	registry      *registry
	agents        *agents
	frameworks    *frameworks
	offers        map[string]*offer
	nextOffer     int
	nextAgent     int
	nextOperation int
	schedule      *maintenance
	inverses      *inverses
	failure       error
}

// Start opens the registry and serves until Close or Kill. The agents that the
// registry knows have Timing.AgentReregister to come back. After an error the
// listener is still the caller's.
func Start(cfg Config) (*Master, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	info, err := cfg.masterInfo()
	if err != nil {
		return nil, fmt.Errorf("embedded master: address %s: %w", cfg.Listener.Addr(), err)
	}
	registry, err := openRegistry(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("embedded master: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	m := &Master{
		cfg:        cfg,
		info:       info,
		started:    time.Now(),
		log:        cfg.Logger.With(zap.String("master", cfg.ID)),
		mailbox:    link.NewQueue[func()](),
		stop:       stop,
		stopped:    ctx.Done(),
		registry:   registry,
		agents:     newAgents(),
		frameworks: newFrameworks(),
		offers:     make(map[string]*offer),
		inverses:   newInverses(),
	}
	m.schedule = registry.maintenance
	m.recoverAgents()
	m.server = &http.Server{
		Handler:           m.handler(),
		ReadHeaderTimeout: time.Minute,
	}
	m.listener, err = cfg.Network.Listen(receiver{m})
	if err != nil {
		stop()
		return nil, fmt.Errorf("embedded master: %w", err)
	}
	m.serving.Add(2)
	go m.run(ctx)
	go m.serve()
	m.log.Info("embedded master leads", zap.Stringer("address", cfg.Listener.Addr()))
	return m, nil
}

// ID returns the master's id.
func (m *Master) ID() string { return m.cfg.ID }

// Addr returns host:port of the HTTP endpoint.
func (m *Master) Addr() string { return m.cfg.Listener.Addr().String() }

// Close ends the master in good order: event streams end cleanly, agents see
// their connections closed. It waits for all of the master's goroutines and
// returns why the master had failed before, if it had.
func (m *Master) Close() error { return m.end(false) }

// Kill ends the master as SIGKILL would: connections break in the middle of
// whatever they carry. It waits for all of the master's goroutines.
func (m *Master) Kill() error { return m.end(true) }

func (m *Master) end(abruptly bool) error {
	m.ending.Do(func() {
		m.entry.Lock()
		m.ended = true
		m.entry.Unlock()
		m.faults.abort.Store(abruptly)
		m.stop()
		m.listener.Close()
		if !abruptly {
			m.finishRequests()
		}
		if err := m.server.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			m.log.Warn("close HTTP server", zap.Error(err))
		}
	})
	m.streams.Wait()
	m.serving.Wait()
	return m.failure
}

// enterStream counts one more event stream, which streams.Done ends. It is
// false once the master ends: nobody would wait for that stream.
func (m *Master) enterStream() bool {
	m.entry.Lock()
	defer m.entry.Unlock()
	if m.ended {
		return false
	}
	m.streams.Add(1)
	return true
}

// streamGrace is how long streams may take to write their last events.
const streamGrace = 5 * time.Second

// finishRequests lets requests and event streams end; a client that does not
// read loses its connection afterwards.
func (m *Master) finishRequests() {
	ctx, cancel := context.WithTimeout(context.Background(), streamGrace)
	defer cancel()
	if err := m.server.Shutdown(ctx); err != nil {
		m.log.Warn("a client does not read its event stream; connections are closed", zap.Error(err))
	}
}

func (m *Master) serve() {
	defer m.serving.Done()
	if err := m.server.Serve(m.cfg.Listener); !errors.Is(err, http.ErrServerClosed) {
		m.log.Error("HTTP server ended", zap.Error(err))
	}
}

// run is the state goroutine.
func (m *Master) run(ctx context.Context) {
	defer m.serving.Done()
	defer m.endStreams()
	defer m.stopTimers()
	allocation := time.NewTicker(m.cfg.Timing.Allocation)
	defer allocation.Stop()
	recovery := m.after(m.cfg.Timing.AgentReregister, m.recoveredAgentsTimeout)
	defer recovery.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-allocation.C:
			m.allocate()
		case <-m.mailbox.Ready():
			messages, _ := m.mailbox.Take()
			for _, message := range messages {
				if ctx.Err() != nil {
					return
				}
				message()
			}
		}
	}
}

// post hands a message to the state goroutine.
func (m *Master) post(message func()) { m.mailbox.Put(message) }

// after posts a message when a time has passed. The timer may fire once more
// after Stop: messages check whether they still apply.
func (m *Master) after(d time.Duration, message func()) *time.Timer {
	return time.AfterFunc(d, func() { m.post(message) })
}

// ask runs f on the state goroutine and waits for it. It fails when the master
// ends first or ctx is done.
func (m *Master) ask(ctx context.Context, f func()) error {
	done := make(chan struct{})
	m.post(func() {
		defer close(done)
		f()
	})
	select {
	case <-done:
		return nil
	case <-m.stopped:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fail ends the master because it cannot keep its promises any more, as Mesos
// does when the registry cannot be written.
func (m *Master) fail(err error) {
	if m.failure != nil {
		return
	}
	m.failure = err
	m.log.Error("embedded master ends", zap.Error(err))
	m.stop()
}

// endStreams ends all event streams: what was sent can still be read.
func (m *Master) endStreams() {
	for _, f := range m.frameworks.registered {
		m.dropStream(f)
	}
}

// stopTimers keeps timers from posting to a mailbox that nobody empties.
func (m *Master) stopTimers() {
	for _, f := range m.frameworks.registered {
		if f.failover != nil {
			f.failover.Stop()
		}
	}
	for _, a := range m.agents.registered {
		for _, timer := range []*time.Timer{a.ping, a.reregister} {
			if timer != nil {
				timer.Stop()
			}
		}
	}
	m.mailbox.Close()
}

// receiver takes the agents' messages into the mailbox.
type receiver struct{ *Master }

// Receive implements link.Receiver.
func (r receiver) Receive(from link.Agent, message link.ToMaster) {
	r.post(func() { r.receive(from, message) })
}

// Lost implements link.Receiver.
func (r receiver) Lost(from link.Agent) {
	r.post(func() { r.agentExited(from) })
}
