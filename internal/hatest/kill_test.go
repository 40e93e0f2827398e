package hatest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/detect/zktest"
	"github.com/mesos-dvdi/dvdi/internal/devcluster"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
)

// fault is what a framework that was built for tests reads from its fault file.
type fault struct {
	Commit int    `json:"commit"`
	Text   string `json:"text,omitempty"`
	After  bool   `json:"after"`
	Stop   bool   `json:"stop,omitempty"`
	// Arming tells two faults apart that are alike otherwise: the framework counts
	// its commits anew for each.
	Arming string `json:"arming"`
}

// faultFile tells the framework what is to happen to it.
type faultFile struct {
	t    *testing.T
	path string
}

func (f faultFile) env() []string { return []string{"DVDI_FAULT_FILE=" + f.path} }

// arm has the fault happen once.
func (f faultFile) arm(fault fault) {
	f.t.Helper()
	fault.Arming = rand.Text()
	content, err := json.Marshal(fault)
	if err == nil {
		// The framework never sees half of it.
		err = errors.Join(os.WriteFile(f.path+".new", content, 0o600), os.Rename(f.path+".new", f.path))
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// disarm tells whether the fault has happened, and takes it back if not.
func (f faultFile) disarm() (happened bool) {
	f.t.Helper()
	err := os.Remove(f.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.t.Fatal(err)
	}
	return err != nil
}

// sampledCommits are the commits of an operation at which make test kills; a
// deployment of three apps has about ten. With DVDI_LONG each operation is killed
// at every commit that it has, before and after.
var sampledCommits = []int{1, 3, 5, 2, 7, 4, 6}

// TestFrameworkKilledAtCommits has an operator deploy, scale, update, kill, delete
// and import while the framework is killed with SIGKILL at one commit of each
// operation, before it is written or after it. The end is the same as without
// kills.
//
// The core's own tests kill at every commit of every scenario, within one
// process; this one shows that processes, files, ZooKeeper and the real protocol
// add nothing.
func TestFrameworkKilledAtCommits(t *testing.T) {
	t.Parallel()
	t.Run("bolt", func(t *testing.T) {
		t.Parallel()
		killAtCommits(t, newKillEnv(t, func(dir string) []string { return []string{"--data-dir", filepath.Join(dir, "data")} }), 0)
	})
	t.Run("zookeeper", func(t *testing.T) {
		t.Parallel()
		server := zktest.Start(t)
		killAtCommits(t, newKillEnv(t, func(string) []string {
			return []string{"--zk", "zk://" + server.Addr + "/dvdi", "--zk_session_timeout", "1000"}
		}), len(sampledCommits)/2)
	})
}

// killEnv is one framework that is killed, and another from which apps are taken
// over.
type killEnv struct {
	*env
	member *member
	source *devcluster.Framework
	faults faultFile
}

func newKillEnv(t *testing.T, state func(dir string) []string) *killEnv {
	t.Helper()
	e, c := newMesos(t, embeddedmesos.FastTiming())
	k := &killEnv{env: e, faults: faultFile{t, filepath.Join(e.dir, "fault")}}
	var err error
	k.source, err = c.StartFramework(t.Context(), devcluster.FrameworkOptions{Data: "source",
		Args: []string{"--framework_name", "source", "--min_revive_offers_interval", "200"}})
	if err != nil {
		t.Fatal(err)
	}
	k.member = prepareMember(t, "framework", k.dir, &k.leads, append([]string{"--master", c.Mesos.Addr(),
		"--min_revive_offers_interval", "200", "--reconciliation_initial_delay", "1000"}, state(k.dir)...)...)
	k.members = []*member{k.member}
	k.member.program = "dvdi-framework-faults"
	k.member.env = func(int) []string { return k.faults.env() }
	k.member.run()
	return k
}

// killAtCommits goes through the operations with kills: the sample, beginning at
// first, or with DVDI_LONG round by round at the next commit until no operation has
// so many.
func killAtCommits(t *testing.T, k *killEnv, first int) {
	const sampledRounds = 2
	kills, long := 0, os.Getenv("DVDI_LONG") != ""
	for round := 0; ; round++ {
		happened := 0
		for n, op := range k.operations(fmt.Sprintf("/round%d", round)) {
			f := fault{Commit: sampledCommits[(first+round+n)%len(sampledCommits)], After: (round+n)%2 == 1}
			if long {
				f = fault{Commit: 1 + round/2, After: round%2 == 1}
			}
			if k.operate(op, f) {
				happened++
				t.Logf("round %d: %s: killed at commit %d, after it: %v", round, op.what, f.Commit, f.After)
			}
		}
		k.cleanUp(fmt.Sprintf("/round%d", round))
		kills += happened
		if t.Failed() || !long && round+1 == sampledRounds || long && happened == 0 && round%2 == 1 {
			break
		}
	}
	// On a busy machine it may also lose its session, and end by itself.
	if n := k.member.killed(); n != kills || kills < 5 {
		t.Errorf("%d faults happened, it was killed %d times", kills, n)
	}
	k.neverTwice()
}

// operation is something an operator does.
type operation struct {
	what string
	// before, where it is not nil, prepares it; nothing is killed meanwhile.
	before func()
	// request is repeated until it succeeds.
	request func(ctx context.Context) error
	// done tells whether everything that follows from it has happened.
	done func(c cluster) bool
}

// operate does it with a fault, and waits for its end.
func (k *killEnv) operate(op operation, f fault) (killed bool) {
	k.t.Helper()
	if op.before != nil {
		op.before()
	}
	k.faults.arm(f)
	k.poll(op.what+" to be taken", func() (bool, string) {
		ctx, cancel := context.WithTimeout(k.t.Context(), deadline/4)
		defer cancel()
		err := op.request(ctx)
		return err == nil, fmt.Sprint(err)
	})
	k.poll("the end of "+op.what, func() (bool, string) {
		c, settled, why := k.look(k.leader())
		return settled && op.done(c), fmt.Sprint(why, " ", c.Tasks)
	})
	return k.faults.disarm()
}

// operations are what an operator does with the apps below a group.
func (k *killEnv) operations(group string) []operation {
	web, db, gone := k.app(group+"/web", 1, ""), k.app(group+"/db", 1, strings.Trim(group, "/")), k.app(group+"/gone", 1, "")
	call := func(method, path string, body any) func(ctx context.Context) error {
		return func(ctx context.Context) error {
			err := k.member.Do(ctx, method, path, body, nil)
			var refused *devcluster.StatusError
			if method == http.MethodDelete && errors.As(err, &refused) && refused.Status == http.StatusNotFound {
				return nil // a life that did not answer any more has done it
			}
			return err
		}
	}
	var before cluster
	runs := func(app string, n int) func(c cluster) bool {
		return func(c cluster) bool { return len(c.Tasks[group+app]) == n }
	}
	replaced := func(app string, n int) func(c cluster) bool {
		return func(c cluster) bool {
			return runs(app, n)(c) && !slices.ContainsFunc(c.Tasks[group+app], func(id string) bool {
				return slices.Contains(before.Tasks[group+app], id)
			})
		}
	}
	remember := func() { before = k.settled() }
	label := object{"labels": object{"updated": "yes"}}
	return []operation{
		{"deploy", nil, call(http.MethodPut, "/v2/apps?force=true", []object{web, db, gone}), func(c cluster) bool {
			return runs("/web", 1)(c) && runs("/db", 1)(c) && runs("/gone", 1)(c)
		}},
		{"scale", nil, call(http.MethodPut, "/v2/apps"+group+"/web?force=true", object{"instances": 3}), runs("/web", 3)},
		{"update", remember, call(http.MethodPut, "/v2/apps"+group+"/web?force=true", label), replaced("/web", 3)},
		{"kill", remember, call(http.MethodDelete, "/v2/apps"+group+"/db/tasks", nil), replaced("/db", 1)},
		{"update with volume", remember, call(http.MethodPut, "/v2/apps"+group+"/db?force=true", label), replaced("/db", 1)},
		{"delete", nil, call(http.MethodDelete, "/v2/apps"+group+"/gone", nil), func(c cluster) bool {
			_, exists := c.Tasks[group+"/gone"]
			return !exists
		}},
		{"import", func() { k.runAtSource(group + "/imported") }, k.importer(group + "/imported"), runs("/imported", 1)},
	}
}

// runAtSource has an app with a volume run at the framework that is taken over.
func (k *killEnv) runAtSource(id string) {
	k.t.Helper()
	if err := k.source.Do(k.t.Context(), http.MethodPost, "/v2/apps", k.app(id, 1, strings.ReplaceAll(strings.Trim(id, "/"), "/", "-")), nil); err != nil {
		k.t.Fatal(err)
	}
	k.poll(id+" to run at the source", func() (bool, string) {
		tasks, err := k.source.Tasks(k.t.Context(), id)
		return err == nil && len(tasks) == 1 && tasks[0].State == "TASK_RUNNING", describe(tasks)
	})
}

// importer takes an app over; the command ends when the framework does not answer.
func (k *killEnv) importer(id string) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		out, err := exec.CommandContext(ctx, filepath.Join(binaries, "dvdi-framework"), "import", "--from", k.source.URL,
			"--url", k.member.URL, "--journal", filepath.Join(k.dir, "journal"), "--yes", id).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
}

// cleanUp deletes what a round has made.
func (k *killEnv) cleanUp(group string) {
	k.t.Helper()
	for _, c := range []*devcluster.Client{k.member.Client, k.source.Client} {
		k.poll("the end of "+group, func() (bool, string) {
			ctx, cancel := context.WithTimeout(k.t.Context(), 5*time.Second)
			defer cancel()
			err := c.Do(ctx, http.MethodDelete, "/v2/groups"+group+"?force=true", nil, nil)
			var refused *devcluster.StatusError
			return errors.As(err, &refused) && refused.Status == http.StatusNotFound, fmt.Sprint(err)
		})
	}
}

// neverTwice fails the test if a task was started twice.
func (e *env) neverTwice() {
	e.t.Helper()
	if len(e.started()) == 0 {
		e.t.Error("no task was started")
	}
}
