package master

import (
	"sync/atomic"

	"go.uber.org/zap"
)

// faults are the master's ways to misbehave that do not change its state. They
// are read by HTTP handlers without going through the mailbox.
type faults struct {
	abort       atomic.Bool // end streams by breaking their connections
	silent      atomic.Bool
	unavailable atomic.Bool
	leader      atomic.Pointer[string]
}

// SetUnavailable makes the master answer 503 to all API requests, as one does
// while no master leads. Open streams stay.
func (m *Master) SetUnavailable(on bool) { m.faults.unavailable.Store(on) }

// RedirectTo makes the master answer 307 with a Location on that host:port, as
// one does that does not lead. Open streams stay. An empty string ends it.
func (m *Master) RedirectTo(hostport string) {
	if hostport == "" {
		m.faults.leader.Store(nil)
		return
	}
	m.faults.leader.Store(&hostport)
}

// SetSilent keeps all events, heartbeats included, from leaving the master, as
// a hung network does. What is held back goes out when it is switched off,
// apart from the heartbeats.
func (m *Master) SetSilent(on bool) {
	m.faults.silent.Store(on)
	m.post(func() {
		for _, f := range m.frameworks.registered {
			f.stream.wake()
		}
	})
}

// BreakStreams writes half a record to every event stream and breaks the
// connection.
func (m *Master) BreakStreams() {
	m.injectAndEnd([]byte("120\n{\"type\":\"HEART"))
}

// AnnounceHugeRecord writes the header of a record of 1 GiB to every event
// stream; the record itself never follows.
func (m *Master) AnnounceHugeRecord() { m.inject([]byte("1073741824\n")) }

// SendUnknownEvent sends every framework an event of a type that no version of
// Mesos has.
func (m *Master) SendUnknownEvent() {
	m.post(func() {
		for _, f := range m.frameworks.registered {
			if f.connected() {
				f.stream.sendUnknown()
			}
		}
	})
}

func (m *Master) inject(raw []byte) {
	m.post(func() {
		for _, f := range m.frameworks.registered {
			if f.connected() {
				f.stream.queue.Put(raw)
			}
		}
	})
}

func (m *Master) injectAndEnd(raw []byte) {
	m.post(func() {
		for _, f := range m.frameworks.registered {
			if f.connected() {
				m.log.Info("break event stream", zap.String("framework", f.id()))
				f.stream.queue.Put(raw)
				f.stream.breakOff.Store(true)
				f.stream.queue.Close()
			}
		}
	})
}
