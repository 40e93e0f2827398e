// Package schedulertest has a framework for tests of the embedded Mesos and of what
// runs on its agents.
package schedulertest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/agenttest"
)

// Object is a JSON object.
type Object = map[string]any

// Framework is a scheduler that speaks JSON, acknowledges every update and
// notes every event. Whatever fails fails the test.
type Framework struct {
	// ID is the framework's.
	ID string

	t      *testing.T
	addr   string
	stream string
	body   io.Closer
	reader sync.WaitGroup

	mu     sync.Mutex // guards events
	events []Object
}

// Subscribe registers a framework, or with an id resumes one, until the test ends.
func Subscribe(t *testing.T, addr, id string) *Framework {
	t.Helper()
	f := &Framework{ID: id, t: t, addr: addr}
	info := Object{
		"user": "root", "name": "test", "roles": []string{"dvdi"}, "failover_timeout": 600, "checkpoint": true,
		"capabilities": []Object{
			{"type": "MULTI_ROLE"}, {"type": "RESERVATION_REFINEMENT"}, {"type": "PARTITION_AWARE"},
			{"type": "TASK_KILLING_STATE"}, {"type": "REGION_AWARE"},
		},
	}
	call := Object{"type": "SUBSCRIBE", "subscribe": Object{"framework_info": info}}
	if id != "" {
		info["id"] = Object{"value": id}
		call["framework_id"] = info["id"]
	}
	response := f.post(call)
	if response.StatusCode != http.StatusOK {
		t.Fatalf("subscribe: %s", response.Status)
	}
	f.stream, f.body = response.Header.Get("Mesos-Stream-Id"), response.Body
	f.reader.Go(func() { f.read(bufio.NewReader(response.Body)) })
	t.Cleanup(f.close)
	agenttest.Eventually(t, "subscription", func() bool { return len(f.Of("SUBSCRIBED")) > 0 })
	if id == "" { // a resumed one may already be acknowledging under its id
		f.ID = Text(f.Of("SUBSCRIBED")[0], "subscribed", "framework_id", "value")
	}
	return f
}

func (f *Framework) close() {
	_ = f.body.Close()
	f.reader.Wait()
}

func (f *Framework) post(call Object) *http.Response {
	f.t.Helper()
	data, err := json.Marshal(call)
	if err != nil {
		f.t.Fatal(err)
	}
	request, err := http.NewRequest(http.MethodPost, "http://"+f.addr+"/api/v1/scheduler", bytes.NewReader(data))
	if err != nil {
		f.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	if f.stream != "" {
		request.Header.Set("Mesos-Stream-Id", f.stream)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		f.t.Fatal(err)
	}
	return response
}

// Call sends a call of the subscribed framework.
func (f *Framework) Call(kind string, more Object) {
	f.t.Helper()
	call := Object{"type": kind, "framework_id": Object{"value": f.ID}}
	for key, value := range more {
		call[key] = value
	}
	response := f.post(call)
	body, _ := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if response.StatusCode != http.StatusAccepted {
		f.t.Errorf("%s: %s: %s", kind, response.Status, body)
	}
}

// read notes events until the stream ends.
func (f *Framework) read(r *bufio.Reader) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		length, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			f.t.Errorf("record length %q", line)
			return
		}
		record := make([]byte, length)
		if _, err := io.ReadFull(r, record); err != nil {
			return
		}
		var event Object
		if err := json.Unmarshal(record, &event); err != nil {
			f.t.Errorf("event %s: %v", record, err)
			return
		}
		f.mu.Lock()
		f.events = append(f.events, event)
		f.mu.Unlock()
		if status, ok := Dig(event, "update", "status").(Object); ok && status["uuid"] != nil {
			f.reader.Go(func() { f.acknowledge(status) })
		}
	}
}

func (f *Framework) acknowledge(status Object) {
	data, err := json.Marshal(Object{
		"type": "ACKNOWLEDGE", "framework_id": Object{"value": f.ID},
		"acknowledge": Object{"agent_id": status["agent_id"], "task_id": status["task_id"], "uuid": status["uuid"]},
	})
	if err != nil {
		f.t.Error(err)
		return
	}
	request, err := http.NewRequest(http.MethodPost, "http://"+f.addr+"/api/v1/scheduler", bytes.NewReader(data))
	if err != nil {
		f.t.Error(err)
		return
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Mesos-Stream-Id", f.stream)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	// A master that is down makes the agent repeat the update.
	if response, err := client.Do(request); err == nil {
		_ = response.Body.Close()
	}
}

// Of returns the events of a type, oldest first.
func (f *Framework) Of(kind string) []Object {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []Object
	for _, e := range f.events {
		if e["type"] == kind {
			list = append(list, e)
		}
	}
	return list
}

// Await waits for a task's status of that state.
func (f *Framework) Await(task, state string) Object {
	f.t.Helper()
	var found Object
	agenttest.Eventually(f.t, state+" of "+task, func() bool {
		for _, e := range f.Of("UPDATE") {
			if Text(e, "update", "status", "task_id", "value") == task && Text(e, "update", "status", "state") == state {
				found, _ = Dig(e, "update", "status").(Object)
				return true
			}
		}
		return false
	})
	return found
}

// State returns the state of a task's latest status, "" if there is none yet.
func (f *Framework) State(task string) string {
	var state string
	for _, e := range f.Of("UPDATE") {
		if Text(e, "update", "status", "task_id", "value") == task {
			state = Text(e, "update", "status", "state")
		}
	}
	return state
}

// Launch runs a shell command on an agent, or with no agent's id on any, in the
// newest offer of its resources.
func (f *Framework) Launch(agentID, task, command string, volumes ...Object) {
	f.t.Helper()
	var offer Object
	agenttest.Eventually(f.t, "offer of "+agentID, func() bool {
		for _, e := range f.Of("OFFERS") {
			offers, _ := Dig(e, "offers", "offers").([]any)
			for _, o := range offers {
				if o, ok := o.(Object); ok && (agentID == "" || Text(o, "agent_id", "value") == agentID) && !f.used(o) {
					offer = o
				}
			}
		}
		return offer != nil
	})
	scalar := func(name string, value float64) Object {
		return Object{"name": name, "type": "SCALAR", "scalar": Object{"value": value},
			"allocation_info": Object{"role": "dvdi"}}
	}
	info := Object{
		"name": task, "task_id": Object{"value": task}, "agent_id": offer["agent_id"],
		"resources": []Object{scalar("cpus", 0.1), scalar("mem", 32)},
		"command":   Object{"value": command, "shell": true},
		"container": Object{"type": "MESOS", "volumes": volumes},
	}
	f.Call("ACCEPT", Object{"accept": Object{
		"offer_ids":  []any{offer["id"]},
		"operations": []Object{{"type": "LAUNCH", "launch": Object{"task_infos": []Object{info}}}},
		"filters":    Object{"refuse_seconds": 0},
	}})
	f.mu.Lock()
	defer f.mu.Unlock()
	offer["used"] = true
}

// used tells whether an offer was accepted or rescinded.
func (f *Framework) used(offer Object) bool {
	if offer["used"] != nil {
		return true
	}
	for _, e := range f.Of("RESCIND") {
		if Text(e, "rescind", "offer_id", "value") == Text(offer, "id", "value") {
			return true
		}
	}
	return false
}

// Kill asks for the end of a task.
func (f *Framework) Kill(task string) {
	f.t.Helper()
	f.Call("KILL", Object{"kill": Object{"task_id": Object{"value": task}}})
}

// DockerVolume is a volume of the docker/volume isolator at a path in the task's
// container.
func DockerVolume(driver, name, path string, options map[string]string) Object {
	volume := Object{"driver": driver, "name": name}
	if len(options) > 0 {
		var parameters []Object
		for key, value := range options {
			parameters = append(parameters, Object{"key": key, "value": value})
		}
		volume["driver_options"] = Object{"parameter": parameters}
	}
	return Object{"container_path": path, "mode": "RW", "source": Object{"type": "DOCKER_VOLUME", "docker_volume": volume}}
}

// Dig returns what is at the end of a path of fields.
func Dig(v any, path ...string) any {
	for _, key := range path {
		o, ok := v.(Object)
		if !ok {
			return nil
		}
		v = o[key]
	}
	return v
}

// Text returns what is at the end of a path of fields as text, "" if there is
// nothing.
func Text(v any, path ...string) string {
	if found := Dig(v, path...); found != nil {
		return fmt.Sprint(found)
	}
	return ""
}
