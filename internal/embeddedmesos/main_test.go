package embeddedmesos_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/agenttest"
)

func TestMain(m *testing.M) {
	agenttest.Main() // this binary is the scripted dvdcli, too
	embeddedmesos.Main()
	// The race detector has every process sleep for a second at its end.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}
