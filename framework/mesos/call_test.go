package mesos

import (
	"errors"
	"net/http"
	"reflect"
	"testing"
	"time"

	mesosgo "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
	placement "github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// subscribedConn is a connection with a subscription, and its master.
func subscribedConn(t *testing.T) (*testConn, *scriptedMaster) {
	t.Helper()
	m := newScriptedMaster(t, func(_ int, s *stream) { s.accept(); s.hold() })
	c := run(t, testConfig(t, m.URL), "")
	expect[core.Subscribed](c)
	return c, m
}

func framework() *mesosgo.FrameworkID { return &mesosgo.FrameworkID{Value: testFrameworkID} }

func TestCallsOnTheWire(t *testing.T) {
	c, m := subscribedConn(t)
	agent := &mesosgo.AgentID{Value: "a1"}
	tests := []struct {
		name string
		do   func() error
		want *scheduler.Call
	}{
		{"decline", func() error { return c.Decline(testContext(t), []string{"o1", "o2"}, 90*time.Second) },
			&scheduler.Call{Type: scheduler.Call_DECLINE, Decline: &scheduler.Call_Decline{
				OfferIDs: []mesosgo.OfferID{{Value: "o1"}, {Value: "o2"}},
				Filters:  &mesosgo.Filters{RefuseSeconds: pointer(90.0)}}}},
		{"accept inverse offers", func() error {
			return c.AnswerInverseOffers(testContext(t), []string{"i1", "i2"}, true, time.Minute)
		}, &scheduler.Call{Type: scheduler.Call_ACCEPT_INVERSE_OFFERS, AcceptInverseOffers: &scheduler.Call_AcceptInverseOffers{
			InverseOfferIDs: []mesosgo.OfferID{{Value: "i1"}, {Value: "i2"}}, Filters: &mesosgo.Filters{RefuseSeconds: pointer(60.0)}}}},
		{"decline an inverse offer", func() error {
			return c.AnswerInverseOffers(testContext(t), []string{"i1"}, false, time.Minute)
		}, &scheduler.Call{Type: scheduler.Call_DECLINE_INVERSE_OFFERS, DeclineInverseOffers: &scheduler.Call_DeclineInverseOffers{
			InverseOfferIDs: []mesosgo.OfferID{{Value: "i1"}}, Filters: &mesosgo.Filters{RefuseSeconds: pointer(60.0)}}}},
		{"kill", func() error { return c.Kill(testContext(t), "t1", "a1", nil) },
			&scheduler.Call{Type: scheduler.Call_KILL, Kill: &scheduler.Call_Kill{
				TaskID: mesosgo.TaskID{Value: "t1"}, AgentID: agent}}},
		{"kill of unknown agent with grace", func() error { return c.Kill(testContext(t), "t1", "", pointer(3*time.Second)) },
			&scheduler.Call{Type: scheduler.Call_KILL, Kill: &scheduler.Call_Kill{
				TaskID:     mesosgo.TaskID{Value: "t1"},
				KillPolicy: &mesosgo.KillPolicy{GracePeriod: &mesosgo.DurationInfo{Nanoseconds: 3e9}}}}},
		{"acknowledge", func() error {
			return c.Acknowledge(testContext(t), core.Status{TaskID: "t1", AgentID: "a1", UUID: []byte{1, 2}})
		}, &scheduler.Call{Type: scheduler.Call_ACKNOWLEDGE, Acknowledge: &scheduler.Call_Acknowledge{
			TaskID: mesosgo.TaskID{Value: "t1"}, AgentID: *agent, UUID: []byte{1, 2}}}},
		{"acknowledge operation", func() error {
			return c.AcknowledgeOperation(testContext(t), core.OperationStatus{
				OperationID: "op", AgentID: "a1", ProviderID: "p", UUID: []byte{3}})
		}, &scheduler.Call{Type: scheduler.Call_ACKNOWLEDGE_OPERATION_STATUS,
			AcknowledgeOperationStatus: &scheduler.Call_AcknowledgeOperationStatus{
				AgentID: agent, ResourceProviderID: &mesosgo.ResourceProviderID{Value: "p"},
				UUID: []byte{3}, OperationID: mesosgo.OperationID{Value: "op"}}}},
		{"reconcile all", func() error { return c.Reconcile(testContext(t), nil) },
			&scheduler.Call{Type: scheduler.Call_RECONCILE, Reconcile: &scheduler.Call_Reconcile{}}},
		{"reconcile some", func() error {
			return c.Reconcile(testContext(t), []core.TaskRef{{TaskID: "t1", AgentID: "a1"}, {TaskID: "t2"}})
		}, &scheduler.Call{Type: scheduler.Call_RECONCILE, Reconcile: &scheduler.Call_Reconcile{
			Tasks: []scheduler.Call_Reconcile_Task{
				{TaskID: mesosgo.TaskID{Value: "t1"}, AgentID: agent}, {TaskID: mesosgo.TaskID{Value: "t2"}}}}}},
		{"suppress", func() error { return c.Suppress(testContext(t), []string{"dvdi"}) },
			&scheduler.Call{Type: scheduler.Call_SUPPRESS, Suppress: &scheduler.Call_Suppress{Roles: []string{"dvdi"}}}},
		{"revive", func() error { return c.Revive(testContext(t), nil) },
			&scheduler.Call{Type: scheduler.Call_REVIVE, Revive: &scheduler.Call_Revive{}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if err := test.do(); err != nil {
				t.Fatal(err)
			}
			got := m.nextCall(t)
			test.want.FrameworkID = framework()
			if diff := diffMessages(got.call, test.want); diff != "" {
				t.Error(diff)
			}
			if id := got.header.Get(streamIDHeader); id != "stream-1" {
				t.Errorf("stream id %q", id)
			}
		})
	}
}

func TestStatusWithoutUUIDIsNotAcknowledged(t *testing.T) {
	c, m := subscribedConn(t)
	for name, err := range map[string]error{
		"of the master": c.Acknowledge(testContext(t), core.Status{TaskID: "t", AgentID: "a"}),
		"operation":     c.AcknowledgeOperation(testContext(t), core.OperationStatus{OperationID: "op"}),
		"no id":         c.AcknowledgeOperation(testContext(t), core.OperationStatus{UUID: []byte{1}}),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(m.calls); n != 0 {
		t.Errorf("%d calls were sent", n)
	}
}

// TestRecordedOperationsSurviveTheRoundTrip sends what a real master accepted:
// each recorded ACCEPT is read into the core's types and sent again.
func TestRecordedOperationsSurviveTheRoundTrip(t *testing.T) {
	c, m := subscribedConn(t)
	_, calls := capture(t, "stateful-session.jsonl")
	seen := map[placement.OperationKind]int{}
	for _, recorded := range callsOfType(calls, scheduler.Call_ACCEPT) {
		accept := core.Accept{Refuse: 1 * time.Second}
		recorded.FrameworkID = framework()
		recorded.Accept.Filters = refuseFor(accept.Refuse)
		for _, id := range recorded.Accept.OfferIDs {
			accept.OfferIDs = append(accept.OfferIDs, id.Value)
		}
		kept := recorded.Accept.Operations[:0]
		for _, op := range recorded.Accept.Operations {
			kind, resources := operationResources(&op)
			if kind == 0 {
				continue // tasks are translated in other tests
			}
			seen[kind]++
			accept.Operations = append(accept.Operations, core.Operation{
				Kind: kind, ID: op.GetID().GetValue(), Resources: translated(t, resources),
			})
			kept = append(kept, op)
		}
		recorded.Accept.Operations = kept
		if err := c.Accept(testContext(t), accept); err != nil {
			t.Fatal(err)
		}
		if diff := diffMessages(m.nextCall(t).call, recorded); diff != "" {
			t.Error(diff)
		}
	}
	for _, kind := range []placement.OperationKind{placement.OpReserve, placement.OpCreate, placement.OpDestroy, placement.OpUnreserve} {
		if seen[kind] == 0 {
			t.Errorf("no operation of kind %d in the recording", kind)
		}
	}
}

func operationResources(op *mesosgo.Offer_Operation) (placement.OperationKind, []mesosgo.Resource) {
	switch op.Type {
	case mesosgo.Offer_Operation_RESERVE:
		return placement.OpReserve, op.Reserve.Resources
	case mesosgo.Offer_Operation_UNRESERVE:
		return placement.OpUnreserve, op.Unreserve.Resources
	case mesosgo.Offer_Operation_CREATE:
		return placement.OpCreate, op.Create.Volumes
	case mesosgo.Offer_Operation_DESTROY:
		return placement.OpDestroy, op.Destroy.Volumes
	}
	return 0, nil
}

func translated(t *testing.T, wire []mesosgo.Resource) []resource.Resource {
	t.Helper()
	var all []resource.Resource
	for i := range wire {
		r, err := fromWire(&wire[i])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

func TestLaunchNeverCarriesAnOperationID(t *testing.T) {
	c, m := subscribedConn(t)
	task := &core.Task{ID: "db.instance-1._app.1", AgentID: "a1", App: &app.App{ID: "/db", Cmd: "true"}}
	err := c.Accept(testContext(t), core.Accept{
		OfferIDs: []string{"o1"}, AgentID: "a1", Refuse: time.Second,
		Operations: []core.Operation{{Kind: placement.OpLaunch, ID: "launch-1", Task: task}},
	})
	if err != nil {
		t.Fatal(err)
	}
	op := m.nextCall(t).call.Accept.Operations[0]
	if op.Type != mesosgo.Offer_Operation_LAUNCH || op.ID != nil || len(op.Launch.TaskInfos) != 1 {
		t.Errorf("operation %+v", op)
	}
}

func TestTaskThatCannotBeSentIsRefusedBeforeAnythingIsSent(t *testing.T) {
	c, m := subscribedConn(t)
	task := &core.Task{ID: "t1", App: &app.App{ID: "/db", Cmd: "true", Ports: []app.PortDefinition{{}}}}
	err := c.Accept(testContext(t), core.Accept{Operations: []core.Operation{{Kind: placement.OpLaunch, Task: task}}})
	var invalid *core.InvalidTaskError
	if !errors.As(err, &invalid) || invalid.TaskID != "t1" {
		t.Errorf("error %v, want InvalidTaskError", err)
	}
	if len(m.calls) != 0 {
		t.Error("a call was sent")
	}
}

func TestRefusedCallIsATypedErrorWithTheMastersWords(t *testing.T) {
	c, m := subscribedConn(t)
	m.answer = func(w http.ResponseWriter, r *http.Request, call *scheduler.Call) {
		switch call.Type {
		case scheduler.Call_REVIVE:
			http.Error(w, "The stream ID 'x' included in this request didn't match the stream ID currently associated with framework ID f", http.StatusBadRequest)
		case scheduler.Call_SUPPRESS:
			http.Error(w, "", http.StatusServiceUnavailable)
		case scheduler.Call_KILL:
			w.Header().Set("Location", "//other:5050/master/api/v1/scheduler")
			w.WriteHeader(http.StatusTemporaryRedirect)
		case scheduler.Call_DECLINE:
			http.Error(w, "Framework is not subscribed", http.StatusForbidden)
		case scheduler.Call_ACCEPT:
			http.Error(w, "Framework cannot be found", http.StatusBadRequest)
		default:
			http.Error(w, "Not allowed", http.StatusForbidden)
		}
	}
	tests := []struct {
		name             string
		err              error
		want             core.CallError
		stale, temporary bool
	}{
		{"wrong stream id", c.Revive(testContext(t), nil), core.CallError{Call: "REVIVE", Status: 400,
			Body: "The stream ID 'x' included in this request didn't match the stream ID currently associated with framework ID f"}, true, false},
		{"no leader", c.Suppress(testContext(t), nil), core.CallError{Call: "SUPPRESS", Status: 503}, false, true},
		{"no longer leading", c.Kill(testContext(t), "t", "a", nil), core.CallError{Call: "KILL", Status: 307}, false, true},
		{"subscription ended", c.Decline(testContext(t), []string{"o"}, 0), core.CallError{Call: "DECLINE", Status: 403, Body: "Framework is not subscribed"}, false, true},
		{"another master", c.Accept(testContext(t), core.Accept{}), core.CallError{Call: "ACCEPT", Status: 400, Body: "Framework cannot be found"}, false, true},
		{"forbidden", c.Reconcile(testContext(t), nil), core.CallError{Call: "RECONCILE", Status: 403, Body: "Not allowed"}, false, false},
	}
	for _, test := range tests {
		var got *core.CallError
		if !errors.As(test.err, &got) || !reflect.DeepEqual(*got, test.want) {
			t.Errorf("%s: error %v, want %+v", test.name, test.err, test.want)
			continue
		}
		if got.Stale() != test.stale || got.Temporary() != test.temporary {
			t.Errorf("%s: stale %v, temporary %v", test.name, got.Stale(), got.Temporary())
		}
	}
}

func TestCallsFailAtOnceWithoutASubscription(t *testing.T) {
	list := testConfig(t, "127.0.0.1:5050")
	conn, err := New(list, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Revive(testContext(t), nil); !errors.Is(err, core.ErrNotSubscribed) {
		t.Errorf("error %v", err)
	}
	if _, err := conn.AgentRemoved(testContext(t), "a1"); !errors.Is(err, core.ErrNotSubscribed) {
		t.Errorf("error %v", err)
	}
}

func TestCallInFlightFailsWhenTheSubscriptionEnds(t *testing.T) {
	drop := make(chan struct{})
	m := newScriptedMaster(t, func(n int, s *stream) {
		s.accept()
		if n == 1 {
			<-drop
			return
		}
		s.hold()
	})
	m.answer = func(_ http.ResponseWriter, r *http.Request, _ *scheduler.Call) {
		close(drop)
		<-r.Context().Done() // never answered
	}
	c := run(t, testConfig(t, m.URL), "")
	expect[core.Subscribed](c)
	err := c.Revive(testContext(t), nil)
	var refusal *core.CallError
	if !errors.Is(err, errSubscriptionEnded) || errors.As(err, &refusal) || errors.Is(err, core.ErrNotSubscribed) {
		t.Errorf("error %v, want one that leaves the outcome open", err)
	}
	expect[core.Disconnected](c)
	expect[core.Subscribed](c)
}

func TestCallWithoutAnswerTimesOut(t *testing.T) {
	m := newScriptedMaster(t, func(_ int, s *stream) { s.accept(); s.hold() })
	m.answer = func(_ http.ResponseWriter, r *http.Request, _ *scheduler.Call) { <-r.Context().Done() }
	config := testConfig(t, m.URL)
	config.CallTimeout = 100 * time.Millisecond
	c := run(t, config, "")
	expect[core.Subscribed](c)
	if err := c.Revive(testContext(t), nil); !errors.Is(err, errCallTimeout) {
		t.Errorf("error %v", err)
	}
}

func TestTeardownEndsTheConnection(t *testing.T) {
	c, m := subscribedConn(t)
	if err := c.Teardown(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if got := m.nextCall(t).call; got.Type != scheduler.Call_TEARDOWN {
		t.Errorf("call %v", got)
	}
	if err := c.wait(); !errors.Is(err, core.ErrFrameworkRemoved) {
		t.Errorf("Run returned %v", err)
	}
	if n := len(m.subscriptions()); n != 1 {
		t.Errorf("%d subscriptions, want no attempt after the teardown", n)
	}
}

// TestTeardownSurvivesTheEndOfItsSubscription has the master end the stream
// before it answers, as the real one may.
func TestTeardownSurvivesTheEndOfItsSubscription(t *testing.T) {
	asked := make(chan struct{})
	m := newScriptedMaster(t, func(_ int, s *stream) { s.accept(); <-asked })
	disconnected := make(chan struct{})
	m.answer = func(w http.ResponseWriter, _ *http.Request, _ *scheduler.Call) {
		close(asked)
		<-disconnected
		w.WriteHeader(http.StatusAccepted)
	}
	config := testConfig(t, m.URL)
	config.MinBackoff, config.MaxBackoff = time.Hour, time.Hour
	c := run(t, config, "")
	expect[core.Subscribed](c)
	go func() {
		for e := range c.Events() {
			if _, ended := e.(core.Disconnected); ended {
				close(disconnected)
				return
			}
		}
	}()
	if err := c.Teardown(testContext(t)); err != nil {
		t.Error(err)
	}
	<-disconnected
	if err := c.wait(); !errors.Is(err, core.ErrFrameworkRemoved) {
		t.Errorf("Run returned %v", err)
	}
	if n := len(m.subscriptions()); n != 1 {
		t.Errorf("%d subscriptions, want no attempt after the teardown", n)
	}
	for _, entry := range c.logs.All() {
		if entry.Level > zap.InfoLevel {
			t.Errorf("logged at %s: %s", entry.Level, entry.Message)
		}
	}
}
