package mesos

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/framework/detect"
	"github.com/mesos-dvdi/dvdi/framework/detect/zktest"
)

// elect enters a master into the election at /mesos; closing the connection
// takes it out again.
func elect(t *testing.T, server *zktest.Server, m *scriptedMaster) *zk.Conn {
	t.Helper()
	conn := server.Client()
	t.Cleanup(conn.Close)
	acl := zk.WorldACL(zk.PermAll)
	if _, err := conn.Create("/mesos", nil, 0, acl); err != nil && !errors.Is(err, zk.ErrNodeExists) {
		t.Fatal(err)
	}
	host, port := m.hostPort()
	info := fmt.Sprintf(`{"address":{"hostname":"localhost","ip":%q,"port":%s}}`, host, port)
	if _, err := conn.Create("/mesos/json.info_", []byte(info), zk.FlagEphemeral|zk.FlagSequence, acl); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestConnectionFollowsTheElectionInZooKeeper(t *testing.T) {
	server := zktest.StartWithSessions(t, time.Minute)
	hold := func(_ int, s *stream) { s.accept(); s.hold() }
	first, second := newScriptedMaster(t, hold), newScriptedMaster(t, hold)
	detector, err := detect.Parse("zk://"+server.Addr+"/mesos", zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := detector.Close(); err != nil {
			t.Error(err)
		}
	})
	config := testConfig(t, "unused")
	config.Detector = detector
	c := run(t, config, "")

	leading := elect(t, server, first)
	expect[core.Subscribed](c)
	elect(t, server, second)
	leading.Close()
	if e := expect[core.Disconnected](c); !errors.Is(e.Cause, errLeaderChanged) {
		t.Errorf("cause %v", e.Cause)
	}
	expect[core.Subscribed](c)
	if len(first.subscriptions()) != 1 || len(second.subscriptions()) != 1 {
		t.Errorf("%d and %d subscriptions", len(first.subscriptions()), len(second.subscriptions()))
	}
	if got := second.subscriptions()[0].call.FrameworkID.GetValue(); got != testFrameworkID {
		t.Errorf("framework id %q with the new leader", got)
	}
}
