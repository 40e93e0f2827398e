package hatest

import (
	"os"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/devcluster/clustertest"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
)

// binaries is the directory with the programs under test, built by TestMain.
var binaries string

func TestMain(m *testing.M) {
	embeddedmesos.Main()
	os.Exit(clustertest.Run(m, func(dir string) { binaries = dir },
		clustertest.Program{Name: "dvdcli", Package: "dvdcli"},
		clustertest.Program{Name: "volume-plugin", Package: "examples/volume-plugin"},
		clustertest.Program{Name: "dvdi-framework", Package: "framework"},
		clustertest.Program{Name: "dvdi-framework-faults", Package: "framework", Flags: []string{"-tags", "faultpoints"}},
	))
}
