package detect_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/detect"
	"github.com/mesos-dvdi/dvdi/framework/detect/zktest"
)

const patience = time.Minute

// election is a Mesos election played on a real ZooKeeper.
type election struct {
	t      *testing.T
	server *zktest.Server
	acl    []zk.ACL
}

func newElection(t *testing.T, server *zktest.Server) *election {
	return &election{t: t, server: server, acl: zk.WorldACL(zk.PermAll)}
}

// lasting is how long the sessions of masters last that nothing but themselves is
// to end: long, for machines that are busy.
const lasting = 20 * time.Second

// node makes a permanent node.
func (e *election) node(path string) {
	e.t.Helper()
	conn := e.server.Client()
	defer conn.Close()
	if _, err := conn.Create(path, nil, 0, e.acl); err != nil {
		e.t.Fatal(err)
	}
}

// candidate is a master in the election; closing it resigns.
func (e *election) candidate(port int) *zk.Conn {
	e.t.Helper()
	conn := e.server.Client()
	e.t.Cleanup(conn.Close)
	info := fmt.Sprintf(`{"address":{"hostname":"localhost","ip":"127.0.0.1","port":%d},"id":"m"}`, port)
	if _, err := conn.Create("/mesos/json.info_", []byte(info), zk.FlagEphemeral|zk.FlagSequence, e.acl); err != nil {
		e.t.Fatal(err)
	}
	return conn
}

func (e *election) detector(credentials string) *detect.ZooKeeper {
	d := detect.NewZooKeeper(detect.Ensemble{Servers: []string{e.server.Addr}, Path: "/mesos", Credentials: credentials},
		10*zktest.TickTime, zap.NewNop())
	e.t.Cleanup(func() {
		if err := d.Close(); err != nil {
			e.t.Error(err)
		}
	})
	return d
}

func (e *election) expectLeader(d *detect.ZooKeeper, port int) detect.Leader {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), patience)
	defer cancel()
	l, err := d.Leader(ctx)
	if err != nil {
		e.t.Fatal(err)
	}
	if want := fmt.Sprintf("127.0.0.1:%d", port); l.Address != want || l.Lost == nil {
		e.t.Fatalf("leader %+v, want %s", l, want)
	}
	return l
}

func (e *election) expectLost(l detect.Leader) {
	e.t.Helper()
	select {
	case <-l.Lost:
	case <-time.After(patience):
		e.t.Fatalf("the loss of %s was not noticed", l.Address)
	}
}

func TestElectionIsFollowed(t *testing.T) {
	e := newElection(t, zktest.StartWithSessions(t, lasting))
	d := e.detector("")
	waiting := make(chan detect.Leader, 1)
	go func() {
		// Waits through a missing path and a path without masters.
		l, err := d.Leader(t.Context())
		if err != nil {
			t.Error(err)
		}
		waiting <- l
	}()
	e.node("/mesos")
	e.node("/mesos/log_replicas")
	first := e.candidate(5050)
	select {
	case l := <-waiting:
		if l.Address != "127.0.0.1:5050" || l.Name != "localhost:5050" {
			t.Errorf("leader %+v", l)
		}
	case <-time.After(patience):
		t.Fatal("the first leader was not noticed")
	}

	leader := e.expectLeader(d, 5050)
	second := e.candidate(5051)
	third := e.candidate(5052)
	e.expectLeader(d, 5050)
	second.Close() // a follower's end changes nothing
	select {
	case <-leader.Lost:
		t.Error("the leader was lost with a follower")
	default:
	}
	first.Close()
	e.expectLost(leader)
	leader = e.expectLeader(d, 5052)
	third.Close()
	e.expectLost(leader)

	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if l, err := d.Leader(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("leader %+v, error %v, though nobody leads", l, err)
	}
}

func TestLastKnownLeaderStandsWhileZooKeeperIsAway(t *testing.T) {
	e := newElection(t, zktest.Start(t))
	e.node("/mesos")
	first := e.candidate(5050)
	d := e.detector("")
	leader := e.expectLeader(d, 5050)

	first.Close()
	e.expectLost(leader)
	second := e.candidate(5051)
	leader = e.expectLeader(d, 5051)
	e.server.Stop()
	time.Sleep(20 * zktest.TickTime) // longer than the session's time-out
	again := e.expectLeader(d, 5051)
	if again.Lost != leader.Lost {
		t.Error("the leader was taken for another one")
	}
	e.server.Restart()
	second.Close() // its session lives on over the restart
	e.candidate(5053)
	e.expectLost(leader)
	e.expectLeader(d, 5053)
}

func TestCredentialsOpenAProtectedElection(t *testing.T) {
	e := newElection(t, zktest.StartWithSessions(t, lasting))
	e.node("/mesos")
	admin := e.server.Client()
	defer admin.Close()
	if err := admin.AddAuth("digest", []byte("mesos:pa55")); err != nil {
		t.Fatal(err)
	}
	info := []byte(`{"address":{"hostname":"localhost","ip":"127.0.0.1","port":5050}}`)
	if _, err := admin.Create("/mesos/json.info_", info, zk.FlagEphemeral|zk.FlagSequence, zk.DigestACL(zk.PermAll, "mesos", "pa55")); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.SetACL("/mesos", zk.DigestACL(zk.PermAll, "mesos", "pa55"), -1); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if l, err := e.detector("").Leader(ctx); err == nil {
		t.Errorf("leader %+v without credentials", l)
	}
	e.expectLeader(e.detector("mesos:pa55"), 5050)
}

func TestClosedDetectorAnswersNobody(t *testing.T) {
	// Nothing listens at this port: the connection is never made.
	d := detect.NewZooKeeper(detect.Ensemble{Servers: []string{"127.0.0.1:1"}, Path: "/mesos"}, time.Second, zap.NewNop())
	answer := make(chan error)
	go func() {
		_, err := d.Leader(t.Context())
		answer <- err
	}()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := <-answer; !errors.Is(err, detect.ErrClosed) {
		t.Errorf("error %v", err)
	}
	if _, err := d.Leader(t.Context()); !errors.Is(err, detect.ErrClosed) {
		t.Errorf("error %v", err)
	}
}

func TestSilentServerIsGivenUp(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	accepted := make(chan net.Conn, 16)
	go func() {
		for {
			conn, err := silent.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- conn
		}
	}()
	d := detect.NewZooKeeper(detect.Ensemble{Servers: []string{silent.Addr().String()}, Path: "/mesos"}, 100*time.Millisecond, zap.NewNop())
	for range 2 { // a second attempt follows by itself
		select {
		case conn := <-accepted:
			defer conn.Close()
		case <-time.After(patience):
			t.Fatal("no connection")
		}
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	select {
	case <-closed:
	case <-time.After(patience):
		t.Fatal("Close waits for a server that says nothing")
	}
}
