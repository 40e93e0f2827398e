//go:build !faultpoints

package main

import (
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/isolator"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/reaper"
)

func engineFaults() func(engine.FaultPoint)     { return nil }
func isolatorFaults() func(isolator.FaultPoint) { return nil }
func reaperFaults() func(reaper.FaultPoint)     { return nil }
