package master

import (
	"errors"
	"net"
	"strconv"
	"time"

	"github.com/google/uuid"
	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

// DefaultVersion is the version of Mesos that the master says it is.
const DefaultVersion = "1.12.0"

// Config is what a master needs. Listener, Network and Dir are required.
type Config struct {
	// Listener accepts HTTP connections. Start takes it over and closes it.
	Listener net.Listener
	// Network is where agents find the master.
	Network *link.Network
	// Dir keeps the registry of agents across masters. It is created if
	// missing; two masters must not use one at the same time.
	Dir string
	// ID is the master's id, a new UUID when empty. A master that took over
	// has another id than its predecessor.
	ID string
	// Hostname is what MasterInfo and redirects say; the listener's address
	// when empty, "localhost" when that is a loopback address.
	Hostname string
	// Version is DefaultVersion when empty.
	Version string
	// Domain is the master's fault domain. Without one, agents that have a
	// domain are refused, as on Mesos.
	Domain *mesos.DomainInfo
	// Credentials maps principals to secrets. When it is not empty, every
	// request needs basic authentication.
	Credentials map[string]string
	// Roles are all that frameworks may subscribe to beside "*" (--roles); any
	// when empty.
	Roles []string
	// Logger is silent when nil.
	Logger *zap.Logger
	// Timing's zero fields are Mesos's defaults.
	Timing Timing
}

// Timing holds the master's intervals.
type Timing struct {
	// Heartbeat is the interval of HEARTBEAT events (15 s).
	Heartbeat time.Duration
	// AgentPing is the interval of health checks (--agent_ping_timeout, 15 s)
	// and AgentPingTimeouts how many in a row may fail before the agent is
	// unreachable (--max_agent_ping_timeouts, 5).
	AgentPing         time.Duration
	AgentPingTimeouts int
	// Allocation is the allocator's interval (--allocation_interval, 1 s).
	Allocation time.Duration
	// AgentReregister is how long agents may stay away after a master failover
	// or a broken connection (--agent_reregister_timeout, 10 min).
	AgentReregister time.Duration
}

func (t Timing) withDefaults() Timing {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.Heartbeat, 15 * time.Second},
		{&t.AgentPing, 15 * time.Second},
		{&t.Allocation, time.Second},
		{&t.AgentReregister, 10 * time.Minute},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if t.AgentPingTimeouts == 0 {
		t.AgentPingTimeouts = 5
	}
	return t
}

// pingTimeout is how long an agent may be silent.
func (t Timing) pingTimeout() time.Duration {
	return t.AgentPing * time.Duration(t.AgentPingTimeouts)
}

func (c Config) withDefaults() (Config, error) {
	switch {
	case c.Listener == nil:
		return c, errors.New("embedded master: no listener in the configuration")
	case c.Network == nil:
		return c, errors.New("embedded master: no agent network in the configuration")
	case c.Dir == "":
		return c, errors.New("embedded master: no directory for the registry in the configuration")
	}
	if c.ID == "" {
		c.ID = uuid.NewString()
	}
	if c.Version == "" {
		c.Version = DefaultVersion
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	c.Timing = c.Timing.withDefaults()
	return c, nil
}

// masterInfo describes the master to frameworks. ip is in network byte order,
// as Mesos has it (MESOS-1201).
func (c Config) masterInfo() (*mesos.MasterInfo, error) {
	host, portText, err := net.SplitHostPort(c.Listener.Addr().String())
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, err
	}
	hostname := c.Hostname
	if hostname == "" {
		hostname = host
		if net.ParseIP(host).IsLoopback() {
			hostname = "localhost"
		}
	}
	var address uint32
	if ip := net.ParseIP(host).To4(); ip != nil {
		address = uint32(ip[0]) | uint32(ip[1])<<8 | uint32(ip[2])<<16 | uint32(ip[3])<<24
	}
	return &mesos.MasterInfo{
		ID:       c.ID,
		IP:       address,
		Port:     ptr(uint32(port)),
		PID:      ptr("master@" + net.JoinHostPort(host, portText)),
		Hostname: ptr(hostname),
		Version:  ptr(c.Version),
		Address:  &mesos.Address{Hostname: ptr(hostname), IP: ptr(host), Port: int32(port)},
		Domain:   c.Domain,
		Capabilities: []mesos.MasterInfo_Capability{
			{Type: mesos.MasterInfo_Capability_AGENT_UPDATE},
			{Type: mesos.MasterInfo_Capability_AGENT_DRAINING},
			{Type: capabilityQuotaV2},
		},
	}, nil
}

// capabilityQuotaV2 is MasterInfo.Capability.QUOTA_V2, which mesos-go lacks.
const capabilityQuotaV2 mesos.MasterInfo_Capability_Type = 3

func ptr[T any](v T) *T { return &v }
