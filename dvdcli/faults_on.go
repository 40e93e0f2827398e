//go:build faultpoints

package main

import (
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
)

// faults kills this process as SIGKILL would, at the fault point that
// DVDCLI_FAULT names, on its nth passing: "answered", "intent#2".
func faults() func(engine.FaultPoint) {
	name, nth, found := strings.Cut(os.Getenv("DVDCLI_FAULT"), "#")
	left := 1
	if found {
		n, err := strconv.Atoi(nth)
		if err != nil {
			panic("DVDCLI_FAULT: " + err.Error())
		}
		left = n
	}
	return func(at engine.FaultPoint) {
		if string(at) != name {
			return
		}
		if left--; left == 0 {
			if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
				panic(err)
			}
			select {}
		}
	}
}
