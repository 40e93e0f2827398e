package main

import (
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/mesos-dvdi/dvdi/framework/detect/zktest"
)

// TestMasterFoundInAProtectedZooKeeper gives --master with user and password: the
// masters' nodes open to them alone, and they are shown nowhere.
func TestMasterFoundInAProtectedZooKeeper(t *testing.T) {
	l := newLife(t)
	server := zktest.StartWithSessions(t, time.Minute)
	conn := server.Client()
	defer conn.Close()
	if err := conn.AddAuth("digest", []byte("dvdi:pa55")); err != nil {
		t.Fatal(err)
	}
	acl := zk.DigestACL(zk.PermAll, "dvdi", "pa55")
	host, port, err := net.SplitHostPort(l.mesos.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Create("/mesos", nil, 0, acl); err != nil {
		t.Fatal(err)
	}
	info := fmt.Sprintf(`{"address":{"hostname":%q,"ip":%q,"port":%s}}`, host, host, port)
	if _, err := conn.Create("/mesos/json.info_", []byte(info), zk.FlagEphemeral|zk.FlagSequence, acl); err != nil {
		t.Fatal(err)
	}
	l.program = start(t, "--master=zk://dvdi:pa55@"+server.Addr+"/mesos", "--data-dir="+l.data)
	l.api = "http://" + l.serving(t)
	if l.id() == "" {
		t.Error("no framework id")
	}
	var shown struct {
		Config struct{ Master string } `json:"marathon_config"`
	}
	if l.get("/v2/info", &shown); !strings.HasSuffix(shown.Config.Master, "@"+server.Addr+"/mesos") || strings.Contains(shown.Config.Master, "pa55") {
		t.Errorf("shown as %s", shown.Config.Master)
	}
	l.stopped(t)
}

// stopped ends the program and looks for the password in what it has written.
func (l *life) stopped(t *testing.T) {
	t.Helper()
	if err := l.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, out := l.exit(t); code != 0 || strings.Contains(out, "pa55") {
		t.Errorf("exit code %d, output %q", code, out)
	}
}
