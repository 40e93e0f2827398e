package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// removeTarget removes the directory that the engine chose as a target, now
// that nothing is mounted on it. A driver may have removed it already. It is
// never removed with anything in it.
func (op *operation) removeTarget() {
	if op.rec.Target == "" {
		return
	}
	if err := os.Remove(op.rec.Target); err != nil && !errors.Is(err, fs.ErrNotExist) {
		op.log.Warn("target directory left behind", zap.String("path", op.rec.Target), zap.Error(err))
	}
}

// CreateRequest asks for a new volume.
type CreateRequest struct {
	Driver, Volume string
	Options        Options
}

// Create makes a volume, after the policy's checks. AlreadyExists if the driver
// says so; drivers differ in whether they do. Other kinds as of Mount.
func (e *Engine) Create(ctx context.Context, req CreateRequest) (err error) {
	if err := e.mayChange("create", req.Driver, req.Volume, req.Options.Driver); err != nil {
		return err
	}
	op, err := e.begin(ctx, "create", ledger.Key{Driver: req.Driver, Volume: req.Volume})
	if err != nil {
		return err
	}
	defer op.end(&err)
	if err := op.settleIdle(ctx); err != nil {
		return err
	}
	if op.rec != nil {
		return op.fail(volume.AlreadyExists, "it is mounted at "+op.rec.Path, "", nil)
	}
	d, err := op.driver(ctx)
	if err != nil {
		return err
	}
	var open map[string]string
	open, op.secrets = divide(op.rules.withDefaults(req.Options.Driver), op.rules)
	_, err = op.createVolume(volume.WithSecrets(ctx, op.secrets), d, open)
	return err
}

// settleIdle settles and clears away a look-out, for operations that are not
// about mounting.
func (op *operation) settleIdle(ctx context.Context) error {
	if err := op.settle(ctx); err != nil {
		return err
	}
	if op.rec == nil || op.rec.Phase != ledger.PhaseWatched {
		return nil
	}
	if s := op.look(ctx); s.what == present {
		return op.payUnmount(ctx)
	}
	return op.drop()
}

// RemoveRequest destroys a volume.
type RemoveRequest struct {
	Driver, Volume string
	// Force removes it although somebody else on this host seems to use it.
	Force bool
	// Framework, if set, is who wants it removed: only what it had registered on
	// this host, under Epoch at last, and has withdrawn.
	Framework string
	Epoch     uint64
}

// Remove destroys a volume and its data. InUse while it is mounted here;
// NotFound if the driver says that it does not exist; other kinds as of Mount.
// For a framework: OutdatedEpoch where its epoch is not the one that is
// registered and withdrawn, Refused where it never registered the volume.
func (e *Engine) Remove(ctx context.Context, req RemoveRequest) (err error) {
	op, err := e.begin(ctx, "remove", ledger.Key{Driver: req.Driver, Volume: req.Volume})
	if err != nil {
		return err
	}
	defer op.end(&err)
	if err := op.settleIdle(ctx); err != nil {
		return err
	}
	if op.rec != nil {
		return op.fail(volume.InUse, op.mountedFor(), "unmount it first", nil)
	}
	if req.Framework != "" {
		if err := op.removableFor(ctx, req); err != nil {
			return err
		}
	}
	d, err := op.driver(ctx)
	if err != nil {
		return err
	}
	if !req.Force {
		if err := op.unused(ctx); err != nil {
			return err
		}
	}
	id, err := op.entry.Identity()
	if err != nil {
		return err
	}
	op.rec = &ledger.Record{Driver: op.key.Driver, Volume: op.key.Volume, Phase: ledger.PhaseNew,
		BackendID: id.BackendID, Context: id.Context}
	ref := op.rec.Ref()
	err = op.change(ctx, ledger.OpRemove, false, func(ctx context.Context) error { return d.Remove(ctx, ref) })
	if op.rec.Call != nil {
		return err
	}
	if err == nil || errors.Is(err, volume.NotFound) {
		err = errors.Join(err, op.entry.DeleteIdentity(), op.entry.DeleteRegistration())
	}
	return errors.Join(err, op.drop())
}

// removableFor says whether the volume is the framework's to remove. What the
// driver does not know any more is NotFound whoever asks, so that a removal can
// be repeated after its answer was lost.
func (op *operation) removableFor(ctx context.Context, req RemoveRequest) error {
	reg, err := op.entry.Registration()
	if err != nil {
		return op.explainOwn(err)
	}
	switch {
	case reg.Framework != req.Framework || reg.Epoch != req.Epoch || !reg.Withdrawn:
		return op.fail(volume.OutdatedEpoch, fmt.Sprintf("epoch %d of framework %s is registered on this host", reg.Epoch, reg.Framework),
			"the volume has another user since; nothing is removed", nil)
	case reg.NeverRegistered:
		if err := op.exists(ctx); err != nil {
			return err
		}
		return op.fail(volume.Refused, "framework "+req.Framework+" never had it registered on this host",
			"if nobody needs its data any more, remove it with `dvdcli remove`", nil)
	}
	return nil
}

// unused says whether nobody else on this host uses the volume: no other ledger,
// and nobody without one.
func (op *operation) unused(ctx context.Context) error {
	const hint = "unmount it there first, or give --force"
	if err := op.alone(ctx); err != nil {
		return err
	}
	other, err := op.neighbours.Holding(op.ledger, op.key)
	if err != nil {
		return err
	}
	if other != "" {
		return op.fail(volume.InUse, "the ledger in "+other+" has it", hint, nil)
	}
	path, err := op.claim(ctx)
	if err != nil || path == "" {
		return nil //nolint:nilerr // a driver that does not say may still remove
	}
	if s := op.lookAt(ctx, path, ledger.KindUnknown); s.what == present && op.usable(s) == nil {
		return op.fail(volume.InUse, "it is mounted at "+path+" without a record", hint, nil)
	}
	return nil
}

func (op *operation) mountedFor() string {
	if len(op.rec.Holders) == 0 {
		return "its unmount is still owed: " + op.rec.LastError
	}
	return "it is mounted at " + op.rec.Path + " for " + strings.Join(names(op.rec.Holders), ", ")
}

// Get describes a volume. NotFound only on the driver's word.
func (e *Engine) Get(ctx context.Context, driver, name string) (volume.Volume, error) {
	op, d, ref, err := e.question(ctx, "get", driver, name)
	if err != nil {
		return volume.Volume{}, err
	}
	var vol volume.Volume
	err = op.ask(ctx, func(ctx context.Context) (err error) {
		vol, err = d.Get(ctx, ref)
		return err
	})
	if err == nil && vol.Name == "" {
		vol.Name = name
	}
	return vol, err
}

// List describes all volumes of a driver.
func (e *Engine) List(ctx context.Context, driver string) ([]volume.Volume, error) {
	op := e.describe("list", ledger.Key{Driver: driver})
	if driver == "" {
		return nil, op.fail(volume.Invalid, "volume driver missing", "give --volumedriver", nil)
	}
	d, err := op.driver(ctx)
	if err != nil {
		return nil, err
	}
	var vols []volume.Volume
	err = op.ask(ctx, func(ctx context.Context) (err error) {
		vols, err = d.List(ctx)
		return err
	})
	return vols, err
}

// Path tells where a volume is really mounted on this host. NotMounted if it is
// not, whatever the driver claims; NotFound if there is no such volume.
func (e *Engine) Path(ctx context.Context, driver, name string) (string, error) {
	key := ledger.Key{Driver: driver, Volume: name}
	if err := checkNames("path", key); err != nil {
		return "", err
	}
	op := e.describe("path", key)
	rec, err := e.ledger.Peek(op.key)
	if err != nil {
		return "", op.explainOwn(err)
	}
	if rec != nil && rec.Phase == ledger.PhaseMounted && rec.Call == nil {
		op.rec = rec
		t, _, err := op.verify(ctx)
		if err != nil {
			return "", err
		}
		if t != truthGone {
			return rec.Path, nil
		}
		op.rec = nil
	}
	claim, err := op.claim(ctx)
	if err != nil {
		return "", err
	}
	if claim != "" {
		if s := op.lookAt(ctx, claim, ledger.KindUnknown); s.what == present && s.dead == nil && op.usable(s) == nil {
			return claim, nil
		}
	}
	if err := op.exists(ctx); err != nil {
		return "", err
	}
	return "", op.fail(volume.NotMounted, "", "mount it with `dvdcli mount`", nil)
}

// exists returns nil unless the driver says that the volume does not exist, or
// cannot say.
func (op *operation) exists(ctx context.Context) error {
	d, err := op.driver(ctx)
	if err != nil {
		return err
	}
	id, err := op.ledger.Identity(op.key)
	if err != nil {
		return op.explainOwn(err)
	}
	err = op.ask(ctx, func(ctx context.Context) error {
		_, err := d.Get(ctx, volume.Ref{Name: op.key.Volume, BackendID: id.BackendID, Context: id.Context})
		return err
	})
	if errors.Is(err, volume.Unsupported) {
		return nil // a driver of before Get
	}
	return err
}

// question prepares a call that needs no lock.
func (e *Engine) question(ctx context.Context, name, driver, vol string) (*operation, volume.Driver, volume.Ref, error) {
	key := ledger.Key{Driver: driver, Volume: vol}
	ref := volume.Ref{Name: vol}
	if err := checkNames(name, key); err != nil {
		return nil, nil, ref, err
	}
	op := e.describe(name, key)
	d, err := op.driver(ctx)
	if err != nil {
		return nil, nil, ref, err
	}
	id, err := e.ledger.Identity(op.key)
	if err != nil {
		return nil, nil, ref, op.explainOwn(err)
	}
	ref.BackendID, ref.Context = id.BackendID, id.Context
	return op, d, ref, nil
}
