// Package reaper finds volumes that are mounted for containers which are gone,
// and gives them up. It acts on proof only: whatever cannot be known leaves the
// volume mounted and is told.
package reaper

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/agentstate"
)

// Engine is what the reaper needs of the volume engine.
type Engine interface {
	UnmountIf(context.Context, engine.UnmountRequest, func(*ledger.Record) error) (engine.UnmountResult, error)
}

// Watcher is what the reaper needs to see; see agentstate.Watcher.
type Watcher interface {
	Named(agentstate.View) map[ledger.Key][]string
	Dark(agentstate.View) []agentstate.Checkpoint
	Prove(context.Context, agentstate.View, []string) map[string]agentstate.Proof
	InUse(context.Context) (map[ledger.Key]string, error)
	LookAgain() ([]agentstate.Checkpoint, error)
	Remembered(containerID string) ([]ledger.Key, bool)
}

// Config is what a Reaper works with; all but Log and Fault are required.
type Config struct {
	Engine  Engine
	Watcher Watcher
	Mounts  volume.MountTables
	// Host looks for mounts in other mount namespaces.
	Host agentstate.Host
	// User says which process uses what a record tells of, empty if none does;
	// see fence.Host. Nil: nobody looks.
	User func(context.Context, *ledger.Record) (string, error)
	// AgentHolder says whether a holder's name is, or may be, the agent's; what
	// others hold is never a leak. When it says so of several names, it cannot be
	// told whose containers the agent knows, and nothing is a leak.
	AgentHolder func(name string) bool
	// IsAgent, if not nil, says whether a name is some agent's: that volumes are
	// held by another one than AgentHolder's is told, as it may be a mistake.
	IsAgent func(name string) bool
	// Grace is how long a leak is left alone: the agent may be about to unmount.
	Grace time.Duration
	// SinceBoot is the clock of the grace; it counts suspended time.
	SinceBoot func() (time.Duration, error)
	Log       *zap.Logger
	// Fault, if not nil, is called between steps: tests crash there.
	Fault func(FaultPoint)
}

// FaultPoint is a place between two steps where a crash must leave no harm.
type FaultPoint string

// The fault points.
const (
	FaultLeakFound  FaultPoint = "leak-found"
	FaultLeakLocked FaultPoint = "leak-locked" // under the volume's lock, before the unmount
	FaultLeakDone   FaultPoint = "leak-done"
)

// FaultPoints are all of them.
func FaultPoints() []FaultPoint {
	return []FaultPoint{FaultLeakFound, FaultLeakLocked, FaultLeakDone}
}

// State is what the reaper makes of a volume that the agent holds.
type State string

// The states.
const (
	// Used: a container that named it is, or may be, alive.
	Used State = "used"
	// Leaked: every container that named it is gone.
	Leaked State = "leaked"
	// Unclaimed: nobody is known to have named it, and it cannot be shown that
	// nobody uses it.
	Unclaimed State = "unclaimed"
	// Foreign: it is held by another agent than the one that is looked at, though
	// it seems to be this one's.
	Foreign State = "foreign"
	// Reaped: it was leaked and is given up now.
	Reaped State = "reaped"
)

// Verdict is what was found about one volume.
type Verdict struct {
	Key   ledger.Key
	State State
	// Containers are those that named it.
	Containers []string
	// Gone are those of them that are positively gone.
	Gone []string
	// Reason says why it is not known to be a leak, or what went wrong.
	Reason string
	// Since is how long it has been a leak.
	Since time.Duration
	// After is when to look again; 0: with the next regular look.
	After time.Duration
	// Due says that it has been a leak for longer than the grace: Reap it.
	Due bool

	proofs map[string]agentstate.Proof
	holder string
}

// Reaper finds leaks. Pass is for one goroutine; Reap may be called from several
// at the same time.
type Reaper struct {
	cfg Config
	// since is when, on the clock since boot, a volume was first seen leaked.
	since map[ledger.Key]time.Duration
	// others are the other agents that were told.
	others string
}

// New makes a Reaper. It does no I/O.
func New(cfg Config) *Reaper {
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.Fault == nil {
		cfg.Fault = func(FaultPoint) {}
	}
	return &Reaper{cfg: cfg, since: map[ledger.Key]time.Duration{}}
}

// Pass judges every record that is mounted for the agent and says which leaks
// are older than the grace. It changes nothing.
func (r *Reaper) Pass(ctx context.Context, view agentstate.View, records []ledger.Record) ([]Verdict, error) {
	now, err := r.cfg.SinceBoot()
	if err != nil {
		return nil, err
	}
	verdicts, proofs := r.judge(ctx, view, records)
	leaks := map[ledger.Key]time.Duration{}
	for i := range verdicts {
		v := &verdicts[i]
		if v.State != Leaked {
			continue
		}
		since, known := r.since[v.Key]
		if !known {
			since = now
			r.cfg.Log.Warn("volume leaked: no container that named it is left", zap.String("driver", v.Key.Driver),
				zap.String("volume", v.Key.Volume), zap.Strings("containers", v.Containers), zap.Duration("grace", r.cfg.Grace))
			r.cfg.Fault(FaultLeakFound)
		}
		leaks[v.Key] = since
		v.Since = now - since
		if wait := r.cfg.Grace - v.Since; wait > 0 {
			v.After = wait
			continue
		}
		v.Due, v.proofs, v.holder = true, proofs, holderOf(records, v.Key, r.cfg.AgentHolder)
	}
	r.since = leaks
	return verdicts, nil
}

func holderOf(records []ledger.Record, key ledger.Key, is func(string) bool) string {
	for i := range records {
		if records[i].Key() == key {
			if name := holding(&records[i], is); name != "" {
				return name
			}
		}
	}
	return ""
}

// holding is the first of a record's holders that is what is asked for.
func holding(rec *ledger.Record, is func(string) bool) string {
	for _, h := range rec.Holders {
		if is(h.Name) {
			return h.Name
		}
	}
	return ""
}

// judge makes up the verdicts. Proofs cost a look at every process; they are
// asked for only if a volume could be a leak.
func (r *Reaper) judge(ctx context.Context, view agentstate.View, records []ledger.Record) ([]Verdict, map[string]agentstate.Proof) {
	named := r.cfg.Watcher.Named(view)
	dark := r.cfg.Watcher.Dark(view)
	several := r.severalAgents(records)
	r.tellOthers(records)
	own := slices.ContainsFunc(records, func(rec ledger.Record) bool { return holding(&rec, r.cfg.AgentHolder) != "" })
	var verdicts []Verdict
	var suspects []int
	var ids []string
	for _, rec := range records {
		if rec.Phase != ledger.PhaseMounted || rec.Call != nil {
			continue
		}
		if holding(&rec, r.cfg.AgentHolder) == "" {
			if reason := r.foreign(&rec, !own || listedOne(view, named[rec.Key()]) != ""); reason != "" {
				verdicts = append(verdicts, Verdict{Key: rec.Key(), State: Foreign, Containers: named[rec.Key()], Reason: reason})
			}
			continue
		}
		v := Verdict{Key: rec.Key(), State: Used, Containers: named[rec.Key()]}
		if several != "" {
			v.State, v.Reason = Unclaimed, several
		} else if user := listedOne(view, v.Containers); user == "" {
			suspects = append(suspects, len(verdicts))
			ids = append(ids, v.Containers...)
		}
		verdicts = append(verdicts, v)
	}
	if len(suspects) == 0 {
		return verdicts, nil
	}
	for _, cp := range dark {
		ids = append(ids, cp.ContainerID)
	}
	slices.Sort(ids)
	proofs := r.cfg.Watcher.Prove(ctx, view, slices.Compact(ids))
	c := &court{Reaper: r, ctx: ctx, view: view, dark: dark, proofs: proofs, records: records}
	for _, i := range suspects {
		c.decide(&verdicts[i])
	}
	return verdicts, proofs
}

// tellOthers tells of agents that hold volumes and are not looked at.
func (r *Reaper) tellOthers(records []ledger.Record) {
	if r.cfg.IsAgent == nil {
		return
	}
	var names []string
	for _, rec := range records {
		for _, h := range rec.Holders {
			if r.cfg.IsAgent(h.Name) && !r.cfg.AgentHolder(h.Name) && !slices.Contains(names, h.Name) {
				names = append(names, h.Name)
			}
		}
	}
	slices.Sort(names)
	if all := strings.Join(names, ", "); all != r.others {
		if r.others = all; all != "" {
			r.cfg.Log.Warn("other agents hold volumes; their leaks are not looked for", zap.Strings("holders", names),
				zap.String("see", "--agent-work-dir has to be as the agent was given it"))
		}
	}
}

// foreign says why a volume that the agent does not hold may be the agent's all
// the same, under a name that the bridge was not told; empty if it is not held by
// an agent or nothing speaks for that. Agents may share a run directory: it takes
// a container that this one lists, or that nothing is held by its name at all.
func (r *Reaper) foreign(rec *ledger.Record, likely bool) string {
	if r.cfg.IsAgent == nil || !likely {
		return ""
	}
	other := holding(rec, r.cfg.IsAgent)
	if other == "" {
		return ""
	}
	return "it is held by " + other + ", whose leaks are not looked for; if that is the agent of this bridge, --agent-work-dir has to be as the agent was given it"
}

// severalAgents says why it is not known which holder is the agent; empty if it
// is. A name without a directory is that of a volume that was adopted.
func (r *Reaper) severalAgents(records []ledger.Record) string {
	var names []string
	for _, rec := range records {
		for _, h := range rec.Holders {
			if !strings.HasSuffix(h.Name, ":") && r.cfg.AgentHolder(h.Name) && !slices.Contains(names, h.Name) {
				names = append(names, h.Name)
			}
		}
	}
	if len(names) < 2 {
		return ""
	}
	slices.Sort(names)
	return "several agents hold volumes in this run directory (" + strings.Join(names, ", ") + "); say with --agent-work-dir which one this bridge looks at"
}

// listedOne is a container among the ids that the agent lists.
func listedOne(view agentstate.View, ids []string) string {
	for _, id := range ids {
		if _, ok := view.Listed[id]; ok {
			return id
		}
	}
	return ""
}

// court decides about suspects of one pass.
type court struct {
	*Reaper
	ctx     context.Context
	view    agentstate.View
	dark    []agentstate.Checkpoint
	proofs  map[string]agentstate.Proof
	records []ledger.Record

	// inUse is what the agent's state names; asked once.
	asked    bool
	inUse    map[ledger.Key]string
	inUseErr error
}

func (c *court) decide(v *Verdict) {
	for _, id := range v.Containers {
		p := c.proofs[id]
		if !p.Gone {
			v.Reason = "container " + id + ": " + p.Reason
			return
		}
		v.Gone = append(v.Gone, id)
	}
	if c.view.AgentErr != nil {
		c.unclear(v, c.view.AgentErr.Error())
		return
	}
	if c.view.CheckpointsErr != nil {
		c.unclear(v, c.view.CheckpointsErr.Error())
		return
	}
	for _, cp := range c.dark {
		if p := c.proofs[cp.ContainerID]; !p.Gone {
			c.unclear(v, fmt.Sprintf("container %s may have named it: its checkpoint cannot be used (%s), and %s", cp.ContainerID, cp.Problem, p.Reason))
			return
		}
	}
	user, err := c.user(v.Key)
	switch {
	case err != nil:
		c.unclear(v, err.Error())
	case user != "":
		v.Reason = user + " names it"
	case len(v.Containers) == 0 && len(c.dark) == 0:
		// Without any trace of who it was for, even the directory of the
		// checkpoints may be the wrong one.
		c.unclear(v, "no checkpoint names it; if no task uses it, unmount it with `dvdcli unmount --force`")
	case len(v.Containers) == 0:
		c.decideUnnamed(v)
	default:
		v.State = Leaked
	}
}

// unclear keeps a volume whose users cannot be known.
func (c *court) unclear(v *Verdict, reason string) {
	v.Reason = reason
	if len(v.Containers) == 0 {
		v.State = Unclaimed
	}
}

// user is a task or executor that names the volume according to the agent.
func (c *court) user(key ledger.Key) (string, error) {
	if !c.asked {
		c.asked = true
		c.inUse, c.inUseErr = c.cfg.Watcher.InUse(c.ctx)
	}
	return c.inUse[key], c.inUseErr
}

// decideUnnamed is about a volume of which a checkpoint may have told that is
// damaged now, all of whose candidates are gone: it is a leak if no mount
// namespace has it anywhere else.
func (c *court) decideUnnamed(v *Verdict) {
	i := slices.IndexFunc(c.records, func(rec ledger.Record) bool { return rec.Key() == v.Key })
	rec := c.records[i]
	table, err := c.cfg.Mounts.Own(c.ctx)
	if err != nil {
		c.unclear(v, err.Error())
		return
	}
	mount, stacked := table.At(rec.Resolved)
	if stacked == 0 {
		c.unclear(v, "no checkpoint names it, and it is no mount whose users could be seen")
		return
	}
	where, err := c.cfg.Host.Mounted(rec.Resolved, mount)
	switch {
	case err != nil:
		c.unclear(v, err.Error())
	case where != "":
		c.unclear(v, "it is mounted for "+where)
	default:
		v.State = Leaked
		for _, cp := range c.dark {
			v.Gone = append(v.Gone, cp.ContainerID)
		}
	}
}

// errWanted ends a reaping: the volume is wanted again.
var errWanted = errors.New("a container names it by now")

// Reap gives up a leak that Pass found due, and returns what is to be said of it
// now. The isolator writes its checkpoint before it mounts, so a look at the
// checkpoints under the volume's lock tells whether anybody has come in between:
// a mount that waits for the lock has its checkpoint written. It may be killed
// at any time.
func (r *Reaper) Reap(ctx context.Context, v Verdict) Verdict {
	res, err := r.cfg.Engine.UnmountIf(ctx, engine.UnmountRequest{Driver: v.Key.Driver, Volume: v.Key.Volume,
		Holder: engine.Holder{Name: v.holder}}, func(rec *ledger.Record) error {
		r.cfg.Fault(FaultLeakLocked)
		if err := r.stillLeaked(rec, v); err != nil {
			return err
		}
		return r.unused(ctx, rec)
	})
	r.cfg.Fault(FaultLeakDone)
	v.Due = false
	log := r.cfg.Log.With(zap.String("driver", v.Key.Driver), zap.String("volume", v.Key.Volume), zap.Strings("containers", v.Containers))
	switch {
	case errors.Is(err, errUsed):
		v.Reason = err.Error()
	case errors.Is(err, errWanted):
		v.State, v.Reason = Used, err.Error()
	case err != nil:
		// The engine has written down that the unmount is owed.
		v.Reason = err.Error()
		log.Warn("leaked volume not unmounted yet", zap.Error(err))
	default:
		v.State, v.Reason = Reaped, strings.Join(res.Notes, "; ")
		log.Info("leaked volume given up", zap.Bool("unmounted", res.Unmounted), zap.Strings("heldBy", res.HeldBy))
	}
	return v
}

// errUsed ends a reaping: the container is gone, and somebody else is there.
var errUsed = errors.New("it is left")

// unused takes a last look: a driver that unmounts lazily takes the volume from
// whoever works in it.
func (r *Reaper) unused(ctx context.Context, rec *ledger.Record) error {
	if r.cfg.User == nil {
		return nil
	}
	who, err := r.cfg.User(ctx, rec)
	switch {
	case err != nil:
		return fmt.Errorf("%w: whether somebody uses it cannot be seen: %w", errUsed, err)
	case who != "":
		return fmt.Errorf("%w: no container that named it is left, but %s uses it", errUsed, who)
	}
	return nil
}

func (r *Reaper) stillLeaked(rec *ledger.Record, v Verdict) error {
	if rec == nil || rec.Phase != ledger.PhaseMounted || !rec.HeldBy(v.holder) {
		return errWanted // somebody dealt with it
	}
	checkpoints, err := r.cfg.Watcher.LookAgain()
	if err != nil {
		return err
	}
	for _, cp := range checkpoints {
		if v.proofs[cp.ContainerID].Gone {
			continue
		}
		volumes := cp.Volumes
		if cp.Problem != "" {
			var known bool
			if volumes, known = r.cfg.Watcher.Remembered(cp.ContainerID); !known {
				volumes = []ledger.Key{v.Key}
			}
		}
		if slices.Contains(volumes, v.Key) {
			return fmt.Errorf("container %s: %w", cp.ContainerID, errWanted)
		}
	}
	return nil
}
