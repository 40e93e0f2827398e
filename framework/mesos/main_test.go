package mesos

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
)

func TestMain(m *testing.M) {
	embeddedmesos.Main() // the embedded agents run this program as executor
	goleak.VerifyTestMain(m)
}
