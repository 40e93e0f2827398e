package core

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/internal/bubbletest"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

const members = `{"id":"/members","cmd":"run","cpus":1,"mem":64,"instances":3,"upgradeStrategy":{"minimumHealthCapacity":0.6,"maximumOverCapacity":0},
	"container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW",
	"external":{"provider":"dvdi","name":"data-${instance}","options":{"dvdi/driver":"ref"}}}]}}`

// holders returns which task's instance holds which volume, of the volumes in
// use.
func (r *rig) holders() map[string]string {
	r.t.Helper()
	out := map[string]string{}
	for _, c := range r.claims() {
		if len(c.Claim.Instances) == 1 {
			out[c.Claim.Key.Name] = c.Claim.Instances[0]
		}
	}
	return out
}

func (r *rig) volumesInUse(want ...string) {
	r.t.Helper()
	r.until("the volumes in use are as wanted", func() bool {
		return slices.Equal(slices.Sorted(maps.Keys(r.holders())), want)
	})
}

func TestEachInstanceHasItsVolume(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(members)
		r.idle()
		r.volumesInUse("data-0", "data-1", "data-2")
		before := r.holders()

		// A task that dies comes back to its own volume, also after a restart.
		r.cluster.end("/members", taskFailed)
		r.restart()
		r.until("all run again", func() bool { return r.app("/members").Running == 3 })
		if after := r.holders(); !maps.Equal(after, before) {
			t.Errorf("instances changed volumes: %v, before %v", after, before)
		}

		r.scale("/members", 1)
		r.idle()
		r.volumesInUse("data-0")
		r.scale("/members", 4)
		r.idle()
		r.volumesInUse("data-0", "data-1", "data-2", "data-3")
		if after := r.holders(); after["data-0"] != before["data-0"] {
			t.Errorf("the first instance was replaced: %v, before %v", after, before)
		}
	})
}

func TestTasksLearnTheirOrdinal(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(members)
		r.idle()
		seen := map[string]string{}
		r.cluster.set(func(c *cluster) {
			for _, task := range c.tasks {
				seen[task.app.Container.Volumes[0].External.Name] = task.app.Env["DVDI_INSTANCE_ORDINAL"].Value
			}
		})
		if want := map[string]string{"data-0": "0", "data-1": "1", "data-2": "2"}; !maps.Equal(seen, want) {
			t.Errorf("volumes and ordinals: %v", seen)
		}
	})
}

func TestUpdateOfInstancesWithVolumes(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(members)
		r.idle()
		old := r.cluster.liveTasks("/members")
		r.update("/members", func(a *app.App) { a.Cmd = "run --new" })
		r.until("all are replaced", func() bool {
			live := r.cluster.liveTasks("/members")
			if len(live) < 2 || len(live) > 3 {
				t.Fatalf("%d tasks at a time, want 2 or 3", len(live))
			}
			return !slices.ContainsFunc(live, func(id string) bool { return slices.Contains(old, id) }) && len(r.app("/members").Deployments) == 0
		})
		r.volumesInUse("data-0", "data-1", "data-2")
	})
}

func TestKilledInstanceMakesRoomForItsSuccessor(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(members)
		r.idle()
		before := r.holders()
		var task string
		for _, v := range r.app("/members").Tasks {
			if v.InstanceID == before["data-1"] {
				task = v.ID
			}
		}
		if _, _, err := r.core.KillTasks(t.Context(), Kill{App: "/members", TaskIDs: []string{task}, Wipe: true}); err != nil {
			t.Fatal(err)
		}
		r.until("a successor holds the volume", func() bool {
			now := r.holders()
			return now["data-1"] != "" && now["data-1"] != before["data-1"]
		})
		r.volumesInUse("data-0", "data-1", "data-2")
	})
}

func TestLostInstanceIsNotReplacedByAnotherOrdinal(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(members)
		r.idle()
		r.update("/members", func(a *app.App) {
			a.Unreachable = app.UnreachableStrategy{InactiveAfterSeconds: 1, ExpungeAfterSeconds: 2}
		})
		r.idle()
		var lost scheduler.Claim
		for _, c := range r.claims() {
			if c.Claim.Key.Name == "data-0" {
				lost = c.Claim
			}
		}
		r.cluster.partition(lost.AgentID)
		r.pass(time.Minute)
		for _, c := range r.claims() {
			if c.Claim.Key.Name > "data-2" {
				t.Errorf("a fourth volume is in use: %+v", c.Claim)
			}
		}
		r.cluster.markGone(lost.AgentID)
		r.until("all run on the other agent", func() bool {
			bubbletest.Wait()
			return r.app("/members").Running == 3
		})
		r.volumesInUse("data-0", "data-1", "data-2")
	})
}

func TestClassesReachTheScheduler(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		class := app.VolumeClass{Driver: "ref", Options: map[string]string{"size": "5"}, ExplicitCreate: true, BackendExclusive: true}
		class, err := class.Complete("fast")
		if err != nil {
			t.Fatal(err)
		}
		a, err := app.Parse([]byte(`{"id":"/db","cmd":"run","cpus":1,"mem":64,"container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW",
			"external":{"provider":"dvdi","name":"vol","options":{"dvdi/class":"fast"}}}]}}`), app.Options{Classes: map[string]app.VolumeClass{"fast": class}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.core.Change(t.Context(), Change{Upsert: []*app.App{a}}); err != nil {
			t.Fatal(err)
		}
		r.running("/db")
		r.cluster.set(func(c *cluster) {
			for _, task := range c.tasks {
				if got := task.app.Container.Volumes[0].External.Options; got["dvdi/driver"] != "ref" || got["dvdi/size"] != "5" || got["dvdi/class"] != "" {
					t.Errorf("options of the task: %v", got)
				}
				if task.options[0]["dvdi.explicit"] != "true" {
					t.Errorf("options for the engine: %v", task.options)
				}
			}
		})
		if c := r.onlyClaim(); c.Key != volKey || c.Access != scheduler.OneTask {
			t.Errorf("claim %+v", c)
		}
		// The backend refuses two attachments: the claim ends with the task.
		r.delete("/db")
		r.until("the claim has ended", func() bool { return len(r.claims()) == 0 })
	})
}

// vault is a Secrets in memory.
type vault map[string]string

func (v vault) Value(source string) (string, bool, error) {
	if source == "broken" {
		return "", false, errors.New("disk on fire")
	}
	value, known := v[source]
	return value, known, nil
}

func TestSecretsOfTasks(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		if err := r.halt(); err != nil {
			t.Fatal(err)
		}
		r.cfg.Secrets = vault{"db/password": "hunter2"}
		r.start()
		post := func(id, source string) {
			a, err := app.Parse([]byte(`{"id":"`+id+`","cmd":"run","cpus":1,"mem":64,"secrets":{"pw":{"source":"`+source+`"}},"env":{"PW":{"secret":"pw"}}}`), app.Options{Secrets: true})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.core.Change(t.Context(), Change{Upsert: []*app.App{a}}); err != nil {
				t.Fatal(err)
			}
		}
		post("/known", "db/password")
		post("/elsewhere", "vault/other")
		post("/broken", "broken")
		r.running("/known")
		r.running("/elsewhere")
		r.until("the failure is told", func() bool { return r.app("/broken").LastFailure != nil })
		if f := r.app("/broken").LastFailure; f.Message != `the secret "pw" cannot be had: disk on fire` || f.State != taskError {
			t.Errorf("last failure %+v", f)
		}
		r.cluster.set(func(c *cluster) {
			for _, task := range c.tasks {
				want := map[app.ID]map[string]string{"/known": {"pw": "hunter2"}, "/elsewhere": {}}[task.app.ID]
				if !maps.Equal(task.secrets, want) {
					t.Errorf("%s: secrets %v", task.app.ID, task.secrets)
				}
			}
		})
	})
}
