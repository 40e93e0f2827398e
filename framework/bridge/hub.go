// Package bridge keeps the framework in touch with the isolator-bridges of the
// agents: it watches their facts, registers and withdraws epochs with them, and
// renews leases. It is the core's view of them (core.Bridges).
package bridge

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// DefaultPort is where a bridge is looked for on its agent's host.
const DefaultPort = 9861

// Credentials are what bridges are shown, and checked by.
type Credentials = client.Credentials

// Config is how bridges are reached.
type Config struct {
	// Port is where they are looked for whose agent has no attribute dvdi_bridge
	// [DefaultPort].
	Port        int
	Credentials Credentials
	// Lost is closed when another framework process may lead: no lease is renewed
	// from then on. Nil: this one is alone.
	Lost <-chan struct{}
	Log  *zap.Logger
}

// Hub implements core.Bridges. It is safe for concurrent use.
type Hub struct {
	cfg  Config
	news chan struct{}

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu     sync.Mutex // guards all below
	agents map[string]*agent
	// reports is replaced, never changed.
	reports map[string]*core.BridgeReport
	leases  map[leaseKey]*lease
}

var _ core.Bridges = (*Hub)(nil)

// New checks the credentials. It connects to nobody yet. Close ends it.
func New(cfg Config) (*Hub, error) {
	if err := cfg.Credentials.Check(); err != nil {
		return nil, fmt.Errorf("bridges of the agents: %w", err)
	}
	cfg.Port = cmp.Or(cfg.Port, DefaultPort)
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	h := &Hub{cfg: cfg, news: make(chan struct{}, 1), agents: map[string]*agent{}, reports: map[string]*core.BridgeReport{}, leases: map[leaseKey]*lease{}}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h, nil
}

// Close ends all connections and waits for that.
func (h *Hub) Close() {
	h.cancel()
	h.work.Wait()
}

// Track implements core.Bridges.
func (h *Hub) Track(agents []core.BridgeAgent) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ctx.Err() != nil {
		return
	}
	wanted := map[string]bool{}
	for _, a := range agents {
		wanted[a.ID] = true
		address, err := h.address(a)
		if err != nil {
			h.cfg.Log.Warn("agent's attribute dvdi_bridge not understood", zap.String("agent", a.ID), zap.Error(err))
			continue
		}
		if old := h.agents[a.ID]; old != nil {
			if old.address == address {
				continue
			}
			old.stop()
		}
		h.agents[a.ID] = h.begin(a.ID, address)
	}
	for id, a := range h.agents {
		if !wanted[id] {
			a.stop()
			delete(h.agents, id)
			h.report(id, nil)
		}
	}
}

// address is where an agent's bridge is: at the default port of the agent's
// host, or where the attribute says, which is a port or host and port.
func (h *Hub) address(a core.BridgeAgent) (string, error) {
	at := strings.TrimSpace(a.Attribute)
	if at == "" {
		return net.JoinHostPort(a.Hostname, strconv.Itoa(h.cfg.Port)), nil
	}
	// A plain number is rendered as Mesos does with scalars.
	if port, err := strconv.ParseUint(strings.TrimSuffix(at, ".0"), 10, 16); err == nil && port > 0 {
		return net.JoinHostPort(a.Hostname, strconv.FormatUint(port, 10)), nil
	}
	host, port, err := net.SplitHostPort(at)
	if err != nil {
		return "", fmt.Errorf("%q is neither a port nor host:port: %w", at, err)
	}
	return net.JoinHostPort(cmp.Or(host, a.Hostname), port), nil
}

// News implements core.Bridges.
func (h *Hub) News() <-chan struct{} { return h.news }

// Reports implements core.Bridges.
func (h *Hub) Reports() map[string]*core.BridgeReport {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reports
}

// report replaces what is known of an agent, nil for nothing. The caller holds
// the mutex.
func (h *Hub) report(id string, r *core.BridgeReport) {
	next := maps.Clone(h.reports)
	if r == nil {
		delete(next, id)
	} else {
		next[id] = r
	}
	h.reports = next
	select {
	case h.news <- struct{}{}:
	default: // it has something already
	}
}

// api is the client of a tracked agent's bridge.
func (h *Hub) api(agentID string) (client.AgentClient, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.agents[agentID]
	if a == nil || a.api == nil {
		return nil, fmt.Errorf("bridge of agent %s: it is not tracked", agentID)
	}
	return a.api, nil
}

func nameOf(key scheduler.VolumeKey) *client.VolumeName {
	return &client.VolumeName{Driver: key.Driver, Name: key.Name}
}

// Register implements core.Bridges.
func (h *Hub) Register(ctx context.Context, frameworkID string, e core.Epoch) (core.LeaseTerms, error) {
	api, err := h.api(e.AgentID)
	if err != nil {
		return core.LeaseTerms{}, err
	}
	req := &client.RegisterRequest{FrameworkId: frameworkID, Volume: nameOf(e.Key), Epoch: e.Number}
	if e.Terms.Lease > 0 {
		req.Lease = durationpb.New(e.Terms.Lease)
	}
	reg, err := api.Register(ctx, req)
	if err != nil {
		return core.LeaseTerms{}, fmt.Errorf("register volume %s of driver %s with the bridge of agent %s: %w", e.Key.Name, e.Key.Driver, e.AgentID, err)
	}
	if e.Terms.Lease == 0 {
		return core.LeaseTerms{}, nil
	}
	if reg.Fence == nil {
		return core.LeaseTerms{}, fmt.Errorf("register volume %s of driver %s with the bridge of agent %s: it granted no lease", e.Key.Name, e.Key.Driver, e.AgentID)
	}
	return h.granted(e, reg.Fence), nil
}

// Withdraw implements core.Bridges.
func (h *Hub) Withdraw(ctx context.Context, frameworkID string, e core.Epoch) (released bool, reason string, err error) {
	api, err := h.api(e.AgentID)
	if err != nil {
		return false, "", err
	}
	out, err := api.Withdraw(ctx, &client.WithdrawRequest{FrameworkId: frameworkID, Volume: nameOf(e.Key), Epoch: e.Number})
	if err != nil {
		return false, "", fmt.Errorf("withdraw volume %s of driver %s with the bridge of agent %s: %w", e.Key.Name, e.Key.Driver, e.AgentID, err)
	}
	return out.Released, out.Reason, nil
}

// Remove implements core.Bridges. Whoever may have lost the lead removes nothing.
func (h *Hub) Remove(ctx context.Context, frameworkID string, e core.Epoch) (removed bool, reason string, err error) {
	api, err := h.api(e.AgentID)
	if err != nil {
		return false, "", err
	}
	if h.leadLost() {
		return false, "another framework process may lead", nil
	}
	out, err := api.Remove(ctx, &client.RemoveRequest{FrameworkId: frameworkID, Volume: nameOf(e.Key), Epoch: e.Number})
	if err != nil {
		return false, "", fmt.Errorf("remove volume %s of driver %s through the bridge of agent %s: %w", e.Key.Name, e.Key.Driver, e.AgentID, err)
	}
	return out.Removed, out.Reason, nil
}

// retry is the pause before a watch that failed is begun again.
const retry = 5 * time.Second
