package election

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/detect"
	"github.com/mesos-dvdi/dvdi/framework/detect/zktest"
	"github.com/mesos-dvdi/dvdi/framework/zookeeper"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// party is a process that takes part in an election.
type party struct {
	*Election
	url   string
	stop  context.CancelFunc
	leads chan struct{} // closed when it leads
	over  chan struct{} // closed when its context as leader has ended
	ended chan error    // what Run returned
}

// gauge counts who leads at the same time.
type gauge struct {
	mu       sync.Mutex // guards now and most
	now, max int
}

func (g *gauge) add(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now += n
	g.max = max(g.max, g.now)
}

// Sessions last long, for machines that are busy, but where a test waits for the end
// of one.
const lasting, brief = time.Minute, 5 * time.Second

func join(t *testing.T, addr, url string, session time.Duration, g *gauge) *party {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	p := &party{url: url, stop: stop, leads: make(chan struct{}), over: make(chan struct{}), ended: make(chan error, 1)}
	p.Election = New(Config{
		Session: zookeeper.Config{Ensemble: detect.Ensemble{Servers: []string{addr}, Path: "/"},
			SessionTimeout: session, ConnectTimeout: time.Minute},
		Root: "/dvdi/election", Self: Member{URL: url}, Retry: 10 * time.Millisecond,
	}, zap.NewNop())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.ended <- p.Run(ctx, func(ctx context.Context, _ *zookeeper.Session) error {
			g.add(1)
			close(p.leads)
			<-ctx.Done()
			g.add(-1)
			close(p.over)
			return nil
		})
	}()
	t.Cleanup(func() { stop(); <-done })
	return p
}

func await(t *testing.T, what string, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(time.Minute):
		t.Fatalf("no %s", what)
	}
}

func poll(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatalf("not seen: %s", what)
}

// sees waits until p takes leader for the leader.
func (p *party) sees(t *testing.T, leader *party) {
	t.Helper()
	poll(t, fmt.Sprintf("%s follows %s", p.url, leader.url), func() bool {
		m, self, known := p.Leader()
		return known && m.URL == leader.url && self == (p == leader)
	})
}

func TestOneLeadsAndTheNextFollows(t *testing.T) {
	server := zktest.StartWithSessions(t, lasting)
	var g gauge
	first := join(t, server.Addr, "http://one", lasting, &g)
	await(t, "leader", first.leads)
	second := join(t, server.Addr, "http://two", lasting, &g)
	second.sees(t, first)
	third := join(t, server.Addr, "http://three", lasting, &g)
	third.sees(t, first)

	first.stop()
	if err := <-first.ended; err != nil {
		t.Errorf("stopped: %v", err)
	}
	await(t, "second leader", second.leads)
	third.sees(t, second)

	second.Abdicate()
	second.Abdicate()
	if err := <-second.ended; !errors.Is(err, ErrAbdicated) {
		t.Errorf("abdicated: %v", err)
	}
	await(t, "third leader", third.leads)
	if _, _, known := second.Leader(); known {
		t.Error("who takes no part any more still knows a leader")
	}
	if g.max != 1 {
		t.Errorf("%d led at the same time", g.max)
	}
}

func TestACutLeaderEndsBeforeTheNextBegins(t *testing.T) {
	server := zktest.StartWithSessions(t, lasting)
	relay := zktest.NewRelay(t, server.Addr)
	var g gauge
	first := join(t, relay.Addr, "http://one", brief, &g)
	await(t, "leader", first.leads)
	second := join(t, server.Addr, "http://two", lasting, &g)
	second.sees(t, first)
	relay.Cut()
	if err := <-first.ended; !errors.Is(err, zookeeper.ErrLost) {
		t.Errorf("cut off: %v", err)
	}
	await(t, "second leader", second.leads)
	if g.max != 1 {
		t.Errorf("%d led at the same time", g.max)
	}
}

func TestAFollowerOutlastsItsSession(t *testing.T) {
	server := zktest.StartWithSessions(t, lasting)
	relay := zktest.NewRelay(t, server.Addr)
	var g gauge
	first := join(t, server.Addr, "http://one", lasting, &g)
	await(t, "leader", first.leads)
	second := join(t, relay.Addr, "http://two", brief, &g)
	second.sees(t, first)
	relay.Cut()
	poll(t, "the follower knows no leader", func() bool { _, _, known := second.Leader(); return !known })
	relay.Mend()
	second.sees(t, first)
	first.stop()
	await(t, "second leader", second.leads)
}

func TestADeletedNodeEndsTheLead(t *testing.T) {
	server := zktest.StartWithSessions(t, lasting)
	var g gauge
	p := join(t, server.Addr, "http://one", lasting, &g)
	await(t, "leader", p.leads)
	client := server.Client()
	defer client.Close()
	names, _, err := client.Children("/dvdi/election")
	if err != nil || len(names) != 1 {
		t.Fatalf("nodes %v, %v", names, err)
	}
	if err := client.Delete(path.Join("/dvdi/election", names[0]), -1); err != nil {
		t.Fatal(err)
	}
	if err := <-p.ended; !errors.Is(err, ErrDeposed) {
		t.Errorf("deposed: %v", err)
	}
}

func TestTheFirstConnectionMustSucceed(t *testing.T) {
	e := New(Config{Session: zookeeper.Config{Ensemble: detect.Ensemble{Servers: []string{"127.0.0.1:1"}, Path: "/"},
		ConnectTimeout: 10 * time.Millisecond}, Root: "/x"}, zap.NewNop())
	err := e.Run(t.Context(), func(context.Context, *zookeeper.Session) error { return errors.New("led") })
	if !errors.Is(err, zookeeper.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

func TestLowestNumberLeads(t *testing.T) {
	names := []string{"_c_ff-member-0000000010", "_c_aa-member-0000000009", "strange", "member-x"}
	for own, want := range map[string]bool{"_c_ff-member-0000000010": true, "_c_bb-member-0000000001": false} {
		if lowest, present := first(names, own); lowest != "_c_aa-member-0000000009" || present != want {
			t.Errorf("%s: %s, %v", own, lowest, present)
		}
	}
}
