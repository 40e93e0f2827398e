package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// UnmountRequest gives a volume up for one holder.
type UnmountRequest struct {
	Driver, Volume string
	Holder         Holder
	// Strict makes it an error that nothing was mounted for the holder.
	Strict bool
	// Force releases it for all holders.
	Force bool
}

// UnmountResult says what became of it.
type UnmountResult struct {
	// Unmounted says that the driver was asked and released the volume.
	Unmounted bool `json:"unmounted"`
	// HeldBy are the holders that still have it.
	HeldBy []string `json:"heldBy,omitempty"`
	// Notes are for people.
	Notes []string `json:"notes,omitempty"`
}

// Unmount gives a volume up. The driver is asked when the last holder goes.
// Nothing to unmount and an unknown driver are successes with a note, unless
// the request is strict: an agent could do nothing about the failure and would
// keep the container. When the driver fails, the Unmount stays owed: the record
// says so, later operations and the isolator-bridge try again.
//
// Error kinds as of Mount, and InUse for a person who would take a volume from
// others; with Strict also NotMounted.
func (e *Engine) Unmount(ctx context.Context, req UnmountRequest) (res UnmountResult, err error) {
	key := ledger.Key{Driver: req.Driver, Volume: req.Volume}
	op, err := e.begin(ctx, "unmount", key)
	if err != nil {
		return e.unlockable(key, req, err)
	}
	defer op.end(&err)
	u := &unmounting{operation: op, req: req}
	err = u.run(ctx)
	u.result.Notes = op.notes
	return u.result, err
}

// unlockable ends an unmount whose volume cannot be locked because there is no
// room for the lock. Volumes that are mounted have theirs already.
func (e *Engine) unlockable(key ledger.Key, req UnmountRequest, err error) (UnmountResult, error) {
	op := e.describe("unmount", key)
	if rec, peekErr := e.ledger.Peek(op.key); peekErr != nil || rec != nil || req.Strict || !op.goesOnWithout(err) {
		return UnmountResult{}, err
	}
	return UnmountResult{Notes: append(op.notes, "the ledger does not say that it is mounted")}, nil
}

type unmounting struct {
	*operation
	req    UnmountRequest
	result UnmountResult
}

func (u *unmounting) run(ctx context.Context) error {
	if err := u.settleForUnmount(ctx); err != nil {
		return err
	}
	defer u.forgetRefusal()
	if u.existenceOpen() {
		return u.nothing()
	}
	if u.rec == nil {
		if err := u.findOrphan(ctx); err != nil {
			return err
		}
	}
	if u.rec == nil {
		return u.nothing()
	}
	if u.rec.Phase == ledger.PhaseWatched {
		if s := u.look(ctx); s.what != present {
			return u.nothing()
		}
	}
	last, err := u.letGo()
	if err != nil || !last {
		return err
	}
	return u.unmount(ctx)
}

// settleForUnmount settles; should that take longer than this call may, the
// holder's release is written down all the same, for whoever settles it.
//
// A call about whether the volume exists is none of its business.
func (u *unmounting) settleForUnmount(ctx context.Context) error {
	if u.existenceOpen() {
		if over, err := u.over(); err != nil || !over {
			return err
		}
	}
	err := u.settle(ctx)
	if err == nil || u.rec == nil {
		return err
	}
	if u.rec.Call == nil {
		return u.settledUnwritten(err)
	}
	if !u.rec.HeldBy(u.req.Holder.Name) && !u.req.Force {
		return err
	}
	u.rec.Release(u.req.Holder.Name)
	if u.req.Force {
		u.rec.Holders = nil
	}
	return errors.Join(err, u.entry.Save(u.rec))
}

// settledUnwritten goes on after a settlement that could not be written down.
func (u *unmounting) settledUnwritten(err error) error {
	if !u.goesOnWithout(err) {
		return err
	}
	if u.rec.Phase == ledger.PhaseReleased {
		u.rec = nil
	}
	return nil
}

// findOrphan looks for a mount without a record.
func (u *unmounting) findOrphan(ctx context.Context) error {
	if !u.req.Force {
		if refused, err := u.refused(u.req.Holder.Name); err != nil || refused {
			return err
		}
	}
	path, err := u.claim(ctx)
	switch {
	case errors.Is(err, volume.DriverUnknown):
		u.note(err.Error())
		return nil
	case errors.Is(err, volume.Unsupported):
		return nil
	case err != nil:
		// Nothing of ours is mounted; that is enough for the caller.
		u.note("whether somebody else has mounted it cannot be told: " + err.Error())
		return nil
	}
	rec, err := u.orphan(ctx, path, u.req.Holder)
	if err != nil && u.goesOnWithout(err) {
		return nil // nothing of ours is mounted
	}
	if err != nil || rec == nil {
		return err
	}
	u.note(fmt.Sprintf("it was found mounted at %s without a record and is unmounted", rec.Path))
	rec.Hold(ledger.Holder{Name: u.req.Holder.Name, Since: u.ledger.Now()})
	u.rec = rec
	if err := u.entry.Save(rec); err != nil && !u.goesOnWithout(err) {
		return err
	}
	return nil
}

// nothing ends an unmount of what is not mounted.
func (u *unmounting) nothing() error {
	u.note("it is not mounted")
	if u.rec == nil && u.hint != nil {
		// Of an earlier boot and not mounted now; a driver that mounts again by
		// itself at its start may come up later.
		u.rec, u.hint = u.hint, nil
		u.rec.Doubt = true
		if err := u.watch(); err != nil && !u.goesOnWithout(err) {
			return err
		}
	}
	return u.strictly(volume.NotMounted, "nothing is mounted for "+u.req.Holder.Name)
}

func (u *unmounting) strictly(kind volume.Kind, message string) error {
	if !u.req.Strict {
		return nil
	}
	return u.fail(kind, message, "leave out --strict to take that for success", nil)
}

// letGo takes the holder off the record and says whether nobody is left.
func (u *unmounting) letGo() (last bool, err error) {
	r := u.rec
	switch {
	case u.req.Force, r.HeldBy(u.req.Holder.Name) && len(r.Holders) == 1, len(r.Holders) == 0:
		return true, nil
	case r.HeldBy(u.req.Holder.Name):
		r.Release(u.req.Holder.Name)
		u.result.HeldBy = names(r.Holders)
		u.note("it stays mounted for " + strings.Join(u.result.HeldBy, ", "))
		if err := u.entry.Save(r); err != nil && !u.goesOnWithout(err) {
			return false, err
		}
		u.fault(FaultHolderChange)
		return false, nil
	}
	u.result.HeldBy = names(r.Holders)
	others := "it is mounted for " + strings.Join(u.result.HeldBy, ", ") + ", not for " + u.req.Holder.Name
	if u.req.Holder.Person {
		return false, u.fail(volume.InUse, others, "stop the tasks that use it, or take it from them with --force", nil)
	}
	u.note(others)
	return false, u.strictly(volume.NotMounted, others)
}

func names(holders []ledger.Holder) []string {
	var out []string
	for _, h := range holders {
		out = append(out, h.Name)
	}
	return out
}

// unmount asks the driver. From here on nobody holds the volume, whatever the
// driver answers.
func (u *unmounting) unmount(ctx context.Context) error {
	u.rec.Holders = nil
	u.rec.Phase = ledger.PhasePending
	err := u.payUnmount(ctx)
	switch {
	case err == nil:
		u.result.Unmounted = u.rec == nil
	case errors.Is(err, volume.DriverUnknown):
		u.note(err.Error() + "; the unmount is owed until the driver is back")
		return u.strictly(volume.DriverUnknown, "the unmount is owed until the driver is back")
	case errors.Is(err, volume.InUse):
		u.note(err.Error())
		return nil
	}
	return err
}

// payUnmount asks the driver for the Unmount that the record owes and deletes
// the record when it is done.
func (op *operation) payUnmount(ctx context.Context) error {
	d, err := op.driver(ctx)
	if err != nil {
		return op.owe(err)
	}
	doubt := op.rec.Doubt
	if doubt && !op.severalSteps() {
		// An Unmount without its Mount drives the count of a driver that counts below zero.
		ours, err := op.ours(ctx)
		if err != nil {
			return op.owe(err)
		}
		if !ours {
			op.note("nothing is mounted, and the driver is not asked to unmount it")
			op.rec.LastError, op.rec.Attempts, op.rec.NextTryBoot = "", 0, 0 // nothing is owed any more
			if err := op.watch(); err != nil {
				return err
			}
			op.payOthers(ctx)
			return nil
		}
	}
	err = op.callUnmount(ctx, d)
	if op.rec.Call != nil {
		return err
	}
	switch volume.KindOf(err) {
	case volume.Refused, volume.NotFound, volume.Unsupported:
		done, why := op.nothingLeft(ctx, doubt)
		if !done {
			return op.owe(op.stuck(ctx, err))
		}
		op.note("the driver refused the unmount, but " + why + ": " + err.Error())
		err = nil
	}
	if err != nil {
		return op.owe(err)
	}
	op.removeTarget()
	if err := op.release(); err != nil {
		return err
	}
	op.payOthers(ctx)
	return nil
}

// stuck says what a person can do about a mount that its driver does not release.
func (op *operation) stuck(ctx context.Context, err error) error {
	var e *volume.Error
	s := op.look(ctx)
	if s.what != present || !errors.As(err, &e) {
		return err
	}
	out := *e
	out.Hint = fmt.Sprintf("see the driver's own log and restart it; if it no longer knows of the mount, `umount -l %s` and then `dvdcli unmount` again", s.path)
	return &out
}

// nothingLeft says whether a refused Unmount leaves nothing to do: the volume is
// not mounted, or an earlier Unmount without an answer may have been done and
// what is there belongs to another ledger or nobody.
func (op *operation) nothingLeft(ctx context.Context, doubt bool) (bool, string) {
	s := op.look(ctx)
	if s.what == absent && !op.severalSteps() {
		return true, "nothing is mounted"
	}
	if op.detach(ctx, s) {
		return true, "the driver no longer knows of the volume, and its dead mount was taken away"
	}
	if !doubt || s.served || op.severalSteps() {
		return false, ""
	}
	if s.what == unclear {
		return true, "an earlier unmount may have been done"
	}
	other, err := op.neighbours.Holding(op.ledger, op.key)
	return err == nil && other != "", "it is mounted for the ledger in " + other
}

// detach takes away a FUSE mount that nobody serves any more and that its driver
// does not know. It is the only mount that is not left to the driver: nobody else
// would ever unmount it, and nothing can be lost with it.
func (op *operation) detach(ctx context.Context, s seen) bool {
	gone := errors.Is(s.dead, syscall.ENOTCONN) || errors.Is(s.dead, syscall.ECONNABORTED)
	if s.what != present || !gone || op.rec.Kind != ledger.KindMountPoint ||
		s.mount.FSType != op.rec.FSType || s.mount.Source != op.rec.Source {
		return false
	}
	d, ok := op.mounts.(volume.Detacher)
	if !ok || !op.disowned(ctx) {
		return false
	}
	if err := d.Detach(ctx, s.resolved); err != nil {
		op.log.Warn("dead mount not taken away", zap.String("driver", op.key.Driver), zap.String("volume", op.key.Volume),
			zap.String("path", s.resolved), zap.Error(err))
		return false
	}
	op.log.Warn("dead mount taken away", zap.String("driver", op.key.Driver), zap.String("volume", op.key.Volume), zap.String("path", s.resolved))
	return op.lookAt(ctx, s.path, ledger.KindMountPoint).what == absent
}

// disowned says that the driver positively does not know the volume.
func (op *operation) disowned(ctx context.Context) bool {
	d, err := op.driver(ctx)
	if err != nil {
		return false
	}
	return errors.Is(op.ask(ctx, func(ctx context.Context) error {
		_, err := d.Get(ctx, op.ref())
		return err
	}), volume.NotFound)
}

// callUnmount calls Unmount, recorded. InUse: another ledger of this host needs
// the mount, and the driver was not asked.
func (op *operation) callUnmount(ctx context.Context, d volume.Driver) error {
	if err := op.spareOthers(ctx); err != nil {
		return err
	}
	r := op.rec
	return op.change(ctx, ledger.OpUnmount, false, func(ctx context.Context) error {
		return d.Unmount(ctx, volume.UnmountRequest{Volume: r.Ref(), ID: r.MountID, Target: r.Target,
			PublishContext: r.PublishContext, Path: r.Path, Secrets: op.secrets})
	})
}

const (
	firstRetry = 2 * time.Second
	lastRetry  = 5 * time.Minute
)

// owe writes down that an Unmount is owed and when to try again, and returns
// the cause.
func (op *operation) owe(cause error) error {
	now, err := op.ledger.SinceBoot()
	if err != nil {
		return errors.Join(cause, err)
	}
	r := op.rec
	r.Phase = ledger.PhasePending
	r.Holders = nil
	r.LastError = op.secrets.Redact(cause.Error())
	r.NextTryBoot = now + retryAfter(r.Attempts)
	r.Attempts++
	if err := op.entry.Save(r); err != nil {
		return errors.Join(cause, err)
	}
	return cause
}

// retryAfter doubles from two seconds to five minutes.
func retryAfter(attempts int) time.Duration {
	if attempts > 16 {
		return lastRetry
	}
	return min(firstRetry<<attempts, lastRetry)
}
