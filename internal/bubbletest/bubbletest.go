// Package bubbletest runs tests in bubbles of [testing/synctest], where time is
// fake, without a defect of Go's: all timers of a bubble share one context of the
// race detector (raceCtx of the bubble's timers, unlockAndRun in runtime/time.go of
// Go 1.26), and a timer whose channel is received from when its time has passed
// runs on the receiver's processor. Two of them at the same instant leave the
// detector's stack of calls wrong, and sooner or later the process dies in the
// detector, or in whatever it wrote over.
package bubbletest

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
)

// Test runs f in a new bubble, as [synctest.Test] does. In programs with the race
// detector, the process has one processor until the last of the bubbles has ended,
// so that no two timers run at once; the detector finds the same races there, since
// it compares the order that is promised, not the one that was. Tests may call it
// at the same time.
func Test(t *testing.T, f func(*testing.T)) {
	t.Helper()
	if raceDetector {
		one.take()
		defer one.give()
	}
	synctest.Test(t, f)
}

// Wait waits until all other goroutines of the caller's bubble are blocked, as
// [synctest.Wait] does.
func Wait() { synctest.Wait() }

// one is the one processor that bubbles share. The number of processors belongs to
// the process, and so does what counts its users.
var one oneProcessor

type oneProcessor struct {
	// mu guards all below, and the number of processors.
	mu     sync.Mutex
	users  int
	before int // the number of processors, for after the last user
}

func (o *oneProcessor) take() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.users == 0 {
		o.before = runtime.GOMAXPROCS(1)
	}
	o.users++
}

func (o *oneProcessor) give() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.users--
	if o.users == 0 {
		runtime.GOMAXPROCS(o.before)
	}
}
