package bubbletest

import (
	"runtime"
	"sync"
	"testing"
	"time"
)

// TestTimersThatPassed has many goroutines receive from timers whose time has
// passed at the same instant. With more than one processor and the race detector,
// the process does not survive it (see the package's comment).
func TestTimersThatPassed(t *testing.T) {
	before := runtime.GOMAXPROCS(4)
	defer runtime.GOMAXPROCS(before)
	for range 10 {
		Test(t, func(t *testing.T) {
			var receivers sync.WaitGroup
			for range 4 {
				receivers.Go(func() {
					for range 20 {
						receivePassed(t)
					}
				})
			}
			receivers.Wait()
		})
	}
}

// receivePassed receives from timers after their time, and starts a goroutine by a
// timer, which asks the detector for the timers' stack.
func receivePassed(t *testing.T) {
	timers := make([]*time.Timer, 200)
	for i := range timers {
		timers[i] = time.NewTimer(time.Millisecond)
	}
	time.Sleep(2 * time.Millisecond)
	for _, timer := range timers {
		select {
		case <-timer.C:
		default:
			t.Error("a timer whose time has passed has sent nothing")
		}
	}
	done := make(chan struct{})
	time.AfterFunc(time.Millisecond, func() { close(done) })
	<-done
}

func TestProcessorsComeBack(t *testing.T) {
	before := runtime.GOMAXPROCS(4)
	defer runtime.GOMAXPROCS(before)
	within := 4
	if raceDetector {
		within = 1
	}
	t.Run("bubbles", func(t *testing.T) {
		for _, name := range []string{"a", "b"} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				Test(t, func(t *testing.T) {
					if got := runtime.GOMAXPROCS(0); got != within {
						t.Errorf("%d processors in a bubble, want %d", got, within)
					}
				})
			})
		}
	})
	if got := runtime.GOMAXPROCS(0); got != 4 {
		t.Errorf("%d processors after the last bubble, want the 4 of before", got)
	}
}
