// Package election lets one of several framework processes lead: each holds an
// ephemeral sequential node in ZooKeeper, and the lowest leads. The processes
// that do not lead send their clients on to the one that does.
package election

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/zookeeper"
)

// Errors with which Run ends.
var (
	// ErrAbdicated means that this process gave up the lead on request.
	ErrAbdicated = errors.New("the lead was given up on request")
	// ErrDeposed means that this process's node is gone although its session
	// stands: somebody has deleted it.
	ErrDeposed = errors.New("the node that stood for this process in the election was deleted")
)

// Member is what a process tells the others in its node.
type Member struct {
	// URL is where its API is: scheme://host:port.
	URL string `json:"url"`
}

// Config says who takes part in which election.
type Config struct {
	Session zookeeper.Config
	// Root is the node below which the election's nodes are.
	Root string
	Self Member
	// Retry is how long a process that does not lead waits before it connects
	// again [1s].
	Retry time.Duration
}

// Election is one process's part in an election.
type Election struct {
	cfg Config
	log *zap.Logger

	abdicate chan struct{}
	resign   func()

	mu     sync.Mutex // guards what follows
	leader Member     // the last that was seen to lead, zero for none
	leads  bool       // this process does
}

// New makes the part of the process that cfg.Self describes.
func New(cfg Config, log *zap.Logger) *Election {
	if cfg.Retry == 0 {
		cfg.Retry = time.Second
	}
	e := &Election{cfg: cfg, log: log, abdicate: make(chan struct{})}
	e.resign = sync.OnceFunc(func() { close(e.abdicate) })
	return e
}

// Leader returns who leads as far as is known, and whether that is this process.
// known is false while nobody leads or ZooKeeper cannot be asked.
func (e *Election) Leader() (leader Member, self, known bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.leader, e.leads, e.leader != Member{}
}

// Abdicate ends the lead of this process; Run then returns ErrAbdicated. It does
// not wait, and calling it again does nothing.
func (e *Election) Abdicate() { e.resign() }

func (e *Election) set(leader Member, leads bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if leader != e.leader {
		e.log.Info("leader of the frameworks", zap.String("leader", leader.URL), zap.Bool("this_process", leads))
	}
	e.leader, e.leads = leader, leads
}

// Run takes part until ctx ends, and calls lead once this process leads. The
// context that lead gets ends with the lead: by its cause, zookeeper.ErrLost,
// ErrAbdicated or ErrDeposed, with which Run ends too once lead has returned.
// The lead is over for the others only after that, unless the session is lost.
//
// Run returns what lead returned joined with why the lead ended, nil if ctx
// ended. A process that does not lead and loses its session takes part again
// with a new one; only the first connection must succeed, so that a mistake in
// the address shows at once.
func (e *Election) Run(ctx context.Context, lead func(ctx context.Context, session *zookeeper.Session) error) error {
	first := true
	for {
		led, err := e.once(ctx, lead)
		e.set(Member{}, false)
		switch {
		case led:
			return err
		case ctx.Err() != nil:
			return nil
		case first && errors.Is(err, zookeeper.ErrUnavailable):
			return err
		}
		first = false
		e.log.Warn("not part of the election for the moment", zap.Error(err))
		select {
		case <-time.After(e.cfg.Retry):
		case <-ctx.Done():
			return nil
		}
	}
}

// once takes part with one session; led tells whether lead was called.
func (e *Election) once(parent context.Context, lead func(context.Context, *zookeeper.Session) error) (led bool, err error) {
	session, err := zookeeper.Connect(parent, e.cfg.Session, e.log)
	if err != nil {
		return false, err
	}
	defer session.Close() // its node goes with it
	node, err := e.enter(session)
	if err != nil {
		return false, fmt.Errorf("take part in the election at %s: %w", e.cfg.Root, err)
	}
	ctx, end := context.WithCancelCause(parent)
	defer end(nil)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer end(nil)
	elected := make(chan struct{})
	watch.Go(func() { end(e.watch(ctx, session, node, elected)) })
	select {
	case <-elected:
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	watch.Go(func() {
		select {
		case <-e.abdicate:
			end(ErrAbdicated)
		case <-ctx.Done():
		}
	})
	err = lead(ctx, session)
	if parent.Err() == nil {
		err = errors.Join(err, context.Cause(ctx)) // nil if the lead was not lost
	}
	return true, err
}

const memberPrefix = "member-"

// enter creates this process's node and returns its name.
func (e *Election) enter(session *zookeeper.Session) (string, error) {
	data, err := json.Marshal(e.cfg.Self)
	if err != nil {
		return "", err
	}
	if err := session.MakePath(e.cfg.Root); err != nil {
		return "", err
	}
	// The client looks for the node that a broken connection hid. Where that
	// fails too the session is given up: a second node beside a forgotten one
	// would wait for ever behind it.
	created, err := session.Conn().CreateProtectedEphemeralSequential(path.Join(e.cfg.Root, memberPrefix), data, session.ACL())
	if err != nil {
		return "", err
	}
	return path.Base(created), nil
}

// watch follows who leads until ctx ends or this process's part is over. It
// closes elected when this process leads.
func (e *Election) watch(ctx context.Context, session *zookeeper.Session, own string, elected chan struct{}) error {
	leads := false
	for {
		leader, changed, err := e.look(session, own)
		switch {
		case err != nil && leads && session.Err() == nil:
			return fmt.Errorf("follow the election: %w", err)
		case err != nil:
			return err
		case leader.own && !leads:
			leads = true
			e.set(e.cfg.Self, true)
			close(elected)
		case !leader.own:
			e.set(leader.Member, false)
		}
		select {
		case <-changed:
		case <-session.Lost():
			return session.Err()
		case <-ctx.Done():
			return nil
		}
	}
}

// seen is a leader as one look at the nodes shows it.
type seen struct {
	Member
	own bool
}

// look finds the lowest node; changed tells when to look again.
func (e *Election) look(session *zookeeper.Session, own string) (leader seen, changed <-chan zk.Event, err error) {
	err = session.Do(func(conn *zk.Conn) error {
		for {
			var names []string
			names, _, changed, err = conn.ChildrenW(e.cfg.Root)
			if err != nil {
				return err
			}
			lowest, present := first(names, own)
			if !present {
				return ErrDeposed
			}
			if lowest == own {
				leader = seen{Member: e.cfg.Self, own: true}
				return nil
			}
			data, _, err := conn.Get(path.Join(e.cfg.Root, lowest))
			if errors.Is(err, zk.ErrNoNode) {
				continue // it has gone in the meantime
			}
			if err != nil {
				return err
			}
			leader = seen{}
			if err := json.Unmarshal(data, &leader.Member); err != nil {
				return fmt.Errorf("understand the leader's node %s: %w", lowest, err)
			}
			return nil
		}
	})
	return leader, changed, err
}

// first finds the lowest of the election's nodes, and whether own is among them.
func first(names []string, own string) (lowest string, present bool) {
	var least int64
	for _, name := range names {
		i := strings.LastIndex(name, memberPrefix)
		if i < 0 {
			continue
		}
		sequence, err := strconv.ParseInt(name[i+len(memberPrefix):], 10, 64)
		if err != nil {
			continue
		}
		if lowest == "" || sequence < least {
			lowest, least = name, sequence
		}
		present = present || name == own
	}
	return lowest, present
}

// Members lists who takes part in the election at root, in the order in which
// they are to lead.
func Members(session *zookeeper.Session, root string) (members []Member, err error) {
	err = session.Do(func(conn *zk.Conn) error {
		members = nil
		names, _, err := conn.Children(root)
		if errors.Is(err, zk.ErrNoNode) {
			return nil
		}
		if err != nil {
			return err
		}
		for {
			next, _ := first(names, "")
			if next == "" {
				return nil
			}
			names = slices.DeleteFunc(names, func(n string) bool { return n == next })
			data, _, err := conn.Get(path.Join(root, next))
			if errors.Is(err, zk.ErrNoNode) {
				continue // it has gone in the meantime
			}
			if err != nil {
				return err
			}
			var m Member
			if err := json.Unmarshal(data, &m); err != nil {
				return fmt.Errorf("understand node %s: %w", next, err)
			}
			members = append(members, m)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list who takes part in the election at %s: %w", root, err)
	}
	return members, nil
}
