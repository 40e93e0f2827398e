package agent_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/agenttest"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/executor"
)

func TestMain(m *testing.M) {
	agenttest.Main() // this binary is the scripted dvdcli, too
	executor.Main()
	goleak.VerifyTestMain(m)
}
