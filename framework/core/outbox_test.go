package core

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestDrainEndsWithTheLead puts a call that takes long into the outbox: without
// the lead nobody waits for it.
func TestDrainEndsWithTheLead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		o := newOutbox()
		go o.run(ctx)
		defer cancel()
		o.put(call{make: func(ctx context.Context) error { <-ctx.Done(); return nil }})
		synctest.Wait()

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
