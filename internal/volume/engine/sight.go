package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// sighting is what the mount table says about a volume.
type sighting int

const (
	// unclear: nothing can be said. The driver mounts plain directories, or
	// cannot be asked for the path.
	unclear sighting = iota
	// absent: it is not mounted.
	absent
	// present: something is mounted at its path.
	present
)

// seen is a sighting with its details.
type seen struct {
	what sighting
	// path is where was looked.
	path string
	// resolved, table and facts describe it; dead is why the mount there cannot
	// be used.
	resolved string
	mount    volume.MountPoint
	stacked  int
	table    string // the mount namespace
	facts    volume.PathFacts
	dead     error
	// served says that it is not mounted here, but where its driver runs.
	served bool
}

// look finds out whether the volume of op.rec is mounted. It never fails: what
// cannot be found out is unclear, with the reason in dead.
func (op *operation) look(ctx context.Context) seen {
	path := op.rec.Path
	if path == "" {
		claim, err := op.claim(ctx)
		if err != nil {
			return seen{what: unclear, dead: err}
		}
		if claim == "" {
			return seen{what: absent}
		}
		path = claim
	}
	return op.lookWhereServed(ctx, op.lookAt(ctx, path, op.pathKind()))
}

// resolvedBefore is where the path led when it was last looked at; a dead mount
// cannot be resolved any more.
func (op *operation) resolvedBefore(path string) string {
	if op.rec != nil && op.rec.Path == path && op.rec.Resolved != "" {
		return op.rec.Resolved
	}
	return filepath.Clean(path)
}

// claim asks the driver where the volume is mounted.
func (op *operation) claim(ctx context.Context) (string, error) {
	d, err := op.driver(ctx)
	if err != nil {
		return "", err
	}
	if d.Traits().CallerChoosesTarget {
		return op.target(), nil
	}
	var path string
	err = op.ask(ctx, func(ctx context.Context) (err error) {
		path, err = d.Path(ctx, op.ref())
		return err
	})
	if errors.Is(err, volume.NotFound) {
		return "", nil
	}
	return path, err
}

// ref names the volume to its driver with all that is known about it.
func (op *operation) ref() volume.Ref {
	switch {
	case op.rec != nil:
		return op.rec.Ref()
	case op.hint != nil:
		return op.hint.Ref()
	}
	return volume.Ref{Name: op.key.Volume}
}

// pathKind is what this driver's mount paths are known to be.
func (op *operation) pathKind() ledger.PathKind {
	switch {
	case op.rules.MountPoint == mountPointRequired:
		return ledger.KindMountPoint
	case op.rules.MountPoint == mountPointDirectory:
		return ledger.KindDirectory
	case op.rec != nil && op.rec.Kind != ledger.KindUnknown:
		return op.rec.Kind
	}
	facts, err := op.ledger.DriverFacts(op.key.Driver)
	if err != nil {
		return ledger.KindUnknown
	}
	return facts.Kind
}

// lookPatience is how long a file system may take to answer a look at its root
// before it is taken for dead.
const lookPatience = 10 * time.Second

// lookAt looks at one path in the mount table of this process.
func (op *operation) lookAt(ctx context.Context, path string, kind ledger.PathKind) seen {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	s := seen{path: path}
	if !filepath.IsAbs(path) {
		s.dead = fmt.Errorf("%q is not an absolute path", path)
		return s
	}
	table, err := op.mounts.Own(ctx)
	if err != nil {
		s.dead = err
		return s
	}
	s.table = table.Namespace
	facts, statErr := op.mounts.Stat(ctx, path)
	s.facts, s.dead, s.resolved = facts, statErr, facts.Resolved
	if s.resolved == "" {
		s.resolved = op.resolvedBefore(path)
	}
	s.mount, s.stacked = table.At(s.resolved)
	switch {
	case s.stacked > 0:
		s.what = present
	case errors.Is(statErr, fs.ErrNotExist), kind == ledger.KindMountPoint:
		s.what = absent
	default:
		s.what = unclear
	}
	return s
}

// lookWhereServed looks, for what is absent here, in the mount namespace of the
// driver. What is mounted there is not gone: mounts of one namespace need not be
// seen in the other.
func (op *operation) lookWhereServed(ctx context.Context, s seen) seen {
	if s.what != absent || s.path == "" {
		return s
	}
	d, err := op.driver(ctx)
	if err != nil {
		return s
	}
	server, ok := d.(volume.Served)
	if !ok {
		return s
	}
	if server.ServerPID() == 0 {
		if _, err := op.claim(ctx); err != nil && server.ServerPID() == 0 {
			return s // it does not run, and nobody sees more than this process
		}
	}
	table, err := op.mounts.OfProcess(ctx, server.ServerPID())
	if err != nil || table.Namespace == s.table {
		return s
	}
	for _, path := range []string{s.path, s.resolved} {
		if _, stacked := table.At(path); stacked > 0 {
			s.what, s.served = unclear, true
			s.dead = fmt.Errorf("it is mounted in the driver's mount namespace %s and not in this one, %s", table.Namespace, s.table)
		}
	}
	return s
}

// describe copies what was seen into a record.
func (s seen) describe(r *ledger.Record) {
	r.Path, r.Resolved, r.Namespace, r.Device = s.path, s.resolved, s.table, s.facts.Device
	r.Kind, r.FSType, r.Source = ledger.KindDirectory, "", ""
	if s.stacked > 0 {
		r.Kind, r.FSType, r.Source = ledger.KindMountPoint, s.mount.FSType, s.mount.Source
	}
}

// accept checks the path that a driver answered Mount with: absolute, existing,
// a directory, inside the root that the policy gives, and a mount point where
// this driver's paths are. It returns volume.BadPath otherwise.
func (op *operation) accept(ctx context.Context, m volume.Mounted) (seen, error) {
	if m.Path == "" {
		return seen{}, op.badPath("the driver answered with an empty path", "this is a fault of the driver; see its log", nil)
	}
	s := op.lookAt(ctx, m.Path, ledger.KindUnknown)
	if s.dead != nil && filepath.IsAbs(m.Path) {
		return s, op.badPath(m.Path+" cannot be used"+op.elsewhere(ctx, m, s), hintPropagation, s.dead)
	}
	if err := op.usable(s); err != nil {
		return s, err
	}
	if s.stacked > 0 {
		return s, nil
	}
	if where := op.elsewhere(ctx, m, s); where != "" {
		return s, op.badPath(m.Path+where, hintPropagation, nil)
	}
	return s, op.acceptDirectory(m.Path)
}

// usable says whether what was seen at a path that the driver told may be given
// to callers, be it the driver's answer to Mount or its claim.
func (op *operation) usable(s seen) error {
	switch {
	case !filepath.IsAbs(s.path):
		return op.badPath(fmt.Sprintf("the driver answered with the relative path %q", s.path), "this is a fault of the driver; see its log", nil)
	case strings.TrimSpace(s.path) != s.path || strings.ContainsAny(s.path, "\n\r\x00"):
		return op.badPath(fmt.Sprintf("the driver answered with the path %q, which callers that trim lines would misread", s.path), "rename the volume or change the driver's directory", nil)
	case !s.facts.IsDir:
		return op.badPath(s.path+" is not a directory", "the isolator mounts directories only", nil)
	case op.rules.Root != "" && !inside(op.rules.Root, s.resolved):
		return op.badPath(fmt.Sprintf("%s is outside of %s", s.path, op.rules.Root), "see root in the policy file of this agent", nil)
	}
	return op.mine(s)
}

// system are directories that no volume is mounted on: a driver that names one
// of them would hand the host to a container.
var system = []string{"/", "/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc",
	"/root", "/run", "/sbin", "/sys", "/tmp", "/usr", "/var", "/var/lib", "/var/run"}

// mine says whether what was seen can be this volume's: it is no part of the
// system or of the ledger, and no other volume's in this ledger.
func (op *operation) mine(s seen) error {
	const hint = "this is a fault of the driver; see its log"
	reserved := slices.Contains(system, s.resolved) || inside("/proc", s.resolved) || inside("/sys", s.resolved) || inside("/dev", s.resolved) && !inside("/dev/shm", s.resolved)
	for _, dir := range []string{op.ledger.RunDir(), op.ledger.StateDir()} {
		reserved = reserved || inside(s.resolved, dir) || inside(dir, s.resolved) && s.resolved != op.target()
	}
	if reserved {
		return op.badPath(s.path+" is a directory of the system, not of a volume", hint, nil)
	}
	others, err := op.ledger.Occupants(s.resolved, op.key)
	if err != nil {
		return err
	}
	for _, other := range others {
		if s.stacked == 1 && other.Device != s.facts.Device {
			continue // that one is gone from there
		}
		return op.badPath(fmt.Sprintf("%s is where volume %q of driver %q is mounted", s.path, other.Volume, other.Driver),
			hint+"; if that volume is no longer mounted there, unmount it or forget it with `dvdcli ledger forget`", nil)
	}
	return nil
}

const hintPropagation = "run driver and agent in one mount namespace, or make the driver's mounts propagate (PrivateTmp, PrivateMounts, ProtectSystem in their units hide them); see `dvdcli doctor`"

// acceptDirectory says whether a path that is no mount point will do.
func (op *operation) acceptDirectory(path string) error {
	// A driver that keeps its count when its own umount fails takes for mounted for
	// ever what somebody unmounted by hand.
	const hint = "the volume is not mounted where the driver says: see the driver's log; if it really serves plain directories, set mountpoint: directory for it in the policy; if the volume was unmounted by hand, restart the plugin"
	switch op.rules.MountPoint {
	case mountPointDirectory:
		return nil
	case mountPointRequired:
		return op.badPath(path+" is not a mount point, which the policy requires", hint, nil)
	}
	facts, err := op.ledger.DriverFacts(op.key.Driver)
	if err != nil {
		return err
	}
	if facts.Kind == ledger.KindMountPoint {
		return op.badPath(path+" is not a mount point, as this driver's paths were before", hint, nil)
	}
	return nil
}

// elsewhere says in words that the path is mounted where only the driver sees
// it; empty if it is not, or if that cannot be known.
func (op *operation) elsewhere(ctx context.Context, m volume.Mounted, s seen) string {
	if m.ServerPID == 0 {
		return ""
	}
	if n, ok := op.mounts.(volume.Namespaces); ok {
		if namespace, err := n.Namespace(m.ServerPID); err != nil || namespace == s.table {
			return "" // nothing that a look at its table could tell
		}
	}
	table, err := op.mounts.OfProcess(ctx, m.ServerPID)
	if err != nil || table.Namespace == s.table {
		return ""
	}
	if _, stacked := table.At(m.Path); stacked == 0 {
		return ""
	}
	return fmt.Sprintf(" is mounted in the driver's mount namespace %s and not in this one, %s", table.Namespace, s.table)
}

// learn keeps what kind of path this driver returns.
func (op *operation) learn(ctx context.Context, kind ledger.PathKind) error {
	facts, err := op.ledger.DriverFacts(op.key.Driver)
	if err != nil {
		return err
	}
	if facts.Kind == kind || facts.Kind == ledger.KindMountPoint || op.rules.MountPoint == mountPointDirectory {
		return nil
	}
	if err := op.ledger.LearnKind(ctx, op.key.Driver, kind); err != nil {
		return err
	}
	op.fault(FaultKindLearned)
	return nil
}

// truth is what became of a mount that the ledger says is there.
type truth int

const (
	truthHolds truth = iota
	truthMoved       // the driver mounted the same thing again
	truthGone        // it is no longer mounted
)

// verify compares a mounted record with the mount table. An error means that
// the path must not be used and that nothing may be mounted over it either.
func (op *operation) verify(ctx context.Context) (truth, seen, error) {
	s := op.look(ctx)
	const hint = "stop the tasks that use it, so that it is unmounted, and start them again; or unmount it with `dvdcli unmount --force`"
	r := op.rec
	if r.Kind != ledger.KindMountPoint {
		switch {
		case errors.Is(s.dead, fs.ErrNotExist):
			return truthGone, s, nil
		case s.dead != nil:
			return 0, s, op.badPath(r.Path+" cannot be used any more", hint, s.dead)
		case !s.facts.IsDir || s.facts.Device != r.Device:
			return 0, s, op.badPath(fmt.Sprintf("%s was on device %d and is on device %d now", r.Path, r.Device, s.facts.Device), hint, nil)
		}
		return truthHolds, s, nil
	}
	switch {
	case s.what == absent && r.Namespace != "" && s.table != r.Namespace:
		return 0, s, op.badPath(fmt.Sprintf("%s was mounted in mount namespace %s and is not mounted in this one, %s", r.Path, r.Namespace, s.table), hintPropagation, nil)
	case s.what == absent:
		return truthGone, s, nil
	case s.what == unclear:
		return 0, s, op.badPath("whether "+r.Path+" is still mounted cannot be told", "see `dvdcli doctor`", s.dead)
	case s.dead != nil:
		return 0, s, op.badPath(r.Path+" is mounted and dead; its driver has probably been stopped", hint, s.dead)
	case s.facts.Device == r.Device:
		return truthHolds, s, nil
	case s.mount.FSType == r.FSType && s.mount.Source == r.Source:
		return truthMoved, s, nil
	}
	return 0, s, op.badPath(fmt.Sprintf("%s showed %s from %s and shows %s from %s now", r.Path, r.FSType, r.Source, s.mount.FSType, s.mount.Source), hint, nil)
}

func (op *operation) badPath(message, hint string, cause error) error {
	return op.fail(volume.BadPath, message, hint, cause)
}

func inside(root, path string) bool {
	rel, err := filepath.Rel(root, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(os.PathSeparator))
}
