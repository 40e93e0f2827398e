package marathon_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/devcluster"
)

// A rolling update keeps as many instances as the strategy says, and a volume
// has its old task gone before the new one starts.
func TestRollingUpdate(t *testing.T) {
	e := start(t, 3)
	web := with(plain("/web", 4), "upgradeStrategy", object{"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0})
	db := stateful("/db", "db", 1)
	e.deploy(web)
	e.deploy(db)
	oldWeb, oldDB := e.tasks("/web"), e.tasks("/db")

	e.must(http.MethodPut, "/v2/apps", []object{with(web, "labels", object{"v": "2"}), with(db, "labels", object{"v": "2"})}, nil)
	e.until("both are replaced", func() (bool, string) {
		web := e.tasks("/web")
		if len(web) < 2 || len(web) > 4 {
			e.Fatalf("%d tasks of /web run, want 2 to 4", len(web))
		}
		return replaced(web, oldWeb, 4) && replaced(e.tasks("/db"), oldDB, 1), fmt.Sprint(web)
	})
	e.settled()
	if n := len(e.heard("deployment_success", 3)); n != 3 {
		t.Errorf("%d deployments succeeded, want 3", n)
	}
	if e.attached() == 0 {
		t.Error("nothing was ever attached: the check of writers proves nothing")
	}
}

func replaced(now, old map[string]devcluster.Task, n int) bool {
	for id := range old {
		if _, still := now[id]; still {
			return false
		}
	}
	return len(now) == n
}

// Each instance has its own volume and finds it again after an update, a kill
// and scaling down and up.
func TestVolumePerInstance(t *testing.T) {
	e := start(t, 3)
	members := with(stateful("/members", "member-${instance}", 3), "upgradeStrategy", object{"minimumHealthCapacity": 0.5, "maximumOverCapacity": 0})
	// A task stays only if the volume is its own and knows how often it started.
	members["cmd"] = `test -e data/owner || echo "$DVDI_INSTANCE_ORDINAL" > data/owner
		test "$(cat data/owner)" = "$DVDI_INSTANCE_ORDINAL" || exit 3
		echo start >> data/starts; exec sleep 1000`
	e.deploy(members)
	first := e.running("/members", 3, nil)
	if got := e.volumesHeld(); !slices.Equal(got, []string{"member-0", "member-1", "member-2"}) {
		t.Errorf("volumes in use: %v", got)
	}

	e.deploy(with(members, "labels", object{"v": "2"}))
	second := e.running("/members", 3, first)
	for id := range second {
		e.must(http.MethodDelete, "/v2/apps/members/tasks/"+id, nil, nil)
		break
	}
	e.until("the killed one is back", func() (bool, string) {
		now := e.tasks("/members")
		return len(now) == 3 && !same(now, second), fmt.Sprint(now)
	})
	e.deploy(with(members, "instances", 1))
	e.running("/members", 1, nil)
	if got := e.volumesHeld(); !slices.Equal(got, []string{"member-0"}) {
		t.Errorf("volumes in use after scaling down: %v", got)
	}
	e.deploy(members)
	e.running("/members", 3, nil)
	if f := e.lastFailure("/members"); f != "" {
		t.Errorf("an instance found another's volume: %s", f)
	}
}

func same(a, b map[string]devcluster.Task) bool {
	for id := range a {
		if _, ok := b[id]; !ok {
			return false
		}
	}
	return len(a) == len(b)
}

// volumesHeld names the volumes that tasks hold.
func (e *env) volumesHeld() []string {
	e.Helper()
	var out struct {
		Volumes []struct{ Name, State string }
	}
	e.must(http.MethodGet, "/v2/volumes", nil, &out)
	var names []string
	for _, v := range out.Volumes {
		if v.State == "held" {
			names = append(names, v.Name)
		}
	}
	slices.Sort(names)
	return names
}

// lastFailure is the message of an app's last failure, "" if it had none.
func (e *env) lastFailure(id string) string {
	e.Helper()
	var out struct {
		App struct {
			LastTaskFailure *struct{ Message, State string }
		}
	}
	e.must(http.MethodGet, "/v2/apps"+id, nil, &out)
	if f := out.App.LastTaskFailure; f != nil {
		return f.State + " " + f.Message
	}
	return ""
}

// Scaling leaves what runs alone; a rollback brings the old definition back.
func TestScaleAndRollback(t *testing.T) {
	e := start(t, 2)
	web := plain("/web", 1)
	e.deploy(web)
	one := e.running("/web", 1, nil)
	e.must(http.MethodPut, "/v2/apps/web", object{"instances": 3}, nil)
	e.settled()
	three := e.running("/web", 3, nil)
	for id := range one {
		if _, still := three[id]; !still {
			t.Error("scaling up replaced the first task")
		}
	}
	db := stateful("/db", "db", 1)
	e.deploy(db)
	var versions struct{ Versions []string }
	e.must(http.MethodGet, "/v2/apps/db/versions", nil, &versions)
	e.deploy(with(db, "env", object{"V": "2"}))
	second := e.running("/db", 1, nil)
	e.must(http.MethodPut, "/v2/apps/db", object{"version": versions.Versions[0]}, nil)
	e.settled()
	e.running("/db", 1, second)
	var now struct {
		App struct{ Env map[string]string }
	}
	e.must(http.MethodGet, "/v2/apps/db", nil, &now)
	if len(now.App.Env) != 0 {
		t.Errorf("environment after the rollback: %v", now.App.Env)
	}
	e.must(http.MethodDelete, "/v2/apps/web/tasks?scale=true&host=*", nil, nil)
	e.settled()
	e.running("/web", 0, nil)
}

// An app starts after those that it depends on run, and not before.
func TestDependencyOrder(t *testing.T) {
	e := start(t, 2)
	front := with(plain("front", 2), "dependencies", []string{"../data"})
	back := stateful("db", "db", 1)
	back["cmd"] = "sleep 1; exec sleep 1000"
	// The order in the body says nothing.
	e.must(http.MethodPost, "/v2/groups", object{"id": "/shop", "groups": []object{
		{"id": "front", "apps": []object{front}, "dependencies": []string{"/shop/data"}},
		{"id": "data", "apps": []object{back}},
	}}, nil)
	e.settled()
	e.running("/shop/front/front", 2, nil)
	database := e.first("status_update_event", func(ev object) bool {
		return ev["appId"] == "/shop/data/db" && ev["taskStatus"] == "TASK_RUNNING"
	})
	web := e.first("instance_placed_event", func(ev object) bool { return ev["runSpecId"] == "/shop/front/front" })
	if web.Before(database) {
		t.Errorf("the front was placed at %v, the database ran at %v", web, database)
	}
}

// first is when the first event of a type happened that is meant.
func (e *env) first(kind string, meant func(object) bool) (when time.Time) {
	e.Helper()
	e.until("an event "+kind, func() (bool, string) {
		events := e.seen(kind)
		n := slices.IndexFunc(events, meant)
		if n >= 0 {
			when = at(e.T, events[n])
		}
		return n >= 0, fmt.Sprint(events)
	})
	return when
}

func at(t *testing.T, ev object) time.Time {
	t.Helper()
	when, err := time.Parse("2006-01-02T15:04:05.000Z", ev["timestamp"].(string))
	if err != nil {
		t.Fatal(err)
	}
	return when
}
