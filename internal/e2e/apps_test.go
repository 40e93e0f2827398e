package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/devcluster"
)

// object is a piece of app JSON.
type object = map[string]any

// writer is a command that appends its task's id to the volume, which did waits
// for, and stays.
const writer = `echo "$MESOS_TASK_ID" >> data/log && sync data/log; touch done; exec sleep 1000`

// app returns app JSON with one dvdi volume at "data".
func (e *env) app(id, volume, cmd string) object {
	options := object{"dvdi/driver": e.driver.name}
	for k, v := range e.driver.options {
		options["dvdi/"+k] = strings.ReplaceAll(v, "%s", volume)
	}
	return object{
		"id": id, "cmd": cmd, "cpus": 0.1, "mem": 32, "instances": 1,
		"backoffSeconds": 0.5, "maxLaunchDelaySeconds": 2,
		"container": object{"type": "MESOS", "volumes": []object{{
			"containerPath": "data", "mode": "RW",
			"external": object{"provider": "dvdi", "name": volume, "options": options},
		}}},
	}
}

func (e *env) wait() (context.Context, context.CancelFunc) {
	return context.WithTimeout(e.ctx, deadline)
}

// must calls the API and fails the test on any error.
func (e *env) must(method, path string, body, out any) {
	e.t.Helper()
	if err := e.Do(e.ctx, method, path, body, out); err != nil {
		e.t.Fatal(err)
	}
}

// status calls the API and returns the status and body of the answer.
func (e *env) status(method, path string, body any) (int, string) {
	e.t.Helper()
	var raw json.RawMessage
	err := e.Do(e.ctx, method, path, body, &raw)
	var s *devcluster.StatusError
	switch {
	case errors.As(err, &s):
		return s.Status, s.Body
	case err != nil:
		e.t.Fatal(err)
	}
	return 200, string(raw)
}

// poll waits for a condition that f describes.
func (e *env) poll(what string, f func() (bool, string, error)) {
	e.t.Helper()
	ctx, cancel := e.wait()
	defer cancel()
	if err := devcluster.Poll(ctx, what, f); err != nil {
		e.t.Fatalf("%v\nqueue: %s", err, e.get("/v2/queue"))
	}
}

func (e *env) get(path string) string {
	var raw json.RawMessage
	if err := e.Do(context.WithoutCancel(e.ctx), http.MethodGet, path, nil, &raw); err != nil {
		return err.Error()
	}
	return string(raw)
}

// running waits for the app to have n running tasks and no others but those in
// a terminal or lost state, and returns them.
func (e *env) running(id string, n int, not ...string) []devcluster.Task {
	e.t.Helper()
	var found []devcluster.Task
	e.poll(fmt.Sprintf("%d running tasks of %s", n, id), func() (bool, string, error) {
		tasks, err := e.Tasks(e.ctx, id)
		if err != nil {
			return false, "", err
		}
		found = found[:0]
		for _, t := range tasks {
			if t.State == "TASK_RUNNING" && !contains(not, t.ID) {
				found = append(found, t)
			}
		}
		return len(found) == n && len(tasks) == n, fmt.Sprint(tasks), nil
	})
	return found
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

// settled waits until no deployment is under way.
func (e *env) settled() {
	e.t.Helper()
	e.poll("the deployments to end", func() (bool, string, error) {
		var d []json.RawMessage
		err := e.Do(e.ctx, http.MethodGet, "/v2/deployments", nil, &d)
		return len(d) == 0, fmt.Sprintf("%s", d), err
	})
}

// remove deletes the app and waits until it and its tasks are gone.
func (e *env) remove(id string) {
	e.t.Helper()
	ctx, cancel := e.wait()
	defer cancel()
	e.deleteApp(ctx, id)
	e.settled()
}

func (e *env) deleteApp(ctx context.Context, id string) {
	e.t.Helper()
	if err := e.Do(ctx, http.MethodDelete, "/v2/apps"+id, nil, nil); err != nil {
		e.t.Error(err)
		return
	}
	err := devcluster.Poll(ctx, "the app "+id+" to be gone", func() (bool, string, error) {
		err := e.Do(ctx, http.MethodGet, "/v2/apps"+id, nil, nil)
		var s *devcluster.StatusError
		if errors.As(err, &s) && s.Status == http.StatusNotFound {
			return true, "", nil
		}
		return false, "it is still there", err
	})
	if err != nil {
		e.t.Error(err)
	}
}

// did waits until a task has done what it does before it stays: it runs as soon as
// its process has started. On an external Mesos, whose sandboxes are not at hand,
// that must have been long enough.
func (e *env) did(task devcluster.Task) devcluster.Task {
	e.t.Helper()
	if e.cluster != nil {
		mark := filepath.Join(e.dir, "mesos", "*", "slaves", "*", "frameworks", "*", "executors", task.ID, "runs", "*", "done")
		e.poll("the work of "+task.ID, func() (bool, string, error) {
			found, err := filepath.Glob(mark)
			return len(found) > 0, "nothing at " + mark, err
		})
	}
	return task
}

// holds checks what a volume contains with a task that mounts it and keeps
// running only if its log has exactly the given lines.
func (e *env) holds(volume string, lines ...string) {
	e.t.Helper()
	id := fmt.Sprintf("/check-%d", time.Now().UnixNano())
	cmd := fmt.Sprintf(`want='%s'; have=$(cat data/log); if [ "$have" = "$want" ]; then touch done; exec sleep 1000; fi; echo "the volume has: $have" >&2; exit 3`,
		strings.Join(lines, "\n"))
	e.must(http.MethodPost, "/v2/apps", e.app(id, volume, cmd), nil)
	e.did(e.running(id, 1)[0])
	e.remove(id)
}
