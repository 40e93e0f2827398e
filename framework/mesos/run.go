package mesos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/core"
)

// Reasons for which we end a subscription ourselves.
var (
	errLeaderChanged = errors.New("another Mesos master leads")
	errRolesChanged  = errors.New("the framework's roles changed")
	errRolesRefused  = errors.New("the Mesos master refuses a subscription with all roles of the apps")
	errTornDown      = fmt.Errorf("torn down on request: %w", core.ErrFrameworkRemoved)
)

// silenceError ends a subscription on which nothing arrives any more.
type silenceError struct{ after time.Duration }

func (e *silenceError) Error() string {
	return fmt.Sprintf("no sign of life from the Mesos master for %s", e.after)
}

// masterError is the text of an ERROR event.
type masterError string

// principalChanged is what the master answers when it knows the framework with
// another principal (validateUpdate in src/master/validation.cpp).
const principalChanged masterError = "Changing framework's principal is not allowed."

func (e masterError) Error() string {
	text := "the Mesos master ended the subscription: " + string(e)
	if e == principalChanged {
		text += " (start with the principal that the framework registered with, or with none if it had none; " +
			"to have another one give the framework's id up first, by the command teardown with the former principal)"
	}
	return text
}

// Unwrap finds the errors on which the core decides. The texts are those of
// src/master/master.cpp.
func (e masterError) Unwrap() error {
	switch e {
	case "Framework has been removed":
		return core.ErrFrameworkRemoved
	case "Framework failed over":
		return core.ErrFailedOver
	}
	return nil
}

// Run subscribes, and subscribes again with the same framework id whenever the
// subscription ends, with growing pauses while that fails, which another leading
// master cuts short. It returns nil when ctx ends, otherwise an error that makes going on pointless:
// core.ErrFrameworkRemoved, core.ErrFailedOver, or, only until the first
// subscription has succeeded, the master's refusal. Later refusals are retried:
// a running framework must survive a master that is being reconfigured.
func (c *Conn) Run(ctx context.Context, frameworkID string) error {
	if err := c.start(frameworkID); err != nil {
		return err
	}
	defer close(c.events)
	defer c.transport.close()
	pauses := &backoff{min: c.config.MinBackoff, max: c.config.MaxBackoff}
	ever := false
	start := time.Now()
	for {
		began := time.Now()
		subscribed, lost, err := c.subscribeOnce(ctx)
		ever = ever || subscribed
		switch {
		case ctx.Err() != nil:
			return nil
		case pointless(err, ever || startingUp(err, time.Since(start))):
			return err
		case subscribed && time.Since(began) > c.config.MaxBackoff:
			pauses.reset()
		}
		pause := pauses.next()
		if errors.Is(err, errLeaderChanged) || errors.Is(err, errRolesChanged) || errors.Is(err, errRolesRefused) {
			pause = 0
		}
		level := zap.WarnLevel
		if c.isTearingDown() {
			level = zap.InfoLevel // as it should: the caller of Teardown knows whether it succeeded
		}
		c.log.Log(level, "subscription with the Mesos master ended", zap.Error(err),
			zap.Bool("had_been_subscribed", subscribed), zap.Duration("pause", pause))
		changed, err := c.sleep(ctx, pause, lost)
		if err != nil {
			return err
		}
		if changed {
			pauses.reset() // they were for a master that does not lead any more
		}
		c.transport.close() // what is left of connections to a master that may be gone
		if ctx.Err() != nil {
			return nil
		}
	}
}

// routesTimeout is how long a master may be without its routes. It takes less
// than a second; whoever answers 404 for longer is no Mesos master.
const routesTimeout = time.Minute

// startingUp tells whether the master may be one that listens already and has
// not set up its routes yet, as Mesos' own library takes a 404
// (src/scheduler/scheduler.cpp).
func startingUp(err error, waited time.Duration) bool {
	var refusal *core.CallError
	return errors.As(err, &refusal) && refusal.Status == http.StatusNotFound && waited < routesTimeout
}

// pointless tells whether subscribing again cannot help.
func pointless(err error, everSubscribed bool) bool {
	if errors.Is(err, core.ErrFrameworkRemoved) || errors.Is(err, core.ErrFailedOver) {
		return true
	}
	if everSubscribed {
		return false
	}
	var refusal *core.CallError
	var fromMaster masterError
	return errors.As(err, &refusal) && !refusal.Temporary() || errors.As(err, &fromMaster)
}

// subscribeOnce finds the leader, subscribes and reads events until that ends.
// The error is never nil; subscribed tells whether SUBSCRIBED arrived. Lost is
// closed when detection learns that the master that was asked leads no more.
func (c *Conn) subscribeOnce(ctx context.Context) (subscribed bool, lost <-chan struct{}, err error) {
	leader, err := c.config.Detector.Leader(ctx)
	if err != nil {
		return false, nil, fmt.Errorf("find the leading Mesos master: %w", err)
	}
	base, err := c.transport.baseURL(leader)
	if err != nil {
		return false, leader.Lost, err
	}
	subCtx, end := context.WithCancelCause(ctx)
	var watchers sync.WaitGroup
	defer watchers.Wait()
	defer end(nil)
	if leader.Lost != nil {
		watchers.Go(func() {
			select {
			case <-leader.Lost:
				end(errLeaderChanged)
			case <-subCtx.Done():
			}
		})
	}
	s := &session{conn: c, ctx: subCtx, end: end, silence: c.silence(0)}
	err = s.run(base)
	if cause := context.Cause(subCtx); cause != nil {
		err = cause // why we cut the stream, instead of how reading failed
	}
	c.clearCurrent()
	if s.subscribed {
		c.deliver(ctx, core.Disconnected{Cause: err})
	}
	return s.subscribed, leader.Lost, err
}

// silence is how long nothing may arrive when the master sends heartbeats at
// the given interval, 0 if it did not say.
func (c *Conn) silence(interval time.Duration) time.Duration {
	if interval <= 0 {
		interval = c.config.HeartbeatInterval
	}
	return interval * time.Duration(c.config.MissedHeartbeats)
}

// deliver hands an event to the core. An event that the core does not take
// before ctx ends is lost, as over a broken connection: the agents repeat
// updates that are not acknowledged, and offers end with the subscription.
func (c *Conn) deliver(ctx context.Context, event core.Event) {
	select {
	case c.events <- event:
	case <-ctx.Done():
	}
}

// session is one attempt at a subscription.
type session struct {
	conn       *Conn
	ctx        context.Context
	end        context.CancelCauseFunc
	silence    time.Duration
	subscribed bool
	roles      []string // that it subscribes with
}

// run sends SUBSCRIBE and reads the stream. It owns the response's body.
func (s *session) run(base *url.URL) error {
	c := s.conn
	info, err := s.info(base)
	if err != nil {
		return err
	}
	s.roles = info.Roles
	call := &scheduler.Call{
		Type:        scheduler.Call_SUBSCRIBE,
		FrameworkID: info.ID,
		Subscribe:   &scheduler.Call_Subscribe{FrameworkInfo: info},
	}
	answer := s.watch(c.config.CallTimeout)
	resp, base, err := c.transport.postToLeader(s.ctx, base, schedulerPath, call)
	answer.Stop()
	if err != nil {
		return fmt.Errorf("subscribe with the Mesos master: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return &core.CallError{Call: "SUBSCRIBE", Status: resp.StatusCode, Body: explanation(resp)}
	}
	frames := newFrameReader(resp.Body, c.config.MaxFrame)
	for {
		event, err := s.read(frames)
		if err != nil {
			return err
		}
		if err := s.handle(event, base, resp.Header.Get(streamIDHeader)); err != nil {
			return err
		}
	}
}

// watch ends the subscription unless the timer is stopped in time.
func (s *session) watch(after time.Duration) *time.Timer {
	return time.AfterFunc(after, func() { s.end(&silenceError{after}) })
}

// read waits for the next event. An event that cannot be decoded ends the
// subscription, as in Mesos' own scheduler library: skipping it could lose
// offers for good, while a new subscription has everything sent again.
func (s *session) read(frames *frameReader) (*scheduler.Event, error) {
	timer := s.watch(s.silence)
	frame, err := frames.next()
	timer.Stop()
	if err != nil {
		return nil, fmt.Errorf("read the Mesos master's events: %w", err)
	}
	var event scheduler.Event
	if err := decode(frame, &event); err != nil {
		return nil, fmt.Errorf("decode an event of %d bytes of the Mesos master: %w", len(frame), err)
	}
	return &event, nil
}

// handle delivers one event; an error ends the subscription.
func (s *session) handle(event *scheduler.Event, base *url.URL, streamID string) error {
	c := s.conn
	switch event.Type {
	case scheduler.Event_SUBSCRIBED:
		return s.begin(event.Subscribed, base, streamID)
	case scheduler.Event_HEARTBEAT:
		return nil
	case scheduler.Event_ERROR:
		message := event.GetError().GetMessage()
		c.deliver(s.ctx, core.MasterError{Message: message})
		return s.refused(masterError(message))
	}
	if !s.subscribed {
		return fmt.Errorf("the Mesos master sent %s before SUBSCRIBED", event.Type)
	}
	translated, known := c.translate(event)
	if !known {
		c.log.Warn("event of unknown type from the Mesos master is ignored",
			zap.Stringer("type", event.Type), zap.Int("bytes", event.Size()))
	}
	for _, e := range translated {
		c.deliver(s.ctx, e)
	}
	return nil
}

// begin makes the subscription the current one.
func (s *session) begin(event *scheduler.Event_Subscribed, base *url.URL, streamID string) error {
	id := event.GetFrameworkID().GetValue()
	if id == "" || streamID == "" {
		return errors.New("the Mesos master's SUBSCRIBED lacks the framework id or the stream id")
	}
	c := s.conn
	subscribed := subscribedEvent(event, base.Host, streamID)
	subscribed.Roles = s.roles
	s.silence = c.silence(subscribed.HeartbeatInterval)
	s.subscribed = true
	c.setCurrent(&subscription{base: base, streamID: streamID, ctx: s.ctx, end: s.end}, id)
	c.log.Info("subscribed with the Mesos master", zap.String("framework_id", id),
		zap.String("master", subscribed.MasterAddress), zap.String("version", subscribed.MasterVersion))
	c.deliver(s.ctx, subscribed)
	return nil
}

// backoff gives growing pauses with full jitter, so that many frameworks do not
// return to a new master at the same moment.
type backoff struct {
	min, max, last time.Duration
}

func (b *backoff) next() time.Duration {
	b.last = min(max(b.last*2, b.min), b.max)
	return b.last/2 + rand.N(b.last/2+1)
}

func (b *backoff) reset() { b.last = 0 }

// sleep waits for a time, for the end of ctx, for the change of the leading master,
// or for a teardown, which is the error.
func (c *Conn) sleep(ctx context.Context, pause time.Duration, lost <-chan struct{}) (changed bool, err error) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-c.tornDown:
		return false, errTornDown
	case <-lost:
		return true, nil
	case <-ctx.Done():
	case <-timer.C:
	}
	return false, nil
}
