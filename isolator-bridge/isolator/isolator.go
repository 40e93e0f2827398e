package isolator

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// Engine is what the isolator needs of the volume engine.
type Engine interface {
	Ledger() *ledger.Ledger
	Mount(context.Context, engine.MountRequest) (engine.MountResult, error)
	Unmount(context.Context, engine.UnmountRequest) (engine.UnmountResult, error)
	Path(ctx context.Context, driver, volume string) (string, error)
}

// Config is what an Isolator works with. Engine is required.
type Config struct {
	Engine Engine
	// DefaultDriver is the driver of volumes for which an environment names
	// none; empty: rexray, as mesos-module-dvdi has it.
	DefaultDriver string
	// Life ends when the process has to: what a failed Prepare mounted is not
	// waited for any more, but given up by the next Tidy. Nil: never.
	Life context.Context
	// Changed, if not nil, is told what happened to a volume, from any
	// goroutine.
	Changed func(Change)
	Log     *zap.Logger
	// Fault, if not nil, is called between steps: tests crash there.
	Fault func(FaultPoint)
}

// Change is something that happened to a volume of a container.
type Change struct {
	Container string
	Outcome   Outcome
}

// FaultPoint is a place between two steps where a crash must leave no harm.
type FaultPoint string

// The fault points.
const (
	FaultWanted   FaultPoint = "container-wanted"   // written down, nothing mounted
	FaultMounted  FaultPoint = "container-mounted"  // all mounted, not written down
	FaultPrepared FaultPoint = "container-prepared" // written down, not answered
	FaultCleaning FaultPoint = "container-cleaning" // the end is written down
	FaultReleased FaultPoint = "container-released" // unmounted, still written down
)

// FaultPoints are all of them.
func FaultPoints() []FaultPoint {
	return []FaultPoint{FaultWanted, FaultMounted, FaultPrepared, FaultCleaning, FaultReleased}
}

// State is what became of a volume for a container.
type State string

// The states.
const (
	Mounted  State = "mounted"
	Released State = "released" // given up; unmounted unless others hold it
	Owed     State = "owed"     // given up, the driver's unmount failed and is owed
	Failed   State = "failed"   // not mounted
	Lost     State = "lost"     // should be mounted and is not
)

// Outcome is what became of one volume.
type Outcome struct {
	Key           ledger.Key
	State         State
	Path          string
	ContainerPath string
	Created       bool
	Shared        bool
	HeldBy        []string
	Notes         []string
	Err           error
}

// Outcomes are those of one container's volumes, in the order of the request.
type Outcomes struct {
	Container string
	Volumes   []Outcome
	Notes     []string
}

// err joins what went wrong.
func (o Outcomes) err() error {
	var errs []error
	for _, v := range o.Volumes {
		errs = append(errs, v.Err)
	}
	return errors.Join(errs...)
}

// Isolator is safe for concurrent use; calls for one container wait for each
// other, those for different containers only where they use the same volume.
// Only one may exist per run directory: the bridge's lock sees to that.
type Isolator struct {
	engine  Engine
	store   store
	driver  string
	changed func(Change)
	log     *zap.Logger
	fault   func(FaultPoint)
	turns   turns
	life    context.Context
}

// New opens the list of containers below the ledger's run directory.
func New(cfg Config) (*Isolator, error) {
	s, err := openStore(filepath.Join(cfg.Engine.Ledger().RunDir(), "containers"))
	if err != nil {
		return nil, err
	}
	i := &Isolator{engine: cfg.Engine, store: s, driver: cfg.DefaultDriver, changed: cfg.Changed, log: cfg.Log, fault: cfg.Fault}
	if i.life = cfg.Life; i.life == nil {
		i.life = context.Background()
	}
	if i.driver == "" {
		i.driver = "rexray"
	}
	if i.changed == nil {
		i.changed = func(Change) {}
	}
	if i.log == nil {
		i.log = zap.NewNop()
	}
	if i.fault == nil {
		i.fault = func(FaultPoint) {}
	}
	return i, nil
}

// Request asks for a container's volumes: by Volumes or by Environment.
type Request struct {
	ID, Owner   string
	Volumes     []Spec
	Environment map[string]string
}

// validID is what can name a container: Mesos's own ids are UUIDs
// (src/common/validation.cpp allows more, none of which its agent makes).
var validID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$`)

func checkID(id, owner string) error {
	if !validID.MatchString(id) {
		return invalid(fmt.Sprintf("container id %q", id), "an id has letters, digits, dots, dashes and underscores, begins with a letter or digit, and is at most 255 bytes long")
	}
	if len(owner) > 255 || strings.ContainsFunc(owner, func(r rune) bool { return r < ' ' }) {
		return invalid(fmt.Sprintf("owner %q", owner), "an owner is a text of at most 255 bytes in one line")
	}
	return nil
}

// holderPrefix begins the names by which containers hold volumes in the ledger.
const holderPrefix = "container:"

// Holder is the name by which a container holds volumes in the ledger.
func Holder(owner, id string) string {
	if owner == "" {
		return holderPrefix + id
	}
	return holderPrefix + id + "@" + owner
}

// ContainerOf returns the container that a holder's name means, if it is one.
func ContainerOf(holder string) (id string, ok bool) {
	rest, ok := strings.CutPrefix(holder, holderPrefix)
	id, _, _ = strings.Cut(rest, "@")
	return id, ok
}

// Prepare mounts all volumes of a container, or none: when it fails, those that
// were mounted are given up again. The outcomes tell about each volume, also
// with an error. Repeating it with the same volumes changes nothing: when that
// fails, too, nothing is given up, as the container may be running.
//
// Error kinds are those of engine.Engine.Mount; Invalid for a wrong request;
// InUse if the container is prepared with other volumes or options; Forbidden
// for a container path.
func (i *Isolator) Prepare(ctx context.Context, req Request) (Outcomes, error) {
	out := Outcomes{Container: req.ID}
	if err := checkID(req.ID, req.Owner); err != nil {
		return out, err
	}
	specs, notes, err := i.specs(req)
	out.Notes = notes
	for _, n := range notes {
		i.log.Warn("environment of a container", zap.String("container", req.ID), zap.String("note", n))
	}
	if err != nil {
		return out, err
	}
	done, err := i.turns.take(ctx, req.Owner, req.ID)
	if err != nil {
		return out, busy("prepare", req.ID, err)
	}
	defer done()
	c, again, err := i.admit(req, specs)
	if err != nil || len(specs) == 0 {
		return out, err
	}
	out.Volumes = i.mountAll(ctx, c, specs)
	if again {
		i.report(out)
		return out, out.err()
	}
	i.fault(FaultMounted)
	if err := out.err(); err != nil {
		return out, errors.Join(err, i.revert(ctx, c, &out))
	}
	c.Phase = prepared
	if err := i.store.save(c); err != nil {
		return out, errors.Join(err, i.revert(ctx, c, &out))
	}
	i.fault(FaultPrepared)
	i.report(out)
	return out, nil
}

func (i *Isolator) specs(req Request) ([]Spec, []string, error) {
	specs, notes := req.Volumes, []string(nil)
	if len(req.Environment) > 0 {
		if len(specs) > 0 {
			return nil, nil, invalid("both volumes and an environment are given", "give one of them")
		}
		var err error
		if specs, notes, err = FromEnvironment(req.Environment, i.driver); err != nil {
			return nil, notes, err
		}
	}
	seen := map[ledger.Key]bool{}
	for _, s := range specs {
		if s.Key.Driver == "" || s.Key.Volume == "" {
			return nil, notes, invalid("a volume without driver or name", "name both")
		}
		if seen[s.Key] {
			return nil, notes, invalid(fmt.Sprintf("volume %q of driver %q is named twice", s.Key.Volume, s.Key.Driver), "name a volume once")
		}
		seen[s.Key] = true
	}
	return specs, notes, nil
}

// admit writes the container down, before anything is mounted for it; again says
// that it is prepared already, with just these volumes.
func (i *Isolator) admit(req Request, specs []Spec) (c *container, again bool, err error) {
	c = &container{ID: req.ID, Owner: req.Owner, Phase: preparing}
	for _, s := range specs {
		c.Volumes = append(c.Volumes, wanted{Driver: s.Key.Driver, Volume: s.Key.Volume, ContainerPath: s.ContainerPath, Options: s.digest()})
	}
	before, err := i.store.load(req.Owner, req.ID)
	if err != nil {
		return nil, false, err
	}
	if before != nil && before.Phase == prepared && !slices.EqualFunc(before.Volumes, c.Volumes, wanted.same) {
		return nil, false, &volume.Error{Kind: volume.InUse, Op: "prepare", Message: "container " + req.ID + " is prepared with other volumes or options",
			Hint: "clean it up first, or use another id"}
	}
	if before != nil && before.Phase != prepared {
		// Of an attempt that was cut short: what it asked for is to be given up
		// with the rest, should this one be cut short, too.
		for _, w := range before.Volumes {
			if !slices.ContainsFunc(c.Volumes, func(v wanted) bool { return v.key() == w.key() }) {
				return nil, false, &volume.Error{Kind: volume.Deadline, Op: "prepare", Message: "an earlier preparation of container " + req.ID + " with other volumes is being undone",
					Hint: "try again later"}
			}
		}
	}
	for _, s := range specs {
		if err := containerPath(s.ContainerPath); err != nil {
			return nil, false, err
		}
	}
	again = before != nil && before.Phase == prepared
	if len(specs) == 0 || again {
		return c, again, nil
	}
	if err := i.store.save(c); err != nil {
		return nil, false, err
	}
	i.fault(FaultWanted)
	return c, false, nil
}

// mountAll mounts the volumes at the same time: each has a driver of its own to
// wait for.
func (i *Isolator) mountAll(ctx context.Context, c *container, specs []Spec) []Outcome {
	out := make([]Outcome, len(specs))
	var all sync.WaitGroup
	for n, s := range specs {
		all.Go(func() { out[n] = i.mount(ctx, c, s) })
	}
	all.Wait()
	return out
}

func (i *Isolator) mount(ctx context.Context, c *container, s Spec) Outcome {
	o := Outcome{Key: s.Key, ContainerPath: s.ContainerPath}
	options := engine.Options{Driver: map[string]string{}, Engine: map[string]string{}}
	for k, v := range s.Options {
		if strings.HasPrefix(k, "dvdi.") {
			options.Engine[k] = v
		} else {
			options.Driver[k] = v
		}
	}
	res, err := i.engine.Mount(ctx, engine.MountRequest{Driver: s.Key.Driver, Volume: s.Key.Volume, Options: options,
		Explicit: s.Explicit, Holder: engine.Holder{Name: Holder(c.Owner, c.ID)}})
	o.Path, o.Created, o.Shared, o.Notes, o.Err, o.State = res.Path, res.Created, res.Shared, res.Notes, err, Mounted
	if err != nil {
		o.State, o.Path = Failed, ""
	}
	return o
}

// undoLimit bounds the giving up of what a failed Prepare mounted. The caller's
// own time may be over; the volumes must not stay for that.
const undoLimit = time.Minute

// revert gives up what a failed Prepare mounted. It goes over the outcomes:
// what failed keeps its error.
func (i *Isolator) revert(ctx context.Context, c *container, out *Outcomes) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	defer context.AfterFunc(i.life, cancel)()
	c.Phase = cleaning
	saveErr := i.store.save(c)
	for n, r := range i.releaseAll(ctx, c) {
		o := &out.Volumes[n]
		o.Path = ""
		o.HeldBy = r.HeldBy
		if o.State == Mounted || r.State == Owed {
			o.State = r.State
		}
		o.Notes = append(o.Notes, r.Notes...)
		if r.Err != nil {
			o.Notes = append(o.Notes, "giving it up failed and will be tried again: "+r.Err.Error())
		}
	}
	i.report(*out)
	return errors.Join(saveErr, i.finish(c))
}

// Cleanup gives up the volumes of a container that has ended. A container that
// nobody prepared has none. When a driver fails the reference is gone all the
// same and the unmount is owed; the error and the outcomes tell.
func (i *Isolator) Cleanup(ctx context.Context, owner, id string) (Outcomes, error) {
	out := Outcomes{Container: id}
	if err := checkID(id, owner); err != nil {
		return out, err
	}
	done, err := i.turns.take(ctx, owner, id)
	if err != nil {
		return out, busy("clean up", id, err)
	}
	defer done()
	return i.cleanup(ctx, owner, id)
}

func (i *Isolator) cleanup(ctx context.Context, owner, id string) (Outcomes, error) {
	out := Outcomes{Container: id}
	c, err := i.find(owner, id)
	if err != nil || c == nil {
		return out, err
	}
	c.Phase = cleaning
	if err := i.store.save(c); err != nil {
		if !noRoom(err) {
			return out, err
		}
		// What counts is who holds the volumes, and that is given up all the same.
		out.Notes = append(out.Notes, "cleaning up without writing it down: "+err.Error())
		i.log.Warn("container cleaned up without writing it down", zap.String("container", id), zap.Error(err))
	}
	i.fault(FaultCleaning)
	out.Volumes = i.releaseAll(ctx, c)
	i.fault(FaultReleased)
	i.report(out)
	return out, errors.Join(out.err(), i.finish(c))
}

// noRoom says that nothing can be written where it should be.
func noRoom(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EROFS)
}

// find puts together what the store and the ledger know of a container; nil if
// neither knows it.
func (i *Isolator) find(owner, id string) (*container, error) {
	c, err := i.store.load(owner, id)
	if err != nil {
		i.log.Warn("container not readable, looking in the ledger", zap.String("container", id), zap.Error(err))
		c = nil
	}
	held, err := i.held(Holder(owner, id))
	if err != nil {
		return nil, err
	}
	if c == nil && len(held) == 0 {
		return nil, nil
	}
	if c == nil {
		c = &container{ID: id, Owner: owner}
	}
	for _, key := range held {
		if !slices.ContainsFunc(c.Volumes, func(w wanted) bool { return w.key() == key }) {
			c.Volumes = append(c.Volumes, wanted{Driver: key.Driver, Volume: key.Volume})
		}
	}
	return c, nil
}

// held are the volumes that a holder has in the ledger.
func (i *Isolator) held(holder string) ([]ledger.Key, error) {
	list, err := i.engine.Ledger().List()
	if err != nil {
		return nil, err
	}
	var keys []ledger.Key
	for _, item := range list {
		if item.Record != nil && !item.Hint && item.Record.HeldBy(holder) {
			keys = append(keys, item.Record.Key())
		}
	}
	return keys, nil
}

func (i *Isolator) releaseAll(ctx context.Context, c *container) []Outcome {
	out := make([]Outcome, len(c.Volumes))
	var all sync.WaitGroup
	for n, w := range c.Volumes {
		all.Go(func() { out[n] = i.release(ctx, c, w) })
	}
	all.Wait()
	return out
}

func (i *Isolator) release(ctx context.Context, c *container, w wanted) Outcome {
	o := Outcome{Key: w.key(), ContainerPath: w.ContainerPath, State: Released}
	res, err := i.engine.Unmount(ctx, engine.UnmountRequest{Driver: w.Driver, Volume: w.Volume,
		Holder: engine.Holder{Name: Holder(c.Owner, c.ID)}})
	o.HeldBy, o.Notes, o.Err = res.HeldBy, res.Notes, err
	if err != nil {
		o.State = Owed
	}
	return o
}

// finish forgets a container of which nothing is left. A reference that could
// not be taken off the ledger (it was locked, or a call is open) keeps the
// container: Tidy tries again.
func (i *Isolator) finish(c *container) error {
	held, err := i.held(Holder(c.Owner, c.ID))
	if err != nil || len(held) > 0 {
		return err
	}
	return i.store.remove(c)
}

func (i *Isolator) report(out Outcomes) {
	for _, v := range out.Volumes {
		i.changed(Change{out.Container, v})
		fields := []zap.Field{zap.String("container", out.Container), zap.String("driver", v.Key.Driver),
			zap.String("volume", v.Key.Volume), zap.String("state", string(v.State))}
		if v.Err != nil {
			i.log.Warn("volume of a container", append(fields, zap.Error(v.Err))...)
		} else {
			i.log.Info("volume of a container", fields...)
		}
	}
}

func busy(op, id string, cause error) error {
	return &volume.Error{Kind: volume.Deadline, Op: op, Message: "another call for container " + id + " is going on",
		Hint: "try again later", Err: cause}
}
