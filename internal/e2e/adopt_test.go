package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/devcluster"
)

// marathon is a framework that reserves as Marathon does, in the API's JSON; it
// stands for one that has left its volumes behind.
type marathon struct {
	e      *env
	id     string
	stream string
	events *bufio.Reader
	body   io.Closer
}

func (e *env) marathon() *marathon {
	e.t.Helper()
	m := &marathon{e: e}
	r := m.post(object{"type": "SUBSCRIBE", "subscribe": object{"framework_info": object{
		"user": "root", "name": "marathon", "roles": []string{"db"}, "failover_timeout": 604800, "checkpoint": true,
		"capabilities": []object{{"type": "MULTI_ROLE"}, {"type": "RESERVATION_REFINEMENT"}},
	}}})
	m.stream, m.body, m.events = r.Header.Get("Mesos-Stream-Id"), r.Body, bufio.NewReader(r.Body)
	m.id = m.await("SUBSCRIBED")["subscribed"].(object)["framework_id"].(object)["value"].(string)
	return m
}

func (m *marathon) post(call object) *http.Response {
	m.e.t.Helper()
	if m.id != "" {
		call["framework_id"] = object{"value": m.id}
	}
	data, err := json.Marshal(call)
	if err != nil {
		m.e.t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(m.e.ctx, http.MethodPost, "http://"+m.e.cluster.Mesos.Addr()+"/api/v1/scheduler", bytes.NewReader(data))
	if err != nil {
		m.e.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Mesos-Stream-Id", m.stream)
	r, err := http.DefaultClient.Do(request)
	if err != nil {
		m.e.t.Fatal(err)
	}
	if r.StatusCode/100 != 2 {
		text, _ := io.ReadAll(r.Body)
		m.e.t.Fatalf("%v: %s: %s", call["type"], r.Status, text)
	}
	return r
}

// await reads events until one of the type comes.
func (m *marathon) await(kind string) object {
	m.e.t.Helper()
	for {
		length, err := m.events.ReadString('\n')
		if err != nil {
			m.e.t.Fatal(err)
		}
		n, err := strconv.Atoi(strings.TrimSpace(length))
		if err != nil {
			m.e.t.Fatal(err)
		}
		record := make([]byte, n)
		if _, err := io.ReadFull(m.events, record); err != nil {
			m.e.t.Fatal(err)
		}
		var event object
		if err := json.Unmarshal(record, &event); err != nil {
			m.e.t.Fatal(err)
		}
		if event["type"] == kind {
			return event
		}
	}
}

// leave makes a persistent volume for each label of an instance, and ends the
// connection. Without a shutdown the master keeps all of it.
func (m *marathon) leave(volumes map[string]string) {
	m.e.t.Helper()
	offer := m.await("OFFERS")["offers"].(object)["offers"].([]any)[0].(object)
	var reserve, create []object
	for label, id := range volumes {
		with := func(name string, value float64) object {
			return object{"name": name, "type": "SCALAR", "scalar": object{"value": value}, "allocation_info": object{"role": "db"},
				"reservations": []object{{"type": "DYNAMIC", "role": "db", "principal": "marathon", "labels": object{"labels": []object{
					{"key": "marathon_framework_id", "value": m.id}, {"key": "marathon_task_id", "value": label}}}}}}
		}
		reserve = append(reserve, with("cpus", 0.1), with("mem", 32), with("disk", 16))
		volume := with("disk", 16)
		volume["disk"] = object{"persistence": object{"id": id, "principal": "marathon"}, "volume": object{"container_path": "data", "mode": "RW"}}
		create = append(create, volume)
	}
	r := m.post(object{"type": "ACCEPT", "accept": object{"offer_ids": []any{offer["id"]}, "filters": object{"refuse_seconds": 0}, "operations": []object{
		{"type": "RESERVE", "reserve": object{"resources": reserve}}, {"type": "CREATE", "create": object{"volumes": create}}}}})
	if err := r.Body.Close(); err != nil {
		m.e.t.Error(err)
	}
	for _, id := range volumes {
		m.e.poll("volume "+id+" to be made", func() (bool, string, error) {
			found, err := filepath.Glob(m.e.volumeDir(id))
			return len(found) == 1, strings.Join(found, " "), err
		})
	}
	if err := m.body.Close(); err != nil {
		m.e.t.Error(err)
	}
}

// volumeDir is a pattern of where a persistent volume of role db is.
func (e *env) volumeDir(id string) string {
	return filepath.Join(e.dir, "mesos", "*", "volumes", "roles", "db", id)
}

// TestAdoptedVolumes has a Marathon leave volumes behind, labelled as all its
// versions did (Reservation.SimplifiedId and LegacyId), and another one more: the
// first one's are taken over with what is in them, the other's are never touched.
func TestAdoptedVolumes(t *testing.T) {
	if os.Getenv("DVDI_E2E_MASTER") != "" {
		t.Skip("an external Mesos may not let us reserve")
	}
	e := newEnv(t, 1, reference)
	const uuid = "c7a3e9b0-1f2d-11ef-9a3b-0242ac110002"
	labels := map[string]string{ // of apps, by label
		"now.instance-" + uuid: "now", "was.marathon-" + uuid: "was", "group_old." + uuid: "group_old", "older_" + uuid: "older",
	}
	mine, others := map[string]string{}, map[string]string{}
	for label, app := range labels {
		mine[label], others[label] = app+"#data#"+uuid, app+"#data#"+strings.Replace(uuid, "c7", "d8", 1)
	}
	// One after the other: they would keep the agent's only offer from each other.
	first := e.marathon()
	first.leave(mine)
	e.marathon().leave(others)
	for _, id := range mine {
		found, err := filepath.Glob(e.volumeDir(id))
		if err != nil || len(found) != 1 {
			t.Fatalf("%v, %v", found, err)
		}
		if err := os.WriteFile(filepath.Join(found[0], "log"), []byte("by-marathon\n"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	f, err := e.cluster.StartFramework(e.ctx, devcluster.FrameworkOptions{Data: "adopting", Args: []string{
		"--mesos_role", "db", "--min_revive_offers_interval", "200", "--adopt", first.id,
	}})
	if err != nil {
		t.Fatal(err)
	}
	e.Framework = f
	kept := func(path string, instances int) object {
		return object{"id": path, "cmd": writer, "cpus": 0.1, "mem": 32, "instances": instances,
			"container": object{"type": "MESOS", "volumes": []object{{"containerPath": "data", "mode": "RW", "persistent": object{"size": 16}}}}}
	}
	for label, app := range labels {
		path := "/" + strings.ReplaceAll(app, "_", "/")
		if path != "/was" { // as in the README
			e.must(http.MethodPost, "/v2/apps", kept(path, 0), nil)
			e.settled()
			e.must(http.MethodPut, "/v2/apps"+path, object{"instances": 1}, nil)
		} else {
			e.must(http.MethodPost, "/v2/apps", kept(path, 1), nil)
		}
		task := e.running(path, 1)[0]
		if task.ID != label+"._app.1" {
			t.Errorf("%s runs as %s, not as the instance %s", path, task.ID, label)
		}
		e.poll("its volume to hold what both wrote", func() (bool, string, error) {
			lines, err := e.linesOf(mine[label])
			return slices.Equal(lines, []string{"by-marathon", task.ID}), fmt.Sprint(lines), err
		})
		// It is an instance like any other: a kill brings it back to its data.
		e.must(http.MethodDelete, "/v2/apps"+path+"/tasks/"+task.ID, nil, nil)
		next := e.running(path, 1, task.ID)[0]
		e.poll("its volume to hold what all wrote", func() (bool, string, error) {
			lines, err := e.linesOf(mine[label])
			return slices.Equal(lines, []string{"by-marathon", task.ID, next.ID}), fmt.Sprint(lines), err
		})
		e.must(http.MethodDelete, "/v2/apps"+path+"?wipe=true", nil, nil)
		e.poll("the volume to be destroyed", func() (bool, string, error) {
			found, err := filepath.Glob(e.volumeDir(mine[label]))
			return len(found) == 0, "it is still there", err
		})
	}
	for _, id := range others {
		if found, err := filepath.Glob(e.volumeDir(id)); err != nil || len(found) != 1 {
			t.Errorf("the other framework's volume %s: %v, %v", id, found, err)
		}
	}
}

func (e *env) linesOf(id string) ([]string, error) {
	found, err := filepath.Glob(filepath.Join(e.volumeDir(id), "log"))
	if err != nil || len(found) != 1 {
		return found, err
	}
	data, err := os.ReadFile(found[0])
	return strings.Fields(string(data)), err
}
