package agentstate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"

	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// Agent answers what its API answers.
type Agent interface {
	Containers(context.Context) ([]Container, error)
	Workloads(context.Context) ([]Workload, error)
}

// View is what checkpoints and agent said at one time.
type View struct {
	Checkpoints []Checkpoint
	// CheckpointsErr says why there are none: nothing is known of any volume's
	// containers then.
	CheckpointsErr error
	// Listed are the containers that the agent lists, by leaf id.
	Listed map[string]Container
	// AgentErr says why the agent lists none; nil if it answered.
	AgentErr error
	// NamesErr says why tasks of nested containers are not named.
	NamesErr error
	// GroupsErr says why the containers' control groups are not found.
	GroupsErr error
}

// ErrNoAgent: the bridge was told of no agent.
var ErrNoAgent = errors.New("no agent is configured; name its URL with --agent-url")

// ErrNoCheckpoints: the bridge was told of no checkpoint directory.
var ErrNoCheckpoints = errors.New("no checkpoint directory is configured; name it with --checkpoint-dir")

// Watcher looks at one agent. LookAgain and Remembered may be called while
// another goroutine uses the rest of it.
type Watcher struct {
	agent Agent
	host  Host

	mu          sync.Mutex   // guards checkpoints and memory
	checkpoints *Checkpoints // nil if there is no directory
	memory      memory

	// loads are the tasks of containers that the agent lists without one.
	loads map[string]Workload
	// grouped says that control groups were found where they were looked for.
	grouped bool
}

// NewWatcher makes one. An empty directory or a nil agent means that there is
// none. File is where it remembers which container named which volume; it is
// read here, and a file that cannot be read is taken for an empty one, which
// the error says: the Watcher is usable all the same. Canonical is that of
// NewCheckpoints.
func NewWatcher(dir string, agent Agent, host Host, file string, canonical func(ledger.Key) ledger.Key) (*Watcher, error) {
	w := &Watcher{agent: agent, host: host, loads: map[string]Workload{}}
	if dir != "" {
		w.checkpoints = NewCheckpoints(dir, canonical)
	}
	var err error
	w.memory, err = loadMemory(file)
	return w, err
}

// identify fills in the tasks of containers that have a checkpoint and are not
// of a command executor: nested ones, mostly. It asks once per container.
func (w *Watcher) identify(ctx context.Context, v *View) error {
	asked := false
	known := map[string]Workload{}
	for _, cp := range v.Checkpoints {
		c, listed := v.Listed[cp.ContainerID]
		if !listed || c.TaskID != "" {
			continue
		}
		load, found := w.loads[cp.ContainerID]
		if !found && !asked {
			asked = true
			list, err := w.agent.Workloads(ctx)
			if err != nil {
				return err
			}
			for _, l := range list {
				for _, id := range l.Containers {
					known[id] = l
				}
			}
		}
		if !found {
			load = known[cp.ContainerID]
			w.loads[cp.ContainerID] = load
		}
		c.TaskID = load.TaskID
		if c.ExecutorID == "" {
			c.ExecutorID, c.FrameworkID = load.ExecutorID, load.FrameworkID
		}
		v.Listed[cp.ContainerID] = c
	}
	for id := range w.loads {
		if _, listed := v.Listed[id]; !listed {
			delete(w.loads, id)
		}
	}
	return nil
}

// Look reads checkpoints and agent. What a container named is remembered, for
// the case that its checkpoint is damaged later.
func (w *Watcher) Look(ctx context.Context) View {
	v := View{AgentErr: ErrNoAgent}
	v.Checkpoints, v.CheckpointsErr = w.LookAgain()
	if w.agent != nil {
		var list []Container
		list, v.AgentErr = w.agent.Containers(ctx)
		if v.AgentErr == nil {
			v.Listed = make(map[string]Container, len(list))
			for _, c := range list {
				v.Listed[c.ID] = c
			}
			// Names are for people; without them the view is as good.
			v.NamesErr = w.identify(ctx, &v)
			if !w.grouped {
				w.grouped, v.GroupsErr = w.host.found(v.Listed)
			}
		}
	}
	return v
}

// LookAgain reads the checkpoints alone, for a decision under a volume's lock:
// the agent's isolator writes a checkpoint before it mounts.
func (w *Watcher) LookAgain() ([]Checkpoint, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.checkpoints == nil {
		return nil, ErrNoCheckpoints
	}
	return w.checkpoints.Read()
}

// Remembered tells what a container named when its checkpoint could be read.
func (w *Watcher) Remembered(containerID string) ([]ledger.Key, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	keys, known := w.memory.names[containerID]
	return keys, known
}

// Remember keeps what the containers of the view named; live says which volumes
// are in the ledger. It forgets containers that are not listed, have no
// checkpoint and named nothing that is live.
func (w *Watcher) Remember(v View, live func(ledger.Key) bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.memory.update(v, live)
}

// Named tells which containers named each volume, now or, where a container's
// checkpoint cannot be read or is gone, before.
func (w *Watcher) Named(v View) map[ledger.Key][]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	named := map[ledger.Key][]string{}
	current := map[string]bool{}
	for _, cp := range v.Checkpoints {
		if cp.Problem != "" {
			continue
		}
		current[cp.ContainerID] = true
		for _, key := range cp.Volumes {
			named[key] = append(named[key], cp.ContainerID)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(w.memory.names)) {
		if current[id] {
			continue
		}
		for _, key := range w.memory.names[id] {
			if !slices.Contains(named[key], id) {
				named[key] = append(named[key], id)
			}
		}
	}
	return named
}

// Dark are the containers whose checkpoint cannot be read and of which nothing
// is remembered: they may have named any volume.
func (w *Watcher) Dark(v View) []Checkpoint {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []Checkpoint
	for _, cp := range v.Checkpoints {
		if _, known := w.memory.names[cp.ContainerID]; cp.Problem != "" && !known {
			out = append(out, cp)
		}
	}
	return out
}

// Proof says of one container whether it is gone.
type Proof struct {
	Gone bool
	// Reason says what shows that it is not, or why it cannot be known.
	Reason string
}

// Prove finds out which of the containers are positively gone: the agent is
// recovered and answers, does not list them, and neither a control group nor a
// process is left of them. An agent that lists nothing at all may just not let
// us see; it is believed only about containers whose end it states, in its
// state or on its disk.
func (w *Watcher) Prove(ctx context.Context, v View, ids []string) map[string]Proof {
	out := make(map[string]Proof, len(ids))
	all := func(reason string) map[string]Proof {
		for _, id := range ids {
			out[id] = Proof{Reason: reason}
		}
		return out
	}
	if v.AgentErr != nil {
		return all(v.AgentErr.Error())
	}
	traces, err := w.host.Traces(ids)
	if err != nil {
		return all(err.Error())
	}
	var ended map[string]bool
	for _, id := range ids {
		if _, listed := v.Listed[id]; listed {
			out[id] = Proof{Reason: "the agent lists it"}
			continue
		}
		if where := traces[id]; where != "" {
			out[id] = Proof{Reason: "it has left " + where}
			continue
		}
		if len(v.Listed) > 0 {
			out[id] = Proof{Gone: true}
			continue
		}
		if ended == nil {
			if ended, err = w.ended(ctx); err != nil {
				return all(err.Error())
			}
		}
		out[id] = w.stated(id, ended)
	}
	return out
}

// stated judges a container by what an agent states that lists none.
func (w *Watcher) stated(id string, ended map[string]bool) Proof {
	if ended[id] {
		return Proof{Gone: true}
	}
	completed, err := w.host.Completed(id)
	switch {
	case err != nil:
		return Proof{Reason: err.Error()}
	case completed:
		return Proof{Gone: true}
	}
	return Proof{Reason: "the agent lists no container at all, which may be for want of rights, and says nowhere that this one has ended"}
}

// ended are the containers of tasks that the agent states to have ended, and of
// none that has not.
func (w *Watcher) ended(ctx context.Context) (map[string]bool, error) {
	list, err := w.agent.Workloads(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, load := range list {
		for _, id := range load.Containers {
			if load.Ended {
				if _, seen := out[id]; !seen {
					out[id] = true
				}
			} else {
				out[id] = false
			}
		}
	}
	return out, nil
}

// InUse tells which volumes a task or executor that has not ended names,
// according to the agent itself, with its id.
func (w *Watcher) InUse(ctx context.Context) (map[ledger.Key]string, error) {
	if w.agent == nil {
		return nil, ErrNoAgent
	}
	list, err := w.agent.Workloads(ctx)
	if err != nil {
		return nil, err
	}
	out := map[ledger.Key]string{}
	for _, load := range list {
		if load.Ended {
			continue
		}
		for _, key := range load.Volumes {
			out[key] = fmt.Sprintf("task %q of framework %s", load.TaskID+executorOnly(load), load.FrameworkID)
		}
	}
	return out, nil
}

func executorOnly(w Workload) string {
	if w.TaskID == "" {
		return w.ExecutorID
	}
	return ""
}

// Describe tells in words what is known of the agent.
func (v View) Describe() string {
	switch {
	case v.AgentErr != nil:
		return v.AgentErr.Error()
	case v.CheckpointsErr != nil && !errors.Is(v.CheckpointsErr, fs.ErrNotExist):
		return v.CheckpointsErr.Error()
	}
	return fmt.Sprintf("it answers and lists %d containers", len(v.Listed))
}
