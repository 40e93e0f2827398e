package hatest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
)

// binaries is the directory with the programs under test, built by TestMain.
var binaries string

func TestMain(m *testing.M) {
	embeddedmesos.Main()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "dvdi-ha-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	for _, b := range [][]string{
		{"-o", filepath.Join(dir, "dvdcli"), "../../dvdcli"},
		{"-o", filepath.Join(dir, "volume-plugin"), "../../examples/volume-plugin"},
		{"-o", filepath.Join(dir, "dvdi-framework"), "../../framework"},
		{"-tags", "faultpoints", "-o", filepath.Join(dir, "dvdi-framework-faults"), "../../framework"},
	} {
		if out, err := exec.Command("go", append([]string{"build"}, b...)...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build %v: %v\n%s", b, err, out)
			return 1
		}
	}
	binaries = dir
	status := m.Run()
	if status == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}
	return status
}
