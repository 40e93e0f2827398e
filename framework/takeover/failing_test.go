package takeover

import (
	"errors"
	"strings"
	"testing"
)

// fails has an app's task end by itself, its volume still being unmounted, and
// not be replaced before the back-off is over: Marathon has instances and no task.
func (s *scene) fails(id string) (last Task) {
	s.t.Helper()
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	a := s.from.apps[id]
	last = a.tasks[0].Task
	a.tasks, a.failed = nil, &last
	s.w.mounts[volumeOf(a.def)][last.Agent] = 1000 * unmountDelay
	s.from.backoff = true
	return last
}

// TestBetweenTwoAttempts: an app that fails again and again has no task at the
// moment, but an agent that may be unmounting its volume.
func TestBetweenTwoAttempts(t *testing.T) {
	s := newScene(t)
	last := s.fails("/db")
	reports, _, err := s.takeover(nil).Report(t.Context())
	if err != nil || !reports[0].Refused() {
		t.Errorf("report %+v, %v", reports[0], err)
	}
	err = s.takeover(nil).Take(t.Context(), "/db")
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "--unmounted") || !strings.Contains(err.Error(), last.Host) {
		t.Fatalf("taken over: %v", err)
	}
	if db := s.from.apps["/db"]; db.instances != 1 || s.to.apps["/db"] != nil {
		t.Errorf("%d instances at Marathon, %v here", db.instances, s.to.apps["/db"])
	}
	// By the operator's word it is.
	s.w.mounts = map[string]map[string]int{}
	tk := s.takeover(nil)
	tk.cfg.Unmounted = true
	if err := tk.Take(t.Context(), "/db"); err != nil {
		t.Fatal(err)
	}
	if s.to.running("/db") != 1 {
		t.Error("it does not run here")
	}
}

// TestSuspendedAppWithoutTasks needs nobody's word: nothing starts by itself.
func TestSuspendedAppWithoutTasks(t *testing.T) {
	s := newScene(t)
	s.from.define(t, strings.Replace(bodies[0], `"cmd"`, `"instances":0,"cmd"`, 1))
	if err := s.takeover(nil).Take(t.Context(), "/db"); err != nil {
		t.Fatal(err)
	}
	if a := s.to.apps["/db"]; a == nil || a.instances != 0 {
		t.Errorf("here %+v", a)
	}
}

// TestATaskThatFailedBetweenTwoLooks ran on another agent than the one that was
// seen: the volume is claimed there, too, so that nothing starts before somebody
// looks.
func TestATaskThatFailedBetweenTwoLooks(t *testing.T) {
	for n := 0; ; n++ {
		s := newScene(t)
		s.from.apps["/db"].failed = &Task{ID: "long-ago", Agent: "S2", Host: "host-S2"}
		tk := s.takeover(failAt(n))
		err := tk.Take(t.Context(), "/db")
		if err == nil {
			t.Fatal("the take-over was never suspending")
		}
		if tk.cfg.Journal.content.Apps["/db"].Phase != suspending {
			continue
		}
		s.w.mu.Lock()
		s.from.apps["/db"].failed = &Task{ID: "unseen", Agent: "S1", Host: "host-S1"}
		s.w.mu.Unlock()
		err = s.takeover(nil).Take(t.Context(), "/db")
		if err == nil || !strings.Contains(err.Error(), "2 agents") || strings.Contains(err.Error(), "S2") || s.to.running("/db") != 0 {
			t.Errorf("taken over: %v", err)
		}
		return
	}
}

// TestExportWithoutTasks: what was exported does not tell where volumes are.
func TestExportWithoutTasks(t *testing.T) {
	s := newScene(t)
	tk := s.takeover(nil)
	tk.cfg.From, tk.cfg.Stopped = nil, true
	tk.cfg.Export = []App{{ID: "/db", Instances: 1, Definition: s.from.apps["/db"].def}}
	if err := tk.Take(t.Context(), "/db"); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "embed=apps.tasks") {
		t.Errorf("taken over: %v", err)
	}
}
