// Package integration tests the bridge with agents that run real tasks: those of
// the embedded Mesos, with a driver made for tests and with rclone's.
package integration

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
	"github.com/mesos-dvdi/dvdi/internal/programtest"
	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
)

var bin string

func TestMain(m *testing.M) {
	embeddedmesos.Main()
	volumetest.Main()
	os.Exit(programtest.Run(m, func(dir string) { bin = dir },
		programtest.Program{Name: "isolator-bridge", Package: "isolator-bridge"},
		programtest.Program{Name: "dvdcli", Package: "dvdcli"},
	))
}

// patience bounds every wait: long, for machines that are busy.
const patience = time.Minute

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
