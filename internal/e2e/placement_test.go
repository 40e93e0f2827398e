package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/devcluster"
)

// TestPersistentVolume runs a task on a Mesos persistent volume, by a framework
// with a role of its own: what it writes outlives its tasks, until a wipe. On
// the way the framework explains what waits and its log of decisions is
// replayed.
func TestPersistentVolume(t *testing.T) {
	e := newEnv(t, 2, reference)
	if e.cluster == nil {
		t.Skip("an external Mesos may not let us reserve")
	}
	decisions := filepath.Join(e.dir, "decisions")
	f, err := e.cluster.StartFramework(e.ctx, devcluster.FrameworkOptions{Data: "kept", Args: []string{
		"--mesos_role", "db", "--min_revive_offers_interval", "200", "--decision_log", decisions,
	}})
	if err != nil {
		t.Fatal(err)
	}
	e.Framework = f
	e.must("POST", "/v2/apps", object{
		"id": "/kept", "cmd": writer, "cpus": 0.1, "mem": 32,
		"container": object{"type": "MESOS", "volumes": []object{{"containerPath": "data", "mode": "RW", "persistent": object{"size": 16}}}},
	}, nil)
	first := e.keptTask("")
	log := e.persistentLog()
	e.poll("the first task's line", func() (bool, string, error) {
		got := readLines(t, log)
		return len(got) == 1 && got[0] == first, strings.Join(got, " "), nil
	})
	e.must("DELETE", "/v2/apps/kept/tasks", nil, nil)
	second := e.keptTask(first)
	e.poll("both tasks' lines", func() (bool, string, error) {
		got := readLines(t, log)
		return len(got) == 2 && got[1] == second, strings.Join(got, " "), nil
	})
	e.must("DELETE", "/v2/apps/kept?wipe=true", nil, nil)
	e.poll("the data is destroyed", func() (bool, string, error) {
		_, err := os.Stat(log)
		return os.IsNotExist(err), "it is still there", nil
	})

	e.must("POST", "/v2/apps", object{"id": "/huge", "cmd": "sleep 1000", "cpus": 100, "mem": 32}, nil)
	e.poll("explain tells what is lacking", func() (bool, string, error) {
		out, err := e.command("explain", "--url", f.URL, "huge")
		return strings.Contains(out, "InsufficientCpus") && strings.Contains(out, "closest: agent"), out, err
	})
	// The framework goes on writing it: its last line may be half there.
	e.poll("the log of decisions to be replayed", func() (bool, string, error) {
		out, err := e.command("replay", decisions)
		return err == nil && strings.Contains(out, "decisions are the same"), out, nil
	})
}

func (e *env) command(args ...string) (string, error) {
	out, err := exec.CommandContext(e.ctx, filepath.Join(binaries, "dvdi-framework"), args...).CombinedOutput()
	return string(out), err
}

// keptTask returns the running task of /kept once it is another one.
func (e *env) keptTask(before string) (id string) {
	e.t.Helper()
	e.poll("a task of /kept runs", func() (bool, string, error) {
		var out struct {
			Tasks []struct{ ID, State string }
		}
		if err := e.Do(e.ctx, "GET", "/v2/apps/kept/tasks", nil, &out); err != nil {
			return false, "", err
		}
		if len(out.Tasks) != 1 {
			return false, "no task", nil
		}
		id = out.Tasks[0].ID
		return out.Tasks[0].State == "TASK_RUNNING" && id != before, out.Tasks[0].State, nil
	})
	return id
}

// persistentLog finds the file in the only persistent volume.
func (e *env) persistentLog() string {
	e.t.Helper()
	var found []string
	e.poll("the task writes", func() (bool, string, error) {
		var err error
		found, err = filepath.Glob(filepath.Join(e.dir, "*", "*", "volumes", "roles", "db", "*", "log"))
		return len(found) == 1, strings.Join(found, " "), err
	})
	return found[0]
}

func readLines(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(data))
}
