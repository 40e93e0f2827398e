package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// interruptible is a context that SIGTERM and SIGINT end: the first of them; a
// second one ends the program whatever it waits for. So does every one after stop,
// which says whether there was one before: none is lost between the two.
func interruptible(parent context.Context) (ctx context.Context, stop func() (interrupted bool)) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	stopped := make(chan struct{})
	var interrupted bool
	var waiting sync.WaitGroup
	waiting.Go(func() {
		select {
		case <-signals:
			interrupted = true
			signal.Stop(signals)
			cancel()
		case <-stopped:
		}
	})
	return ctx, func() bool {
		signal.Stop(signals) // none is delivered after it
		close(stopped)
		waiting.Wait()
		cancel()
		return interrupted || len(signals) > 0
	}
}
