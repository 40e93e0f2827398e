package server

import (
	"context"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// sighting is a mount that this ledger did not make.
type sighting struct {
	// mount is the id of the mount, 0 for a plain directory; since when it was
	// seen.
	mount int
	since time.Time
}

// foreign looks for a mount of a volume that this ledger did not make. Its driver
// may have made it again by itself, or for Docker, or for whoever else keeps no
// ledger. who says why it is to be left alone, for good or as long as wait: who
// has it mounted may be about to use it.
func (k *keeper) foreign(ctx context.Context, key ledger.Key) (who string, wait time.Duration) {
	if k.cfg.Users == nil {
		return "", 0
	}
	path, err := k.cfg.Engine.Path(ctx, key.Driver, key.Volume)
	if err != nil {
		k.sighted(key, nil)
		return "", 0 // then nothing will be unmounted either
	}
	return k.foreignAt(ctx, key, path)
}

// foreignAt is foreign for a mount that is there.
func (k *keeper) foreignAt(ctx context.Context, key ledger.Key, path string) (who string, wait time.Duration) {
	who, err := k.cfg.Users.UserAt(ctx, key.Driver, path)
	switch {
	case err != nil:
		return "whether somebody uses it cannot be seen: " + err.Error(), 0
	case who != "":
		k.sighted(key, nil)
		return who + " uses it", 0
	}
	table, err := k.cfg.Mounts.Own(ctx)
	if err != nil {
		return err.Error(), 0
	}
	mount, _ := table.At(path)
	if wait := k.sighted(key, &mount.ID); wait > 0 {
		return "nobody uses it yet", wait
	}
	return "", 0
}

// sighted notes that a mount is there, or none, and says how long it is still to
// be left alone.
func (k *keeper) sighted(key ledger.Key, mount *int) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	if mount == nil {
		delete(k.sightings, key)
		return 0
	}
	s, known := k.sightings[key]
	if !known || s.mount != *mount {
		s = sighting{*mount, time.Now()}
		k.sightings[key] = s
	}
	return k.cfg.Grace - time.Since(s.since)
}

func (k *keeper) hasSighting(key ledger.Key) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, known := k.sightings[key]
	return known
}

// watched says that a mount of the volume is looked out for.
func (k *keeper) watched(key ledger.Key) bool {
	rec, err := k.cfg.Engine.Ledger().Peek(key)
	return err == nil && rec != nil && rec.Phase == ledger.PhaseWatched
}

// reconcile looks at one volume. A mount that appears where one is looked out for
// is undone, unless somebody uses it: nobody was told the path of ours. Where it
// is one of an earlier boot that is looked out for, what appears may well be
// somebody else's, and is given time.
func (k *keeper) reconcile(ctx context.Context, key ledger.Key) engine.Finding {
	if k.cfg.Users == nil {
		return k.cfg.Engine.ReconcileOne(ctx, engine.ReconcileRequest{}, key)
	}
	watched := k.hasSighting(key) && k.watched(key)
	appeared := false
	f := k.cfg.Engine.ReconcileOne(ctx, engine.ReconcileRequest{
		Appeared: func(ctx context.Context, rec *ledger.Record, path string) (string, time.Duration) {
			appeared = true
			who, wait := k.foreignAt(ctx, key, path)
			switch {
			case wait > 0 && rec.EarlierBoot:
				return "", wait
			case wait > 0, who == "":
				return "", 0
			}
			return who, k.cfg.FullInterval
		},
	}, key)
	if watched && !appeared {
		k.sighted(key, nil) // the next one to appear has its own time
	}
	return f
}
