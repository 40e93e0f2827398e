//go:build !faultpoints

package main

import "github.com/mesos-dvdi/dvdi/internal/volume/engine"

// faults is nothing in a program that is not built for crash tests.
func faults() func(engine.FaultPoint) { return nil }
