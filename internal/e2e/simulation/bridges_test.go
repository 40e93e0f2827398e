package simulation_test

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/simulated"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// simBridges are the bridges of simulated agents, as the framework's own view of
// them: they report what is mounted, keep epochs, and answer while their host is
// on and can be reached. They outlive the framework.
type simBridges struct {
	cluster *simulated.Cluster
	news    chan struct{}

	mu      sync.Mutex // guards all below
	tracked map[string]bool
	// reachable are the agents whose bridges answer.
	reachable map[string]bool
	reports   map[string]*core.BridgeReport // replaced, never changed
	epochs    map[bridgeKey]registration
	// refused are registrations that were not allowed: a framework that asks for
	// one has lost count.
	refused []string
}

type bridgeKey struct {
	agentID string
	key     scheduler.VolumeKey
}

type registration struct {
	number    uint64
	withdrawn bool
}

func newSimBridges(c *simulated.Cluster) *simBridges {
	return &simBridges{cluster: c, news: make(chan struct{}, 1), reachable: map[string]bool{},
		reports: map[string]*core.BridgeReport{}, epochs: map[bridgeKey]registration{}}
}

// look has the bridges of the agents that can be reached report.
func (b *simBridges) look(reachable map[string]bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reachable = reachable
	next := map[string]*core.BridgeReport{}
	for _, a := range b.cluster.Agents() {
		id := a.ID()
		switch old := b.reports[id]; {
		case !b.tracked[id]:
		case reachable[id]:
			next[id] = reportOf(id, a)
		case old != nil:
			lost := *old
			lost.Agent.Known = false
			next[id] = &lost
		}
	}
	b.reports = next
	select {
	case b.news <- struct{}{}:
	default:
	}
}

func reportOf(id string, a *simulated.Agent) *core.BridgeReport {
	r := &core.BridgeReport{Epochs: true, Volumes: map[scheduler.VolumeKey]core.BridgeVolume{},
		Agent:  scheduler.AgentFact{AgentID: id, Known: true, Zone: a.Config().Zone},
		Scopes: map[string]string{"disk": "global", refusing: "global"}}
	for _, driver := range []string{"disk", refusing} {
		r.Agent.Drivers = append(r.Agent.Drivers, scheduler.DriverFact{Name: driver, Healthy: true})
	}
	for v := range a.Mounts() {
		r.Volumes[scheduler.VolumeKey{Driver: v.Driver, Name: v.Name}] = core.BridgeVolume{Attached: true}
	}
	return r
}

func (b *simBridges) Track(agents []core.BridgeAgent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tracked = map[string]bool{}
	for _, a := range agents {
		b.tracked[a.ID] = true
	}
}

func (b *simBridges) News() <-chan struct{} { return b.news }

func (b *simBridges) Reports() map[string]*core.BridgeReport {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.reports)
}

// agent is the one whose bridge is asked. The caller holds the mutex.
func (b *simBridges) agent(id string) (*simulated.Agent, error) {
	for _, a := range b.cluster.Agents() {
		if a.ID() == id && b.reachable[id] {
			return a, nil
		}
	}
	return nil, fmt.Errorf("bridge of agent %s: no answer", id)
}

func (b *simBridges) Register(_ context.Context, _ string, e core.Epoch) (core.LeaseTerms, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, err := b.agent(e.AgentID); err != nil {
		return core.LeaseTerms{}, err
	}
	key := bridgeKey{e.AgentID, e.Key}
	if old := b.epochs[key]; e.Number < old.number || e.Number == old.number && old.withdrawn {
		err := fmt.Errorf("epoch %d of %s on %s: %+v is registered", e.Number, e.Key, e.AgentID, old)
		b.refused = append(b.refused, err.Error())
		return core.LeaseTerms{}, err
	}
	b.epochs[key] = registration{number: e.Number}
	return core.LeaseTerms{}, nil
}

func (b *simBridges) Withdraw(_ context.Context, _ string, e core.Epoch) (released bool, reason string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a, err := b.agent(e.AgentID)
	if err != nil {
		return false, "", err
	}
	key := bridgeKey{e.AgentID, e.Key}
	if b.epochs[key].number <= e.Number {
		b.epochs[key] = registration{number: e.Number, withdrawn: true}
	}
	if users := a.Mounts()[simulated.Volume{Driver: e.Key.Driver, Name: e.Key.Name}]; len(users) > 0 {
		return false, fmt.Sprintf("it is mounted for %v", users), nil
	}
	return true, "", nil
}

// Remove removes nothing: no class of the simulation asks for it.
func (b *simBridges) Remove(context.Context, string, core.Epoch) (removed bool, reason string, err error) {
	return false, "nothing is removed here", nil
}

func (b *simBridges) Hold(string, []core.Epoch) {}

func (b *simBridges) LeaseOver(core.Epoch) (time.Time, bool) { return time.Time{}, false }

// complaints are what the framework asked for that it must not.
func (b *simBridges) complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.refused
}
