package hatest

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/mesos-dvdi/dvdi/internal/devcluster"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
)

// TestFrameworkKilledAtCommits has an operator deploy, scale, update, kill and
// delete while the framework is killed with SIGKILL at its commits, each life at
// a later one, before it or after it. The end is the same as without kills.
//
// The core's own tests kill at every commit of every scenario, within one
// process; this one shows that processes, files and the real protocol add nothing.
func TestFrameworkKilledAtCommits(t *testing.T) {
	lives := 10
	if os.Getenv("DVDI_LONG") != "" {
		lives = 80
	}
	dir, err := os.MkdirTemp("", "dvdi-kill")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("something was left in use: %v", err)
		}
	})
	c, err := devcluster.Start(t.Context(), devcluster.Config{
		Dir: dir, Bin: binaries, Agents: 2, Timing: embeddedmesos.FastTiming(), Log: zaptest.NewLogger(t, zaptest.Level(zap.ErrorLevel)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	e := &env{t: t, dir: dir, starts: filepath.Join(dir, "starts")}
	if err := os.Mkdir(e.starts, 0o777); err != nil {
		t.Fatal(err)
	}
	m := prepareMember(t, "framework", dir, &e.leads, "--master", c.Mesos.Addr(), "--data-dir", filepath.Join(dir, "data"),
		"--min_revive_offers_interval", "200", "--reconciliation_initial_delay", "1000")
	e.members = []*member{m}
	m.program = "dvdi-framework-faults"
	m.env = func(life int) []string {
		if life >= lives {
			return nil
		}
		return []string{fmt.Sprintf("DVDI_FAULT_COMMIT=%d:%s", 1+life/2, []string{"before", "after"}[life%2])}
	}
	m.run()

	for round := 0; ; round++ {
		e.operate(fmt.Sprintf("/round%d", round))
		if n, _ := m.exited(); n >= lives || t.Failed() {
			break
		}
	}
	after := e.settled()
	if len(after.Tasks) == 0 {
		t.Error("nothing runs")
	}
	for id, tasks := range after.Tasks {
		want := 1
		if strings.HasSuffix(id, "/web") {
			want = 3
		}
		if len(tasks) != want || strings.HasSuffix(id, "/gone") {
			t.Errorf("%s runs %v", id, tasks)
		}
	}
	e.neverTwice()
}

// operate does what an operator does, each step until it is done.
func (e *env) operate(prefix string) {
	e.t.Helper()
	web, db, gone := e.app(prefix+"/web", 1, ""), e.app(prefix+"/db", 1, strings.Trim(prefix, "/")), e.app(prefix+"/gone", 1, "")
	e.until("deploy", http.MethodPut, "/v2/apps?force=true", []object{web, db, gone})
	e.until("scale", http.MethodPut, "/v2/apps"+prefix+"/web?force=true", object{"instances": 3})
	e.until("update", http.MethodPut, "/v2/apps"+prefix+"/web?force=true", object{"labels": object{"updated": "yes"}})
	e.until("kill", http.MethodDelete, "/v2/apps"+prefix+"/db/tasks", nil)
	e.until("update with volume", http.MethodPut, "/v2/apps"+prefix+"/db?force=true", object{"labels": object{"updated": "yes"}})
	e.until("delete", http.MethodDelete, "/v2/apps"+prefix+"/gone", nil)
}

// until repeats a request until it is answered; what it asks for may have been
// done by a life that did not answer any more.
func (e *env) until(what, method, path string, body any) {
	e.t.Helper()
	e.poll(what, func() (bool, string) {
		ctx, cancel := context.WithTimeout(e.t.Context(), 5*time.Second)
		defer cancel()
		err := e.members[0].Do(ctx, method, path, body, nil)
		if method == http.MethodDelete && err != nil && strings.Contains(err.Error(), "answered 404") {
			return true, ""
		}
		return err == nil, fmt.Sprint(err)
	})
}

// neverTwice fails the test if a task was started twice.
func (e *env) neverTwice() {
	e.t.Helper()
	files, err := os.ReadDir(e.starts)
	if err != nil {
		e.t.Fatal(err)
	}
	twice := slices.DeleteFunc(files, func(f os.DirEntry) bool {
		content, err := os.ReadFile(filepath.Join(e.starts, f.Name()))
		return err == nil && strings.Count(string(content), "\n") == 1
	})
	if len(twice) > 0 || len(files) == 0 {
		e.t.Errorf("of %d tasks these were not started once: %v", len(files), twice)
	}
}
