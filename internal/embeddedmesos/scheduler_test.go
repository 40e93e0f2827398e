package embeddedmesos_test

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

// object is a JSON object.
type object = map[string]any

// framework is a scheduler that speaks JSON, acknowledges every update and
// notes every event.
type framework struct {
	t      *testing.T
	addr   string
	id     string
	stream string
	body   io.Closer
	reader sync.WaitGroup

	mu     sync.Mutex // guards events
	events []object
}

// subscribe registers a framework, or with an id resumes one.
func subscribe(t *testing.T, addr, id string) *framework {
	t.Helper()
	f := &framework{t: t, addr: addr, id: id}
	info := object{
		"user": "root", "name": "test", "roles": []string{"dvdi"}, "failover_timeout": 600, "checkpoint": true,
		"capabilities": []object{
			{"type": "MULTI_ROLE"}, {"type": "RESERVATION_REFINEMENT"}, {"type": "PARTITION_AWARE"},
			{"type": "TASK_KILLING_STATE"}, {"type": "REGION_AWARE"},
		},
	}
	call := object{"type": "SUBSCRIBE", "subscribe": object{"framework_info": info}}
	if id != "" {
		info["id"] = object{"value": id}
		call["framework_id"] = info["id"]
	}
	response := f.post(call)
	if response.StatusCode != http.StatusOK {
		t.Fatalf("subscribe: %s", response.Status)
	}
	f.stream, f.body = response.Header.Get("Mesos-Stream-Id"), response.Body
	f.reader.Go(func() { f.read(bufio.NewReader(response.Body)) })
	t.Cleanup(f.close)
	agenttest.Eventually(t, "subscription", func() bool { return len(f.of("SUBSCRIBED")) > 0 })
	f.id = text(f.of("SUBSCRIBED")[0], "subscribed", "framework_id", "value")
	return f
}

func (f *framework) close() {
	_ = f.body.Close()
	f.reader.Wait()
}

func (f *framework) post(call object) *http.Response {
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

// call sends a call of the subscribed framework.
func (f *framework) call(kind string, more object) {
	f.t.Helper()
	call := object{"type": kind, "framework_id": object{"value": f.id}}
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
func (f *framework) read(r *bufio.Reader) {
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
		var event object
		if err := json.Unmarshal(record, &event); err != nil {
			f.t.Errorf("event %s: %v", record, err)
			return
		}
		f.mu.Lock()
		f.events = append(f.events, event)
		f.mu.Unlock()
		if status, ok := dig(event, "update", "status").(object); ok && status["uuid"] != nil {
			go f.acknowledge(status)
		}
	}
}

func (f *framework) acknowledge(status object) {
	data, err := json.Marshal(object{
		"type": "ACKNOWLEDGE", "framework_id": object{"value": f.id},
		"acknowledge": object{"agent_id": status["agent_id"], "task_id": status["task_id"], "uuid": status["uuid"]},
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

// of returns the events of a type, oldest first.
func (f *framework) of(kind string) []object {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []object
	for _, e := range f.events {
		if e["type"] == kind {
			list = append(list, e)
		}
	}
	return list
}

// await waits for a task's status of that state.
func (f *framework) await(task, state string) object {
	f.t.Helper()
	var found object
	agenttest.Eventually(f.t, state+" of "+task, func() bool {
		for _, e := range f.of("UPDATE") {
			if text(e, "update", "status", "task_id", "value") == task && text(e, "update", "status", "state") == state {
				found, _ = dig(e, "update", "status").(object)
				return true
			}
		}
		return false
	})
	return found
}

// launch runs a shell command on an agent, in the newest offer of its
// resources.
func (f *framework) launch(agentID, task, command string, volumes ...object) {
	f.t.Helper()
	var offer object
	agenttest.Eventually(f.t, "offer of "+agentID, func() bool {
		for _, e := range f.of("OFFERS") {
			offers, _ := dig(e, "offers", "offers").([]any)
			for _, o := range offers {
				if o, ok := o.(object); ok && text(o, "agent_id", "value") == agentID && !f.used(o) {
					offer = o
				}
			}
		}
		return offer != nil
	})
	scalar := func(name string, value float64) object {
		return object{"name": name, "type": "SCALAR", "scalar": object{"value": value},
			"allocation_info": object{"role": "dvdi"}}
	}
	info := object{
		"name": task, "task_id": object{"value": task}, "agent_id": object{"value": agentID},
		"resources": []object{scalar("cpus", 0.1), scalar("mem", 32)},
		"command":   object{"value": command, "shell": true},
		"container": object{"type": "MESOS", "volumes": volumes},
	}
	f.call("ACCEPT", object{"accept": object{
		"offer_ids":  []any{offer["id"]},
		"operations": []object{{"type": "LAUNCH", "launch": object{"task_infos": []object{info}}}},
		"filters":    object{"refuse_seconds": 0},
	}})
	f.mu.Lock()
	defer f.mu.Unlock()
	offer["used"] = true
}

// used tells whether an offer was accepted or rescinded.
func (f *framework) used(offer object) bool {
	if offer["used"] != nil {
		return true
	}
	for _, e := range f.of("RESCIND") {
		if text(e, "rescind", "offer_id", "value") == text(offer, "id", "value") {
			return true
		}
	}
	return false
}

func dockerVolume(name string) object {
	return object{"container_path": "vol", "mode": "RW", "source": object{
		"type": "DOCKER_VOLUME", "docker_volume": object{"driver": "rclone", "name": name}}}
}

// dig returns what is at the end of a path of fields.
func dig(v any, path ...string) any {
	for _, key := range path {
		o, ok := v.(object)
		if !ok {
			return nil
		}
		v = o[key]
	}
	return v
}

func text(v any, path ...string) string {
	if found := dig(v, path...); found != nil {
		return fmt.Sprint(found)
	}
	return ""
}
