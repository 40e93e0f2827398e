package server

import (
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/bubbletest"
)

// How long the server makes no progress is measured by a clock that nobody sets: a
// step of the wall clock must neither cost a watchdog its food nor feed it for a
// server that is stuck.
func TestIdleIsNoMatterOfTheWallClock(t *testing.T) {
	if made := New(Config{}).made; !strings.Contains(made.String(), " m=") {
		t.Errorf("idleness counts from %s, a time of the wall clock only", made)
	}
	bubbletest.Test(t, func(t *testing.T) {
		s := &Server{made: time.Now()}
		time.Sleep(time.Hour)
		if idle := s.Idle(); idle != time.Hour {
			t.Errorf("idle for %s, want 1h", idle)
		}
		s.alive()
		time.Sleep(time.Second)
		if idle := s.Idle(); idle != time.Second {
			t.Errorf("idle for %s after progress, want 1s", idle)
		}
	})
}
