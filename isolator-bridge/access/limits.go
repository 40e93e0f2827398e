package access

import (
	"context"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

// Limits bound what one peer, and all of them together, can take.
type Limits struct {
	// Message is the size of a request in bytes, Headers that of its metadata.
	Message, Headers int
	// Streams is how many calls one connection has open, Connections how many
	// connections there are.
	Streams     uint32
	Connections int
	// Handshake is the time for TLS and the HTTP/2 preface, Arrival that for a
	// request after its headers, Idle that of a connection without calls.
	Handshake, Arrival, Idle time.Duration
}

// DefaultLimits suit a bridge with a few frameworks as clients: at most some
// 16 MiB of requests under way.
func DefaultLimits() Limits {
	return Limits{
		Message: 256 << 10, Headers: 16 << 10, Streams: 32, Connections: 64,
		Handshake: 5 * time.Second, Arrival: 10 * time.Second, Idle: 5 * time.Minute,
	}
}

// ServerOptions make a gRPC server keep to the limits, except for Connections,
// see Listen, and count what it refuses.
func (l Limits) ServerOptions(counter Counter) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(l.Message),
		grpc.MaxHeaderListSize(uint32(l.Headers)),
		grpc.MaxConcurrentStreams(l.Streams),
		grpc.ConnectionTimeout(l.Handshake),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: l.Idle, Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.StatsHandler(refusals{counter: counter}),
		grpc.StreamInterceptor(l.limitStream),
	}
}

// Service returns the description of a service whose unary requests have to
// arrive within Arrival. Without that a client that sends only headers holds a
// call, and what belongs to it, for as long as it likes.
func (l Limits) Service(desc grpc.ServiceDesc) *grpc.ServiceDesc {
	methods := make([]grpc.MethodDesc, len(desc.Methods))
	for i, m := range desc.Methods {
		handle := m.Handler
		m.Handler = func(srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
			return handle(srv, ctx, func(message any) error {
				return l.arrive(func() error { return decode(message) })
			}, interceptor)
		}
		methods[i] = m
	}
	desc.Methods = methods
	return &desc
}

// arrive waits for a request. What receives it ends with the call, whose end
// follows from the error.
func (l Limits) arrive(receive func() error) error {
	received := make(chan error, 1)
	go func() { received <- receive() }()
	timer := time.NewTimer(l.Arrival)
	defer timer.Stop()
	select {
	case err := <-received:
		return err
	case <-timer.C:
		return errSlow
	}
}

var errSlow = status.Error(codes.DeadlineExceeded, "the request did not arrive in time")

func (l Limits) limitStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return handler(srv, &limitedStream{ServerStream: stream, limits: l})
}

// limitedStream bounds the arrival of the first message of a stream: all
// streams of the bridge have one.
type limitedStream struct {
	grpc.ServerStream
	limits Limits
}

// RecvMsg implements grpc.ServerStream.
func (s *limitedStream) RecvMsg(message any) error {
	return s.limits.arrive(func() error { return s.ServerStream.RecvMsg(message) })
}

// refusals counts calls that ended because of their size or shape.
type refusals struct{ counter Counter }

// TagRPC implements stats.Handler.
func (refusals) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// TagConn implements stats.Handler.
func (refusals) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (refusals) HandleConn(context.Context, stats.ConnStats) {}

// HandleRPC implements stats.Handler.
func (r refusals) HandleRPC(_ context.Context, s stats.RPCStats) {
	end, ended := s.(*stats.End)
	if !ended || end.Error == nil {
		return
	}
	text := status.Convert(end.Error).Message()
	switch code := status.Code(end.Error); {
	case code == codes.ResourceExhausted && strings.Contains(text, "larger than max"):
		r.counter.count(TooLarge)
	case code == codes.DeadlineExceeded && text == status.Convert(errSlow).Message():
		r.counter.count(TooSlow)
	case code == codes.Internal && strings.Contains(text, "unmarshal"), code == codes.Unimplemented:
		r.counter.count(Malformed)
	}
}

// Listen bounds the number of connections of a listener; see Listen.
func (l Limits) Listen(inner net.Listener, counter Counter) net.Listener {
	places := NewPlaces(l.Connections)
	return Listen(inner, counter, func(net.Conn) *Places { return places })
}

// Places are what connections take.
type Places struct{ taken chan struct{} }

// NewPlaces makes n of them.
func NewPlaces(n int) *Places { return &Places{make(chan struct{}, n)} }

// Listen gives each connection one of the places that of returns for it, until it
// is closed. When none is free it is closed at once, so that it waits for nothing.
func Listen(inner net.Listener, counter Counter, of func(net.Conn) *Places) net.Listener {
	return &boundedListener{Listener: inner, counter: counter, of: of}
}

type boundedListener struct {
	net.Listener
	counter Counter
	of      func(net.Conn) *Places
}

// Accept implements net.Listener.
func (b *boundedListener) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		places := b.of(conn)
		select {
		case places.taken <- struct{}{}:
			return newBoundedConn(conn, func() { <-places.taken }), nil
		default:
			b.counter.count(TooMany)
			_ = conn.Close() // nothing was promised to the peer
		}
	}
}
