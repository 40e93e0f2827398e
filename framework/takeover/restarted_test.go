package takeover

import (
	"errors"
	"strings"
	"testing"
)

// startAgain has an operator start an app at Marathon, once its volume is
// unmounted, and waits until it runs.
func (s *scene) startAgain(id string) {
	s.t.Helper()
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	for range 2 * unmountDelay {
		s.from.tick()
	}
	s.from.apps[id].instances = 1
	for range 5 {
		s.from.tick()
	}
}

// TestStartedAgainAtMarathon interrupts a take-over at each step at which the app
// is suspended, and has an operator start it at Marathon again: going on suspends
// it there before anything starts here.
func TestStartedAgainAtMarathon(t *testing.T) {
	seen := map[phase]bool{}
	for n := 0; ; n++ {
		s := newScene(t)
		tk := s.takeover(failAt(n))
		err := tk.Take(t.Context(), "/db")
		if err == nil {
			break
		}
		if !errors.Is(err, errInterrupted) {
			t.Fatalf("at step %d: %v", n, err)
		}
		here := s.to.apps["/db"]
		if s.from.apps["/db"].instances != 0 || here == nil || here.instances != 0 {
			continue // not suspended yet, or started here already
		}
		seen[s.takeover(nil).cfg.Journal.content.Apps["/db"].Phase] = true
		s.startAgain("/db")
		if err := s.takeover(nil).Take(t.Context(), "/db"); err != nil {
			t.Fatalf("continued after step %d: %v", n, err)
		}
		if here, there := s.to.running("/db"), s.from.running("/db"); here != 1 || there != 0 {
			t.Errorf("step %d: %d run here, %d at Marathon", n, here, there)
		}
		for _, v := range s.w.violations {
			t.Errorf("step %d: %s", n, v)
		}
	}
	for _, p := range []phase{suspended, claimed, starting} {
		if !seen[p] {
			t.Errorf("the app was never started again in phase %s", p)
		}
	}
}

// severalAgents has the journal know of a task on another agent.
func severalAgents(t *testing.T, tk *Takeover) {
	t.Helper()
	e := tk.cfg.Journal.content.Apps["/db"]
	e.Tasks = append(e.Tasks, Task{ID: "moved", Agent: "S2", Host: "host-S2"})
	if err := tk.cfg.Journal.save(); err != nil {
		t.Fatal(err)
	}
}

// TestTasksOnSeveralAgents: nobody can tell which agent has the volume. The
// take-over stops, and leads back.
func TestTasksOnSeveralAgents(t *testing.T) {
	var s *scene
	for n := 0; ; n++ {
		s = newScene(t)
		tk := s.takeover(failAt(n))
		if err := tk.Take(t.Context(), "/db"); !errors.Is(err, errInterrupted) {
			t.Fatalf("at step %d: %v", n, err)
		}
		if tk.cfg.Journal.content.Apps["/db"].Phase == suspended {
			severalAgents(t, tk)
			break
		}
	}
	if err := s.takeover(nil).Take(t.Context(), "/db"); err == nil || !strings.Contains(err.Error(), "--revert") || s.to.running("/db") != 0 {
		t.Fatalf("taken over: %v", err)
	}
	if err := s.takeover(nil).Return(t.Context(), "/db"); err != nil {
		t.Fatal(err)
	}
	if s.from.running("/db") != 1 || s.to.apps["/db"] != nil {
		t.Errorf("%d run at Marathon, here is %v", s.from.running("/db"), s.to.apps["/db"])
	}
}

// TestVolumeOnSeveralAgentsIsRefused before anything is suspended: a lost task and
// its replacement.
func TestVolumeOnSeveralAgentsIsRefused(t *testing.T) {
	s := newScene(t)
	db := s.from.apps["/db"]
	db.tasks = append(db.tasks, &servedTask{Task: Task{ID: "second", Agent: "S1", Host: "host-S1"}})
	if err := s.takeover(nil).Take(t.Context(), "/db"); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "2 agents") {
		t.Errorf("got %v", err)
	}
	if db.instances != 1 {
		t.Error("it was suspended")
	}
}

// TestAnAppMadeHereMeanwhileIsLeftAlone: the journal began before it.
func TestAnAppMadeHereMeanwhileIsLeftAlone(t *testing.T) {
	s := newScene(t)
	tk := s.takeover(failAt(0))
	if err := tk.Take(t.Context(), "/group/web"); !errors.Is(err, errInterrupted) || tk.cfg.Journal.content.Apps["/group/web"].Phase != planned {
		t.Fatal(err)
	}
	s.to.define(t, `{"id":"/group/web","cmd":"another","instances":3}`)
	if err := s.takeover(nil).Take(t.Context(), "/group/web"); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v", err)
	}
	if a := s.to.apps["/group/web"]; a.instances != 3 || a.def["cmd"] != "another" || s.from.running("/group/web") != 2 {
		t.Errorf("it is %+v here, %d run at Marathon", a, s.from.running("/group/web"))
	}
}
