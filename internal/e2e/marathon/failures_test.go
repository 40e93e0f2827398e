package marathon_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// A task that its health check finds dead is killed and replaced, on the same
// volume.
func TestHealthDrivenReplacement(t *testing.T) {
	e := start(t, 2)
	db := stateful("/db", "db", 1)
	// The first task falls ill after it was well; the second finds the mark
	// and stays well.
	db["cmd"] = `touch well; test -e data/was-ill || { sleep 3; touch data/was-ill; rm well; }; exec sleep 1000`
	db["healthChecks"] = []object{{"protocol": "COMMAND", "command": object{"value": "test -e well"},
		"intervalSeconds": 1, "timeoutSeconds": 5, "gracePeriodSeconds": 1, "delaySeconds": 0, "maxConsecutiveFailures": 2}}
	e.must(http.MethodPost, "/v2/apps", db, nil)
	first := e.running("/db", 1, nil)
	e.running("/db", 1, first)
	e.settled()
	e.until("the replacement is healthy", func() (bool, string) {
		var out struct {
			App struct{ TasksHealthy, TasksUnhealthy int }
		}
		e.must(http.MethodGet, "/v2/apps/db", nil, &out)
		return out.App.TasksHealthy == 1 && out.App.TasksUnhealthy == 0, fmt.Sprintf("%+v", out.App)
	})
	// The executor runs this check, tells the result and stops the task.
	var verdicts []any
	for _, ev := range e.seen("health_status_changed_event") {
		if _, ofFirst := first[ev["taskId"].(string)]; ofFirst {
			verdicts = append(verdicts, ev["alive"])
		}
	}
	if len(verdicts) != 2 || verdicts[0] != true || verdicts[1] != false {
		t.Errorf("health of the first task: %v", verdicts)
	}
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
	launches := len(e.seen("instance_placed_event"))
	if launches != 3 {
		t.Errorf("%d launches before the third delay", launches)
	}
	if f := e.lastFailure("/bad"); !strings.Contains(f, "TASK_FAILED") || !strings.Contains(f, "3") {
		t.Errorf("last failure %q does not tell the exit status", f)
	}
	e.must(http.MethodDelete, "/v2/queue/bad/delay", nil, nil)
	e.until("it is launched again", func() (bool, string) {
		n := len(e.seen("instance_placed_event"))
		return n > launches, fmt.Sprint(n)
	})
	e.must(http.MethodDelete, "/v2/apps/bad", nil, nil)
	e.settled()
}
