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
	"context"
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
	dir, err := os.MkdirTemp("", "dvdi-e2e-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := build(context.Background(), dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
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

// build makes the programs under test; the framework with the race detector,
// where there is a C compiler for it.
func build(ctx context.Context, dir string) error {
	race := []string{}
	if _, err := exec.LookPath("gcc"); err == nil {
		race = []string{"-race"}
	}
	for _, b := range []struct {
		name, pkg string
		args      []string
	}{
		{"dvdcli", "dvdcli", nil},
		{"volume-plugin", "examples/volume-plugin", nil},
		{"isolator-bridge", "isolator-bridge", race},
		{"dvdi-framework", "framework", race},
	} {
		args := append(append([]string{"build"}, b.args...), "-o", filepath.Join(dir, b.name), "../../"+b.pkg)
		if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", b.pkg, err, out)
		}
	}
	return nil
}
