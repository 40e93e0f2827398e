package core

import "time"

// healthAfter returns the state of a task's health after one more result.
func healthAfter(before *HealthView, alive bool, message string, now time.Time) *HealthView {
	h := HealthView{}
	if before != nil {
		h = *before
	}
	h.Alive = alive
	if alive {
		h.ConsecutiveFailures = 0
		h.LastSuccess = now
		if h.FirstSuccess.IsZero() {
			h.FirstSuccess = now
		}
		return &h
	}
	h.ConsecutiveFailures++
	h.LastFailure = now
	h.LastFailureCause = message
	return &h
}
