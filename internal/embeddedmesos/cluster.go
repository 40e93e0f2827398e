package embeddedmesos

import (
	"context"
	"errors"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent"
)

// errIncomplete marks what the parts of this package do not do yet.
var errIncomplete = errors.New("embedded Mesos: not complete")

// Agent is one agent of a cluster and its host.
type Agent = agent.Agent

// Cluster is a running master and its agents. Its methods may be called from
// any goroutine.
type Cluster struct {
	addr   string
	agents []*Agent
}

// Main must be the first call in main, or TestMain, of every program that
// starts a cluster. It runs the executor and does not return if this process
// was started as one.
func Main() {}

// Start starts master and agents and returns when all agents have registered.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	return nil, errIncomplete
}

// Addr returns host:port of the master.
func (c *Cluster) Addr() string { return c.addr }

// Agents returns the agents in the order of the configuration.
func (c *Cluster) Agents() []*Agent { return c.agents }

// KillMaster ends the master as SIGKILL would.
func (c *Cluster) KillMaster() {}

// StartMaster starts the master again, on the same address.
func (c *Cluster) StartMaster(ctx context.Context) error { return errIncomplete }

// MarkAgentGone tells the master, through its operator API, that the agent
// and everything on it will not come back.
func (c *Cluster) MarkAgentGone(ctx context.Context, agentID string) error { return errIncomplete }

// Stop ends master and agents as a shutdown of their daemons would: executors
// and tasks live on and are found again by the next Start on the same
// directory.
func (c *Cluster) Stop(ctx context.Context) error { return errIncomplete }

// Destroy ends everything: master, agents, executors and tasks; volumes are
// unmounted through dvdcli. No process, mount or socket is left.
func (c *Cluster) Destroy(ctx context.Context) error { return errIncomplete }
