package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// object is a JSON object.
type object = map[string]any

// scheduler speaks the v1 scheduler API in JSON, as little as these tests need:
// it launches tasks on the first offer, kills them and notes their states.
type scheduler struct {
	t      *testing.T
	addr   string
	id     string
	stream string
	http   *http.Client
	body   io.Closer
	reader sync.WaitGroup

	mu     sync.Mutex // guards all below
	offers []object
	states map[string]string // by task id
	notes  map[string]string // messages of the last states
}

func subscribe(t *testing.T, addr string) *scheduler {
	t.Helper()
	s := &scheduler{t: t, addr: addr, states: map[string]string{}, notes: map[string]string{},
		http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	response := s.post(object{"type": "SUBSCRIBE", "subscribe": object{"framework_info": object{
		"user": "root", "name": "bridge-test", "roles": []string{"dvdi"}, "failover_timeout": 600, "checkpoint": true,
		"capabilities": []object{{"type": "MULTI_ROLE"}, {"type": "RESERVATION_REFINEMENT"}, {"type": "PARTITION_AWARE"}},
	}}})
	if response.StatusCode != http.StatusOK {
		t.Fatalf("subscribe: %s", response.Status)
	}
	s.stream, s.body = response.Header.Get("Mesos-Stream-Id"), response.Body
	subscribed := make(chan string, 1)
	s.reader.Go(func() { s.read(bufio.NewReader(response.Body), subscribed) })
	t.Cleanup(s.close)
	s.id = <-subscribed
	return s
}

func (s *scheduler) close() {
	_ = s.body.Close()
	s.reader.Wait()
}

func (s *scheduler) post(call object) *http.Response {
	s.t.Helper()
	data, err := json.Marshal(call)
	if err != nil {
		s.t.Fatal(err)
	}
	request, err := http.NewRequest(http.MethodPost, "http://"+s.addr+"/api/v1/scheduler", bytes.NewReader(data))
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	if s.stream != "" {
		request.Header.Set("Mesos-Stream-Id", s.stream)
	}
	response, err := s.http.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	return response
}

func (s *scheduler) call(kind string, more object) {
	s.t.Helper()
	call := object{"type": kind, "framework_id": object{"value": s.id}}
	for key, value := range more {
		call[key] = value
	}
	response := s.post(call)
	text, _ := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if response.StatusCode != http.StatusAccepted {
		s.t.Errorf("%s: %s: %s", kind, response.Status, text)
	}
}

// read takes in events until the stream ends.
func (s *scheduler) read(r *bufio.Reader, subscribed chan<- string) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		length, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			s.t.Errorf("record length %q", line)
			return
		}
		record := make([]byte, length)
		if _, err := io.ReadFull(r, record); err != nil {
			return
		}
		var event struct {
			Type       string `json:"type"`
			Subscribed struct {
				FrameworkID struct{ Value string } `json:"framework_id"`
			} `json:"subscribed"`
			Offers struct {
				Offers []object `json:"offers"`
			} `json:"offers"`
			Update struct {
				Status object `json:"status"`
			} `json:"update"`
		}
		if err := json.Unmarshal(record, &event); err != nil {
			s.t.Errorf("event %s: %v", record, err)
			return
		}
		switch event.Type {
		case "SUBSCRIBED":
			subscribed <- event.Subscribed.FrameworkID.Value
		case "OFFERS":
			s.mu.Lock()
			s.offers = append(s.offers, event.Offers.Offers...)
			s.mu.Unlock()
		case "RESCIND":
			s.mu.Lock()
			s.offers = nil // they come again
			s.mu.Unlock()
		case "UPDATE":
			s.update(event.Update.Status)
		}
	}
}

func (s *scheduler) update(status object) {
	task := status["task_id"].(object)["value"].(string)
	s.mu.Lock()
	s.states[task] = status["state"].(string)
	s.notes[task], _ = status["message"].(string)
	s.mu.Unlock()
	if status["uuid"] == nil {
		return
	}
	data, err := json.Marshal(object{"type": "ACKNOWLEDGE", "framework_id": object{"value": s.id},
		"acknowledge": object{"agent_id": status["agent_id"], "task_id": status["task_id"], "uuid": status["uuid"]}})
	if err != nil {
		s.t.Error(err)
		return
	}
	request, err := http.NewRequest(http.MethodPost, "http://"+s.addr+"/api/v1/scheduler", bytes.NewReader(data))
	if err != nil {
		s.t.Error(err)
		return
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Mesos-Stream-Id", s.stream)
	// A master that is gone by now asks again.
	if response, err := s.http.Do(request); err == nil {
		_ = response.Body.Close()
	}
}

func (s *scheduler) state(task string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.states[task]
}

// launch starts a task that sleeps, with volumes.
func (s *scheduler) launch(task, driver string, options map[string]string, volumes ...string) {
	s.t.Helper()
	var offer object
	await(s.t, "an offer", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.offers) == 0 {
			return false
		}
		offer, s.offers = s.offers[len(s.offers)-1], nil
		return true
	})
	var parameters []object
	for k, v := range options {
		parameters = append(parameters, object{"key": k, "value": v})
	}
	var list []object
	for _, v := range volumes {
		list = append(list, object{"mode": "RW", "container_path": "vol-" + v, "source": object{"type": "DOCKER_VOLUME",
			"docker_volume": object{"driver": driver, "name": v, "driver_options": object{"parameter": parameters}}}})
	}
	allocation := object{"role": "dvdi"}
	scalar := func(name string, value float64) object {
		return object{"name": name, "type": "SCALAR", "scalar": object{"value": value}, "allocation_info": allocation}
	}
	s.call("ACCEPT", object{"accept": object{
		"offer_ids": []any{offer["id"]}, "filters": object{"refuse_seconds": 0},
		"operations": []object{{"type": "LAUNCH", "launch": object{"task_infos": []object{{
			"name": task, "task_id": object{"value": task}, "agent_id": offer["agent_id"],
			"resources": []object{scalar("cpus", 0.1), scalar("mem", 32)},
			"command":   object{"shell": true, "value": "exec sleep 1000"},
			"container": object{"type": "MESOS", "volumes": list},
		}}}}},
	}})
}

func (s *scheduler) kill(task string) {
	s.t.Helper()
	s.call("KILL", object{"kill": object{"task_id": object{"value": task}}})
}
