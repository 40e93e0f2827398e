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
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/agentstate"
)

// recover compares ledger, mount table, plugins and agent when the bridge
// starts: what is half done is adopted or undone, the rest is told.
func (k *keeper) recover(ctx context.Context) {
	start := time.Now()
	r := &Report{Time: start}
	k.setReport(*r)
	k.recoverLedger(ctx, r)
	k.recoverEarlierBoot(ctx, r)
	k.recoverContainers(ctx, r)
	k.recoverAgent(ctx, r)
	k.refresh()
	k.recoverPlugins(ctx, r)
	// What recovery has changed is looked at again with the first regular look.
	k.lastFull = time.Time{}
	r.Took, r.Finished = time.Since(start), ctx.Err() == nil
	r.log(k.log)
	k.setReport(*r)
	if k.cfg.Recovered != nil {
		k.cfg.Recovered(*r)
	}
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

// ledgerPatience is how long recovery waits for volumes whose driver does not
// answer; work on them goes on afterwards.
const ledgerPatience = 30 * time.Second

// recoverLedger settles and undoes what the ledger shows to be half done, and
// compares the rest with the mount table.
func (k *keeper) recoverLedger(ctx context.Context, r *Report) {
	items, _, err := k.cache.List()
	if err != nil {
		r.add(Item{Source: FromLedger, Problem: volumeError(err)})
		return
	}
	k.setAside(items)
	for file, f := range k.files {
		r.add(Item{Source: FromLedger, Subject: file, Found: f.State, Done: f.Action, Problem: f.Problem})
	}
	k.look(ctx, allKeys(items))
	k.await(ctx, r)
	for key := range k.busy {
		r.add(Item{Source: FromLedger, Key: key, Found: "its driver has not answered yet", Problem: "the look at it goes on"})
	}
	if items, _, err = k.cache.List(); err != nil {
		r.add(Item{Source: FromLedger, Problem: volumeError(err)})
		return
	}
	k.remember(items)
}

// await takes in results until no work is going on, or patience ends.
func (k *keeper) await(ctx context.Context, r *Report) {
	timer := time.NewTimer(ledgerPatience)
	defer timer.Stop()
	for len(k.busy) > 0 {
		select {
		case res := <-k.results:
			k.took(res)
			k.reportFinding(r, res.finding)
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		}
	}
}

func (k *keeper) reportFinding(r *Report, f engine.Finding) {
	if f.State == "" {
		return
	}
	if f.Action == "" && f.Problem == "" && f.After == 0 && f.State == "mounted" {
		r.InOrder++
		return
	}
	source := FromLedger
	if f.State == "mounted" {
		source = FromMounts
	}
	r.add(Item{Source: source, Key: ledger.Key{Driver: f.Driver, Volume: f.Volume}, Found: f.State, Done: f.Action, Problem: f.Problem})
}

// recoverEarlierBoot gives up what an earlier boot had mounted: no container
// survives a reboot, but plugins such as rclone's mount again what they had. A
// volume that was mounted since has a record of this boot, and is left alone.
func (k *keeper) recoverEarlierBoot(ctx context.Context, r *Report) {
	items, _, err := k.cache.List()
	if err != nil {
		r.add(Item{Source: FromLedger, Problem: volumeError(err)})
		return
	}
	var wg sync.WaitGroup
	var mu sync.Mutex // guards r
	for _, item := range items {
		if item.Record == nil || !item.Hint || item.Record.BootID == k.cfg.Engine.Ledger().BootID() || item.Record.Phase == ledger.PhaseReleased {
			continue
		}
		wg.Go(func() {
			found := k.giveUpEarlier(ctx, item.Record)
			mu.Lock()
			defer mu.Unlock()
			r.add(found)
		})
	}
	wg.Wait()
}

func (k *keeper) giveUpEarlier(ctx context.Context, rec *ledger.Record) Item {
	ctx, cancel := context.WithTimeout(ctx, ledgerPatience)
	defer cancel()
	item := Item{Source: FromLedger, Key: rec.Key(), Found: "it was mounted in an earlier boot"}
	holder := k.cfg.AgentHolder
	if len(rec.Holders) > 0 {
		holder = rec.Holders[0].Name
	}
	if who := k.foreignUser(ctx, rec.Key()); who != "" {
		item.Found, item.Done = "it was mounted in an earlier boot and is mounted now", "left: "+who
		return item
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
	return item
}

// recoverContainers undoes preparations of which nobody learned.
func (k *keeper) recoverContainers(ctx context.Context, r *Report) {
	list, err := k.isolator.Tidy(ctx, true)
	if err != nil {
		r.add(Item{Source: FromContainer, Problem: volumeError(err)})
	}
	for _, t := range list {
		if len(t.Volumes) == 0 {
			r.add(Item{Source: FromContainer, Container: t.Container, Found: t.Found})
		}
		for _, v := range t.Volumes {
			r.add(Item{Source: FromContainer, Container: t.Container, Key: v.Key, Found: t.Found, Done: string(v.State), Problem: volumeError(v.Err)})
		}
	}
}

// recoverAgent compares what the agent's containers named with the ledger.
func (k *keeper) recoverAgent(ctx context.Context, r *Report) {
	if k.cfg.Watcher == nil {
		return
	}
	k.view = k.cfg.Watcher.Look(ctx)
	if err := k.view.AgentErr; err != nil {
		r.add(Item{Source: FromAgent, Found: "the agent does not tell its containers", Problem: err.Error()})
	}
	if err := k.view.CheckpointsErr; err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.add(Item{Source: FromCheckpoint, Found: "no checkpoints", Problem: err.Error()})
	}
	for _, cp := range k.view.Checkpoints {
		if cp.Problem != "" {
			r.add(Item{Source: FromCheckpoint, Container: cp.ContainerID, Found: "a checkpoint that cannot be used: " + cp.Problem,
				Done: "set aside: nothing is concluded from it; volumes that it may name stay mounted while the container may live"})
		}
	}
	if k.view.AgentErr != nil || k.view.CheckpointsErr != nil {
		return
	}
	named := k.cfg.Watcher.Named(k.view)
	keys := slices.SortedFunc(maps.Keys(named), func(a, b ledger.Key) int {
		return strings.Compare(a.Driver+"\x00"+a.Volume, b.Driver+"\x00"+b.Volume)
	})
	var unrecorded []ledger.Key
	for _, key := range keys {
		if rec := k.seen[key]; rec == nil {
			unrecorded = append(unrecorded, key)
		}
	}
	k.unrecorded(ctx, r, named, unrecorded)
}

// unrecorded deals with volumes that containers named and no record is of: made
// by dvdcli 0.2, or before the ledger was lost. For a living container the mount
// is adopted; for those that are gone it is undone.
func (k *keeper) unrecorded(ctx context.Context, r *Report, named map[ledger.Key][]string, keys []ledger.Key) {
	var ids []string
	for _, key := range keys {
		ids = append(ids, named[key]...)
	}
	if len(ids) == 0 {
		return
	}
	slices.Sort(ids)
	proofs := k.cfg.Watcher.Prove(ctx, k.view, slices.Compact(ids))
	for _, key := range keys {
		living := slices.ContainsFunc(named[key], func(id string) bool { return !proofs[id].Gone })
		item := Item{Source: FromCheckpoint, Key: key, Container: strings.Join(named[key], ",")}
		if living {
			k.adopt(ctx, &item)
		} else {
			k.undo(ctx, &item, proofs)
		}
		r.add(item)
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

func (k *keeper) undo(ctx context.Context, item *Item, proofs map[string]agentstate.Proof) {
	item.Found = "only containers that are gone named it, and it is not in the ledger"
	if who := k.foreignUser(ctx, item.Key); who != "" {
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
			if !proofs[cp.ContainerID].Gone && (cp.Problem != "" || slices.Contains(cp.Volumes, item.Key)) {
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

// recoverPlugins asks the plugins what they have mounted. What is neither in the
// ledger nor named by anybody is told and left: it may be Docker's, or that of
// another agent on this host.
func (k *keeper) recoverPlugins(ctx context.Context, r *Report) {
	drivers, err := k.cfg.Drivers.List(ctx)
	if err != nil {
		r.add(Item{Source: FromPlugin, Problem: err.Error()})
		return
	}
	table, err := k.cfg.Mounts.Own(ctx)
	if err != nil {
		r.add(Item{Source: FromMounts, Problem: err.Error()})
		return
	}
	seen := map[string]bool{}
	for _, d := range drivers {
		if seen[d.Name] {
			continue
		}
		seen[d.Name] = true
		if d.Problem != "" {
			r.add(Item{Source: FromPlugin, Subject: d.Name, Found: "a driver that cannot be used", Problem: d.Problem})
			continue
		}
		k.recoverPlugin(ctx, r, d.Name, table)
	}
}

// pluginPatience bounds the wait for one plugin at the start.
const pluginPatience = 10 * time.Second

func (k *keeper) recoverPlugin(ctx context.Context, r *Report, driver string, table volume.MountTable) {
	ctx, cancel := context.WithTimeout(ctx, pluginPatience)
	defer cancel()
	list, err := k.cfg.Engine.List(ctx, driver)
	if errors.Is(err, volume.Unsupported) {
		return
	}
	if err != nil {
		r.add(Item{Source: FromPlugin, Subject: driver, Found: "a driver that does not answer", Problem: err.Error()})
		return
	}
	for _, v := range list {
		key := ledger.Key{Driver: driver, Volume: v.Name}
		if v.Mountpoint == "" || k.seen[key] != nil {
			continue
		}
		if _, stacked := table.At(v.Mountpoint); stacked > 0 {
			r.add(Item{Source: FromPlugin, Key: key, Found: fmt.Sprintf("it is mounted at %s and this ledger does not know it", v.Mountpoint),
				Done: "left: it may belong to somebody else"})
		}
	}
	k.log.Debug("plugin compared", zap.String("driver", driver), zap.Int("volumes", len(list)))
}
