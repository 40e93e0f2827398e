package hatest

import (
	"os"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
	"github.com/mesos-dvdi/dvdi/internal/programtest"
)

// binaries is the directory with the programs under test, built by TestMain.
var binaries string

func TestMain(m *testing.M) {
	embeddedmesos.Main()
	os.Exit(programtest.Run(m, func(dir string) { binaries = dir },
		programtest.Program{Name: "dvdcli", Package: "dvdcli"},
		programtest.Program{Name: "volume-plugin", Package: "examples/volume-plugin"},
		programtest.Program{Name: "dvdi-framework", Package: "framework"},
		programtest.Program{Name: "dvdi-framework-faults", Package: "framework", Flags: []string{"-tags", "faultpoints"}},
	))
}
