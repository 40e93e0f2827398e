package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
	"go.uber.org/goleak"

	"github.com/mesos-dvdi/dvdi/framework/api"
	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/client"
	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/framework/core/mesostest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	user, password = "operator", "s3cret"
	patience       = time.Minute
)

// framework is a whole framework on a simulated cluster. Tasks of apps whose
// command is "false" fail.
func framework(t *testing.T) *mesostest.Framework {
	t.Helper()
	return mesostest.Start(t, mesostest.Config{Outcome: func(task core.Task) string {
		if task.App.Cmd == "false" {
			return "TASK_FAILED"
		}
		return "TASK_RUNNING"
	}}, core.Config{ReviveInterval: 10 * time.Millisecond, Tick: 20 * time.Millisecond}, api.Config{
		User: user, Password: password, Version: "test",
		Marathon: map[string]any{"mesos_role": "*", "features": []string{"external_volumes"}},
	})
}

// result is what a run of the program left.
type result struct {
	t           *testing.T
	out, errOut string
	err         error
}

// invoke runs a subcommand as main does.
func invoke(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out, errOut bytes.Buffer
	a := &cli.App{Name: "dvdi-framework", Commands: Commands(), Writer: &out, ErrWriter: &errOut, Reader: strings.NewReader(stdin),
		ExitErrHandler: func(*cli.Context, error) {}}
	err := a.RunContext(ctx, append([]string{"dvdi-framework"}, args...))
	return result{t, out.String(), errOut.String(), err}
}

// against runs a subcommand against a framework.
func against(t *testing.T, f *mesostest.Framework, stdin string, args ...string) result {
	t.Helper()
	t.Setenv("DVDI_URL", f.URL)
	t.Setenv("DVDI_CREDENTIALS", user+":"+password)
	return invoke(t, stdin, args...)
}

// says demands success, or the error that target fits, and texts in the output.
func (r result) says(target error, texts ...string) {
	r.t.Helper()
	if !errors.Is(r.err, target) {
		r.t.Fatalf("error %v, want %v; output: %s%s", r.err, target, r.out, r.errOut)
	}
	for _, text := range texts {
		if !strings.Contains(r.out, text) {
			r.t.Errorf("no %q in: %s", text, r.out)
		}
	}
}

func (r result) refused(text string) {
	r.t.Helper()
	var mistake *UsageError
	if !errors.As(r.err, &mistake) || !strings.Contains(r.err.Error(), text) {
		r.t.Errorf("error %v is no mistake in usage with %q", r.err, text)
	}
}

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.json")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const withVolume = `{"id":"/db","cmd":"sleep 100","container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW",
	"external":{"provider":"dvdi","name":"dbdata","options":{"dvdi/driver":"refvol"}}}]}}`

func TestValidate(t *testing.T) {
	good := write(t, withVolume)
	invoke(t, "", "app", "validate", good).says(nil, good+" /db: valid")
	invoke(t, withVolume, "app", "validate", "-").says(nil, "- /db: valid")

	bad := write(t, `[{"id":"/a","cmd":"x","cpus":-1},{"id":"/b","cmd":"x"}]`)
	invoke(t, "", "app", "validate", bad).says(ErrInvalid, "/a: Invalid JSON", "/cpus: error.min", "/b: valid")
	invoke(t, "", "app", "validate", good, write(t, strings.Replace(withVolume, "/db", "/db2", 1))).
		says(ErrInvalid, "Volume name 'dbdata'", "conflicts")
	invoke(t, "", "app", "validate", good, good).says(ErrInvalid, "is defined twice")
	invoke(t, "", "app", "validate", write(t, `{"id":`)).says(ErrInvalid, "Invalid JSON")
	invoke(t, "", "app", "validate", write(t, `[{"id":"/a"`)).says(ErrInvalid, "Invalid JSON")

	r := invoke(t, "", "app", "validate", "--output", "json", bad)
	r.says(ErrInvalid)
	var findings []finding
	if err := json.Unmarshal([]byte(r.out), &findings); err != nil || len(findings) != 2 || findings[0].Valid || findings[0].Details[0].Path != "/cpus" || !findings[1].Valid {
		t.Errorf("%v: %s", err, r.out)
	}
}

func TestValidateWithTheFrameworksSettings(t *testing.T) {
	secret := write(t, `{"id":"/a","cmd":"x","role":"prod","env":{"P":{"secret":"s"}},"secrets":{"s":{"source":"x"}}}`)
	invoke(t, "", "app", "validate", secret).says(ErrInvalid, "/role", "secrets feature")
	invoke(t, "", "app", "validate", "--mesos_role", "prod", "--enable_features", "secrets,external_volumes", secret).says(nil)
	t.Setenv("DVDI_MESOS_ROLE", "prod")
	t.Setenv("DVDI_ENABLE_FEATURES", "secrets")
	invoke(t, "", "app", "validate", secret).says(nil)
}

func TestUsage(t *testing.T) {
	invoke(t, "", "app", "validate").refused("FILE")
	invoke(t, "", "app", "validate", "/nonexistent").refused("/nonexistent")
	invoke(t, "", "app", "validate", "--output", "xml", "-").refused("xml")
	invoke(t, "", "app", "deploy", "file", "--wait").refused("flags come first")
	invoke(t, "", "app", "show").refused("ID")
	invoke(t, "", "app", "show", "A B").refused("A B")
	invoke(t, "", "app", "list", "--url", "nonsense").refused("nonsense")
	invoke(t, "", "app", "list", "--ca", "/nonexistent").refused("/nonexistent")
	invoke(t, "", "app", "list", "--credentials", "nopassword").refused("USER:PASSWORD")
	invoke(t, "", "volume", "release", "d").refused("DRIVER NAME")
	invoke(t, "", "volume", "keep", "d").refused("DRIVER NAME")
	invoke(t, "", "volume", "release", "d", "v").refused("--force")
}

func TestNobodyAnswers(t *testing.T) {
	r := invoke(t, "", "status", "--url", "http://127.0.0.1:1")
	var unreachable *client.UnreachableError
	if !errors.As(r.err, &unreachable) || !strings.Contains(r.err.Error(), "DVDI_URL") {
		t.Errorf("error %v", r.err)
	}
}

func TestCredentials(t *testing.T) {
	f := framework(t)
	r := invoke(t, "", "status", "--url", f.URL)
	var refused *client.Error
	if !errors.As(r.err, &refused) || refused.Status != 401 || !strings.Contains(r.err.Error(), "--credentials") {
		t.Errorf("error %v", r.err)
	}
	invoke(t, "", "status", "--url", f.URL, "--credentials", user+":"+password).says(nil, "connected to Mesos")
	invoke(t, "", "status", "--url", strings.Replace(f.URL, "://", "://"+user+":"+password+"@", 1)).says(nil)
}

func TestLifeOfAnApp(t *testing.T) {
	f := framework(t)
	file := write(t, withVolume)
	against(t, f, "", "app", "diff", file).says(ErrDiffers, "/db: new")
	against(t, f, "", "app", "deploy", "--wait", file).says(nil, "started", "deployment succeeded")
	against(t, f, "", "app", "diff", file).says(nil, "/db: no differences")
	against(t, f, "", "app", "list").says(nil, "/db", "1/1", "dbdata")
	against(t, f, "", "app", "show", "db").says(nil, "1 of 1", "TASK_RUNNING", "host")
	against(t, f, "", "volume", "list").says(nil, "refvol", "dbdata", "held", "/db")
	against(t, f, "", "volume", "show", "dbdata").says(nil, "explanation", "/db")
	against(t, f, "", "volume", "show", "refvol", "dbdata").says(nil)
	against(t, f, "", "status").says(nil, "1 of 1 instances running")

	changed := write(t, strings.Replace(withVolume, `"cmd":"sleep 100"`, `"cmd":"sleep 200","cpus":2,"labels":{"x":"y"}`, 1))
	against(t, f, "", "app", "diff", changed).says(ErrDiffers, "~ /cpus: 1 -> 2", "+ /labels/x: \"y\"", `"sleep 100" -> "sleep 200"`)
	r := against(t, f, "", "app", "diff", "-o", "json", changed)
	var diffs []appDiff
	if err := json.Unmarshal([]byte(r.out), &diffs); err != nil || len(diffs) != 1 || len(diffs[0].Differences) != 3 {
		t.Errorf("%v: %s", err, r.out)
	}
	r = against(t, f, "", "app", "deploy", "--wait", "-o", "json", changed)
	var done outcome
	if err := json.Unmarshal([]byte(r.out), &done); err != nil || !done.Success || done.ID == "" || !strings.Contains(r.errOut, "started") {
		t.Errorf("%v: %s%s", err, r.out, r.errOut)
	}
	r = against(t, f, "", "app", "show", "-o", "json", "/db")
	var shown struct {
		App struct {
			CPUs  float64 `json:"cpus"`
			Tasks []any   `json:"tasks"`
		} `json:"app"`
	}
	if err := json.Unmarshal([]byte(r.out), &shown); err != nil || shown.App.CPUs != 2 || len(shown.App.Tasks) != 1 {
		t.Errorf("%v: %s", err, r.out)
	}
	against(t, f, `{"id":"/db","cmd":"x","cpus":-1}`, "app", "diff", "-").says(ErrInvalid, "/cpus: error.min")
	against(t, f, `{"cmd":"x"}`, "app", "diff", "-").says(ErrInvalid, "/id")
	against(t, f, `{"id":"/new","cmd":"x","cpus":-1}`, "app", "diff", "-").says(ErrInvalid, "/cpus: error.min")
	// A file is complete: what it does not name goes back to its default.
	against(t, f, "", "app", "deploy", file).says(nil, "DEPLOYMENT")
	against(t, f, "", "app", "show", "/none").refusedBy(404)
}

func (r result) refusedBy(status int) {
	r.t.Helper()
	var answer *client.Error
	if !errors.As(r.err, &answer) || answer.Status != status {
		r.t.Errorf("error %v, want one of status %d", r.err, status)
	}
}

func TestServersRefusal(t *testing.T) {
	f := framework(t)
	against(t, f, withVolume, "app", "deploy", "--wait", "-").says(nil)
	// Valid by itself, but not beside what runs.
	r := against(t, f, strings.Replace(withVolume, "/db", "/other", 1), "app", "deploy", "-")
	r.refusedBy(422)
	if !strings.Contains(r.err.Error(), "Volume name 'dbdata'") {
		t.Errorf("the reason is not shown: %v", r.err)
	}
	r = against(t, f, `[{"id":"/ok","cmd":"x"},{"id":"/bad","cmd":"x","cpus":-1}]`, "app", "deploy", "--wait", "-")
	r.refusedBy(422)
	if !strings.Contains(r.err.Error(), "(1)/cpus: error.min") {
		t.Errorf("the place of the mistake is not shown: %v", r.err)
	}
	against(t, f, `{"id":"/x",`, "app", "deploy", "-").says(ErrInvalid, "Invalid JSON")
	against(t, f, `[{"id":"/x"`, "app", "deploy", "-").says(ErrInvalid, "Invalid JSON")
	against(t, f, `{"id":"/huge","cmd":"x","cpus":1000}`, "app", "deploy", "-").says(nil)
	r = against(t, f, `{"id":"/huge","cmd":"x","cpus":1001}`, "app", "deploy", "-")
	r.refusedBy(409)
	if !strings.Contains(r.err.Error(), "locked by deployment") {
		t.Errorf("the lock is not shown: %v", r.err)
	}
}

func TestWaitForWhatCannotBe(t *testing.T) {
	f := framework(t)
	// Time enough, on a busy machine too, to begin and to ask how it goes.
	r := against(t, f, `{"id":"/huge","cmd":"x","cpus":1000}`, "app", "deploy", "--wait", "--timeout", "10s", "-")
	var failed *DeploymentError
	if !errors.As(r.err, &failed) || !strings.Contains(r.err.Error(), "--timeout") || !strings.Contains(r.out, "0 of 1 running, waiting") {
		t.Errorf("error %v, output %s", r.err, r.out)
	}
	against(t, f, "", "app", "show", "/huge").says(nil, "waiting")
	against(t, f, "", "status").says(nil, "waiting", "step")
}

func TestCancelledDeployment(t *testing.T) {
	f := framework(t)
	var cancelled atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for ctx.Err() == nil && !cancelled.Load() {
			list, err := f.Core.Deployments(ctx)
			if err == nil && len(list) == 1 {
				_, err = f.Core.CancelDeployment(ctx, list[0].ID, true)
				cancelled.Store(err == nil)
			}
		}
	}()
	r := against(t, f, `{"id":"/crash","cmd":"false"}`, "app", "deploy", "--wait", "-")
	<-done
	var failed *DeploymentError
	if !errors.As(r.err, &failed) || !strings.Contains(r.err.Error(), "failed") {
		t.Errorf("error %v", r.err)
	}
}

func TestReleaseOfAVolume(t *testing.T) {
	f := framework(t)
	against(t, f, withVolume, "app", "deploy", "--wait", "-").says(nil)
	if _, err := f.Core.Change(t.Context(), core.Change{Delete: []app.ID{"/db"}}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); f.Running() > 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	against(t, f, "", "volume", "release", "--force", "refvol", "dbdata").says(nil, "released")
	against(t, f, "", "volume", "show", "dbdata").refusedBy(404)
	against(t, f, "", "volume", "release", "--force", "refvol", "dbdata").refusedBy(404)
	against(t, f, "", "volume", "keep", "refvol", "dbdata").refusedBy(404)
}

// withPersistent is the URL of a framework with one volume of a driver, two Mesos
// persistent volumes and the reservation of one that nobody has.
func withPersistent(t *testing.T) string {
	answer := `{"volumes":[{"driver":"refvol","name":"dbdata","apps":["/db"],"hostname":"h1","state":"held"}],
		"persistent":[{"id":"a#data#1","app":"/a","containerPath":"data","agentId":"S1","hostname":"h2","shared":true,"instances":["a.1","a.2"]},
			{"id":"b#data#1","app":"/b","containerPath":"data","agentId":"S1","hostname":"h3","shared":false,"instances":["b.1"]}],
		"leftovers":[{"agentId":"S4","hostname":"h4","instance":"c.1","persistenceIds":["c#data#1","c#log#1"],"text":"it came too late"}]}`
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/volumes" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, answer) // a client that has gone fails the test itself
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// The list of volumes has Mesos's persistent ones behind those of drivers, as
// GET /v2/volumes tells of them.
func TestPersistentVolumesAreListed(t *testing.T) {
	url := withPersistent(t)
	r := invoke(t, "", "volume", "list", "--url", url)
	r.says(nil)
	var rows [][]string
	for line := range strings.Lines(r.out) {
		rows = append(rows, strings.Fields(line))
	}
	want := [][]string{
		{"DRIVER", "NAME", "STATE", "HOST", "APPS", "AGE"},
		{"refvol", "dbdata", "held", "h1", "/db", "-"},
		{"-", "a#data#1", "persistent,", "shared", "h2", "/a", "-"},
		{"-", "b#data#1", "persistent", "h3", "/b", "-"},
		{"-", "c#data#1,c#log#1", "left", "over", "h4", "-", "-"},
	}
	if !slices.EqualFunc(rows, want, slices.Equal) {
		t.Errorf("listed are %q", rows)
	}
	r = invoke(t, "", "volume", "list", "-o", "json", "--url", url)
	r.says(nil)
	var listed []struct {
		Name, ID      string
		ContainerPath string
		Shared        bool
		Instances     []string
		Text          string
	}
	if err := json.Unmarshal([]byte(r.out), &listed); err != nil || len(listed) != 4 || listed[3].Text == "" || listed[0].Name != "dbdata" || listed[1].ID != "a#data#1" ||
		listed[1].ContainerPath != "data" || !listed[1].Shared || len(listed[1].Instances) != 2 || listed[2].Shared {
		t.Errorf("%v: %s", err, r.out)
	}
}

// A Mesos persistent volume is shown by its persistence id, which the list and the
// tasks of its app tell.
func TestPersistentVolumesAreShown(t *testing.T) {
	url := withPersistent(t)
	show := func(args ...string) result {
		return invoke(t, "", append([]string{"volume", "show", "--url", url}, args...)...)
	}
	r := show("a#data#1")
	r.says(nil, "volume", "a#data#1", "persistent, shared", "h2", "S1", "/a", "container path", "a.1,a.2")
	if strings.Contains(r.out, "b#data#1") {
		t.Errorf("another is shown too: %s", r.out)
	}
	show("c#log#1").says(nil, "left over", "h4", "S4", "c.1", "it came too late")
	show("dbdata").says(nil, "refvol", "held")
	show("a#data").refusedBy(404)
	show("refvol", "a#data#1").refusedBy(404)

	r = show("-o", "json", "b#data#1")
	r.says(nil)
	var shown []map[string]any
	if err := json.Unmarshal([]byte(r.out), &shown); err != nil || len(shown) != 1 || shown[0]["id"] != "b#data#1" || shown[0]["app"] != "/b" {
		t.Errorf("%v: %s", err, r.out)
	}
}
