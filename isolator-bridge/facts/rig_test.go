package facts

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/hostmount"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/access"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/fence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// theToken is long enough.
var theToken = strings.Repeat("0123456789abcdef", 4)

// folders is a driver that serves directories.
type folders struct {
	root string

	mu      sync.Mutex // guards all below
	down    error
	refuse  error // of Unmount
	keep    error // of Remove
	removed []string
	status  map[string]any
	mounted map[string]bool
}

func (f *folders) Name() string          { return "folders" }
func (f *folders) Traits() volume.Traits { return volume.Traits{Kind: "test"} }
func (f *folders) Capabilities(context.Context) (volume.Capabilities, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return volume.Capabilities{Scope: volume.ScopeGlobal}, f.down
}
func (f *folders) Create(_ context.Context, r volume.CreateRequest) (volume.Volume, error) {
	return volume.Volume{Ref: volume.Ref{Name: r.Name}}, nil
}
func (f *folders) Remove(_ context.Context, r volume.Ref) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.keep == nil {
		f.removed = append(f.removed, r.Name)
	}
	return f.keep
}
func (f *folders) List(context.Context) ([]volume.Volume, error)       { return nil, nil }
func (f *folders) Open(context.Context, string) (volume.Driver, error) { return f, nil }
func (f *folders) Get(_ context.Context, r volume.Ref) (volume.Volume, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if slices.Contains(f.removed, r.Name) {
		return volume.Volume{}, &volume.Error{Kind: volume.NotFound, Message: "no such volume"}
	}
	return volume.Volume{Ref: r, Status: f.status}, nil
}
func (f *folders) Path(_ context.Context, r volume.Ref) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.mounted[r.Name] {
		return "", nil
	}
	return filepath.Join(f.root, r.Name), nil
}
func (f *folders) Mount(_ context.Context, r volume.MountRequest) (volume.Mounted, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	path := filepath.Join(f.root, r.Volume.Name)
	f.mounted[r.Volume.Name] = true
	return volume.Mounted{Path: path}, os.MkdirAll(path, 0o700)
}
func (f *folders) Unmount(_ context.Context, r volume.UnmountRequest) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != nil {
		return f.refuse
	}
	delete(f.mounted, r.Volume.Name)
	return os.RemoveAll(filepath.Join(f.root, r.Volume.Name))
}

func (f *folders) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// drivers lists the only one.
type drivers struct{ *folders }

func (d drivers) List(context.Context) ([]volume.DriverInfo, error) {
	return []volume.DriverInfo{{Name: "folders", Kind: "test"}, {Name: "broken", Problem: "its spec cannot be read"}}, nil
}

// Canonical makes one name of those by which Docker knows a plugin.
func (d drivers) Canonical(name string) string { return strings.TrimSuffix(name, ":latest") }

// status asks the driver directly.
type getter struct{ *folders }

func (g getter) Status(ctx context.Context, key ledger.Key) (map[string]any, error) {
	v, err := g.Get(ctx, volume.Ref{Name: key.Volume})
	return v.Status, err
}

// stopped does not fence anything.
type noTarget struct{}

func (noTarget) Fence(context.Context, fence.Claim) error  { return nil }
func (noTarget) Fenced(context.Context, fence.Claim) error { return nil }

// rig is a served bridge.
type rig struct {
	t        *testing.T
	driver   *folders
	engine   *engine.Engine
	board    *Board
	leases   *fence.Keeper
	tokens   string
	address  string
	refusals refusals
}

type refusals struct {
	mu sync.Mutex // guards n
	n  map[access.Reason]int
}

func (r *refusals) count(reason access.Reason) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n == nil {
		r.n = map[access.Reason]int{}
	}
	r.n[reason]++
}

func (r *refusals) of(reason access.Reason) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n[reason]
}

// serve starts a bridge; change adapts what it serves with.
func serve(t *testing.T, change func(*ServerConfig, *BoardConfig)) *rig {
	t.Helper()
	return serveBoard(t, change, func(*Board) {})
}

// serveBoard has the board prepared before it runs.
func serveBoard(t *testing.T, change func(*ServerConfig, *BoardConfig), prepare func(*Board)) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{t: t, driver: &folders{root: filepath.Join(dir, "volumes"), mounted: map[string]bool{}}, tokens: tokenFile(t, theToken)}
	led, err := ledger.Open(ledger.Config{RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state")})
	if err != nil {
		t.Fatal(err)
	}
	r.engine = engine.New(engine.Config{Ledger: led, Drivers: drivers{r.driver}, Mounts: hostmount.New(),
		Neighbours: ledger.Neighbours{Dir: filepath.Join(dir, "host")}})
	r.leases, err = fence.NewKeeper(fence.Config{Store: led, Target: noTarget{}})
	if err != nil {
		t.Fatal(err)
	}
	board := BoardConfig{Ledger: led, Drivers: drivers{r.driver}, Getter: getter{r.driver}, Leases: r.leases,
		Hostname: "host.test", Zone: "z1", Labels: map[string]string{"disk": "fast"},
		AttachLimits: map[string]uint32{"folders": 7}, Version: "v-test",
		Look: 10 * time.Millisecond, Health: 20 * time.Millisecond, Answer: time.Second, Replicas: 10 * time.Millisecond}
	server := ServerConfig{Registrar: r.engine, Leases: r.leases, Credentials: access.Credentials{TokenFile: r.tokens}, Refused: r.refusals.count}
	if change != nil {
		change(&server, &board)
	}
	r.board = NewBoard(board)
	prepare(r.board)
	server.Board = r.board
	s, err := NewServer(server)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.address = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { r.board.Run(ctx) })
	wg.Go(func() {
		if err := s.Serve(ctx, l); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return r
}

func tokenFile(t *testing.T, token string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (r *rig) dial(c client.Credentials) *grpc.ClientConn {
	r.t.Helper()
	conn, err := client.Dial(r.address, c)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			r.t.Error(err)
		}
	})
	return conn
}

func (r *rig) client() client.AgentClient {
	return client.NewAgentClient(r.dial(client.Credentials{TokenFile: r.tokens}))
}

func (r *rig) context() context.Context {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	r.t.Cleanup(cancel)
	return ctx
}

func (r *rig) mount(vol string, options ...string) error {
	r.t.Helper()
	o, err := engine.ParseOptions(options)
	if err != nil {
		r.t.Fatal(err)
	}
	_, err = r.engine.Mount(r.context(), engine.MountRequest{Driver: "folders", Volume: vol, Options: o, Holder: engine.Holder{Name: "agent"}})
	return err
}

func (r *rig) unmount(vol string) error {
	r.t.Helper()
	_, err := r.engine.Unmount(r.context(), engine.UnmountRequest{Driver: "folders", Volume: vol, Holder: engine.Holder{Name: "agent"}})
	return err
}

// uses says that the agent was looked at now and these are its containers.
func (r *rig) uses(containers map[ledger.Key][]Container) {
	r.t.Helper()
	r.board.SetUses(Uses{Began: time.Now(), AgentID: "agent-1", Known: true, Containers: containers})
}

// await asks until the answer is as wanted.
func await[T any](r *rig, ask func() (T, error), wanted func(T) bool) T {
	r.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		got, err := ask()
		if err == nil && wanted(got) {
			return got
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("never as wanted; last: %v, %v", got, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (r *rig) facts(wanted func(*client.Facts) bool) *client.Facts {
	r.t.Helper()
	c := r.client()
	return await(r, func() (*client.Facts, error) { return c.GetFacts(r.context(), &client.GetFactsRequest{}) }, wanted)
}
