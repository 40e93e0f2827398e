package mesos

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gogo/protobuf/proto"
	mesosgo "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/master"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"

	"github.com/mesos-dvdi/dvdi/framework/core"
)

// serveAgents answers GET_AGENTS.
func serveAgents(t *testing.T, answer *master.Response) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		var call master.Call
		if err := proto.Unmarshal(body, &call); err != nil || call.Type != master.Call_GET_AGENTS {
			t.Errorf("call %v, error %v", call.Type, err)
		}
		writeMessage(t, w, answer)
	}
}

func TestAgentIsRemovedOnlyIfTheMasterHasItNowhere(t *testing.T) {
	c, m := subscribedConn(t)
	answer := agentsAnswer(t)
	answer.GetAgents.RecoveredAgents = append(answer.GetAgents.RecoveredAgents, mesosgo.AgentInfo{
		Hostname: "late", ID: &mesosgo.AgentID{Value: "expected-back"}})
	m.operator = serveAgents(t, answer)
	registered := answer.GetAgents.Agents[0].AgentInfo.ID.Value
	for id, want := range map[string]bool{registered: false, "expected-back": false, "gone": true} {
		got, err := c.AgentRemoved(testContext(t), id)
		if err != nil || got != want {
			t.Errorf("%s: removed %v, error %v, want %v", id, got, err, want)
		}
	}
}

func TestDoubtAboutAnAgentIsAnError(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"unauthenticated": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "", http.StatusUnauthorized) },
		"forbidden":       func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) },
		"no leader":       func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "", http.StatusServiceUnavailable) },
		"other answer": func(w http.ResponseWriter, _ *http.Request) {
			writeMessage(t, w, &master.Response{Type: master.Response_GET_HEALTH})
		},
		"empty":     func(http.ResponseWriter, *http.Request) {},
		"no answer": func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) },
		"garbage":   func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "\xff\xff") },
		"too large": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, strings.Repeat("x", 2048)) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newUnstartedMaster(t, func(_ int, s *stream) { s.accept(); s.hold() })
			m.operator = answer
			config := testConfig(t, m.start(t).URL)
			config.MaxFrame = 1024
			c := run(t, config, "")
			expect[core.Subscribed](c)
			removed, err := c.AgentRemoved(testContext(t), "a1")
			if err == nil || removed || !strings.Contains(err.Error(), "a1") {
				t.Errorf("removed %v, error %v", removed, err)
			}
			var refusal *core.CallError
			if name == "forbidden" && (!errors.As(err, &refusal) || refusal.Call != "GET_AGENTS" || refusal.Body != "no") {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestRolesAreUpdatedInPlace(t *testing.T) {
	c, m := subscribedConn(t)
	m.answer = func(w http.ResponseWriter, _ *http.Request, call *scheduler.Call) {
		if call.Type == scheduler.Call_UPDATE_FRAMEWORK {
			w.WriteHeader(http.StatusOK) // as the real master answers this one
			return
		}
		w.WriteHeader(http.StatusAccepted)
	}
	// All of what is suppressed stays so, but for roles that are left.
	for _, err := range []error{
		c.UpdateRoles(testContext(t), []string{"a", "b", "c"}),
		c.Suppress(testContext(t), nil),
		c.Revive(testContext(t), []string{"b"}),
		c.UpdateRoles(testContext(t), []string{"a", "b", "d"}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := m.nextCall(t).call.UpdateFramework; len(got.SuppressedRoles) != 0 || strings.Join(got.FrameworkInfo.Roles, " ") != "a b c" {
		t.Errorf("first update %v", got)
	}
	m.nextCall(t)
	m.nextCall(t)
	got := m.nextCall(t).call.UpdateFramework
	if strings.Join(got.SuppressedRoles, " ") != "a" || strings.Join(got.FrameworkInfo.Roles, " ") != "a b d" ||
		got.FrameworkInfo.ID.GetValue() != testFrameworkID {
		t.Errorf("second update %v", got)
	}
	if n := len(m.subscriptions()); n != 1 {
		t.Errorf("%d subscriptions", n)
	}
}

func TestNewSubscriptionBeginsWithNoRoleSuppressed(t *testing.T) {
	suppressed := make(chan struct{})
	m := newScriptedMaster(t, func(n int, s *stream) {
		s.accept()
		if n == 1 {
			<-suppressed
			return
		}
		s.hold()
	})
	c := run(t, testConfig(t, m.URL), "")
	expect[core.Subscribed](c)
	if err := c.Suppress(testContext(t), nil); err != nil {
		t.Fatal(err)
	}
	m.nextCall(t)
	close(suppressed)
	expect[core.Disconnected](c)
	expect[core.Subscribed](c)
	if err := c.UpdateRoles(testContext(t), []string{"dvdi", "new"}); err != nil {
		t.Fatal(err)
	}
	if got := m.nextCall(t).call.UpdateFramework.SuppressedRoles; len(got) != 0 {
		t.Errorf("suppressed roles %v", got)
	}
}

func TestRolesAreUpdatedByResubscribingWithAnOldMaster(t *testing.T) {
	m := newScriptedMaster(t, func(_ int, s *stream) { s.accept(); s.hold() })
	config := testConfig(t, m.URL)
	config.MinBackoff, config.MaxBackoff = time.Hour, time.Hour // no pause, or the test fails
	c := run(t, config, "")
	expect[core.Subscribed](c)
	m.answer = func(w http.ResponseWriter, _ *http.Request, _ *scheduler.Call) {
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, "Failed to validate scheduler::Call: Expecting 'type' to be present")
	}
	if err := c.UpdateRoles(testContext(t), []string{"new"}); err != nil {
		t.Fatal(err)
	}
	if e := expect[core.Disconnected](c); !errors.Is(e.Cause, errRolesChanged) {
		t.Errorf("cause %v", e.Cause)
	}
	expect[core.Subscribed](c)
	if got := m.subscriptions()[1].call.Subscribe.FrameworkInfo.Roles; len(got) != 1 || got[0] != "new" {
		t.Errorf("roles %v", got)
	}
}

func TestRefusedRolesAreForgotten(t *testing.T) {
	drop := make(chan struct{})
	m := newScriptedMaster(t, func(n int, s *stream) {
		s.accept()
		if n == 1 {
			<-drop
			return
		}
		s.hold()
	})
	m.answer = func(w http.ResponseWriter, _ *http.Request, _ *scheduler.Call) {
		http.Error(w, "not authorized to use role 'new'", http.StatusForbidden)
	}
	c := run(t, testConfig(t, m.URL), "")
	expect[core.Subscribed](c)
	var refusal *core.CallError
	if err := c.UpdateRoles(testContext(t), []string{"dvdi", "new"}); !errors.As(err, &refusal) {
		t.Fatalf("error %v", err)
	}
	close(drop)
	expect[core.Disconnected](c)
	expect[core.Subscribed](c)
	if got := m.subscriptions()[1].call.Subscribe.FrameworkInfo.Roles; len(got) != 1 || got[0] != "dvdi" {
		t.Errorf("roles %v of the next subscription", got)
	}
}

func TestRolesChangedWithoutASubscriptionAreThoseOfTheNext(t *testing.T) {
	first := make(chan struct{})
	m := newScriptedMaster(t, func(n int, s *stream) {
		if n == 1 {
			<-first
			http.Error(s, "", http.StatusServiceUnavailable)
			return
		}
		s.accept()
		s.hold()
	})
	c := run(t, testConfig(t, m.URL), "")
	eventually(t, "SUBSCRIBE", func() bool { return len(m.subscriptions()) == 1 })
	if err := c.UpdateRoles(testContext(t), []string{"other"}); err != nil {
		t.Fatal(err)
	}
	close(first)
	expect[core.Subscribed](c)
	if got := m.subscriptions()[1].call.Subscribe.FrameworkInfo.Roles; len(got) != 1 || got[0] != "other" {
		t.Errorf("roles %v", got)
	}
}

func TestUnreachableTasksOfThisFrameworkOnly(t *testing.T) {
	c, m := subscribedConn(t)
	task := func(id, framework string) mesosgo.Task {
		return mesosgo.Task{Name: id, TaskID: mesosgo.TaskID{Value: id}, FrameworkID: mesosgo.FrameworkID{Value: framework},
			AgentID: mesosgo.AgentID{Value: "a1"}, State: mesosgo.TASK_UNREACHABLE.Enum()}
	}
	visible := []master.Response_GetFrameworks_Framework{
		{FrameworkInfo: mesosgo.FrameworkInfo{ID: &mesosgo.FrameworkID{Value: "another"}}},
		{FrameworkInfo: mesosgo.FrameworkInfo{ID: &mesosgo.FrameworkID{Value: testFrameworkID}}},
	}
	m.operator = func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		call := &master.Call{}
		if err := errors.Join(err, proto.Unmarshal(body, call)); err != nil {
			t.Error(err)
		}
		if call.Type == master.Call_GET_FRAMEWORKS {
			writeMessage(t, w, &master.Response{Type: master.Response_GET_FRAMEWORKS,
				GetFrameworks: &master.Response_GetFrameworks{Frameworks: visible}})
			return
		}
		writeMessage(t, w, &master.Response{Type: master.Response_GET_TASKS, GetTasks: &master.Response_GetTasks{
			Tasks:            []mesosgo.Task{task("runs", testFrameworkID)},
			UnreachableTasks: []mesosgo.Task{task("cut-off", testFrameworkID), task("other", "another")},
		}})
	}
	got, err := c.UnreachableTasks(testContext(t))
	if err != nil || len(got) != 1 || got[0].TaskID != "cut-off" || got[0].AgentID != "a1" || got[0].State != "TASK_UNREACHABLE" {
		t.Errorf("got %+v, %v", got, err)
	}
	visible = visible[:1]
	if got, err := c.UnreachableTasks(testContext(t)); err == nil || !strings.Contains(err.Error(), "ACLs") {
		t.Errorf("a master that hides our framework is taken for %v, %v", got, err)
	}
	m.operator = func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) }
	if got, err := c.UnreachableTasks(testContext(t)); err == nil {
		t.Errorf("a refusal is taken for %v", got)
	}
}
