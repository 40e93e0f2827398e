// Package zookeeper holds a session with a ZooKeeper ensemble and tells in time
// when it must be taken for lost. What is built on a session (the lead, the
// state) asks this package alone whether it still stands.
package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/detect"
)

// Errors that a caller decides on; they come wrapped.
var (
	// ErrUnavailable means that no session could be had.
	ErrUnavailable = errors.New("ZooKeeper cannot be reached")
	// ErrLost means that the session has expired, or that nothing was heard of
	// ZooKeeper for so long that it may have: another process may lead.
	ErrLost = errors.New("the session with ZooKeeper is lost")
)

// Config says how to connect. Zero values mean the defaults in brackets.
type Config struct {
	Ensemble detect.Ensemble
	// SessionTimeout is asked for; the servers have bounds of their own [10s].
	SessionTimeout time.Duration
	// ConnectTimeout bounds the wait for the session [10s].
	ConnectTimeout time.Duration
}

func (c Config) withDefaults() Config {
	if c.SessionTimeout == 0 {
		c.SessionTimeout = 10 * time.Second
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = 10 * time.Second
	}
	return c
}

// maxReply bounds an answer of ZooKeeper. Lists of children may be longer than
// the bound on nodes.
const maxReply = 16 << 20

// Session is one session. It is over when it is closed or lost, and is never
// replaced by another behind the caller's back. Its methods may be called
// concurrently.
type Session struct {
	conn *zk.Conn
	wire *wire
	log  *zap.Logger
	acl  []zk.ACL

	up     chan struct{} // closed when the session first stands
	lost   chan struct{} // closed when it is lost or closed
	closed chan struct{} // closed when the client has ended
	once   sync.Once     // of losing

	mu    sync.Mutex // guards what follows
	stood bool
	timer *time.Timer // runs while there is no connection
	err   error       // why it was lost
}

// Connect waits for a session. Errors wrap ErrUnavailable.
func Connect(ctx context.Context, cfg Config, log *zap.Logger) (*Session, error) {
	cfg = cfg.withDefaults()
	s := &Session{
		log: log.With(zap.Stringer("zookeeper", cfg.Ensemble)), wire: newWire(cfg.SessionTimeout),
		acl: zk.WorldACL(zk.PermAll),
		up:  make(chan struct{}), lost: make(chan struct{}), closed: make(chan struct{}),
	}
	conn, events, err := zk.Connect(cfg.Ensemble.Servers, cfg.SessionTimeout, zk.WithDialer(s.wire.dial),
		zk.WithLogger(clientLog{s.log}), zk.WithLogInfo(false), zk.WithMaxBufferSize(maxReply),
		zk.WithEventCallback(s.event))
	if err != nil {
		return nil, unavailable(cfg, err)
	}
	s.conn = conn
	go s.watch(events)
	if cfg.Ensemble.Credentials != "" {
		s.acl = zk.AuthACL(zk.PermAll)
	}
	if err := s.await(ctx, cfg); err != nil {
		s.Close()
		return nil, unavailable(cfg, err)
	}
	return s, nil
}

func unavailable(cfg Config, err error) error {
	return fmt.Errorf("connect to %s: %w: %w", cfg.Ensemble, ErrUnavailable, err)
}

// await waits until the session stands and is authenticated.
func (s *Session) await(ctx context.Context, cfg Config) error {
	timer := time.NewTimer(cfg.ConnectTimeout)
	defer timer.Stop()
	select {
	case <-s.up:
	case <-s.lost:
		return s.Err()
	case <-timer.C:
		return fmt.Errorf("no session after %s; are the servers running and do most of them see each other?", cfg.ConnectTimeout)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if cfg.Ensemble.Credentials == "" {
		return nil
	}
	if err := s.conn.AddAuth("digest", []byte(cfg.Ensemble.Credentials)); err != nil {
		return fmt.Errorf("authenticate: %w", err)
	}
	return nil
}

// event is called by the client, in order, for each change of state.
func (s *Session) event(ev zk.Event) {
	if ev.Type != zk.EventSession {
		return
	}
	switch ev.State {
	case zk.StateHasSession:
		s.connected()
	case zk.StateDisconnected:
		s.disconnected()
	case zk.StateExpired:
		s.lose(fmt.Errorf("%w: it has expired", ErrLost))
	case zk.StateAuthFailed:
		s.lose(fmt.Errorf("%w: ZooKeeper refuses the credentials", ErrLost))
	}
}

func (s *Session) connected() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if !s.stood {
		s.stood = true
		close(s.up)
	}
}

// disconnected sets the time at which the session is lost if no connection
// returns: a tenth of the time-out before the servers, counting from the last
// that was heard of them, could give it up. Whoever stops then has stopped
// before another begins. At the end of a session its connection ends, too.
func (s *Session) disconnected() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stood || s.timer != nil || s.err != nil {
		return
	}
	timeout := s.wire.timeout()
	timeout -= timeout / 10
	left := time.Until(s.wire.heard().Add(timeout))
	s.log.Warn("connection to ZooKeeper lost", zap.Duration("session_lasts", left))
	s.timer = time.AfterFunc(max(0, left), func() {
		s.lose(fmt.Errorf("%w: nothing was heard for %s", ErrLost, timeout))
	})
}

// lose ends the session; only the first reason counts.
func (s *Session) lose(err error) {
	s.once.Do(func() {
		s.mu.Lock()
		s.err = err
		if s.timer != nil {
			s.timer.Stop()
		}
		s.mu.Unlock()
		close(s.lost)
	})
}

// watch drains the client's events, and ends the client when the session is
// lost.
func (s *Session) watch(events <-chan zk.Event) {
	defer close(s.closed)
	lost := s.lost
	var ended chan struct{}
	for {
		select {
		case _, ok := <-events:
			if !ok {
				if ended != nil {
					<-ended
				}
				return
			}
		case <-lost:
			lost, ended = nil, make(chan struct{})
			go func() {
				defer close(ended)
				s.end()
			}()
		}
	}
}

// end closes the client. A server that answers ends the session at once, so
// that ephemeral nodes go; for one that does not nobody waits.
func (s *Session) end() {
	if errors.Is(s.Err(), ErrLost) {
		s.wire.cut()
	}
	s.conn.Close()
	s.wire.cut()
}

// Lost is closed when the session is lost or closed.
func (s *Session) Lost() <-chan struct{} { return s.lost }

// Err says why the session is over: it wraps ErrLost, or is ErrClosed; nil while
// it stands.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// ErrClosed means that the session was closed by its owner.
var ErrClosed = errors.New("the session with ZooKeeper is closed")

// Close ends the session, its ephemeral nodes included, and waits for the
// client's goroutines.
func (s *Session) Close() {
	s.lose(ErrClosed)
	<-s.closed
}

// Conn is the client, for calls within Do.
func (s *Session) Conn() *zk.Conn { return s.conn }

// ACL is what new nodes get: everything for the authenticated user, or for
// everybody where the ensemble's URL has no credentials.
func (s *Session) ACL() []zk.ACL { return s.acl }

// retryPause is how long a call waits for the connection to return.
const retryPause = 50 * time.Millisecond

// Do calls fn, again while it fails for want of a connection, until the session
// is over; the error then says so. fn must be harmless to repeat: a call whose
// connection broke may have taken effect.
func (s *Session) Do(fn func(conn *zk.Conn) error) error {
	for {
		if err := s.Err(); err != nil {
			return err
		}
		err := fn(s.conn)
		if !connectionError(err) {
			return err
		}
		timer := time.NewTimer(retryPause)
		select {
		case <-timer.C:
		case <-s.lost:
			timer.Stop()
			return s.Err()
		}
	}
}

// connectionError tells whether an error says nothing about the call itself.
func connectionError(err error) bool {
	return errors.Is(err, zk.ErrConnectionClosed) || errors.Is(err, zk.ErrNoServer) ||
		errors.Is(err, zk.ErrClosing) || errors.Is(err, zk.ErrSessionExpired) || errors.Is(err, zk.ErrSessionMoved)
}

// MakePath creates a node and those above it, where they are missing.
func (s *Session) MakePath(path string) error {
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' || path == "/" {
			continue
		}
		err := s.Do(func(conn *zk.Conn) error {
			_, err := conn.Create(path[:i], nil, 0, s.acl)
			if errors.Is(err, zk.ErrNodeExists) {
				return nil
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("create node %s: %w", path[:i], err)
		}
	}
	return nil
}

// clientLog takes the client's messages, which are all about trouble.
type clientLog struct{ log *zap.Logger }

// Printf implements zk.Logger.
func (l clientLog) Printf(format string, args ...any) {
	l.log.Info("ZooKeeper client", zap.String("detail", fmt.Sprintf(format, args...)))
}
