package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// sameSignal is how long further signals belong to the first one: timeout(1) sends
// one to the program, and one to its process group, which the program is in.
const sameSignal = 500 * time.Millisecond

// interruptible is a context that SIGTERM and SIGINT end: the first of them, with
// those of the next sameSignal; a later one ends the program whatever it waits for.
// So does every one after stop, which says whether there was one before: none is
// lost between the two.
func interruptible(parent context.Context) (ctx context.Context, stop func() (interrupted bool)) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	return interruptibleBy(parent, signals, func() { signal.Stop(signals) })
}

// interruptibleBy is interruptible by what comes in signals until release, which may
// be called again.
func interruptibleBy(parent context.Context, signals <-chan os.Signal, release func()) (ctx context.Context, stop func() (interrupted bool)) {
	ctx, cancel := context.WithCancel(parent)
	stopped := make(chan struct{})
	var interrupted bool
	var waiting sync.WaitGroup
	waiting.Go(func() {
		select {
		case <-signals:
			interrupted = true
			time.AfterFunc(sameSignal, release)
			cancel()
		case <-stopped:
		}
	})
	return ctx, func() bool {
		close(stopped)
		waiting.Wait()
		cancel()
		if interrupted {
			return true // released by the timer: the same signal may still be on its way
		}
		release() // none comes after it
		return len(signals) > 0
	}
}
