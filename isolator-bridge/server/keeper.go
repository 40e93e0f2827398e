package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/agentstate"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/isolator"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/reaper"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/snapshot"
)

// keeper looks at ledger, mount table and agent, again and again, and does what
// is due. In between it looks only at what has changed: on an agent with
// thousands of volumes a look at all of them costs too much to be had often.
type keeper struct {
	cfg      Config
	log      *zap.Logger
	isolator *isolator.Isolator
	hub      *hub
	// stopping is closed when the bridge ends, for streams.
	stopping chan struct{}

	// All below belongs to the goroutine that runs the keeper, except where a
	// mutex says otherwise.
	cache    *ledger.Cache
	seen     map[ledger.Key]*ledger.Record
	findings map[ledger.Key]engine.Finding
	files    map[string]engine.Finding // records that cannot be read
	due      map[ledger.Key]time.Time
	busy     map[ledger.Key]bool // work on it goes on in the background
	// missed are those that were to be looked at while they were busy: what that
	// work saw may be of before.
	missed   map[ledger.Key]bool
	slots    map[string]chan struct{}
	mounts   uint64 // generation of the mount table
	lastFull time.Time
	ticks    int
	leakDue  time.Time // when to look at the agent at the latest
	looking  bool      // a look at it goes on
	// uncompared says that the agent has not been compared with the ledger yet.
	uncompared bool
	pending    int // steps of recovery that go on
	again      map[ledger.Key]later
	dirty      bool // something was found since the last publication
	verdicts   map[ledger.Key]reaper.Verdict
	view       agentstate.View
	looked     time.Time // when the look at the agent began
	agentWas   string
	groupsWere string            // why control groups were not found, as it was logged last
	damaged    map[string]string // checkpoints' problems by container
	gone       map[string]bool   // containers that were proven to be, of those that are named

	// results come from workers, all of which end before the keeper does.
	results chan result
	workers sync.WaitGroup
	tidying atomic.Bool

	// alive is called when progress is made.
	alive func()

	mu         sync.Mutex // guards all below
	report     Report
	recovering bool
	sightings  map[ledger.Key]sighting
	// listing is for the API, which asks at any time.
	listing *ledger.Cache
}

func newKeeper(cfg Config, iso *isolator.Isolator, h *hub, alive func()) *keeper {
	return &keeper{cfg: cfg, log: cfg.Log, isolator: iso, hub: h, alive: alive, recovering: true, sightings: map[ledger.Key]sighting{}, again: map[ledger.Key]later{}, stopping: make(chan struct{}),
		cache: cfg.Engine.Ledger().NewCache(), listing: cfg.Engine.Ledger().NewCache(),
		seen: map[ledger.Key]*ledger.Record{}, findings: map[ledger.Key]engine.Finding{}, files: map[string]engine.Finding{},
		due: map[ledger.Key]time.Time{}, busy: map[ledger.Key]bool{}, missed: map[ledger.Key]bool{}, slots: map[string]chan struct{}{},
		results: make(chan result, 64), verdicts: map[ledger.Key]reaper.Verdict{}}
}

// Report is what recovery found.
func (k *keeper) Report() Report {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.report
	r.Items = slices.Clone(r.Items)
	return r
}

func (k *keeper) setReport(r Report) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.report = r
}

const (
	// shortest bounds how often the ledger is looked at when work is due.
	shortest = 100 * time.Millisecond
	// workersPerDriver bounds how many volumes of a driver are looked at at once.
	workersPerDriver = 8
)

// tick starts what is due and says how long to wait for the next time.
func (k *keeper) tick(ctx context.Context) time.Duration {
	now := time.Now()
	items, changed, err := k.cache.List()
	if err != nil {
		k.log.Error("ledger not readable", zap.Error(err))
		return k.cfg.Interval
	}
	k.setAside(items)
	if full := now.Sub(k.lastFull) >= k.cfg.FullInterval; full {
		k.lastFull = now
		k.look(ctx, allKeys(items))
	} else {
		k.look(ctx, k.changed(ctx, items, changed, now))
	}
	k.remember(items)
	if k.ticks%agentEvery == 0 || !now.Before(k.leakDue) {
		k.lookAtAgent(ctx)
	}
	k.ticks++
	k.lookAgain(ctx, now)
	k.tidy(ctx)
	if changed || k.dirty {
		k.publish()
	}
	return max(min(k.cfg.Interval, k.untilLook()), shortest)
}

// lookAgain looks at what an earlier boot had mounted and is to be looked at again by
// now; what is busy waits for its turn.
func (k *keeper) lookAgain(ctx context.Context, now time.Time) {
	for key, l := range k.again {
		if !now.Before(l.at) && k.lookAtEarlier(ctx, l.rec) {
			delete(k.again, key)
		}
	}
}

// untilLook is how long until the agent has to be looked at.
func (k *keeper) untilLook() time.Duration {
	if k.looking {
		return k.cfg.Interval
	}
	return time.Until(k.leakDue)
}

// agentEvery is how many looks at the ledger come on one at the agent, whose
// answer is large and changes nothing that is urgent.
const agentEvery = 3

// untilDue is how long until a volume has to be looked at again. One that is busy
// counts once that work has ended.
func (k *keeper) untilDue(most time.Duration) time.Duration {
	most = min(most, k.untilLook())
	for key, l := range k.again {
		if !k.busy[key] {
			most = min(most, time.Until(l.at))
		}
	}
	for _, at := range k.due {
		most = min(most, time.Until(at))
	}
	return max(most, shortest)
}

func allKeys(items []ledger.Listed) []ledger.Key {
	var keys []ledger.Key
	for _, item := range items {
		if item.Record != nil {
			keys = append(keys, item.Record.Key())
		}
	}
	return keys
}

// changed are the volumes whose record or mount has changed and those whose time
// has come.
func (k *keeper) changed(ctx context.Context, items []ledger.Listed, listChanged bool, now time.Time) []ledger.Key {
	wanted := map[ledger.Key]bool{}
	for key, at := range k.due {
		if !at.After(now) {
			wanted[key] = true
		}
	}
	if listChanged {
		for _, item := range items {
			if item.Record != nil && !item.Hint && k.seen[item.Record.Key()] != item.Record {
				wanted[item.Record.Key()] = true
			}
		}
	}
	for _, key := range k.moved(ctx) {
		wanted[key] = true
	}
	return slices.Collect(maps.Keys(wanted))
}

// result is what came of a look at a volume.
type result struct {
	key     ledger.Key
	finding engine.Finding
	// verdict is set when a leak was given up instead.
	verdict *reaper.Verdict
	// items is what recovery has to report; pending says that it was a step of
	// recovery, about no single volume.
	items   []Item
	pending bool
	// look is set after a look at the agent.
	look *agentLook
	// later is what an earlier boot had mounted, to be looked at again.
	later *later
}

// later is a record of an earlier boot whose volume is mounted now, and when to
// look at it again.
type later struct {
	rec *ledger.Record
	at  time.Time
}

// look reconciles volumes in the background, each at most once at a time: one that
// is busy is looked at afterwards. A driver that hangs holds up its own volumes only.
func (k *keeper) look(ctx context.Context, keys []ledger.Key) {
	for _, key := range keys {
		begun := k.begin(ctx, key, func() result {
			return result{key: key, finding: k.reconcile(ctx, key)}
		})
		if !begun {
			k.missed[key] = true
		}
	}
}

// begin does work on a volume in the background unless some is going on.
func (k *keeper) begin(ctx context.Context, key ledger.Key, work func() result) (begun bool) {
	if k.busy[key] {
		return false
	}
	k.busy[key] = true
	delete(k.due, key)
	slots := k.slots[key.Driver]
	if slots == nil {
		slots = make(chan struct{}, workersPerDriver)
		k.slots[key.Driver] = slots
	}
	k.workers.Go(func() {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		r := work()
		<-slots
		k.send(ctx, r)
	})
	return true
}

// send hands a result in, from the background.
func (k *keeper) send(ctx context.Context, r result) {
	select {
	case k.results <- r:
	case <-ctx.Done():
	}
}

// took notes what came of work in the background.
func (k *keeper) took(ctx context.Context, r result) {
	for _, i := range r.items {
		k.note(i)
	}
	if r.look != nil {
		k.lookedAtAgent(ctx, r.look)
		return
	}
	if r.pending {
		k.pending--
		return
	}
	delete(k.busy, r.key)
	k.tookVolume(r)
	if k.missed[r.key] {
		delete(k.missed, r.key)
		k.due[r.key] = time.Now()
	}
}

// tookVolume notes what came of work on a volume.
func (k *keeper) tookVolume(r result) {
	if r.later != nil {
		k.again[r.key] = *r.later
	}
	if r.items != nil {
		return
	}
	k.reportFinding(r.finding)
	switch {
	case r.verdict != nil:
		k.judged(*r.verdict)
	case r.finding.State == "": // gone meanwhile
		delete(k.findings, r.key)
	default:
		k.take(r.finding)
	}
}

// setAside moves records out of the way that cannot be read, and tells of them.
func (k *keeper) setAside(items []ledger.Listed) {
	files := map[string]engine.Finding{}
	for _, item := range items {
		if item.Record != nil {
			continue
		}
		f := engine.Finding{File: item.File, State: "cannot be read", Problem: item.Err.Error()}
		// A file that cannot be opened or read, for want of descriptors or rights, may
		// be as good as ever.
		if !ledger.IsNewer(item.Err) && !ledger.IsUnread(item.Err) {
			aside, err := k.cfg.Engine.Ledger().PutAside(item.File)
			switch {
			case ledger.IsLocked(err):
			case err != nil:
				f.Problem = err.Error()
			case aside.File != "":
				f.Action = "set aside as " + aside.File
			}
		}
		if files[item.File] = f; k.files[item.File] != f {
			k.tell(f)
		}
	}
	k.files = files
}

// moved are the mounted volumes for which the mount table has changed.
func (k *keeper) moved(ctx context.Context) []ledger.Key {
	generation, err := k.cfg.Mounts.Generation(ctx)
	if err != nil {
		k.log.Error("mount table not readable", zap.Error(err))
		return nil
	}
	if generation == k.mounts {
		return nil
	}
	k.mounts = generation
	table, err := k.cfg.Mounts.Own(ctx)
	if err != nil {
		k.log.Error("mount table not readable", zap.Error(err))
		return nil
	}
	stacked := make(map[string]int, len(table.Mounts))
	for _, m := range table.Mounts {
		stacked[m.Path]++
	}
	var keys []ledger.Key
	for key, rec := range k.seen {
		if rec.Phase == ledger.PhaseMounted && rec.Kind == ledger.KindMountPoint && stacked[rec.Resolved] != 1 {
			keys = append(keys, key)
		}
	}
	return keys
}

// take notes a finding and tells of it if it is new.
func (k *keeper) take(f engine.Finding) {
	key := ledger.Key{Driver: f.Driver, Volume: f.Volume}
	if f.After > 0 {
		k.due[key] = time.Now().Add(f.After)
	}
	f.After = 0
	was, known := k.findings[key]
	k.findings[key] = f
	if !known || was != f {
		k.dirty = true
		k.tell(f)
		k.announce(key, was, f)
	}
}

// announce tells watchers.
func (k *keeper) announce(key ledger.Key, was, f engine.Finding) {
	message := strings.ToValidUTF8(f.State+": "+f.Problem+f.Action, "\uFFFD")
	containers := containerIDs(k.containersOf(key))
	switch {
	case f.State == "mounted" && f.Problem != "" && was.Problem == "":
		k.hub.tell(client.Event_BROKEN, key, containers, message)
	case f.Action == "unmounted":
		k.hub.tell(client.Event_UNMOUNTED, key, containers, message)
	case f.State == "an unmount is owed" && was.State != f.State:
		k.hub.tell(client.Event_OWED, key, containers, message)
	case strings.HasPrefix(f.Action, "settled"):
		k.hub.tell(client.Event_SETTLED, key, containers, message)
	}
}

// tell logs a finding.
func (k *keeper) tell(f engine.Finding) {
	fields := []zap.Field{zap.String("driver", f.Driver), zap.String("volume", f.Volume), zap.String("state", f.State)}
	if f.File != "" {
		fields = append(fields, zap.String("file", f.File))
	}
	if f.Action != "" {
		fields = append(fields, zap.String("action", f.Action))
	}
	if f.Problem != "" {
		k.log.Warn("volume needs attention", append(fields, zap.String("problem", f.Problem))...)
		return
	}
	if f.Action != "" {
		k.log.Info("volume reconciled", fields...)
		return
	}
	k.log.Debug("volume in order", fields...)
}

// remember keeps the records as they are now, so that changes are noticed.
func (k *keeper) remember(items []ledger.Listed) {
	seen := make(map[ledger.Key]*ledger.Record, len(items))
	for _, item := range items {
		if item.Record != nil && !item.Hint {
			seen[item.Record.Key()] = item.Record
		}
	}
	for key := range k.findings {
		if seen[key] == nil && k.findings[key].State != hintState {
			delete(k.findings, key)
		}
	}
	k.seen = seen
}

// hintState is the engine's word for a record of an earlier boot.
const hintState = "from an earlier boot; the next mount or unmount will deal with it"

// judged notes a verdict and tells of it if it is new.
func (k *keeper) judged(v reaper.Verdict) {
	was := k.verdicts[v.Key]
	if v.Due && was.State == v.State {
		v.Reason = was.Reason // of the last attempt, until the next one is over
	}
	k.verdicts[v.Key] = v
	k.dirty = true
	if v.State == was.State && v.Reason == was.Reason {
		return
	}
	fields := []zap.Field{zap.String("driver", v.Key.Driver), zap.String("volume", v.Key.Volume), zap.String("reason", v.Reason)}
	switch {
	case v.State == reaper.Leaked && was.State != reaper.Leaked:
		k.hub.tell(client.Event_LEAKED, v.Key, v.Containers, v.Reason)
	case v.State == reaper.Reaped:
		k.hub.tell(client.Event_UNMOUNTED, v.Key, v.Containers, v.Reason)
	case v.State == reaper.Unclaimed:
		k.log.Warn("volume of unknown use", fields...)
	case v.Reason != "":
		k.log.Info("volume kept", fields...)
	}
}

// tidy finishes in the background what containers of the API left half done.
func (k *keeper) tidy(ctx context.Context) {
	if !k.tidying.CompareAndSwap(false, true) {
		return
	}
	k.workers.Go(func() {
		defer k.tidying.Store(false)
		if _, err := k.isolator.Tidy(ctx, false); err != nil && ctx.Err() == nil {
			k.log.Warn("containers not tidied up", zap.Error(err))
		}
	})
}

// tellAgent logs when what is known of the agent changes.
func (k *keeper) tellAgent() {
	what := "answers"
	switch {
	case k.view.AgentErr != nil:
		what = k.view.AgentErr.Error()
	case !checkpointsKnown(k.view):
		what = k.view.CheckpointsErr.Error()
	}
	if what == k.agentWas {
		return
	}
	k.agentWas = what
	if what == "answers" {
		k.log.Info("agent answers", zap.Int("containers", len(k.view.Listed)))
		return
	}
	k.log.Warn("agent cannot be looked at; nothing is taken for a leak", zap.String("reason", what))
}

// tellGroups logs that the containers' control groups are not where they are
// looked for, or cannot be listed, once for each reason in turn.
func (k *keeper) tellGroups() {
	err := k.view.GroupsErr
	if err == nil {
		return
	}
	reason := err.Error()
	if errors.Is(err, agentstate.ErrGroupsElsewhere) {
		reason = agentstate.ErrGroupsElsewhere.Error() // whichever container shows it
	}
	if reason == k.groupsWere {
		return
	}
	k.groupsWere = reason
	k.log.Warn("control groups of the agent's containers not found: a fence kills processes one by one, and none that is frozen", zap.Error(err))
}

// tellDamaged logs checkpoints that cannot be used, when they become so.
func (k *keeper) tellDamaged() {
	damaged := map[string]string{}
	for _, cp := range k.view.Checkpoints {
		if cp.Problem == "" {
			continue
		}
		damaged[cp.ContainerID] = cp.Problem
		if k.damaged[cp.ContainerID] != cp.Problem {
			k.log.Warn("a checkpoint that cannot be used", zap.String("container", cp.ContainerID), zap.String("reason", cp.Problem))
		}
	}
	k.damaged = damaged
}

// containersOf are the containers that named a volume, as far as is known.
func (k *keeper) containersOf(key ledger.Key) []snapshot.Container {
	return k.allContainers()[key]
}

func (k *keeper) allContainers() map[ledger.Key][]snapshot.Container {
	out := map[ledger.Key][]snapshot.Container{}
	if k.cfg.Watcher != nil {
		for key, ids := range k.cfg.Watcher.Named(k.view) {
			for _, id := range ids {
				c := k.view.Listed[id]
				out[key] = append(out[key], snapshot.Container{ID: id, FrameworkID: c.FrameworkID, ExecutorID: c.ExecutorID,
					TaskID: c.TaskID, Live: !k.gone[id]})
			}
		}
	}
	for key, rec := range k.seen {
		for _, h := range rec.Holders {
			if id, ok := isolator.ContainerOf(h.Name); ok {
				out[key] = append(out[key], snapshot.Container{ID: id, Live: true})
			}
		}
	}
	return out
}

func containerIDs(list []snapshot.Container) []string {
	var out []string
	for _, c := range list {
		out = append(out, c.ID)
	}
	return out
}

// publish makes what is known available to others.
func (k *keeper) publish() {
	containers := k.allContainers()
	s := snapshot.Snapshot{Time: time.Now(), Looked: k.looked, Volumes: make(map[ledger.Key]snapshot.Volume, len(k.seen)),
		ContainersKnown: k.cfg.Watcher != nil && k.view.AgentErr == nil && checkpointsKnown(k.view), Agent: k.agentWas}
	if k.cfg.Watcher == nil {
		s.Agent = "the bridge was told of no agent"
	}
	for key, rec := range k.seen {
		s.Volumes[key] = snapshot.Volume{Key: key, Record: rec}
	}
	for key := range containers {
		v := s.Volumes[key]
		v.Key, v.Containers = key, containers[key]
		s.Volumes[key] = v
	}
	for key, f := range k.findings {
		if v, ok := s.Volumes[key]; ok {
			v.Problem = f.Problem
			s.Volumes[key] = v
		}
	}
	for key, verdict := range k.verdicts {
		v, ok := s.Volumes[key]
		if !ok {
			continue
		}
		if verdict.State == reaper.Leaked {
			v.Leaked, v.LeakedSince = true, s.Time.Add(-verdict.Since)
		}
		if (verdict.State == reaper.Unclaimed || verdict.State == reaper.Foreign) && v.Problem == "" {
			v.Problem = verdict.Reason
		}
		s.Volumes[key] = v
	}
	k.cfg.Board.Publish(s)
	k.dirty = false
}

// checkpointsKnown: an agent that has never had a container with a volume has
// not made the directory.
func checkpointsKnown(v agentstate.View) bool {
	return v.CheckpointsErr == nil || errors.Is(v.CheckpointsErr, fs.ErrNotExist)
}

// status is the ledger as it is now, with what is known of it.
func (k *keeper) status() ([]*client.VolumeStatus, string, error) {
	s, _ := k.cfg.Board.Current()
	k.mu.Lock()
	items, _, err := k.listing.List()
	k.mu.Unlock()
	if err != nil {
		return nil, "", err
	}
	sinceBoot, err := k.cfg.Engine.Ledger().SinceBoot()
	if err != nil {
		return nil, "", err
	}
	var out []*client.VolumeStatus
	for _, item := range items {
		if item.Record == nil || item.Hint {
			continue
		}
		out = append(out, statusOf(item.Record, s.Volumes[item.Record.Key()], sinceBoot))
	}
	return out, s.Agent, nil
}

func statusOf(rec *ledger.Record, known snapshot.Volume, sinceBoot time.Duration) *client.VolumeStatus {
	v := &client.VolumeStatus{Name: nameOf(rec.Key()), Phase: string(rec.Phase), MountPath: strings.ToValidUTF8(rec.Path, "\uFFFD"),
		Attempts: uint32(rec.Attempts), Problem: strings.ToValidUTF8(known.Problem, "\uFFFD")}
	if !rec.Since.IsZero() {
		v.Since = timestamppb.New(rec.Since)
	}
	for _, h := range rec.Holders {
		v.Holders = append(v.Holders, strings.ToValidUTF8(h.Name, "\uFFFD"))
	}
	for _, c := range known.Containers {
		v.Containers = append(v.Containers, &client.Container{Id: c.ID, FrameworkId: c.FrameworkID, TaskId: c.TaskID, ExecutorId: c.ExecutorID, Live: c.Live})
	}
	if rec.Call != nil {
		v.Call = string(rec.Call.Op)
		v.CallAge = durationpb.New(sinceBoot - rec.Call.StartedBoot)
	}
	if rec.Phase == ledger.PhasePending && v.Problem == "" {
		v.Problem = strings.ToValidUTF8(rec.LastError, "\uFFFD")
	}
	if known.Leaked {
		v.LeakedSince = timestamppb.New(known.LeakedSince)
	}
	return v
}

// volumeError shortens what is said about errors in reports.
func volumeError(err error) string {
	if err == nil {
		return ""
	}
	if kind := volume.KindOf(err); kind != "" {
		return err.Error()
	}
	return fmt.Sprintf("%v", err)
}
