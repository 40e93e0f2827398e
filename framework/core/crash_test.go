package core

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/store"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// errCrash is what a crashing store answers; the core ends as if killed.
var errCrash = errors.New("killed by the test")

// crashStore fails at one commit: before it is written, or after, which leaves
// the effects undone that were to follow.
type crashStore struct {
	store.Store
	mu    sync.Mutex // guards left
	left  int        // commits until the crash; negative: never
	after bool
}

func (s *crashStore) Commit(writes []store.Write) error {
	s.mu.Lock()
	crash := s.left == 0
	s.left--
	s.mu.Unlock()
	if !crash {
		return s.Store.Commit(writes)
	}
	if s.after {
		if err := s.Store.Commit(writes); err != nil {
			return err
		}
	}
	return errCrash
}

// scenario is something a user does, and how it must end, crash or not. setup
// runs before the crash can happen.
type scenario struct {
	setup, do func(r *rig) error
	done      func(r *rig) bool
}

func scenarios() map[string]scenario {
	post := func(body string) func(r *rig) error {
		return func(r *rig) error {
			_, err := r.change(body)
			var running *LockedError
			if errors.As(err, &running) {
				return nil // the request was taken before the crash
			}
			return err
		}
	}
	settled := func(body string) func(r *rig) error {
		return func(r *rig) error {
			r.post(body)
			r.idle()
			return nil
		}
	}
	change := func(id app.ID, edit func(a *app.App)) func(r *rig) error {
		return func(r *rig) error {
			v, err := r.core.App(r.t.Context(), id)
			if err != nil {
				return err
			}
			a := *v.App
			edit(&a)
			_, err = r.core.Change(r.t.Context(), Change{Upsert: []*app.App{&a}, Force: true})
			return err
		}
	}
	count := func(id app.ID, n int) func(r *rig) bool {
		return func(r *rig) bool { return r.steady(id, n) }
	}
	cmd := func(a *app.App) { a.Cmd = "another" }
	updated := func(id app.ID, n int) func(r *rig) bool {
		return func(r *rig) bool {
			v, err := r.core.App(r.t.Context(), id)
			if err != nil || !r.steady(id, n) || v.App.Cmd != "another" {
				return false
			}
			return !slices.ContainsFunc(v.Tasks, func(t TaskView) bool {
				def, err := r.core.AppVersion(r.t.Context(), id, t.Version)
				return err != nil || !def.SameConfig(v.App)
			})
		}
	}
	return map[string]scenario{
		"deploy":        {func(*rig) error { return nil }, post(web), count("/web", 2)},
		"deploy volume": {func(*rig) error { return nil }, post(db), count("/db", 1)},
		"scale up":      {settled(web), change("/web", func(a *app.App) { a.Instances = 4 }), count("/web", 4)},
		"scale down":    {settled(web), change("/web", func(a *app.App) { a.Instances = 1 }), count("/web", 1)},
		"update":        {settled(web), change("/web", cmd), updated("/web", 2)},
		"update volume": {settled(db), change("/db", cmd), updated("/db", 1)},
		"kill": {settled(db), func(r *rig) error {
			_, _, err := r.core.KillTasks(r.t.Context(), Kill{App: "/db"})
			return err
		}, func(r *rig) bool { return r.steady("/db", 1) && r.cluster.launched() > 1 }},
		"delete": {settled(db), func(r *rig) error {
			_, err := r.core.Change(r.t.Context(), Change{Delete: []app.ID{"/db"}, Force: true})
			var missing *NotFoundError
			if errors.As(err, &missing) {
				return nil
			}
			return err
		}, func(r *rig) bool {
			_, err := r.core.App(r.t.Context(), "/db")
			var missing *NotFoundError
			return errors.As(err, &missing) && len(r.cluster.liveTasks("/db")) == 0
		}},
		"import": {func(*rig) error { return nil }, takeOver, func(r *rig) bool {
			return r.steady("/db", 1) && slices.Equal(r.cluster.agentsOf("/db"), []string{"S1"})
		}},
	}
}

// takeOver does what dvdi-framework import does here: the app without instances,
// the claim where its volume was used, the instance.
func takeOver(r *rig) error {
	idle := r.parse(strings.Replace(db, `"cmd"`, `"instances":0,"cmd"`, 1))
	var running *LockedError
	if v, err := r.core.App(r.t.Context(), "/db"); err != nil || v.App.Instances == 0 {
		if _, err := r.core.Change(r.t.Context(), Change{Upsert: []*app.App{idle}}); err != nil && !errors.As(err, &running) {
			return err
		}
	}
	use := Use{App: "/db", AgentID: "S1", Hostname: "b", TaskID: "theirs"}
	if err := r.core.ClaimUsed(r.t.Context(), scheduler.VolumeKey{Driver: "ref", Name: "vol"}, use); err != nil {
		return err
	}
	_, err := r.core.Change(r.t.Context(), Change{Upsert: []*app.App{r.parse(db)}, Force: true})
	return err
}

// steady tells whether an app has exactly n live tasks, all running, and
// nothing more to do.
func (r *rig) steady(id app.ID, n int) bool {
	r.t.Helper()
	v, err := r.core.App(r.t.Context(), id)
	if err != nil {
		return false // not there, or the core has ended
	}
	return v.Running == n && len(v.Tasks) == n && len(v.Deployments) == 0 && len(r.cluster.liveTasks(id)) == n
}

// TestKilledAtEveryCommit kills the framework at each commit of each scenario,
// before and after the write, starts it again on the same state, repeats the
// user's request if it was not answered, and expects the same end.
func TestKilledAtEveryCommit(t *testing.T) {
	for name, sc := range scenarios() {
		for _, after := range []bool{false, true} {
			for at := 0; ; at++ {
				var crashed bool
				t.Run(fmt.Sprintf("%s/after=%v/%d", strings.ReplaceAll(name, " ", "-"), after, at), func(t *testing.T) {
					crashed = crashAt(t, sc, at, after)
				})
				if !crashed || t.Failed() {
					break
				}
			}
		}
	}
}

// crashAt runs a scenario with a crash at one commit; it returns false when
// the scenario had ended before.
func crashAt(t *testing.T, sc scenario, at int, after bool) (crashed bool) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		if err := sc.setup(r); err != nil {
			t.Fatal(err)
		}
		if err := r.halt(); err != nil {
			t.Fatal(err)
		}
		faulty := &crashStore{left: at, after: after}
		r.wrap = func(st store.Store) store.Store { faulty.Store = st; return faulty }
		r.start()
		answered := sc.do(r) == nil
		if !r.survives(sc.done) {
			crashed = true
			if err := r.halt(); !errors.Is(err, errCrash) {
				t.Fatalf("ended with %v", err)
			}
			r.wrap = nil
			r.start()
			if !answered {
				if err := sc.do(r); err != nil {
					t.Fatalf("repeated after the restart: %v", err)
				}
			}
		}
		r.until("the scenario's end", func() bool { return sc.done(r) })
		// Nothing more happens afterwards.
		r.pass(time.Minute)
		if !sc.done(r) {
			t.Fatal("the end did not last")
		}
	})
	return crashed
}

// survives waits until the scenario is done, or returns false when the core
// ended before.
func (r *rig) survives(done func(r *rig) bool) bool {
	r.t.Helper()
	for range 3000 {
		select {
		case err := <-r.end:
			r.end <- err
			return false
		default:
		}
		if done(r) {
			return true
		}
		r.pass(100 * time.Millisecond)
	}
	r.t.Fatal("neither done nor dead")
	return false
}
