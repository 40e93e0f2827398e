// Package agent is the embedded Mesos agent with its host: it runs tasks as
// real processes in sandboxes and mounts docker volumes through dvdcli.
package agent

import (
	"context"
	"errors"
)

var errIncomplete = errors.New("embedded agent: not complete")

// Agent is one agent and its host.
type Agent struct {
	id, hostname, url string
}

// ID returns the agent's id, empty until it has registered.
func (a *Agent) ID() string { return a.id }

// Hostname returns the name in offers.
func (a *Agent) Hostname() string { return a.hostname }

// URL returns the base URL of the agent's HTTP endpoint, http://host:port.
func (a *Agent) URL() string { return a.url }

// KillProcess ends the agent as SIGKILL would; executors and tasks live on.
func (a *Agent) KillProcess() error { return errIncomplete }

// Start starts the agent again after KillProcess or LoseHost.
func (a *Agent) Start(ctx context.Context) error { return errIncomplete }

// LoseHost ends agent, executors and tasks at once, as a power failure would.
func (a *Agent) LoseHost() error { return errIncomplete }

// Freeze stops the agent as SIGSTOP would; tasks go on.
func (a *Agent) Freeze() {}

// Thaw lets a frozen agent go on.
func (a *Agent) Thaw() {}

// Partition cuts the agent off from the master; both live on.
func (a *Agent) Partition() {}

// Heal ends a partition.
func (a *Agent) Heal() {}

// Sandbox returns the directory of the newest run of a task.
func (a *Agent) Sandbox(taskID string) (string, error) { return "", errIncomplete }
