package engine

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// ReconcileRequest says how to bring ledger, drivers and mount table together.
type ReconcileRequest struct {
	// DryRun finds out what would be done and does nothing.
	DryRun bool
	// Now does not wait for times: owed Unmounts are tried at once, and calls
	// without an answer are taken to be over, as after a restart of the driver.
	Now bool
	// Appeared, unless it is nil, is asked before a mount is undone that has appeared
	// where one is looked out for. The mount is left with a reason why, for good, or
	// with a time after which to look again. The record says what is looked out for,
	// path where the mount is; it leads over no symbolic link.
	Appeared func(ctx context.Context, rec *ledger.Record, path string) (why string, wait time.Duration)
	// Only, if not nil, restricts it to one volume.
	Only *ledger.Key
}

// Finding is what reconciling found about one volume and did about it.
type Finding struct {
	Driver string `json:"driver,omitempty"`
	Volume string `json:"volume,omitempty"`
	// File is set when the record could not be read.
	File string `json:"file,omitempty"`
	// State says what was found, Action what was done, or would be.
	State  string `json:"state"`
	Action string `json:"action,omitempty"`
	// Problem says what is wrong and stays wrong; empty if nothing.
	Problem string `json:"problem,omitempty"`
	// After is how long to wait before it is worth looking again; 0 if nothing
	// is left to do.
	After time.Duration `json:"after,omitempty"`
}

// leftoverAge is how old a temporary file is that nobody is writing any more.
const leftoverAge = time.Hour

// reconcileWorkers bounds how many volumes are looked at at once; a driver that
// hangs must not hold up the others.
const reconcileWorkers = 16

// Reconcile looks at every record: it settles calls without an answer, undoes
// mounts whose caller died before it learned of them, tries owed Unmounts whose
// time has come, and compares what is mounted with the mount table. It leaves
// alone volumes on which somebody works at the moment. The findings are in the
// order of the ledger; records at rest and in order are among them without
// Action and Problem.
func (e *Engine) Reconcile(ctx context.Context, req ReconcileRequest) ([]Finding, error) {
	if req.Only != nil {
		only := e.Canonical(*req.Only)
		req.Only = &only
	}
	items, err := e.ledger.List()
	if err != nil {
		return nil, err
	}
	findings := make([]Finding, len(items))
	var wg sync.WaitGroup
	slots := make(chan struct{}, reconcileWorkers)
	damaged := map[string]bool{}
	for i, item := range items {
		if item.Record == nil {
			damaged[filepath.Base(item.File)] = true
			findings[i] = e.unreadable(item, req)
			continue
		}
		if req.DryRun && damaged[filepath.Base(item.File)] {
			continue // looking at its copy would set the damaged one aside
		}
		if req.Only != nil && item.Record.Key() != *req.Only {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			findings[i] = e.reconcileOne(ctx, req, item.Record.Key())
		})
	}
	wg.Wait()
	if !req.DryRun {
		if err := e.ledger.Sweep(leftoverAge); err != nil {
			e.log.Warn("temporary files of crashes not removed", zap.Error(err))
		}
	}
	var out []Finding
	for _, f := range findings {
		if f != (Finding{}) {
			out = append(out, f)
		}
	}
	return out, nil
}

// unreadable deals with a file that is no record that could be used.
func (e *Engine) unreadable(item ledger.Listed, req ReconcileRequest) Finding {
	f := Finding{File: item.File, State: "cannot be read", Problem: item.Err.Error()}
	if ledger.IsNewer(item.Err) || ledger.IsUnread(item.Err) || req.Only != nil {
		return f
	}
	f.Action = "set it aside"
	if req.DryRun {
		return f
	}
	aside, err := e.ledger.PutAside(item.File)
	switch {
	case ledger.IsLocked(err):
		f.Action, f.After = "", time.Second
	case err != nil:
		f.Action, f.Problem = "", err.Error()
	case aside.File != "":
		f.Action = "set aside as " + aside.File
	}
	return f
}

func (e *Engine) reconcileOne(ctx context.Context, req ReconcileRequest, key ledger.Key) (f Finding) {
	f = Finding{Driver: key.Driver, Volume: key.Volume}
	entry, err := e.ledger.TryLock(key)
	if ledger.IsLocked(err) {
		f.State, f.After = "an operation is going on", time.Second
		return f
	}
	if err != nil {
		f.State, f.Problem = "cannot be locked", err.Error()
		return f
	}
	op := e.describe("reconcile", key)
	op.key = key // as the record has it, which is what was locked
	if err := op.attach(entry); err != nil {
		f.State, f.Problem = "cannot be read", err.Error()
		return f
	}
	r := &reconciling{operation: op, req: req, f: &f}
	err = r.run(ctx)
	op.end(&err)
	if err != nil {
		f.Problem = err.Error()
	}
	return f
}

type reconciling struct {
	*operation
	req ReconcileRequest
	f   *Finding
}

func (r *reconciling) run(ctx context.Context) error {
	switch {
	case r.rec == nil && r.hint == nil:
		return nil // gone meanwhile
	case r.rec == nil:
		r.f.State = "from an earlier boot; the next mount or unmount will deal with it"
		return nil
	case r.rec.Call != nil:
		return r.openCall(ctx)
	}
	return r.atRest(ctx)
}

// openCall settles a call without an answer. Nobody was told the path of a
// mount that is found done: it is undone.
func (r *reconciling) openCall(ctx context.Context) error {
	c := r.rec.Call
	r.f.State = fmt.Sprintf("a %s that began at %s has no answer", c.Op, c.Started.Format(time.RFC3339))
	now, err := r.ledger.SinceBoot()
	if err != nil {
		return err
	}
	if r.req.Now {
		c.SettledBoot = now
	}
	if r.req.DryRun {
		r.f.Action = "wait for the end of its time, then adopt or undo it"
		if now >= c.SettledBoot {
			r.f.Action = "adopt or undo it"
		}
		return nil
	}
	wasMount := c.Op == ledger.OpMount
	settled := c.SettledBoot
	done, err := r.settleOnce(ctx)
	if err != nil {
		return err
	}
	if !done {
		r.f.After = min(time.Second, settled-now)
		return nil
	}
	if r.rec == nil {
		r.f.Action = "settled: nothing is left of it"
		return nil
	}
	if wasMount && r.rec.Phase == ledger.PhaseMounted {
		r.rec.Phase = ledger.PhasePending
		r.rec.NextTryBoot = 0
	}
	return r.atRest(ctx)
}

// atRest deals with a record without an open call.
func (r *reconciling) atRest(ctx context.Context) error {
	switch r.rec.Phase {
	case ledger.PhaseMounted:
		r.f.State = "mounted"
		r.judge(ctx)
		return nil
	case ledger.PhasePending:
		return r.pending(ctx)
	case ledger.PhaseWatched:
		return r.watched(ctx)
	}
	r.f.State, r.f.Action = "left behind by a crash", "delete the record"
	if r.req.DryRun {
		return nil
	}
	return r.drop()
}

// judge tells what is wrong with a mounted record; it changes nothing, since
// tasks may be using what is left.
func (r *reconciling) judge(ctx context.Context) {
	t, s, err := r.verify(ctx)
	switch {
	case err != nil:
		r.f.Problem = err.Error()
	case t == truthGone:
		r.f.Problem = "it is no longer mounted at " + s.path + "; the next mount will mount it again"
	}
}

// pending tries an owed Unmount when its time has come.
func (r *reconciling) pending(ctx context.Context) error {
	r.f.State = "an unmount is owed"
	now, err := r.ledger.SinceBoot()
	if err != nil {
		return err
	}
	if wait := r.rec.NextTryBoot - now; wait > 0 && !r.req.Now {
		r.f.After, r.f.Problem = wait, r.rec.LastError
		return nil
	}
	r.f.Action = "ask the driver to unmount"
	if r.req.DryRun {
		return nil
	}
	if err := r.pay(ctx); err != nil {
		return err
	}
	r.f.Action = "unmounted"
	return nil
}

// pay asks the driver for the Unmount, and says when to try again if that fails.
func (r *reconciling) pay(ctx context.Context) error {
	now, err := r.ledger.SinceBoot()
	if err != nil {
		return err
	}
	if err := r.payUnmount(ctx); err != nil {
		r.f.After = time.Second
		if r.rec != nil && r.rec.Call == nil {
			r.f.After = max(r.rec.NextTryBoot-now, time.Second)
		}
		if errors.Is(err, volume.DriverUnknown) {
			r.f.Action = "wait for the driver to come back"
		}
		return err
	}
	return nil
}

// watched looks out for a mount that comes late, until its time is over.
func (r *reconciling) watched(ctx context.Context) error {
	r.f.State = "looking out for a mount without an answer"
	if s := r.look(ctx); s.what == present {
		if r.leaves(ctx, s) {
			return nil
		}
		r.f.Action = "undo the mount that appeared at " + s.path
		if r.req.DryRun {
			return nil
		}
		r.rec.Path = s.path
		return r.pay(ctx)
	}
	now, err := r.ledger.SinceBoot()
	if err != nil {
		return err
	}
	if left := r.rec.WatchUntilBoot - now; left > 0 && !r.req.Now {
		r.f.After = min(left, 5*time.Second)
		return nil
	}
	r.f.Action = "stop looking out: it did not appear"
	if r.req.DryRun {
		return nil
	}
	return r.drop()
}

// leaves asks whether to leave a mount that has appeared. Nobody uses one that is
// dead.
func (r *reconciling) leaves(ctx context.Context, s seen) bool {
	if r.req.Appeared == nil || s.dead != nil {
		return false
	}
	why, wait := r.req.Appeared(ctx, r.rec, s.resolved)
	switch {
	case why != "":
		r.f.Problem, r.f.After = "one appeared and is left: "+why, wait
	case wait > 0:
		r.f.State, r.f.After = "a mount appeared where one of an earlier boot is looked out for", wait
	default:
		return false
	}
	return true
}

// Forget deletes what the ledger holds about a volume, registered epochs
// included, without asking the driver. What the driver has mounted stays mounted. A record that cannot be
// read is forgotten too.
func (e *Engine) Forget(ctx context.Context, key ledger.Key) (err error) {
	op := e.describe("forget", key)
	if err := checkNames("forget", key); err != nil {
		return err
	}
	entry, err := e.ledger.Lock(ctx, op.key)
	if err != nil {
		return op.explainOwn(err)
	}
	err = errors.Join(entry.Delete(), entry.DeleteRegistration())
	return errors.Join(err, entry.Close())
}
