package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/devcluster"
)

// reference runs the embedded Mesos with the reference plugin.
func reference(t *testing.T, dir string) (devcluster.Plugin, driver) {
	return devcluster.ReferencePlugin(binaries), driver{name: devcluster.Driver}
}

// rclone runs it with rclone's plugin.
func rclone(t *testing.T, dir string) (devcluster.Plugin, driver) {
	if os.Geteuid() != 0 {
		t.Skip("rclone's plugin mounts for other users too, which FUSE allows to root only")
	}
	program, err := exec.LookPath("rclone")
	if err != nil {
		t.Skip("the Debian package rclone is not installed")
	}
	if _, err := exec.LookPath("fusermount3"); err != nil {
		t.Skip("the Debian package fuse3 is not installed")
	}
	return devcluster.RclonePlugin(program), driver{name: "rclone", options: map[string]string{
		"type": "local", "path": filepath.Join(dir, "rclone-data", "%s"),
		// Without a cache rclone cannot append to files.
		"vfs_cache_mode": "writes", "vfs_write_back": "0s",
	}}
}

// data are the tests about a volume's data; they run with every driver.
var data = []struct {
	name string
	test func(*env)
}{
	{"Relaunch", testRelaunch},
	{"ScaleToZeroAndBack", testScaleToZero},
	{"SharedOnOneAgent", testShared},
	{"AgentRestart", testAgentRestart},
	{"FrameworkRestart", testFrameworkRestart},
}

// TestReferencePlugin runs them with the reference plugin, or with the driver
// of an external Mesos.
func TestReferencePlugin(t *testing.T) { runData(t, reference) }

func TestRclone(t *testing.T) {
	if os.Getenv("DVDI_E2E_MASTER") != "" {
		t.Skip("the driver of an external Mesos is tested by TestReferencePlugin")
	}
	runData(t, rclone)
}

func runData(t *testing.T, pick func(*testing.T, string) (devcluster.Plugin, driver)) {
	shared := newEnv(t, 2, pick)
	for _, tc := range data {
		t.Run(tc.name, func(t *testing.T) {
			e := *shared
			e.t = t
			tc.test(&e)
			shared.Framework = e.Framework
		})
	}
}

// A task that is killed comes back and finds what it wrote before.
func testRelaunch(e *env) {
	e.must(http.MethodPost, "/v2/apps", e.app("/relaunch", "relaunch", writer), nil)
	first := e.did(e.running("/relaunch", 1)[0])
	e.settled()
	e.must(http.MethodDelete, "/v2/apps/relaunch/tasks/"+first.ID, nil, nil)
	second := e.did(e.running("/relaunch", 1, first.ID)[0])
	if second.Host != first.Host {
		e.t.Errorf("the task moved from %s to %s although its volume was there", first.Host, second.Host)
	}
	e.remove("/relaunch")
	e.holds("relaunch", first.ID, second.ID)
}

// An app that is suspended and resumed keeps its data.
func testScaleToZero(e *env) {
	e.must(http.MethodPost, "/v2/apps", e.app("/scale", "scale", writer), nil)
	first := e.did(e.running("/scale", 1)[0])
	e.settled()
	e.must(http.MethodPut, "/v2/apps/scale", object{"instances": 0}, nil)
	e.running("/scale", 0)
	e.settled()
	e.must(http.MethodPut, "/v2/apps/scale", object{"instances": 1}, nil)
	second := e.did(e.running("/scale", 1)[0])
	e.remove("/scale")
	e.holds("scale", first.ID, second.ID)
}

// Two apps that both say shared have one volume on one agent, and the first to
// stop does not take it from the other.
func testShared(e *env) {
	shared := func(id string) object {
		a := e.app(id, "shared", writer)
		a["container"].(object)["volumes"].([]object)[0]["external"].(object)["shared"] = true
		return a
	}
	e.must(http.MethodPost, "/v2/apps", shared("/shared-1"), nil)
	first := e.did(e.running("/shared-1", 1)[0])
	e.must(http.MethodPost, "/v2/apps", shared("/shared-2"), nil)
	second := e.did(e.running("/shared-2", 1)[0])
	if first.Host != second.Host {
		e.t.Fatalf("one volume on two agents: %s and %s", first.Host, second.Host)
	}
	e.remove("/shared-1")
	e.settled()
	// What is left must still be able to write: its relaunch appends.
	e.must(http.MethodDelete, "/v2/apps/shared-2/tasks/"+second.ID, nil, nil)
	third := e.did(e.running("/shared-2", 1, second.ID)[0])
	e.remove("/shared-2")
	e.holds("shared", first.ID, second.ID, third.ID)
}

// The agent's process is killed and started again: the task lives on.
func testAgentRestart(e *env) {
	e.must(http.MethodPost, "/v2/apps", e.app("/agent-restart", "agent-restart", writer), nil)
	before := e.did(e.running("/agent-restart", 1)[0])
	e.settled()
	e.fault("kill-agent", before.Host)
	e.fault("start-agent", before.Host)
	after := e.running("/agent-restart", 1)[0]
	if after.ID != before.ID {
		e.t.Errorf("the task was replaced: %s, before %s", after.ID, before.ID)
	}
	e.remove("/agent-restart")
	e.holds("agent-restart", before.ID)
}

// The framework is stopped, and then killed: each time it comes back with the
// same id, and the task never notices.
func testFrameworkRestart(e *env) {
	e.must(http.MethodPost, "/v2/apps", e.app("/framework-restart", "framework-restart", writer), nil)
	before := e.did(e.running("/framework-restart", 1)[0])
	e.settled()
	id := e.frameworkID()
	ctx, cancel := e.wait()
	defer cancel()
	if err := e.Stop(ctx); err != nil {
		e.t.Fatal(err)
	}
	if e.Err() != nil {
		e.t.Errorf("SIGTERM ended the framework with %v", e.Err())
	}
	e.startFramework()
	e.Kill()
	e.startFramework()
	if now := e.frameworkID(); now != id {
		e.t.Errorf("the framework id changed from %s to %s", id, now)
	}
	after := e.running("/framework-restart", 1)[0]
	if after.ID != before.ID {
		e.t.Errorf("the task was replaced: %s, before %s", after.ID, before.ID)
	}
	e.remove("/framework-restart")
	e.holds("framework-restart", before.ID)
}

func (e *env) frameworkID() string {
	var info struct {
		FrameworkID string `json:"frameworkId"`
	}
	e.must(http.MethodGet, "/v2/info", nil, &info)
	return info.FrameworkID
}

// A host is lost: the volume is held until the operator says that the host is
// gone, and then the task runs elsewhere.
func TestHostLost(t *testing.T) {
	e := newEnv(t, 3, reference)
	e.must(http.MethodPost, "/v2/apps", e.app("/lost", "lost", writer), nil)
	first := e.did(e.running("/lost", 1)[0])
	e.settled()
	e.fault("lose-host", first.Host)
	e.poll("the task to be unreachable", func() (bool, string, error) {
		tasks, err := e.Tasks(e.ctx, "/lost")
		if err != nil {
			return false, "", err
		}
		return len(tasks) == 1 && tasks[0].State == "TASK_UNREACHABLE", strings.Join(states(tasks), ","), nil
	})
	if v := e.get("/v2/volumes"); !strings.Contains(v, first.Host) || !strings.Contains(v, "gone") {
		t.Errorf("GET /v2/volumes does not say who holds the volume and what ends that: %s", v)
	}
	// Held means held: a whole reconciliation later nobody else has it.
	e.Framework.Kill()
	e.startFramework()
	tasks, err := e.Tasks(e.ctx, "/lost")
	if err != nil || len(tasks) != 1 || tasks[0].ID != first.ID {
		t.Fatalf("the volume was not held: %v %v", tasks, err)
	}
	if e.cluster != nil {
		if err := e.cluster.Node(first.Host).ForceDetach(e.ctx, "lost"); err != nil {
			t.Fatal(err)
		}
	}
	e.fault("agent-gone", first.Host)
	second := e.did(e.running("/lost", 1, first.ID)[0])
	if second.Host == first.Host {
		t.Fatalf("the task came back on the lost host %s", second.Host)
	}
	e.remove("/lost")
	e.holds("lost", first.ID, second.ID)
}

func states(tasks []devcluster.Task) []string {
	var s []string
	for _, t := range tasks {
		s = append(s, t.ID+" "+t.State)
	}
	return s
}
