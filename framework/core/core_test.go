package core

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

func TestLifeOfAnApp(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(web)
		r.idle()
		v := r.app("/web")
		if len(v.Tasks) != 2 || v.Running != 2 || v.Staged != 0 || len(v.Deployments) != 0 {
			t.Fatalf("after the deployment: %+v", v)
		}
		before := r.cluster.liveTasks("/web")

		r.restart()
		r.pass(20e9)
		if got := r.cluster.liveTasks("/web"); !equal(got, before) {
			t.Fatalf("tasks after a restart: %v, before: %v", got, before)
		}

		r.scale("/web", 3)
		r.idle()
		if got := r.cluster.liveTasks("/web"); len(got) != 3 || !contains(got, before) {
			t.Fatalf("scaled to 3: %v, before: %v", got, before)
		}
		r.scale("/web", 0)
		r.idle()
		if got := r.cluster.liveTasks("/web"); len(got) != 0 {
			t.Fatalf("scaled to 0: %v", got)
		}
		r.scale("/web", 1)
		r.idle()
		r.delete("/web")
		r.until("the app is gone", func() bool { return !r.exists("/web") })
		if got := r.cluster.liveTasks("/web"); len(got) != 0 {
			t.Fatalf("tasks of a deleted app: %v", got)
		}
	})
}

// What a change would do is told without doing it: apps that it leaves as they are
// have no part, and each of the others its own action at its own level.
func TestPlanOfAChange(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		r.post(`{"id":"/db","cmd":"x"}`, `{"id":"/web","cmd":"x","dependencies":["/db"]}`, `{"id":"/old","cmd":"x"}`)
		r.idle()
		plan := func(ch Change) (string, error) {
			steps, err := r.core.Plan(context.Background(), ch)
			return fmt.Sprint(steps), err
		}
		upsert := func(bodies ...string) (ch Change) {
			for _, b := range bodies {
				ch.Upsert = append(ch.Upsert, r.parse(b))
			}
			return ch
		}
		same := upsert(`{"id":"/db","cmd":"x"}`, `{"id":"/web","cmd":"x","dependencies":["/db"]}`)
		if got, err := plan(same); err != nil || got != "[]" {
			t.Errorf("nothing changes: %s, %v", got, err)
		}
		ch := upsert(`{"id":"/db","cmd":"x","instances":2}`, `{"id":"/web","cmd":"y","dependencies":["/db"]}`, `{"id":"/new","cmd":"x","dependencies":["/web"]}`)
		ch.Delete = []app.ID{"/old"}
		before := r.app("/web").App.Version
		want := "[[{StopApplication /old}] [{StartApplication /new}] [{ScaleApplication /db}] [{RestartApplication /web}] [{ScaleApplication /new}]]"
		if got, err := plan(ch); err != nil || got != want {
			t.Errorf("plan %s, %v, want %s", got, err, want)
		}
		r.idle()
		if !r.exists("/old") || r.exists("/new") || r.app("/web").App.Version != before {
			t.Error("the plan was carried out")
		}
		var invalid *app.ValidationError
		if got, err := plan(upsert(`{"id":"/db","cmd":"x","dependencies":["/web"]}`)); !errors.As(err, &invalid) {
			t.Errorf("a cycle of dependencies: %s, %v", got, err)
		}
		if got, err := plan(Change{Base: map[app.ID]app.Timestamp{"/db": {}}}); !errors.Is(err, ErrStale) {
			t.Errorf("an app that was made meanwhile: %s, %v", got, err)
		}
	})
}

// An app that is changed together with others gets no service port that one of
// them names, whatever their order, and keeps the one that it has.
func TestServicePortsOfOneChange(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		r.post(`{"id":"/open","cmd":"x","instances":0}`, `{"id":"/named","cmd":"x","instances":0,"portDefinitions":[{"port":10000}]}`)
		r.idle()
		r.post(`{"id":"/new","cmd":"x","instances":0}`, `{"id":"/open","cmd":"y","instances":0}`)
		r.idle()
		for id, want := range map[app.ID]int{"/named": 10000, "/open": 10001, "/new": 10002} {
			if got := r.app(id).App.ServicePorts(); len(got) != 1 || got[0] != want {
				t.Errorf("%s: %v, want %d", id, got, want)
			}
		}
	})
}

func equal(a, b []string) bool { return len(a) == len(b) && contains(a, b) }

func contains(all, some []string) bool {
	set := map[string]bool{}
	for _, s := range all {
		set[s] = true
	}
	for _, s := range some {
		if !set[s] {
			return false
		}
	}
	return true
}

func TestUpdateReplacesAllTasks(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(web)
		r.idle()
		before := r.cluster.liveTasks("/web")
		r.update("/web", func(a *app.App) { a.Cmd = "serve better" })
		r.idle()
		after := r.cluster.liveTasks("/web")
		if len(after) != 2 || contains(after, before[:1]) || contains(after, before[1:]) {
			t.Fatalf("tasks after the update: %v, before: %v", after, before)
		}
	})
}
