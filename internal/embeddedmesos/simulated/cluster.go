package simulated

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/master"
)

// Config describes a cluster.
type Config struct {
	// Dir keeps the master's registry.
	Dir    string
	Agents []AgentConfig
	// Timing is the master's; its zero fields are Mesos's defaults.
	Timing master.Timing
	// StatusRetry is the first interval after which an unacknowledged update is
	// repeated; it doubles up to a minute. Zero means 10 s, as in Mesos.
	StatusRetry time.Duration
	// StartDelay is how long a task takes from its launch until it runs,
	// UnmountDelay how long after its end its volumes are unmounted. Both are
	// asked for each task; nil means no delay.
	StartDelay, UnmountDelay func(taskID string) time.Duration
	// Refuses says of a volume driver that its backend refuses to attach a
	// volume to two hosts: a task that asks for that fails. With other drivers
	// it is a violation. Nil: none refuses.
	Refuses func(driver string) bool
	// Logger is silent when nil.
	Logger *zap.Logger
}

// AgentConfig describes one agent.
type AgentConfig struct {
	Hostname     string
	Region, Zone string // both empty: no fault domain
	Attributes   map[string]string
	// CPUs, MemMiB and DiskMiB are what the agent has; zero means 4 CPUs, 4096
	// MiB of memory and 10240 MiB of disk.
	CPUs, MemMiB, DiskMiB float64
	// Mute agents lack the capability AGENT_OPERATION_FEEDBACK, as those before
	// Mesos 1.7 do.
	Mute bool
	// MountDisks are the sizes in MiB of further disks, each of its own.
	MountDisks []float64
}

// Volume names a docker volume.
type Volume struct{ Driver, Name string }

// Cluster is a running master with its agents. Its methods may be called from
// any goroutine.
type Cluster struct {
	cfg     Config
	log     *zap.Logger
	network *link.Network

	mu         sync.Mutex // guards all below; taken after an agent's mu, never before
	listener   *listener
	master     *master.Master
	masters    int // so far
	agents     []*Agent
	violations []string
	mounted    map[Volume]*Agent // also by hosts that are cut off
}

// Start starts master and agents, one after the other, so that their ids have the
// order of the configuration; all have registered when it returns.
func Start(cfg Config) (*Cluster, error) {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.StatusRetry == 0 {
		cfg.StatusRetry = 10 * time.Second
	}
	c := &Cluster{cfg: cfg, log: cfg.Logger, network: link.NewNetwork(), mounted: make(map[Volume]*Agent)}
	if err := c.StartMaster(); err != nil {
		return nil, err
	}
	for _, a := range cfg.Agents {
		<-c.AddAgent(a).known
	}
	return c, nil
}

// StartMaster starts a master: the first, or the one that takes over after
// KillMaster. Like any that takes over it has another id and knows the agents
// but neither frameworks nor tasks.
func (c *Cluster) StartMaster() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := newListener()
	c.masters++
	m, err := master.Start(master.Config{
		// Agent ids derive from it and break ties: the same each time.
		ID:       fmt.Sprintf("master-%d", c.masters),
		Listener: l, Network: c.network, Dir: c.cfg.Dir, Domain: c.domain(), Timing: c.cfg.Timing, Logger: c.log,
	})
	if err != nil {
		return fmt.Errorf("start simulated Mesos: %w", errors.Join(err, l.Close()))
	}
	c.master, c.listener = m, l
	return nil
}

// domain is the master's: that of the first agent that has one.
func (c *Cluster) domain() *mesos.DomainInfo {
	for i := range c.cfg.Agents {
		if d := c.cfg.Agents[i].domain(); d != nil {
			return d
		}
	}
	return nil
}

// KillMaster ends the master as SIGKILL would.
func (c *Cluster) KillMaster() error {
	c.mu.Lock()
	m := c.master
	c.master = nil
	c.mu.Unlock()
	if m == nil {
		return nil
	}
	return m.Kill()
}

// AddAgent starts one more agent, which registers on its own.
func (c *Cluster) AddAgent(cfg AgentConfig) *Agent {
	c.mu.Lock()
	a := newAgent(c, cfg, len(c.agents)+1)
	c.agents = append(c.agents, a)
	c.mu.Unlock()
	a.start()
	return a
}

// Agents returns all agents in the order in which they were added.
func (c *Cluster) Agents() []*Agent {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.agents)
}

// Addr is the address that Dial leads to the master with.
func (c *Cluster) Addr() string { return masterAddress }

// Dial connects to the master over memory, whatever the address. It fails while
// no master runs.
func (c *Cluster) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	c.mu.Lock()
	l := c.listener
	c.mu.Unlock()
	return l.dial(ctx)
}

// MarkAgentGone tells the master through its operator API that an agent will
// not come back. One that runs shuts down with its tasks.
func (c *Cluster) MarkAgentGone(ctx context.Context, agentID string) error {
	return c.Operate(ctx, map[string]any{"type": "MARK_AGENT_GONE",
		"mark_agent_gone": map[string]any{"agent_id": map[string]any{"value": agentID}}})
}

// Operate makes a call of the master's operator API.
func (c *Cluster) Operate(ctx context.Context, call map[string]any) error {
	what := call["type"]
	body, err := json.Marshal(call)
	if err != nil {
		return fmt.Errorf("operator call %s: %w", what, err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+masterAddress+"/api/v1", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("operator call %s: %w", what, err)
	}
	request.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: &http.Transport{DialContext: c.Dial, DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("operator call %s: %w", what, err)
	}
	answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return fmt.Errorf("operator call %s: %w", what, err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("operator call %s: the master answers %s: %s", what, response.Status, answer)
	}
	return nil
}

// Violations lists what has happened that never must.
func (c *Cluster) Violations() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.violations)
}

func (c *Cluster) violated(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.violations = append(c.violations, fmt.Sprintf(format, args...))
}

// mount notes that a host mounts a volume for a task. It reports false when the
// backend refuses that.
func (c *Cluster) mount(v Volume, on *Agent, task string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if other := c.mounted[v]; other != nil && other != on {
		if c.cfg.Refuses != nil && c.cfg.Refuses(v.Driver) {
			return false
		}
		c.violations = append(c.violations, fmt.Sprintf("volume %s of driver %s is mounted on %s for %s while it is mounted on %s",
			v.Name, v.Driver, on.cfg.Hostname, task, other.cfg.Hostname))
	}
	c.mounted[v] = on
	return true
}

func (c *Cluster) unmount(v Volume, on *Agent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mounted[v] == on {
		delete(c.mounted, v)
	}
}

// Stop ends everything and waits for it.
func (c *Cluster) Stop() error {
	for _, a := range c.Agents() {
		a.LoseHost()
	}
	c.mu.Lock()
	m := c.master
	c.master = nil
	c.mu.Unlock()
	if m == nil {
		return nil
	}
	if err := m.Close(); err != nil {
		return fmt.Errorf("stop simulated Mesos: %w", err)
	}
	return nil
}
