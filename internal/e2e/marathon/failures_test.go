package marathon_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/devcluster"
)

// A task that its health check finds dead is killed and replaced, on the same
// volume.
func TestHealthDrivenReplacement(t *testing.T) {
	e := start(t, 2)
	db := stateful("/db", "db", 1)
	// The first task falls ill once a check has found it well; the second finds
	// the mark and stays well.
	db["cmd"] = `touch well; test -e data/was-ill || { until test -e checked; do sleep 0.1; done; touch data/was-ill; rm well; }; exec sleep 1000`
	db["healthChecks"] = []object{{"protocol": "COMMAND", "command": object{"value": "test -e well && touch checked"},
		"intervalSeconds": 1, "timeoutSeconds": 60, "gracePeriodSeconds": 60, "delaySeconds": 0, "maxConsecutiveFailures": 2}}
	e.must(http.MethodPost, "/v2/apps", db, nil)
	first := e.firstTask("/db")
	e.running("/db", 1, map[string]devcluster.Task{first: {}})
	e.settled()
	e.until("the replacement is healthy", func() (bool, string) {
		var out struct {
			App struct{ TasksHealthy, TasksUnhealthy int }
		}
		e.must(http.MethodGet, "/v2/apps/db", nil, &out)
		return out.App.TasksHealthy == 1 && out.App.TasksUnhealthy == 0, fmt.Sprintf("%+v", out.App)
	})
	// The executor runs this check, tells the result and stops the task.
	e.fellIll("/db", first)
}

// A task that cannot stay up is launched again later and later, and says so;
// resetting the delay launches at once.
func TestBackoff(t *testing.T) {
	e := start(t, 1)
	bad := stateful("/bad", "bad", 1)
	bad["cmd"], bad["backoffSeconds"], bad["backoffFactor"], bad["maxLaunchDelaySeconds"] = "exit 3", 1, 8, 300
	e.must(http.MethodPost, "/v2/apps", bad, nil)
	delay := func() int {
		var out struct {
			Queue []struct {
				Delay struct {
					TimeLeftSeconds int
					Overdue         bool
				}
			}
		}
		e.must(http.MethodGet, "/v2/queue", nil, &out)
		if len(out.Queue) == 0 || out.Queue[0].Delay.Overdue {
			return 0
		}
		return out.Queue[0].Delay.TimeLeftSeconds
	}
	// 1 s, 8 s, 64 s
	e.until("the delay has grown", func() (bool, string) { return delay() > 30, fmt.Sprint(delay()) })
	launches := len(e.heard("instance_placed_event", 3))
	if launches != 3 {
		t.Errorf("%d launches before the third delay", launches)
	}
	if f := e.lastFailure("/bad"); !strings.Contains(f, "TASK_FAILED") || !strings.Contains(f, "3") {
		t.Errorf("last failure %q does not tell the exit status", f)
	}
	e.must(http.MethodDelete, "/v2/queue/bad/delay", nil, nil)
	e.heard("instance_placed_event", launches+1) // it is launched again
	e.must(http.MethodDelete, "/v2/apps/bad", nil, nil)
	e.settled()
}
