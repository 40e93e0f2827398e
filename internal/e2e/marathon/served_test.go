package marathon_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/devcluster"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
)

// serveEnv makes the test binary a task that serves; its value is the protocol.
const serveEnv = "DVDI_TEST_SERVE"

// wellFor is how many checks the first task of an app passes.
const wellFor = 3

// serveTask serves on the port and address that the task was given. The first
// task with a volume falls ill after some requests: over HTTP it answers 500,
// over TCP it stops listening; the next one finds that it was and stays well.
func serveTask(protocol string) error {
	l, err := net.Listen("tcp", net.JoinHostPort(os.Getenv("HOST"), os.Getenv("PORT0")))
	if err != nil {
		return err
	}
	mark := filepath.Join("data", "was-ill")
	_, err = os.Stat(mark)
	fallsIll := os.IsNotExist(err)
	var asked atomic.Int32
	ill := func() bool {
		if !fallsIll || asked.Add(1) <= wellFor {
			return false
		}
		if err := os.WriteFile(mark, nil, 0o600); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return true
	}
	if protocol == "tcp" {
		for {
			conn, err := l.Accept()
			if err != nil {
				return err
			}
			conn.Close()
			if ill() {
				l.Close()
				select {}
			}
		}
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/health":
			w.WriteHeader(http.StatusNotFound)
		case ill():
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	s.Listener.Close()
	s.Listener = l
	if protocol == "https" {
		s.StartTLS()
	} else {
		s.Start()
	}
	select {}
}

// The framework's own checks find a task dead that answers wrongly, or not at
// all, and replace it on the same volume.
func TestTasksThatFailTheFrameworksChecksAreReplaced(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	e := startOn(t, devcluster.Config{Agents: 2, Agent: func(i int, a *embeddedmesos.AgentConfig) {
		a.Hostname = fmt.Sprintf("127.0.0.%d", i+1) // what tasks serve there can be reached
	}})
	protocols := []string{"http", "https", "tcp"}
	for _, p := range protocols {
		app := stateful("/"+p, p, 1)
		app["cmd"], app["env"] = "exec '"+self+"'", object{serveEnv: p}
		app["portDefinitions"] = []object{{"port": 0, "name": "main"}}
		check := object{"protocol": strings.ToUpper(p), "portIndex": 0, "intervalSeconds": 1, "timeoutSeconds": 10,
			"gracePeriodSeconds": 60, "delaySeconds": 0, "maxConsecutiveFailures": 2}
		if p != "tcp" {
			check["path"] = "/health"
		}
		app["healthChecks"] = []object{check}
		e.must(http.MethodPost, "/v2/apps", app, nil)
	}
	for _, p := range protocols {
		first := e.firstTask("/" + p)
		e.running("/"+p, 1, map[string]devcluster.Task{first: {}})
		e.until("the replacement of /"+p+" is healthy", func() (bool, string) {
			var out struct {
				App struct{ TasksHealthy, TasksUnhealthy int }
			}
			e.must(http.MethodGet, "/v2/apps/"+p, nil, &out)
			return out.App.TasksHealthy == 1 && out.App.TasksUnhealthy == 0, fmt.Sprintf("%+v", out.App)
		})
		e.failedOnce("/"+p, first)
	}
	e.settled()
}

// firstTask is the first task of an app of which anything was heard.
func (e *env) firstTask(app string) (id string) {
	e.Helper()
	e.until("a task of "+app+" starts", func() (bool, string) {
		for _, ev := range e.seen("status_update_event") {
			if ev["appId"] == app {
				id = ev["taskId"].(string)
				return true, ""
			}
		}
		return false, ""
	})
	return id
}

// failedOnce checks what the events tell of the app whose first task fell ill.
func (e *env) failedOnce(app, first string) {
	e.Helper()
	e.fellIll(app, first)
	kills := e.heardOf(app, "unhealthy_instance_kill_event", 1)
	for _, ev := range kills {
		if ev["taskId"] != first || ev["reason"] == "" || ev["host"] == "" {
			e.Errorf("%s: %v", app, ev)
		}
	}
	if len(kills) != 1 {
		e.Errorf("%s: %d kills", app, len(kills))
	}
	e.heardOf(app, "failed_health_check_event", 2)
}

// fellIll checks that an app's first task was told to be well, and then ill.
func (e *env) fellIll(app, first string) {
	e.Helper()
	var verdicts []any
	e.until("the verdicts on "+first, func() (bool, string) {
		verdicts = nil
		for _, ev := range e.seen("health_status_changed_event") {
			if ev["taskId"] == first {
				verdicts = append(verdicts, ev["alive"])
			}
		}
		return len(verdicts) >= 2, fmt.Sprint(verdicts)
	})
	if len(verdicts) != 2 || verdicts[0] != true || verdicts[1] != false {
		e.Errorf("%s: health of the first task: %v", app, verdicts)
	}
}

// heardOf waits until n events of a type have come that concern an app, and returns
// all of these.
func (e *env) heardOf(app, kind string, n int) (events []object) {
	e.Helper()
	e.until(fmt.Sprintf("%d events %s of %s", n, kind, app), func() (bool, string) {
		events = slices.DeleteFunc(e.seen(kind), func(ev object) bool { return ev["appId"] != app })
		return len(events) >= n, fmt.Sprint(events)
	})
	return events
}
