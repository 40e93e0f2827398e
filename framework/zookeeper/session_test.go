package zookeeper

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/mesos-dvdi/dvdi/framework/detect"
	"github.com/mesos-dvdi/dvdi/framework/detect/zktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func connect(t *testing.T, addr string, timeout time.Duration) *Session {
	t.Helper()
	s, err := Connect(t.Context(), Config{
		Ensemble: detect.Ensemble{Servers: []string{addr}, Path: "/"}, SessionTimeout: timeout, ConnectTimeout: time.Minute,
	}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// awaitLost waits for the end of the session; the test's own time-out bounds it.
func awaitLost(t *testing.T, s *Session) error {
	t.Helper()
	select {
	case <-s.Lost():
		return s.Err()
	case <-time.After(time.Minute):
		t.Fatal("the session is not lost")
		return nil
	}
}

func TestCallsOutlastARestart(t *testing.T) {
	server := zktest.StartWithSessions(t, time.Minute) // Java takes its time to start again
	s := connect(t, server.Addr, time.Minute)
	if err := s.MakePath("/a/b"); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	done := make(chan error, 1)
	go func() {
		done <- s.Do(func(conn *zk.Conn) error {
			_, _, err := conn.Get("/a/b")
			return err
		})
	}()
	server.Restart()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := s.MakePath("/a/b/c"); err != nil {
		t.Error(err)
	}
}

// The normal end of a session is no trouble that a log should tell of.
func TestCloseIsNotLogged(t *testing.T) {
	server := zktest.StartWithSessions(t, time.Minute)
	core, logged := observer.New(zap.DebugLevel)
	s, err := Connect(t.Context(), Config{
		Ensemble: detect.Ensemble{Servers: []string{server.Addr}, Path: "/"}, SessionTimeout: time.Minute, ConnectTimeout: time.Minute,
	}, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.MakePath("/a"); err != nil {
		t.Error(err)
	}
	before := logged.Len() // a slow server may have been tried twice
	s.Close()
	for _, entry := range logged.All()[before:] {
		t.Errorf("logged: %s %v", entry.Message, entry.ContextMap())
	}
}

func TestSilenceLosesTheSession(t *testing.T) {
	server := zktest.Start(t)
	s := connect(t, server.Addr, 2*time.Second)
	server.Pause()
	defer server.Resume()
	err := awaitLost(t, s)
	if !errors.Is(err, ErrLost) {
		t.Errorf("lost by %v", err)
	}
	if err := s.Do(func(*zk.Conn) error { return errors.New("called") }); !errors.Is(err, ErrLost) {
		t.Errorf("a call in a lost session: %v", err)
	}
}

func TestACutConnectionLosesTheSession(t *testing.T) {
	server := zktest.StartWithSessions(t, time.Minute)
	relay := zktest.NewRelay(t, server.Addr)
	cut, other := connect(t, relay.Addr, 2*time.Second), connect(t, server.Addr, time.Minute)
	relay.Cut()
	if err := awaitLost(t, cut); !errors.Is(err, ErrLost) {
		t.Errorf("lost by %v", err)
	}
	if err := other.MakePath("/still/here"); err != nil {
		t.Errorf("the other client: %v", err)
	}
}

func TestAShortCutIsSurvived(t *testing.T) {
	server := zktest.StartWithSessions(t, time.Minute)
	relay := zktest.NewRelay(t, server.Addr)
	s := connect(t, relay.Addr, time.Minute)
	relay.Cut()
	relay.Mend()
	if err := s.MakePath("/after"); err != nil {
		t.Error(err)
	}
	if s.Err() != nil {
		t.Errorf("the session ended: %v", s.Err())
	}
}

// TestASilentServerCostsNoSession has the client meet a server that takes the
// connection and says nothing, and asks for more time than the session gets.
func TestASilentServerCostsNoSession(t *testing.T) {
	server := zktest.StartWithSessions(t, 15*time.Second)
	relay := zktest.NewRelay(t, server.Addr)
	s := connect(t, relay.Addr, time.Minute)
	relay.CutAndMute(1)
	if err := s.MakePath("/after"); err != nil {
		t.Error(err)
	}
	if s.Err() != nil {
		t.Errorf("the session ended: %v", s.Err())
	}
}

// TestTheServersTimeoutCounts asks for a longer session than the server allows.
func TestTheServersTimeoutCounts(t *testing.T) {
	server := zktest.Start(t)
	s := connect(t, server.Addr, time.Hour)
	if got := s.wire.timeout(); got != 20*zktest.TickTime {
		t.Errorf("the session lasts %s, the server allows %s", got, 20*zktest.TickTime)
	}
}

func TestNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = Connect(t.Context(), Config{
		Ensemble:       detect.Ensemble{Servers: []string{l.Addr().String()}, Path: "/x", Credentials: "user:pa55"},
		ConnectTimeout: 100 * time.Millisecond,
	}, zap.NewNop())
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), l.Addr().String()) || strings.Contains(err.Error(), "pa55") {
		t.Errorf("got %v", err)
	}
}

func TestClosingEndsEphemeralNodes(t *testing.T) {
	server := zktest.StartWithSessions(t, time.Minute)
	s, other := connect(t, server.Addr, time.Minute), connect(t, server.Addr, time.Minute)
	if _, err := s.Conn().Create("/mine", nil, zk.FlagEphemeral, s.ACL()); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if exists, _, err := other.Conn().Exists("/mine"); err != nil || exists {
		t.Errorf("after Close the node exists: %v, %v", exists, err)
	}
	if !errors.Is(s.Err(), ErrClosed) {
		t.Errorf("ended by %v", s.Err())
	}
}
