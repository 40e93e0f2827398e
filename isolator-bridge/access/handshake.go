package access

import (
	"crypto/tls"
	"errors"
	"io"
	"net"

	"google.golang.org/grpc/credentials"
)

// CountHandshakes returns credentials that count connections which fail before
// their first call: in TLS, or because what follows is not HTTP/2. gRPC tells
// nobody of those.
func CountHandshakes(inner credentials.TransportCredentials, counter Counter) credentials.TransportCredentials {
	return countedHandshake{TransportCredentials: inner, counter: counter}
}

type countedHandshake struct {
	credentials.TransportCredentials
	counter Counter
}

// preface is what every HTTP/2 client sends first (RFC 9113, section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

var errNotHTTP2 = errors.New("the peer does not speak HTTP/2")

// ServerHandshake implements credentials.TransportCredentials. gRPC has set a
// deadline on the connection.
func (h countedHandshake) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := h.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		h.counter.count(handshakeReason(err))
		return conn, info, err
	}
	first := make([]byte, len(preface))
	if n, err := io.ReadFull(conn, first); err != nil {
		// A peer that hangs up without a word, as a port check does, is no harm.
		if n > 0 || !errors.Is(err, io.EOF) {
			h.counter.count(prefaceReason(err))
		}
		return nil, nil, errors.Join(err, conn.Close())
	}
	if string(first) != preface {
		h.counter.count(Malformed)
		return nil, nil, errors.Join(errNotHTTP2, conn.Close())
	}
	return &rereadConn{Conn: conn, again: first}, info, nil
}

// Clone implements credentials.TransportCredentials.
func (h countedHandshake) Clone() credentials.TransportCredentials {
	return countedHandshake{TransportCredentials: h.TransportCredentials.Clone(), counter: h.counter}
}

func handshakeReason(err error) Reason {
	var record tls.RecordHeaderError
	switch {
	case timedOut(err):
		return TooSlow
	case errors.As(err, &record):
		return Malformed
	}
	return Certificate
}

// prefaceReason is why the first bytes after the handshake did not come.
func prefaceReason(err error) Reason {
	if timedOut(err) {
		return TooSlow
	}
	return Malformed
}

func timedOut(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// rereadConn gives again what was read of it already.
type rereadConn struct {
	net.Conn
	again []byte
}

// Read implements net.Conn.
func (c *rereadConn) Read(p []byte) (int, error) {
	if len(c.again) > 0 {
		n := copy(p, c.again)
		c.again = c.again[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}
