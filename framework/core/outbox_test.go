package core

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/bubbletest"
)

// TestDrainEndsWithTheLead puts a call that takes long into the outbox: without
// the lead nobody waits for it.
func TestDrainEndsWithTheLead(t *testing.T) {
	bubbletest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		o := newOutbox(8)
		go o.run(ctx)
		defer cancel()
		o.put(call{make: func(ctx context.Context) error { <-ctx.Done(); return nil }})
		bubbletest.Wait()

		lost := make(chan struct{})
		time.AfterFunc(time.Second, func() { close(lost) })
		begin := time.Now()
		o.drain(time.Minute, lost)
		if waited := time.Since(begin); waited != time.Second {
			t.Errorf("waited %s for the calls of a lead that was lost after 1s", waited)
		}
		o.drain(time.Minute, lost)
		if waited := time.Since(begin); waited != time.Second {
			t.Error("waited although the lead was lost before")
		}
		o.drain(time.Minute, nil)
		if waited := time.Since(begin); waited != time.Second+time.Minute {
			t.Errorf("waited %s in all", waited)
		}
	})
}

// TestCallsAboutAgents puts calls into the outbox that end when they are told to:
// those about one agent keep their order, those about others overtake them, and
// one about no agent is made alone.
func TestCallsAboutAgents(t *testing.T) {
	bubbletest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var mu sync.Mutex // guards begun
		var begun []string
		end := map[string]chan struct{}{}
		o := newOutbox(3)
		go o.run(ctx)
		for _, name := range []string{"a1", "a2", "b1", "-1", "c1", "d1", "e1", "f1", "-2"} {
			ended := make(chan struct{})
			end[name] = ended
			o.put(call{agent: strings.Trim(name[:1], "-"), make: func(context.Context) error {
				mu.Lock()
				begun = append(begun, name)
				mu.Unlock()
				<-ended
				return nil
			}})
		}
		underWay := func(want string) {
			t.Helper()
			bubbletest.Wait()
			mu.Lock()
			defer mu.Unlock()
			slices.Sort(begun)
			if got := strings.Join(begun, " "); got != want {
				t.Fatalf("begun %q, want %q", got, want)
			}
		}
		finish := func(name string) {
			close(end[name])
			mu.Lock()
			begun = slices.DeleteFunc(begun, func(s string) bool { return s == name })
			mu.Unlock()
		}
		underWay("a1 b1") // a2 comes after a1, nothing overtakes -1
		finish("b1")
		underWay("a1")
		finish("a1")
		underWay("a2")
		finish("a2")
		underWay("-1")
		finish("-1")
		underWay("c1 d1 e1") // three at once
		finish("d1")
		underWay("c1 e1 f1")
		finish("c1")
		finish("e1")
		underWay("f1")
		finish("f1")
		underWay("-2")
		finish("-2")
		o.drain(time.Minute, nil)
	})
}
