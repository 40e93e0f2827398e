package takeover

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// world is a cluster with two frameworks on it: a Marathon, which answers as the
// contract says (1.1, 1.5), and the one that takes over. It watches where
// volumes are mounted. Its time goes on with each request.
type world struct {
	mu         sync.Mutex                // guards everything below
	mounts     map[string]map[string]int // volume, agent: requests until it is unmounted, 0 while a task has it
	violations []string
	tasks      int
}

const agents = 3

// unmountDelay is how many requests an unmount takes after its task is gone.
const unmountDelay = 4

// server is one of the two frameworks.
type server struct {
	*httptest.Server
	w    *world
	name string
	apps map[string]*served
	// claims is nil at Marathon. bridge: agents report what they unmount.
	claims map[string]*Claim
	bridge bool
	pods   []string
	// backoff: no task is started while it lasts.
	backoff bool
	// marathon is whose kept instances this framework adopts, nil for nobody's;
	// wait is for how many requests they have been to be had.
	marathon *server
	wait     int
}

type served struct {
	def       map[string]any
	instances int
	tasks     []*servedTask
	failed    *Task // the last that did
}

type servedTask struct {
	Task
	steps   int // requests until it runs, or is gone
	leaving bool
	kept    bool // it runs nothing and is there for its persistent volume
}

func newWorld() *world { return &world{mounts: map[string]map[string]int{}} }

func (w *world) serve(t *testing.T, name string, claims bool) *server {
	t.Helper()
	s := &server{w: w, name: name, apps: map[string]*served{}}
	if claims {
		s.claims = map[string]*Claim{}
	}
	s.Server = httptest.NewServer(http.HandlerFunc(s.handle))
	t.Cleanup(s.Close)
	return s
}

// volumeOf is the name of the app's only volume, empty if it has none.
func volumeOf(def map[string]any) string {
	container, _ := def["container"].(map[string]any)
	volumes, _ := container["volumes"].([]any)
	if len(volumes) == 0 {
		return ""
	}
	external, _ := volumes[0].(map[string]any)["external"].(map[string]any)
	name, _ := external["name"].(string)
	return name
}

// tick lets time pass in both frameworks' cluster: the caller holds mu.
func (s *server) tick() {
	for volume, where := range s.w.mounts {
		for agent, left := range where {
			if left == 1 {
				delete(where, agent)
				if c := s.claims[volume]; c != nil && s.bridge && c.AgentID == agent {
					delete(s.claims, volume)
				}
			} else if left > 1 {
				where[agent] = left - 1
			}
		}
	}
	for id, a := range s.apps {
		s.tickApp(id, a)
	}
}

func (s *server) tickApp(id string, a *served) {
	for _, t := range a.tasks {
		t.steps = max(0, t.steps-1)
		if t.leaving && t.steps == 0 && resident(a.def) {
			t.leaving, t.kept = false, true
		}
	}
	if resident(a.def) {
		s.tickResident(id, a)
		return
	}
	a.tasks = slices.DeleteFunc(a.tasks, func(t *servedTask) bool {
		if !t.leaving || t.steps > 0 {
			return false
		}
		if v := volumeOf(a.def); v != "" {
			s.w.mounts[v][t.Agent] = unmountDelay
			if c := s.claims[v]; c != nil {
				c.State = "releasing"
			}
		}
		return true
	})
	for n := a.instances; n < len(a.tasks); n++ {
		if t := a.tasks[n]; !t.leaving {
			t.leaving, t.steps = true, 3
		}
	}
	for len(a.tasks) < a.instances && !s.backoff {
		agent, ok := s.place(a)
		if !ok {
			return
		}
		s.w.tasks++
		a.tasks = append(a.tasks, &servedTask{steps: 3, Task: Task{
			ID: fmt.Sprintf("%s-%s-%d", s.name, strings.Trim(id, "/"), s.w.tasks), Agent: agent, Host: "host-" + agent}})
		s.mount(volumeOf(a.def), agent)
	}
}

func resident(def map[string]any) bool {
	container, _ := def["container"].(map[string]any)
	volumes, _ := container["volumes"].([]any)
	return len(volumes) > 0 && volumes[0].(map[string]any)["persistent"] != nil
}

// tickResident starts and stops instances that keep their volumes.
func (s *server) tickResident(id string, a *served) {
	if s.marathon != nil && len(a.tasks) == 0 {
		there := s.marathon.apps[id]
		if there != nil && there.active() == 0 {
			s.wait++
		}
		if s.wait > 10 { // offers come when they come
			for _, t := range there.tasks {
				a.tasks = append(a.tasks, &servedTask{Task: t.Task, kept: true})
			}
		}
	}
	for _, t := range a.tasks {
		switch {
		case a.active() > a.instances && !t.kept && !t.leaving:
			t.leaving, t.steps = true, 3
			return
		case a.active() < a.instances && t.kept:
			t.kept, t.steps = false, 3
		}
	}
	for a.active() < a.instances {
		if s.marathon != nil && s.marathon.apps[id] != nil {
			s.w.violations = append(s.w.violations, id+" starts without its data")
		}
		s.w.tasks++
		a.tasks = append(a.tasks, &servedTask{steps: 3, Task: Task{ID: fmt.Sprintf("%s-%d", s.name, s.w.tasks), Agent: "S0", Host: "host-S0"}})
	}
	if s.marathon != nil && a.active() > 0 && s.marathon.apps[id] != nil && s.marathon.apps[id].active() > 0 {
		s.w.violations = append(s.w.violations, id+" runs twice")
	}
}

// active is how many tasks run or may.
func (a *served) active() int {
	n := 0
	for _, t := range a.tasks {
		if !t.kept {
			n++
		}
	}
	return n
}

// place chooses an agent as badly as it may: one that has not got the volume
// mounted, unless a claim or a constraint says where it must be.
func (s *server) place(a *served) (string, bool) {
	volume := volumeOf(a.def)
	constraints, _ := a.def["constraints"].([]any)
	for _, c := range constraints {
		if c := c.([]any); c[1] == "CLUSTER" {
			return strings.TrimPrefix(c[2].(string), "host-"), true
		}
	}
	if c := s.claims[volume]; c != nil {
		return c.AgentID, c.State == "releasing"
	}
	for n := range agents {
		agent := fmt.Sprintf("S%d", n)
		if _, has := s.w.mounts[volume][agent]; !has {
			return agent, true
		}
	}
	return "", false
}

func (s *server) mount(volume, agent string) {
	if volume == "" {
		return
	}
	if s.w.mounts[volume] == nil {
		s.w.mounts[volume] = map[string]int{}
	}
	s.w.mounts[volume][agent] = 0
	if len(s.w.mounts[volume]) > 1 {
		s.w.violations = append(s.w.violations, fmt.Sprintf("%s: volume %s is mounted on %v", s.name, volume, s.w.mounts[volume]))
	}
	if s.claims != nil {
		s.claims[volume] = &Claim{Driver: "ref", Name: volume, AgentID: agent, Hostname: "host-" + agent, State: "held"}
	}
}

func (s *server) handle(rw http.ResponseWriter, r *http.Request) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.tick()
	status, body := s.answer(r)
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(status)
	_ = json.NewEncoder(rw).Encode(body) // a client that is gone does not matter
}

func problem(format string, args ...any) map[string]any {
	return map[string]any{"message": fmt.Sprintf(format, args...)}
}

func (s *server) answer(r *http.Request) (int, any) {
	path := r.URL.Path
	switch {
	case path == "/v2/apps" && r.Method == http.MethodGet:
		all := []any{}
		for _, id := range slices.Sorted(maps.Keys(s.apps)) {
			all = append(all, s.view(id))
		}
		return 200, map[string]any{"apps": all}
	case path == "/v2/info":
		info := map[string]any{"frameworkId": s.name + "-id", "marathon_config": map[string]any{}}
		if s.marathon != nil {
			info["marathon_config"] = map[string]any{"adopt": []string{s.marathon.name + "-id"}}
		}
		return 200, info
	case path == "/v2/pods" && s.pods != nil:
		var all []any
		for _, id := range s.pods {
			all = append(all, map[string]any{"id": id})
		}
		return 200, all
	case strings.HasPrefix(path, "/v2/apps/"):
		return s.app(r, strings.TrimPrefix(path, "/v2/apps"))
	case strings.HasPrefix(path, "/v2/volumes") && s.claims != nil:
		return s.volume(r, strings.TrimPrefix(path, "/v2/volumes"))
	}
	return 404, problem("URI not found")
}

func (s *server) app(r *http.Request, id string) (int, any) {
	a := s.apps[id]
	if a == nil && (r.Method != http.MethodPut || s.claims == nil) {
		return 404, problem("App '%s' does not exist", id)
	}
	switch r.Method {
	case http.MethodGet:
		return 200, map[string]any{"app": s.view(id)}
	case http.MethodDelete:
		if a.active() > 0 {
			s.w.violations = append(s.w.violations, s.name+": "+id+" is deleted while it runs")
		}
		delete(s.apps, id)
		return 200, map[string]any{"deploymentId": "d"}
	}
	var update map[string]any
	if err := json.NewDecoder(r.Body).Decode(&update); err != nil {
		return 400, problem("Invalid JSON")
	}
	if a != nil && len(s.busy(a)) > 0 {
		return 409, map[string]any{"message": "App is locked", "deployments": s.busy(a)}
	}
	if a == nil {
		a = &served{def: map[string]any{}}
		s.apps[id] = a
	}
	if r.URL.Query().Get("partialUpdate") == "false" {
		a.def = map[string]any{}
	}
	for k, v := range update {
		a.def[k] = v
	}
	if n, ok := a.def["instances"].(float64); ok {
		a.instances = int(n)
	}
	return 200, map[string]any{"deploymentId": "d"}
}

// busy are the deployments that have not ended.
func (s *server) busy(a *served) []any {
	done := a.active() == a.instances
	for _, t := range a.tasks {
		done = done && t.steps == 0
	}
	if done || s.backoff {
		return []any{}
	}
	return []any{map[string]any{"id": "d"}}
}

func (s *server) view(id string) map[string]any {
	a := s.apps[id]
	v := maps.Clone(a.def)
	running := 0
	tasks := []any{}
	for _, t := range a.tasks {
		state := "TASK_RUNNING"
		if t.steps > 0 && !t.leaving {
			state = "TASK_STAGING"
		} else {
			running++
		}
		view := map[string]any{"id": t.ID, "slaveId": t.Agent, "host": t.Host, "state": state, "localVolumes": []any{}}
		if resident(a.def) {
			view["localVolumes"] = []any{map[string]any{"persistenceId": "p#" + t.ID}}
		}
		if t.kept {
			view["state"] = "TASK_FINISHED"
			running--
		} else {
			view["stagedAt"] = "2024-01-01T00:00:00.000Z"
		}
		tasks = append(tasks, view)
	}
	v["id"], v["instances"], v["tasks"], v["tasksRunning"], v["deployments"] = id, a.instances, tasks, running, s.busy(a)
	v["version"], v["tasksStaged"], v["tasksHealthy"], v["tasksUnhealthy"] = "2024-01-01T00:00:00.000Z", 0, 0, 0
	if f := a.failed; f != nil {
		v["lastTaskFailure"] = map[string]any{"appId": id, "taskId": f.ID, "slaveId": f.Agent, "host": f.Host, "state": "TASK_FAILED"}
	}
	v["versionInfo"] = map[string]any{"lastScalingAt": "2024-01-01T00:00:00.000Z", "lastConfigChangeAt": "2024-01-01T00:00:00.000Z"}
	return v
}

func (s *server) volume(r *http.Request, path string) (int, any) {
	if path == "" {
		all := []any{}
		for _, c := range s.claims {
			all = append(all, c)
		}
		return 200, map[string]any{"volumes": all}
	}
	name := strings.TrimSuffix(strings.TrimPrefix(path, "/ref/"), "/claim")
	c := s.claims[name]
	if r.Method == http.MethodDelete {
		if c == nil {
			return 404, problem("not claimed")
		}
		delete(s.claims, name)
		return 200, problem("released")
	}
	var use struct{ AgentID, Hostname string }
	if err := json.NewDecoder(r.Body).Decode(&use); err != nil {
		return 400, problem("bad")
	}
	if c != nil && c.AgentID != use.AgentID {
		return 409, problem("claimed elsewhere")
	}
	if c == nil {
		s.claims[name] = &Claim{Driver: "ref", Name: name, AgentID: use.AgentID, Hostname: use.Hostname, State: "releasing"}
	}
	return 200, problem("recorded")
}

// define puts an app there that runs.
func (s *server) define(t *testing.T, body string) {
	t.Helper()
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	def := map[string]any{}
	if err := json.Unmarshal([]byte(body), &def); err != nil {
		t.Fatal(err)
	}
	a := &served{def: def, instances: 1}
	if n, ok := def["instances"].(float64); ok {
		a.instances = int(n)
	}
	s.apps[def["id"].(string)] = a
	for range 5 {
		s.tick()
	}
}

// running is how many tasks of an app run.
func (s *server) running(id string) int {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if s.apps[id] == nil {
		return 0
	}
	return s.apps[id].active()
}
