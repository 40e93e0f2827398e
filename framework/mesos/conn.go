package mesos

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"sync"

	mesosgo "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/core"
)

// Conn is the connection to the leading master: one subscription at a time, and
// the calls that belong to it. It implements core.Mesos; its methods may be
// called concurrently.
type Conn struct {
	config    Config
	log       *zap.Logger
	transport *transport
	events    chan core.Event
	// tornDown is closed by tearDown: the framework is no more.
	tornDown chan struct{}
	tearDown func()

	mu sync.Mutex // guards what follows
	// sub is the current subscription, nil while there is none. It is set
	// before its Subscribed event is delivered.
	sub         *subscription
	frameworkID string
	roles       []string
	suppressed  []string // roles suppressed in the current subscription
	// refused are roles that a subscription was refused with, refusedFor is
	// what the master said then.
	refused    []string
	refusedFor error
	running    bool
	// tearingDown says that a teardown is under way: the master ends the
	// subscription before it answers.
	tearingDown bool
}

// subscription is what calls need to know of a subscription. It is immutable.
type subscription struct {
	base     *url.URL // of the master
	streamID string
	ctx      context.Context // ends with the subscription
	end      context.CancelCauseFunc
}

var _ core.Mesos = (*Conn)(nil)

// New makes a connection that Run starts. The error names all that is missing
// in config.
func New(config Config, log *zap.Logger) (*Conn, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	config = config.withDefaults()
	tornDown := make(chan struct{})
	return &Conn{
		config:    config,
		log:       log,
		transport: newTransport(config),
		events:    make(chan core.Event, 64),
		tornDown:  tornDown,
		tearDown:  sync.OnceFunc(func() { close(tornDown) }),
		roles:     slices.Clone(config.Roles),
	}, nil
}

// Events delivers what the master says, in its order. It is closed when Run
// returns. A slow reader slows the master's stream down, nothing is dropped and
// the heartbeat watchdog waits meanwhile.
func (c *Conn) Events() <-chan core.Event { return c.events }

var errRunTwice = errors.New("the Mesos connection has been run already")

func (c *Conn) start(frameworkID string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running {
		return errRunTwice
	}
	c.running = true
	c.frameworkID = frameworkID
	return nil
}

// current returns the subscription to use for a call, or core.ErrNotSubscribed.
func (c *Conn) current() (*subscription, string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sub == nil {
		return nil, "", core.ErrNotSubscribed
	}
	return c.sub, c.frameworkID, nil
}

func (c *Conn) setCurrent(sub *subscription, frameworkID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sub = sub
	c.frameworkID = frameworkID
	c.suppressed = nil
}

func (c *Conn) clearCurrent() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sub = nil
}

func (c *Conn) setTearingDown(yes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tearingDown = yes
}

func (c *Conn) isTearingDown() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tearingDown
}

// frameworkInfo is who we are, with the id and the roles of now.
func (c *Conn) frameworkInfo() *mesosgo.FrameworkInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	info := &mesosgo.FrameworkInfo{
		Name:            c.config.Name,
		User:            c.config.User,
		Roles:           slices.Clone(c.roles),
		FailoverTimeout: pointer(c.config.FailoverTimeout.Seconds()),
		Checkpoint:      pointer(c.config.Checkpoint),
		Hostname:        optional(c.config.Hostname),
		Principal:       optional(c.config.Principal),
		WebUiURL:        optional(c.config.WebUIURL),
		Capabilities:    capabilities(c.config.GPUs),
	}
	if c.frameworkID != "" {
		info.ID = &mesosgo.FrameworkID{Value: c.frameworkID}
	}
	return info
}

func capabilities(gpus bool) []mesosgo.FrameworkInfo_Capability {
	types := []mesosgo.FrameworkInfo_Capability_Type{
		mesosgo.FrameworkInfo_Capability_MULTI_ROLE,
		mesosgo.FrameworkInfo_Capability_RESERVATION_REFINEMENT,
		mesosgo.FrameworkInfo_Capability_PARTITION_AWARE,
		mesosgo.FrameworkInfo_Capability_TASK_KILLING_STATE,
		mesosgo.FrameworkInfo_Capability_REGION_AWARE,
		mesosgo.FrameworkInfo_Capability_SHARED_RESOURCES,
	}
	if gpus {
		types = append(types, mesosgo.FrameworkInfo_Capability_GPU_RESOURCES)
	}
	var all []mesosgo.FrameworkInfo_Capability
	for _, t := range types {
		all = append(all, mesosgo.FrameworkInfo_Capability{Type: t})
	}
	return all
}

func pointer[T any](v T) *T { return &v }

// optional is nil for the zero value, which on the wire means "not set".
func optional[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
