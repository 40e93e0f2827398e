package hatest

import (
	"bufio"
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/devcluster"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
)

// importer runs dvdi-framework import between two frameworks.
type importer struct {
	t    *testing.T
	args []string
}

// killedAfter runs the command and kills it once it has printed that many lines;
// ended tells whether it had ended before.
func (i *importer) killedAfter(lines int, extra ...string) (ended bool) {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(i.t.Context(), deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(binaries, "dvdi-framework"), append(append([]string{"import"}, i.args...), extra...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		i.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		i.t.Fatal(err)
	}
	seen := 0
	for s := bufio.NewScanner(out); s.Scan(); {
		i.t.Log(s.Text())
		if seen++; seen == lines {
			_ = cmd.Process.Kill() // it may have ended
		}
	}
	err = cmd.Wait()
	if err == nil {
		return true
	}
	if cmd.ProcessState.ExitCode() >= 0 {
		i.t.Fatalf("import ended with %v: %s", err, &stderr)
	}
	return false
}

// TestImportKilledAtEachStep takes an app with a volume from one framework over
// to another, both real, on a volume plugin that refuses a second attachment.
// The command is killed after each line that it prints, and given again; then
// the same on the way back.
func TestImportKilledAtEachStep(t *testing.T) {
	t.Parallel()
	e, c := newMesos(t, embeddedmesos.FastTiming())
	var fw [2]*devcluster.Framework
	for n, name := range []string{"old", "new"} {
		var err error
		fw[n], err = c.StartFramework(t.Context(), devcluster.FrameworkOptions{Data: name,
			Args: []string{"--framework_name", name, "--min_revive_offers_interval", "200"}})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := fw[0].Do(t.Context(), "POST", "/v2/apps", e.app("/db", 1, "import-db"), nil); err != nil {
		t.Fatal(err)
	}
	host := runsOn(t, e, fw[0], 1)
	i := &importer{t: t, args: []string{"--from", fw[0].URL, "--url", fw[1].URL, "--journal", filepath.Join(e.dir, "journal"),
		"--unmount-wait", "1s", "--yes"}} // time for kills before it
	for _, way := range []struct {
		args []string
		to   *devcluster.Framework
		from *devcluster.Framework
	}{{nil, fw[1], fw[0]}, {[]string{"--revert"}, fw[0], fw[1]}} {
		kills := 0
		// A step that is only said, not yet written down, is said again: each
		// second run gets one line further.
		for !i.killedAfter(1+kills/2, way.args...) {
			if kills++; kills > 20 {
				t.Fatal("the take-over does not come to an end")
			}
		}
		// How often depends on the machine: a kill may come after the next lines.
		if kills == 0 {
			t.Error("it was never killed")
		}
		if at := runsOn(t, e, way.to, 1); at != host {
			t.Errorf("/db runs on %s, its volume was on %s", at, host)
		}
		if tasks, err := way.from.Tasks(t.Context(), "/db"); err == nil && len(tasks) > 0 {
			t.Errorf("%v runs on", tasks)
		}
	}
}

// runsOn waits until /db runs with n tasks, and returns the host of the first.
func runsOn(t *testing.T, e *env, f *devcluster.Framework, n int) (host string) {
	t.Helper()
	e.poll("/db to run", func() (bool, string) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		tasks, err := f.Tasks(ctx, "/db")
		if err != nil || len(tasks) != n || tasks[0].State != "TASK_RUNNING" {
			return false, strings.TrimSpace(strings.Join([]string{errText(err), describe(tasks)}, " "))
		}
		host = tasks[0].Host
		return true, ""
	})
	return host
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func describe(tasks []devcluster.Task) string {
	var out []string
	for _, t := range tasks {
		out = append(out, t.ID+" "+t.State)
	}
	return strings.Join(out, ", ")
}

// TestImportOfPersistentVolumes takes an app with Mesos persistent volumes over,
// with its reservations, and gives it back, killed after each line as above: the
// task finds what all before it have left.
func TestImportOfPersistentVolumes(t *testing.T) {
	t.Parallel()
	e, c := newMesos(t, embeddedmesos.FastTiming())
	u := &upkeep{env: e}
	start := func(name string, more ...string) *devcluster.Framework {
		f, err := c.StartFramework(t.Context(), devcluster.FrameworkOptions{Data: name,
			Args: append([]string{"--framework_name", name, "--mesos_role", "db", "--min_revive_offers_interval", "200"}, more...)})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	from := start("old")
	var info struct{ FrameworkID string }
	if err := from.Do(t.Context(), "GET", "/v2/info", nil, &info); err != nil {
		t.Fatal(err)
	}
	to := start("new", "--adopt", info.FrameworkID)
	app := u.stateful("db")
	app["container"] = object{"type": "MESOS", "volumes": []object{{"containerPath": "data", "mode": "RW", "persistent": object{"size": 16}}}}
	if err := from.Do(t.Context(), "POST", "/v2/apps", app, nil); err != nil {
		t.Fatal(err)
	}
	runs := func(f *devcluster.Framework, tasks int) {
		u.members = []*member{{Client: f.Client}}
		u.runsAfter("/db", tasks)
	}
	runs(from, 0)
	i := &importer{t: t, args: []string{"--from", from.URL, "--url", to.URL, "--journal", filepath.Join(e.dir, "journal"), "--adopt", "--yes"}}
	for way, to := range []*devcluster.Framework{to, from} {
		args := [][]string{nil, {"--revert"}}[way]
		for kills := 0; !i.killedAfter(1+kills/2, args...); kills++ {
			if kills > 20 {
				t.Fatal("the take-over does not come to an end")
			}
		}
		runs(to, way+1)
	}
}
