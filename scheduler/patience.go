package scheduler

import "time"

// waitsFrom is when an instance's patience for preferred agents begins to count.
func (i *Instance) waitsFrom() time.Time {
	if i.WaitFrom.After(i.Since) {
		return i.WaitFrom
	}
	return i.Since
}
