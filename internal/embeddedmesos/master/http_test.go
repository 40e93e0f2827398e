package master_test

import (
	"net/http"
	"strings"
	"testing"

	operator "github.com/mesos/mesos-go/api/v1/lib/master"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/master"
)

func TestMalformedCallsAreRefusedInMesosWords(t *testing.T) {
	c := startCluster(t)
	f := c.subscribe(mediaJSON, framework()).subscribed()
	id := `"framework_id": {"value": "` + f.id.Value + `"}`
	valid := map[string]string{"Content-Type": mediaJSON, "Mesos-Stream-Id": f.stream}
	jsonOnly := map[string]string{"Content-Type": mediaJSON}
	for name, test := range map[string]struct {
		body   string
		header map[string]string
		status int
		text   string
	}{
		"not JSON": {`{not json`, valid, 400, "Failed to parse body into JSON: syntax error at line 1 near: not json"},
		"wrong type": {`{` + id + `, "type": "NOPE"}`, valid, 400,
			"Failed to validate scheduler::Call: Expecting 'type' to be present"},
		"not a call": {`{"type": 3}`, valid, 400, "Failed to convert JSON into Call protobuf: type: expecting an enum name, not 3"},
		"not protobuf": {"\xff\xff", map[string]string{"Content-Type": mediaProtobuf}, 400,
			"Failed to parse body into Call protobuf"},
		"no content type": {`{}`, nil, 400, "Expecting 'Content-Type' to be present"},
		"wrong content type": {`{` + id + `, "type": "REVIVE"}`, map[string]string{"Content-Type": "text/plain"}, 415,
			"Expecting 'Content-Type' of application/json or application/x-protobuf"},
		"no framework id": {`{"type": "REVIVE"}`, valid, 400,
			"Failed to validate scheduler::Call: Expecting 'framework_id' to be present"},
		"no body": {`{` + id + `, "type": "ACCEPT"}`, valid, 400,
			"Failed to validate scheduler::Call: Expecting 'accept' to be present"},
		"no stream id": {`{` + id + `, "type": "REVIVE"}`, jsonOnly, 400,
			"All non-subscribe calls should include the 'Mesos-Stream-Id' header"},
		"foreign stream id": {`{` + id + `, "type": "REVIVE"}`, map[string]string{"Content-Type": mediaJSON, "Mesos-Stream-Id": "x"}, 400,
			"The stream ID 'x' included in this request didn't match the stream ID currently associated with framework ID " + f.id.Value},
		"unknown framework": {`{"framework_id": {"value": "x"}, "type": "REVIVE"}`, valid, 400, "Framework cannot be found"},
		"ids differ": {`{` + id + `, "type": "SUBSCRIBE", "subscribe": {"framework_info": {"user": "", "name": ""}}}`, jsonOnly, 400,
			"Failed to validate scheduler::Call: 'framework_id' differs from 'subscribe.framework_info.id'"},
		"subscribe with stream id": {`{"type": "SUBSCRIBE", "subscribe": {"framework_info": {"user": "", "name": ""}}}`, valid, 400,
			"Subscribe calls should not include the 'Mesos-Stream-Id' header"},
		"not acceptable": {`{"type": "SUBSCRIBE", "subscribe": {"framework_info": {"user": "", "name": ""}}}`,
			map[string]string{"Content-Type": mediaJSON, "Accept": "text/html, application/json;q=0"}, 406,
			"Expecting 'Accept' to allow 'application/x-protobuf' or 'application/json'"},
		"bad uuid": {`{` + id + `, "type": "ACKNOWLEDGE", "acknowledge": {"agent_id": {"value": "a"}, "task_id": {"value": "t"}, "uuid": "AA=="}}`, valid, 400,
			"Failed to validate scheduler::Call: Not a valid UUID"},
	} {
		t.Run(name, func(t *testing.T) {
			got := c.post("/api/v1/scheduler", test.body, test.header)
			if got.status != test.status || got.body != test.text {
				t.Errorf("got %d %q, want %d %q", got.status, got.body, test.status, test.text)
			}
			if got.header.Get("Content-Type") != "text/plain; charset=utf-8" {
				t.Errorf("Content-Type %q", got.header.Get("Content-Type"))
			}
		})
	}
}

// TestDecoderPanicIsARefusal sends what makes mesos-go's generated decoder
// index out of range (a length that overflows).
func TestDecoderPanicIsARefusal(t *testing.T) {
	c := startCluster(t)
	body := "\x1a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"
	got := c.post("/api/v1/scheduler", body, map[string]string{"Content-Type": mediaProtobuf})
	if got.status != http.StatusBadRequest {
		t.Errorf("got %d %q", got.status, got.body)
	}
}

func TestOtherMethodsAndPaths(t *testing.T) {
	c := startCluster(t)
	get := func(path string) answer {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+c.address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.do(request)
	}
	for _, path := range []string{"/api/v1/scheduler", "/master/api/v1/scheduler", "/api/v1", "/master/api/v1"} {
		got := get(path)
		if got.status != 405 || got.header.Get("Allow") != "POST" || got.body != "Expecting one of { 'POST' }, but received 'GET'" {
			t.Errorf("GET %s: %d %q", path, got.status, got.body)
		}
	}
	if got := get("/health"); got.status != 200 {
		t.Errorf("/health: %d", got.status)
	}
	if got := get("/master/redirect"); got.status != 307 || got.header.Get("Location") != "//"+strings.Replace(c.address, "127.0.0.1", "localhost", 1) {
		t.Errorf("/redirect: %d %q", got.status, got.header.Get("Location"))
	}
	if got := get("/master/state"); got.status != 200 || !strings.Contains(got.body, `"leader":"master@`+c.address+`"`) {
		t.Errorf("/state: %d %q", got.status, got.body)
	}
	if got := get("/nothing"); got.status != 404 {
		t.Errorf("/nothing: %d", got.status)
	}
}

func TestCredentials(t *testing.T) {
	c := startCluster(t, func(cfg *master.Config) { cfg.Credentials = map[string]string{"dvdi-principal": "secret"} })
	body := `{"type": "GET_HEALTH"}`
	for auth, want := range map[string]int{"": 401, "dvdi-principal:wrong": 401, "other:secret": 401, "dvdi-principal:secret": 200} {
		header := map[string]string{"Content-Type": mediaJSON}
		if auth != "" {
			header["auth"] = auth
		}
		if got := c.post("/api/v1", body, header); got.status != want {
			t.Errorf("%q: %d, want %d", auth, got.status, want)
		}
	}
	if got := c.post("/api/v1/scheduler", `{}`, nil); got.status != 401 || !strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Basic ") {
		t.Errorf("scheduler API without credentials: %d %v", got.status, got.header)
	}
	other := `{"type": "SUBSCRIBE", "subscribe": {"framework_info": {"user": "", "name": "", "principal": "other"}}}`
	got := c.post("/api/v1/scheduler", other, map[string]string{"Content-Type": mediaJSON, "auth": "dvdi-principal:secret"})
	want := "Failed to validate scheduler::Call: Authenticated principal 'dvdi-principal' does not match principal 'other' set in `FrameworkInfo`"
	if got.status != 400 || got.body != want {
		t.Errorf("foreign principal: %d %q", got.status, got.body)
	}
}

func TestCallsNeedTheFrameworksPrincipal(t *testing.T) {
	c := startCluster(t, func(cfg *master.Config) { cfg.Credentials = map[string]string{"one": "1", "two": "2"} })
	c.auth = "one:1"
	info := framework()
	info.Principal = nil // taken from the credentials
	f := c.subscribe(mediaJSON, info).subscribed()
	f.call(&scheduler.Call{Type: scheduler.Call_REVIVE})
	f.auth = "two:2"
	got := f.try(&scheduler.Call{Type: scheduler.Call_REVIVE})
	want := "Authenticated principal 'two' does not match principal 'one' set in `FrameworkInfo`"
	if got.status != 400 || got.body != want {
		t.Errorf("foreign principal: %d %q", got.status, got.body)
	}
}

func TestMasterThatDoesNotLead(t *testing.T) {
	c := startCluster(t)
	header := map[string]string{"Content-Type": mediaJSON}
	c.master.SetUnavailable(true)
	if got := c.post("/api/v1", `{"type": "GET_HEALTH"}`, header); got.status != 503 {
		t.Errorf("without a leader: %d", got.status)
	}
	c.master.SetUnavailable(false)
	c.master.RedirectTo("leader.test:5060")
	for _, path := range []string{"/api/v1/scheduler", "/master/api/v1/scheduler"} {
		got := c.post(path, `{}`, header)
		if got.status != 307 || got.header.Get("Location") != "//leader.test:5060/master/api/v1/scheduler" {
			t.Errorf("%s on another leader: %d %q", path, got.status, got.header.Get("Location"))
		}
	}
	c.master.RedirectTo("")
	if answer := c.operate(&operator.Call{Type: operator.Call_GET_HEALTH}); !answer.GetHealth.Healthy {
		t.Error("not healthy")
	}
}

func TestUnsupportedOperatorCall(t *testing.T) {
	c := startCluster(t)
	header := map[string]string{"Content-Type": mediaJSON}
	for body, want := range map[string]int{
		`{"type": "GET_QUOTA"}`:                      501,
		`{"type": "MARK_AGENT_GONE"}`:                400,
		`{}`:                                         400,
		`{"type": "GET_HEALTH", "x": `:               400,
		`{"type": "TEARDOWN", "teardown": {}}`:       400,
		`{"type": "DRAIN_AGENT", "drain_agent": {}}`: 400,
		`{"type": "MARK_AGENT_GONE", "mark_agent_gone": {"agent_id": {"value": "x"}}}`: 404,
		`{"type": "DRAIN_AGENT", "drain_agent": {"agent_id": {"value": "x"}}}`:         400,
		`{"type": "TEARDOWN", "teardown": {"framework_id": {"value": "x"}}}`:           400,
	} {
		if got := c.post("/api/v1", body, header); got.status != want {
			t.Errorf("%s: %d %q, want %d", body, got.status, got.body, want)
		}
	}
}

func TestCallsOfAnEndedStreamAreForbidden(t *testing.T) {
	c := startCluster(t)
	f := c.subscribe(mediaJSON, framework()).subscribed()
	f.cancel()
	poll(t, "the framework to be disconnected", func() bool {
		return !c.operate(&operator.Call{Type: operator.Call_GET_FRAMEWORKS}).GetFrameworks.Frameworks[0].Connected
	})
	got := f.try(&scheduler.Call{Type: scheduler.Call_REVIVE})
	if got.status != 403 || got.body != "Framework is not subscribed" {
		t.Errorf("got %d %q", got.status, got.body)
	}
}

func TestQueries(t *testing.T) {
	c, agent, f, _ := running(t)
	if c.master.ID() != "m0" || c.master.Addr() != c.address {
		t.Errorf("master %s at %s", c.master.ID(), c.master.Addr())
	}
	flags := make(map[string]string)
	for _, flag := range c.operate(&operator.Call{Type: operator.Call_GET_FLAGS}).GetFlags.Flags {
		flags[flag.Name] = flag.GetValue()
	}
	if flags["max_agent_ping_timeouts"] != "5" || flags["work_dir"] != c.cfg.Dir {
		t.Errorf("flags %v", flags)
	}
	if v := c.operate(&operator.Call{Type: operator.Call_GET_VERSION}).GetVersion.VersionInfo; v.Version != "1.12.0" {
		t.Errorf("version %v", v)
	}
	roles := c.operate(&operator.Call{Type: operator.Call_GET_ROLES}).GetRoles.Roles
	if len(roles) != 1 || roles[0].Name != "dvdi" || len(roles[0].Frameworks) != 1 || len(roles[0].Resources) == 0 {
		t.Errorf("roles %v", roles)
	}
	if executors := c.operate(&operator.Call{Type: operator.Call_GET_EXECUTORS}).GetExecutors.Executors; executors != nil {
		t.Errorf("executors %v", executors)
	}
	got := c.operate(&operator.Call{Type: operator.Call_GET_AGENTS}).GetAgents.Agents[0]
	if len(got.AllocatedResources) != 2 || len(got.OfferedResources) != 4 || got.AgentInfo.ID.Value != agent.id().Value {
		t.Errorf("agent %v", got)
	}
	if got := c.try(&operator.Call{Type: operator.Call_TEARDOWN, Teardown: &operator.Call_Teardown{FrameworkID: *f.id}}); got.status != 200 {
		t.Errorf("TEARDOWN: %d %s", got.status, got.body)
	}
	found := c.operate(&operator.Call{Type: operator.Call_GET_FRAMEWORKS}).GetFrameworks
	if len(found.Frameworks) != 0 || len(found.CompletedFrameworks) != 1 || found.CompletedFrameworks[0].UnregisteredTime == nil {
		t.Errorf("frameworks %v", found)
	}
}
