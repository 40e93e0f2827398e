package core

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// ErrNotSubscribed means that there is no subscription with the master at the
// moment. The call had no effect; a Subscribed event tells when to decide
// anew.
var ErrNotSubscribed = errors.New("not subscribed with a Mesos master")

// ErrFailedOver means that another scheduler subscribed with this framework
// id. Whoever gets it is not the leader any more and must not subscribe again:
// the two would push each other out for ever.
var ErrFailedOver = errors.New("another scheduler has subscribed with this framework id")

// CallError is the master's refusal of a call: an HTTP status other than the
// one that means acceptance.
type CallError struct {
	Call   string // type of the call, such as "ACCEPT"
	Status int    // HTTP status
	Body   string // the master's explanation, shortened
}

// Error says what was refused, why, and what to do where that is known.
func (e *CallError) Error() string {
	text := fmt.Sprintf("Mesos %s: %d %s", e.Call, e.Status, http.StatusText(e.Status))
	if e.Body != "" {
		text += ": " + e.Body
	}
	switch {
	case e.Stale():
		text += " (another scheduler has subscribed with this framework id)"
	case e.Status == http.StatusUnauthorized:
		text += " (check the Mesos principal and its secret)"
	case e.Unsubscribed():
		text += " (the subscription has ended)"
	case e.Status == http.StatusForbidden:
		text += " (check the master's ACLs for the Mesos principal, its roles and users)"
	}
	return text
}

// Stale tells whether the call was refused because its stream id is not the
// framework's current one: a newer subscription exists.
func (e *CallError) Stale() bool {
	return e.Status == http.StatusBadRequest && strings.Contains(e.Body, "didn't match the stream ID")
}

// Unsubscribed tells whether the master has no subscription of the framework:
// it has ended, or was with a master before this one (Master::Http::scheduler).
func (e *CallError) Unsubscribed() bool {
	return e.Status == http.StatusForbidden && e.Body == "Framework is not subscribed" ||
		e.Status == http.StatusBadRequest && e.Body == "Framework cannot be found"
}

// Temporary tells whether the same call may be accepted later without any
// change here: no master leads, the leading one is not ready, or there is no
// subscription.
func (e *CallError) Temporary() bool {
	return e.Unsubscribed() || e.Status >= 500 || e.Status == http.StatusTooManyRequests ||
		e.Status == http.StatusTemporaryRedirect
}

// InvalidTaskError means that a task cannot be sent to Mesos as its app is
// defined. Nothing was sent; the same launch fails again until the app changes.
type InvalidTaskError struct {
	TaskID string
	Reason string // what cannot be sent, and what to change
}

// Error names the task and the reason.
func (e *InvalidTaskError) Error() string {
	return fmt.Sprintf("task %s cannot be launched: %s", e.TaskID, e.Reason)
}
