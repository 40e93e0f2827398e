package engine

import (
	"context"
	"errors"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// answered says that a call is over: the driver answered it, or it was never
// sent. What a client cannot classify counts as unanswered.
func answered(err error) bool {
	switch volume.KindOf(err) {
	case volume.Refused, volume.NotFound, volume.AlreadyExists, volume.Unsupported, volume.Garbled,
		volume.DriverUnreachable, volume.DriverUnknown, volume.Invalid:
		return true
	}
	return err == nil
}

// change makes a call that changes something. The record says so before the
// call begins, durably. When the call has no answer the record keeps it and the
// error is volume.Unsettled; otherwise the call is taken off the record, which
// the caller then saves with what follows from the answer.
func (op *operation) change(ctx context.Context, what ledger.Op, keep bool, do func(context.Context) error) error {
	if ctx.Err() != nil {
		return op.fail(volume.Deadline, "before the driver was asked", "give more time with --deadline", context.Cause(ctx))
	}
	done, err := op.turn(ctx)
	if err != nil {
		return err
	}
	defer done()
	now, err := op.ledger.SinceBoot()
	if err != nil {
		return err
	}
	limit := op.timeouts.of(what)
	op.rec.Call = &ledger.Call{Op: what, Started: op.ledger.Now(), StartedBoot: now,
		SettledBoot: now + limit + op.timeouts.Margin, PID: op.pid}
	if keep {
		err = op.entry.Intend(op.rec, func() { op.fault(FaultIntentKept) })
	} else {
		err = op.entry.Save(op.rec)
	}
	if err != nil {
		if what != ledger.OpUnmount || !op.goesOnWithout(err) {
			op.rec.Call = nil // it is not made
			return err
		}
		if op.rec.Kind == ledger.KindMountPoint && op.look(ctx).what == absent {
			op.rec.Call = nil // it was made before, which could not be written down either
			return nil
		}
	}
	op.fault(FaultIntent)

	err = op.timed(volume.WithReached(ctx, op.reached), limit, do)
	op.fault(FaultAnswered)
	if !answered(err) {
		op.rec.LastError = op.secrets.Redact(err.Error())
		if saveErr := op.entry.Save(op.rec); saveErr != nil {
			return errors.Join(err, saveErr)
		}
		return op.unsettled(err)
	}
	op.rec.Call = nil
	if volume.KindOf(err) == volume.Garbled {
		op.rec.Doubt = true
	}
	return err
}

// reached writes down which process gets the call, before anything is sent to it.
// The call can do without that: it is then over when its time is.
func (op *operation) reached(pid int) {
	p, ok := op.mounts.(volume.Processes)
	if !ok || pid == 0 || op.unwritten {
		return
	}
	server, err := p.Process(pid)
	if err == nil {
		op.rec.Call.Server = &server
		err = op.entry.Save(op.rec)
	}
	if err != nil {
		op.log.Info("which process gets the call is not known", zap.String("driver", op.key.Driver),
			zap.String("volume", op.key.Volume), zap.Int("pid", pid), zap.Error(err))
	}
}

// goesOnWithout says whether an unmount can do without having written something
// down: there is no room for it. A container that cannot end would be worse, and
// what the ledger says instead, that the volume is mounted, the mount table
// corrects later.
func (op *operation) goesOnWithout(err error) bool {
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) && !errors.Is(err, syscall.EROFS) {
		return false
	}
	if !op.unwritten {
		op.unwritten = true
		op.note("unmounting without writing it down: " + err.Error())
	}
	return true
}

// ask makes a call that changes nothing.
func (op *operation) ask(ctx context.Context, do func(context.Context) error) error {
	done, err := op.turn(ctx)
	if err != nil {
		return err
	}
	defer done()
	return op.timed(ctx, op.timeouts.Query, do)
}

// turn waits until this process may call a driver that gets one call at a time,
// and returns what ends the turn. It waits for no other driver.
func (op *operation) turn(ctx context.Context) (done func(), err error) {
	if !op.rules.OneCallAtATime {
		return func() {}, nil
	}
	lock, err := op.ledger.LockDriver(ctx, op.key.Driver)
	if err != nil {
		return nil, op.explainOwn(err)
	}
	return func() {
		if err := lock.Unlock(); err != nil {
			op.log.Warn("lock of the driver not released", zap.String("driver", op.key.Driver), zap.Error(err))
		}
	}, nil
}

// timed makes a call with a time limit.
func (op *operation) timed(ctx context.Context, limit time.Duration, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	start := time.Now()
	err := do(ctx)
	return op.explain(err, time.Since(start))
}

// explain completes a driver's error with what the engine knows, and takes
// secrets out of it.
func (op *operation) explain(err error, elapsed time.Duration) error {
	if err == nil {
		return nil
	}
	var e *volume.Error
	if !errors.As(err, &e) {
		if volume.KindOf(err) == volume.DriverUnknown {
			return err
		}
		e = &volume.Error{Kind: volume.Unsettled, Err: err}
	}
	out := *e
	out.Op = op.name + withColon(out.Op)
	out.Driver, out.Volume, out.Elapsed = op.key.Driver, op.key.Volume, elapsed
	out.Message = op.secrets.Redact(out.Message)
	if out.Err != nil {
		if text := out.Err.Error(); op.secrets.Redact(text) != text {
			out.Err = errors.New(op.secrets.Redact(text))
		}
	}
	if out.Hint == "" {
		out.Hint = hintFor(out.Kind)
	}
	return &out
}

func withColon(s string) string {
	if s == "" {
		return ""
	}
	return ": " + s
}

func hintFor(k volume.Kind) string {
	switch k {
	case volume.DriverUnreachable:
		return "check that the driver runs; `dvdcli drivers` shows what is reachable"
	case volume.Refused:
		return "see the driver's own log"
	case volume.Unsettled:
		return "see the driver's own log; `dvdcli status` shows when it is taken to have finished"
	case volume.NotFound:
		return "check the name, or create the volume with `dvdcli create`"
	}
	return ""
}

func (op *operation) unsettled(err error) error {
	var e *volume.Error
	if errors.As(err, &e) && e.Kind == volume.Unsettled {
		return err
	}
	return op.explain(&volume.Error{Kind: volume.Unsettled, Err: err}, time.Since(op.started))
}
