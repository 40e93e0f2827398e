package core

import (
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

// backoff delays the launches of an app whose tasks keep ending (contract
// 5.2). It belongs to one configuration of the app.
type backoff struct {
	Config app.Timestamp `json:"config"`
	Delay  time.Duration `json:"delay"`
	Until  time.Time     `json:"until"`
}

// failed returns the back-off after one more task of configuration config
// ended by itself at now.
func (b backoff) failed(a *app.App, config app.Timestamp, now time.Time) backoff {
	first, most := seconds(a.BackoffSeconds), seconds(a.MaxLaunchDelaySeconds)
	next := first
	if b.Delay > 0 && b.Config == config && now.Before(b.Until.Add(most)) {
		next = time.Duration(float64(b.Delay) * a.BackoffFactor)
	}
	next = min(next, most)
	return backoff{Config: config, Delay: next, Until: now.Add(next)}
}

// until is when launches of configuration config may go on, zero for at once.
func (b backoff) until(config app.Timestamp) time.Time {
	if b.Config != config {
		return time.Time{}
	}
	return b.Until
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
