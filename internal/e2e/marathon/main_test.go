// Package marathon_test holds Marathon's semantics end to end: a framework
// process on an embedded Mesos, with volumes of the reference plugin in
// single-attach mode. After every event of the framework the plugin's log of
// attachments is read: no volume may ever have had two writers.
package marathon_test

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
	if protocol := os.Getenv(serveEnv); protocol != "" {
		fmt.Fprintln(os.Stderr, serveTask(protocol))
		os.Exit(1)
	}
	embeddedmesos.Main()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "dvdi-marathon-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	for name, pkg := range map[string]string{"dvdcli": "dvdcli", "volume-plugin": "examples/volume-plugin", "dvdi-framework": "framework"} {
		if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, name), "../../../"+pkg).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build %s: %v\n%s", pkg, err, out)
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
