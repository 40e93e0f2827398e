package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// recover compares ledger, mount table, plugins and agent when the bridge
// starts: what is half done is adopted or undone, the rest is told. It waits for
// drivers and agent for a while; what is not over then goes on in the background,
// and is added to the report when it is.
func (k *keeper) recover(ctx context.Context) {
	start := time.Now()
	k.setReport(Report{Time: start})
	patience := start.Add(recoveryPatience)
	for _, step := range []func(context.Context){k.recoverLedger, k.recoverEarlierBoot, k.recoverContainers, k.recoverAgent, k.recoverPlugins} {
		step(ctx)
		k.await(ctx, patience)
		k.alive()
	}
	for key := range k.busy {
		k.note(Item{Source: FromLedger, Key: key, Found: "its driver has not answered yet", Problem: "the look at it goes on"})
	}
	k.refresh()
	// What recovery has changed is looked at again with the first regular look.
	k.lastFull = time.Time{}
	r := k.finishReport(time.Since(start), ctx.Err() == nil)
	r.log(k.log)
	if k.cfg.Recovered != nil {
		k.cfg.Recovered(r)
	}
}

// note adds an item to the report. After recovery is over it is told at once.
func (k *keeper) note(i Item) {
	k.mu.Lock()
	k.report.Items = append(k.report.Items, i)
	late := !k.recovering
	k.mu.Unlock()
	if !late {
		return
	}
	i.log(k.log)
	if k.cfg.Recovered != nil {
		k.cfg.Recovered(Report{Items: []Item{i}})
	}
}

func (k *keeper) finishReport(took time.Duration, finished bool) Report {
	k.mu.Lock()
	k.report.Took, k.report.Finished, k.recovering = took, finished, false
	k.mu.Unlock()
	return k.Report()
}

// refresh takes in what recovery has done to the ledger.
func (k *keeper) refresh() {
	items, _, err := k.cache.List()
	if err != nil {
		k.log.Error("ledger not readable", zap.Error(err))
		return
	}
	k.remember(items)
}

const (
	// recoveryPatience is how long recovery waits for drivers that do not answer,
	// stepPatience how long each of its steps may take after that is over.
	recoveryPatience = 30 * time.Second
	stepPatience     = 2 * time.Second
	// volumePatience bounds the work on what an earlier boot left of a volume.
	volumePatience = 30 * time.Second
	// agentPatience bounds the first look at the agent, which may start after the
	// bridge.
	agentPatience = 10 * time.Second
)

// recoverLedger settles and undoes what the ledger shows to be half done, and
// compares the rest with the mount table.
func (k *keeper) recoverLedger(ctx context.Context) {
	items, _, err := k.cache.List()
	if err != nil {
		k.note(Item{Source: FromLedger, Problem: volumeError(err)})
		return
	}
	k.setAside(items)
	for file, f := range k.files {
		k.note(Item{Source: FromLedger, Subject: file, Found: f.State, Done: f.Action, Problem: f.Problem})
	}
	k.look(ctx, allKeys(items))
}

// await takes in results until no work is going on, or patience ends.
func (k *keeper) await(ctx context.Context, patience time.Time) {
	timer := time.NewTimer(max(time.Until(patience), stepPatience))
	defer timer.Stop()
	for len(k.busy) > 0 || k.pending > 0 {
		select {
		case res := <-k.results:
			k.took(ctx, res)
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		}
	}
}

// reportFinding adds what a look at a volume found while recovery goes on.
func (k *keeper) reportFinding(f engine.Finding) {
	k.mu.Lock()
	recovering := k.recovering
	inOrder := f.Action == "" && f.Problem == "" && f.After == 0 && f.State == "mounted"
	if recovering && inOrder {
		k.report.InOrder++
	}
	k.mu.Unlock()
	if !recovering || inOrder || f.State == "" {
		return
	}
	source := FromLedger
	if f.State == "mounted" {
		source = FromMounts
	}
	k.note(Item{Source: source, Key: ledger.Key{Driver: f.Driver, Volume: f.Volume}, Found: f.State, Done: f.Action, Problem: f.Problem})
}

// recoverEarlierBoot gives up what an earlier boot had mounted: no container
// survives a reboot, but plugins such as rclone's mount again what they had. A
// volume that was mounted since has a record of this boot, and is left alone.
func (k *keeper) recoverEarlierBoot(ctx context.Context) {
	items, _, err := k.cache.List()
	if err != nil {
		k.note(Item{Source: FromLedger, Problem: volumeError(err)})
		return
	}
	k.remember(items)
	for _, item := range items {
		rec := item.Record
		if rec == nil || !item.Hint || rec.BootID == k.cfg.Engine.Ledger().BootID() || rec.Phase == ledger.PhaseReleased {
			continue
		}
		if !k.lookAtEarlier(ctx, rec) {
			k.again[rec.Key()] = later{rec, time.Now()}
		}
	}
}

// lookAtEarlier gives up, in the background, what an earlier boot had mounted,
// unless other work on that volume goes on.
func (k *keeper) lookAtEarlier(ctx context.Context, rec *ledger.Record) (begun bool) {
	return k.begin(ctx, rec.Key(), func() result {
		item, wait := k.giveUpEarlier(ctx, rec)
		r := result{key: rec.Key(), items: []Item{item}}
		if wait > 0 {
			r.later = &later{rec, time.Now().Add(wait)}
		}
		return r
	})
}

// giveUpEarlier says for how long to leave alone what is mounted now.
func (k *keeper) giveUpEarlier(ctx context.Context, rec *ledger.Record) (item Item, wait time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, volumePatience)
	defer cancel()
	item = Item{Source: FromLedger, Key: rec.Key(), Found: "it was mounted in an earlier boot"}
	holder := k.cfg.AgentHolder
	if len(rec.Holders) > 0 {
		holder = rec.Holders[0].Name
	}
	if who, wait := k.foreign(ctx, rec.Key()); who != "" {
		item.Found, item.Done = "it was mounted in an earlier boot and is mounted now", "left: "+who
		return item, wait
	}
	res, err := k.cfg.Engine.UnmountIf(ctx, engine.UnmountRequest{Driver: rec.Driver, Volume: rec.Volume,
		Holder: engine.Holder{Name: holder}}, func(current *ledger.Record) error {
		if current != nil {
			return errTaken
		}
		return nil
	})
	switch {
	case errors.Is(err, errTaken):
		item.Done = "left: " + err.Error()
	case err != nil:
		item.Problem = err.Error()
	case res.Unmounted:
		item.Done = "unmounted: its driver had mounted it again"
	default:
		item.Done = "looking out for it: its driver may mount it again"
	}
	return item, 0
}

// recoverContainers undoes preparations of which nobody learned.
func (k *keeper) recoverContainers(ctx context.Context) {
	k.tidying.Store(true)
	k.pending++
	k.workers.Go(func() {
		defer k.tidying.Store(false)
		list, err := k.isolator.Tidy(ctx, true)
		done := result{pending: true}
		if err != nil {
			done.items = append(done.items, Item{Source: FromContainer, Problem: volumeError(err)})
		}
		for _, t := range list {
			if len(t.Volumes) == 0 {
				done.items = append(done.items, Item{Source: FromContainer, Container: t.Container, Found: t.Found})
			}
			for _, v := range t.Volumes {
				done.items = append(done.items, Item{Source: FromContainer, Container: t.Container, Key: v.Key, Found: t.Found, Done: string(v.State), Problem: volumeError(v.Err)})
			}
		}
		k.send(ctx, done)
	})
}

// recoverAgent compares what the agent's containers named with the ledger. An
// agent that does not answer now is compared when it does.
func (k *keeper) recoverAgent(ctx context.Context) {
	k.refresh()
	if k.cfg.Watcher == nil {
		return
	}
	asking, cancel := context.WithTimeout(ctx, agentPatience)
	defer cancel()
	look := k.agentLook()
	look.take(asking, k.cfg.Watcher)
	look.prove(asking, k.cfg.Watcher)
	k.view, k.looked, k.gone = look.view, look.began, look.gone
	if err := k.view.AgentErr; err != nil {
		k.note(Item{Source: FromAgent, Found: "the agent does not tell its containers yet", Problem: err.Error()})
	}
	if err := k.view.CheckpointsErr; err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.note(Item{Source: FromCheckpoint, Found: "no checkpoints", Problem: err.Error()})
	}
	for _, cp := range k.view.Checkpoints {
		if cp.Problem != "" {
			k.note(Item{Source: FromCheckpoint, Container: cp.ContainerID, Found: "a checkpoint that cannot be used: " + cp.Problem,
				Done: "set aside: nothing is concluded from it; volumes that it may name stay mounted while the container may live"})
		}
	}
	k.uncompared = true
	k.compare(ctx)
}

// compare deals, once the agent answers, with volumes that containers named and
// no record is of: made by dvdcli 0.2, or before the ledger was lost. For a living
// container the mount is adopted; for those that are gone it is undone.
func (k *keeper) compare(ctx context.Context) {
	if !k.uncompared || k.view.AgentErr != nil || k.view.CheckpointsErr != nil {
		return
	}
	k.uncompared = false
	gone := k.gone
	for key, ids := range k.cfg.Watcher.Named(k.view) {
		if k.seen[key] != nil {
			continue
		}
		living := slices.ContainsFunc(ids, func(id string) bool { return !gone[id] })
		k.begin(ctx, key, func() result {
			item := Item{Source: FromCheckpoint, Key: key, Container: strings.Join(ids, ",")}
			if living {
				k.adopt(ctx, &item)
			} else {
				k.undo(ctx, &item, gone)
			}
			return result{key: key, items: []Item{item}}
		})
	}
}

func (k *keeper) adopt(ctx context.Context, item *Item) {
	item.Found = "a container that may live named it, and it is not in the ledger"
	res, err := k.cfg.Engine.Adopt(ctx, engine.AdoptRequest{Driver: item.Key.Driver, Volume: item.Key.Volume, Holder: engine.Holder{Name: k.cfg.AgentHolder}})
	switch {
	case err != nil:
		item.Problem = err.Error()
	case res.Adopted:
		item.Done = "adopted the mount at " + res.Path
	case res.Path == "":
		item.Problem = "it is not mounted: the container was about to mount it, or has lost it"
	}
}

func (k *keeper) undo(ctx context.Context, item *Item, gone map[string]bool) {
	item.Found = "only containers that are gone named it, and it is not in the ledger"
	if who, wait := k.foreign(ctx, item.Key); who != "" && wait <= 0 {
		item.Done = "left: " + who
		return
	}
	_, err := k.cfg.Engine.UnmountIf(ctx, engine.UnmountRequest{Driver: item.Key.Driver, Volume: item.Key.Volume,
		Holder: engine.Holder{Name: k.cfg.AgentHolder}}, func(rec *ledger.Record) error {
		if rec != nil {
			return errTaken
		}
		checkpoints, err := k.cfg.Watcher.LookAgain()
		if err != nil {
			return err
		}
		for _, cp := range checkpoints {
			if !gone[cp.ContainerID] && (cp.Problem != "" || slices.Contains(cp.Volumes, item.Key)) {
				return errTaken
			}
		}
		return nil
	})
	switch {
	case errors.Is(err, errTaken):
		item.Done = "left: " + err.Error()
	case err != nil:
		item.Problem = err.Error()
	default:
		item.Done = "given up, if it was mounted"
	}
}

var errTaken = errors.New("a container takes it by now")

// recoverPlugins asks the plugins what they have mounted, all at the same time.
// What is neither in the ledger nor named by anybody is told and left: it may be
// Docker's, or that of another agent on this host.
func (k *keeper) recoverPlugins(ctx context.Context) {
	k.refresh()
	drivers, err := k.cfg.Drivers.List(ctx)
	if err != nil {
		k.note(Item{Source: FromPlugin, Problem: err.Error()})
		return
	}
	table, err := k.cfg.Mounts.Own(ctx)
	if err != nil {
		k.note(Item{Source: FromMounts, Problem: err.Error()})
		return
	}
	seen := map[string]bool{}
	records := k.seen // replaced, never changed
	for _, d := range drivers {
		if seen[d.Name] {
			continue
		}
		seen[d.Name] = true
		if d.Problem != "" {
			k.note(Item{Source: FromPlugin, Subject: d.Name, Found: "a driver that cannot be used", Problem: d.Problem})
			continue
		}
		k.pending++
		k.workers.Go(func() {
			k.send(ctx, result{pending: true, items: k.recoverPlugin(ctx, d.Name, table, records)})
		})
	}
}

// pluginPatience bounds the wait for one plugin at the start.
const pluginPatience = 10 * time.Second

func (k *keeper) recoverPlugin(ctx context.Context, driver string, table volume.MountTable, records map[ledger.Key]*ledger.Record) (items []Item) {
	ctx, cancel := context.WithTimeout(ctx, pluginPatience)
	defer cancel()
	list, err := k.cfg.Engine.List(ctx, driver)
	if errors.Is(err, volume.Unsupported) {
		return nil
	}
	if err != nil {
		return []Item{{Source: FromPlugin, Subject: driver, Found: "a driver that does not answer", Problem: err.Error()}}
	}
	for _, v := range list {
		key := ledger.Key{Driver: driver, Volume: v.Name}
		if v.Mountpoint == "" || records[key] != nil {
			continue
		}
		if _, stacked := table.At(v.Mountpoint); stacked > 0 {
			items = append(items, Item{Source: FromPlugin, Key: key, Found: fmt.Sprintf("it is mounted at %s and this ledger does not know it", v.Mountpoint),
				Done: "left: it may belong to somebody else"})
		}
	}
	k.log.Debug("plugin compared", zap.String("driver", driver), zap.Int("volumes", len(list)))
	return items
}
