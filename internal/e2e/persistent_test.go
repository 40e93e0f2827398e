package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/devcluster"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
)

// disksOf makes the disks of the first agent below a directory.
func disksOf(t *testing.T, dir string) []embeddedmesos.Disk {
	t.Helper()
	disks := []embeddedmesos.Disk{
		{Root: "fast", MiB: 500}, {Root: "slow", MiB: 4000},
		{Root: "small", MiB: 800, Mount: true}, {Root: "big", MiB: 3000, Mount: true},
		{Root: "nvme", MiB: 600, Mount: true, Profile: "nvme"},
	}
	for i := range disks {
		disks[i].Root = filepath.Join(dir, disks[i].Root)
		if err := os.Mkdir(disks[i].Root, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return disks
}

// onDisks is an app with a volume of each kind of disk.
const onDisks = `{"id":"/disks","role":"db","cmd":"for v in root fast slow mount nvme; do echo \"$MESOS_TASK_ID\" >>$v/log; done; exec sleep 1000",
	"cpus":0.1,"mem":32,"backoffSeconds":0.5,"maxLaunchDelaySeconds":2,
	"residency":{"taskLostBehavior":"RELAUNCH_AFTER_TIMEOUT","relaunchEscalationTimeoutSeconds":10},
	"container":{"type":"MESOS","volumes":[
	{"containerPath":"root","mode":"RW","persistent":{"size":16}},
	{"containerPath":"fast","mode":"RW","persistent":{"type":"path","size":100,"constraints":[["path","LIKE",".*/fast"]]}},
	{"containerPath":"slow","mode":"RW","persistent":{"type":"path","size":100,"constraints":[["path","UNLIKE",".*/fast"]]}},
	{"containerPath":"mount","mode":"RW","persistent":{"type":"mount","size":500,"maxSize":1000}},
	{"containerPath":"nvme","mode":"RW","persistent":{"profileName":"nvme","size":100}}]}}`

// TestPersistentDisks runs an instance with a volume on each kind of disk: made
// and used in one ACCEPT, found again after its task's end, a death of the
// framework, and an agent's restart; destroyed when that is asked for.
func TestPersistentDisks(t *testing.T) {
	if os.Getenv("DVDI_E2E_MASTER") != "" {
		t.Skip("the disks of an external Mesos belong to its operator")
	}
	disks := disksOf(t, t.TempDir())
	e := newEnvOf(t, setup{agents: 2, pick: reference, tapped: true, args: []string{"--mesos_role", "db", "--mesos_authentication_principal", "us"},
		change: func(c *devcluster.Config) {
			c.Agent = func(i int, a *embeddedmesos.AgentConfig) {
				if i == 0 {
					a.Disks = disks
				}
			}
		}})
	e.must(http.MethodPost, "/v2/apps", []byte(onDisks), nil)
	first := e.running("/disks", 1)[0]
	if first.Host != "agent1.test" {
		t.Errorf("it runs on %s, which has no such disks", first.Host)
	}
	ids := e.createdTogether(first.ID)
	if e.appResidency() != `{"RELAUNCH_AFTER_TIMEOUT" 10}` {
		t.Errorf("the residency is shown as %s", e.appResidency())
	}
	logs := map[string]string{
		"root":  filepath.Join(e.dir, "mesos", "agent1", "volumes", "roles", "db", ids["root"], "log"),
		"fast":  filepath.Join(disks[0].Root, "volumes", "roles", "db", ids["fast"], "log"),
		"slow":  filepath.Join(disks[1].Root, "volumes", "roles", "db", ids["slow"], "log"),
		"mount": filepath.Join(disks[2].Root, "log"), "nvme": filepath.Join(disks[4].Root, "log"),
	}
	tasks := []string{first.ID}
	wrote := func() {
		t.Helper()
		for name, log := range logs {
			e.poll("volume "+name+" to hold what all tasks wrote", func() (bool, string, error) {
				data, err := os.ReadFile(log)
				if os.IsNotExist(err) {
					return false, "nothing", nil
				}
				return strings.Join(strings.Fields(string(data)), " ") == strings.Join(tasks, " "), string(data), err
			})
		}
	}
	wrote()
	again := func(what string) {
		t.Helper()
		seen := len(e.accepts(0))
		e.must(http.MethodDelete, "/v2/apps/disks/tasks/"+tasks[len(tasks)-1], nil, nil)
		now := e.running("/disks", 1, tasks...)[0]
		tasks = append(tasks, now.ID)
		if got := e.localVolumes(); !slices.Equal(got, sorted(ids)) || now.Host != first.Host {
			t.Errorf("after %s on %s with %v, want %v", what, now.Host, got, ids)
		}
		for _, a := range e.accepts(seen) {
			if a.kinds() != "LAUNCH" {
				t.Errorf("after %s: %s, want a launch on what is reserved", what, a.kinds())
			}
		}
		wrote()
	}
	again("its task's end")
	e.Framework.Kill()
	e.startFramework()
	again("the framework's death")
	e.fault("kill-agent", first.Host)
	e.fault("start-agent", first.Host)
	e.running("/disks", 1)
	again("the agent's restart")
	e.allOrNone()
	e.wiped(logs, ids)
}

// createdTogether checks the ACCEPT that made the volumes of an app's first task,
// and returns their ids by container path.
func (e *env) createdTogether(task string) map[string]string {
	e.t.Helper()
	var framework struct {
		FrameworkID string `json:"frameworkId"`
	}
	e.must(http.MethodGet, "/v2/info", nil, &framework)
	instance := strings.TrimSuffix(task, "._app.1")
	all := e.accepts(0)
	if len(all) != 1 || all[0].kinds() != "RESERVE CREATE LAUNCH" {
		e.t.Fatalf("ACCEPT calls %+v", all)
	}
	ops := all[0].Operations
	if ops[0].ID == nil || ops[1].ID == nil || ops[2].ID != nil {
		e.t.Errorf("feedback is asked for with ids %v, %v, %v; want some, some, none", ops[0].ID, ops[1].ID, ops[2].ID)
	}
	wantLabels := fmt.Sprint(map[string]string{"marathon_framework_id": framework.FrameworkID, "marathon_task_id": instance})
	for _, r := range ops[0].Reserve.Resources {
		if fmt.Sprint(r.labels()) != wantLabels || r.Reservations[0].Role != "db" || r.Reservations[0].Principal != "us" {
			e.t.Errorf("reserved %+v, want labels %s", r, wantLabels)
		}
	}
	for _, name := range []string{"cpus", "mem", "ports", "disk"} {
		if !slices.ContainsFunc(ops[0].Reserve.Resources, func(r resourceJSON) bool { return r.Name == name }) {
			e.t.Errorf("no %s are reserved", name)
		}
	}
	want := map[string]string{"root": " 16", "fast": "PATH 100", "slow": "PATH 100", "mount": "MOUNT 800", "nvme": "MOUNT 600"}
	ids, got := map[string]string{}, map[string]string{}
	for _, v := range ops[1].Create.Volumes {
		path := v.Disk.Volume.ContainerPath
		ids[path], got[path] = v.Disk.Persistence.ID, fmt.Sprintf("%s %g", v.Disk.Source.Type, v.Scalar.Value)
		form := regexp.MustCompile(`^disks#` + path + `#[0-9a-f]{8}-[0-9a-f]{4}-1[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
		if !form.MatchString(ids[path]) || v.Disk.Persistence.Principal != "us" {
			e.t.Errorf("persistence %+v", v.Disk.Persistence)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		e.t.Errorf("volumes %v, want %v", got, want)
	}
	if shown := e.localVolumes(); !slices.Equal(shown, sorted(ids)) {
		e.t.Errorf("the API shows %v, created are %v", shown, ids)
	}
	return ids
}

func sorted(ids map[string]string) (out []string) {
	for _, id := range ids {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

// localVolumes are the persistence ids that the API shows of /disks.
func (e *env) localVolumes() (ids []string) {
	e.t.Helper()
	var out struct {
		Tasks []struct {
			LocalVolumes []struct {
				PersistenceID string `json:"persistenceId"`
			} `json:"localVolumes"`
		}
	}
	e.must(http.MethodGet, "/v2/apps/disks/tasks", nil, &out)
	for _, task := range out.Tasks {
		for _, v := range task.LocalVolumes {
			ids = append(ids, v.PersistenceID)
		}
	}
	slices.Sort(ids)
	return ids
}

func (e *env) appResidency() string {
	var out struct {
		App struct {
			Residency struct {
				TaskLostBehavior                 string
				RelaunchEscalationTimeoutSeconds int
			}
		}
	}
	e.must(http.MethodGet, "/v2/apps/disks", nil, &out)
	return fmt.Sprintf("{%q %d}", out.App.Residency.TaskLostBehavior, out.App.Residency.RelaunchEscalationTimeoutSeconds)
}

// allOrNone has an app that needs two mount disks where one is left: it gets
// none, and says why.
func (e *env) allOrNone() {
	e.t.Helper()
	seen := len(e.accepts(0))
	e.must(http.MethodPost, "/v2/apps", []byte(`{"id":"/greedy","role":"db","cmd":"sleep 1000","cpus":0.1,"mem":32,"container":{"type":"MESOS","volumes":[
		{"containerPath":"a","mode":"RW","persistent":{"type":"mount","size":500}},{"containerPath":"b","mode":"RW","persistent":{"type":"mount","size":500}}]}}`), nil)
	e.explained("/greedy", "InsufficientDisk", "lacks disks for its persistent volumes")
	e.remove("/greedy")
	if more := e.accepts(seen); len(more) != 0 {
		e.t.Errorf("of two volumes one was made: %+v", more)
	}
}

// givenBack says which volumes the ACCEPT calls beyond the first skip of them
// destroy, and how many MiB of disk they unreserve; they do nothing else.
func (e *env) givenBack(skip int) (destroyed []string, unreserved float64) {
	e.t.Helper()
	for _, a := range e.accepts(skip) {
		if !strings.Contains("DESTROY UNRESERVE", a.kinds()) {
			e.t.Fatalf("ACCEPT %s", a.kinds())
		}
		for _, o := range a.Operations {
			for _, v := range o.Destroy.Volumes {
				destroyed = append(destroyed, v.Disk.Persistence.ID)
			}
			for _, r := range o.Unreserve.Resources {
				if r.Name == "disk" {
					unreserved += r.Scalar.Value
				}
			}
		}
	}
	slices.Sort(destroyed)
	return slices.Compact(destroyed), unreserved
}

// wiped deletes /disks with its data.
func (e *env) wiped(logs, ids map[string]string) {
	e.t.Helper()
	seen := len(e.accepts(0))
	e.must(http.MethodDelete, "/v2/apps/disks?wipe=true", nil, nil)
	for name, log := range logs {
		e.poll("volume "+name+" to be destroyed", func() (bool, string, error) {
			_, err := os.Stat(log)
			return os.IsNotExist(err), "it is still there", nil
		})
	}
	// What held them is unreserved with that, or later.
	e.poll("the volumes' disks to be unreserved", func() (bool, string, error) {
		destroyed, unreserved := e.givenBack(seen)
		if !slices.Equal(destroyed, sorted(ids)) {
			return false, "", fmt.Errorf("destroyed %v; volumes were %v", destroyed, ids)
		}
		return unreserved >= 16+100+100+800+600, fmt.Sprintf("%g MiB", unreserved), nil
	})
	// What was reserved is anybody's again.
	e.must(http.MethodPost, "/v2/apps", []byte(onDisks), nil)
	if now := e.running("/disks", 1)[0]; slices.Contains(sorted(ids), e.localVolumes()[0]) {
		e.t.Errorf("%s runs on volumes that were destroyed", now.ID)
	}
}
