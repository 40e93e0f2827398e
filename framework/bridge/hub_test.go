package bridge

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/internal/freeport"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeBridge is the other end, over TCP.
type fakeBridge struct {
	client.UnimplementedAgentServer
	t       *testing.T
	server  *grpc.Server
	address string
	changes chan *client.Change

	mu       sync.Mutex // guards all below
	token    string
	requests []string
	bases    []string
	answer   *client.Fence
	fail     error
}

func startBridge(t *testing.T, address string) *fakeBridge {
	t.Helper()
	f := &fakeBridge{t: t, changes: make(chan *client.Change, 16), server: grpc.NewServer(),
		answer: &client.Fence{Lease: durationpb.New(leaseLength), Grace: durationpb.New(time.Second), Trusted: true, Basis: []byte("b0")}}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	f.address = l.Addr().String()
	client.RegisterAgentServer(f.server, f)
	served := make(chan error, 1)
	go func() { served <- f.server.Serve(l) }()
	t.Cleanup(func() {
		f.server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *fakeBridge) note(ctx context.Context, what string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if md, _ := metadata.FromIncomingContext(ctx); len(md.Get("authorization")) > 0 {
		f.token = md.Get("authorization")[0]
	}
	f.requests = append(f.requests, what)
	return f.fail
}

func (f *fakeBridge) WatchFacts(_ *client.WatchFactsRequest, s grpc.ServerStreamingServer[client.Change]) error {
	if err := f.note(s.Context(), "watch"); err != nil {
		return err
	}
	for {
		select {
		case c := <-f.changes:
			if err := s.Send(c); err != nil {
				return err
			}
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
}

func (f *fakeBridge) Register(ctx context.Context, r *client.RegisterRequest) (*client.Registered, error) {
	if err := f.note(ctx, "register "+r.Volume.Name); err != nil {
		return nil, err
	}
	out := &client.Registered{Epoch: r.Epoch}
	if r.Lease != nil {
		out.Fence = f.answer
	}
	return out, nil
}

func (f *fakeBridge) Renew(ctx context.Context, r *client.RenewRequest) (*client.Renewed, error) {
	if err := f.note(ctx, "renew"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bases = append(f.bases, string(r.Renewals[0].Basis))
	next := &client.Fence{Lease: f.answer.Lease, Grace: f.answer.Grace, Trusted: true, Basis: []byte("b" + string(rune('0'+len(f.bases))))}
	return &client.Renewed{Leases: []*client.RenewedLease{{Volume: r.Renewals[0].Volume, Fence: next}}}, nil
}

func (f *fakeBridge) Withdraw(ctx context.Context, r *client.WithdrawRequest) (*client.Withdrawn, error) {
	if err := f.note(ctx, "withdraw "+r.Volume.Name); err != nil {
		return nil, err
	}
	return &client.Withdrawn{Released: r.Epoch == 1, Reason: "mounted"}, nil
}

func (f *fakeBridge) Remove(ctx context.Context, r *client.RemoveRequest) (*client.Removed, error) {
	if err := f.note(ctx, "remove "+r.FrameworkId+" "+r.Volume.Name); err != nil {
		return nil, err
	}
	return &client.Removed{Removed: r.Epoch == 1, Reason: "mounted"}, nil
}

func (f *fakeBridge) did() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.requests)
}

func (f *fakeBridge) quoted() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.bases)
}

// leaseLength leaves a renewal a third of it, which a busy machine needs.
const leaseLength = 6 * time.Second

var theToken = strings.Repeat("0123456789abcdef", 4)

func newHub(t *testing.T, change func(*Config)) *Hub {
	t.Helper()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(theToken), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Credentials: Credentials{TokenFile: token}}
	if change != nil {
		change(&cfg)
	}
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func track(h *Hub, f *fakeBridge) {
	h.Track([]core.BridgeAgent{{ID: "a1", Hostname: "nowhere.test", Attribute: f.address}})
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

var key = scheduler.VolumeKey{Driver: "d", Name: "v"}

func facts(state client.Volume_State) *client.Change {
	return &client.Change{Revision: 1, Facts: &client.Facts{Zone: "z", Capabilities: &client.Capabilities{Epochs: true, Leases: true, Removal: true},
		Drivers: []*client.Driver{{Name: "d", Scope: "local", Healthy: true, AttachLimit: 4, Attached: 2}},
		Volumes: []*client.Volume{{Name: &client.VolumeName{Driver: "d", Name: "v"}, State: state, Replicas: []string{"h2"}, Zone: "z9"}}}}
}

func TestAddressOfABridge(t *testing.T) {
	h := &Hub{cfg: Config{Port: 9861}}
	for attribute, want := range map[string]string{
		"": "h1:9861", "9000": "h1:9000", "9000.0": "h1:9000", "10.0.0.7:9000": "10.0.0.7:9000", "[::1]:9000": "[::1]:9000", ":9000": "h1:9000",
		"nonsense": "", "0": "", "70000": "",
	} {
		got, err := h.address(core.BridgeAgent{Hostname: "h1", Attribute: attribute})
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", attribute, got, err)
		}
	}
}

// TestReports: facts, changes, and the end of a stream become reports; each
// is news.
func TestReports(t *testing.T) {
	f := startBridge(t, "127.0.0.1:0")
	h := newHub(t, nil)
	track(h, f)
	report := func(what string, ok func(*core.BridgeReport) bool) {
		t.Helper()
		for deadline := time.After(time.Minute); ; {
			if r := h.Reports()["a1"]; r != nil && ok(r) {
				return
			}
			select {
			case <-h.News():
			case <-deadline:
				t.Fatalf("never reported: %s", what)
			}
		}
	}
	f.changes <- facts(client.Volume_MOUNTED)
	report("mounted", func(r *core.BridgeReport) bool {
		d := r.Agent.Drivers
		return r.Agent.Known && r.Agent.Zone == "z" && r.Epochs && r.Leases && r.Removal && r.Volumes[key].Attached && r.Volumes[key].Replicas[0] == "h2" && r.Volumes[key].Zone == "z9" &&
			len(d) == 1 && d[0] == scheduler.DriverFact{Name: "d", Healthy: true, AttachLimit: 4, Attached: 2} &&
			r.Scopes["d"] == app.ScopeLocal
	})
	f.mu.Lock()
	if f.token != "Bearer "+theToken {
		t.Errorf("authorization %q", f.token)
	}
	f.mu.Unlock()
	f.changes <- &client.Change{Revision: 2, Gone: []*client.VolumeName{{Driver: "d", Name: "v"}}}
	report("gone", func(r *core.BridgeReport) bool { return len(r.Volumes) == 0 })
	f.changes <- &client.Change{Revision: 3, Head: &client.Facts{Zone: "z2"}, Volumes: []*client.Volume{{Name: &client.VolumeName{Driver: "d", Name: "v"}, State: client.Volume_PENDING, Registered: &client.Registered{FrameworkId: "fw", Epoch: 1}}}}
	report("pending", func(r *core.BridgeReport) bool {
		return r.Agent.Zone == "z2" && r.Volumes[key].Attached && r.Volumes[key].Framework == "fw" && len(r.Scopes) == 0
	})
	f.server.Stop()
	report("lost", func(r *core.BridgeReport) bool { return !r.Agent.Known && r.Volumes[key].Attached })
	h.Track(nil)
	await(t, "forgotten", func() bool { return len(h.Reports()) == 0 })
}

// Where nothing listens there is a report, too, which says that nothing is known.
func TestReportOfNoBridge(t *testing.T) {
	port, err := freeport.Port()
	if err != nil {
		t.Fatal(err)
	}
	h := newHub(t, nil)
	h.Track([]core.BridgeAgent{{ID: "a1", Hostname: "127.0.0.1", Attribute: strconv.Itoa(port)}})
	await(t, "reported", func() bool { return h.Reports()["a1"] != nil })
	if r := h.Reports()["a1"]; r.Agent.Known || r.Agent.AgentID != "a1" {
		t.Errorf("%+v", r)
	}
}

// A hint of an earlier boot keeps nothing anywhere.
func TestUnknownStateAttachesNothing(t *testing.T) {
	var v view
	if v.take(&client.Change{Revision: 2}) {
		t.Error("took a change of nothing")
	}
	if !v.take(facts(client.Volume_UNKNOWN)) || v.report("a1").Volumes[key].Attached {
		t.Error("attached")
	}
}

func TestRegisterAndWithdraw(t *testing.T) {
	f := startBridge(t, "127.0.0.1:0")
	h := newHub(t, nil)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	e := core.Epoch{AgentID: "a1", Key: key, Number: 1}
	if _, err := h.Register(ctx, "fw", e); err == nil {
		t.Error("registered with an agent that is not tracked")
	}
	track(h, f)
	if terms, err := h.Register(ctx, "fw", e); err != nil || terms != (core.LeaseTerms{}) {
		t.Errorf("%+v, %v", terms, err)
	}
	e.Terms.Lease = leaseLength
	if terms, err := h.Register(ctx, "fw", e); err != nil || terms != (core.LeaseTerms{Lease: leaseLength, Grace: time.Second, Trusted: true}) {
		t.Errorf("%+v, %v", terms, err)
	}
	if released, _, err := h.Withdraw(ctx, "fw", e); err != nil || !released {
		t.Errorf("%v, %v", released, err)
	}
	e.Number = 2
	if released, reason, err := h.Withdraw(ctx, "fw", e); err != nil || released || reason != "mounted" {
		t.Errorf("%v, %q, %v", released, reason, err)
	}
	f.mu.Lock()
	f.fail = status.Error(codes.FailedPrecondition, "a newer epoch is registered")
	f.mu.Unlock()
	if _, err := h.Register(ctx, "fw", e); status.Code(errors.Unwrap(err)) != codes.FailedPrecondition {
		t.Errorf("%v", err)
	}
}

// A volume is removed through the bridge of one agent, never by who may have lost
// the lead.
func TestRemove(t *testing.T) {
	f := startBridge(t, "127.0.0.1:0")
	lost := make(chan struct{})
	h := newHub(t, func(c *Config) { c.Lost = lost })
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	e := core.Epoch{AgentID: "a1", Key: key, Number: 1}
	if _, _, err := h.Remove(ctx, "fw", e); err == nil {
		t.Error("removed through an agent that is not tracked")
	}
	track(h, f)
	if removed, _, err := h.Remove(ctx, "fw", e); err != nil || !removed || !slices.Contains(f.did(), "remove fw v") {
		t.Errorf("%v, %v, %q", removed, err, f.did())
	}
	e.Number = 2
	if removed, reason, err := h.Remove(ctx, "fw", e); err != nil || removed || reason != "mounted" {
		t.Errorf("%v, %q, %v", removed, reason, err)
	}
	f.mu.Lock()
	f.fail = status.Error(codes.FailedPrecondition, "it has snapshots")
	f.mu.Unlock()
	if _, _, err := h.Remove(ctx, "fw", e); status.Code(errors.Unwrap(err)) != codes.FailedPrecondition {
		t.Errorf("%v", err)
	}
	before := len(f.did())
	close(lost)
	if removed, reason, err := h.Remove(ctx, "fw", e); err != nil || removed || reason == "" || len(f.did()) != before {
		t.Errorf("%v, %q, %v after the lead was lost", removed, reason, err)
	}
}

// TestLeasesAreRenewed with the basis of the answer before, until they are not
// held any more; then nothing prolongs them.
func TestLeasesAreRenewed(t *testing.T) {
	f := startBridge(t, "127.0.0.1:0")
	h := newHub(t, nil)
	track(h, f)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	e := core.Epoch{AgentID: "a1", Key: key, Number: 1, Terms: core.LeaseTerms{Lease: leaseLength}}
	terms, err := h.Register(ctx, "fw", e)
	if err != nil {
		t.Fatal(err)
	}
	e.Terms = terms
	first, _ := h.LeaseOver(e)
	h.Hold("fw", []core.Epoch{e})
	await(t, "renewed", func() bool { return len(f.quoted()) >= 3 })
	if q := f.quoted(); q[0] != "b0" || q[1] != "b1" || q[2] != "b2" {
		t.Errorf("quoted %q", q)
	}
	h.Hold("fw", nil)
	at, trusted := h.LeaseOver(e)
	if !trusted || !at.After(first) {
		t.Errorf("over at %s, %s at first, trusted %v", at, first, trusted)
	}
	later, _ := h.LeaseOver(e)
	if !later.Equal(at) {
		t.Error("prolonged by nothing")
	}
}

// A lease of an earlier process is taken to have been renewed just before, and
// is renewed with a basis that this process has got itself.
func TestLeaseOfAnEarlierProcess(t *testing.T) {
	f := startBridge(t, "127.0.0.1:0")
	h := newHub(t, nil)
	track(h, f)
	e := core.Epoch{AgentID: "a1", Key: key, Number: 1, Terms: core.LeaseTerms{Lease: leaseLength, Grace: time.Hour, Trusted: true}}
	before := time.Now()
	if at, trusted := h.LeaseOver(e); !trusted || at.Before(before.Add(time.Hour)) {
		t.Errorf("over at %s, trusted %v", at, trusted)
	}
	h.Hold("fw", []core.Epoch{e})
	await(t, "renewed", func() bool { return len(f.quoted()) >= 2 })
	if q := f.quoted(); q[0] != "" || q[1] != "b1" {
		t.Errorf("quoted %q", q)
	}
}

// Whoever may have lost the lead renews nothing.
func TestNoRenewalAfterTheLeadIsLost(t *testing.T) {
	f := startBridge(t, "127.0.0.1:0")
	lost := make(chan struct{})
	close(lost)
	h := newHub(t, func(c *Config) { c.Lost = lost })
	track(h, f)
	e := core.Epoch{AgentID: "a1", Key: key, Number: 1, Terms: core.LeaseTerms{Lease: leaseLength}}
	if problem := h.renewOnce(context.Background(), "fw", &lease{epoch: e, clock: client.AssumeLease(time.Second, 0, true, time.Now()), held: true}, time.Second); problem != "" {
		t.Error(problem)
	}
	if did := f.did(); slices.Contains(did, "renew") {
		t.Errorf("%q", did)
	}
}

func TestCredentialsAreChecked(t *testing.T) {
	for _, c := range []Credentials{{}, {TokenFile: "/nonexistent"}, {CertFile: "/c"}, {CertFile: "/c", KeyFile: "/k"}, {TokenFile: "/dev/null"}} {
		if h, err := New(Config{Credentials: c}); err == nil {
			h.Close()
			t.Errorf("%+v accepted", c)
		}
	}
}
