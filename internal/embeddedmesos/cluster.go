package embeddedmesos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/executor"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/master"
	"github.com/mesos-dvdi/dvdi/internal/freeport"
)

// Agent is one agent of a cluster and its host.
type Agent = agent.Agent

// ErrMasterRuns is returned by StartMaster while the master runs.
var ErrMasterRuns = errors.New("the master is running")

// Main must be the first call in main, or TestMain, of every program that
// starts a cluster. It runs the executor and does not return if this process
// was started as one.
func Main() { executor.Main() }

// Cluster is a running master and its agents. Its methods may be called from
// any goroutine.
type Cluster struct {
	cfg     Config
	network *link.Network
	agents  []*Agent
	lock    *os.File // held on the directory while the cluster runs
	linked  error    // why volumes are linked instead of mounted, nil if mounted

	mu     sync.Mutex     // guards all below
	addr   string         // of the master, also while it is down
	master *master.Master // nil while it is down
}

// Start starts master and agents and returns when all agents have registered.
// It fails when the directory is used by another cluster, when this program
// does not call Main, when an address is in use, or when an agent's
// configuration differs from the one that its state on disk was made with.
// Nothing runs after a failure.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	c, err := newCluster(cfg)
	if err != nil {
		return nil, fmt.Errorf("start embedded Mesos: %w", err)
	}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start embedded Mesos: %w", err), c.Stop(ctx))
	}
	return c, nil
}

func newCluster(cfg Config) (*Cluster, error) {
	if err := executor.Ready(); err != nil {
		return nil, err
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	c := &Cluster{cfg: cfg, lock: lock, network: link.NewNetwork(), addr: cfg.Listen}
	if err := c.addAgents(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return c, nil
}

// addAgents makes the agents, which do not run yet.
func (c *Cluster) addAgents() error {
	mounts, err := hostMounts(c.cfg.Dir)
	if err != nil {
		return err
	}
	c.linked = executor.Probe()
	if reason := c.linked; reason != nil {
		c.cfg.Logger.Warn("Volumes are linked into sandboxes instead of mounted, and are not read-only"+
			" where a task asks for that; run as root for the real thing", zap.String("reason", reason.Error()))
	}
	for n, config := range c.cfg.Agents {
		name := "agent" + strconv.Itoa(n+1)
		a, err := agent.New(agent.Config{
			Dir:            filepath.Join(c.cfg.Dir, name),
			Hostname:       config.Hostname,
			Resources:      config.resources(n),
			Attributes:     config.attributes(),
			Domain:         config.domain(),
			Cable:          c.network.Cable(name),
			DVDCLI:         c.cfg.DVDCLI,
			Env:            config.Env,
			HostMounts:     mounts,
			LinkVolumes:    c.linked != nil,
			StatusRetry:    c.cfg.Timing.StatusRetry,
			MountTimeout:   c.cfg.Timing.MountTimeout,
			UnmountTimeout: c.cfg.Timing.UnmountTimeout,
			Credentials:    c.cfg.Credentials,
			Logger:         c.cfg.Logger,
		})
		if err != nil {
			return fmt.Errorf("agent %d: %w", n+1, err)
		}
		c.agents = append(c.agents, a)
	}
	return nil
}

// start starts the agents one after the other, so that in a new cluster their
// ids have the order of the configuration.
func (c *Cluster) start(ctx context.Context) error {
	if err := c.StartMaster(ctx); err != nil {
		return err
	}
	for _, a := range c.agents {
		if err := a.Start(ctx); err != nil {
			return err
		}
		if err := a.AwaitRegistration(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Addr returns host:port of the master.
func (c *Cluster) Addr() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.addr
}

// Linked says why volumes are linked into sandboxes instead of mounted, nil if
// they are mounted.
func (c *Cluster) Linked() error { return c.linked }

// Agents returns the agents in the order of the configuration.
func (c *Cluster) Agents() []*Agent { return slices.Clone(c.agents) }

// Master returns the running master, for its faults; nil while it is down.
func (c *Cluster) Master() *master.Master {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.master
}

// KillMaster ends the master as SIGKILL would. Agents and tasks go on. Killing
// a master that is down is harmless.
func (c *Cluster) KillMaster() {
	if err := c.endMaster((*master.Master).Kill); err != nil {
		c.cfg.Logger.Warn("Master had failed before it was killed", zap.Error(err))
	}
}

func (c *Cluster) endMaster(end func(*master.Master) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.master
	c.master = nil
	if m == nil {
		return nil
	}
	return end(m)
}

// listen opens the configured address, and later the same one again.
func (c *Cluster) listen(ctx context.Context) (net.Listener, error) {
	if host, port, err := net.SplitHostPort(c.addr); err == nil && port == "0" {
		return freeport.Listen(host)
	}
	var config net.ListenConfig
	return config.Listen(ctx, "tcp", c.addr)
}

// StartMaster starts the master again, on the same address; like one that took
// over it has a new id and knows of the agents but not of frameworks and
// tasks, until these come back. It fails with ErrMasterRuns while one runs.
func (c *Cluster) StartMaster(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.master != nil {
		return ErrMasterRuns
	}
	l, err := c.listen(ctx)
	if err != nil {
		return fmt.Errorf("listen for the master: %w (stop what uses the address, or choose another one)", err)
	}
	t := c.cfg.Timing
	m, err := master.Start(master.Config{
		Listener:    l,
		Network:     c.network,
		Dir:         filepath.Join(c.cfg.Dir, "master"),
		Domain:      c.cfg.domain(),
		Credentials: c.cfg.Credentials,
		Roles:       c.cfg.Roles,
		Logger:      c.cfg.Logger,
		Timing: master.Timing{
			Heartbeat:         t.Heartbeat,
			AgentPing:         t.AgentPing,
			AgentPingTimeouts: t.AgentPingTimeouts,
			Allocation:        t.Allocation,
			AgentReregister:   t.AgentReregister,
		},
	})
	if err != nil {
		return errors.Join(err, l.Close())
	}
	c.master, c.addr = m, l.Addr().String()
	return nil
}

// MarkAgentGone tells the master, through its operator API, that the agent
// and everything on it will not come back. An agent that runs shuts down.
func (c *Cluster) MarkAgentGone(ctx context.Context, agentID string) error {
	id := map[string]any{"value": agentID}
	body, err := json.Marshal(map[string]any{
		"type":            "MARK_AGENT_GONE",
		"mark_agent_gone": map[string]any{"agent_id": id},
	})
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.Addr()+"/api/v1", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("mark agent %s gone: %w", agentID, err)
	}
	request.Header.Set("Content-Type", "application/json")
	c.authenticate(request)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("mark agent %s gone: %w", agentID, err)
	}
	answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return fmt.Errorf("mark agent %s gone: %w", agentID, err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("mark agent %s gone: the master answers %s: %s", agentID, response.Status, answer)
	}
	return nil
}

// authenticate uses the first of the credentials, if there are any.
func (c *Cluster) authenticate(r *http.Request) {
	for _, principal := range slices.Sorted(maps.Keys(c.cfg.Credentials)) {
		r.SetBasicAuth(principal, c.cfg.Credentials[principal])
		return
	}
}

// Stop ends master and agents as a shutdown of their daemons would: executors
// and tasks live on and are found again by the next Start on the same
// directory, if that comes within 15 minutes. Stopping twice is harmless.
func (c *Cluster) Stop(context.Context) error {
	var errs []error
	for _, a := range c.agents {
		errs = append(errs, a.KillProcess())
	}
	errs = append(errs, c.endMaster((*master.Master).Close), c.unlock())
	return errors.Join(errs...)
}

// Destroy ends everything: master, agents, executors and tasks; volumes are
// unmounted through dvdcli. No process, mount or socket is left; the error
// tells what could not be cleaned up. The files stay, sandboxes among them. A
// cluster that was stopped is taken up again for that, unless another one uses
// its directory by now.
func (c *Cluster) Destroy(ctx context.Context) error {
	if err := c.relock(); err != nil {
		return fmt.Errorf("destroy embedded Mesos: %w", err)
	}
	errs := make([]error, len(c.agents))
	var all sync.WaitGroup
	for n, a := range c.agents {
		all.Go(func() { errs[n] = a.Destroy(ctx) })
	}
	all.Wait()
	return errors.Join(errors.Join(errs...), c.Stop(ctx))
}

func (c *Cluster) relock() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lock != nil {
		return nil
	}
	var err error
	c.lock, err = lockDir(c.cfg.Dir)
	return err
}

func (c *Cluster) unlock() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	lock := c.lock
	c.lock = nil
	if lock == nil {
		return nil
	}
	return lock.Close()
}
