package core

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/store"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// Restored tells what Restore did.
type Restored struct {
	Apps      int
	Instances int
	// Kept are volumes that the backup does not know, or knows less of than the
	// state that it replaces: what was known of them stays.
	Kept []scheduler.VolumeKey
	// FrameworkID is the id with which the framework goes on, and Left, if not
	// empty, another one that the replaced state had and that has nothing to do
	// with it.
	FrameworkID, Left string
}

// incarnationGap is added to an instance's count of launches, so that no task id
// is given again that the lost state may have given after the backup.
const incarnationGap = 1 << 20

// Restore replaces the state in st by the records of a backup, in one commit.
// What the state knows of volumes and the backup does not is kept: of each
// volume the record with the higher epoch counts. A core that runs on the
// result starts nothing on exclusive volumes before it has heard of tasks that
// the backup does not know (Config.RestoreHold), and destroys nothing that it
// does not know. A state that was begun without the backup's, as after that was
// lost, is replaced while it has no tasks, and refused otherwise: under its
// framework id nothing would be heard of the backup's tasks, and under theirs
// nothing of its own. The store must not be in use by a running core.
func Restore(st store.Store, backup []store.Write, now time.Time) (Restored, error) {
	before, s, err := loadRestore(st, backup)
	if err != nil {
		return Restored{}, err
	}
	begunAnew := s.begunAnew(before)
	tx := &txn{now: now, dirty: map[recordKey]any{}}
	err = st.Load(func(kind, key string, _ []byte) error {
		tx.remove(kind, key)
		return nil
	})
	if err != nil {
		return Restored{}, fmt.Errorf("load the state that is to be replaced: %w", err)
	}
	report := Restored{Apps: len(s.apps), Instances: len(s.instances), Kept: s.keepVolumes(before, begunAnew)}
	if begunAnew {
		report.Left = before.meta.FrameworkID
	}
	s.restoreMeta(before, begunAnew, now)
	report.FrameworkID = s.meta.FrameworkID
	for _, i := range s.instances {
		i.Incarnation += incarnationGap
	}
	s.disownHolders()
	s.forgetReclaims()
	s.putAll(tx)
	writes, err := tx.writes()
	if err != nil {
		return Restored{}, err
	}
	if err := st.Commit(writes); err != nil {
		return Restored{}, fmt.Errorf("commit the restored state: %w", err)
	}
	return report, nil
}

// CheckRestore fails where Restore would refuse to replace the records of before,
// none of which there may be, by those of a backup.
func CheckRestore(before, backup []store.Write) error {
	_, _, err := loadRestore(records(before), backup)
	return err
}

// loadRestore reads the state that is to be replaced and the one that replaces it.
func loadRestore(st source, backup []store.Write) (before, s *state, err error) {
	if before, err = loadState(st); err != nil {
		return nil, nil, fmt.Errorf("load the state that is to be replaced: %w", err)
	}
	if s, err = loadState(records(backup)); err != nil {
		return nil, nil, fmt.Errorf("read the backup: %w", err)
	}
	if tasks := before.tasks(); s.begunAnew(before) && tasks > 0 {
		return nil, nil, fmt.Errorf("the state that is to be replaced is that of framework %s, which has %d tasks and does not come from framework %s of the backup; "+
			"nothing was changed; remove it first, as far as its apps are not needed (dvdi-framework teardown --delete-state)",
			before.meta.FrameworkID, tasks, s.meta.FrameworkID)
	}
	return before, s, nil
}

// records is a list of records in the place of a store.
type records []store.Write

func (r records) Load(fn func(kind, key string, value []byte) error) error {
	for _, w := range r {
		if err := fn(w.Kind, w.Key, w.Value); err != nil {
			return err
		}
	}
	return nil
}

// begunAnew says that the state before has a framework id that has nothing to do
// with the backup's: neither took the other's place.
func (s *state) begunAnew(before *state) bool {
	id, other := s.meta.FrameworkID, before.meta.FrameworkID
	return id != "" && other != "" && id != other &&
		!slices.Contains(before.meta.FormerIDs, id) && !slices.Contains(s.meta.FormerIDs, other)
}

// tasks counts the instances that have a task.
func (s *state) tasks() (n int) {
	for _, i := range s.instances {
		if i.Task != nil {
			n++
		}
	}
	return n
}

// keepVolumes takes over what the replaced state knows better of volumes. One
// that was begun anew knows nothing of the backup's claims, however high its
// epochs are.
func (s *state) keepVolumes(before *state, begunAnew bool) []scheduler.VolumeKey {
	var kept []scheduler.VolumeKey
	for _, v := range before.sortedVolumes() {
		old := s.volumes[v.Key]
		switch {
		case old != nil && begunAnew && old.Claim != nil:
			old.Epoch = max(old.Epoch, v.Epoch)
		case old == nil || old.Epoch <= v.Epoch:
			if old == nil || old.Epoch < v.Epoch {
				kept = append(kept, v.Key)
			}
			s.volumes[v.Key] = v
		}
	}
	return kept
}

// restoreMeta keeps the registration that is newer: the replaced state's, unless
// the backup's took its place or that was begun anew.
func (s *state) restoreMeta(before *state, begunAnew bool, now time.Time) {
	id := before.meta.FrameworkID
	newer := id != "" && id != s.meta.FrameworkID && !begunAnew && !slices.Contains(s.meta.FormerIDs, id)
	for _, former := range before.meta.FormerIDs {
		s.meta.formerly(former)
	}
	if newer {
		id, s.meta.FrameworkID = s.meta.FrameworkID, id
	}
	if id != s.meta.FrameworkID {
		s.meta.formerly(id)
	}
	s.meta.Sequence = max(s.meta.Sequence, before.meta.Sequence)
	s.meta.RestoredAt, s.meta.Unsettled = now, true
}

// disownHolders takes out of the claims what the backup's instances do not hold:
// the claims stay with their agents.
func (s *state) disownHolders() {
	for _, v := range s.volumes {
		if v.Claim == nil {
			continue
		}
		held := v.Claim
		held.Holders = slices.DeleteFunc(slices.Clone(held.Holders), func(id string) bool {
			i := s.instances[id]
			return i == nil || i.Task == nil || i.Task.AgentID != held.AgentID || !slices.Contains(i.Task.Volumes, v.Key)
		})
		held.Used = true
	}
}

// putAll writes every record.
func (s *state) putAll(tx *txn) {
	tx.put(kindMeta, metaKey, &s.meta)
	for id, r := range s.apps {
		tx.put(kindApp, string(id), r)
	}
	for id, versions := range s.versions {
		for v, a := range versions {
			tx.put(kindVersion, versionKey(id, v), a)
		}
	}
	for id, i := range s.instances {
		tx.put(kindInstance, id, i)
	}
	for id, d := range s.deployments {
		tx.put(kindDeployment, id, d)
	}
	for key, v := range s.volumes {
		tx.put(kindVolume, volumeStoreKey(key), v)
	}
}

// restored tells whether the state came from a backup so lately that tasks may
// run that it does not know.
func (c *Core) restored() bool { return c.state.meta.Unsettled }

// holdUntil is when instances of a definition may be launched, as far as that
// depends on the restoration of a backup; zero means now.
func (c *Core) holdUntil(def *app.App) time.Time {
	if !c.restored() || !c.bindsVolume(def) {
		return time.Time{}
	}
	until := c.link.since.Add(c.cfg.RestoreHold)
	if now := time.Now(); !now.Before(until) {
		return now.Add(c.cfg.Tick) // until the master has told of the unreachable tasks
	}
	return until
}

// tickHold ends the caution after a restoration.
func (c *Core) tickHold(tx *txn) {
	if c.restored() && !tx.now.Before(c.link.since.Add(c.cfg.RestoreHold)) {
		c.askUnreachable(tx)
	}
}

// askUnreachable has the master tell of the tasks that are cut off, which may be
// unknown to the backup and write to a volume all the same. The caution ends only
// with the answer.
func (c *Core) askUnreachable(tx *txn) {
	if c.link.asking {
		return
	}
	c.link.asking = true
	var tasks []Status
	tx.call(call{
		make: func(ctx context.Context) (err error) {
			tasks, err = c.mesos.UnreachableTasks(ctx)
			return err
		},
		done: func(tx *txn, err error) {
			c.link.asking = false
			if err != nil {
				c.log.Warn("cannot ask the master for tasks on unreachable agents; volumes are not used before, "+
					"as the restored backup may not know who has them", zap.Error(err))
				return
			}
			for _, s := range tasks {
				c.handleStatus(tx, s)
			}
			c.endHold(tx)
		},
	})
}

func (c *Core) endHold(tx *txn) {
	c.log.Info("tasks that the restored backup does not know should have shown up by now; volumes are used again",
		zap.Time("restored", c.state.meta.RestoredAt))
	c.state.meta.Unsettled = false
	tx.saveMeta()
	c.flow.wantRevive()
}

// exclusiveVolumes are the volumes that a task may have mounted under any known
// definition of its app, which its id names, and that are bound to one agent;
// known tells whether there is such an app. Of an instance that is not known any
// ordinal is possible.
func (c *Core) exclusiveVolumes(taskID string) (id app.ID, requests []scheduler.VolumeRequest, known bool) {
	path, _, _ := strings.Cut(taskID, instanceMark)
	found := map[scheduler.VolumeKey]scheduler.VolumeRequest{}
	for candidate, versions := range c.state.versions {
		if candidate.SafePath() != path {
			continue
		}
		id, known = candidate, true
		for _, def := range versions {
			for _, ordinal := range c.possibleOrdinals(taskID, def) {
				for _, r := range c.volumeRequests(def.ForInstance(ordinal)) {
					if r.Exclusive() {
						found[r.Key] = r
					}
				}
			}
		}
	}
	requests = slices.SortedFunc(maps.Values(found), func(a, b scheduler.VolumeRequest) int {
		return compareVolumes(a.Key, b.Key)
	})
	return id, requests, known
}

func (c *Core) possibleOrdinals(taskID string, def *app.App) []int {
	if id, ok := instanceOfTask(taskID); ok && c.state.instances[id] != nil {
		return []int{c.state.instances[id].Ordinal}
	}
	ordinals := []int{0}
	for n := 1; n < def.Instances; n++ {
		ordinals = append(ordinals, n)
	}
	return ordinals
}
