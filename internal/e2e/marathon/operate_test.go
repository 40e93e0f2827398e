package marathon_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const examples = "../../../examples"

// operate runs a command of the framework's binary against the framework and
// returns its standard output; the exit code must be 0.
func (e *env) operate(args ...string) string {
	e.Helper()
	cmd := exec.CommandContext(e.ctx, filepath.Join(binaries, "dvdi-framework"), args...)
	cmd.Env = append(os.Environ(), "DVDI_URL="+e.URL)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		e.Fatalf("%v: %v\n%s%s", args, err, out, stderr.String())
	}
	return string(out)
}

// The example of instances with volumes runs as it stands, deployed and looked
// at with the operating commands.
func TestOperatingCommands(t *testing.T) {
	classes, example := filepath.Join(examples, "volume-classes.yaml"), filepath.Join(examples, "members.json")
	e := start(t, 3, "--volume-classes", classes)
	if out := e.operate("app", "validate", "--volume-classes", classes, example); !strings.Contains(out, "/members: valid") {
		t.Errorf("validate: %s", out)
	}
	if out := e.operate("app", "deploy", "--wait", "--timeout", "2m", example); !strings.Contains(out, "deployment succeeded") {
		t.Errorf("deploy: %s", out)
	}
	if out := e.operate("app", "diff", example); !strings.Contains(out, "no differences") {
		t.Errorf("diff: %s", out)
	}
	var apps []struct {
		ID           string
		TasksRunning int
	}
	if err := json.Unmarshal([]byte(e.operate("app", "list", "--output", "json")), &apps); err != nil || len(apps) != 1 || apps[0].ID != "/members" || apps[0].TasksRunning != 3 {
		t.Errorf("list: %v %+v", err, apps)
	}
	for _, volume := range []string{"member-0", "member-1", "member-2"} {
		if out := e.operate("volume", "list"); !strings.Contains(out, volume) {
			t.Errorf("volume list has no %s: %s", volume, out)
		}
	}
	if out := e.operate("app", "show", "members"); strings.Count(out, "TASK_RUNNING") != 3 {
		t.Errorf("show: %s", out)
	}
	if out := e.operate("status"); !strings.Contains(out, "3 of 3 instances running") {
		t.Errorf("status: %s", out)
	}
}
