package zookeeper

import (
	"context"
	"encoding/binary"
	"net"
	"sync"
	"time"
)

// wire makes the network connections below a client. It knows when a server was
// last heard, which the client does not tell, and it can be cut: the client
// itself waits up to ten time-outs for a server that accepts connections and
// says nothing, even when it is closed.
type wire struct {
	asked time.Duration // the session time-out asked for
	ctx   context.Context
	stop  context.CancelFunc

	mu         sync.Mutex // guards what follows
	conn       net.Conn
	last       time.Time     // when a server was last heard
	negotiated time.Duration // the session time-out that the servers gave, 0 before
}

func newWire(asked time.Duration) *wire {
	ctx, stop := context.WithCancel(context.Background())
	return &wire{asked: asked, ctx: ctx, stop: stop, last: time.Now()}
}

// dial implements zk.Dialer.
func (w *wire) dial(network, address string, timeout time.Duration) (net.Conn, error) {
	dialer := net.Dialer{Timeout: timeout}
	conn, err := dialer.DialContext(w.ctx, network, address)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx.Err() != nil {
		_ = conn.Close() // nothing was written to it
		return nil, w.ctx.Err()
	}
	w.conn = conn
	return &heardConn{Conn: conn, wire: w}, nil
}

// cut ends the current connection and all attempts at another.
func (w *wire) cut() {
	w.stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn != nil {
		_ = w.conn.Close() // its user sees the error
	}
}

func (w *wire) heard() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

func (w *wire) timeout() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.negotiated > 0 {
		return min(w.negotiated, w.asked)
	}
	return w.asked
}

// hello is how many bytes of a connection's first frame tell the session
// time-out: length, protocol version, time-out (ConnectResponse in
// zookeeper.jute).
const hello = 12

// heardConn notes when something arrives.
type heardConn struct {
	net.Conn
	wire  *wire
	first []byte // the first bytes that arrived, up to hello; used by one reader
}

func (c *heardConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n == 0 {
		return n, err
	}
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	c.wire.last = time.Now()
	if missing := hello - len(c.first); missing > 0 {
		c.first = append(c.first, p[:min(n, missing)]...)
		if len(c.first) == hello {
			c.wire.negotiated = time.Duration(binary.BigEndian.Uint32(c.first[8:])) * time.Millisecond
		}
	}
	return n, err
}

// SetReadDeadline bounds the wait for the answer to the first message, for which
// the client allows ten time-outs: a server that is about to start, or is frozen,
// takes connections and says nothing, and must not cost the session that the next
// attempt would keep.
func (c *heardConn) SetReadDeadline(t time.Time) error {
	if latest := time.Now().Add(c.wire.timeout() / 3); len(c.first) == 0 && t.After(latest) {
		t = latest
	}
	return c.Conn.SetReadDeadline(t)
}
