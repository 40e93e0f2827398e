package core

import (
	"errors"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/scheduler"
)

func TestAVolumeThatAnotherFrameworkUsedStaysOnItsAgent(t *testing.T) {
	inBubble(t, []string{"a", "b", "c"}, func(t *testing.T, r *rig) {
		key := scheduler.VolumeKey{Driver: "ref", Name: "vol"}
		use := Use{App: "/db", AgentID: "S2", Hostname: "c", TaskID: "theirs"}
		for range 2 { // repeated by a client that got no answer
			if err := r.core.ClaimUsed(t.Context(), key, use); err != nil {
				t.Fatal(err)
			}
		}
		elsewhere := use
		elsewhere.AgentID = "S1"
		var conflict *ConflictError
		if err := r.core.ClaimUsed(t.Context(), key, elsewhere); !errors.As(err, &conflict) {
			t.Errorf("claimed on a second agent: %v", err)
		}
		r.restart()
		r.cluster.partition("S2")
		r.post(db)
		r.pass(5 * time.Minute)
		if tasks := r.cluster.liveTasks("/db"); len(tasks) != 0 {
			t.Fatalf("%v runs while the agent that had the volume is away", tasks)
		}
		r.cluster.heal("S2")
		if v := r.running("/db"); v.AgentID != "S2" {
			t.Errorf("/db runs on %s, its volume was on S2", v.AgentID)
		}
	})
}
