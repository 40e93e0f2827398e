package main

import (
	"errors"
	"fmt"
	"testing"

	"github.com/mesos-dvdi/dvdi/framework/election"
	"github.com/mesos-dvdi/dvdi/framework/store"
	"github.com/mesos-dvdi/dvdi/framework/zookeeper"
)

// TestExitCodesOfALostLead holds what units and operators rely on (contract 9).
func TestExitCodesOfALostLead(t *testing.T) {
	fenced := &store.Error{Op: "write", Path: "zk://h/dvdi", Err: store.ErrFenced}
	for _, tc := range []struct {
		err  error
		want int
	}{
		{errors.Join(nil, election.ErrAbdicated), exitLeadershipLost},
		{fmt.Errorf("follow: %w", election.ErrDeposed), exitLeadershipLost},
		{fenced, exitLeadershipLost},
		{errors.Join(fenced, zookeeper.ErrLost), exitLeadershipLost},
		{&store.Error{Op: "write", Path: "zk://h/dvdi", Err: zookeeper.ErrLost}, exitStateLost},
		{errors.Join(errors.New("mesos"), zookeeper.ErrLost), exitStateLost},
		{fmt.Errorf("connect: %w", zookeeper.ErrUnavailable), exitStateUnusable},
	} {
		if got := exitCode(tc.err); got != tc.want {
			t.Errorf("%v: exit code %d, want %d", tc.err, got, tc.want)
		}
	}
}
