package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// alone makes this ledger known on its host and keeps the others from mounting
// or unmounting the volume until the operation ends.
func (op *operation) alone(ctx context.Context) error {
	if op.host != nil {
		return nil
	}
	if err := op.neighbours.Join(op.ledger); err != nil {
		return op.explainOwn(err)
	}
	lock, err := op.neighbours.Lock(ctx, op.key)
	if err != nil {
		return op.explainOwn(err)
	}
	op.host = lock
	return nil
}

// quiet is alone, once no Unmount of another ledger is under way: what is mounted
// before might be what that one takes away. It waits for that within ctx, without
// keeping the others from their work.
func (op *operation) quiet(ctx context.Context) error {
	for {
		if err := op.alone(ctx); err != nil {
			return err
		}
		other, err := op.othersUnmounting()
		if err != nil || other == "" {
			return err
		}
		unsettled := "an unmount by the ledger in " + other + " has no answer and the driver may still be working on it"
		if op.borrowed {
			return op.fail(volume.Unsettled, unsettled, "try again later", nil)
		}
		op.leaveHost()
		timer := time.NewTimer(settlePause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return op.fail(volume.Unsettled, unsettled, "try again later", ctx.Err())
		case <-timer.C:
		}
	}
}

// othersUnmounting returns another ledger of this host whose Unmount of the volume
// may be going on, or an empty string.
func (op *operation) othersUnmounting() (string, error) {
	now, err := op.ledger.SinceBoot()
	if err != nil {
		return "", err
	}
	return op.neighbours.Unmounting(op.ledger, op.key, func(c ledger.Call) bool { return op.callOver(c, now) })
}

// leaveHost gives up the lock of alone and lets the other ledgers of this host go on.
func (op *operation) leaveHost() {
	if err := op.host.Discard(); err != nil {
		op.log.Warn("lock for this host not taken away", zap.String("driver", op.key.Driver), zap.String("volume", op.key.Volume), zap.Error(err))
	}
	op.host = nil
}

// ours says whether what is mounted can be this ledger's, where a call for it had
// no answer: what the others are sure of is theirs, and is unmounted first. It is
// asked when nobody here holds the volume any more.
func (op *operation) ours(ctx context.Context) (bool, error) {
	err := op.quiet(ctx)
	if errors.Is(err, volume.Unsettled) || errors.Is(err, volume.Deadline) {
		return false, err
	}
	var owing []*ledger.Ledger
	if err == nil {
		owing, err = op.neighbours.Owing(op.ledger, op.key, true)
	}
	if err != nil {
		return true, nil //nolint:nilerr // they cannot be asked: see spareOthers
	}
	if len(owing) > 0 {
		op.rec.Phase, op.rec.Holders = ledger.PhasePending, nil
		if err := op.entry.Save(op.rec); err != nil && !op.goesOnWithout(err) {
			return false, err
		}
		if other, err := op.pay(ctx, owing); other != "" {
			// The driver may know of that one's mount only: an Unmount made in its
			// place would be one too many when it is made, too.
			return false, op.fail(volume.InUse, "the ledger in "+other+" has yet to unmount it", "it is unmounted after that", err)
		}
	}
	return op.look(ctx).what != absent, nil
}

// spareOthers refuses an Unmount that could take a mount away from another
// ledger of this host: drivers that keep no account of mount IDs answer both
// ledgers with one path and unmount it at the first Unmount. It is then owed
// until the other one has given the volume up, and so it is while the other
// ledgers cannot be asked: the container ends all the same, and what another
// one works with stays.
func (op *operation) spareOthers(ctx context.Context) error {
	err := op.alone(ctx)
	if errors.Is(err, volume.Deadline) {
		return err
	}
	other := ""
	if err == nil || op.goesOnWithout(err) {
		other, err = op.neighbours.Using(op.ledger, op.rec)
	}
	if err == nil && other == "" {
		return nil
	}
	if s := op.look(ctx); s.what == absent {
		return nil // there is nothing that could be taken away
	}
	if err != nil {
		return op.fail(volume.InUse, "whether another ledger of this host uses the same mount cannot be told",
			"mend "+op.neighbours.Dir+", in which the ledgers of a host know of each other; it is unmounted then", err)
	}
	return op.fail(volume.InUse, "the ledger in "+other+" uses the same mount",
		"it is unmounted once that one has given it up", nil)
}

// payOthers makes the Unmounts that other ledgers of this host owe: they may
// have waited for this one. What fails stays owed there.
func (op *operation) payOthers(ctx context.Context) {
	owing, err := op.neighbours.Owing(op.ledger, op.key, false)
	if err != nil {
		op.log.Warn("what other ledgers owe cannot be told", zap.String("driver", op.key.Driver), zap.String("volume", op.key.Volume), zap.Error(err))
	}
	_, _ = op.pay(ctx, owing) // logged, and owed on
}

// pay makes the Unmounts that ledgers owe and returns the run directory of one
// that owes it still, with the cause: because it failed, or because somebody is
// working on it, who deals with it himself.
func (op *operation) pay(ctx context.Context, owing []*ledger.Ledger) (left string, cause error) {
	for _, led := range owing {
		paid, err := op.payFor(ctx, led)
		if err != nil {
			left, cause = led.RunDir(), err
		}
		switch {
		case ledger.IsLocked(err):
		case err != nil:
			op.log.Info("unmount that another ledger owes not made", zap.String("ledger", led.RunDir()),
				zap.String("driver", op.key.Driver), zap.String("volume", op.key.Volume), zap.Error(err))
		case paid:
			op.note(fmt.Sprintf("the unmount that the ledger in %s owed was made, too", led.RunDir()))
		}
	}
	return left, cause
}

// payFor makes the Unmount that another ledger owes, in its name. It does not
// wait for that ledger's lock: who holds it may be waiting for the host's.
func (op *operation) payFor(ctx context.Context, led *ledger.Ledger) (paid bool, err error) {
	e := *op.Engine
	e.ledger = led
	entry, err := led.TryLock(op.key)
	if err != nil {
		return false, err
	}
	other := e.describe(op.name, op.key)
	other.dvr, other.host, other.borrowed = op.dvr, op.host, true
	if err := other.attach(entry); err != nil {
		return false, err
	}
	defer other.end(&err)
	if other.rec == nil || other.rec.Phase != ledger.PhasePending || other.rec.Call != nil {
		return false, nil
	}
	if err := other.payUnmount(ctx); err != nil {
		return false, err
	}
	return true, nil
}
