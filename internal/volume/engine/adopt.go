package engine

import (
	"context"
	"fmt"

	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// UnmountIf is Unmount on a condition that is asked once the volume's lock is
// held and earlier calls are settled: no mount can begin or end between the
// answer and the unmount. The condition gets a copy of the record, nil if there
// is none. Its error is returned as it is, and nothing was given up then.
func (e *Engine) UnmountIf(ctx context.Context, req UnmountRequest, condition func(*ledger.Record) error) (res UnmountResult, err error) {
	op, err := e.begin(ctx, "unmount", ledger.Key{Driver: req.Driver, Volume: req.Volume})
	if err != nil {
		return res, err
	}
	defer op.end(&err)
	if err := op.settle(ctx); err != nil {
		return res, err
	}
	var current *ledger.Record
	if op.rec != nil {
		current = op.rec.Clone()
	}
	if err := condition(current); err != nil {
		return res, err
	}
	u := &unmounting{operation: op, req: req}
	err = u.run(ctx)
	u.result.Notes = op.notes
	return u.result, err
}

// AdoptRequest asks for a mount that may exist without a record.
type AdoptRequest struct {
	Driver, Volume string
	// Holder gets the volume.
	Holder Holder
}

// AdoptResult says what was found.
type AdoptResult struct {
	// Adopted says that a mount was found that no ledger of this host had, and
	// is in this one now.
	Adopted bool
	// Path is where it is mounted; empty if nothing is known to be.
	Path  string
	Notes []string
}

// Adopt takes a volume into the ledger that is mounted without a record, such
// as by dvdcli 0.2 or before the ledger was lost. It never mounts: a volume that
// is not mounted stays so, which is no error. Error kinds as of Mount.
func (e *Engine) Adopt(ctx context.Context, req AdoptRequest) (res AdoptResult, err error) {
	op, err := e.begin(ctx, "adopt", ledger.Key{Driver: req.Driver, Volume: req.Volume})
	if err != nil {
		return res, err
	}
	defer op.end(&err)
	if err := op.settle(ctx); err != nil {
		return res, err
	}
	defer func() { res.Notes = op.notes }()
	if op.rec != nil && op.rec.Phase != ledger.PhaseWatched {
		res.Path = op.rec.Path
		return res, nil
	}
	if refused, err := op.refused(req.Holder.Name); err != nil || refused {
		return res, err
	}
	path, err := op.claim(ctx)
	if err != nil {
		return res, err
	}
	found, err := op.orphan(ctx, path, req.Holder)
	if err != nil || found == nil {
		return res, err
	}
	found.Hold(ledger.Holder{Name: req.Holder.Name, Since: op.ledger.Now()})
	op.rec = found
	op.note(fmt.Sprintf("it was found mounted at %s without a record and taken over", found.Path))
	if err := op.saveMounted(); err != nil {
		return res, err
	}
	res.Adopted, res.Path = true, found.Path
	return res, nil
}
