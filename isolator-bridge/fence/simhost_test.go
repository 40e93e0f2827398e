package fence_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/hostmount"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/access"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/facts"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/fence"
)

// The quantities of a schedule.
const (
	simLease    = 10 * time.Second
	simWatchdog = 4 * time.Second
	simMargin   = 2 * time.Second
)

var simVolume = ledger.Key{Driver: "sim", Volume: "v"}

// gate stops those that pass it while it is shut.
type gate struct {
	mu   sync.Mutex    // guards open
	open chan struct{} // closed while the gate is open
}

func newGate() *gate {
	g := &gate{open: make(chan struct{})}
	close(g.open)
	return g
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.open:
		g.open = make(chan struct{})
	default: // shut already
	}
}

func (g *gate) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.open:
	default:
		close(g.open)
	}
}

func (g *gate) passage() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

// simHost is one agent's host.
type simHost struct {
	world *world
	name  string
	dir   string
	rate  float64 // of its clock
	gate  *gate   // shut while the whole host is frozen

	mu        sync.Mutex // guards all below
	boot      int
	down      bool // between a reset and the next boot
	booted    time.Time
	wall      time.Duration // by which its time of day was set
	mounted   bool
	writers   map[*writer]bool
	bridge    *simBridge // nil while there is none
	dog       *time.Timer
	dogTime   time.Duration
	partition chan struct{} // closed when it ends; nil: none
	latency   time.Duration
	stuck     bool // fencing fails
}

func newSimHost(w *world, name string, rate float64) *simHost {
	h := &simHost{world: w, name: name, dir: filepath.Join(w.dir, name), rate: rate, gate: newGate(),
		booted: time.Now(), writers: map[*writer]bool{}}
	h.start()
	return h
}

// clock is the host's, read by a process: while that is frozen it reads nothing.
func (h *simHost) clock(enter func() error) ledger.Clock {
	boot := h.nowBoot()
	return ledger.Clock{
		BootID: func() (string, error) { return fmt.Sprintf("%s-%d", h.name, boot), nil },
		SinceBoot: func() (time.Duration, error) {
			if err := enter(); err != nil {
				return 0, err
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			return time.Minute + time.Duration(float64(time.Since(h.booted))*h.rate), nil
		},
		Now: func() time.Time {
			h.mu.Lock()
			defer h.mu.Unlock()
			return time.Now().Add(h.wall)
		},
	}
}

// engine opens the ledger, as each process does.
func (h *simHost) engine(enter func() error) *engine.Engine {
	led, err := ledger.Open(ledger.Config{RunDir: filepath.Join(h.dir, "run"), StateDir: filepath.Join(h.dir, "state"), Clock: h.clock(enter)})
	if err != nil {
		panic(err)
	}
	return engine.New(engine.Config{Ledger: led, Drivers: simDrivers{h, h.nowBoot()}, Mounts: hostmount.New(),
		Neighbours: ledger.Neighbours{Dir: filepath.Join(h.dir, "host")}, Timeouts: engine.Timeouts{Margin: time.Second, Watch: 3 * time.Second}})
}

func (h *simHost) nowBoot() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.boot
}

// process is a process of the host other than the bridge: what it returns lets
// that go on, and fails once the host was reset.
func (h *simHost) process() func() error {
	boot := h.nowBoot()
	return func() error {
		select {
		case <-h.gate.passage():
		case <-h.world.over:
			return errDead
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.down || h.boot != boot {
			return errDead
		}
		return nil
	}
}

var errDead = errors.New("the process is dead")

// reset is what a watchdog does, or a power failure.
func (h *simHost) reset() {
	h.mu.Lock()
	b := h.bridge
	h.bridge = nil
	if h.down {
		h.mu.Unlock()
		return
	}
	h.down = true
	for w := range h.writers {
		w.stop()
	}
	h.writers, h.mounted = map[*writer]bool{}, false
	h.stopDog()
	h.mu.Unlock()
	if b != nil {
		b.die()
	}
	h.gate.release()
	h.world.wg.Go(func() {
		if !h.world.sleep(time.Duration(1+rand.N(4)) * time.Second) {
			return
		}
		if b != nil {
			b.wg.Wait() // its files are this host's again
		}
		if err := os.RemoveAll(filepath.Join(h.dir, "run")); err != nil {
			panic(err)
		}
		h.mu.Lock()
		h.boot++
		h.down = false
		h.booted = time.Now()
		h.mu.Unlock()
		h.start()
	})
}

func (h *simHost) stopDog() {
	if h.dog != nil {
		h.dog.Stop()
		h.dog = nil
	}
}

// feed starts the watchdog's time anew. It counts true time, frozen or not.
func (h *simHost) feed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopDog()
	h.dog = time.AfterFunc(h.dogTime, func() {
		h.world.note("watchdog resets " + h.name)
		h.reset()
	})
}

// launch runs a container under an epoch, as agent, isolator and dvdcli do.
func (h *simHost) launch(epoch uint64) {
	enter := h.process()
	if enter() != nil {
		return
	}
	options, err := engine.ParseOptions([]string{fmt.Sprintf("dvdi.epoch=%d", epoch), "dvdi.lease=10s"})
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err = h.engine(enter).Mount(ctx, engine.MountRequest{Driver: simVolume.Driver, Volume: simVolume.Volume, Options: options, Holder: engine.Holder{Name: "agent"}})
	if err != nil {
		h.world.note(fmt.Sprintf("%s refuses epoch %d: %v", h.name, epoch, err))
		return
	}
	if enter() != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down || !h.mounted {
		return // it was reset meanwhile, or fenced before the task started
	}
	w := &writer{host: h, epoch: epoch, stopped: make(chan struct{})}
	h.writers[w] = true
	h.world.wg.Go(w.write)
}

// halt ends the containers and unmounts, as the agent does after a kill.
func (h *simHost) halt() {
	enter := h.process()
	if enter() != nil {
		return
	}
	h.killWriters()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := h.engine(enter).Unmount(ctx, engine.UnmountRequest{Driver: simVolume.Driver, Volume: simVolume.Volume, Holder: engine.Holder{Name: "agent"}}); err != nil {
		h.world.note(h.name + ": " + err.Error())
	}
}

func (h *simHost) killWriters() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.writers {
		w.stop()
	}
	h.writers = map[*writer]bool{}
}

// writer is a task that appends its epoch.
type writer struct {
	host    *simHost
	epoch   uint64
	stopped chan struct{}
}

func (w *writer) stop() { close(w.stopped) }

func (w *writer) write() {
	for {
		select {
		case <-w.stopped:
			return
		case <-w.host.world.over:
			return
		case <-time.After(100 * time.Millisecond):
		}
		select {
		case <-w.stopped:
			return
		case <-w.host.world.over:
			return
		case <-w.host.gate.passage():
		}
		select {
		case <-w.stopped:
			return
		default:
			// What was sent arrives even if the host is reset now.
			epoch, name := w.epoch, w.host.name
			time.AfterFunc(rand.N(simMargin*3/4), func() { w.host.world.append(epoch, name) })
		}
	}
}

// simDrivers serves one directory per host.
type simDrivers struct {
	host *simHost
	boot int
}

// alive says whether the boot in which the driver runs lasts. The caller holds
// the host's mutex.
func (d simDrivers) alive() error {
	if d.host.down || d.host.boot != d.boot {
		return errDead
	}
	return nil
}

func (d simDrivers) path() string { return filepath.Join(d.host.dir, "volume") }

func (d simDrivers) List(context.Context) ([]volume.DriverInfo, error) {
	return []volume.DriverInfo{{Name: "sim"}}, nil
}
func (d simDrivers) Open(context.Context, string) (volume.Driver, error) { return simDriver{d}, nil }

type simDriver struct{ simDrivers }

func (d simDriver) Name() string          { return "sim" }
func (d simDriver) Traits() volume.Traits { return volume.Traits{Kind: "sim"} }
func (d simDriver) Capabilities(context.Context) (volume.Capabilities, error) {
	return volume.Capabilities{Scope: volume.ScopeGlobal}, nil
}
func (d simDriver) Create(_ context.Context, r volume.CreateRequest) (volume.Volume, error) {
	return volume.Volume{Ref: volume.Ref{Name: r.Name}}, nil
}
func (d simDriver) Remove(context.Context, volume.Ref) error { return nil }
func (d simDriver) Get(_ context.Context, r volume.Ref) (volume.Volume, error) {
	return volume.Volume{Ref: r}, nil
}
func (d simDriver) List(context.Context) ([]volume.Volume, error) { return nil, nil }
func (d simDriver) Path(context.Context, volume.Ref) (string, error) {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	if !d.host.mounted {
		return "", nil
	}
	return d.path(), nil
}
func (d simDriver) Mount(context.Context, volume.MountRequest) (volume.Mounted, error) {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	if err := d.alive(); err != nil {
		return volume.Mounted{}, err
	}
	d.host.mounted = true
	return volume.Mounted{Path: d.path()}, os.MkdirAll(d.path(), 0o700)
}
func (d simDriver) Unmount(context.Context, volume.UnmountRequest) error {
	time.Sleep(simMargin * 3 / 4) // writes that are on their way are waited for
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	if err := d.alive(); err != nil {
		return err
	}
	d.host.mounted = false
	return os.RemoveAll(d.path())
}

// simBridge is one process of the bridge.
type simBridge struct {
	host   *simHost
	gate   *gate // shut while the bridge alone is frozen
	dead   chan struct{}
	kill   func()
	cancel context.CancelFunc
	wg     sync.WaitGroup
	server *facts.Server
	board  *facts.Board
	engine *engine.Engine
}

// start starts the host's bridge.
func (h *simHost) start() {
	b := &simBridge{host: h, gate: newGate(), dead: make(chan struct{})}
	b.kill = sync.OnceFunc(func() { close(b.dead) })
	b.engine = h.engine(b.enter)
	cfg := fence.Config{Store: b.engine.Ledger(), Target: simTarget{b}, WatchdogTimeout: simWatchdog, Margin: simMargin}
	if h.world.watchdog {
		cfg.Watchdog = simDog{b}
	}
	keeper, err := fence.NewKeeper(cfg)
	if err != nil {
		panic(err)
	}
	b.board = facts.NewBoard(facts.BoardConfig{Ledger: b.engine.Ledger(), Drivers: simDrivers{h, h.nowBoot()}, Leases: keeper})
	b.server, err = facts.NewServer(facts.ServerConfig{Board: b.board, Registrar: b.engine, Leases: keeper,
		Credentials: access.Credentials{TokenFile: h.world.token}})
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel = cancel
	h.mu.Lock()
	h.bridge = b
	h.mu.Unlock()
	b.wg.Go(func() {
		if err := keeper.Run(ctx); err != nil && !errors.Is(err, errDead) {
			panic(err)
		}
	})
	b.wg.Go(b.look)
	h.world.wg.Go(func() {
		select {
		case <-b.dead:
		case <-h.world.over:
		}
		b.die()
		b.wg.Wait()
	})
}

// enter lets the process go on: it waits while bridge or host are frozen, and
// fails when it is dead.
func (b *simBridge) enter() error {
	for _, g := range []*gate{b.host.gate, b.gate} {
		select {
		case <-b.dead:
			return errDead
		case <-b.host.world.over:
			return errDead
		case <-g.passage():
		}
	}
	select {
	case <-b.dead:
		return errDead
	default:
		return nil
	}
}

// look reconciles, and tells the board which containers there are, again and
// again.
func (b *simBridge) look() {
	for {
		select {
		case <-b.dead:
			return
		case <-b.host.world.over:
			return
		case <-time.After(300 * time.Millisecond):
		}
		if _, err := b.engine.Reconcile(context.Background(), engine.ReconcileRequest{}); err != nil {
			return
		}
		if b.enter() != nil {
			return
		}
		began := time.Now()
		b.host.mu.Lock()
		uses := facts.Uses{Known: true, Began: began, Containers: map[ledger.Key][]facts.Container{}}
		for w := range b.host.writers {
			uses.Containers[simVolume] = append(uses.Containers[simVolume], facts.Container{ID: fmt.Sprint(w.epoch)})
		}
		b.host.mu.Unlock()
		b.board.SetUses(uses)
	}
}

// die ends the process.
func (b *simBridge) die() {
	b.kill()
	b.cancel()
	b.gate.release()
}

// killed is SIGKILL: the kernel closes the watchdog, which feeds it.
func (h *simHost) killBridge(restart time.Duration) {
	h.mu.Lock()
	b := h.bridge
	h.bridge = nil
	running := h.dog != nil
	h.mu.Unlock()
	if b == nil {
		return
	}
	b.die()
	if running {
		h.feed()
	}
	enter := h.process()
	h.world.wg.Go(func() {
		b.wg.Wait()
		if h.world.sleep(restart) && enter() == nil {
			h.start()
		}
	})
}

// simDog is the watchdog as a bridge sees it.
type simDog struct{ bridge *simBridge }

func (d simDog) Arm(timeout time.Duration) (time.Duration, error) {
	if err := d.bridge.enter(); err != nil {
		return 0, err
	}
	d.bridge.host.mu.Lock()
	d.bridge.host.dogTime = timeout
	d.bridge.host.mu.Unlock()
	d.bridge.host.feed()
	return timeout, nil
}

func (d simDog) Feed() error {
	if err := d.bridge.enter(); err != nil {
		return err
	}
	d.bridge.host.feed()
	return nil
}

func (d simDog) Disarm() error {
	if err := d.bridge.enter(); err != nil {
		return err
	}
	d.bridge.host.mu.Lock()
	defer d.bridge.host.mu.Unlock()
	d.bridge.host.stopDog()
	return nil
}

// simTarget stops writers.
type simTarget struct{ bridge *simBridge }

var errStuck = errors.New("a process does not die")

func (s simTarget) Fence(ctx context.Context, c fence.Claim) error {
	if err := s.bridge.enter(); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(rand.N(time.Second)):
	}
	if err := s.bridge.enter(); err != nil {
		return err
	}
	h := s.bridge.host
	h.mu.Lock()
	stuck := h.stuck
	h.mu.Unlock()
	if stuck {
		return errStuck
	}
	h.killWriters()
	_, err := s.bridge.engine.Unmount(ctx, engine.UnmountRequest{Driver: c.Key.Driver, Volume: c.Key.Volume, Holder: engine.Holder{Name: "fence"}, Force: true})
	return err
}

func (s simTarget) Fenced(ctx context.Context, c fence.Claim) error {
	if err := s.bridge.enter(); err != nil {
		return err
	}
	return s.bridge.engine.MarkFenced(ctx, c.Key, c.Epoch)
}

// world is hosts, a framework between them, and the log of the volume.
type world struct {
	t        testing.TB
	dir      string
	token    string
	watchdog bool
	over     chan struct{}
	wg       sync.WaitGroup
	hosts    []*simHost
	began    time.Time

	mu       sync.Mutex // guards all below
	newest   uint64     // epoch in the log
	entries  int
	torn     string // how an older epoch came after a newer one
	story    []string
	released int // claims that ended by the bridge's word
	fenced   int // claims that ended by a trusted expiry
	distrust int // claims that ended by an expiry that was not trusted
	claimed  *simHost
}

// setClaimed notes where the framework's claim is.
func (w *world) setClaimed(h *simHost) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.claimed = h
}

// claimedBy is the number of the host that has the claim, -1 for none.
func (w *world) claimedBy() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Index(w.hosts, w.claimed)
}

func (w *world) append(epoch uint64, host string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.entries++
	if epoch < w.newest && w.torn == "" {
		w.torn = fmt.Sprintf("at %s epoch %d of %s after epoch %d", time.Since(w.began), epoch, host, w.newest)
	}
	w.newest = max(w.newest, epoch)
}

// wrote tells whether anybody ever did.
func (w *world) wrote() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.entries > 0
}

func (w *world) note(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.story = append(w.story, fmt.Sprintf("%s %s", time.Since(w.began), text))
}

// sleep is false if the schedule ended meanwhile.
func (w *world) sleep(d time.Duration) bool {
	select {
	case <-w.over:
		return false
	case <-time.After(d):
		return true
	}
}
