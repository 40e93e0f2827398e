// Package e2e holds the end-to-end suite: app JSON in, a stateful task with its
// volume out. By default it runs on an embedded Mesos with the reference volume
// plugin and with rclone's. With DVDI_E2E_MASTER set it runs against that
// master instead:
//
//	DVDI_E2E_MASTER   host:port of the master (or any --master value)
//	DVDI_E2E_DRIVER   the volume driver that its agents have
//	DVDI_E2E_OPTIONS  options of the driver, k=v separated by commas; %s in a
//	                  value becomes the volume's name
//	DVDI_E2E_ROLE     role to subscribe with, default "*"
//	DVDI_E2E_ARGS     more arguments for dvdi-framework, separated by spaces
//	DVDI_E2E_DVDCLI   path of the dvdcli binary that the agents execute: the
//	                  suite replaces it by the one built from this tree
//	DVDI_E2E_FAULT    command that injects faults, called with an action
//	                  (kill-agent, start-agent, lose-host, agent-gone) and the
//	                  agent's host name; without it such tests are skipped
package e2e

import (
	"os"
	"os/exec"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
	"github.com/mesos-dvdi/dvdi/internal/programtest"
)

// binaries is the directory with the programs under test, built by TestMain.
var binaries string

func TestMain(m *testing.M) {
	embeddedmesos.Main()
	// With the race detector, where there is a C compiler for it.
	var race []string
	if _, err := exec.LookPath("gcc"); err == nil {
		race = []string{"-race"}
	}
	os.Exit(programtest.Run(m, func(dir string) { binaries = dir },
		programtest.Program{Name: "dvdcli", Package: "dvdcli"},
		programtest.Program{Name: "volume-plugin", Package: "examples/volume-plugin"},
		programtest.Program{Name: "isolator-bridge", Package: "isolator-bridge", Flags: race},
		programtest.Program{Name: "dvdi-framework", Package: "framework", Flags: race},
	))
}
