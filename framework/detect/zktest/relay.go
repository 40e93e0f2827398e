package zktest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Relay passes TCP connections on to a server, until it is cut: the network of
// one client.
type Relay struct {
	Addr string // host:port for the client

	target string
	listen net.Listener
	wait   sync.WaitGroup

	mu    sync.Mutex // guards what follows
	cut   bool
	mute  int // connections that are to be taken and not served
	conns map[net.Conn]bool
}

// NewRelay makes a relay to target that ends with the test.
func NewRelay(t testing.TB, target string) *Relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Relay{Addr: l.Addr().String(), target: target, listen: l, conns: map[net.Conn]bool{}}
	r.wait.Go(r.accept)
	t.Cleanup(func() {
		_ = l.Close() // ends accept
		r.Cut()
		r.wait.Wait()
	})
	return r
}

// Cut breaks all connections and refuses new ones.
func (r *Relay) Cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = true
	for c := range r.conns {
		_ = c.Close() // both ends see it
	}
}

// Mend ends Cut.
func (r *Relay) Mend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = false
}

// CutAndMute breaks all connections, and takes the next n without a word, as a
// server does that is about to start.
func (r *Relay) CutAndMute(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mute = n
	for c := range r.conns {
		_ = c.Close() // both ends see it
	}
}

func (r *Relay) accept() {
	for {
		client, err := r.listen.Accept()
		if err != nil {
			return
		}
		r.wait.Go(func() { r.pass(client) })
	}
}

func (r *Relay) pass(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", r.target)
	if err != nil {
		return
	}
	defer server.Close()
	if !r.keep(client, server) {
		return
	}
	defer r.drop(client, server)
	if r.muted() {
		_, _ = io.Copy(io.Discard, client) // until the client gives up
		return
	}
	var both sync.WaitGroup
	both.Go(func() { pump(server, client) })
	both.Go(func() { pump(client, server) })
	both.Wait()
}

// pump copies until either side ends, and then ends both.
func pump(to, from net.Conn) {
	_, _ = io.Copy(to, from) // a broken connection is what the relay is for
	_ = to.Close()
	_ = from.Close()
}

func (r *Relay) keep(conns ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut {
		return false
	}
	for _, c := range conns {
		r.conns[c] = true
	}
	return true
}

func (r *Relay) muted() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mute == 0 {
		return false
	}
	r.mute--
	return true
}

func (r *Relay) drop(conns ...net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		delete(r.conns, c)
	}
}
