package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// together is an app of two instances that have a volume together.
const together = `{"id":"/together","role":"db","cmd":"echo \"$MESOS_TASK_ID\" >>data/log; exec sleep 1000","cpus":0.1,"mem":32,"instances":2,
	"backoffSeconds":0.5,"maxLaunchDelaySeconds":2,
	"container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW","persistent":{"size":16,"shared":true}}]}}`

// volumesJSON is what GET /v2/volumes tells of persistent volumes.
type volumesJSON struct {
	Persistent []struct {
		ID, App, ContainerPath, Hostname string
		Shared                           bool
		Instances                        []string
	}
}

// TestSharedPersistentVolume: two processes write to one directory, a third one
// joins them while they do, and it outlives the framework, an agent and each of
// them, until the app is wiped.
func TestSharedPersistentVolume(t *testing.T) {
	if os.Getenv("DVDI_E2E_MASTER") != "" {
		t.Skip("the disks of an external Mesos belong to its operator")
	}
	e := newEnvOf(t, setup{agents: 2, pick: reference, tapped: true,
		args: []string{"--mesos_role", "db", "--mesos_authentication_principal", "us"}})
	e.must(http.MethodPost, "/v2/apps", []byte(together), nil)
	live := e.running("/together", 2)
	if all := e.accepts(0); len(all) != 1 || all[0].kinds() != "RESERVE CREATE LAUNCH RESERVE LAUNCH" {
		t.Errorf("ACCEPT calls %+v", all)
	}
	var shown volumesJSON
	e.must(http.MethodGet, "/v2/volumes", nil, &shown)
	if len(shown.Persistent) != 1 {
		t.Fatalf("shown are %+v", shown)
	}
	v := shown.Persistent[0]
	if !v.Shared || v.App != "/together" || v.ContainerPath != "data" || v.Hostname != live[0].Host || len(v.Instances) != 2 {
		t.Errorf("shown is %+v", v)
	}
	list, err := e.command("volume", "list", "--url", e.URL)
	if err != nil || !strings.Contains(list, v.ID) || !strings.Contains(list, "persistent, shared") || !strings.Contains(list, v.Hostname) ||
		!strings.Contains(list, "/together") {
		t.Errorf("volume list: %v\n%s", err, list)
	}
	log := filepath.Join(e.dir, "mesos", strings.TrimSuffix(v.Hostname, ".test"), "volumes", "roles", "db", v.ID, "log")
	tasks := []string{live[0].ID, live[1].ID}
	wrote := func(what string) {
		t.Helper()
		e.poll("the volume to hold what all tasks wrote, after "+what, func() (bool, string, error) {
			data, err := os.ReadFile(log)
			if os.IsNotExist(err) {
				return false, "nothing", nil
			}
			got, want := strings.Fields(string(data)), slices.Clone(tasks)
			slices.Sort(got)
			slices.Sort(want)
			return slices.Equal(got, want), string(data), err
		})
	}
	wrote("their start")
	e.must(http.MethodPut, "/v2/apps/together", []byte(`{"instances":3}`), nil)
	for _, task := range e.running("/together", 3) {
		if task.Host != v.Hostname {
			t.Errorf("%s runs on %s, the volume is on %s", task.ID, task.Host, v.Hostname)
		}
		if !slices.Contains(tasks, task.ID) {
			tasks = append(tasks, task.ID)
		}
	}
	wrote("a third one's")

	e.Framework.Kill()
	e.startFramework()
	e.fault("kill-agent", v.Hostname)
	e.fault("start-agent", v.Hostname)
	e.running("/together", 3)
	e.must(http.MethodDelete, "/v2/apps/together/tasks/"+tasks[0]+"?wipe=true", nil, nil)
	for _, task := range e.running("/together", 3, tasks[0]) {
		if !slices.Contains(tasks, task.ID) {
			tasks = append(tasks, task.ID)
		}
	}
	wrote("one was wiped")

	e.must(http.MethodDelete, "/v2/apps/together?wipe=true", nil, nil)
	e.poll("the volume to be destroyed", func() (bool, string, error) {
		_, err := os.Stat(log)
		return os.IsNotExist(err), "it is still there", nil
	})
}
