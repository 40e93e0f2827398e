package main

import (
	"fmt"
	"sync"
	"time"
)

// spinnerDelay is how long a command may take before a person is told that it
// is still going on.
const spinnerDelay = 500 * time.Millisecond

// spin shows on a terminal what takes so long, until the returned function is
// called. Where nobody watches it does nothing.
func (t *terminal) spin(what string) (stop func()) {
	if t.json || !isTerminal(t.stderr) {
		return func() {}
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		start := time.Now()
		ticker := time.NewTicker(spinnerDelay)
		defer ticker.Stop()
		shown := false
		for i := 0; ; i++ {
			select {
			case <-done:
				if shown {
					_, _ = fmt.Fprint(t.stderr, "\r\x1b[K")
				}
				return
			case <-ticker.C:
				shown = true
				_, _ = fmt.Fprintf(t.stderr, "\r\x1b[K%c %s, %s", `|/-\`[i%4], what, time.Since(start).Round(time.Second))
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
	}
}
