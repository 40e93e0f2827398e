package engine

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// host is a mount table in memory, with directories.
type host struct {
	mu         sync.Mutex // guards all fields
	namespace  string
	mounts     []volume.MountPoint
	devices    map[string]uint64
	dead       map[string]error
	dirs       map[string]bool
	links      map[string]string
	files      map[string]bool
	elsewhere  map[int]volume.MountTable
	nextDevice uint64
}

func newHost() *host {
	return &host{namespace: "mnt:[1]", devices: map[string]uint64{}, dead: map[string]error{}, dirs: map[string]bool{},
		links: map[string]string{}, elsewhere: map[int]volume.MountTable{}, nextDevice: 100}
}

func (h *host) Own(context.Context) (volume.MountTable, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return volume.MountTable{Namespace: h.namespace, Mounts: slices.Clone(h.mounts)}, nil
}

func (h *host) OfProcess(_ context.Context, pid int) (volume.MountTable, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t, ok := h.elsewhere[pid]; ok {
		return t, nil
	}
	return volume.MountTable{}, fs.ErrNotExist
}

func (h *host) Stat(_ context.Context, path string) (volume.PathFacts, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	path = filepath.Clean(path)
	if to, ok := h.links[path]; ok {
		path = to
	}
	if err := h.dead[path]; err != nil {
		return volume.PathFacts{}, err
	}
	if d, ok := h.devices[path]; ok {
		return volume.PathFacts{Resolved: path, IsDir: !h.files[path], Device: d}, nil
	}
	if h.dirs[path] {
		return volume.PathFacts{Resolved: path, IsDir: true, Device: 1}, nil
	}
	return volume.PathFacts{}, fmt.Errorf("stat %s: %w", path, fs.ErrNotExist)
}

func (h *host) mount(path, source string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nextDevice++
	h.dirs[path] = true
	h.devices[path] = h.nextDevice
	h.mounts = append(h.mounts, volume.MountPoint{Path: path, FSType: "fake", Source: source})
}

func (h *host) umount(path string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := len(h.mounts) - 1; i >= 0; i-- {
		if h.mounts[i].Path == path {
			h.mounts = slices.Delete(h.mounts, i, i+1)
			if !slices.ContainsFunc(h.mounts, func(m volume.MountPoint) bool { return m.Path == path }) {
				delete(h.devices, path)
			}
			return true
		}
	}
	return false
}

func (h *host) stacked(path string) int {
	t, err := h.Own(context.Background())
	if err != nil {
		panic(err)
	}
	_, n := t.At(path)
	return n
}

// manner is how a driver deals with repeated mounts.
type manner string

const (
	counting   manner = "counting"   // ignores IDs, counts, an unmount too many drives it negative (sshfs)
	idempotent manner = "idempotent" // ignores IDs, repeated mounts and unmounts change nothing (convoy)
	refusing   manner = "refusing"   // refuses an ID that it has, and one that it has not (rclone)
)

// plugin is a driver in memory.
type plugin struct {
	host *host
	// plain makes it serve directories instead of mounts.
	plain  bool
	manner manner

	mu    sync.Mutex // guards the fields below
	vols  map[string]bool
	ids   map[string]map[string]bool
	count map[string]int
	calls []string
	// on is called before a call of this name takes effect, off after; an error
	// ends the call with it.
	on, off func(call, vol string) error
	// claims makes Path and Get tell a mount point even when nothing is mounted.
	claims bool
	// hides makes them never tell one.
	hides   bool
	noGet   bool
	pathFor func(vol string) string
}

func newPlugin(h *host, m manner) *plugin {
	return &plugin{host: h, manner: m, vols: map[string]bool{}, ids: map[string]map[string]bool{}, count: map[string]int{}}
}

func (p *plugin) refuse(format string, args ...any) error {
	return &volume.Error{Kind: volume.Refused, Op: "VolumeDriver", Status: 500, Message: fmt.Sprintf(format, args...)}
}

func (p *plugin) enter(call, vol, detail string) (func(*error), error) {
	p.mu.Lock()
	p.calls = append(p.calls, call+" "+vol+detail)
	on, off := p.on, p.off
	p.mu.Unlock()
	if on != nil {
		if err := on(call, vol); err != nil {
			return nil, err
		}
	}
	return func(err *error) {
		if off == nil {
			return
		}
		if e := off(call, vol); e != nil {
			*err = e
		}
	}, nil
}

func (p *plugin) Name() string          { return "fake" }
func (p *plugin) Traits() volume.Traits { return volume.Traits{Kind: "fake"} }
func (p *plugin) Capabilities(context.Context) (volume.Capabilities, error) {
	return volume.Capabilities{Scope: volume.ScopeLocal}, nil
}

func (p *plugin) Create(_ context.Context, req volume.CreateRequest) (v volume.Volume, err error) {
	leave, err := p.enter("create", req.Name, "")
	if err != nil {
		return v, err
	}
	defer leave(&err)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.vols[req.Name] {
		return v, &volume.Error{Kind: volume.AlreadyExists, Message: "exists"}
	}
	p.vols[req.Name] = true
	return volume.Volume{Ref: volume.Ref{Name: req.Name}}, nil
}

func (p *plugin) Remove(_ context.Context, ref volume.Ref) (err error) {
	leave, err := p.enter("remove", ref.Name, "")
	if err != nil {
		return err
	}
	defer leave(&err)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.vols[ref.Name] {
		return &volume.Error{Kind: volume.NotFound}
	}
	if p.count[ref.Name] != 0 {
		return p.refuse("in use %d times", p.count[ref.Name])
	}
	delete(p.vols, ref.Name)
	return nil
}

func (p *plugin) path(vol string) string {
	if p.pathFor != nil {
		return p.pathFor(vol)
	}
	return "/vol/" + vol
}

func (p *plugin) mounted(vol string) bool { return p.count[vol] > 0 || len(p.ids[vol]) > 0 }

func (p *plugin) claim(vol string) string {
	if !p.hides && (p.claims || p.mounted(vol)) {
		return p.path(vol)
	}
	return ""
}

func (p *plugin) Get(_ context.Context, ref volume.Ref) (v volume.Volume, err error) {
	leave, err := p.enter("get", ref.Name, "")
	if err != nil {
		return v, err
	}
	defer leave(&err)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.noGet {
		return v, &volume.Error{Kind: volume.Unsupported}
	}
	if !p.vols[ref.Name] {
		return v, &volume.Error{Kind: volume.NotFound}
	}
	return volume.Volume{Ref: volume.Ref{Name: ref.Name}, Mountpoint: p.claim(ref.Name)}, nil
}

func (p *plugin) List(context.Context) ([]volume.Volume, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []volume.Volume
	for _, name := range slices.Sorted(maps.Keys(p.vols)) {
		out = append(out, volume.Volume{Ref: volume.Ref{Name: name}})
	}
	return out, nil
}

func (p *plugin) Path(_ context.Context, ref volume.Ref) (path string, err error) {
	leave, err := p.enter("path", ref.Name, "")
	if err != nil {
		return "", err
	}
	defer leave(&err)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.vols[ref.Name] {
		return "", &volume.Error{Kind: volume.NotFound}
	}
	return p.claim(ref.Name), nil
}

func (p *plugin) Mount(_ context.Context, req volume.MountRequest) (m volume.Mounted, err error) {
	vol := req.Volume.Name
	leave, err := p.enter("mount", vol, "")
	if err != nil {
		return m, err
	}
	defer leave(&err)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.vols[vol] {
		return m, p.refuse("no such volume")
	}
	if p.manner == refusing && p.ids[vol][req.ID] {
		return m, p.refuse("volume is already mounted by this id")
	}
	first := !p.mounted(vol)
	if p.manner == counting {
		first = p.count[vol] == 0
	}
	path := p.path(vol)
	if first {
		if p.plain {
			p.host.mu.Lock()
			p.host.dirs[path] = true
			p.host.mu.Unlock()
		} else {
			p.host.mount(path, vol)
		}
	}
	p.note(vol, req.ID)
	return volume.Mounted{Path: path}, nil
}

func (p *plugin) note(vol, id string) {
	switch p.manner {
	case counting:
		p.count[vol]++
	case idempotent:
		p.count[vol] = 1
	case refusing:
		if p.ids[vol] == nil {
			p.ids[vol] = map[string]bool{}
		}
		p.ids[vol][id] = true
	}
}

func (p *plugin) Unmount(_ context.Context, req volume.UnmountRequest) (err error) {
	vol := req.Volume.Name
	leave, err := p.enter("unmount", vol, "")
	if err != nil {
		return err
	}
	defer leave(&err)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch p.manner {
	case counting:
		p.count[vol]--
		if p.count[vol] > 0 {
			return nil
		}
		if !p.plain && !p.host.umount(p.path(vol)) {
			return p.refuse("not mounted (count %d)", p.count[vol])
		}
		p.count[vol] = 0
		return nil
	case idempotent:
		p.count[vol] = 0
	case refusing:
		if !p.ids[vol][req.ID] {
			return p.refuse("volume is not mounted by this id")
		}
		delete(p.ids[vol], req.ID)
		if len(p.ids[vol]) > 0 {
			return nil
		}
	}
	if !p.plain {
		p.host.umount(p.path(vol))
	}
	return nil
}

// restart forgets what is in memory; mounts stay, unless it is FUSE.
func (p *plugin) restart(fuse bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ids, p.count = map[string]map[string]bool{}, map[string]int{}
	if fuse {
		for vol := range p.vols {
			p.host.umount(p.path(vol))
		}
	}
}

// made counts the calls of a name for a volume.
func (p *plugin) made(call, vol string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, c := range p.calls {
		if c == call+" "+vol {
			n++
		}
	}
	return n
}

// drivers finds one driver.
type drivers struct {
	mu    sync.Mutex // guards the fields
	known map[string]volume.Driver
	down  bool
	ids   map[string]string
}

func (d *drivers) Open(_ context.Context, name string) (volume.Driver, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.down {
		return nil, &volume.Error{Kind: volume.DriverUnreachable, Driver: name, Message: "connection refused"}
	}
	if dr, ok := d.known[name]; ok {
		return dr, nil
	}
	return nil, &volume.DriverUnknownError{Driver: name, Searched: []string{"/run/docker/plugins"}}
}

// Canonical makes "fake" of "fake:latest" and names of ids.
func (d *drivers) Canonical(name string) string {
	if called, ok := d.ids[name]; ok {
		return called
	}
	return strings.TrimSuffix(name, ":latest")
}

func (d *drivers) List(context.Context) ([]volume.DriverInfo, error) {
	return []volume.DriverInfo{{Name: "fake", Kind: "fake"}}, nil
}

// clock is a boot and the time in it, set by tests.
type clock struct {
	mu   sync.Mutex // guards the fields
	boot int
	at   time.Duration
}

func (c *clock) ledgerClock() ledger.Clock {
	return ledger.Clock{
		BootID: func() (string, error) {
			c.mu.Lock()
			defer c.mu.Unlock()
			return fmt.Sprintf("boot-%d", c.boot), nil
		},
		SinceBoot: func() (time.Duration, error) {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.at, nil
		},
	}
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at += d
}

// reporter is what rig needs of a test; rapid's can shrink what fails through it.
type reporter interface {
	Helper()
	Logf(string, ...any)
	Error(...any)
	Errorf(string, ...any)
	Fatal(...any)
	Fatalf(string, ...any)
}

// rig is an engine with everything around it made up, but for the files.
type rig struct {
	t       reporter
	host    *host
	plugin  *plugin
	drivers *drivers
	clock   *clock
	run     string
	state   string
	hostDir string
	policy  *Policy
	bad     error
	fault   func(FaultPoint)
	// shared says that another ledger of the host may have the same volumes.
	shared bool
}

func newRig(t testing.TB, m manner) *rig {
	h := newHost()
	p := newPlugin(h, m)
	dir := t.TempDir()
	return &rig{t: t, host: h, plugin: p, drivers: &drivers{known: map[string]volume.Driver{"fake": p}}, clock: &clock{at: time.Hour},
		run: filepath.Join(dir, "run"), state: filepath.Join(dir, "state"), hostDir: filepath.Join(dir, "host")}
}

// engine opens the ledger anew, as every process does.
func (r *rig) engine() *Engine {
	r.t.Helper()
	led, err := ledger.Open(ledger.Config{RunDir: r.run, StateDir: r.state, Clock: r.clock.ledgerClock()})
	if err != nil {
		r.t.Fatal(err)
	}
	return New(Config{Ledger: led, Drivers: r.drivers, Mounts: r.host, Neighbours: ledger.Neighbours{Dir: r.hostDir},
		Policy: r.policy, PolicyErr: r.bad, Fault: r.fault})
}

var agent = Holder{Name: "agent"}

func (r *rig) mount(vol string, options ...string) (MountResult, error) {
	r.t.Helper()
	o, err := ParseOptions(options)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return r.engine().Mount(ctx, MountRequest{Driver: "fake", Volume: vol, Options: o, Holder: agent})
}

func (r *rig) mustMount(vol string, options ...string) MountResult {
	r.t.Helper()
	res, err := r.mount(vol, options...)
	if err != nil {
		r.t.Fatalf("mount: %v", err)
	}
	return res
}

func (r *rig) unmount(vol string) (UnmountResult, error) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return r.engine().Unmount(ctx, UnmountRequest{Driver: "fake", Volume: vol, Holder: agent})
}

func (r *rig) mustUnmount(vol string) UnmountResult {
	r.t.Helper()
	res, err := r.unmount(vol)
	if err != nil {
		r.t.Fatalf("unmount: %v", err)
	}
	return res
}

func (r *rig) records() []ledger.Listed {
	r.t.Helper()
	items, err := r.engine().Ledger().List()
	if err != nil {
		r.t.Fatal(err)
	}
	return items
}

// expect checks how often the driver was asked.
func (r *rig) expect(vol string, mounts, unmounts int) {
	r.t.Helper()
	if m, u := r.plugin.made("mount", vol), r.plugin.made("unmount", vol); m != mounts || u != unmounts {
		r.t.Errorf("driver got %d mounts and %d unmounts, want %d and %d; calls: %v", m, u, mounts, unmounts, r.plugin.calls)
	}
}

// clean checks that nothing is mounted and nothing recorded.
func (r *rig) clean(vol string) {
	r.t.Helper()
	if n := r.host.stacked(r.plugin.path(vol)); n != 0 {
		r.t.Errorf("%d mounts left", n)
	}
	for _, i := range r.records() {
		r.t.Errorf("record left: %+v", i.Record)
	}
}
