package engine

import (
	"fmt"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// outcome remembers for the holder's next unmount whether its mount failed and
// left it with nothing. The isolator unmounts after every failed mount: what is
// mounted then without a record, such as for a container of Docker, must not be
// taken for a mount of dvdcli 0.2. op is nil if the mount did not get that far.
func (e *Engine) outcome(req MountRequest, op *operation, err error) {
	key := ledger.Key{Driver: req.Driver, Volume: req.Volume}
	if checkNames("mount", key) != nil {
		return
	}
	key.Driver = e.canonical(key.Driver)
	var writeErr error
	switch {
	case err == nil:
		writeErr = e.ledger.DeleteRefusal(key, req.Holder.Name)
	case op == nil || op.gotNothing():
		writeErr = e.ledger.SaveRefusal(key, req.Holder.Name)
	}
	if writeErr != nil {
		e.log.Warn("outcome of the mount not remembered", zap.String("driver", key.Driver), zap.String("volume", key.Volume), zap.Error(writeErr))
	}
}

// gotNothing says that no mount of the volume can be one that this ledger made
// or knew.
func (op *operation) gotNothing() bool {
	return op.hint == nil && !op.damaged && (op.rec == nil || op.existenceOpen())
}

// existenceOpen says that the open call is about whether the volume exists.
// Nothing is mounted while it goes on.
func (op *operation) existenceOpen() bool {
	return op.rec != nil && op.rec.Phase == ledger.PhaseNew && op.rec.Call != nil &&
		(op.rec.Call.Op == ledger.OpCreate || op.rec.Call.Op == ledger.OpRemove)
}

// refused says whether the holder's last mount left it with nothing, so that what
// is found mounted without a record is somebody else's.
func (op *operation) refused(holder string) (bool, error) {
	if !op.gotNothing() {
		return false, nil
	}
	refused, err := op.ledger.Refused(op.key, holder)
	if err != nil || !refused {
		return false, err
	}
	op.note(fmt.Sprintf("the last mount for %s failed; what may be mounted of the volume without a record is left alone", holder))
	return true, nil
}

// forgetRefusal makes the next unmount one that follows no failed mount.
func (u *unmounting) forgetRefusal() {
	if err := u.ledger.DeleteRefusal(u.key, u.req.Holder.Name); err != nil {
		u.log.Warn("outcome of an earlier mount not forgotten", zap.String("driver", u.key.Driver), zap.String("volume", u.key.Volume), zap.Error(err))
	}
}
