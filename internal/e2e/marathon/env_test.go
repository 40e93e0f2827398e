package marathon_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/mesos-dvdi/dvdi/internal/devcluster"
	"github.com/mesos-dvdi/dvdi/internal/devcluster/clustertest"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
)

// patience bounds every wait.
const patience = 120 * time.Second

// object is a piece of JSON.
type object = map[string]any

// env is a framework on a cluster whose events are watched.
type env struct {
	*testing.T
	*devcluster.Framework
	ctx     context.Context
	cluster *devcluster.Cluster

	mu     sync.Mutex // guards events
	events []devcluster.Event
}

// start runs a cluster with a framework until the test ends.
func start(t *testing.T, agents int, args ...string) *env {
	t.Helper()
	return startOn(t, devcluster.Config{Agents: agents}, args...)
}

// startOn is start with more to say about the cluster than how many agents.
func startOn(t *testing.T, cfg devcluster.Config, args ...string) *env {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*patience)
	t.Cleanup(cancel)
	cfg.Dir, cfg.Bin, cfg.Timing = clustertest.Dir(t), binaries, embeddedmesos.FastTiming()
	cfg.Log, cfg.Output = zaptest.NewLogger(t, zaptest.Level(zap.ErrorLevel)), t.Output()
	c := clustertest.Start(ctx, t, cfg)
	args = append([]string{"--min_revive_offers_interval=200"}, args...)
	f, err := c.StartFramework(ctx, devcluster.FrameworkOptions{Args: args})
	if err != nil {
		t.Fatal(err)
	}
	e := &env{T: t, Framework: f, ctx: ctx, cluster: c}
	e.watch()
	return e
}

// watch keeps all events, and looks at the volumes' writers after each.
func (e *env) watch() {
	e.Helper()
	ctx, cancel := context.WithCancel(e.ctx)
	events, err := e.Events(ctx)
	if err != nil {
		cancel()
		e.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ev := range events {
			e.mu.Lock()
			e.events = append(e.events, ev)
			e.mu.Unlock()
			e.oneWriter(ev.Type)
		}
	}()
	e.Cleanup(func() {
		cancel()
		<-done
		e.oneWriter("the end")
	})
}

// oneWriter fails the test if a volume ever had two writers.
func (e *env) oneWriter(after string) {
	log, err := readAttachments(filepath.Join(e.cluster.Store(), "attach.log"))
	if err != nil {
		e.Errorf("after %s: %v", after, err)
	}
	if text := twoWriters(log); text != "" {
		e.Errorf("after %s: %s", after, text)
	}
}

// attached counts the attachments so far.
func (e *env) attached() int {
	e.Helper()
	log, err := readAttachments(filepath.Join(e.cluster.Store(), "attach.log"))
	if err != nil {
		e.Fatal(err)
	}
	n := 0
	for _, a := range log {
		if a.Event == "attach" {
			n++
		}
	}
	return n
}

// seen returns the events of a type so far, decoded.
func (e *env) seen(kind string) []object {
	e.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []object
	for _, ev := range e.events {
		if ev.Type != kind {
			continue
		}
		var o object
		if err := json.Unmarshal(ev.Data, &o); err != nil {
			e.Fatal(err)
		}
		out = append(out, o)
	}
	return out
}

// heard waits until n events of a type have come and returns all of that type: the
// API may show what has happened before the event that tells of it has arrived.
func (e *env) heard(kind string, n int) (events []object) {
	e.Helper()
	e.until(fmt.Sprintf("%d events %s", n, kind), func() (bool, string) {
		events = e.seen(kind)
		return len(events) >= n, fmt.Sprint(events)
	})
	return events
}

// must calls the API and fails the test on any error.
func (e *env) must(method, path string, body, out any) {
	e.Helper()
	if err := e.Do(e.ctx, method, path, body, out); err != nil {
		e.Fatal(err)
	}
}

// until polls for a condition.
func (e *env) until(what string, f func() (ok bool, state string)) {
	e.Helper()
	ctx, cancel := context.WithTimeout(e.ctx, patience)
	defer cancel()
	if err := devcluster.Poll(ctx, what, func() (bool, string, error) {
		ok, state := f()
		return ok, state, nil
	}); err != nil {
		var queue json.RawMessage
		_ = e.Do(e.ctx, http.MethodGet, "/v2/queue", nil, &queue) // best effort: the test has failed
		e.Fatalf("%v\nqueue: %s", err, queue)
	}
}

// tasks returns the running tasks of an app, by id.
func (e *env) tasks(id string) map[string]devcluster.Task {
	e.Helper()
	list, err := e.Tasks(e.ctx, id)
	if err != nil {
		e.Fatal(err)
	}
	out := map[string]devcluster.Task{}
	for _, t := range list {
		if t.State == "TASK_RUNNING" {
			out[t.ID] = t
		}
	}
	return out
}

// running waits until n tasks of an app run, none of them among not.
func (e *env) running(id string, n int, not map[string]devcluster.Task) map[string]devcluster.Task {
	e.Helper()
	var found map[string]devcluster.Task
	e.until(fmt.Sprintf("%d tasks of %s run", n, id), func() (bool, string) {
		found = e.tasks(id)
		for old := range not {
			if _, still := found[old]; still {
				return false, old + " still runs"
			}
		}
		return len(found) == n, fmt.Sprint(found)
	})
	return found
}

// settled waits until no deployment runs.
func (e *env) settled() {
	e.Helper()
	e.until("all deployments end", func() (bool, string) {
		var list []json.RawMessage
		e.must(http.MethodGet, "/v2/deployments", nil, &list)
		return len(list) == 0, fmt.Sprintf("%s", list)
	})
}

// deploy puts a definition and waits for the deployment's end.
func (e *env) deploy(app object) {
	e.Helper()
	e.must(http.MethodPut, "/v2/apps"+app["id"].(string), app, nil)
	e.settled()
}

// plain is an app without a volume.
func plain(id string, instances int) object {
	return object{"id": id, "cmd": "exec sleep 1000", "cpus": 0.1, "mem": 32, "instances": instances,
		"backoffSeconds": 0.2, "maxLaunchDelaySeconds": 1}
}

// stateful is an app with a volume at "data" to which each task appends its id.
func stateful(id, volume string, instances int) object {
	a := plain(id, instances)
	a["cmd"] = `echo "$MESOS_TASK_ID" >> data/log; exec sleep 1000`
	a["container"] = object{"type": "MESOS", "volumes": []object{{"containerPath": "data", "mode": "RW",
		"external": object{"provider": "dvdi", "name": volume, "options": object{"dvdi/driver": devcluster.Driver}}}}}
	return a
}

// with is a copy of a definition with another field.
func with(app object, field string, value any) object {
	out := object{}
	for k, v := range app {
		out[k] = v
	}
	out[field] = value
	return out
}
