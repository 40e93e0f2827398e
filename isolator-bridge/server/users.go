package server

import (
	"context"
	"errors"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume"
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
// has it mounted may be about to use it. seen tells whether there is a mount that
// this was said of.
func (k *keeper) foreign(ctx context.Context, key ledger.Key) (who string, wait time.Duration, seen bool) {
	if k.cfg.Users == nil {
		return "", 0, true
	}
	path, err := k.cfg.Engine.Path(ctx, key.Driver, key.Volume)
	if err != nil {
		k.sighted(key, nil)
		// There is none, or it cannot be asked about yet. Of a driver that tells no
		// paths nothing can be found out: the engine judges.
		return "", 0, errors.Is(err, volume.Unsupported)
	}
	who, err = k.cfg.Users.UserAt(ctx, key.Driver, path)
	switch {
	case err != nil:
		return "whether somebody uses it cannot be seen: " + err.Error(), 0, true
	case who != "":
		k.sighted(key, nil)
		return who + " uses it", 0, true
	}
	table, err := k.cfg.Mounts.Own(ctx)
	if err != nil {
		return err.Error(), 0, true
	}
	mount, _ := table.At(path)
	if wait := k.sighted(key, &mount.ID); wait > 0 {
		return "nobody uses it yet", wait, true
	}
	return "", 0, true
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

// reconcile looks at one volume. A mount that appears where one is looked out for
// is undone, unless somebody uses it: nobody was told the path of ours. Where it
// is one of an earlier boot that is looked out for, what appears may well be
// somebody else's, and is given time.
func (k *keeper) reconcile(ctx context.Context, key ledger.Key) engine.Finding {
	var req engine.ReconcileRequest
	rec, err := k.cfg.Engine.Ledger().Peek(key)
	if err == nil && rec != nil && rec.Phase == ledger.PhaseWatched && rec.Call == nil {
		who, wait, seen := k.foreign(ctx, key)
		req.LeaveAppeared = !seen
		switch {
		case who == "", wait > 0 && !rec.EarlierBoot:
		case wait > 0:
			return engine.Finding{Driver: key.Driver, Volume: key.Volume, State: "a mount appeared where one of an earlier boot is looked out for", After: wait}
		default:
			return engine.Finding{Driver: key.Driver, Volume: key.Volume, State: "looking out for a mount without an answer",
				Problem: "one appeared and is left: " + who, After: k.cfg.FullInterval}
		}
	}
	return k.cfg.Engine.ReconcileOne(ctx, req, key)
}
