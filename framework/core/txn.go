package core

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/store"
)

// txn collects what a batch of messages changes and what follows from it. The
// state in memory is changed at once; records are encoded at commit.
type txn struct {
	now    time.Time
	dirty  map[recordKey]any // nil: delete
	calls  []call
	asides []call
	events []BusEvent
	// shown are the apps whose views may have changed, true for those that were
	// defined anew: whoever did that asks for them next.
	shown map[app.ID]bool
	// fatal stops the core before anything of this transaction is committed.
	fatal error
	c     *Core
}

type recordKey struct{ kind, key string }

func newTxn(c *Core, now time.Time) *txn {
	return &txn{now: now, dirty: map[recordKey]any{}, shown: map[app.ID]bool{}, c: c}
}

// commit makes the transaction durable.
func (c *Core) commit(tx *txn) error {
	writes, err := tx.writes()
	if err != nil {
		return err
	}
	if len(writes) == 0 {
		return nil
	}
	if err := c.store.Commit(writes); err != nil {
		return fmt.Errorf("commit the framework's state: %w", err)
	}
	return nil
}

func (tx *txn) writes() ([]store.Write, error) {
	writes := make([]store.Write, 0, len(tx.dirty))
	for k, record := range tx.dirty {
		w := store.Write{Kind: k.kind, Key: k.key}
		if record != nil {
			value, err := json.Marshal(record)
			if err != nil {
				return nil, fmt.Errorf("encode %s %q: %w", k.kind, k.key, err)
			}
			w.Value = value
		}
		writes = append(writes, w)
	}
	return writes, nil
}

func (tx *txn) put(kind, key string, record any) { tx.dirty[recordKey{kind, key}] = record }
func (tx *txn) remove(kind, key string)          { tx.dirty[recordKey{kind, key}] = nil }

// call has the master called once the transaction is committed.
func (tx *txn) call(c call) { tx.calls = append(tx.calls, c) }

// publish puts an event on the bus once the transaction is committed.
func (tx *txn) publish(ev BusEvent) { tx.events = append(tx.events, ev) }

// changed notes that the view of an app may be another than before.
func (tx *txn) changed(id app.ID) {
	if !tx.shown[id] {
		tx.shown[id] = false
	}
}

func (tx *txn) saveMeta() { tx.put(kindMeta, metaKey, &tx.c.state.meta) }

func (tx *txn) saveApp(r *appRecord) {
	if !slices.Contains(tx.c.link.roles, roleOf(r.App, tx.c.cfg.DefaultRole)) {
		tx.c.rolesStale = true // one that nobody needs any more is given up by the next tick
	}
	if len(tx.c.cfg.Adopt) > 0 && r.App.Resident() {
		// The offers of its volumes may have been declined before.
		tx.c.flow.relook = true
		tx.c.flow.wantRevive()
	}
	tx.c.state.apps[r.App.ID] = r
	tx.changed(r.App.ID)
	tx.put(kindApp, string(r.App.ID), r)
}

// saveVersion keeps a definition under its version and drops the oldest beyond
// the limit, except those that instances run.
func (tx *txn) saveVersion(a *app.App) {
	s := tx.c.state
	s.indexVersion(a)
	tx.shown[a.ID] = true
	tx.put(kindVersion, versionKey(a.ID, a.Version), a)
	versions := s.sortedVersions(a.ID)
	if len(versions) <= tx.c.cfg.MaxVersions {
		return
	}
	inUse := map[app.Timestamp]bool{a.Version: true}
	for _, i := range s.byApp[a.ID] {
		inUse[i.Version] = true
	}
	for _, v := range versions[tx.c.cfg.MaxVersions:] {
		if !inUse[v] {
			delete(s.versions[a.ID], v)
			tx.remove(kindVersion, versionKey(a.ID, v))
		}
	}
}

// sortedVersions returns the versions kept of an app, newest first.
func (s *state) sortedVersions(id app.ID) []app.Timestamp {
	var out []app.Timestamp
	for v := range s.versions[id] {
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b app.Timestamp) int { return b.Compare(a) })
	return out
}

// removeApp forgets an app with its versions. Claims on its volumes stay; those
// whose class says so are to be removed.
func (tx *txn) removeApp(id app.ID) {
	tx.c.rolesStale = true
	s := tx.c.state
	delete(s.apps, id)
	tx.changed(id)
	delete(tx.c.flow.counts, id)
	tx.remove(kindApp, string(id))
	for v := range s.versions[id] {
		tx.remove(kindVersion, versionKey(id, v))
	}
	delete(s.versions, id)
	tx.c.reclaimApp(tx, id)
}

func (tx *txn) saveInstance(i *instance) {
	tx.c.checksStale = true
	tx.c.state.indexInstance(i)
	tx.changed(i.App)
	tx.put(kindInstance, i.ID, i)
}

func (tx *txn) removeInstance(i *instance) {
	tx.c.checksStale = true
	s := tx.c.state
	delete(s.instances, i.ID)
	delete(s.forgotten, i.ID)
	tx.changed(i.App)
	delete(s.byApp[i.App], i.ID)
	if len(s.byApp[i.App]) == 0 {
		delete(s.byApp, i.App)
	}
	tx.remove(kindInstance, i.ID)
	tx.c.touch(i.App)
	tx.c.flow.forget(i.ID)
	if i.Task != nil {
		delete(tx.c.readiness, i.Task.ID)
	}
}

func (tx *txn) saveDeployment(d *deployment) {
	tx.c.checksStale = true
	tx.c.state.indexDeployment(d)
	for id := range d.Changes {
		tx.changed(id)
	}
	tx.put(kindDeployment, d.ID, d)
}

func (tx *txn) removeDeployment(d *deployment) {
	tx.c.checksStale = true
	s := tx.c.state
	delete(s.deployments, d.ID)
	for id := range d.Changes {
		if s.locks[id] == d {
			delete(s.locks, id)
		}
		tx.changed(id)
		tx.c.touch(id)
	}
	tx.remove(kindDeployment, d.ID)
}

func (tx *txn) saveVolume(v *volumeRecord) {
	tx.c.state.volumes[v.Key] = v
	tx.put(kindVolume, volumeStoreKey(v.Key), v)
}
