package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
)

// life is a framework that is started and stopped on one state and one Mesos.
type life struct {
	t     *testing.T
	mesos *embeddedmesos.Cluster
	data  string
	*program
	api string
}

func newLife(t *testing.T) *life {
	t.Helper()
	dir := t.TempDir()
	c, err := embeddedmesos.Start(t.Context(), embeddedmesos.Config{
		Dir: filepath.Join(dir, "mesos"), Agents: []embeddedmesos.AgentConfig{{}}, Timing: embeddedmesos.FastTiming(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := c.Destroy(ctx); err != nil {
			t.Error(err)
		}
	})
	return &life{t: t, mesos: c, data: filepath.Join(dir, "data")}
}

// lifeName is the name of the framework, which maintenance commands are not told.
const lifeName = "life"

// name is what the master calls a framework of this id, running or removed.
func (l *life) name(id string) string {
	l.t.Helper()
	resp, err := http.Post("http://"+l.mesos.Addr()+"/api/v1", "application/json", strings.NewReader(`{"type":"GET_FRAMEWORKS"}`))
	if err != nil {
		l.t.Fatal(err)
	}
	defer resp.Body.Close()
	type framework struct {
		Info struct {
			ID   struct{ Value string }
			Name string
		} `json:"framework_info"`
	}
	var answer struct {
		Found struct {
			Frameworks []framework `json:"frameworks"`
			Completed  []framework `json:"completed_frameworks"`
		} `json:"get_frameworks"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		l.t.Fatal(err)
	}
	for _, f := range append(answer.Found.Frameworks, answer.Found.Completed...) {
		if f.Info.ID.Value == id {
			return f.Info.Name
		}
	}
	l.t.Fatalf("the master knows no framework %s", id)
	return ""
}

// command runs the program with a subcommand or flag to its end.
func (l *life) command(args ...string) (int, string) {
	l.t.Helper()
	return runProgram(l.t, args...)
}

func runProgram(t *testing.T, args ...string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), "DVDI_TEST_AS_PROGRAM=1")
	out, err := cmd.CombinedOutput()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

func (l *life) state() []string {
	return []string{"--data-dir=" + l.data, "--master=" + l.mesos.Addr()}
}

func (l *life) start() {
	l.t.Helper()
	l.program = start(l.t, append(l.state(), "--min_revive_offers_interval=200", "--framework_name="+lifeName)...)
	l.api = "http://" + l.serving(l.t)
	go func(p *program) {
		for range p.lines { // a full pipe would stop the program
		}
	}(l.program)
}

func (l *life) stop() {
	l.t.Helper()
	if err := l.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		l.t.Fatal(err)
	}
	if err := l.cmd.Wait(); err != nil {
		l.t.Fatalf("stopped: %v", err)
	}
}

func (l *life) get(path string, into any) {
	l.t.Helper()
	resp, err := http.Get(l.api + path)
	if err != nil {
		l.t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		l.t.Fatalf("%s: %v", path, err)
	}
}

// id is the framework's id once it has one.
func (l *life) id() string {
	l.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var info struct {
			FrameworkID string `json:"frameworkId"`
			Connected   bool   `json:"connected"`
		}
		if l.get("/v2/info?extensions=true", &info); info.Connected {
			return info.FrameworkID
		}
	}
	l.t.Fatal("no connection to the master")
	return ""
}

// runs waits until the framework has n running tasks.
func (l *life) runs(n int) {
	l.t.Helper()
	var last string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		var out struct {
			Tasks []struct{ ID, State string } `json:"tasks"`
		}
		l.get("/v2/tasks?status=running", &out)
		if len(out.Tasks) == n {
			return
		}
		last = fmt.Sprint(out)
	}
	l.t.Fatalf("%d tasks do not run: %s", n, last)
}

func (l *life) post(body string) {
	l.t.Helper()
	resp, err := http.Post(l.api+"/v2/apps", "application/json", strings.NewReader(body))
	if err != nil {
		l.t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		l.t.Fatalf("POST /v2/apps: %s", resp.Status)
	}
}

// startWithWeb starts the framework with the app /web, waits until its two
// instances run, and returns the framework's id.
func (l *life) startWithWeb() (id string) {
	l.t.Helper()
	l.start()
	id = l.id()
	l.post(`{"id":"/web","cmd":"exec sleep 1000","cpus":0.1,"mem":32,"instances":2}`)
	l.runs(2)
	return id
}

// expect fails the test unless the command ended so, and said so.
func (l *life) expect(what string, want int, texts ...string) func(code int, out string) {
	return func(code int, out string) {
		l.t.Helper()
		if code != want {
			l.t.Errorf("%s: exit code %d, want %d: %s", what, code, want, out)
		}
		for _, text := range texts {
			if !strings.Contains(out, text) {
				l.t.Errorf("%s: %q lacks %q", what, out, text)
			}
		}
	}
}

func TestLifeOfAFramework(t *testing.T) {
	l := newLife(t)
	backup := filepath.Join(t.TempDir(), "backup")
	first := l.startWithWeb()
	l.expect("backup of a state in use", exitStateUnusable, "stop the other")(l.command("backup", "--data-dir="+l.data, backup))
	running := backup + ".running"
	l.expect("backup of a framework that runs", 0, "records written to "+running)(l.command("backup", "--url="+l.api, running))
	l.expect("restore, shown, to a state in use", exitStateUnusable, "cannot replace the state", "stop the other")(
		l.command("restore", "--data-dir="+l.data, running))
	l.stop()
	l.expect("a look at that", 0, "Repeat with --yes")(l.command("restore", "--data-dir="+l.data, running))
	l.expect("backup", 0, "records written to "+backup)(l.command("backup", "--data-dir="+l.data, backup))

	l.expect("new id of a framework that lives", exitMesos, "has not removed framework "+first, "dvdi-framework teardown")(
		l.command(append(l.state(), "--new-framework-id", "--yes")...))
	if name := l.name(first); name != lifeName {
		t.Errorf("asked whether it has removed the framework, the master calls it %q", name)
	}
	l.start()
	if id := l.id(); id != first {
		t.Errorf("the framework id %s became %s", first, id)
	}
	l.stop()

	// The master removes the framework.
	call := fmt.Sprintf(`{"type":"TEARDOWN","teardown":{"framework_id":{"value":%q}}}`, first)
	resp, err := http.Post("http://"+l.mesos.Addr()+"/api/v1", "application/json", strings.NewReader(call))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		t.Fatalf("teardown by the master: %s", resp.Status)
	}
	removed := func() {
		t.Helper()
		l.expect("start of a removed framework", exitFrameworkRemoved, "--new-framework-id")(start(t, l.state()...).exit(t))
	}
	removed()
	l.expect("new id, shown", 0, first+" has 2 instances", "/web", "launched again under the new id", "Repeat with --yes")(
		l.command(append(l.state(), "--new-framework-id")...))
	removed() // nothing has changed
	l.expect("new id", 0, "registers anew")(l.command(append(l.state(), "--new-framework-id", "--yes")...))
	l.start()
	second := l.id()
	if second == first {
		t.Error("the framework id is the old one")
	}
	l.runs(2)
	l.stop()

	l.expect("teardown, shown", 0, second, "Repeat with --yes")(l.command(append([]string{"teardown"}, l.state()...)...))
	l.expect("teardown", 0, "Mesos has removed the framework")(l.command(append([]string{"teardown", "--yes"}, l.state()...)...))
	if name := l.name(second); name != lifeName {
		t.Errorf("the master calls the framework %q that was torn down", name)
	}
	l.start()
	third := l.id()
	if third == second {
		t.Error("the framework id is that of the removed one")
	}
	l.runs(2)
	l.post(`{"id":"/later","cmd":"exec sleep 1000","cpus":0.1,"mem":32}`)
	l.runs(3)
	l.stop()

	l.expect("restore, shown", 0, "Repeat with --yes")(l.command("restore", "--data-dir="+l.data, backup))
	l.expect("restore", 0, "restored 1 apps with 2 instances")(l.command("restore", "--data-dir="+l.data, "--yes", backup))
	l.start()
	if id := l.id(); id != third {
		t.Errorf("after the restoration of an old backup the framework id is %s, it was %s", id, third)
	}
	var apps struct{ Apps []struct{ ID string } }
	if l.get("/v2/apps", &apps); len(apps.Apps) != 1 || apps.Apps[0].ID != "/web" {
		t.Errorf("apps %v", apps)
	}
	l.runs(2)
	l.stop()

	l.expect("teardown for good", 0)(l.command(append([]string{"teardown", "--yes", "--delete-state"}, l.state()...)...))
	l.start()
	if l.get("/v2/apps", &apps); len(apps.Apps) != 0 {
		t.Errorf("apps %v are left", apps)
	}
	l.stop()
}

// The state is lost and the framework started without it: the backup that is then
// restored has the framework be what it was, so that its tasks are its own again.
func TestABackupAfterAStartWithoutTheState(t *testing.T) {
	l := newLife(t)
	backup := filepath.Join(t.TempDir(), "backup")
	first := l.startWithWeb()
	before := l.tasks()
	l.stop()
	l.expect("backup", 0, "records written to "+backup)(l.command("backup", "--data-dir="+l.data, backup))

	l.data = t.TempDir()
	l.start()
	second := l.id()
	if second == first {
		t.Fatal("the framework has its id without its state")
	}
	l.post(`{"id":"/other","cmd":"exec sleep 1000","cpus":0.1,"mem":32}`)
	l.runs(1)
	l.stop()
	l.expect("restore over an app that runs, shown", exitOther, "cannot replace the state", second+", which has 1 tasks")(
		l.command("restore", "--data-dir="+l.data, backup))
	l.expect("restore over an app that runs", exitOther, second+", which has 1 tasks", "nothing was changed")(
		l.command("restore", "--data-dir="+l.data, "--yes", backup))
	l.expect("teardown", 0)(l.command(append([]string{"teardown", "--yes", "--delete-state"}, l.state()...)...))
	l.start()
	third := l.id()
	l.stop()

	missing := filepath.Join(t.TempDir(), "missing")
	l.expect("restore, shown, where there is no state", 0, "Repeat with --yes")(l.command("restore", "--data-dir="+missing, backup))
	if _, err := os.Stat(missing); !os.IsNotExist(err) {
		t.Errorf("a look at a backup made a state: %v", err)
	}
	l.expect("restore", 0, "restored 1 apps with 2 instances", "goes on as framework "+first, third)(
		l.command("restore", "--data-dir="+l.data, "--yes", backup))
	l.start()
	if id := l.id(); id != first {
		t.Errorf("after the restoration the framework id is %s, it was %s", id, first)
	}
	l.runs(2)
	if after := l.tasks(); !slices.Equal(after, before) {
		t.Errorf("tasks %v became %v", before, after)
	}
	l.stop()
}

// tasks are the ids of the tasks, sorted.
func (l *life) tasks() (ids []string) {
	l.t.Helper()
	var out struct {
		Tasks []struct{ ID string } `json:"tasks"`
	}
	l.get("/v2/tasks", &out)
	for _, t := range out.Tasks {
		ids = append(ids, t.ID)
	}
	slices.Sort(ids)
	return ids
}

func TestMaintenanceMistakes(t *testing.T) {
	dir := t.TempDir()
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"backup", "--data-dir=" + dir}, exitBadFlag, "FILE"},
		{[]string{"restore", "--data-dir=" + dir, filepath.Join(dir, "missing")}, exitBadFlag, "missing"},
		{[]string{"restore", "--data-dir=" + dir, other}, exitBadFlag, "nothing was changed"},
		{[]string{"restore", "--data-dir=" + dir, empty}, exitBadFlag, "does not begin as a backup"},
		{[]string{"replay", empty}, exitBadFlag, "no decisions"},
		{[]string{"backup", "--zk=http://x", "-"}, exitBadFlag, "zk://"},
		{[]string{"backup", "--zk=zk://127.0.0.1:1/dvdi", "--zk_connection_timeout=50", "-"}, exitStateUnusable, "127.0.0.1:1"},
	} {
		code, out := runProgram(t, tc.args...)
		if code != tc.code || !strings.Contains(out, tc.says) {
			t.Errorf("%v: exit code %d, output %q", tc.args, code, out)
		}
	}
}
