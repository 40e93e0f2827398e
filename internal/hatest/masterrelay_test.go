package hatest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// masterRelay is one framework's network to the Mesos master. It can keep from the
// framework what arrives on its subscription, the end of that included: the
// framework believes that it is still subscribed, while its calls, on connections
// of their own, reach the master.
type masterRelay struct {
	addr string // host:port for the framework

	target string
	listen net.Listener
	wait   sync.WaitGroup

	mu            sync.Mutex // guards what follows
	links         map[*link]bool
	subscriptions map[string]bool // stream ids, true once kept from the framework
	stale         int             // calls of such a stream that the master refused
}

// link is one connection and its continuation to the master.
type link struct {
	client, server net.Conn
	ended          chan struct{} // closed when the framework's side has ended

	// Guarded by masterRelay.mu:
	stream string // id, where it is a subscription
	called string // id in the latest call
}

func newMasterRelay(t *testing.T, target string) *masterRelay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &masterRelay{addr: l.Addr().String(), target: target, listen: l, links: map[*link]bool{}, subscriptions: map[string]bool{}}
	r.wait.Go(r.accept)
	t.Cleanup(func() {
		_ = l.Close() // ends accept
		r.cut()
		r.wait.Wait()
	})
	return r
}

func (r *masterRelay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for l := range r.links {
		l.close()
	}
}

func (l *link) close() {
	_ = l.client.Close() // both ends see it
	_ = l.server.Close()
}

func (r *masterRelay) accept() {
	for {
		client, err := r.listen.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", r.target)
		if err != nil {
			_ = client.Close() // it finds no master
			continue
		}
		l := &link{client: client, server: server, ended: make(chan struct{})}
		r.mu.Lock()
		r.links[l] = true
		r.mu.Unlock()
		r.wait.Go(func() { r.toServer(l) })
		r.wait.Go(func() { r.toClient(l) })
	}
}

// deafen keeps from the framework what arrives on its subscriptions from now on.
func (r *masterRelay) deafen() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.subscriptions {
		r.subscriptions[id] = true
	}
}

// staleCalls is how many calls with the id of a deafened stream were refused for
// that.
func (r *masterRelay) staleCalls() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stale
}

const streamHeader = "Mesos-Stream-Id: "

// streamID finds the header in the beginning of a request or an answer.
func streamID(head []byte) string {
	_, rest, found := bytes.Cut(head, []byte(streamHeader))
	id, _, ended := bytes.Cut(rest, []byte("\r\n"))
	if !found || !ended {
		return ""
	}
	return string(id)
}

func (r *masterRelay) toServer(l *link) {
	defer close(l.ended)
	defer l.close()
	r.copy(l.server, l.client, func(data []byte) bool {
		if id := streamID(data); id != "" {
			l.called = id
		}
		return true
	})
}

func (r *masterRelay) toClient(l *link) {
	r.copy(l.client, l.server, func(data []byte) bool {
		if id := streamID(data); id != "" {
			l.stream = id
			r.subscriptions[id] = false
		}
		if r.subscriptions[l.called] && bytes.HasPrefix(data, []byte("HTTP/1.1 400")) && bytes.Contains(data, []byte("didn't match the stream ID")) {
			r.stale++
		}
		return !r.subscriptions[l.stream]
	})
	r.mu.Lock()
	deaf := r.subscriptions[l.stream]
	r.mu.Unlock()
	if deaf {
		<-l.ended
	}
	l.close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.links, l)
}

// copy passes on what look, which holds mu, lets through. A message of HTTP is
// taken to arrive as it was written, in one piece: those that are looked for are
// short.
func (r *masterRelay) copy(to, from net.Conn, look func(data []byte) bool) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		r.mu.Lock()
		pass := look(buffer[:n])
		r.mu.Unlock()
		if pass && n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				_ = from.Close() // reset by the other side
			}
			return
		}
	}
}
