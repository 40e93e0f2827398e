package core

import (
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
