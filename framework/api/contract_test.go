package api

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
)

// detail returns the errors that an answer reports for a path, joined.
func (a answer) detail(path string) string {
	a.t.Helper()
	var p struct {
		Details []app.Detail `json:"details"`
	}
	if err := json.Unmarshal(a.body, &p); err != nil {
		a.t.Fatalf("%v in %s", err, a.body)
	}
	for _, d := range p.Details {
		if d.Path == path {
			return strings.Join(d.Errors, "\n")
		}
	}
	return ""
}

func (a answer) message() string {
	a.t.Helper()
	m, _ := a.at("message").(string)
	return m
}

// TestContractDefinitions posts every definition of the contract's section 10
// that breaks a rule by itself. They are shared with the tests of package app.
func TestContractDefinitions(t *testing.T) {
	data, err := os.ReadFile("../app/testdata/rules.json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []struct {
		Row                  string
		Body                 json.RawMessage
		Message, Path, Error string
		Options              *app.Options
	}
	if err := json.Unmarshal(data, &rows); err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		t.Run(row.Row, func(t *testing.T) {
			cfg := everything()
			if row.Options != nil {
				cfg.App = *row.Options
			}
			w := start(t, cfg)
			a := w.ok(422, "POST", "/v2/apps", string(row.Body))
			if a.message() != row.Message || !strings.Contains(a.detail(row.Path), row.Error) {
				t.Errorf("want %q at %s, got %s", row.Error, row.Path, a.body)
			}
			if len(w.core.changes) != 0 {
				t.Error("the definition reached the core")
			}
		})
	}
}

func persistent(size string) string {
	return `{"id":"/x","cmd":"sleep 100","container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW","persistent":{"size":` + size + `}}]}}`
}

func external(id string) string {
	return `{"id":"` + id + `","cmd":"sleep 100","container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW",
		"external":{"provider":"dvdi","name":"vol","options":{"dvdi/driver":"d"}}}]}}`
}

// TestContractRequests has the rows of the contract's section 10 that are not
// about one definition alone.
func TestContractRequests(t *testing.T) {
	const sleep = `{"id":"/x","cmd":"sleep 100"}`
	cases := []struct {
		row                string
		before             []string // definitions that are there already
		method, path, body string
		status             int
		message            string // part of it
		detailPath, detail string
		prepare            func(*fakeCore)
	}{
		{row: "1", method: "POST", path: "/v2/apps", body: `{"id":`, status: 400, message: "Invalid JSON"},
		{row: "2", method: "POST", path: "/v2/apps", status: 400, message: "Please specify data in JSON format"},
		{row: "48", before: []string{external("/a")}, method: "POST", path: "/v2/apps", body: external("/b"), status: 422, message: "Object is not valid",
			detailPath: "/apps(1)/container", detail: "Volume name 'vol' in /b conflicts with volume(s) of same name in app(s): /a"},
		{row: "62", before: []string{persistent("10")}, method: "PUT", path: "/v2/apps/x", body: `{"cpus":2}`, status: 422, message: "Object is not valid",
			detailPath: "/cpus", detail: "Services with persistent volumes configured may not change resource requirements. If you need to make this change, please create a new service."},
		{row: "63", before: []string{persistent("10")}, method: "PUT", path: "/v2/apps/x", body: persistent("20"), status: 422, message: "Object is not valid",
			detailPath: "/", detail: "Persistent volumes can not be changed!"},
		{row: "70", before: []string{sleep}, method: "POST", path: "/v2/apps", body: sleep, status: 409, message: "An app with id [/x] already exists."},
		{row: "71", before: []string{sleep}, method: "PUT", path: "/v2/apps/x", body: `{"cpus":2}`, status: 409, message: "App is locked by one or more deployments. Override with the option '?force=true'.",
			prepare: func(f *fakeCore) { f.deployments = []core.DeploymentView{{ID: "d", Apps: []app.ID{"/x"}}} }},
		{row: "72", before: []string{sleep}, method: "PUT", path: "/v2/apps/x", body: `{"version":"2026-01-02T03:04:06.000Z","cpus":1}`, status: 422, message: "Object is not valid",
			detailPath: "/", detail: "The 'version' field may only be combined with the 'id' field."},
		{row: "73", method: "GET", path: "/v2/apps/nope", status: 404, message: "App '/nope' does not exist"},
		{row: "73 delete", method: "DELETE", path: "/v2/apps/nope", status: 404, message: "App '/nope' does not exist"},
		{row: "73 impossible id", method: "GET", path: "/v2/apps/No_pe", status: 404, message: "App '/No_pe' does not exist"},
		{row: "74", before: []string{sleep}, method: "GET", path: "/v2/apps/x/versions/notatime", status: 422, message: "Invalid timestamp provided 'notatime'. Expecting ISO-8601 datetime string."},
		{row: "75", before: []string{sleep}, method: "DELETE", path: "/v2/apps/x/tasks?scale=true&wipe=true", status: 400, message: "You cannot use scale and wipe at the same time."},
		{row: "76", method: "GET", path: "/v2/apps?label=a=b((", status: 422, message: "Can not parse label selector a=b((. Reason:"},
		{row: "77", before: []string{`{"id":"/b","cmd":"x","dependencies":["/x"]}`}, method: "POST", path: "/v2/apps", body: `{"id":"/x","cmd":"x","dependencies":["/b"]}`, status: 422,
			message: "Object is not valid", detailPath: "/dependencies", detail: "Dependency graph has cyclic dependencies."},
		{row: "unknown route", method: "GET", path: "/v2/nothing", status: 404, message: "URI not found"},
		{row: "too large", method: "POST", path: "/v2/apps", body: `{"id":"` + strings.Repeat("a", 10<<20) + `"}`, status: 413, message: "larger than"},
		{row: "deep", method: "POST", path: "/v2/apps", body: strings.Repeat(`{"a":`, 10000), status: 400, message: "Invalid JSON"},
		{row: "deep array", method: "PUT", path: "/v2/apps", body: strings.Repeat(`[`, 10000), status: 400, message: "Invalid JSON"},
		{row: "duplicate key", method: "POST", path: "/v2/apps", body: `{"id":"/a","cmd":"x","cmd":"y"}`, status: 400, message: "Invalid JSON"},
		{row: "invalid UTF-8", method: "POST", path: "/v2/apps", body: "{\"id\":\"/a\",\"cmd\":\"\xff\"}", status: 400, message: "Invalid JSON"},
		{row: "not JSON", method: "PUT", path: "/v2/groups", body: "id: /a", status: 400, message: "Invalid JSON"},
	}
	for _, c := range cases {
		t.Run(c.row, func(t *testing.T) {
			w := start(t, everything())
			for _, def := range c.before {
				w.ok(201, "POST", "/v2/apps", def)
			}
			if c.prepare != nil {
				c.prepare(w.core)
			}
			a := w.ok(c.status, c.method, c.path, c.body)
			if !strings.Contains(a.message(), c.message) {
				t.Errorf("message %q, want %q", a.message(), c.message)
			}
			if c.detailPath != "" && !strings.Contains(a.detail(c.detailPath), c.detail) {
				t.Errorf("want %q at %s, got %s", c.detail, c.detailPath, a.body)
			}
			if got := a.header.Get("Content-Type"); got != "application/json" {
				t.Errorf("content type %q", got)
			}
		})
	}
}

func TestDetailsOfSyntaxErrorsAreText(t *testing.T) {
	w := start(t, everything())
	if d, ok := w.ok(400, "POST", "/v2/apps", `{"id":`).at("details").(string); !ok || d == "" {
		t.Errorf("details %q", d)
	}
}
