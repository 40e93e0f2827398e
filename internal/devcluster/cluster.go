// Package devcluster runs a whole cluster on one machine for the demo and the
// end-to-end tests: an embedded Mesos, a reference volume plugin per agent over
// one shared store, and the framework as a process of its own. It stands where
// an operator stands: it starts and kills processes, and talks to the framework
// over HTTP only.
package devcluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
	"github.com/mesos-dvdi/dvdi/internal/freeport"
)

// Driver is the name under which every agent finds the reference plugin.
const Driver = "refvol"

// Config describes the cluster.
type Config struct {
	// Dir holds everything that the cluster writes; the caller removes it.
	Dir string
	// Bin is the directory with dvdcli, dvdi-framework and volume-plugin.
	Bin string
	// Agents is how many agents to start, named agent1.test and so on.
	Agents int
	Timing embeddedmesos.Timing
	Log    *zap.Logger
	// Plugins are the volume plugins of every node; none means ReferencePlugin.
	Plugins []Plugin
	// Bridges runs an isolator-bridge beside each agent, whose attribute
	// dvdi_bridge says where.
	Bridges bool
	// Agent changes the configuration of an agent, whose index it gets, before
	// it is started; nil changes none.
	Agent func(i int, a *embeddedmesos.AgentConfig)
	// Output receives what the plugins and the framework print; nil drops it.
	Output io.Writer
}

// Cluster is a running cluster. Its methods are for one goroutine.
type Cluster struct {
	Mesos *embeddedmesos.Cluster
	Nodes []*Node

	cfg        Config
	frameworks []*Framework
}

// Node is one host: an agent and its volume plugin.
type Node struct {
	Agent *embeddedmesos.Agent

	dir     string
	name    string
	plugins map[string]*Process // by driver
	c       *Cluster

	bridge     *Process // nil: none runs
	bridgePort int
}

// Start starts plugins and Mesos. On error nothing is left running.
func Start(ctx context.Context, cfg Config) (c *Cluster, err error) {
	if len(cfg.Plugins) == 0 {
		cfg.Plugins = []Plugin{ReferencePlugin(cfg.Bin)}
	}
	c = &Cluster{cfg: cfg}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop(context.WithoutCancel(ctx)))
			c = nil
		}
	}()
	agents := make([]embeddedmesos.AgentConfig, cfg.Agents)
	for i := range agents {
		n := &Node{c: c, name: fmt.Sprintf("agent%d.test", i+1), plugins: make(map[string]*Process)}
		n.dir = filepath.Join(cfg.Dir, fmt.Sprintf("node%d", i+1))
		c.Nodes = append(c.Nodes, n)
		for _, p := range cfg.Plugins {
			if err := n.startPlugin(ctx, p); err != nil {
				return c, err
			}
		}
		first := uint64(31000 + 1000*i)
		agents[i] = embeddedmesos.AgentConfig{
			Hostname: n.name, CPUs: 4, MemMiB: 4096, DiskMiB: 10240,
			Ports: [2]uint64{first, first + 999}, Env: n.Env(),
		}
		if cfg.Bridges {
			if n.bridgePort, err = freeport.Port(); err != nil {
				return c, err
			}
			agents[i].Attributes = map[string]string{"dvdi_bridge": n.bridgeAttribute()}
		}
		if cfg.Agent != nil {
			cfg.Agent(i, &agents[i])
		}
	}
	dvdcli, err := filepath.Abs(filepath.Join(cfg.Bin, "dvdcli"))
	if err != nil {
		return c, err
	}
	c.Mesos, err = embeddedmesos.Start(ctx, embeddedmesos.Config{
		Dir: filepath.Join(cfg.Dir, "mesos"), Agents: agents,
		DVDCLI: dvdcli, Logger: cfg.Log, Timing: cfg.Timing,
	})
	if err != nil {
		return c, fmt.Errorf("start the embedded Mesos: %w", err)
	}
	for i, a := range c.Mesos.Agents() {
		c.Nodes[i].Agent = a
	}
	if cfg.Bridges {
		if err := c.makeToken(); err != nil {
			return c, err
		}
		for _, n := range c.Nodes {
			if err := n.StartBridge(ctx); err != nil {
				return c, err
			}
		}
	}
	return c, nil
}

const (
	// callTimeout is how long a node's dvdcli gives a plugin for one call. With an
	// agent process its calls of dvdcli are killed, and the next call for that
	// volume waits until the killed one's time is over; the default of a minute and
	// more would be most of what a test or a demonstration waits for.
	callTimeout = 20 * time.Second
	// stopLimit is for several of these waits one after the other.
	stopLimit = 2 * time.Minute
	// startLimit bounds how long a program may take until it serves, also on a
	// machine that has much else to do.
	startLimit = 2 * time.Minute
)

// Stop ends everything: frameworks, tasks, Mesos and plugins. No process, mount
// or socket is left; the directory is the caller's.
func (c *Cluster) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	var errs []error
	for _, f := range c.frameworks {
		errs = append(errs, f.Stop(ctx))
	}
	if c.Mesos != nil {
		errs = append(errs, c.Mesos.Destroy(ctx))
	}
	for _, n := range c.Nodes {
		errs = append(errs, n.stopBridge(ctx))
		for _, p := range n.plugins {
			errs = append(errs, p.Stop(ctx))
		}
		errs = append(errs, n.dropMounts())
	}
	return errors.Join(errs...)
}

// Store is the directory that all plugins share, as a storage network would be.
func (c *Cluster) Store() string { return filepath.Join(c.cfg.Dir, "store") }

// Node returns the node of a host name, nil if there is none.
func (c *Cluster) Node(hostname string) *Node {
	for _, n := range c.Nodes {
		if n.name == hostname {
			return n
		}
	}
	return nil
}

// Hostname is the agent's host name.
func (n *Node) Hostname() string { return n.name }

// Env is the environment in which dvdcli runs on this node.
func (n *Node) Env() []string {
	return []string{
		"DVDCLI_RUN_DIR=" + n.runDir(),
		"DVDCLI_STATE_DIR=" + filepath.Join(n.dir, "state"),
		"DVDCLI_HOST_DIR=" + filepath.Join(filepath.Dir(n.dir), "ledgers"), // the nodes share this host
		"DVDCLI_PLUGIN_DIRS=" + n.pluginDir(),
		"DVDCLI_HOLDER=" + n.name,
		"DVDCLI_CALL_TIMEOUT=" + callTimeout.String(),
	}
}

// PowerOff loses the host at once: agent, executors, tasks and plugins are
// killed, and with the host's kernel its mounts and everything in /run are
// gone. The shared store keeps its record that the host has the volume.
func (n *Node) PowerOff() error {
	errs := []error{n.Agent.LoseHost()}
	n.KillBridge()
	for _, p := range n.plugins {
		p.Kill()
	}
	errs = append(errs, n.dropMounts(), os.RemoveAll(n.runDir()), os.RemoveAll(n.pluginDir()))
	return errors.Join(errs...)
}

func (n *Node) runDir() string { return filepath.Join(n.dir, "run") }

// ForceDetach frees a volume that a lost host still has in the shared store, as
// an operator does in the storage system's console.
func (n *Node) ForceDetach(ctx context.Context, volume string) error {
	return n.c.run(ctx, nil, "volume-plugin", "detach", "--root", n.c.Store(), "--force", volume)
}

// DVDCLI runs dvdcli on this node and returns its standard output.
func (n *Node) DVDCLI(ctx context.Context, args ...string) (string, error) {
	return n.c.output(ctx, n.Env(), "dvdcli", args...)
}

func (c *Cluster) run(ctx context.Context, env []string, name string, args ...string) error {
	_, err := c.output(ctx, env, name, args...)
	return err
}

func hasPrefixDir(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}
