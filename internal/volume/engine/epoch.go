package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// admit decides whether the mount's epoch lets it go on. Where a registration
// was withdrawn or has a lease, only its own epoch mounts, while it counts.
// Otherwise an older epoch is refused, and a mount without an epoch, or with one
// that nobody registered, is a mount like any other: frameworks that know no
// epochs, and agents whose bridge is down, go on working.
func (m *mounting) admit() error {
	asked, err := m.askedEpoch()
	if err != nil {
		return err
	}
	reg, err := m.entry.Registration()
	if err != nil {
		return m.explainOwn(err)
	}
	if m.req.Force && m.req.Holder.Person {
		if reg.Epoch > 0 {
			m.note(fmt.Sprintf("framework %s has the volume registered here under epoch %d, which --force overrides", reg.Framework, reg.Epoch))
		}
		return nil
	}
	switch {
	case reg.Epoch == 0 || asked > 0 && asked < reg.Epoch:
		return m.admitOther(asked, reg)
	case asked != reg.Epoch:
		return m.admitOther(0, reg) // nobody registered it: it counts for nothing
	case reg.Withdrawn:
		return m.outdated(fmt.Sprintf("epoch %d was withdrawn from this host", asked))
	}
	m.epoch = asked
	switch {
	case reg.Lease > 0:
		return m.leaseHolds(reg)
	case m.req.Options.Engine[optionLease] != "":
		return m.outdated(fmt.Sprintf("a fence is asked for and epoch %d is registered without a lease", asked))
	}
	return nil
}

// admitOther decides on a mount that is not of the registered epoch.
func (m *mounting) admitOther(asked uint64, reg ledger.Registration) error {
	switch {
	case reg.Epoch == 0 && m.req.Options.Engine[optionLease] != "":
		return m.outdated("a fence is asked for and no lease is registered on this host")
	case reg.Epoch == 0:
		return nil
	case asked > 0:
		return m.outdated(fmt.Sprintf("epoch %d is older than epoch %d, which is registered on this host", asked, reg.Epoch))
	case reg.Withdrawn:
		return m.outdated(fmt.Sprintf("framework %s has moved the volume to another host", reg.Framework))
	case reg.Lease > 0:
		return m.outdated(fmt.Sprintf("framework %s has it under a lease, for epoch %d only", reg.Framework, reg.Epoch))
	}
	return nil
}

func (m *mounting) askedEpoch() (uint64, error) {
	text, given := m.req.Options.Engine[optionEpoch]
	if !given {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == 0 {
		return 0, m.fail(volume.Invalid, fmt.Sprintf("%s=%q is no epoch", optionEpoch, text), "frameworks set this option, users do not", err)
	}
	return n, nil
}

func (m *mounting) leaseHolds(reg ledger.Registration) error {
	now, err := m.ledger.SinceBoot()
	if err != nil {
		return err
	}
	lease := m.ledger.Lease(m.key)
	if reg.Fenced || lease.Epoch != reg.Epoch || now >= lease.ExpiresBoot {
		return m.outdated(fmt.Sprintf("the lease of epoch %d is over", reg.Epoch))
	}
	return nil
}

func (op *operation) outdated(why string) error {
	return op.fail(volume.OutdatedEpoch, why, "start the task through its framework; `dvdcli mount --force` overrides, and endangers the data if the volume is in use elsewhere", nil)
}

// Register keeps durably that a volume may be mounted on this host under an
// epoch, and under no older one. OutdatedEpoch: a newer one of the same
// framework is registered, or this one was withdrawn or fenced; the result is
// then what is registered. InUse: another framework has the volume registered
// and mounted here; its epochs cannot be compared with these.
//
// lease, if not nil, is called with the volume locked, before the registration
// is written: what it does is in force before any mount under the epoch, and
// what it changes of the registration is kept. It gets the registration under
// the driver's one name, see Canonical.
func (e *Engine) Register(ctx context.Context, want ledger.Registration, lease func(*ledger.Registration) error) (reg ledger.Registration, err error) {
	if want.Epoch == 0 || want.Framework == "" {
		return reg, e.describe("register", want.Key()).fail(volume.Invalid, "epoch or framework missing", "epochs count from 1", nil)
	}
	op, err := e.begin(ctx, "register", want.Key())
	if err != nil {
		return reg, err
	}
	defer op.end(&err)
	old, readErr := op.entry.Registration()
	if readErr != nil && !damaged(readErr) {
		return reg, op.explainOwn(readErr)
	}
	if old.Framework == want.Framework {
		over := old.Epoch == want.Epoch && (old.Withdrawn || old.Fenced)
		if old.Epoch > want.Epoch || over {
			return old, op.fail(volume.OutdatedEpoch, fmt.Sprintf("epoch %d is registered on this host or was withdrawn from it", old.Epoch),
				"claim the volume anew, under a higher epoch", nil)
		}
	}
	if foreign(old, want.Framework) && op.rec != nil {
		return old, op.fail(volume.InUse, "framework "+old.Framework+" has it registered and mounted on this host",
			"stop the task there that uses it", nil)
	}
	want.Driver, want.Withdrawn, want.Fenced, want.NeverRegistered = op.key.Driver, false, false, false
	if lease != nil {
		if err := lease(&want); err != nil {
			return old, err
		}
	}
	return want, op.entry.SaveRegistration(want)
}

// damaged says that what was to be read is of no use to anybody.
func damaged(err error) bool { return errors.Is(err, volume.BadRecord) && !ledger.IsNewer(err) }

// foreign says that a live registration belongs to another framework.
func foreign(reg ledger.Registration, framework string) bool {
	return reg.Epoch > 0 && reg.Framework != framework && !reg.Withdrawn && !reg.Fenced
}

// Remains is what is left of a volume on this host.
type Remains struct {
	// Registration is what is registered now.
	Registration ledger.Registration
	// Record is the ledger's record, nil if there is none.
	Record *ledger.Record
	// Path is set where the volume is mounted.
	Path string
}

// Withdraw ends the right to mount a volume under an epoch and all older ones,
// durably, and tells what is left of it here. OutdatedEpoch: a newer epoch is
// registered; nothing is changed. Fenced registrations become withdrawn too.
func (e *Engine) Withdraw(ctx context.Context, framework string, key ledger.Key, epoch uint64) (left Remains, err error) {
	op, err := e.begin(ctx, "withdraw", key)
	if err != nil {
		return left, err
	}
	defer op.end(&err)
	reg, err := op.entry.Registration()
	if err != nil && !damaged(err) {
		return left, op.explainOwn(err)
	}
	left.Registration = reg
	if reg.Epoch > epoch && reg.Framework == framework {
		return left, op.fail(volume.OutdatedEpoch, fmt.Sprintf("epoch %d is registered on this host", reg.Epoch), "", nil)
	}
	if foreign(reg, framework) {
		return left, op.fail(volume.InUse, "framework "+reg.Framework+" has it registered", "withdraw it in the name of that framework", nil)
	}
	if !reg.Withdrawn || reg.Epoch != epoch {
		reg.NeverRegistered = reg.NeverRegistered || reg.Framework != framework
		reg.Framework, reg.Epoch, reg.Withdrawn = framework, epoch, true
		if err := op.entry.SaveRegistration(reg); err != nil {
			return left, err
		}
		reg.Driver, reg.Volume = op.key.Driver, op.key.Volume
		left.Registration = reg
	}
	return left, op.remains(ctx, &left)
}

// remains tells what is left of the volume: of the record, or of a mount
// without one.
func (op *operation) remains(ctx context.Context, left *Remains) error {
	if op.rec != nil {
		left.Record = op.rec.Clone()
		if op.rec.Phase == ledger.PhaseMounted {
			left.Path = op.rec.Path
		}
		return nil
	}
	claim, err := op.claim(ctx)
	if errors.Is(err, volume.DriverUnknown) || errors.Is(err, volume.NotFound) || errors.Is(err, volume.Unsupported) {
		return nil
	}
	if err != nil {
		return err
	}
	found, err := op.orphan(ctx, claim, Holder{})
	if err != nil || found == nil {
		return err
	}
	left.Record, left.Path = found, found.Path
	return nil
}

// MarkFenced keeps durably that the lease of an epoch ended and nothing is left
// of its use here. A registration that has moved on is left alone.
func (e *Engine) MarkFenced(ctx context.Context, key ledger.Key, epoch uint64) (err error) {
	op, err := e.begin(ctx, "fence", key)
	if err != nil {
		return err
	}
	defer op.end(&err)
	reg, err := op.entry.Registration()
	if err != nil {
		return op.explainOwn(err)
	}
	if reg.Epoch != epoch || reg.Fenced {
		return nil
	}
	reg.Fenced = true
	return op.entry.SaveRegistration(reg)
}
