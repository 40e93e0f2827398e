package marathon_test

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/devcluster"
)

// The variables of mesos-module-dvdi mount a volume, and listeners hear that
// they are deprecated.
func TestVariablesOfTheOldModule(t *testing.T) {
	e := start(t, 2)
	old := plain("/old", 1)
	old["cmd"] = `echo "$MESOS_TASK_ID" >> legacy/log && grep -q ' '"$PWD"'/legacy ' /proc/self/mounts || test -L legacy || exit 3; exec sleep 1000`
	old["env"] = object{"DVDI_VOLUME_NAME": "legacy", "DVDI_VOLUME_DRIVER": devcluster.Driver, "DVDI_VOLUME_OPTS": ""}
	e.deploy(old)
	e.running("/old", 1, nil)
	if e.attached() != 1 {
		t.Errorf("%d attachments, want 1", e.attached())
	}
	if warnings := e.heard("deprecation_event", 1); len(warnings) != 1 || warnings[0]["appId"] != "/old" {
		t.Errorf("deprecations: %v", warnings)
	}
}

// A secret from a file of the operator reaches the task and nobody else.
func TestSecretsFromFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "db", "password"), []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := start(t, 1, "--enable_features=secrets,external_volumes", "--secrets-dir="+dir)
	db := plain("/db", 1)
	db["cmd"] = `test "$PASSWORD" = hunter2 || exit 3; exec sleep 1000`
	db["secrets"] = object{"pw": object{"source": "db/password"}}
	db["env"] = object{"PASSWORD": object{"secret": "pw"}}
	e.deploy(db)
	e.running("/db", 1, nil)
	if f := e.lastFailure("/db"); f != "" {
		t.Errorf("the task did not get its secret: %s", f)
	}
	var app struct {
		App struct{ Env map[string]any }
	}
	e.must(http.MethodGet, "/v2/apps/db", nil, &app)
	if secret, ok := app.App.Env["PASSWORD"].(map[string]any); !ok || secret["secret"] != "pw" {
		t.Errorf("the API shows %v", app.App.Env)
	}
}
