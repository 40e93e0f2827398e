package agent_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/agenttest"
)

// ask sends a request to the agent and returns status and body.
func (h *host) ask(method, path, body string, header ...string) (int, string) {
	h.t.Helper()
	request, err := http.NewRequestWithContext(h.t.Context(), method, h.URL()+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	for n := 0; n < len(header); n += 2 {
		request.Header.Set(header[n], header[n+1])
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	response, err := client.Do(request)
	if err != nil {
		h.t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return response.StatusCode, string(data)
}

// call sends an operator call in JSON.
func (h *host) call(body string) (int, string) {
	h.t.Helper()
	return h.ask(http.MethodPost, "/api/v1", body, "Content-Type", "application/json", "Accept", "application/json")
}

// capturedHost runs the task that ran when a real agent's answers were
// captured.
func capturedHost(t *testing.T) *host {
	h := newHost(t, func(c *agent.Config) {
		text := func(name, value string) mesos.Attribute {
			return mesos.Attribute{Name: name, Type: mesos.TEXT, Text: &mesos.Value_Text{Value: value}}
		}
		c.Hostname = "agent1.test"
		c.Attributes = []mesos.Attribute{text("rack", "r1"), text("dvdi", `http\://127.0.0.1\:9861`)}
		c.Domain = &mesos.DomainInfo{FaultDomain: &mesos.DomainInfo_FaultDomain{
			Region: mesos.DomainInfo_FaultDomain_RegionInfo{Name: "region-1"},
			Zone:   mesos.DomainInfo_FaultDomain_ZoneInfo{Name: "zone-1"},
		}}
		scalar := func(name string, value float64) mesos.Resource {
			return mesos.Resource{Name: name, Type: mesos.SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: value}}
		}
		path, mount := scalar("disk", 2048), scalar("disk", 512)
		path.Disk = &mesos.Resource_DiskInfo{Source: &mesos.Resource_DiskInfo_Source{
			Type: mesos.Resource_DiskInfo_Source_PATH,
			Path: &mesos.Resource_DiskInfo_Source_Path{Root: ptr("/var/lib/mesos-disks/a1/path1")},
		}}
		mount.Disk = &mesos.Resource_DiskInfo{Source: &mesos.Resource_DiskInfo_Source{
			Type:  mesos.Resource_DiskInfo_Source_MOUNT,
			Mount: &mesos.Resource_DiskInfo_Source_Mount{Root: ptr("/var/lib/mesos-disks/a1/mount1")},
		}}
		ports := mesos.Resource{Name: "ports", Type: mesos.RANGES.Enum(),
			Ranges: &mesos.Value_Ranges{Range: []mesos.Value_Range{{Begin: 31000, End: 31999}}}}
		c.Resources = []mesos.Resource{scalar("cpus", 4), scalar("mem", 4096), ports, scalar("disk", 10240), path, mount}
	})
	task := agenttest.Task("web.1", "sleep 12",
		agenttest.DockerVolume("rclone", "v7", "vol", "type", "local", "path", "/srv/volumes/v7"))
	task.Name = "web"
	task.Resources = append(task.Resources, mesos.Resource{
		Name: "mem", Type: mesos.SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: 32},
		AllocationInfo: task.Resources[0].AllocationInfo,
	})
	task.Labels = &mesos.Labels{Labels: []mesos.Label{{Key: "a", Value: ptr("b")}}}
	h.master.Run(name, task)
	h.master.Await("web.1", mesos.TASK_RUNNING)
	return h
}

func ptr[T any](v T) *T { return &v }

// The answers have the fields, and where it does not depend on time and place
// the values, that a real agent's had.
func TestAnswersAreThoseOfARealAgent(t *testing.T) {
	h := capturedHost(t)
	agenttest.Eventually(t, "both statuses", func() bool { return len(h.states("web.1")) == 2 })
	for file, ask := range map[string]func() (int, string){
		"agent-containers.json":     func() (int, string) { return h.ask(http.MethodGet, "/containers", "") },
		"agent-state.json":          func() (int, string) { return h.ask(http.MethodGet, "/slave(1)/state", "") },
		"agent-get_containers.json": func() (int, string) { return h.call(`{"type":"GET_CONTAINERS"}`) },
	} {
		captured, err := os.ReadFile("../testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		status, answer := ask()
		if status != http.StatusOK {
			t.Fatalf("%s: status %d: %s", file, status, answer)
		}
		var want, got any
		if err := json.Unmarshal(captured, &want); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(answer), &got); err != nil {
			t.Fatalf("%s: %v: %s", file, err, answer)
		}
		for _, difference := range compare("", want, got) {
			t.Errorf("%s%s", file, difference)
		}
	}
}

// An agent without containers answers without the field that would list them
// (evolve<GET_CONTAINERS> of evolve.cpp).
func TestAnswerWithoutContainers(t *testing.T) {
	h := newHost(t)
	status, answer := h.call(`{"type":"GET_CONTAINERS"}`)
	if want := `{"type":"GET_CONTAINERS"}`; status != http.StatusOK || strings.TrimSpace(answer) != want {
		t.Errorf("status %d, %s; want %s", status, answer, want)
	}
}

// mayDiffer lists the fields whose values depend on time, place or build, and
// those that only a control group or a release build of Mesos has.
var mayDiffer = map[string]bool{
	"container": true, "container_id": true, "value": true, "executor_pid": true, "timestamp": true,
	"start_time": true, "id": true, "pid": true, "slave_id": true, "framework_id": true, "directory": true,
	"build_time": true, "build_date": true, "git_sha": true, "git_branch": true,
	"cpus_system_time_secs": true, "cpus_user_time_secs": true, "mem_rss_bytes": true, "mem_total_bytes": true,
	"mem_anon_bytes": true, "mem_cache_bytes": true, "mem_critical_pressure_counter": true, "mem_file_bytes": true,
	"mem_kmem_tcp_usage_bytes": true, "mem_kmem_usage_bytes": true, "mem_low_pressure_counter": true,
	"mem_mapped_file_bytes": true, "mem_medium_pressure_counter": true, "mem_swap_bytes": true,
	"mem_unevictable_bytes": true,
	// What the framework said of itself.
	"name": true, "user": true, "failover_timeout": true, "principal": true,
}

// mayLack are those that an embedded agent need not have at all.
var mayLack = map[string]bool{
	"build_time": true, "build_date": true, "git_sha": true, "git_branch": true, "principal": true,
	"mem_anon_bytes": true, "mem_cache_bytes": true, "mem_critical_pressure_counter": true, "mem_file_bytes": true,
	"mem_kmem_tcp_usage_bytes": true, "mem_kmem_usage_bytes": true, "mem_low_pressure_counter": true,
	"mem_mapped_file_bytes": true, "mem_medium_pressure_counter": true, "mem_swap_bytes": true,
	"mem_unevictable_bytes": true,
}

func compare(path string, want, got any) []string {
	switch want := want.(type) {
	case map[string]any:
		got, ok := got.(map[string]any)
		if !ok {
			return []string{path + ": is no object"}
		}
		return compareObjects(path, want, got)
	case []any:
		got, ok := got.([]any)
		if !ok || len(got) != len(want) {
			return []string{fmt.Sprintf("%s: got %v, want %v", path, got, want)}
		}
		var all []string
		for n := range want {
			all = append(all, compare(fmt.Sprintf("%s[%d]", path, n), want[n], got[n])...)
		}
		return all
	}
	field := path[strings.LastIndex(path, ".")+1:]
	if fmt.Sprintf("%T", want) != fmt.Sprintf("%T", got) || want != got && !mayDiffer[field] {
		return []string{fmt.Sprintf("%s: got %v, want %v", path, got, want)}
	}
	return nil
}

func compareObjects(path string, want, got map[string]any) []string {
	var all []string
	for key := range want {
		if _, ok := got[key]; !ok && !mayLack[key] {
			all = append(all, path+"."+key+": is missing")
		} else if ok {
			all = append(all, compare(path+"."+key, want[key], got[key])...)
		}
	}
	for key := range got {
		if _, ok := want[key]; !ok {
			all = append(all, path+"."+key+": is not there in the capture")
		}
	}
	return all
}

// Calls that cannot be answered are refused like on a real agent.
func TestRefusedCalls(t *testing.T) {
	h := newHost(t)
	for _, c := range []struct {
		body, kind string
		status     int
		text       string
	}{
		{`{not json`, "application/json", 400, "Failed to parse body into JSON: syntax error at line 1 near: not json"},
		{`{"type":"NOPE"}`, "application/json", 400, "Failed to validate agent::Call: Expecting 'type' to be present"},
		{`{"type":"GET_HEALTH"}`, "text/plain", 415, "Expecting 'Content-Type' of application/json or application/x-protobuf"},
		{`{"type":"PRUNE_IMAGES"}`, "application/json", 501, "embedded Mesos does not answer PRUNE_IMAGES"},
	} {
		status, text := h.ask(http.MethodPost, "/api/v1", c.body, "Content-Type", c.kind)
		if status != c.status || text != c.text {
			t.Errorf("%s: got %d %q", c.body, status, text)
		}
	}
	if status, _ := h.ask(http.MethodGet, "/api/v1", ""); status != http.StatusMethodNotAllowed {
		t.Errorf("GET: got %d", status)
	}
	if status, text := h.call(`{"type":"GET_HEALTH"}`); status != 200 ||
		text != `{"type":"GET_HEALTH","get_health":{"healthy":true}}` {
		t.Errorf("health: got %d %s", status, text)
	}
}

// With credentials, only those who have one get an answer.
func TestAuthentication(t *testing.T) {
	h := newHost(t, func(c *agent.Config) { c.Credentials = map[string]string{"ops": "secret"} })
	for authorization, want := range map[string]int{
		"":                           401,
		"Basic b3BzOndyb25n":         401, // ops:wrong
		"Basic c29tZWJvZHk6c2VjcmV0": 401, // somebody:secret
		"Basic b3BzOnNlY3JldA==":     200, // ops:secret
	} {
		header := []string{"Content-Type", "application/json"}
		if authorization != "" {
			header = append(header, "Authorization", authorization)
		}
		if got, _ := h.ask(http.MethodPost, "/api/v1", `{"type":"GET_HEALTH"}`, header...); got != want {
			t.Errorf("%q: got %d, want %d", authorization, got, want)
		}
	}
	for path, want := range map[string]string{"/api/v1": "mesos-agent-readwrite", "/state": "mesos-agent-readonly"} {
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get(h.URL() + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Header.Get("WWW-Authenticate"); got != `Basic realm="`+want+`"` {
			t.Errorf("%s: %s", path, got)
		}
	}
}

// Sandboxes can be read, and nothing else, not even through a task's links.
func TestFiles(t *testing.T) {
	h := newHost(t)
	h.master.Run(name, agenttest.Task("t.1", "echo hello; ln -s /etc/passwd out; mkfifo pipe"))
	h.master.Await("t.1", mesos.TASK_FINISHED)
	dir, err := h.Sandbox("t.1")
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{
		"/files/read?offset=0&path=" + dir + "/stdout":  200,
		"/files/download?path=" + dir + "/stdout":       200,
		"/files/browse?path=" + dir:                     200,
		"/files/read?offset=0&path=" + dir + "/out":     404,
		"/files/read?offset=0&path=/etc/passwd":         404,
		"/files/read?offset=0&path=" + h.Dir() + "/run": 404,
		"/files/read?offset=0&path=" + dir + "/pipe":    400,
		"/files/read?offset=x&path=" + dir + "/stdout":  400,
		"/files/read": 400,
	} {
		status, body := h.ask(http.MethodGet, path, "")
		if status != want || want == 200 && !strings.Contains(body, "hello") && !strings.Contains(body, "stdout") {
			t.Errorf("%s: got %d %s", path, status, body)
		}
	}
}
