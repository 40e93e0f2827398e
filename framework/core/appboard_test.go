package core

import (
	"reflect"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/store"
	"github.com/mesos-dvdi/dvdi/internal/bubbletest"
)

// boardIsTrue checks that what is answered without the core's goroutine is what
// that would answer. Every test that looks at apps does.
func (r *rig) boardIsTrue() {
	r.t.Helper()
	_, err := look(r.t.Context(), r.core, func(*txn) (struct{}, error) {
		r.core.board.mu.RLock()
		defer r.core.board.mu.RUnlock()
		for id, shown := range r.core.board.apps {
			rec := r.core.state.apps[id]
			if rec == nil {
				r.t.Errorf("%s is shown and gone", id)
				continue
			}
			if now := r.core.appView(rec); !reflect.DeepEqual(shown.view, now) {
				r.t.Errorf("%s is shown as\n%+v and is\n%+v", id, shown.view, now)
			}
		}
		return struct{}{}, nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// heldStore is a store whose commits wait while they are held.
type heldStore struct {
	store.Store
	gate chan struct{} // holds one token while commits may pass
}

func (s *heldStore) Commit(w []store.Write) error {
	<-s.gate
	defer func() { s.gate <- struct{}{} }()
	return s.Store.Commit(w)
}

// An app that was asked for is shown while a commit takes its time, as it was
// before; afterwards as it is then.
func TestAppsAreShownDuringACommit(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		held := &heldStore{gate: make(chan struct{}, 1)}
		held.gate <- struct{}{}
		if err := r.halt(); err != nil {
			t.Fatal(err)
		}
		r.wrap = func(st store.Store) store.Store {
			held.Store = st
			return held
		}
		r.start()
		r.post(web)
		r.idle()
		if n := r.app("/web").Running; n != 2 {
			t.Fatalf("%d run", n)
		}
		<-held.gate
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.scale3(t)
		}()
		bubbletest.Wait() // the commit of the change waits
		v, err := r.core.App(t.Context(), "/web")
		if err != nil || v.App.Instances != 2 || v.Running != 2 {
			t.Errorf("during the commit: %+v, %v", v, err)
		}
		held.gate <- struct{}{}
		<-done
		if v, err := r.core.App(t.Context(), "/web"); err != nil || v.App.Instances != 3 || len(v.Deployments) != 1 {
			t.Errorf("after the commit: %+v, %v", v, err)
		}
		r.idle()
	})
}

// scale3 changes /web without asking for it first.
func (r *rig) scale3(t *testing.T) {
	a := r.parse(web)
	a.Instances = 3
	if _, err := r.core.Change(t.Context(), Change{Upsert: []*app.App{a}}); err != nil {
		t.Error(err)
	}
}

// What nobody asks for any more, and what is large, is not kept up to date.
func TestWhatIsShownIsBounded(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		shown := func() bool {
			_, ok := r.core.board.wanted("/web", time.Now())
			return ok
		}
		r.post(web)
		if !shown() {
			t.Fatal("what was just made is not shown")
		}
		r.idle()
		r.pass(showFor)
		r.cluster.end("/web", taskFailed)
		r.pass(time.Second)
		if r.core.board.mu.RLock(); len(r.core.board.apps) != 0 {
			t.Error("what nobody asks for is kept up to date")
		}
		r.core.board.mu.RUnlock()
		if r.app("/web"); !shown() {
			t.Error("what was asked for is not shown")
		}
		r.core.board.put("/web", AppView{Tasks: make([]TaskView, maxShownTasks+1)}, time.Now().UnixNano())
		if shown() {
			t.Error("a large app is shown")
		}
	})
}

// When the core has ended nothing is shown.
func TestNothingIsShownAfterTheEnd(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		r.post(web)
		r.idle()
		r.app("/web")
		if err := r.halt(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.core.App(t.Context(), "/web"); err != ErrStopped {
			t.Errorf("%v", err)
		}
	})
}
