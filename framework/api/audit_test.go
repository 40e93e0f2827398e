package api

import (
	"encoding/base64"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

const (
	auditedUser = "ops"
	auditedPass = "correct horse"
)

// mutations are calls that change something, in an order in which each is
// accepted; a secret stands in every body that may hold one.
var mutations = []struct{ method, path, body string }{
	{"POST", "/v2/apps", `{"id":"/a","cmd":"x","env":{"PASSWORD":"hunter2"}}`},
	{"PUT", "/v2/apps", `[{"id":"/a","env":{"PASSWORD":"hunter2"},"cmd":"y"}]`},
	{"PATCH", "/v2/apps", `[{"id":"/a","cmd":"z"}]`},
	{"PUT", "/v2/apps/a", `{"env":{"PASSWORD":"hunter2"}}`},
	{"PATCH", "/v2/apps/a", `{"cmd":"x"}`},
	{"POST", "/v2/apps/a/restart", ``},
	{"DELETE", "/v2/apps/a/tasks?host=h", ``},
	{"DELETE", "/v2/apps/a/tasks/a.instance-1._app.1", ``},
	{"POST", "/v2/tasks/delete", `{"ids":["a.instance-2._app.1"]}`},
	{"POST", "/v2/tasks/delete?scale=true", `{"ids":["a.instance-2._app.1"]}`},
	{"DELETE", "/v2/queue/a/delay", ``},
	{"POST", "/v2/groups", `{"id":"/g","apps":[{"id":"b","cmd":"x","env":{"PASSWORD":"hunter2"}}]}`},
	{"PUT", "/v2/groups/g", `{"scaleBy":2}`},
	{"DELETE", "/v2/groups/g", ``},
	{"POST", "/v2/groups/k", `{"apps":[{"id":"b","cmd":"x"}]}`},
	{"PUT", "/v2/groups", `{"groups":[{"id":"/k","apps":[{"id":"b","cmd":"x"}]}],"apps":[{"id":"/a","cmd":"x"}]}`},
	{"DELETE", "/v2/deployments/d1", ``},
	{"DELETE", "/v2/deployments/d2?force=true", ``},
	{"PUT", "/v2/volumes/d/v/claim", `{"app":"/a","agentId":"S1","hostname":"h1","taskId":"t"}`},
	{"DELETE", "/v2/volumes/d/v/claim?force=true", ``},
	{"DELETE", "/v2/volumes/d/old/removal", ``},
	{"POST", "/logging", `{"level":"info","logger":"ROOT"}`},
	{"DELETE", "/v2/apps/a", ``},
	{"DELETE", "/v2/groups", ``},
	{"DELETE", "/v2/leader", ``},
}

// TestEveryMutationIsAudited: one entry each with who, from where, what and
// which deployment; none for what only looks or is refused; never a secret.
func TestEveryMutationIsAudited(t *testing.T) {
	zc, logs := observer.New(zapcore.DebugLevel)
	cfg := everything()
	cfg.User, cfg.Password, cfg.Abdicate = auditedUser, auditedPass, func() {}
	f := newFake()
	srv := httptest.NewServer(New(cfg, f, zap.New(zc)))
	t.Cleanup(srv.Close)
	t.Cleanup(srv.Client().CloseIdleConnections)
	w := &wire{t: t, core: f, srv: srv}
	call := func(method, path, body string) answer {
		return w.do(method, path, body, "Authorization", basic(auditedUser, auditedPass), "X-Forwarded-For", "192.0.2.7")
	}
	f.tasks["/a"] = []core.TaskView{{ID: "a.instance-1._app.1", AppID: "/a", Host: "h"}, {ID: "a.instance-2._app.1", AppID: "/a", Host: "h"}}
	f.removals = []core.RemovalView{{Key: scheduler.VolumeKey{Driver: "d", Name: "old"}}}

	for _, m := range mutations {
		switch {
		case strings.HasPrefix(m.path, "/v2/queue"):
			f.queue = []core.QueueView{{App: f.current()["/a"]}}
		case strings.HasPrefix(m.path, "/v2/deployments"):
			f.deployments = []core.DeploymentView{{ID: "d1"}, {ID: "d2"}}
		}
		before := logs.FilterMessage("change accepted").Len()
		if a := call(m.method, m.path, m.body); a.status >= 300 {
			t.Fatalf("%s %s: %d %s", m.method, m.path, a.status, a.body)
		}
		entries := logs.FilterMessage("change accepted").All()[before:]
		if len(entries) != 1 {
			t.Fatalf("%s %s: %d entries in the audit log", m.method, m.path, len(entries))
		}
		e, fields := entries[0], entries[0].ContextMap()
		if e.LoggerName != AuditLogger || fields["user"] != auditedUser || fields["client"] != "127.0.0.1" || fields["forwarded_for"] != "192.0.2.7" ||
			fields["method"] != m.method || fields["uri"] != m.path {
			t.Errorf("%s %s: %s %v", m.method, m.path, e.LoggerName, fields)
		}
		if starts := !strings.Contains(m.path, "tasks") && !strings.Contains(m.path, "queue") && !strings.Contains(m.path, "volumes") && !strings.Contains(m.path, "leader") && m.path != "/logging" &&
			!strings.Contains(m.path, "force"); starts && fields["deployment"] == "" {
			t.Errorf("%s %s: no deployment in %v", m.method, m.path, fields)
		}
	}

	before := logs.FilterMessage("change accepted").Len()
	for _, m := range [][3]string{{"GET", "/v2/apps", ""}, {"POST", "/v2/apps", `{"id":"/A"}`}, {"DELETE", "/v2/apps/nope", ""},
		{"PUT", "/v2/groups?dryRun=true", `{"apps":[{"id":"/c","cmd":"x"}]}`}, {"DELETE", "/v2/volumes/d/v/claim", ""}} {
		call(m[0], m[1], m[2])
	}
	w.do("DELETE", "/v2/groups", "", "Authorization", basic(auditedUser, "wrong"))
	if n := logs.FilterMessage("change accepted").Len() - before; n != 0 {
		t.Errorf("%d entries for what changed nothing", n)
	}
	for _, e := range logs.All() {
		text, err := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()).EncodeEntry(e.Entry, e.Context)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"hunter2", auditedPass, strings.TrimPrefix(basic(auditedUser, auditedPass), "Basic ")} {
			if strings.Contains(text.String(), secret) {
				t.Errorf("%q in the log: %s", secret, text)
			}
		}
	}
}

// Without credentials a name that a client makes up is not taken for a user.
func TestAuditDoesNotBelieveUncheckedNames(t *testing.T) {
	zc, logs := observer.New(zapcore.InfoLevel)
	f := newFake()
	srv := httptest.NewServer(New(everything(), f, zap.New(zc)))
	t.Cleanup(srv.Close)
	t.Cleanup(srv.Client().CloseIdleConnections)
	w := &wire{t: t, core: f, srv: srv}
	w.do("POST", "/v2/apps", `{"id":"/a","cmd":"x"}`, "Authorization", basic("root", "x"))
	all := logs.FilterMessage("change accepted").All()
	if len(all) != 1 || all[0].ContextMap()["user"] != "" {
		t.Errorf("%v", all)
	}
}

// The table above holds every route that changes something.
func TestNoMutationIsMissingFromTheAuditTest(t *testing.T) {
	s := &server{}
	tried := map[string]bool{}
	for _, m := range mutations {
		path, _, _ := strings.Cut(m.path, "?")
		for _, rt := range s.table() {
			if rt.match(segments(path)) != nil {
				tried[m.method+" "+rt.pattern] = true
				break
			}
		}
	}
	for _, rt := range s.table() {
		for method, h := range map[string]handler{"POST": rt.methods.post, "PUT": rt.methods.put, "PATCH": rt.methods.patch, "DELETE": rt.methods.del} {
			if method+" "+rt.pattern == "PATCH /v2/groups/{id...}" {
				continue // accepts what is so already, and changes nothing
			}
			if h != nil && !tried[method+" "+rt.pattern] {
				t.Errorf("%s %s", method, rt.pattern)
			}
		}
	}
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}
