package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// operation is one operation on one volume, from taking the lock to releasing
// it. It belongs to one goroutine.
type operation struct {
	*Engine
	name     string
	key      ledger.Key
	entry    *ledger.Entry
	rules    DriverRules
	timeouts Timeouts
	secrets  volume.Secrets
	started  time.Time
	pid      int

	// rec is the record of this boot, nil if nothing is known to be mounted or
	// going on. What it says is on disk, except between a change and its save.
	rec *ledger.Record
	// hint is a record of an earlier boot.
	hint *ledger.Record
	// copied says that rec is the state directory's copy and that the run directory
	// has none.
	copied bool
	// damaged says that a record was set aside: what it said is unknown.
	damaged bool
	// suspect says that the driver may hold our mount ID although nothing is
	// mounted: should it refuse a Mount, an Unmount of the ID comes first.
	suspect bool
	// host is the lock that keeps the other ledgers of this host from mounting
	// and unmounting the volume; nil until it is needed. borrowed says that it is
	// another operation's.
	host     *ledger.FileLock
	borrowed bool

	// unwritten says that people know by now that something was not written down.
	unwritten bool

	// dvr is the driver once it was needed.
	dvr   volume.Driver
	notes []string
}

// begin takes the volume's lock and reads its record.
func (e *Engine) begin(ctx context.Context, name string, key ledger.Key) (*operation, error) {
	op := e.describe(name, key)
	if err := checkNames(name, key); err != nil {
		return nil, err
	}
	entry, err := e.ledger.Lock(ctx, op.key)
	if err != nil {
		return nil, op.explainOwn(err)
	}
	return op, op.attach(entry)
}

// describe makes an operation that has no lock yet. Whatever the driver was
// called by, its one name counts: there is one record and one set of rules.
func (e *Engine) describe(name string, key ledger.Key) *operation {
	key.Driver = e.canonical(key.Driver)
	op := &operation{Engine: e, name: name, key: key, rules: e.policy.rulesFor(key.Driver, e.canonical), started: time.Now(), pid: os.Getpid()}
	op.timeouts = op.rules.Timeouts.timeouts().over(e.timeouts)
	return op
}

// attach reads the record under the lock; on failure the lock is released.
func (op *operation) attach(entry *ledger.Entry) error {
	op.entry = entry
	loaded, err := entry.Load()
	if err != nil {
		return errors.Join(op.explainOwn(err), entry.Close())
	}
	for _, s := range loaded.SetAside {
		op.damaged = true
		op.note(fmt.Sprintf("a damaged record of this volume was set aside as %s (%s)", s.File, s.Reason))
		op.log.Warn("set a damaged ledger record aside", zap.String("driver", op.key.Driver), zap.String("volume", op.key.Volume),
			zap.String("file", s.File), zap.String("reason", s.Reason))
	}
	op.rec, op.hint = loaded.Current, loaded.Hint
	if op.hint != nil && op.hint.BootID == op.ledger.BootID() {
		// This boot, but the run directory lost it: somebody emptied it, or its
		// record was damaged. The copy is as good until the mount table objects.
		op.rec, op.hint = op.hint, nil
		op.copied = true
	}
	if op.hint != nil && op.hint.Phase == ledger.PhaseReleased {
		op.hint = nil
	}
	return nil
}

// end releases the lock.
func (op *operation) end(err *error) {
	if op.host != nil && !op.borrowed {
		if hostErr := op.host.Discard(); hostErr != nil {
			*err = errors.Join(*err, hostErr)
		}
	}
	if op.rec == nil && op.hint == nil {
		op.entry.Unused()
	}
	if closeErr := op.entry.Close(); closeErr != nil {
		*err = errors.Join(*err, closeErr)
	}
}

func (op *operation) note(text string) { op.notes = append(op.notes, text) }

// driver opens the driver, once.
func (op *operation) driver(ctx context.Context) (volume.Driver, error) {
	if op.dvr != nil {
		return op.dvr, nil
	}
	ctx, cancel := context.WithTimeout(ctx, op.timeouts.Query)
	defer cancel()
	start := time.Now()
	d, err := op.drivers.Open(ctx, op.key.Driver)
	if err != nil {
		return nil, op.explain(err, time.Since(start))
	}
	op.dvr = d
	return d, nil
}

// fail makes an error of the engine's own.
func (op *operation) fail(kind volume.Kind, message, hint string, cause error) error {
	return &volume.Error{Kind: kind, Op: op.name, Driver: op.key.Driver, Volume: op.key.Volume,
		Message: op.secrets.Redact(message), Hint: hint, Err: cause, Elapsed: time.Since(op.started)}
}

// explainOwn completes an error of the ledger or the policy.
func (op *operation) explainOwn(err error) error {
	var e *volume.Error
	if !errors.As(err, &e) {
		return err
	}
	out := *e
	out.Op = op.name + withColon(out.Op)
	out.Driver, out.Volume, out.Elapsed = op.key.Driver, op.key.Volume, time.Since(op.started)
	return &out
}

// drop deletes the record.
func (op *operation) drop() error {
	if err := op.entry.Delete(); err != nil {
		return err
	}
	op.rec = nil
	op.fault(FaultDeleted)
	return nil
}

// release writes down that the driver gave the mount up, and deletes the
// record. Written first, so that a crash before the deletion does not look like
// an Unmount without an answer.
func (op *operation) release() error {
	op.rec.Call = nil
	op.rec.Phase = ledger.PhaseReleased
	op.rec.Holders = nil
	if err := op.entry.Save(op.rec); err != nil && !op.goesOnWithout(err) {
		return err
	}
	op.fault(FaultReleased)
	err := op.drop()
	if err != nil && op.goesOnWithout(err) {
		op.rec, err = nil, nil
	}
	return err
}

// mountID is stable for a run directory, driver, volume and holder, so that it
// is the same after any crash.
func (op *operation) mountID(holder Holder) string {
	h := sha256.New()
	for _, s := range []string{op.ledger.RunDir(), op.key.Driver, op.key.Volume, holder.Name} {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// target is where drivers mount that let the caller choose.
func (op *operation) target() string {
	return filepath.Join(op.ledger.RunDir(), "targets", op.key.FileName())
}

// maxName bounds names: longer ones are mistakes, and drivers keep them in
// file names and URLs.
const maxName = 4096

// checkNames refuses names that no driver can mean. Anything else is the
// driver's business: it never becomes a path here.
func checkNames(opName string, key ledger.Key) error {
	for _, n := range []struct{ what, value string }{{"volume driver", key.Driver}, {"volume name", key.Volume}} {
		bad := ""
		switch {
		case n.value == "":
			bad = "missing"
		case len(n.value) > maxName:
			bad = fmt.Sprintf("longer than %d bytes", maxName)
		case strings.ContainsRune(n.value, 0):
			bad = "with a NUL byte"
		}
		if bad != "" {
			return &volume.Error{Kind: volume.Invalid, Op: opName, Message: n.what + " " + bad,
				Hint: "give --volumedriver and --volumename"}
		}
	}
	return nil
}
