package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/internal/bubbletest"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixed is a core whose state never changes. Other methods than those that
// metrics need are not there.
type fixed struct {
	core.Service
	events chan core.BusEvent
	err    error
}

func (f *fixed) Info() core.Info { return core.Info{Connected: true} }

func (f *fixed) Apps(context.Context) ([]core.AppView, error) {
	return []core.AppView{
		{App: &app.App{ID: "/a", Instances: 2}, Running: 2, Healthy: 1, Tasks: []core.TaskView{{State: "TASK_RUNNING"}, {State: "TASK_RUNNING"}}},
		{App: &app.App{ID: "/g/h/b", Instances: 3}, Staged: 1, Tasks: []core.TaskView{{State: "TASK_STAGING"}}},
	}, f.err
}

func (f *fixed) Queue(context.Context) ([]core.QueueView, error) {
	return []core.QueueView{{Count: 2, Delay: 1}}, f.err
}

func (f *fixed) Deployments(context.Context) ([]core.DeploymentView, error) {
	return make([]core.DeploymentView, 4), f.err
}

func (f *fixed) Claims(context.Context) ([]core.ClaimView, error) {
	c := core.ClaimView{Claim: scheduler.Claim{Key: scheduler.VolumeKey{Driver: "d"}, State: scheduler.Lost}}
	return []core.ClaimView{c, c}, f.err
}

func (f *fixed) Removals(context.Context) ([]core.RemovalView, error) {
	return []core.RemovalView{{Key: scheduler.VolumeKey{Driver: "d", Name: "old"}}}, f.err
}

func (f *fixed) Leftovers(context.Context) ([]core.LeftoverView, error) {
	return []core.LeftoverView{{InstanceID: "a", Bytes: 1024}, {InstanceID: "b", Bytes: 512}}, f.err
}

func (f *fixed) Subscribe(context.Context, int) <-chan core.BusEvent { return f.events }

func text(t *testing.T, m *Metrics) string {
	t.Helper()
	srv := httptest.NewServer(m.Prometheus())
	defer srv.Close()
	resp, err := http.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %v: %s", resp.Status, err, b)
	}
	return string(b)
}

func TestStateForPrometheus(t *testing.T) {
	out := text(t, New(&fixed{}, "1.2", zaptest.NewLogger(t)))
	for _, want := range []string{
		`dvdi_build_info{version="1.2"} 1`, "dvdi_mesos_connected 1", "dvdi_leader 0", "dvdi_apps 2", "dvdi_groups 3",
		"dvdi_instances_wanted 5", `dvdi_instances{condition="running"} 2`, `dvdi_instances{condition="staged"} 1`,
		`dvdi_instances{condition="healthy"} 1`, `dvdi_instances{condition="unhealthy"} 0`,
		`dvdi_tasks{state="TASK_RUNNING"} 2`, `dvdi_tasks{state="TASK_STAGING"} 1`, "dvdi_instances_queued 2",
		"dvdi_apps_delayed 1", "dvdi_deployments 4", `dvdi_volume_claims{driver="d",state="lost"} 2`, `dvdi_volume_claims{driver="d",state="removing"} 1`,
		"dvdi_leftovers 2", "dvdi_leftover_bytes 1536",
	} {
		if !strings.Contains(out, "\n"+want+"\n") {
			t.Errorf("no line %q in\n%s", want, out)
		}
	}
}

func TestCoreThatDoesNotAnswer(t *testing.T) {
	m := New(&fixed{err: errors.New("stopped")}, "1.2", zaptest.NewLogger(t))
	out := text(t, m)
	if !strings.Contains(out, "dvdi_mesos_connected 1") || strings.Contains(out, "dvdi_apps 2") {
		t.Errorf("what can be measured is not left alone:\n%s", out)
	}
	if d, err := m.Marathon(); err == nil || d.Gauges["dvdi_mesos_connected"].Value != 1 {
		t.Errorf("error %v, %+v", err, d.Gauges)
	}
}

func TestEvents(t *testing.T) {
	bubbletest.Test(t, func(t *testing.T) {
		f := &fixed{events: make(chan core.BusEvent)}
		m := New(f, "1.2", zaptest.NewLogger(t))
		done := make(chan struct{})
		go func() {
			defer close(done)
			m.Run(t.Context())
		}()
		status := func(s string) core.BusEvent {
			return core.BusEvent{Type: "status_update_event", Data: map[string]any{"taskStatus": s}}
		}
		for _, ev := range []core.BusEvent{
			status("TASK_RUNNING"), status("TASK_FAILED"), status("TASK_RUNNING"), {Type: "instance_placed_event"},
			{Type: "deployment_success"}, {Type: "deployment_failed"}, {Type: "unhealthy_instance_kill_event"},
			{Type: "deprecation_event"}, {Type: "group_change_success"},
		} {
			f.events <- ev
		}
		close(f.events)
		<-done
		d, err := m.Marathon()
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]float64{
			"marathon.mesos.task-updates.task-running.counter": 2, "marathon.mesos.task-updates.task-failed.counter": 1,
			"marathon.tasks.launched.counter": 1, "dvdi_deployments_ended_total.success": 1,
			"dvdi_deployments_ended_total.failed": 1, "dvdi_unhealthy_kills_total": 1,
			"dvdi_deprecated_definitions_total": 1, "dvdi_metrics_interruptions_total": 1,
		} {
			if got := d.Counters[name].Count; got != want {
				t.Errorf("%s is %v, want %v", name, got, want)
			}
		}
	})
}

func TestMarathonsForm(t *testing.T) {
	m := New(&fixed{}, "1.2", zaptest.NewLogger(t))
	for range 100 {
		m.Started()("GET", "/v2/apps", 200)
	}
	m.Started()("GET", "", 200)
	m.Started()("GET", "/v2/apps/{id...}/*", 404)
	m.count("status_update_event", map[string]any{"taskStatus": "TASK_RUNNING"})
	d, err := m.Marathon()
	if err != nil {
		t.Fatal(err)
	}
	if d.Gauges["marathon.apps.active.gauge"].Value != 2 || d.Gauges["marathon.instances.running.gauge"].Value != 2 ||
		d.Gauges["marathon.http.requests.active.gauge"].Value != 0 {
		t.Errorf("gauges %+v", d.Gauges)
	}
	if d.Gauges["marathon.uptime.gauge.seconds"].Value <= 0 || d.Counters["marathon.mesos.task-updates.task-running.counter"].Count != 1 {
		t.Errorf("uptime %+v, updates %+v", d.Gauges, d.Counters)
	}
	// Collectors put these names into Prometheus' form by replacing dots and
	// hyphens; what is left must be allowed there.
	allowed := regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_.-]*$`)
	for name := range d.Timers {
		if !allowed.MatchString(name) {
			t.Errorf("name %q", name)
		}
	}
	timer := d.Timers["dvdi_http_request_duration_seconds.200.GET._v2_apps"]
	if timer.Count != 100 || timer.P50 <= 0 || timer.P50 > timer.P999 || timer.Rate <= 0 || timer.RateUnits == "" {
		t.Errorf("timers %+v", d.Timers)
	}
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]any
	if err := json.Unmarshal(b, &members); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"version", "counters", "gauges", "histograms", "meters", "timers"} {
		if members[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
}
