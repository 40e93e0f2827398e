package core

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

// fakeChecker answers checks as the test says.
type fakeChecker struct {
	mu      sync.Mutex // guards targets
	targets []CheckTarget
	results chan CheckOutcome
}

func newFakeChecker() *fakeChecker { return &fakeChecker{results: make(chan CheckOutcome)} }

func (f *fakeChecker) Sync(targets []CheckTarget) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.targets = slices.Clone(targets)
}
func (f *fakeChecker) Results() <-chan CheckOutcome { return f.results }
func (f *fakeChecker) Close()                       {}

func (f *fakeChecker) current() []CheckTarget {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.targets)
}

// answer gives every current check the same result.
func (f *fakeChecker) answer(ok bool) {
	for _, t := range f.current() {
		o := CheckOutcome{Key: t.Key, OK: ok, Status: 200}
		if !ok {
			o.Cause, o.Status = "connection refused", 503
		}
		f.results <- o
	}
}

// withChecker restarts the core with a checker of the test's own.
func (r *rig) withChecker() *fakeChecker {
	r.t.Helper()
	f := newFakeChecker()
	if err := r.halt(); err != nil {
		r.t.Fatal(err)
	}
	r.cfg.Checker = f
	r.start()
	return f
}

const checked = `{"id":"/web","cmd":"serve","cpus":1,"mem":64,
	"healthChecks":[{"protocol":"HTTP","path":"/ok","gracePeriodSeconds":60,"intervalSeconds":5,"maxConsecutiveFailures":2,"delaySeconds":3}]}`

func TestDeploymentWaitsForHealth(t *testing.T) {
	inBubble(t, []string{"host"}, func(t *testing.T, r *rig) {
		f := r.withChecker()
		r.post(checked)
		task := r.running("/web")
		r.until("checked", func() bool { return len(f.current()) == 1 })
		target := f.current()[0]
		if target.URL != fmt.Sprintf("http://host:%d/ok", task.Ports[0]) || target.Interval != 5*time.Second ||
			!target.Start.Equal(task.StartedAt.Add(3*time.Second)) {
			t.Fatalf("target: %+v", target)
		}
		f.answer(false) // within the grace period: says nothing
		r.pass(time.Second)
		v := r.app("/web")
		if len(v.Deployments) != 1 || v.Healthy+v.Unhealthy != 0 {
			t.Fatalf("before the first success: %+v", v)
		}
		f.answer(true)
		r.idle()
		if v := r.app("/web"); v.Healthy != 1 || !v.Tasks[0].Health[0].Alive {
			t.Fatalf("after the first success: %+v", v)
		}
	})
}

func TestUnhealthyTaskIsReplaced(t *testing.T) {
	inBubble(t, []string{"host"}, func(t *testing.T, r *rig) {
		f := r.withChecker()
		r.post(checked)
		first := r.running("/web")
		r.until("checked", func() bool { return len(f.current()) == 1 })
		f.answer(true)
		r.idle()
		f.answer(false)
		r.pass(time.Second)
		if v := r.app("/web"); v.Unhealthy != 1 || v.Tasks[0].ID != first.ID {
			t.Fatalf("after one failure: %+v", v)
		}
		f.answer(false)
		r.until("replaced", func() bool {
			live := r.cluster.liveTasks("/web")
			return len(live) == 1 && live[0] != first.ID
		})
		if v := r.app("/web").LastFailure; v == nil || v.TaskID != first.ID || v.State != taskKilled || !strings.Contains(v.Message, "health check failed") {
			t.Errorf("last failure: %+v", v)
		}
	})
}

func TestReadinessGatesTheDeployment(t *testing.T) {
	inBubble(t, []string{"host"}, func(t *testing.T, r *rig) {
		f := r.withChecker()
		r.post(`{"id":"/web","cmd":"serve","cpus":1,"mem":64,"portDefinitions":[{"port":0,"name":"api"}],
			"readinessChecks":[{"portName":"api","path":"/ready","intervalSeconds":7,"timeoutSeconds":3}]}`)
		task := r.running("/web")
		r.until("checked", func() bool { return len(f.current()) == 1 })
		if target := f.current()[0]; !target.Key.Readiness || target.URL != fmt.Sprintf("http://host:%d/ready", task.Ports[0]) || target.Good(404) {
			t.Fatalf("target: %+v", target)
		}
		f.answer(false)
		r.pass(time.Second)
		d, err := r.core.Deployments(t.Context())
		if err != nil || len(d) != 1 || len(d[0].Readiness) != 1 || d[0].Readiness[0].Ready || d[0].Readiness[0].LastStatus != 503 {
			t.Fatalf("deployments: %+v, %v", d, err)
		}
		f.answer(true)
		r.idle()
		r.pass(2 * time.Second)
		if left := f.current(); len(left) != 0 {
			t.Fatalf("still checked: %+v", left)
		}
	})
}

func TestExecutorsHealthIsShown(t *testing.T) {
	inBubble(t, []string{"host"}, func(t *testing.T, r *rig) {
		r.cluster.set(func(c *cluster) { c.unhealthy = true })
		r.post(`{"id":"/web","cmd":"serve","cpus":1,"mem":64,
			"healthChecks":[{"protocol":"COMMAND","command":{"value":"true"},"gracePeriodSeconds":0}]}`)
		r.until("unhealthy", func() bool { return r.app("/web").Unhealthy == 1 })
		if len(r.app("/web").Deployments) != 1 {
			t.Fatal("the deployment finished with an unhealthy task")
		}
	})
}

func TestCheckAddress(t *testing.T) {
	host, index, port := 31005, 1, 9000
	bridge := &app.App{
		Networks: []app.Network{{Mode: app.BridgeNetwork}},
		Container: &app.Container{PortMappings: []app.PortMapping{
			{ContainerPort: 80}, {ContainerPort: 81, HostPort: &host},
		}},
	}
	hosted := &app.App{Networks: []app.Network{{Mode: app.HostNetwork}}, Ports: []app.PortDefinition{{}, {}}}
	i := &instance{Task: &task{Hostname: "h", Ports: []uint32{31005}, IPs: []string{"10.0.0.2"}}}
	two := &instance{Task: &task{Hostname: "h", Ports: []uint32{31005, 31006}}}
	for name, c := range map[string]struct {
		i           *instance
		a           *app.App
		port, index *int
		want        string
	}{
		"first host port":         {two, hosted, nil, nil, "h:31005"},
		"second host port":        {two, hosted, nil, &index, "h:31006"},
		"fixed port":              {two, hosted, &port, nil, "h:9000"},
		"port in the container":   {i, bridge, nil, nil, "10.0.0.2:80"},
		"port exposed":            {i, bridge, nil, &index, "h:31005"},
		"fixed port in container": {i, bridge, &port, nil, "10.0.0.2:9000"},
		"no such port":            {i, hosted, nil, &index, ""},
	} {
		if got, ok := checkAddress(c.i, c.a, c.port, c.index); got != c.want || ok != (c.want != "") {
			t.Errorf("%s: %q %v", name, got, ok)
		}
	}
}
