package access

import (
	"net"
	"sync"
)

// boundedConn gives its place back when it is closed.
type boundedConn struct {
	net.Conn
	release func()
}

func newBoundedConn(conn net.Conn, release func()) net.Conn {
	return &boundedConn{Conn: conn, release: sync.OnceFunc(release)}
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
