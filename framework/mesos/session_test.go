package mesos

import (
	"net/http"
	"reflect"
	"slices"
	"testing"
	"time"

	mesosgo "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"

	"github.com/mesos-dvdi/dvdi/framework/core"
	placement "github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// replay sends recorded events in one stream.
func replay(events []*scheduler.Event) func(int, *stream) {
	return func(_ int, s *stream) {
		s.Header().Set(streamIDHeader, s.id)
		s.WriteHeader(http.StatusOK)
		for _, e := range events {
			s.send(e)
		}
		s.hold()
	}
}

// callsOfType are the recorded calls of a type.
func callsOfType(calls []*scheduler.Call, kind scheduler.Call_Type) []*scheduler.Call {
	var all []*scheduler.Call
	for _, c := range calls {
		if c.Type == kind {
			all = append(all, c)
		}
	}
	return all
}

func TestRecordedSessionIsUnderstoodAndAcknowledgedAsRecorded(t *testing.T) {
	events, calls := capture(t, "stateful-session.jsonl")
	m := newScriptedMaster(t, replay(events))
	c := run(t, testConfig(t, m.URL), "")

	subscribed := expect[core.Subscribed](c)
	want := core.Subscribed{
		FrameworkID: "107c6105-505a-4b9c-987c-1e9cd1c3f346-0000", MasterID: "107c6105-505a-4b9c-987c-1e9cd1c3f346",
		MasterAddress: "localhost:5050", MasterVersion: "1.12.0", Region: "region-1",
		HeartbeatInterval: 15 * time.Second, StreamID: "stream-1", Roles: []string{"dvdi"},
	}
	if !reflect.DeepEqual(subscribed, want) {
		t.Errorf("subscribed %+v, want %+v", subscribed, want)
	}
	checkFirstOffers(t, expect[core.Offers](c))

	var got []*scheduler.Call
	count := map[string]int{}
	for range remaining(events, scheduler.Event_OFFERS, scheduler.Event_UPDATE, scheduler.Event_UPDATE_OPERATION_STATUS) - 1 {
		switch e := c.next().(type) {
		case core.Status:
			count[e.State]++
			if err := c.Acknowledge(testContext(t), e); err != nil {
				t.Fatal(err)
			}
			if len(e.UUID) > 0 {
				got = append(got, m.nextCall(t).call)
			}
			checkStatus(t, e)
		case core.OperationStatus:
			count[e.State]++
			if e.AgentID == "" || e.OperationID == "" || len(e.UUID) == 0 {
				t.Errorf("operation status %+v lacks what its acknowledgement needs", e)
			}
		}
	}
	wantAcks := callsOfType(calls, scheduler.Call_ACKNOWLEDGE)
	if len(got) != len(wantAcks) {
		t.Fatalf("%d acknowledgements, recorded were %d", len(got), len(wantAcks))
	}
	for i := range got {
		if diff := diffMessages(got[i], wantAcks[i]); diff != "" {
			t.Error(diff)
		}
	}
	for state, n := range map[string]int{"TASK_FINISHED": 3, "TASK_DROPPED": 1, "TASK_ERROR": 1, "TASK_UNKNOWN": 2, "TASK_GONE": 1} {
		if count[state] != n {
			t.Errorf("%d statuses %s, want %d", count[state], state, n)
		}
	}
}

func remaining(events []*scheduler.Event, kinds ...scheduler.Event_Type) int {
	n := 0
	for _, e := range events {
		if slices.Contains(kinds, e.Type) {
			n++
		}
	}
	return n
}

func checkFirstOffers(t *testing.T, offers core.Offers) {
	t.Helper()
	if len(offers.Offers) != 2 {
		t.Fatalf("%d offers", len(offers.Offers))
	}
	want := placement.Offer{
		ID:       "107c6105-505a-4b9c-987c-1e9cd1c3f346-O0",
		AgentID:  "107c6105-505a-4b9c-987c-1e9cd1c3f346-S1",
		Hostname: "agent2.test", Region: "region-1", Zone: "zone-2",
		Attributes: map[string]string{"rack": "r2", "dvdi": `http\://127.0.0.1\:9862`},
		Resources: []resource.Resource{
			{Name: "ports", Kind: resource.Ranges, Ranges: []resource.Range{{Begin: 32000, End: 32999}}, AllocatedRole: "dvdi"},
			{Name: "cpus", Kind: resource.Scalar, Scalar: 4000, AllocatedRole: "dvdi"},
			{Name: "mem", Kind: resource.Scalar, Scalar: 4096000, AllocatedRole: "dvdi"},
			{Name: "disk", Kind: resource.Scalar, Scalar: 10240000, AllocatedRole: "dvdi"},
			{Name: "disk", Kind: resource.Scalar, Scalar: 2048000, AllocatedRole: "dvdi",
				Disk: &resource.Disk{Source: resource.SourcePath, Root: "/var/lib/mesos-disks/a2/path1"}},
			{Name: "disk", Kind: resource.Scalar, Scalar: 512000, AllocatedRole: "dvdi",
				Disk: &resource.Disk{Source: resource.SourceMount, Root: "/var/lib/mesos-disks/a2/mount1"}},
		},
	}
	if !reflect.DeepEqual(offers.Offers[0], want) {
		t.Errorf("offer\n%+v, want\n%+v", offers.Offers[0], want)
	}
}

// checkStatus looks at one status of each kind more closely.
func checkStatus(t *testing.T, s core.Status) {
	t.Helper()
	switch {
	case s.TaskID == "db.1" && s.State == "TASK_RUNNING":
		if s.Source != "SOURCE_EXECUTOR" || s.Reason != "" || !slices.Equal(s.IPs, []string{"127.0.0.1"}) ||
			s.ContainerID != "3d83fa5b-d16b-41a3-82f1-4ee6dcd67dc5" || s.Time.UTC().Format(time.DateTime) != "2026-11-20 22:00:40" {
			t.Errorf("running status %+v", s)
		}
	case s.State == "TASK_DROPPED":
		if s.Source != "SOURCE_MASTER" || s.Reason != "REASON_INVALID_OFFERS" || len(s.UUID) != 0 || s.TaskID != "late.1" {
			t.Errorf("dropped status %+v", s)
		}
	}
}

func TestRecordedFailuresAndPartitionAreUnderstood(t *testing.T) {
	events, calls := capture(t, "partition-failover-session.jsonl")
	// One stream of the recording ends where the master was killed.
	second := slices.IndexFunc(events[1:], func(e *scheduler.Event) bool { return e.Type == scheduler.Event_SUBSCRIBED }) + 1
	streams := [][]*scheduler.Event{events[:second], events[second:]}
	m := newScriptedMaster(t, func(n int, s *stream) {
		if n == 1 {
			s.Header().Set(streamIDHeader, s.id)
			s.WriteHeader(http.StatusOK)
			for _, e := range streams[0] {
				s.send(e)
			}
			s.abort()
		}
		replay(streams[1])(n, s)
	})
	config := testConfig(t, m.URL)
	config.Name, config.User, config.FailoverTimeout = "capture", "root", 600*time.Second
	c := run(t, config, "")

	first := expect[core.Subscribed](c)
	var unreachable, back, healthy bool
	var failures []string
	var disconnected core.Disconnected
	for disconnected.Cause == nil {
		switch e := c.next().(type) {
		case core.Status:
			switch {
			case e.State == "TASK_UNREACHABLE":
				unreachable = e.Source == "SOURCE_MASTER" && e.Reason == "REASON_AGENT_REMOVED" && len(e.UUID) == 0
			case unreachable && e.State == "TASK_RUNNING":
				back = e.Reason == "REASON_AGENT_REREGISTERED" && len(e.UUID) == 0
				healthy = e.Healthy != nil && *e.Healthy
			}
		case core.Failure:
			failures = append(failures, e.AgentID)
		case core.Disconnected:
			disconnected = e
		}
	}
	if !unreachable || !back || !healthy || !slices.Equal(failures, []string{"3b3ad046-70e2-48ce-82f4-11c25ea01788-S0"}) {
		t.Errorf("unreachable %v, back %v, healthy %v, failures %v", unreachable, back, healthy, failures)
	}
	again := expect[core.Subscribed](c)
	if again.FrameworkID != first.FrameworkID || again.MasterID == first.MasterID || again.StreamID != "stream-2" {
		t.Errorf("second subscription %+v after %+v", again, first)
	}
	// Both SUBSCRIBE calls are those of the recording, but for the order of
	// capabilities, which has no meaning.
	recorded := callsOfType(calls, scheduler.Call_SUBSCRIBE)
	for i, r := range m.subscriptions() {
		sortCapabilities(r.call)
		sortCapabilities(recorded[i])
		if diff := diffMessages(withoutDefaults(r.call), withoutDefaults(recorded[i])); diff != "" {
			t.Error(diff)
		}
	}
}

func sortCapabilities(c *scheduler.Call) {
	slices.SortFunc(c.Subscribe.FrameworkInfo.Capabilities, func(a, b mesosgo.FrameworkInfo_Capability) int {
		return int(a.Type) - int(b.Type)
	})
}

// withoutDefaults drops the framework id that clients may leave out of one of
// the two places.
func withoutDefaults(c *scheduler.Call) *scheduler.Call {
	if c.FrameworkID != nil && c.FrameworkID.Value == "" {
		c.FrameworkID = nil
	}
	return c
}
