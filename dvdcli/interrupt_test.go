package main

import (
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/bubbletest"
)

// timeout(1) sends its signal twice, to the program and to its group: that is one
// signal. A later one finds the program at its mercy.
func TestSignalSentTwice(t *testing.T) {
	for name, early := range map[string]bool{"stopped before": true, "stopped after": false} {
		t.Run(name, func(t *testing.T) {
			bubbletest.Test(t, func(t *testing.T) {
				signals := make(chan os.Signal, 1)
				var released atomic.Bool
				ctx, stop := interruptibleBy(t.Context(), signals, func() { released.Store(true) })
				signals <- syscall.SIGTERM
				<-ctx.Done()
				if early && !stop() {
					t.Error("no signal")
				}
				time.Sleep(sameSignal - time.Millisecond)
				bubbletest.Wait()
				if released.Load() {
					t.Error("the second of the two ends the program")
				}
				time.Sleep(time.Millisecond)
				bubbletest.Wait()
				if !released.Load() {
					t.Error("no later one ends the program")
				}
				if !early && !stop() {
					t.Error("no signal")
				}
			})
		})
	}
}

// After stop every signal ends the program; one that came just before is told.
func TestSignalAfterStop(t *testing.T) {
	for _, pending := range []bool{false, true} {
		signals, released := make(chan os.Signal, 1), false
		_, stop := interruptibleBy(t.Context(), signals, func() {
			released = true
			if pending {
				signals <- syscall.SIGINT
			}
		})
		if got := stop(); got != pending || !released {
			t.Errorf("interrupted: %t, want %t; released: %t", got, pending, released)
		}
	}
}
