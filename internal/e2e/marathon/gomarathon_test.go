package marathon_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/devcluster"
)

// TestGoMarathon runs the tests of a module of its own, which hold
// github.com/gambol99/go-marathon as a client, against the framework.
func TestGoMarathon(t *testing.T) {
	module := filepath.Join("..", "..", "thirdparty", "go-marathon")
	download := exec.Command("go", "mod", "download")
	download.Dir = module
	if out, err := download.CombinedOutput(); err != nil {
		t.Skipf("the client cannot be downloaded: %v\n%s", err, out)
	}
	e := start(t, 2)
	cmd := exec.CommandContext(e.ctx, "go", "test", "-count=1", "-v", "-timeout=8m", ".")
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "DVDI_MARATHON_URL="+e.URL, "DVDI_VOLUME_DRIVER="+devcluster.Driver)
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Contains(string(out), "--- SKIP") || !strings.Contains(string(out), "--- PASS: TestVolume") {
		t.Errorf("%v\n%s", err, out)
	}
}
