package main

import (
	"errors"
	"fmt"
	"testing"

	"github.com/mesos-dvdi/dvdi/framework/config"
	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/framework/store"
)

func TestExitCodes(t *testing.T) {
	wrapped := func(err error) error { return fmt.Errorf("somewhere: %w", err) }
	for want, err := range map[int]error{
		0:                    nil,
		exitBadFlag:          wrapped(&config.Error{Err: errors.New("x")}),
		exitStateUnusable:    wrapped(core.ErrState),
		exitStateLost:        wrapped(&store.Error{Op: "write", Err: errors.New("no space left on device")}),
		exitFrameworkRemoved: classify(wrapped(core.ErrFrameworkRemoved)),
		exitFailedOver:       classify(wrapped(core.ErrFailedOver)),
		exitMesos:            classify(errors.New("x")),
		exitPort:             &marked{errPort, errors.New("x")},
		exitOther:            errors.New("x"),
	} {
		if got := exitCode(err); got != want {
			t.Errorf("%v: exit code %d, want %d", err, got, want)
		}
	}
	if got := exitCode(&store.Error{Op: "open", Err: store.ErrLocked}); got != exitStateUnusable {
		t.Errorf("locked state: exit code %d", got)
	}
	if err := classify(&store.Error{Op: "write", Err: errors.New("x")}); exitCode(err) != exitStateLost {
		t.Error("a lost state is taken for a fault of Mesos")
	}
}
