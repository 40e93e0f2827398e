package server

import (
	"context"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/agentstate"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/reaper"
)

// agentLook is one look at the agent. It is made in the background: an agent
// that answers slowly, or not at all, holds up nothing else.
type agentLook struct {
	// What is known before it; not changed.
	records []ledger.Record
	live    map[ledger.Key]*ledger.Record
	known   map[string]bool // containers that were proven to be gone

	began    time.Time
	view     agentstate.View
	gone     map[string]bool // of the containers that are named
	verdicts []reaper.Verdict
	passErr  error
}

func (k *keeper) agentLook() *agentLook {
	l := &agentLook{live: k.seen, known: k.gone, gone: map[string]bool{}}
	for _, rec := range k.seen {
		l.records = append(l.records, *rec)
	}
	return l
}

// take reads checkpoints and agent.
func (l *agentLook) take(ctx context.Context, w *agentstate.Watcher) {
	l.began = time.Now()
	l.view = w.Look(ctx)
}

// prove finds out which containers are gone that named a volume and are not
// listed. The reaper asks only about volumes that are mounted; whether one that is
// unmounted by now can be released to another agent hangs on it as well. What is
// proven is not asked again: a checkpoint may lie there until the agent's restart.
func (l *agentLook) prove(ctx context.Context, w *agentstate.Watcher) {
	var ids []string
	for _, named := range w.Named(l.view) {
		for _, id := range named {
			if _, listed := l.view.Listed[id]; listed {
				continue
			}
			if l.known[id] {
				l.gone[id] = true
			} else {
				ids = append(ids, id)
			}
		}
	}
	if len(ids) == 0 || l.view.AgentErr != nil {
		return
	}
	slices.Sort(ids)
	for id, p := range w.Prove(ctx, l.view, slices.Compact(ids)) {
		if p.Gone {
			l.gone[id] = true
		}
	}
}

// lookPatience bounds a look, however often it asks the agent.
const lookPatience = 30 * time.Second

// lookAtAgent begins a look unless one goes on.
func (k *keeper) lookAtAgent(ctx context.Context) {
	k.leakDue = time.Now().Add(agentEvery * k.cfg.Interval)
	if k.cfg.Watcher == nil || k.looking {
		return
	}
	k.looking = true
	l := k.agentLook()
	k.workers.Go(func() {
		asking, cancel := context.WithTimeout(ctx, lookPatience)
		defer cancel()
		l.take(asking, k.cfg.Watcher)
		if err := k.cfg.Watcher.Remember(l.view, func(key ledger.Key) bool { return l.live[key] != nil }); err != nil {
			k.log.Error("what containers named cannot be kept", zap.Error(err))
		}
		l.verdicts, l.passErr = k.cfg.Reaper.Pass(asking, l.view, l.records)
		l.prove(asking, k.cfg.Watcher)
		k.send(ctx, result{look: l})
	})
}

// lookedAtAgent takes in a look; what is to be given up is given up in the
// background.
func (k *keeper) lookedAtAgent(ctx context.Context, l *agentLook) {
	k.looking = false
	k.view, k.looked = l.view, l.began
	k.dirty = k.dirty || !maps.Equal(k.gone, l.gone)
	k.gone = l.gone
	k.tellAgent()
	k.tellGroups()
	k.tellDamaged()
	k.leakDue = time.Now().Add(agentEvery * k.cfg.Interval)
	if l.passErr != nil {
		k.log.Error("leaks not looked for", zap.Error(l.passErr))
	} else {
		k.act(ctx, l.verdicts)
	}
	k.compare(ctx)
	k.publish()
}

// act does what verdicts ask for.
func (k *keeper) act(ctx context.Context, verdicts []reaper.Verdict) {
	current := make(map[ledger.Key]bool, len(verdicts))
	for _, v := range verdicts {
		current[v.Key] = true
		if at := time.Now().Add(v.After); v.After > 0 && at.Before(k.leakDue) {
			k.leakDue = at
		}
		k.judged(v)
		if v.Due {
			k.begin(ctx, v.Key, func() result {
				done := k.cfg.Reaper.Reap(ctx, v)
				return result{key: v.Key, verdict: &done}
			})
		}
	}
	for key := range k.verdicts {
		if !current[key] {
			delete(k.verdicts, key)
		}
	}
}
