package mesos

import (
	"net/http"
	"testing"

	mesosgo "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/master"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"

	"github.com/mesos-dvdi/dvdi/framework/core"
)

// TestSubscriptionAsRegistered has a connection with other settings than those that
// the master knows the framework with.
func TestSubscriptionAsRegistered(t *testing.T) {
	known := mesosgo.FrameworkInfo{
		ID: &mesosgo.FrameworkID{Value: testFrameworkID}, Name: "known", User: "somebody", Roles: []string{"a", "b"},
		FailoverTimeout: pointer(42.0), Hostname: pointer("there"), WebUiURL: pointer("http://there"),
		Principal: pointer("another"), Capabilities: capabilities(true),
	}
	other := mesosgo.FrameworkInfo{ID: &mesosgo.FrameworkID{Value: "another"}, Name: "another"}
	shows := func(answer *master.Response_GetFrameworks) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			writeMessage(t, w, &master.Response{Type: master.Response_GET_FRAMEWORKS, GetFrameworks: answer})
		}
	}
	all := shows(&master.Response_GetFrameworks{Frameworks: []master.Response_GetFrameworks_Framework{{FrameworkInfo: other}, {FrameworkInfo: known}}})
	asked := 0
	for name, c := range map[string]struct {
		id       string
		operator http.HandlerFunc
		kept     bool
	}{
		"shown":     {testFrameworkID, all, true},
		"recovered": {testFrameworkID, shows(&master.Response_GetFrameworks{RecoveredFrameworks: []mesosgo.FrameworkInfo{known}}), true},
		"at the second attempt": {testFrameworkID, func(w http.ResponseWriter, r *http.Request) {
			if asked++; asked == 1 {
				http.Error(w, "", http.StatusServiceUnavailable)
				return
			}
			all(w, r)
		}, true},
		"hidden":        {testFrameworkID, shows(&master.Response_GetFrameworks{Frameworks: []master.Response_GetFrameworks_Framework{{FrameworkInfo: other}}}), false},
		"removed":       {testFrameworkID, shows(&master.Response_GetFrameworks{CompletedFrameworks: []master.Response_GetFrameworks_Framework{{FrameworkInfo: known}}}), false},
		"refused":       {testFrameworkID, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) }, false},
		"not yet known": {"", func(http.ResponseWriter, *http.Request) { t.Error("asked for a framework without an id") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			m := newUnstartedMaster(t, func(_ int, s *stream) { s.accept(); s.hold() })
			m.operator = c.operator
			config := testConfig(t, m.start(t).URL)
			config.AsRegistered = true
			conn := run(t, config, c.id)
			expect[core.Subscribed](conn)
			want := conn.frameworkInfo()
			if c.kept {
				kept := known
				kept.Principal = pointer("dvdi-principal")
				want = &kept
			} else if c.id == "" {
				want.ID = nil
			}
			if diff := diffMessages(m.subscriptions()[0].call.Subscribe.FrameworkInfo, want); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestRegisteredRolesThatAreRefused has a master that shows roles which it does not
// allow any more.
func TestRegisteredRolesThatAreRefused(t *testing.T) {
	known := mesosgo.FrameworkInfo{ID: &mesosgo.FrameworkID{Value: testFrameworkID}, Name: "known", Roles: []string{"dvdi", "late"}}
	m := newUnstartedMaster(t, func(n int, s *stream) {
		if n == 1 {
			s.WriteHeader(http.StatusOK)
			s.send(&scheduler.Event{Type: scheduler.Event_ERROR, Error: &scheduler.Event_Error{Message: "Roles { late } are not present in the master's --roles"}})
			return
		}
		s.accept()
		s.hold()
	})
	m.operator = func(w http.ResponseWriter, _ *http.Request) {
		writeMessage(t, w, &master.Response{Type: master.Response_GET_FRAMEWORKS, GetFrameworks: &master.Response_GetFrameworks{
			Frameworks: []master.Response_GetFrameworks_Framework{{FrameworkInfo: known}}}})
	}
	config := testConfig(t, m.start(t).URL)
	config.AsRegistered = true
	c := run(t, config, testFrameworkID)
	expect[core.MasterError](c)
	expect[core.Subscribed](c)
	got := m.subscriptions()[1].call.Subscribe.FrameworkInfo
	if got.Name != "known" || len(got.Roles) != 1 || got.Roles[0] != "dvdi" {
		t.Errorf("subscribed as %v", got)
	}
}
