package core

import (
	"errors"
	"fmt"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

// ErrFrameworkRemoved means that the master no longer knows the framework id
// and will not accept it again ("Framework has been removed").
var ErrFrameworkRemoved = errors.New("the master has removed this framework")

// ErrState means that a stored record cannot be understood.
var ErrState = errors.New("the framework's state cannot be understood")

// ErrStale means that a definition was derived from one that is not current any
// more (Change.Base). Derive it again from the current one.
var ErrStale = errors.New("the app was changed by another request meanwhile")

// NotFoundError means that a named thing does not exist. Error returns
// Marathon's message for it (contract 0.4).
type NotFoundError struct{ Message string }

func (e *NotFoundError) Error() string { return e.Message }

// ConflictError means that a thing exists already.
type ConflictError struct{ Message string }

func (e *ConflictError) Error() string { return e.Message }

// LockedError means that running deployments affect the same apps.
type LockedError struct {
	App         app.ID
	Deployments []string
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("app %s is locked by deployments %v", e.App, e.Deployments)
}

// TooManyDeploymentsError means that the limit on running deployments is
// reached.
type TooManyDeploymentsError struct{ Limit int }

func (e *TooManyDeploymentsError) Error() string {
	return fmt.Sprintf("Maximum number of %d deployments running at the same time is reached; "+
		"wait for one to finish or cancel one", e.Limit)
}

// RolesRefusedError means that the master does not let the framework have some
// roles; it has the others that were asked for.
type RolesRefusedError struct {
	Roles []string
	Cause error // what the master said, of the last of them
}

// Error names the roles and what to do.
func (e *RolesRefusedError) Error() string {
	return fmt.Sprintf("the Mesos master does not allow the roles %v: %v (add them to its --roles, or let the framework's "+
		"principal register with them, or give the apps another role)", e.Roles, e.Cause)
}

// Unwrap returns the cause.
func (e *RolesRefusedError) Unwrap() error { return e.Cause }
