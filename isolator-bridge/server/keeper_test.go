package server

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/agentstate"
)

// What happens to a volume while it is being looked at, and may not be seen by that
// look, is seen by another one right after it, not by the next one at everything.
func TestChangeDuringALookIsLookedAtAfterwards(t *testing.T) {
	k := newKeeper(Config{Engine: engine.New(engine.Config{Ledger: emptyLedger(t)}), Log: zap.NewNop()}, nil, nil, nil)
	key := ledger.Key{Driver: "d", Volume: "v"}
	looked := result{key: key, finding: engine.Finding{Driver: key.Driver, Volume: key.Volume, State: "mounted", After: time.Hour}}

	k.busy[key] = true
	k.look(t.Context(), []ledger.Key{key})
	k.took(t.Context(), looked)
	if at, due := k.due[key]; !due || at.After(time.Now()) {
		t.Errorf("due: %v, %s", due, at)
	}

	k.busy[key] = true
	k.took(t.Context(), looked)
	if at, due := k.due[key]; !due || at.Before(time.Now()) {
		t.Errorf("without a change it is looked at before its time: %v, %s", due, at)
	}

	k.busy[key], k.again[key] = true, later{&ledger.Record{Driver: key.Driver, Volume: key.Volume}, time.Now()}
	k.looking = true // at the agent, which is not the next thing to do then
	k.cfg.Interval = time.Hour
	k.lookAgain(t.Context(), time.Now())
	if len(k.again) != 1 {
		t.Error("forgotten, what an earlier boot had mounted")
	}
	if until := k.untilDue(time.Hour); until < time.Minute {
		t.Errorf("it is looked at in %s while it is busy, again and again", until)
	}
	delete(k.busy, key)
	if until := k.untilDue(time.Hour); until > time.Minute {
		t.Errorf("it is looked at in %s only", until)
	}
}

// Why control groups are not found is told once for each reason in turn: another
// error does not keep back that they are elsewhere, which each container shows in
// words of its own.
func TestReasonsForMissingGroupsAreTold(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	k := newKeeper(Config{Engine: engine.New(engine.Config{Ledger: emptyLedger(t)}), Log: zap.New(core)}, nil, nil, nil)
	elsewhere := func(id string) error { return fmt.Errorf("%w: container %s", agentstate.ErrGroupsElsewhere, id) }
	for n, c := range []struct {
		err  error
		told int // so far
	}{
		{nil, 0},
		{errors.New("too many open files"), 1},
		{errors.New("too many open files"), 1},
		{elsewhere("a"), 2},
		{elsewhere("b"), 2},
		{nil, 2},
		{elsewhere("c"), 2},
	} {
		k.view.GroupsErr = c.err
		k.tellGroups()
		if logs.Len() != c.told {
			t.Errorf("%d: %v: told %d times so far, want %d", n, c.err, logs.Len(), c.told)
		}
	}
}

// emptyLedger is a ledger in which nothing is written.
func emptyLedger(t *testing.T) *ledger.Ledger {
	t.Helper()
	dir := t.TempDir()
	led, err := ledger.Open(ledger.Config{RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state")})
	if err != nil {
		t.Fatal(err)
	}
	return led
}
