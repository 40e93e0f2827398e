//go:build faultpoints

package main

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/isolator"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/reaper"
)

func engineFaults() func(engine.FaultPoint)     { return faults[engine.FaultPoint]() }
func isolatorFaults() func(isolator.FaultPoint) { return faults[isolator.FaultPoint]() }
func reaperFaults() func(reaper.FaultPoint)     { return faults[reaper.FaultPoint]() }

// faults kills this process as SIGKILL would, at the fault point that
// DVDI_BRIDGE_FAULT names, on its nth passing: "answered", "leak-locked#2".
func faults[P ~string]() func(P) {
	name, nth, found := strings.Cut(os.Getenv("DVDI_BRIDGE_FAULT"), "#")
	var left atomic.Int64
	left.Store(1)
	if found {
		n, err := strconv.Atoi(nth)
		if err != nil {
			panic("DVDI_BRIDGE_FAULT: " + err.Error())
		}
		left.Store(int64(n))
	}
	return func(at P) {
		if string(at) != name {
			return
		}
		if left.Add(-1) == 0 {
			if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
				panic(err)
			}
			select {}
		}
	}
}
