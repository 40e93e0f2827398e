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

// settlePause is how often the witnesses are asked while an earlier call may
// still be going on in the driver.
const settlePause = 250 * time.Millisecond

// settle brings the record to rest: afterwards it is nil or has no open call.
// It waits for the end of an earlier call's time within ctx and fails with
// volume.Unsettled when that is not enough; the record then stays as it is.
func (op *operation) settle(ctx context.Context) error {
	op.fault(FaultLocked)
	told := false
	for op.rec != nil && op.rec.Call != nil {
		done, err := op.settleOnce(ctx)
		if err != nil || done {
			return err
		}
		if !told {
			told = true
			op.log.Info("an earlier call has no answer, waiting for its end", zap.String("driver", op.key.Driver),
				zap.String("volume", op.key.Volume), zap.String("call", string(op.rec.Call.Op)), zap.Time("started", op.rec.Call.Started))
		}
		timer := time.NewTimer(settlePause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return op.stillUnsettled(ctx.Err())
		case <-timer.C:
		}
	}
	if op.rec != nil && op.rec.Phase == ledger.PhaseReleased {
		return op.drop() // a crash came between the answer and the deletion
	}
	return nil
}

func (op *operation) stillUnsettled(cause error) error {
	c := op.rec.Call
	return op.fail(volume.Unsettled,
		fmt.Sprintf("the %s that began at %s has no answer and the driver may still be working on it", c.Op, c.Started.Format(time.RFC3339)),
		"try again later; if the driver was restarted since, `dvdcli ledger repair --now` settles it at once", cause)
}

// over says whether the open call is over: by its time, or because the process
// that got it has ended.
func (op *operation) over() (bool, error) {
	now, err := op.ledger.SinceBoot()
	return err == nil && op.callOver(*op.rec.Call, now), err
}

func (op *operation) callOver(c ledger.Call, now time.Duration) bool {
	p, ok := op.mounts.(volume.Processes)
	return ok && c.Server != nil && p.Ended(*c.Server) || now >= c.SettledBoot
}

// settleOnce draws what conclusion can be drawn now; done says that the record
// is at rest.
func (op *operation) settleOnce(ctx context.Context) (done bool, err error) {
	over, err := op.over()
	if err != nil {
		return false, err
	}
	switch op.rec.Call.Op {
	case ledger.OpMount:
		return op.settleMount(ctx, over)
	case ledger.OpUnmount:
		return op.settleUnmount(ctx, over)
	}
	// Create and Remove leave nothing on this host. Whether they are done, Get
	// tells; whether they failed or are still going on, only time.
	if !over && !op.getShowsDone(ctx) {
		return false, nil
	}
	return true, op.drop()
}

// getShowsDone says whether the effect of an open Create or Remove can be seen.
func (op *operation) getShowsDone(ctx context.Context) bool {
	d, err := op.driver(ctx)
	if err != nil {
		return false
	}
	err = op.ask(ctx, func(ctx context.Context) error {
		_, err := d.Get(ctx, op.ref())
		return err
	})
	if op.rec.Call.Op == ledger.OpRemove {
		return errors.Is(err, volume.NotFound)
	}
	return err == nil
}

// settleMount concludes when the mount's time is over, not earlier: what is
// mounted before may be undone by a driver that is still working on it. A mount
// that appeared is taken over. One that did not may have left the ID with the
// driver.
func (op *operation) settleMount(ctx context.Context, over bool) (bool, error) {
	if !over {
		return false, nil
	}
	aloneErr := op.alone(ctx) // nobody mounts or unmounts it between the looks
	s := op.look(ctx)
	if s.what == present && s.dead == nil && op.usable(s) == nil {
		op.rec.Call = nil
		op.rec.Phase = ledger.PhaseMounted
		op.rec.Since, op.rec.EarlierBoot = op.ledger.Now(), false
		s.describe(op.rec)
		op.rec.Doubt = op.rec.Doubt || aloneErr != nil || op.mayBeOthers()
		op.note(fmt.Sprintf("an earlier mount without an answer was found done at %s", s.path))
		return true, op.entry.Save(op.rec)
	}
	op.rec.Doubt = true
	if s.what == absent && !op.severalSteps() {
		return true, op.watch()
	}
	// Nothing shows whether it was done: ask the driver to undo it.
	op.rec.Call = nil
	op.rec.Phase = ledger.PhasePending
	return true, op.entry.Save(op.rec)
}

// mayBeOthers says that what is mounted may be another ledger's work, which need
// not be that of a call of this one.
func (op *operation) mayBeOthers() bool {
	other, err := op.neighbours.Holding(op.ledger, op.key)
	return err != nil || other != ""
}

// severalSteps says that the driver does more than mounting, such as attaching:
// that nothing is mounted does not mean then that nothing is left. Drivers that
// take a target have to bear an Unmount too many (CSI: NodeUnpublishVolume and
// ControllerUnpublishVolume must be idempotent).
func (op *operation) severalSteps() bool { return op.rec.Target != "" }

// watch leaves the record behind as a look-out for a mount that appears late.
func (op *operation) watch() error {
	now, err := op.ledger.SinceBoot()
	if err != nil {
		return err
	}
	op.rec.Call = nil
	op.rec.Phase = ledger.PhaseWatched
	op.rec.Holders = nil
	op.rec.EarlierBoot = op.rec.EarlierBoot || op.rec.BootID != "" && op.rec.BootID != op.ledger.BootID()
	op.rec.WatchUntilBoot = now + op.timeouts.Watch
	return op.entry.Save(op.rec)
}

// settleUnmount concludes when the unmount's time is over: a driver that has
// unmounted may still be detaching. If the mount is gone it is done; otherwise
// it is owed again.
func (op *operation) settleUnmount(ctx context.Context, over bool) (bool, error) {
	if !over {
		return false, nil
	}
	s := op.look(ctx)
	if s.what == absent && !op.severalSteps() {
		return true, op.release()
	}
	op.rec.Doubt = true
	op.rec.Call = nil
	op.rec.Phase = ledger.PhasePending
	return true, op.entry.Save(op.rec)
}
