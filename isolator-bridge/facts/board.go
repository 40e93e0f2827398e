package facts

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/fence"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/snapshot"
)

// BoardConfig is what a Board knows of its agent and asks.
type BoardConfig struct {
	Ledger  *ledger.Ledger
	Drivers volume.Drivers
	Getter  Getter
	// Policy reads what this agent's operator allows: a driver whose volumes may not
	// be mounted is not told of. Nil: everything is allowed.
	Policy func() (*engine.Policy, error)
	// Leases is nil where the bridge keeps none.
	Leases *fence.Keeper
	// Snapshots are the bridge's looks at containers; nil: SetUses is called.
	Snapshots *snapshot.Board
	// AgentID tells Mesos's id of the agent, empty if unknown; may be nil.
	AgentID func() string
	// Hostname and Zone are the agent's, Labels what its operator says of it.
	Hostname, Zone string
	Labels         map[string]string
	// AttachLimits are how many volumes of a driver can be attached here.
	AttachLimits map[string]uint32
	Version      string

	// Look is how often the ledger is looked at for changes [500ms], Health how
	// often the drivers are asked [15s], Answer how long one may take [5s],
	// Replicas how often a driver is asked about one volume [5m], and how long one
	// that had no answer is not asked for a volume's zone.
	Look, Health, Answer, Replicas time.Duration
	Log                            *zap.Logger
}

func (c BoardConfig) withDefaults() BoardConfig {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&c.Look, 500 * time.Millisecond}, {&c.Health, 15 * time.Second}, {&c.Answer, 5 * time.Second}, {&c.Replicas, 5 * time.Minute}} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return c
}

// Board holds the facts and tells changes to whoever watches. It is safe for
// concurrent use.
type Board struct {
	cfg      BoardConfig
	drivers  *driverBook
	replicas *replicaBook
	zones    *zoneBook
	kick     chan struct{} // look now

	mu sync.Mutex // guards all below
	// uses is the latest look at the agent's containers.
	uses Uses
	// head is Facts without volumes; headRevision that of its last change.
	head         *client.Facts
	headRevision uint64
	volumes      map[ledger.Key]stated
	// gone are volumes on which there is nothing more to say, with the revision
	// at which that became so. Those before forgotten are not known any more.
	gone      map[ledger.Key]uint64
	forgotten uint64
	revision  uint64
	// changed is closed at each change, and replaced.
	changed chan struct{}
}

// stated is a volume as told, and since which revision.
type stated struct {
	volume   *client.Volume
	revision uint64
}

// maxGone bounds what is remembered for watchers that are behind: they are told
// everything anew.
const maxGone = 1024

// NewBoard makes a Board that knows nothing before Run.
func NewBoard(cfg BoardConfig) *Board {
	cfg = cfg.withDefaults()
	return &Board{
		cfg:      cfg,
		drivers:  &driverBook{drivers: cfg.Drivers, policy: cfg.Policy, timeout: cfg.Answer},
		replicas: &replicaBook{getter: cfg.Getter, every: cfg.Replicas, known: map[ledger.Key]replicas{}, mute: map[string]time.Time{}},
		zones:    newZoneBook(cfg.Getter, cfg.Answer, cfg.Replicas),
		kick:     make(chan struct{}, 1),
		head:     &client.Facts{},
		volumes:  map[ledger.Key]stated{}, gone: map[ledger.Key]uint64{}, changed: make(chan struct{}),
	}
}

// SetUses takes the latest look at the agent's containers.
func (b *Board) SetUses(u Uses) {
	b.mu.Lock()
	news := !b.uses.same(u)
	b.uses = u
	b.mu.Unlock()
	if news {
		b.Look()
	}
}

// lastUses returns the latest look.
func (b *Board) lastUses() Uses {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.uses
}

// Look makes Run look now; it does not wait for that.
func (b *Board) Look() {
	select {
	case b.kick <- struct{}{}:
	default: // one is due already
	}
}

// Run keeps the facts until ctx ends.
func (b *Board) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { b.every(ctx, b.cfg.Health, b.askDrivers) })
	wg.Go(func() { b.every(ctx, b.cfg.Health, b.askReplicas) })
	wg.Go(func() { b.zones.run(ctx, b.Look) })
	if b.cfg.Snapshots != nil {
		wg.Go(func() { b.follow(ctx) })
	}
	ticker := time.NewTicker(b.cfg.Look)
	defer ticker.Stop()
	var seen stamps
	for {
		now := b.stamps()
		if now != seen || !now.settled() {
			seen = now
			if err := b.refresh(); err != nil {
				b.cfg.Log.Error("facts not brought up to date", zap.Error(err))
				seen = stamps{}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-b.kick:
			seen = stamps{}
		}
	}
}

// follow takes each new snapshot.
func (b *Board) follow(ctx context.Context) {
	for {
		s, next := b.cfg.Snapshots.Current()
		if !s.Time.IsZero() {
			id := ""
			if b.cfg.AgentID != nil {
				id = b.cfg.AgentID()
			}
			b.SetUses(usesIn(s, id))
		}
		select {
		case <-ctx.Done():
			return
		case <-next:
		}
	}
}

func (b *Board) every(ctx context.Context, interval time.Duration, do func(context.Context)) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		do(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (b *Board) askDrivers(ctx context.Context) {
	changed, err := b.drivers.ask(ctx)
	if err != nil {
		b.cfg.Log.Warn("drivers cannot be listed", zap.Error(err))
	}
	if changed {
		b.Look()
	}
}

func (b *Board) askReplicas(ctx context.Context) {
	if b.cfg.Getter == nil {
		return
	}
	b.mu.Lock()
	var keys []ledger.Key
	for key := range b.volumes {
		keys = append(keys, key)
	}
	b.mu.Unlock()
	slices.SortFunc(keys, compareKeys)
	if b.replicas.ask(ctx, keys, time.Now()) {
		b.Look()
	}
}

func compareKeys(a, b ledger.Key) int {
	if c := strings.Compare(a.Driver, b.Driver); c != 0 {
		return c
	}
	return strings.Compare(a.Volume, b.Volume)
}

// stamps are the times at which the directories of the ledger changed: each
// record is written by renaming a file into its directory. The states of leases are
// in none of them.
type stamps struct {
	volumes, epochs time.Time
	leases          uint64
}

func (b *Board) stamps() (s stamps) {
	for _, d := range []struct {
		dir string
		at  *time.Time
	}{{filepath.Join(b.cfg.Ledger.RunDir(), "volumes"), &s.volumes}, {filepath.Join(b.cfg.Ledger.StateDir(), "epochs"), &s.epochs}} {
		if st, err := os.Stat(d.dir); err == nil {
			*d.at = st.ModTime()
		}
	}
	if b.cfg.Leases != nil {
		s.leases = b.cfg.Leases.Changes()
	}
	return s
}

// clockStep is more than the step of the clock with which file systems mark
// changes: within it a second change cannot be told from the first.
const clockStep = 20 * time.Millisecond

// settled says that a later change will show.
func (s stamps) settled() bool {
	now := time.Now()
	return now.Sub(s.volumes) > clockStep && now.Sub(s.epochs) > clockStep
}

// refresh reads the ledger and tells what changed.
func (b *Board) refresh() error {
	items, err := b.cfg.Ledger.List()
	if err != nil {
		return err
	}
	registrations, regErr := b.cfg.Ledger.Registrations()
	if regErr != nil {
		b.cfg.Log.Warn("registered epochs that cannot be read", zap.Error(regErr))
	}
	drivers := b.drivers.list()

	b.mu.Lock()
	defer b.mu.Unlock()
	c := newCollection(b, items, registrations)
	head := &client.Facts{
		AgentId: b.uses.AgentID, Hostname: b.cfg.Hostname, ContainersKnown: b.uses.Known, Zone: b.cfg.Zone, Labels: b.cfg.Labels,
		Drivers:       c.count(drivers, b.cfg.AttachLimits),
		Capabilities:  &client.Capabilities{Epochs: true, Leases: b.cfg.Leases != nil, Removal: true},
		BridgeVersion: b.cfg.Version,
	}
	b.publish(head, c.volumes)
	return nil
}

// publish compares with what was told before. The caller holds the mutex.
func (b *Board) publish(head *client.Facts, volumes map[ledger.Key]*client.Volume) {
	next := b.revision + 1
	changed := !proto.Equal(head, b.head)
	if changed {
		b.head, b.headRevision = head, next
	}
	for key, v := range volumes {
		if old, known := b.volumes[key]; !known || !proto.Equal(old.volume, v) {
			b.volumes[key] = stated{v, next}
			delete(b.gone, key)
			changed = true
		}
	}
	for key := range b.volumes {
		if volumes[key] == nil {
			delete(b.volumes, key)
			b.gone[key] = next
			changed = true
		}
	}
	if len(b.gone) > maxGone {
		clear(b.gone)
		b.forgotten = next
	}
	if !changed {
		return
	}
	b.revision = next
	close(b.changed)
	b.changed = make(chan struct{})
}

// Facts tells everything.
func (b *Board) Facts() *client.Facts {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all()
}

func (b *Board) all() *client.Facts {
	out := proto.CloneOf(b.head)
	out.Revision = b.revision
	keys := make([]ledger.Key, 0, len(b.volumes))
	for key := range b.volumes {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, compareKeys)
	for _, key := range keys {
		// What was told is replaced, never changed.
		out.Volumes = append(out.Volumes, b.volumes[key].volume)
	}
	return out
}

// since tells what changed after a revision, nil if nothing, and a channel that
// is closed at the next change. Revision 0 asks for everything.
func (b *Board) since(revision uint64) (*client.Change, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if revision > 0 && revision >= b.revision {
		return nil, b.changed
	}
	if b.revision == 0 {
		return nil, b.changed // nothing is known yet
	}
	if revision == 0 || revision < b.forgotten {
		return &client.Change{Revision: b.revision, Facts: b.all()}, b.changed
	}
	out := &client.Change{Revision: b.revision}
	if b.headRevision > revision {
		out.Head = proto.CloneOf(b.head)
	}
	for _, v := range b.volumes {
		if v.revision > revision {
			out.Volumes = append(out.Volumes, v.volume)
		}
	}
	for key, at := range b.gone {
		if at > revision {
			out.Gone = append(out.Gone, &client.VolumeName{Driver: text(key.Driver), Name: text(key.Volume)})
		}
	}
	return out, b.changed
}

// Volume tells of one volume as it was when the facts were last brought up to
// date; nil if there is nothing to say.
func (b *Board) Volume(key ledger.Key) *client.Volume {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.volumes[key].volume
}
