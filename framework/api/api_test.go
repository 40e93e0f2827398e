package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wire is an API on a real socket over a fake core.
type wire struct {
	t    *testing.T
	core *fakeCore
	srv  *httptest.Server
}

func start(t *testing.T, cfg Config) *wire {
	t.Helper()
	f := newFake()
	srv := httptest.NewServer(New(cfg, f, zaptest.NewLogger(t, zaptest.Level(zap.ErrorLevel))))
	t.Cleanup(srv.Close)
	t.Cleanup(srv.Client().CloseIdleConnections)
	return &wire{t: t, core: f, srv: srv}
}

func everything() Config {
	return Config{App: app.Options{Role: "prod", Secrets: true, GPUs: true}}
}

// answer is an HTTP answer with its body read.
type answer struct {
	t      *testing.T
	status int
	header http.Header
	body   []byte
}

func (w *wire) do(method, path, body string, header ...string) answer {
	w.t.Helper()
	req, err := http.NewRequest(method, w.srv.URL+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := w.srv.Client().Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.core != nil {
		documented(w.t, req, resp, b)
	}
	return answer{w.t, resp.StatusCode, resp.Header, b}
}

// ok is do with a check of the status.
func (w *wire) ok(status int, method, path, body string) answer {
	w.t.Helper()
	a := w.do(method, path, body)
	if a.status != status {
		w.t.Fatalf("%s %s: status %d, want %d: %s", method, path, a.status, status, a.body)
	}
	return a
}

// at returns the value at a path of member names and indices in the body.
func (a answer) at(path ...any) any {
	a.t.Helper()
	var v any
	if err := json.Unmarshal(a.body, &v); err != nil {
		a.t.Fatalf("%v in %s", err, a.body)
	}
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, ok := v.(map[string]any)
			if !ok {
				a.t.Fatalf("no object around %q in %s", p, a.body)
			}
			v = m[p]
		case int:
			l, ok := v.([]any)
			if !ok || p >= len(l) {
				a.t.Fatalf("no element %d in %s", p, a.body)
			}
			v = l[p]
		}
	}
	return v
}

func (a answer) wants(want any, path ...any) {
	a.t.Helper()
	if got := a.at(path...); !reflect.DeepEqual(got, want) {
		a.t.Errorf("%v is %v, want %v in %s", path, got, want, a.body)
	}
}

func (a answer) length(path ...any) int {
	a.t.Helper()
	l, ok := a.at(path...).([]any)
	if !ok {
		a.t.Fatalf("%v is no array in %s", path, a.body)
	}
	return len(l)
}

const sleeper = `{"id":"a","cmd":"sleep 100","labels":{"tier":"db"}}`

func TestLifeOfAnApp(t *testing.T) {
	w := start(t, everything())
	a := w.ok(201, "POST", "/v2/apps/", sleeper)
	a.wants("/a", "id")
	a.wants(10000.0, "portDefinitions", 0, "port")
	a.wants(0.0, "tasksRunning")
	a.wants("deployment-1", "deployments", 0, "id")
	a.wants("2026-01-02T03:04:06.000Z", "version")
	if a.header.Get("Location") != "/v2/apps/a" || a.header.Get("Marathon-Deployment-Id") != "deployment-1" {
		t.Errorf("headers %v", a.header)
	}

	for _, path := range []string{"/v2/apps/a", "/v2/apps//a", "/v2/apps/a/", "/v2/apps/%2Fa"} {
		a = w.ok(200, "GET", path, "")
		a.wants("sleep 100", "app", "cmd")
		if a.length("app", "tasks") != 0 || a.length("app", "deployments") != 0 {
			t.Errorf("%s: %s", path, a.body)
		}
	}
	a = w.ok(200, "PUT", "/v2/apps/a", `{"instances":3}`)
	a.wants("deployment-2", "deploymentId")
	a.wants("2026-01-02T03:04:07.000Z", "version")
	a = w.ok(200, "GET", "/v2/apps/a/versions", "")
	a.wants([]any{"2026-01-02T03:04:07.000Z", "2026-01-02T03:04:06.000Z"}, "versions")
	a = w.ok(200, "GET", "/v2/apps/a/versions/2026-01-02T03:04:06.000Z", "")
	a.wants(1.0, "instances")
	w.ok(404, "GET", "/v2/apps/a/versions/2020-01-02T03:04:06.000Z", "").wants("App '/a' does not exist in version 2020-01-02T03:04:06.000Z", "message")

	w.ok(200, "PUT", "/v2/apps/a", `{"version":"2026-01-02T03:04:06.000Z"}`)
	w.ok(200, "GET", "/v2/apps/a", "").wants(1.0, "app", "instances")
	w.ok(404, "PUT", "/v2/apps/a", `{"version":"2020-01-02T03:04:06.000Z"}`)

	w.ok(200, "POST", "/v2/apps/a/restart", `{"force":false}`)
	w.ok(200, "DELETE", "/v2/apps/a", "")
	w.ok(404, "GET", "/v2/apps/a", "").wants("App '/a' does not exist", "message")
}

func TestPutCreatesAndPatchDoesNot(t *testing.T) {
	w := start(t, everything())
	w.ok(404, "PATCH", "/v2/apps/b", `{"cmd":"x"}`).wants("App '/b' does not exist", "message")
	w.ok(404, "PATCH", "/v2/apps", `[{"id":"b","cmd":"x"}]`)
	a := w.ok(201, "PUT", "/v2/apps/b", `{"id":"ignored","cmd":"x"}`)
	if a.header.Get("Location") != "/v2/apps/b" {
		t.Errorf("headers %v", a.header)
	}
	w.ok(200, "PATCH", "/v2/apps/b", `{"mem":64}`)
	w.ok(200, "PUT", "/v2/apps", `[{"id":"b","cpus":2},{"id":"c","cmd":"y"}]`)
	a = w.ok(200, "GET", "/v2/apps/b", "")
	a.wants(2.0, "app", "cpus")
	a.wants(64.0, "app", "mem")
	w.ok(200, "PUT", "/v2/apps/b?partialUpdate=false", `{"cmd":"z"}`)
	w.ok(200, "GET", "/v2/apps/b", "").wants(128.0, "app", "mem")
	if a := w.ok(422, "PUT", "/v2/apps", `[{"id":"b","cpus":2},{"id":"/b","cpus":3}]`); a.detail("(1)/id") != "is defined twice" {
		t.Errorf("got %s", a.body)
	}
	w.ok(422, "PUT", "/v2/apps", `[{"cpus":2}]`).wants("requirement failed: App Update must have app id set", "message")
}

func TestUpdateIsDerivedAgainAfterARace(t *testing.T) {
	w := start(t, everything())
	w.ok(201, "POST", "/v2/apps", sleeper)
	w.core.mu.Lock()
	w.core.stale = 2
	w.core.mu.Unlock()
	w.ok(200, "PUT", "/v2/apps/a", `{"instances":3}`)
	base := w.core.changes[len(w.core.changes)-1].Base["/a"]
	if base.String() != "2026-01-02T03:04:06.000Z" {
		t.Errorf("derived from %v", base)
	}
	w.core.mu.Lock()
	w.core.stale = maxAttempts
	w.core.mu.Unlock()
	w.ok(409, "PUT", "/v2/apps/a", `{"instances":4}`)
}

func TestFilters(t *testing.T) {
	w := start(t, everything())
	w.ok(201, "POST", "/v2/apps", `{"id":"/prod/db","cmd":"Run DB","labels":{"tier":"db","x":"1"}}`)
	w.ok(201, "POST", "/v2/apps", `{"id":"/prod/web","cmd":"serve","labels":{"tier":"web"}}`)
	w.ok(201, "POST", "/v2/apps", `{"id":"/other","cmd":"serve"}`)
	for query, want := range map[string]int{
		"":                              3,
		"?cmd=run":                      1,
		"?id=PROD":                      2,
		"?label=tier":                   2,
		"?label=tier==db":               1,
		"?label=tier!=db":               1,
		"?label=tier%20in%20(db,web),x": 1,
		"?label=tier%20notin%20(db)":    1,
		"?label=none!=x":                0,
		"?id=prod&cmd=serve":            1,
	} {
		if got := w.ok(200, "GET", "/v2/apps"+query, "").length("apps"); got != want {
			t.Errorf("%s: %d apps, want %d", query, got, want)
		}
	}
	if got := w.ok(200, "GET", "/v2/apps/prod/*", "").length("*"); got != 2 {
		t.Errorf("apps of a group: %d", got)
	}
	if got := w.ok(200, "GET", "/v2/apps//*", "").length("*"); got != 3 {
		t.Errorf("apps of the root: %d", got)
	}
}

func withTasks(t *testing.T) *wire {
	w := start(t, everything())
	w.ok(201, "POST", "/v2/apps", sleeper)
	at := time.Date(2026, 1, 2, 3, 4, 10, 0, time.UTC)
	w.core.tasks["/a"] = []core.TaskView{
		{
			ID: "a.instance-1._app.1", InstanceID: "a.instance-1", AppID: "/a", Host: "h1", AgentID: "S1", State: "TASK_RUNNING",
			StagedAt: at, StartedAt: at.Add(time.Second), Version: app.NewTimestamp(at), Ports: []uint32{31000}, IPs: []string{"10.0.0.1", "fe80::1"}, Role: "prod",
			Health: []core.HealthView{{Alive: true, FirstSuccess: at}},
		},
		{
			ID: "a.instance-2._app.1", InstanceID: "a.instance-2", AppID: "/a", Host: "h2", AgentID: "S2", State: "TASK_FINISHED", StagedAt: at, Role: "prod",
			Local: []core.LocalVolume{{ContainerPath: "data", PersistenceID: "a#data#u-1"}},
		},
	}
	w.core.failures["/a"] = &core.TaskFailure{AppID: "/a", State: "TASK_FAILED", TaskID: "t", Message: "m", AgentID: "S1"}
	return w
}

func TestTasks(t *testing.T) {
	w := withTasks(t)
	a := w.ok(200, "GET", "/v2/apps/a/tasks", "")
	a.wants("TASK_RUNNING", "tasks", 0, "state")
	a.wants([]any{31000.0}, "tasks", 0, "ports")
	a.wants([]any{10000.0}, "tasks", 0, "servicePorts")
	a.wants("2026-01-02T03:04:11.000Z", "tasks", 0, "startedAt")
	a.wants([]any{map[string]any{"ipAddress": "10.0.0.1", "protocol": "IPv4"}, map[string]any{"ipAddress": "fe80::1", "protocol": "IPv6"}}, "tasks", 0, "ipAddresses")
	a.wants("a.instance-1", "tasks", 0, "healthCheckResults", 0, "instanceId")
	a.wants("S1", "tasks", 0, "slaveId")
	for _, absent := range []string{"stagedAt", "startedAt", "version", "ports"} {
		a.wants(nil, "tasks", 1, absent)
	}
	a.wants(map[string]any{"runSpecId": "/a", "containerPath": "data", "uuid": "u-1", "persistenceId": "a#data#u-1"}, "tasks", 1, "localVolumes", 0)
	for path, want := range map[string]int{
		"/v2/tasks": 2, "/v2/tasks?status=running": 1, "/v2/tasks?status[]=staging": 0, "/v2/tasks?status=running&status=finished": 2,
	} {
		if got := w.ok(200, "GET", path, "").length("tasks"); got != want {
			t.Errorf("%s: %d tasks, want %d", path, got, want)
		}
	}
	w.ok(201, "POST", "/v2/apps", `{"id":"/g/b","cmd":"x"}`)
	w.core.tasks["/g/b"] = []core.TaskView{{ID: "g_b.instance-1._app.1", AppID: "/g/b", State: "TASK_STAGING"}}
	if got := w.ok(200, "GET", "/v2/apps/g/*/tasks", "").length("tasks"); got != 1 {
		t.Errorf("tasks of a group: %d", got)
	}
	if got := w.ok(200, "GET", "/v2/apps/*/tasks", "").length("tasks"); got != 3 {
		t.Errorf("tasks of the root: %d", got)
	}
	for _, path := range []string{"/v2/apps/none/*/tasks", "/v2/apps/none/*"} {
		w.ok(404, "GET", path, "").wants("Group '/none' does not exist", "message")
	}
}

func TestCheckResults(t *testing.T) {
	w := withTasks(t)
	status, exit, up := 200, 1, false
	w.core.tasks["/a"][0].Check = &core.CheckResult{HTTPStatus: &status, ExitCode: &exit, TCPSucceeded: &up}
	w.ok(200, "GET", "/v2/apps/a/tasks", "").wants(map[string]any{
		"http": map[string]any{"statusCode": 200.0}, "tcp": map[string]any{"succeeded": false}, "command": map[string]any{"exitCode": 1.0},
	}, "tasks", 0, "checkResult")
}

func TestEmbed(t *testing.T) {
	w := withTasks(t)
	a := w.ok(200, "GET", "/v2/apps", "")
	a.wants(2.0, "apps", 0, "tasksRunning")
	a.wants([]any{}, "apps", 0, "deployments")
	a.wants(nil, "apps", 0, "tasks")
	a = w.ok(200, "GET", "/v2/apps?embed=apps.tasks&embed=unknown", "")
	if a.length("apps", 0, "tasks") != 2 {
		t.Errorf("got %s", a.body)
	}
	a = w.ok(200, "GET", "/v2/apps?embed=apps.failures", "")
	a.wants("TASK_FAILED", "apps", 0, "lastTaskFailure", "state")
	a.wants("S1", "apps", 0, "lastTaskFailure", "slaveId")
	a = w.ok(200, "GET", "/v2/apps/a?embed=app.taskStats&embed=app.readiness", "")
	a.wants(1.0, "app", "taskStats", "totalSummary", "stats", "counts", "healthy")
	a.wants(1.0, "app", "tasksStats", "totalSummary", "stats", "counts", "running")
	a.wants([]any{}, "app", "readinessCheckResults")
	a.wants("m", "app", "lastTaskFailure", "message")
}

func TestKill(t *testing.T) {
	w := withTasks(t)
	if got := w.ok(200, "DELETE", "/v2/apps/a/tasks?host=*", "").length("tasks"); got != 2 {
		t.Errorf("killed %d", got)
	}
	if got := w.ok(200, "DELETE", "/v2/apps/a/tasks?host=h2&wipe=true", "").length("tasks"); got != 1 {
		t.Errorf("killed %d", got)
	}
	if k := w.core.kills[1]; k.Host != "h2" || !k.Wipe {
		t.Errorf("kill %+v", k)
	}
	w.ok(200, "DELETE", "/v2/apps/a/tasks/a.instance-1._app.1", "").wants("h1", "task", "host")
	w.ok(200, "DELETE", "/v2/apps/a.instance-1./app/tasks/a.instance-1._app.1", "").wants("h1", "task", "host") // as go-marathon asks
	w.ok(404, "DELETE", "/v2/apps/b.instance-1./app/tasks/a.instance-1._app.1", "")
	w.ok(404, "DELETE", "/v2/apps/a/tasks/none", "").wants("Task 'none' does not exist", "message")
	w.ok(404, "DELETE", "/v2/apps/none/tasks", "")
	w.ok(200, "DELETE", "/v2/apps/a/tasks/a.instance-1._app.1?scale=true", "").wants("scale-1", "deploymentId")
	w.ok(400, "DELETE", "/v2/apps/a/tasks/a.instance-1._app.1?scale=true&wipe=true", "")

	body := `{"ids":["a.instance-2._app.1","a.instance-9._app.1"]}`
	if got := w.ok(200, "POST", "/v2/tasks/delete", body).length("tasks"); got != 1 {
		t.Errorf("killed %d", got)
	}
	w.ok(200, "POST", "/v2/tasks/delete?scale=true", body).wants("scale-1", "deploymentId")
	for _, none := range []answer{
		w.ok(200, "POST", "/v2/tasks/delete?scale=true", `{"ids":["a.instance-9._app.1"]}`),
		w.ok(200, "DELETE", "/v2/apps/a/tasks?scale=true&host=none", ""),
	} {
		if id, _ := none.at("deploymentId").(string); !strings.HasPrefix(id, "deployment-") {
			t.Errorf("nothing to kill and scale: %s", none.body)
		}
	}
	w.ok(400, "POST", "/v2/tasks/delete", `{"ids":["nonsense"]}`)
	w.ok(400, "POST", "/v2/tasks/delete", ``)
	w.ok(400, "POST", "/v2/tasks/delete", `{"ids":`)
	n := len(w.core.kills)
	for _, query := range []string{"host=", "host=h%zz", "host=h1;wipe=false", "host=h1&scale=%"} {
		w.ok(400, "DELETE", "/v2/apps/a/tasks?"+query, "")
	}
	w.ok(200, "POST", "/v2/tasks/delete", `{"ids":[]}`)
	for body, want := range map[string]app.Detail{
		`[]`:                  {Path: "/", Errors: []string{"error.expected.jsobject"}},
		`{}`:                  {Path: "/ids", Errors: []string{"error.path.missing"}},
		`{"ids":"a"}`:         {Path: "/ids", Errors: []string{"error.expected.jsarray"}},
		`{"ids":["a_b.1",1]}`: {Path: "/ids(1)", Errors: []string{"error.expected.jsstring"}},
	} {
		if a := w.ok(422, "POST", "/v2/tasks/delete", body); a.detail(want.Path) != want.Errors[0] {
			t.Errorf("%s: %s", body, a.body)
		}
	}
	if len(w.core.kills) != n {
		t.Error("an empty list of ids, or a host that cannot be read, killed something")
	}
}

func deploying(t *testing.T) *wire {
	w := start(t, everything())
	w.ok(201, "POST", "/v2/apps", sleeper)
	w.core.deployments = []core.DeploymentView{{
		ID: "d-1", Version: app.NewTimestamp(time.Unix(0, 0)), Apps: []app.ID{"/a"}, Current: 1,
		Steps:     [][]core.Action{{{Kind: "StartApplication", App: "/a"}}, {{Kind: "ScaleApplication", App: "/a"}}},
		Readiness: []core.ReadinessView{{AppID: "/a", Name: "r", TaskID: "t", LastStatus: 503, LastBody: "no"}},
	}}
	return w
}

func TestDeployments(t *testing.T) {
	w := deploying(t)
	a := w.ok(200, "GET", "/v2/deployments", "")
	a.wants("d-1", 0, "id")
	a.wants([]any{"/a"}, 0, "affectedApps")
	a.wants([]any{}, 0, "affectedPods")
	a.wants("ScaleApplication", 0, "steps", 1, "actions", 0, "action")
	a.wants("StartApplication", 0, "currentActions", 0, "action")
	a.wants(503.0, 0, "currentActions", 0, "readinessCheckResults", 0, "lastResponse", "status")
	a.wants(2.0, 0, "totalSteps")
	a.wants(1.0, 0, "currentStep")
	w.ok(200, "GET", "/v2/apps/a?embed=readiness", "").wants("r", "app", "readinessCheckResults", 0, "name")
	w.ok(404, "DELETE", "/v2/deployments/x", "").wants("DeploymentPlan x does not exist", "message")
	w.ok(200, "DELETE", "/v2/deployments/d-1", "").wants("revert-1", "deploymentId")
	w = deploying(t)
	if a := w.ok(202, "DELETE", "/v2/deployments/d-1?force=true", ""); len(a.body) != 0 {
		t.Errorf("body %s", a.body)
	}
	if a := w.ok(200, "GET", "/v2/deployments", ""); string(a.body) != "[]" {
		t.Errorf("got %s", a.body)
	}
}

func TestLocked(t *testing.T) {
	w := deploying(t)
	a := w.ok(409, "PUT", "/v2/apps/a", `{"cmd":"y"}`)
	a.wants("d-1", "deployments", 0, "id")
	if m, _ := a.at("message").(string); !strings.HasPrefix(m, "App is locked by one or more deployments.") {
		t.Errorf("message %q", m)
	}
	w.ok(200, "PUT", "/v2/apps/a?force=true", `{"cmd":"y"}`)
	w.ok(409, "DELETE", "/v2/apps/a?force=false", "")
	w.ok(200, "DELETE", "/v2/apps/a", "") // force is the default here
}

func TestQueue(t *testing.T) {
	w := start(t, everything())
	w.ok(201, "POST", "/v2/apps", sleeper)
	v, err := w.core.App(t.Context(), "/a")
	if err != nil {
		t.Fatal(err)
	}
	w.core.queue = []core.QueueView{{
		App: v.App, Count: 2, Role: "prod", Since: time.Unix(0, 0), Delay: 1500 * time.Millisecond, Processed: 5, Unused: 5,
		Waiting: []scheduler.Waiting{{
			InstanceID: "i", Offers: 5, Text: "waits", Best: "h1", Lacks: []string{"cpus"},
			Counts: []scheduler.ReasonCount{{Reason: scheduler.UnfulfilledRole, Agents: 2}, {Reason: scheduler.InsufficientCPUs, Agents: 3}},
		}},
	}}
	a := w.ok(200, "GET", "/v2/queue", "")
	a.wants(2.0, "queue", 0, "count")
	a.wants(2.0, "queue", 0, "delay", "timeLeftSeconds")
	a.wants(false, "queue", 0, "delay", "overdue")
	a.wants("/a", "queue", 0, "app", "id")
	a.wants("waits", "queue", 0, "waiting", 0, "text")
	a.wants(map[string]any{"reason": "UnfulfilledRole", "declined": 2.0, "processed": 5.0}, "queue", 0, "processedOffersSummary", "rejectSummaryLastOffers", 0)
	a.wants(map[string]any{"reason": "UnfulfilledConstraint", "declined": 0.0, "processed": 3.0}, "queue", 0, "processedOffersSummary", "rejectSummaryLastOffers", 1)
	a.wants(nil, "queue", 0, "lastUnusedOffers")
	w.ok(200, "GET", "/v2/queue?embed=lastUnusedOffers", "").wants("h1", "queue", 0, "lastUnusedOffers", 0, "offer", "hostname")
	w.ok(204, "DELETE", "/v2/queue/a/delay", "")
	w.ok(404, "DELETE", "/v2/queue//none/delay", "").wants("Application /none not found in tasks queue.", "message")
}

func TestSystem(t *testing.T) {
	cfg := everything()
	cfg.Version, cfg.Marathon = "1.2.3", map[string]any{"framework_name": "x", "failover_timeout": 604800}
	cfg.Extensions = map[string]any{"adopt": []string{"f"}}
	w := start(t, cfg)
	a := w.ok(200, "GET", "/ping", "")
	if string(a.body) != "pong" || !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") {
		t.Errorf("%s %v", a.body, a.header)
	}
	for path, want := range map[string]string{"/v2/plugins": `{"plugins":[]}`, "/logging": `{"ROOT":"ERROR"}`} {
		if a := w.ok(200, "GET", path, ""); strings.TrimSpace(string(a.body)) != want {
			t.Errorf("%s: %s", path, a.body)
		}
	}
	if a := w.do("GET", "/ping", "", "Accept", "application/json"); string(a.body) != `"pong"` {
		t.Errorf("%s", a.body)
	}
	if a := w.do("GET", "/ping", "", "Accept", "text/html"); a.status != 204 {
		t.Errorf("status %d", a.status)
	}
	for k, v := range map[string]string{
		"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache", "Expires": "0",
		"X-Marathon-Leader": "http://host:8080", "X-Frame-Options": "DENY", "X-XSS-Protection": "1; mode=block",
	} {
		if a.header.Get(k) != v {
			t.Errorf("header %s: %q", k, a.header.Get(k))
		}
	}
	a = w.ok(200, "GET", "/v2/info", "")
	a.wants("marathon", "name")
	a.wants("1.2.3", "version")
	a.wants("fw-1", "frameworkId")
	a.wants("host:8080", "leader")
	a.wants(604800.0, "marathon_config", "failover_timeout")
	a.wants("http://master:5050/", "marathon_config", "mesos_leader_ui_url")
	a.wants(nil, "connected") // clients of Marathon's may end with an error at it
	a.wants(nil, "marathon_config", "adopt")
	a = w.ok(200, "GET", "/v2/info?extensions=true", "")
	a.wants(true, "connected")
	a.wants([]any{"f"}, "marathon_config", "adopt")
	w.ok(200, "GET", "/v2/leader", "").wants("host:8080", "leader")
	w.ok(404, "DELETE", "/v2/leader", "")
	w.ok(404, "HEAD", "/v2/pods", "")
	w.ok(404, "GET", "/v2/pods/a", "")
	for _, gone := range []string{"/", "/v2/schemas/app", "/v2/eventSubscriptions", "/v2/artifacts/x"} {
		w.ok(404, "GET", gone, "").wants("URI not found", "message")
	}
	a = w.ok(405, "DELETE", "/v2/info", "")
	if a.header.Get("Allow") != "GET, HEAD, OPTIONS" {
		t.Errorf("Allow: %q", a.header.Get("Allow"))
	}
	w.ok(405, "GET", "/v2/apps/a/restart", "")
}

func TestAbdicate(t *testing.T) {
	cfg := everything()
	asked := make(chan struct{})
	cfg.Abdicate = func() { close(asked) }
	w := start(t, cfg)
	w.ok(200, "DELETE", "/v2/leader", "").wants("Leadership abdicated", "message")
	<-asked
}

func TestVolumes(t *testing.T) {
	w := start(t, everything())
	w.core.claims = []core.ClaimView{{
		Claim: scheduler.Claim{Key: scheduler.VolumeKey{Driver: "d", Name: "a/b"}, AgentID: "S1", Hostname: "h1", State: scheduler.Lost, Epoch: 3},
		Apps:  []app.ID{"/a"}, Text: "held by a",
	}}
	w.core.persistent = []core.PersistentView{{
		ID: "a#data#1", App: "/a", ContainerPath: "data", AgentID: "S1", Hostname: "h1", Shared: true, Instances: []string{"a.1", "a.2"},
	}}
	a := w.ok(200, "GET", "/v2/volumes", "")
	a.wants("a#data#1", "persistent", 0, "id")
	a.wants("h1", "persistent", 0, "hostname")
	a.wants(true, "persistent", 0, "shared")
	a.wants("a.2", "persistent", 0, "instances", 1)
	a.wants("lost", "volumes", 0, "state")
	a.wants("one-task", "volumes", 0, "access")
	a.wants("held by a", "volumes", 0, "text")
	w.ok(400, "DELETE", "/v2/volumes/d/a/b/claim", "")
	w.ok(404, "DELETE", "/v2/volumes/d/x/claim?force=true", "")
	w.ok(200, "DELETE", "/v2/volumes/d/a/b/claim?force=true", "")
	if len(w.core.claims) != 0 {
		t.Error("the claim is still there")
	}
	used := `{"app":"/a","agentId":"S1","hostname":"h1","taskId":"t"}`
	w.ok(200, "PUT", "/v2/volumes/d/a/b/claim", used)
	w.ok(409, "PUT", "/v2/volumes/d/a/b/claim", strings.Replace(used, "S1", "S2", 1))
	w.ok(400, "PUT", "/v2/volumes/d/a/b/claim", `{"app":"/a"}`)
	w.ok(400, "PUT", "/v2/volumes/d/a/b/claim", `[`)
	if len(w.core.claims) != 1 || w.core.claims[0].Claim.Key.Name != "a/b" || w.core.claims[0].Claim.Hostname != "h1" {
		t.Errorf("claims %+v", w.core.claims)
	}
}

func TestVolumesThatAreToBeRemoved(t *testing.T) {
	w := start(t, everything())
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	old := core.RemovalView{Key: scheduler.VolumeKey{Driver: "d", Name: "a/b"}, App: "/a", Hostname: "h1", Epoch: 3, Since: since, Why: "app /a was deleted",
		Problem: "it has snapshots", Next: since.Add(time.Minute), Text: "to be removed"}
	held := core.RemovalView{Key: scheduler.VolumeKey{Driver: "d", Name: "c"}, Since: since, Why: "killed and wiped"}
	w.core.removals = []core.RemovalView{old}
	w.core.claims = []core.ClaimView{{Claim: scheduler.Claim{Key: held.Key}, Removal: &held}}
	a := w.ok(200, "GET", "/v2/volumes", "")
	a.wants("held", "volumes", 0, "state")
	a.wants("killed and wiped", "volumes", 0, "removal", "why")
	a.wants("removing", "volumes", 1, "state")
	a.wants("a/b", "volumes", 1, "name")
	a.wants("h1", "volumes", 1, "hostname")
	a.wants("it has snapshots", "volumes", 1, "removal", "problem")
	a.wants("2026-01-02T03:05:05.000Z", "volumes", 1, "removal", "next")
	w.ok(404, "DELETE", "/v2/volumes/d/x/removal", "")
	w.ok(200, "DELETE", "/v2/volumes/d/a/b/removal", "")
	if len(w.core.removals) != 0 {
		t.Error("it is still to be removed")
	}
}

func TestServerErrorsAreNotTheClients(t *testing.T) {
	w := start(t, everything())
	w.core.err = errors.New("disk full")
	w.ok(500, "GET", "/v2/apps", "").wants("disk full", "message")
	w.core.err = fmt.Errorf("apps: %w", core.ErrStopped)
	w.ok(503, "GET", "/v2/apps", "")
	w.core.err = &core.TooManyDeploymentsError{Limit: 100}
	w.ok(403, "POST", "/v2/apps", sleeper)
}
