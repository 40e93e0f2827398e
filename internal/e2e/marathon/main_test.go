// Package marathon_test holds Marathon's semantics end to end: a framework
// process on an embedded Mesos, with volumes of the reference plugin in
// single-attach mode. After every event of the framework the plugin's log of
// attachments is read: no volume may ever have had two writers.
package marathon_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
	"github.com/mesos-dvdi/dvdi/internal/programtest"
)

// binaries is the directory with the programs under test, built by TestMain.
var binaries string

func TestMain(m *testing.M) {
	if protocol := os.Getenv(serveEnv); protocol != "" {
		fmt.Fprintln(os.Stderr, serveTask(protocol))
		os.Exit(1)
	}
	embeddedmesos.Main()
	os.Exit(programtest.Run(m, func(dir string) { binaries = dir },
		programtest.Program{Name: "dvdcli", Package: "dvdcli"},
		programtest.Program{Name: "volume-plugin", Package: "examples/volume-plugin"},
		programtest.Program{Name: "dvdi-framework", Package: "framework"},
	))
}
