package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// MountRequest asks for a volume on this host.
type MountRequest struct {
	Driver, Volume string
	Options        Options
	// OptionsErr says why the options cannot be read. Nothing is mounted then, and
	// the failure counts as one of this holder's.
	OptionsErr error
	// Explicit forbids creating the volume.
	Explicit bool
	// Force allows options that endanger the data of an existing volume.
	Force  bool
	Holder Holder
}

// MountResult is a mounted volume.
type MountResult struct {
	// Path is really mounted, or a directory where the driver serves those.
	Path string `json:"path"`
	// Created says that the volume did not exist before.
	Created bool `json:"created"`
	// Shared says that it was mounted already and the driver was not asked.
	Shared bool `json:"shared"`
	// Notes are for people; they are there on failure too.
	Notes []string `json:"notes,omitempty"`
}

// Mount makes a volume available and returns where. It creates the volume if
// the driver says positively that it does not exist, unless told otherwise.
// A volume that is mounted already is shared: the driver is not asked again.
//
// It returns when ctx ends at the latest. After a crash at any point the next
// operation on the volume repairs what is left. Error kinds: BadPolicy,
// Forbidden, DriverUnknown, DriverUnreachable, NotFound, Refused, BadPath,
// Unsettled, Deadline, BadRecord, LedgerFailed, Invalid, OutdatedEpoch.
func (e *Engine) Mount(ctx context.Context, req MountRequest) (res MountResult, err error) {
	var op *operation
	defer func() { e.outcome(req, op, err) }()
	if req.OptionsErr != nil {
		return res, req.OptionsErr
	}
	if err := e.mayChange("mount", req.Driver, req.Volume, req.Options.Driver); err != nil {
		return res, err
	}
	op, err = e.begin(ctx, "mount", ledger.Key{Driver: req.Driver, Volume: req.Volume})
	if err != nil {
		return res, err
	}
	defer op.end(&err)
	m := &mounting{operation: op, req: req}
	var open map[string]string
	m.options = op.rules.withDefaults(req.Options.Driver)
	open, op.secrets = divide(m.options, op.rules)
	m.open = open

	if err := m.run(volume.WithSecrets(ctx, op.secrets)); err != nil {
		return MountResult{Notes: op.notes}, err
	}
	m.result.Path = op.rec.Path
	m.result.Notes = op.notes
	return m.result, nil
}

// mayChange checks the policy before anything is touched.
func (e *Engine) mayChange(name, driver, vol string, options map[string]string) error {
	if e.policyErr != nil {
		return e.policyErr
	}
	if err := e.policy.allows(e.canonical(driver), e.canonical, options); err != nil {
		return e.describe(name, ledger.Key{Driver: driver, Volume: vol}).explainOwn(err)
	}
	return nil
}

// mounting is a Mount under way.
type mounting struct {
	*operation
	req MountRequest
	// options are all for the driver, open those that are no secrets.
	options map[string]string
	open    map[string]string
	// epoch is the registered one under which this mount is, 0 for none.
	epoch uint64
	// vanished says that the driver mounted the volume and was not asked to
	// unmount it, and that it is not mounted any more.
	vanished bool
	// changed says that the record is not what is on disk.
	changed bool
	result  MountResult
}

func (m *mounting) run(ctx context.Context) error {
	if err := m.admit(); err != nil {
		return err
	}
	if err := m.settle(ctx); err != nil {
		return err
	}
	taken, err := m.takeOver(ctx)
	if err != nil || taken {
		return err
	}
	d, err := m.driver(ctx)
	if err != nil {
		return err
	}
	vol, err := m.exist(ctx, d)
	if err != nil {
		return err
	}
	adopted, err := m.adopt(ctx, vol)
	if err != nil || adopted {
		return err
	}
	return m.fresh(ctx, d, vol)
}

// takeOver uses what the ledger holds: a mount that is still there is shared or
// revived, one that is gone is cleared away.
func (m *mounting) takeOver(ctx context.Context) (bool, error) {
	if m.rec == nil {
		return false, nil
	}
	if m.rec.Phase != ledger.PhaseMounted || m.rec.Doubt {
		// Without a holder it keeps no other ledger of the host from unmounting, and
		// what was doubtful may be another one's.
		if err := m.quiet(ctx); err != nil {
			return false, err
		}
	}
	m.suspect, m.changed = m.rec.Doubt, m.copied
	if m.rec.Path == "" || (m.rec.Phase != ledger.PhaseMounted && m.rec.Kind != ledger.KindMountPoint && m.rec.Doubt) {
		return m.takeOverUnseen(ctx)
	}
	t, s, err := m.verify(ctx)
	if err != nil {
		if m.rec.Phase != ledger.PhasePending {
			return false, err
		}
		// Nobody holds what cannot be used: paying the owed Unmount clears it.
		m.note("an unmount was owed, because of: " + m.rec.LastError)
		return false, m.payUnmount(ctx)
	}
	switch t {
	case truthGone:
		m.note(fmt.Sprintf("it was mounted at %s and is not any more; mounting it again", m.rec.Path))
		m.suspect = true
		m.vanished = m.rec.Phase == ledger.PhaseMounted && !m.rec.Doubt
		m.lost()
		return false, nil
	case truthMoved:
		m.note("its driver has mounted it again meanwhile; tasks that were using it may need a restart")
		m.rec.Device, m.changed = s.facts.Device, true
	}
	return true, m.share()
}

// takeOverUnseen deals with a record that has no path that could be checked.
func (m *mounting) takeOverUnseen(ctx context.Context) (bool, error) {
	s := m.look(ctx)
	if s.what == present && s.dead == nil && m.usable(s) == nil {
		s.describe(m.rec)
		m.changed = true
		return true, m.share()
	}
	if s.what != absent {
		if err := m.undo(ctx); err != nil {
			return false, err
		}
	}
	m.suspect = true
	m.lost()
	return false, nil
}

// lost turns the record into a hint: nothing is mounted, but the driver may
// hold the mount ID. Its other holders keep the claim on the volume.
func (m *mounting) lost() { m.hint, m.rec = m.rec, nil }

// share takes the mount for one more holder.
func (m *mounting) share() error {
	m.result.Shared = true
	if !m.changed && m.rec.Phase == ledger.PhaseMounted && m.rec.HeldBy(m.req.Holder.Name) && m.rec.Epoch == m.epoch &&
		!m.rec.Doubt && m.rec.Attempts == 0 && m.rec.LastError == "" {
		return nil // nothing that would have to be written down
	}
	m.rec.Phase = ledger.PhaseMounted
	m.rec.Doubt = m.rec.Doubt && m.mayBeOthers()
	m.rec.Attempts, m.rec.LastError, m.rec.NextTryBoot = 0, "", 0
	m.rec.Hold(m.holder())
	m.rec.Epoch = m.epoch
	if err := m.entry.Save(m.rec); err != nil {
		return err
	}
	m.fault(FaultHolderChange)
	return nil
}

func (m *mounting) holder() ledger.Holder {
	return ledger.Holder{Name: m.req.Holder.Name, Since: m.ledger.Now(), Instance: m.req.Options.Engine[optionInstance]}
}

// exist makes sure that the volume exists. Only a driver that says positively
// that it does not gets a Create.
func (m *mounting) exist(ctx context.Context, d volume.Driver) (volume.Volume, error) {
	id, err := m.entry.Identity()
	if err != nil {
		return volume.Volume{}, err
	}
	known := volume.Ref{Name: m.key.Volume, BackendID: id.BackendID, Context: id.Context}
	vol := volume.Volume{}
	err = m.ask(ctx, func(ctx context.Context) (err error) {
		vol, err = d.Get(ctx, known)
		return err
	})
	switch {
	case err == nil:
		vol.Name = m.key.Volume
		if vol.BackendID == "" {
			vol.BackendID, vol.Context = known.BackendID, known.Context
		}
		if !m.req.Force {
			if err := m.rules.allowsOnExisting(m.options); err != nil {
				return vol, m.explainOwn(err)
			}
		}
		return vol, nil
	case errors.Is(err, volume.Unsupported):
		m.note("the driver cannot say whether the volume exists; it is mounted without creating it")
		return volume.Volume{Ref: known}, nil
	case !errors.Is(err, volume.NotFound):
		return vol, err
	}
	if m.req.Explicit || m.req.Options.explicit() || m.policy.explicitCreate(m.rules) {
		return vol, m.fail(volume.NotFound, "creating it by mounting it is not allowed here",
			"create it with `dvdcli create`, or check its name", nil)
	}
	return m.create(ctx, d)
}

// create makes the volume, in the course of a mount or for its own sake.
func (m *mounting) create(ctx context.Context, d volume.Driver) (volume.Volume, error) {
	vol, err := m.createVolume(ctx, d, m.open)
	if errors.Is(err, volume.AlreadyExists) {
		// Somebody else, such as another agent, made it since the driver said
		// that it does not exist. It is theirs and ours.
		m.note("another host created the volume at the same time")
		return volume.Volume{Ref: volume.Ref{Name: m.key.Volume}}, nil
	}
	if err == nil {
		m.result.Created = true
	}
	return vol, err
}

// createVolume calls Create, recorded, and keeps the identity that the driver
// gives the volume.
func (op *operation) createVolume(ctx context.Context, d volume.Driver, open map[string]string) (volume.Volume, error) {
	op.rec = &ledger.Record{Driver: op.key.Driver, Volume: op.key.Volume, Phase: ledger.PhaseNew, Options: volume.RedactOptions(open)}
	var vol volume.Volume
	err := op.change(ctx, ledger.OpCreate, false, func(ctx context.Context) (err error) {
		vol, err = d.Create(ctx, volume.CreateRequest{Name: op.key.Volume, Options: open, Secrets: op.secrets})
		return err
	})
	if op.rec.Call != nil {
		return vol, err
	}
	if err == nil {
		vol.Name = op.key.Volume
		if vol.BackendID != "" || len(vol.Context) > 0 {
			err = op.entry.SaveIdentity(ledger.Identity{BackendID: vol.BackendID, Context: vol.Context})
		}
	}
	if dropErr := op.drop(); dropErr != nil {
		err = errors.Join(err, dropErr)
	}
	return vol, err
}

// adopt takes over a mount that no ledger knows: made by dvdcli 0.2, which
// sends no mount ID, or made anew by the driver itself after a reboot.
func (m *mounting) adopt(ctx context.Context, vol volume.Volume) (bool, error) {
	found, err := m.orphan(ctx, vol.Mountpoint, m.req.Holder)
	if err != nil || found == nil {
		return false, err
	}
	m.rec = found
	m.rec.BackendID, m.rec.Context = vol.BackendID, vol.Context
	m.rec.Options = volume.RedactOptions(m.open)
	m.rec.Hold(m.holder())
	m.rec.Epoch = m.epoch
	m.note(fmt.Sprintf("it was found mounted at %s and taken over", m.rec.Path))
	m.result.Shared = true
	return true, m.saveMounted()
}

// orphan returns a record for the mount at path if there is a live one that
// belongs to no other ledger of this host; nil otherwise.
func (op *operation) orphan(ctx context.Context, path string, holder Holder) (*ledger.Record, error) {
	if path == "" {
		return nil, nil
	}
	s := op.lookAt(ctx, path, ledger.KindUnknown)
	if s.what != present || s.dead != nil {
		return nil, nil
	}
	if err := op.usable(s); err != nil {
		op.note("what the driver says is mounted is not taken over: " + err.Error())
		return nil, nil
	}
	if err := op.alone(ctx); err != nil {
		return nil, err
	}
	// Whoever had the volume meanwhile may just have unmounted it.
	if s = op.lookAt(ctx, path, ledger.KindUnknown); s.what != present || s.dead != nil {
		return nil, nil
	}
	other, err := op.neighbours.Holding(op.ledger, op.key)
	if err != nil {
		return nil, err
	}
	if other != "" {
		op.note(fmt.Sprintf("it is mounted at %s for the ledger in %s", path, other))
		return nil, nil
	}
	rec := &ledger.Record{Driver: op.key.Driver, Volume: op.key.Volume, Phase: ledger.PhaseMounted,
		Adopted: true, Since: op.ledger.Now()}
	switch {
	case op.hint != nil:
		rec.MountID, rec.PublishContext, rec.Target = op.hint.MountID, op.hint.PublishContext, op.hint.Target
		rec.BackendID, rec.Context = op.hint.BackendID, op.hint.Context
	case op.damaged:
		// The record that cannot be read was most likely of this mount.
		rec.MountID = op.mountID(holder)
	}
	s.describe(rec)
	return rec, nil
}

// fresh asks the driver to mount. A driver that may still hold the mount ID of
// an earlier time, and says so or answers with a path where nothing is mounted,
// is asked to let go of it and gets a second chance. Asking that of every
// driver beforehand, or after every refusal, would drive the count of those
// that count below zero, from where only their restart brings it back.
func (m *mounting) fresh(ctx context.Context, d volume.Driver, vol volume.Volume) error {
	before := m.hint
	m.suspect = m.suspect || before != nil
	m.rec = m.newRecord(before, vol)
	err := m.attempt(ctx, d)
	if m.suspect && m.rec != nil && m.rec.Call == nil && saysHeld(err) {
		m.note("the driver has the volume mounted from before; asking it to undo that first: " + err.Error())
		if undoErr := m.undo(ctx); undoErr != nil {
			return errors.Join(err, undoErr)
		}
		m.rec = m.newRecord(before, vol)
		err = m.attempt(ctx, d)
	} else if m.suspect && m.rec == nil && errors.Is(err, volume.BadPath) {
		m.note("the driver took the volume for mounted; it was unmounted and is mounted again: " + err.Error())
		m.rec = m.newRecord(before, vol)
		if m.vanished {
			// It counts, and still counts the mount that vanished: that one's Unmount
			// is the one that was never made.
			if undoErr := m.undo(ctx); undoErr != nil {
				return errors.Join(err, undoErr)
			}
			m.rec = m.newRecord(before, vol)
		}
		err = m.attempt(ctx, d)
	}
	if err == nil || m.rec == nil || m.rec.Call != nil || m.rec.Phase != ledger.PhaseNew {
		return err
	}
	if m.suspect {
		// The suspicion outlives this failure.
		m.rec.Doubt = true
		return errors.Join(err, m.watch())
	}
	return errors.Join(err, m.drop())
}

// held are words with which drivers refuse to mount what they hold already:
// "volume is already mounted by this id" (rclone), "volume is in use".
//
// Compiled when needed: programs that run once per mount pay for what they do.
var held = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?i)\b(already|mounted|attached|in use|busy|exists)\b`)
})

// saysHeld says whether a driver refused because it holds the volume.
func saysHeld(err error) bool {
	var e *volume.Error
	return errors.As(err, &e) && e.Kind == volume.Refused && held().MatchString(e.Message)
}

// attempt mounts once and writes the result down. On failure the record is
// gone (the mount was undone), new (the driver did not mount), pending (an
// Unmount is owed) or holds a call without an answer.
func (m *mounting) attempt(ctx context.Context, d volume.Driver) error {
	mounted, err := m.callMount(ctx, d)
	if volume.KindOf(err) == volume.Garbled {
		return m.giveUp(ctx, mounted, err)
	}
	if err != nil {
		return err
	}
	s, err := m.accept(ctx, mounted)
	if err == nil {
		err = m.chown(s.path)
	}
	if err == nil {
		err = m.learn(ctx, kindOf(s))
	}
	if err != nil {
		return m.giveUp(ctx, mounted, err)
	}
	if s.stacked > 1 {
		m.log.Warn("mounts lie on each other", zap.String("driver", m.key.Driver), zap.String("volume", m.key.Volume),
			zap.String("path", s.path), zap.Int("mounts", s.stacked))
	}
	if s.stacked > 1 && m.suspect {
		if s, err = m.unstack(ctx, s); err != nil {
			return err
		}
	}
	s.describe(m.rec)
	m.rec.Phase, m.rec.Since, m.rec.EarlierBoot = ledger.PhaseMounted, m.ledger.Now(), false
	m.hint = nil
	if err := m.saveMounted(); err != nil {
		return m.giveUp(ctx, mounted, err)
	}
	return nil
}

// unstack undoes a mount that came to lie on an earlier one: the driver had done
// a mount without an answer and forgotten it since. The earlier one is used, if
// it shows the same.
func (m *mounting) unstack(ctx context.Context, s seen) (seen, error) {
	m.rec.Path = s.path
	if err := m.undo(ctx); err != nil {
		return s, err
	}
	below := m.look(ctx)
	if below.what == present && below.dead == nil && below.mount.FSType == s.mount.FSType && below.mount.Source == s.mount.Source {
		m.rec.Adopted = true
		m.note("an earlier mount without an answer was found done at " + s.path + " and is used")
		return below, nil
	}
	err := m.badPath(fmt.Sprintf("%d mounts lay on each other at %s", s.stacked, s.path),
		"unmount what is there by hand: the driver no longer knows of it", below.dead)
	return s, errors.Join(err, m.drop())
}

func kindOf(s seen) ledger.PathKind {
	if s.stacked > 0 {
		return ledger.KindMountPoint
	}
	return ledger.KindDirectory
}

func (m *mounting) newRecord(before *ledger.Record, vol volume.Volume) *ledger.Record {
	r := &ledger.Record{Driver: m.key.Driver, Volume: m.key.Volume, Phase: ledger.PhaseNew,
		MountID: m.mountID(m.req.Holder), Options: volume.RedactOptions(m.open), BackendID: vol.BackendID, Context: vol.Context,
		Epoch: m.epoch}
	if before != nil {
		// A driver that remembers the earlier mount gets to know this one under
		// the same ID, so that one Unmount ends both.
		r.MountID, r.PublishContext = before.MountID, before.PublishContext
		if before.BootID == m.ledger.BootID() {
			r.Holders = before.Holders
		}
	}
	if m.dvr.Traits().CallerChoosesTarget {
		r.Target = m.target()
	}
	r.Hold(m.holder())
	return r
}

// callMount calls Mount, recorded in both directories.
func (m *mounting) callMount(ctx context.Context, d volume.Driver) (volume.Mounted, error) {
	if err := m.quiet(ctx); err != nil {
		return volume.Mounted{}, err
	}
	if m.rec.Target != "" {
		if err := os.MkdirAll(filepath.Dir(m.rec.Target), 0o755); err != nil {
			return volume.Mounted{}, m.fail(volume.LedgerFailed, "making the directory for the mount", "", err)
		}
	}
	var mounted volume.Mounted
	err := m.change(ctx, ledger.OpMount, true, func(ctx context.Context) (err error) {
		mounted, err = d.Mount(ctx, volume.MountRequest{
			Volume: m.rec.Ref(), ID: m.rec.MountID, Target: m.rec.Target,
			Options: m.open, Secrets: m.secrets, PublishContext: m.rec.PublishContext,
			Checkpoint: func(pc map[string]string) error {
				m.rec.PublishContext = pc
				return m.entry.Intend(m.rec, func() {})
			},
		})
		return err
	})
	if mounted.PublishContext != nil {
		m.rec.PublishContext = mounted.PublishContext
	}
	return mounted, err
}

// saveMounted writes a mounted record. The run directory's copy is written
// first and decides; the other is needed after a reboot only, and must be
// durable only if it holds what the driver wants back.
func (op *operation) saveMounted() error {
	if err := op.entry.Save(op.rec); err != nil {
		return err
	}
	op.fault(FaultResult)
	if err := op.entry.Keep(op.rec, op.rec.PublishContext != nil); err != nil {
		return err
	}
	op.fault(FaultResultKept)
	return nil
}

// giveUp undoes a mount whose path cannot be used, so that nothing is left
// that the caller would not know of.
func (m *mounting) giveUp(ctx context.Context, mounted volume.Mounted, cause error) error {
	m.rec.Path = mounted.Path
	m.rec.Holders = nil
	if err := m.undo(ctx); err != nil {
		return errors.Join(cause, err)
	}
	return errors.Join(cause, m.drop())
}

// undo asks the driver to release the record's mount ID when nothing tells
// whether it holds it. A refusal is as good as success: there was nothing to
// release. The record is left without an open call.
func (op *operation) undo(ctx context.Context) error {
	d, err := op.driver(ctx)
	if err != nil {
		return op.owe(err)
	}
	err = op.callUnmount(ctx, d)
	if op.rec.Call != nil {
		return err
	}
	switch volume.KindOf(err) {
	case volume.Refused, volume.NotFound, volume.Unsupported:
		if s := op.look(ctx); s.what == present || s.served {
			return op.owe(err)
		}
		op.note("the driver had nothing to undo: " + err.Error())
		op.removeTarget()
		return nil
	}
	if err != nil {
		return op.owe(err)
	}
	op.removeTarget()
	return nil
}

// chown gives the volume's root to the owner that the policy names.
func (m *mounting) chown(path string) error {
	if m.rules.Chown == "" {
		return nil
	}
	uid, gid, err := parseOwner(m.rules.Chown)
	if err == nil {
		err = os.Chown(path, uid, gid)
	}
	if err != nil {
		return m.fail(volume.BadPath, "giving "+path+" to "+m.rules.Chown+" as the policy says",
			"see chown in the policy file of this agent", err)
	}
	return nil
}
