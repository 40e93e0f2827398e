// Package core is the framework's state machine. One goroutine owns all state;
// everything enters it as a message: commands of the REST API, events of the
// master, results of calls, the clock. For each message the core decides,
// commits what it decided to the store, and only then acts: a launch or kill is
// on disk before the master hears of it, and a status is acknowledged after
// its effect is on disk.
package core

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/store"
)

// ErrStopped is returned by the Service methods once Run has ended.
var ErrStopped = errors.New("the framework is stopping")

// Core implements Service on a Mesos connection and a store.
type Core struct {
	cfg    Config
	mesos  Mesos
	store  store.Store
	log    *zap.Logger
	bus    *bus
	outbox *outbox

	inbox   chan message
	stopped chan struct{} // closed when Run has ended

	// aparts are the calls under way that are made apart, with apartCtx, which Run
	// sets.
	aparts   sync.WaitGroup
	apartCtx context.Context

	info  infoBoard
	board *appBoard

	// Everything below belongs to the goroutine of Run.

	state     *state
	link      link
	flow      offerFlow
	bridges   bridgeFlow
	committed time.Time // when something was last committed
	// touched are the apps whose instances may not match their goal any more.
	touched map[app.ID]bool
	// rolesStale: the roles that apps and tasks need may have changed.
	rolesStale bool
	// readiness are the latest outcomes of readiness checks, by task.
	readiness map[string]CheckOutcome
	// seenAlive are the tasks seen alive since a backup was restored.
	seenAlive map[string]bool
	// checksStale: what is to be checked may have changed.
	checksStale bool
	// homesGone: there may be local volumes whose agent was marked gone.
	homesGone bool
}

// link is what the core knows of the subscription.
type link struct {
	connected bool
	since     time.Time
	master    string
	region    string
	// roles are those that the subscription was last given; refusals are those
	// that the master does not allow.
	roles    []string
	refusals map[string]roleRefusal
	// reconcileAt is when all tasks are next reconciled, probeAt when the
	// agents of claims that wait for their end are next asked for.
	reconcileAt, probeAt time.Time
	// agents are those that are known to be registered, and since when.
	agents map[string]time.Time
	// asking: the master is being asked for tasks on unreachable agents.
	asking bool
}

// message is anything that changes the state. handle runs in the core's
// goroutine; reply, if not nil, runs after the changes are committed.
type message struct {
	handle func(tx *txn)
	reply  func()
	// query: handle changes nothing. It is answered between transactions, from
	// what is committed, and need not wait for the next commit.
	query bool
}

// infoBoard is the part of the state that Info reads without waiting for the
// core's goroutine: a health probe must answer while a commit is slow.
type infoBoard struct {
	mu   sync.Mutex // guards info
	info Info
}

func (b *infoBoard) set(change func(*Info)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(&b.info)
}

// New loads the state from st. It returns the store's error, or ErrState when a
// record cannot be understood. The core does nothing before Run.
func New(cfg Config, m Mesos, st store.Store, log *zap.Logger) (*Core, error) {
	c := &Core{
		cfg:     cfg.withDefaults(),
		mesos:   m,
		store:   st,
		log:     log,
		bus:     newBus(),
		board:   newAppBoard(),
		inbox:   make(chan message),
		stopped: make(chan struct{}),
		touched: map[app.ID]bool{},

		readiness:   map[string]CheckOutcome{},
		seenAlive:   map[string]bool{},
		checksStale: true,
		homesGone:   true, // until that has been looked at
	}
	c.flow = newOfferFlow(c.cfg.ReviveInterval)
	c.outbox = newOutbox(c.cfg.CallsAtOnce)
	c.bridges = newBridgeFlow()
	loaded, err := loadState(st)
	if err != nil {
		return nil, err
	}
	c.state = loaded
	c.link.agents = map[string]time.Time{}
	c.info.info = Info{
		FrameworkID: loaded.meta.FrameworkID,
		Elected:     true,
		Leader:      c.cfg.Leader,
	}
	for id := range loaded.apps {
		c.touched[id] = true
	}
	for _, i := range loaded.instances {
		c.touched[i.App] = true
	}
	return c, nil
}

// Run subscribes with the master and serves messages until ctx ends, then it
// returns nil; tasks are left alone. It returns an error when going on is
// pointless or would be unsafe: the state could not be committed, the master
// removed the framework, or it gave another framework id while instances of
// the old one exist. Run may be called once.
func (c *Core) Run(ctx context.Context) error {
	defer close(c.stopped)
	defer c.board.close()
	defer c.bus.close()
	if c.cfg.Checker != nil {
		defer c.cfg.Checker.Close()
	}

	mesosCtx, stopMesos := context.WithCancel(context.WithoutCancel(ctx))
	defer stopMesos()
	mesosEnd := make(chan error, 1)
	frameworkID := c.state.meta.FrameworkID
	c.link.roles = c.state.roles(c.cfg.DefaultRole)
	if err := c.mesos.UpdateRoles(ctx, c.link.roles); err != nil {
		c.log.Warn("roles to subscribe with not set; it is tried again", zap.Strings("roles", c.link.roles), zap.Error(err))
		c.link.roles = nil
	}
	go func() { mesosEnd <- c.mesos.Run(mesosCtx, frameworkID) }()
	c.apartCtx = mesosCtx
	defer c.aparts.Wait()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		c.outbox.run(mesosCtx)
	}()

	err := c.serve(ctx, mesosEnd)

	if err == nil {
		// Calls that are committed but not yet made need not wait for the
		// reconciliation of the next start.
		c.outbox.drain(c.cfg.StopTimeout, c.cfg.LeadLost)
	}
	stopMesos()
	<-sent
	c.awaitMesos(mesosEnd, &err)
	return err
}

// awaitMesos waits for the connection's goroutine. Events are still received,
// so that it cannot block on delivering one.
func (c *Core) awaitMesos(end chan error, err *error) {
	events := c.mesos.Events()
	for {
		select {
		case _, ok := <-events:
			if !ok {
				events = nil
			}
		case e := <-end:
			if *err == nil && e != nil && !errors.Is(e, context.Canceled) {
				*err = fmt.Errorf("mesos connection: %w", e)
			}
			return
		}
	}
}

// serve is the main loop.
func (c *Core) serve(ctx context.Context, mesosEnd chan error) error {
	ticker := time.NewTicker(c.cfg.Tick)
	defer ticker.Stop()
	events := c.mesos.Events()
	if _, err := c.step([]message{{handle: c.tick}}); err != nil {
		return err
	}
	var rest []message
	for {
		var m message
		select {
		case <-ctx.Done():
			return nil
		case <-leftover(rest):
		case m = <-c.inbox:
		case r := <-c.outbox.results:
			m = message{handle: r}
		case <-c.bridgeNews():
			m = message{handle: c.handleBridges}
		case o := <-c.outcomes():
			m = message{handle: func(tx *txn) { c.handleCheck(tx, o) }}
		case ev, ok := <-events:
			if !ok {
				// Run of the connection ends too and says why.
				events = nil
				continue
			}
			m = message{handle: func(tx *txn) { c.handleEvent(tx, ev) }}
		case err := <-mesosEnd:
			mesosEnd <- nil // for awaitMesos
			if err == nil {
				err = errors.New("it ended without a reason")
			}
			return fmt.Errorf("mesos connection: %w", err)
		case <-ticker.C:
			m = message{handle: c.tick}
		}
		batch := rest
		if m.handle != nil {
			batch = append(batch, m)
		}
		var err error
		if rest, err = c.step(c.collect(batch, events)); err != nil {
			return err
		}
	}
}

var always = func() chan struct{} {
	ch := make(chan struct{})
	close(ch)
	return ch
}()

// leftover is ready while messages are left from the batch before.
func leftover(rest []message) <-chan struct{} {
	if len(rest) == 0 {
		return nil
	}
	return always
}

// outcomes delivers the results of checks, nothing where there is no checker.
func (c *Core) outcomes() <-chan CheckOutcome {
	if c.cfg.Checker == nil {
		return nil
	}
	return c.cfg.Checker.Results()
}

// maxBatch bounds how many messages share one transaction.
const maxBatch = 128

// maxWork bounds how long the messages of one transaction are handled, so that
// queries do not wait for a whole burst of changes.
const maxWork = 5 * time.Millisecond

// While messages keep coming, those of a moment share a transaction: each costs
// a flush to disk. busy is how long after a commit that is taken to be so, and
// linger how long is waited then. A single message is never held up.
const (
	busy   = 20 * time.Millisecond
	linger = 2 * time.Millisecond
)

// collect adds the messages that are already waiting to the batch, and in a burst
// those that come within a moment, so that they cost one commit and offers that
// arrive together are decided on together.
func (c *Core) collect(batch []message, events <-chan Event) []message {
	var over <-chan time.Time // nil: nothing has been waited for yet
	for len(batch) < maxBatch {
		m, ok := c.poll(events)
		if !ok && over == nil {
			if time.Since(c.committed) > busy {
				return batch
			}
			timer := time.NewTimer(linger)
			defer timer.Stop()
			over = timer.C
		}
		if !ok {
			m, ok = c.await(events, over)
		}
		if !ok {
			return batch
		}
		batch = append(batch, m)
	}
	return batch
}

// poll returns a message that is waiting.
func (c *Core) poll(events <-chan Event) (m message, ok bool) {
	select {
	case m := <-c.inbox:
		return m, true
	case r := <-c.outbox.results:
		return message{handle: r}, true
	case ev, open := <-events:
		return message{handle: func(tx *txn) { c.handleEvent(tx, ev) }}, open
	default:
		return message{}, false
	}
}

// await returns the next message, ok is false when none has come before over.
func (c *Core) await(events <-chan Event, over <-chan time.Time) (m message, ok bool) {
	select {
	case m := <-c.inbox:
		return m, true
	case r := <-c.outbox.results:
		return message{handle: r}, true
	case ev, open := <-events:
		return message{handle: func(tx *txn) { c.handleEvent(tx, ev) }}, open
	case <-over:
		return message{}, false
	}
}

// step handles a batch: decide, commit, act. An error means that the state in
// memory may differ from the store; the caller must stop.
func (c *Core) step(batch []message) (rest []message, err error) {
	batch = c.answerQueries(batch)
	if len(batch) == 0 {
		return nil, nil
	}
	tx := newTxn(c, time.Now())
	for n, m := range batch {
		if n > 0 && time.Since(tx.now) > maxWork {
			batch, rest = batch[:n:n], batch[n:]
			break
		}
		m.handle(tx)
	}
	c.settle(tx)
	if tx.fatal == nil {
		tx.fatal = c.commit(tx)
	}
	if tx.fatal != nil {
		return nil, tx.fatal
	}
	if len(tx.dirty) > 0 {
		c.committed = time.Now()
	}
	c.show(tx)
	for _, call := range tx.calls {
		c.outbox.put(call)
	}
	for _, call := range tx.asides {
		c.apart(call)
	}
	for _, ev := range tx.events {
		c.bus.publish(ev)
	}
	for _, m := range batch {
		if m.reply != nil {
			m.reply()
		}
	}
	return rest, nil
}

// answerQueries answers the queries of a batch, before anything of it changes
// the state, and returns what is left.
func (c *Core) answerQueries(batch []message) []message {
	changes := make([]message, 0, len(batch))
	tx := newTxn(c, time.Now())
	for _, m := range batch {
		if !m.query {
			changes = append(changes, m)
			continue
		}
		m.handle(tx)
		m.reply()
	}
	return changes
}

// settle brings instances in line with their apps' goals, deployments on, and
// decides on offers, after the messages of a batch changed the state.
func (c *Core) settle(tx *txn) {
	for range maxSettleRounds {
		changed := map[string]bool{} // deployments that may go on
		for len(c.touched) > 0 {
			for id := range c.touched {
				delete(c.touched, id)
				c.reconcileApp(tx, id)
				if d := c.state.locks[id]; d != nil {
					changed[d.ID] = true
				}
			}
		}
		c.advanceDeployments(tx, changed)
		if len(c.touched) == 0 {
			break
		}
	}
	c.syncRoles(tx)
	c.scheduleRound(tx)
}

// maxSettleRounds bounds the work of one batch; what is left is done with the
// next tick. A deployment has no more steps than apps.
const maxSettleRounds = 10000

// touch marks an app for reconciliation within this batch.
func (c *Core) touch(id app.ID) { c.touched[id] = true }

// ask runs fn in the core's goroutine and returns what it returns once the
// effects are committed. When ctx ends before that the request may still take
// effect.
func ask[T any](ctx context.Context, c *Core, fn func(tx *txn) (T, error)) (T, error) {
	return send(ctx, c, fn, false)
}

// look runs fn, which changes nothing, in the core's goroutine on committed
// state. Of the transaction it may use the time.
func look[T any](ctx context.Context, c *Core, fn func(tx *txn) (T, error)) (T, error) {
	return send(ctx, c, fn, true)
}

func send[T any](ctx context.Context, c *Core, fn func(tx *txn) (T, error), query bool) (T, error) {
	type answer struct {
		value T
		err   error
	}
	var none, given answer
	done := make(chan answer, 1) // given is touched by the core's goroutine only
	m := message{
		handle: func(tx *txn) { given.value, given.err = fn(tx) },
		reply:  func() { done <- given },
		query:  query,
	}
	select {
	case c.inbox <- m:
	case <-ctx.Done():
		return none.value, ctx.Err()
	case <-c.stopped:
		return none.value, ErrStopped
	}
	select {
	case a := <-done:
		return a.value, a.err
	case <-ctx.Done():
		return none.value, fmt.Errorf("%w; the request may still take effect", ctx.Err())
	case <-c.stopped:
		return none.value, ErrStopped
	}
}

// do is ask for a function that returns nothing but an error.
func (c *Core) do(ctx context.Context, fn func(tx *txn) error) error {
	_, err := ask(ctx, c, func(tx *txn) (struct{}, error) { return struct{}{}, fn(tx) })
	return err
}

// Info implements Service.
func (c *Core) Info() Info {
	c.info.mu.Lock()
	defer c.info.mu.Unlock()
	return c.info.info
}

var _ Service = (*Core)(nil)
