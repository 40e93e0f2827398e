package server

import (
	"context"

	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// foreignUser says who uses a volume that this ledger did not mount; empty if
// nobody does, or if it is not mounted. Its driver may have mounted it for Docker,
// or for whoever else keeps no ledger.
func (k *keeper) foreignUser(ctx context.Context, key ledger.Key) string {
	if k.cfg.Users == nil {
		return ""
	}
	path, err := k.cfg.Engine.Path(ctx, key.Driver, key.Volume)
	if err != nil || path == "" {
		return "" // then nothing will be unmounted either
	}
	who, err := k.cfg.Users.UserAt(ctx, key.Driver, path)
	switch {
	case err != nil:
		return "whether somebody uses it cannot be seen: " + err.Error()
	case who != "":
		return who + " uses it"
	}
	return ""
}

// reconcile looks at one volume. A mount that appears where one without an answer
// is looked out for is undone, unless somebody uses it: nobody was told the path
// of ours.
func (k *keeper) reconcile(ctx context.Context, key ledger.Key) engine.Finding {
	if rec, err := k.cfg.Engine.Ledger().Peek(key); err == nil && rec != nil && rec.Phase == ledger.PhaseWatched && rec.Call == nil {
		if who := k.foreignUser(ctx, key); who != "" {
			return engine.Finding{Driver: key.Driver, Volume: key.Volume, State: "looking out for a mount without an answer",
				Problem: "one appeared and is left: " + who, After: k.cfg.FullInterval}
		}
	}
	return k.cfg.Engine.ReconcileOne(ctx, engine.ReconcileRequest{}, key)
}
