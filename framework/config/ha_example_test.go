package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mesos-dvdi/dvdi/framework/detect"
)

// TestThreeNodeExample reads the settings of the three-node installation as its
// unit does.
func TestThreeNodeExample(t *testing.T) {
	dir := filepath.Join(examples, "ha")
	unit, err := os.ReadFile(filepath.Join(dir, "dvdi-framework.service"))
	if err != nil {
		t.Fatal(err)
	}
	var args []string
	for line := range strings.Lines(string(unit)) {
		if command, ok := strings.CutPrefix(line, "ExecStart="); ok {
			args = strings.Fields(command)[1:]
		}
	}
	for i, a := range args {
		args[i] = strings.Replace(a, "/etc/dvdi", dir, 1)
	}
	cfg, err := read(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	e, err := detect.ParseEnsemble(cfg.ZooKeeper)
	if err != nil || len(e.Servers) != 3 || !strings.HasPrefix(cfg.Master, "zk://") {
		t.Errorf("%+v, %v", cfg, err)
	}
	if !strings.Contains(string(unit), "RestartPreventExitStatus=110 112") {
		t.Error("the unit starts a framework again that only a person can help")
	}
}
