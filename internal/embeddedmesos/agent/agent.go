package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/executor"
)

var (
	// ErrRunning is returned by Start while the agent process runs.
	ErrRunning = errors.New("the agent is running")
	// ErrStopped is returned by what needs the agent process.
	ErrStopped = errors.New("the agent is not running")
	// errKilled is the cause of the end of a killed process.
	errKilled = errors.New("agent process killed")
)

// Agent is one agent and its host. Its methods are safe for concurrent use.
type Agent struct {
	cfg  Config
	gate *gate

	lifecycle sync.Mutex // serialises Start, KillProcess, LoseHost and Destroy

	mu      sync.Mutex // guards all below
	process *process   // nil while none runs
	id      string     // last known
	address string     // of the HTTP endpoint, last known
}

// New returns an agent that is not running yet.
func New(cfg Config) (*Agent, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Agent{cfg: cfg, gate: newGate()}, nil
}

// ID returns the agent's id, empty until it has registered for the first time.
func (a *Agent) ID() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.id
}

// Hostname returns the name in offers.
func (a *Agent) Hostname() string { return a.cfg.Hostname }

// URL returns the base URL of the agent's HTTP endpoint, http://host:port; it
// is empty before the first Start.
func (a *Agent) URL() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.address == "" {
		return ""
	}
	return "http://" + a.address
}

// Dir returns the agent's directory.
func (a *Agent) Dir() string { return a.cfg.Dir }

// DockerVolumeDir returns the directory in which the docker/volume isolator
// keeps a checkpoint for each container.
func (a *Agent) DockerVolumeDir() string { return layout{a.cfg.Dir}.dockerVolumes() }

// Start starts the agent process: it recovers what is on disk, reconnects to
// the executors that still run, and cleans up after those that do not. It does
// not wait for the registration; see AwaitRegistration. It fails with
// ErrRunning while a process runs, and with executor.ErrNoMain in a program
// that does not call Main.
func (a *Agent) Start(ctx context.Context) error {
	a.lifecycle.Lock()
	defer a.lifecycle.Unlock()
	return a.start(ctx, true)
}

// start needs lifecycle.
func (a *Agent) start(ctx context.Context, register bool) error {
	if err := executor.Ready(); err != nil {
		return err
	}
	if a.running() != nil {
		return fmt.Errorf("start agent %s: %w", a.cfg.Hostname, ErrRunning)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	a.kill() // what is left of a process that ended by itself
	p, err := newProcess(a)
	if err != nil {
		return fmt.Errorf("start agent %s: %w", a.cfg.Hostname, err)
	}
	a.mu.Lock()
	a.process, a.id, a.address = p, p.info.GetID().GetValue(), p.address
	a.mu.Unlock()
	p.start(register)
	return nil
}

// running returns the process if it has not ended.
func (a *Agent) running() *process {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.process == nil || a.process.ctx.Err() != nil {
		return nil
	}
	return a.process
}

// registered notes the id that the master gave.
func (a *Agent) registered(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.id = id
}

// AwaitRegistration waits until the master has accepted the agent. It fails
// when the context or the agent process ends first.
func (a *Agent) AwaitRegistration(ctx context.Context) error {
	p := a.running()
	if p == nil {
		return fmt.Errorf("agent %s: %w", a.cfg.Hostname, ErrStopped)
	}
	select {
	case <-p.registered:
		return nil
	case <-p.ctx.Done():
		return fmt.Errorf("agent %s ended: %w", a.cfg.Hostname, context.Cause(p.ctx))
	case <-ctx.Done():
		return fmt.Errorf("agent %s waits for its registration: %w", a.cfg.Hostname, ctx.Err())
	}
}

// KillProcess ends the agent as SIGKILL would: calls of dvdcli that are under
// way are killed with it, executors and tasks live on. It returns when nothing
// of the process is left. Killing an agent that does not run is harmless.
func (a *Agent) KillProcess() error {
	a.lifecycle.Lock()
	defer a.lifecycle.Unlock()
	a.kill()
	return nil
}

// kill needs lifecycle.
func (a *Agent) kill() {
	a.mu.Lock()
	p := a.process
	a.process = nil
	a.mu.Unlock()
	if p != nil {
		p.stop(errKilled)
	}
	a.gate.unlock()
}

// LoseHost ends agent, executors and tasks at once, as a power failure would.
// Nothing is unmounted through dvdcli; Start brings the host back, and its
// recovery does that, as captured from a real agent.
func (a *Agent) LoseHost() error {
	a.lifecycle.Lock()
	defer a.lifecycle.Unlock()
	a.kill()
	if err := loseExecutors(layout{a.cfg.Dir}); err != nil {
		return fmt.Errorf("lose the host of agent %s: %w", a.cfg.Hostname, err)
	}
	return nil
}

// Freeze stops the agent process as SIGSTOP would: connections stay open, but
// nothing is answered and nothing is started until Thaw. Executors, tasks and
// calls of dvdcli that are under way go on.
func (a *Agent) Freeze() { a.gate.shut() }

// Thaw lets a frozen agent go on where it stopped.
func (a *Agent) Thaw() { a.gate.unlock() }

// Partition cuts the agent off from the master; both live on.
func (a *Agent) Partition() { a.cfg.Cable.Cut() }

// Heal ends a partition.
func (a *Agent) Heal() { a.cfg.Cable.Heal() }

// Destroy ends the agent with everything on it: executors and tasks are
// killed, volumes unmounted through dvdcli, also those of earlier containers
// whose unmount failed. It returns what could not be cleaned up.
func (a *Agent) Destroy(ctx context.Context) error {
	a.lifecycle.Lock()
	defer a.lifecycle.Unlock()
	a.gate.unlock()
	if a.running() == nil {
		if err := a.start(ctx, false); err != nil {
			return err
		}
	}
	p := a.running()
	if p == nil {
		return fmt.Errorf("destroy agent %s: %w", a.cfg.Hostname, ErrStopped)
	}
	err := p.destroyAll(ctx)
	a.kill()
	if err = errors.Join(err, a.unmountLeftovers(ctx)); err != nil {
		return fmt.Errorf("destroy agent %s: %w", a.cfg.Hostname, err)
	}
	return nil
}

// Sandbox returns the directory of the newest run of a task. It fails when the
// agent never had a task with that id.
func (a *Agent) Sandbox(taskID string) (string, error) {
	if err := checkID("task", taskID); err != nil {
		return "", err
	}
	pattern := runPath{slave: "*", framework: "*", executor: escapeGlob(taskID), container: "latest"}
	found, err := filepath.Glob(layout{a.cfg.Dir}.sandbox(pattern))
	if err != nil {
		return "", fmt.Errorf("sandbox of task %s: %w", taskID, err)
	}
	var newest string
	var since time.Time
	for _, path := range found {
		info, err := os.Lstat(path)
		if err == nil && (newest == "" || info.ModTime().After(since)) {
			newest, since = path, info.ModTime()
		}
	}
	if newest == "" {
		return "", fmt.Errorf("agent %s has no sandbox of a task %s", a.cfg.Hostname, taskID)
	}
	return filepath.EvalSymlinks(newest)
}

func escapeGlob(name string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(name)
}
