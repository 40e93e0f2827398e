package main

import (
	"errors"

	"github.com/mesos-dvdi/dvdi/framework/client"
	"github.com/mesos-dvdi/dvdi/framework/command"
	"github.com/mesos-dvdi/dvdi/framework/config"
	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/framework/election"
	"github.com/mesos-dvdi/dvdi/framework/explain"
	"github.com/mesos-dvdi/dvdi/framework/store"
	"github.com/mesos-dvdi/dvdi/framework/zookeeper"
)

// The exit codes of the commands that operate a framework.
const (
	exitDiffers     = 1 // diff or replay found differences, validate mistakes
	exitFailed      = 2 // the deployment failed or took too long
	exitRefused     = 3 // the framework refused
	exitUnreachable = 4
)

// The exit codes of a framework, Marathon's where the cause is the same (contract 9; its codes
// for ZooKeeper stand for the state in a file, too).
const (
	exitStateUnusable    = 100
	exitStateLost        = 101
	exitLeadershipLost   = 103
	exitFailedOver       = 103
	exitMesos            = 106
	exitOther            = 107
	exitFrameworkRemoved = 110
	exitPort             = 111
	exitBadFlag          = 112
)

// errMesos marks errors of the connection to Mesos, errPort those of listening
// for the API's clients.
var (
	errMesos = errors.New("mesos")
	errPort  = errors.New("listen")
)

// marked is an error that belongs to one of the marks above.
type marked struct{ mark, err error }

func (m *marked) Error() string   { return m.err.Error() }
func (m *marked) Unwrap() []error { return []error{m.mark, m.err} }

// exitCode maps the outcome to the process's exit code.
func exitCode(err error) int {
	var badFlag *config.Error
	var state *store.Error
	switch {
	case err == nil:
		return 0
	case errors.As(err, &badFlag):
		return exitBadFlag
	case commandExitCode(err) != 0:
		return commandExitCode(err)
	case errors.Is(err, election.ErrAbdicated), errors.Is(err, election.ErrDeposed), errors.Is(err, store.ErrFenced):
		return exitLeadershipLost
	case errors.Is(err, zookeeper.ErrLost):
		return exitStateLost
	case errors.Is(err, zookeeper.ErrUnavailable):
		return exitStateUnusable
	case errors.As(err, &state) && state.Op == "write":
		return exitStateLost
	case errors.As(err, &state), errors.Is(err, core.ErrState):
		return exitStateUnusable
	case errors.Is(err, core.ErrFrameworkRemoved):
		return exitFrameworkRemoved
	case errors.Is(err, core.ErrFailedOver):
		return exitFailedOver
	case errors.Is(err, errPort):
		return exitPort
	case errors.Is(err, errMesos):
		return exitMesos
	default:
		return exitOther
	}
}

// commandExitCode maps the errors of the operating commands, 0 for others.
func commandExitCode(err error) int {
	var (
		usage       *command.UsageError
		mistake     *explain.UsageError
		failed      *command.DeploymentError
		refused     *client.Error
		unreachable *client.UnreachableError
	)
	switch {
	case errors.As(err, &usage), errors.As(err, &mistake):
		return exitBadFlag
	case errors.Is(err, command.ErrInvalid), errors.Is(err, command.ErrDiffers), errors.Is(err, explain.ErrDiffers):
		return exitDiffers
	case errors.As(err, &failed):
		return exitFailed
	case errors.As(err, &refused):
		return exitRefused
	case errors.As(err, &unreachable):
		return exitUnreachable
	}
	return 0
}
