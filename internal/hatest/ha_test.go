package hatest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/mesos-dvdi/dvdi/framework/detect/zktest"
	"github.com/mesos-dvdi/dvdi/internal/devcluster"
	"github.com/mesos-dvdi/dvdi/internal/devcluster/clustertest"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
)

// deadline bounds every wait.
const deadline = 2 * time.Minute

type object = map[string]any

// env is frameworks on one Mesos. Those of newEnv are three, each with a network of
// its own to the ZooKeeper that they share.
type env struct {
	t       *testing.T
	dir     string
	zk      *zktest.Server
	relays  []*zktest.Relay
	members []*member
	leads   leads
	starts  string // directory: one file per task that was ever started, and how often
}

// newMesos starts an embedded Mesos without a framework on it, and what all
// environments have in common.
func newMesos(t *testing.T, timing embeddedmesos.Timing) (*env, *devcluster.Cluster) {
	t.Helper()
	dir := clustertest.Dir(t)
	c := clustertest.Start(t.Context(), t, devcluster.Config{
		Dir: dir, Bin: binaries, Agents: 2, Timing: timing, Log: zaptest.NewLogger(t, zaptest.Level(zap.ErrorLevel)),
	})
	e := &env{t: t, dir: dir, starts: filepath.Join(dir, "starts")}
	if err := os.Mkdir(e.starts, 0o777); err != nil {
		t.Fatal(err)
	}
	return e, c
}

// newEnv starts three frameworks.
func newEnv(t *testing.T) *env {
	t.Helper()
	e, c := newMesos(t, embeddedmesos.FastTiming())
	e.zk = zktest.StartWithSessions(t, sessionTimeout)
	for n := range 3 {
		relay := zktest.NewRelay(t, e.zk.Addr)
		e.relays = append(e.relays, relay)
		e.members = append(e.members, newMember(t, fmt.Sprintf("framework%d", n+1), e.dir, c.Mesos.Addr(),
			"zk://"+relay.Addr+"/dvdi", &e.leads, "--min_revive_offers_interval", "200", "--reconciliation_initial_delay", "1000"))
	}
	return e
}

// poll waits for a condition.
func (e *env) poll(what string, f func() (bool, string)) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), deadline)
	defer cancel()
	err := devcluster.Poll(ctx, what, func() (bool, string, error) {
		ok, text := f()
		return ok, text, nil
	})
	if err != nil {
		e.t.Fatal(err)
	}
}

// leader returns the member that answers by itself, once there is one, and that
// is connected to the master.
func (e *env) leader() (leading *member) {
	e.t.Helper()
	e.poll("a leader", func() (bool, string) {
		for _, m := range e.members {
			var info struct {
				Leader    string `json:"leader"`
				Connected bool   `json:"connected"`
			}
			if err := m.Do(e.t.Context(), http.MethodGet, "/v2/info?extensions=true", nil, &info); err != nil {
				return false, err.Error()
			}
			if info.Leader == m.addr && info.Connected {
				leading = m
				return true, ""
			}
		}
		return false, "nobody leads with a connection to the master"
	})
	return leading
}

// app is JSON of an app whose tasks leave a line each time that they start.
func (e *env) app(id string, instances int, volume string) object {
	cmd := fmt.Sprintf(`echo "$MESOS_TASK_ID" >> %s/"$MESOS_TASK_ID"; exec sleep 1000`, e.starts)
	a := object{"id": id, "cmd": cmd, "cpus": 0.01, "mem": 16, "instances": instances}
	if volume != "" {
		a["container"] = object{"type": "MESOS", "volumes": []object{{
			"containerPath": "data", "mode": "RW",
			"external": object{"provider": "dvdi", "name": volume, "options": object{"dvdi/driver": devcluster.Driver}},
		}}}
	}
	return a
}

// post creates an app through any member; one that it made before it failed to
// answer is no error.
func (e *env) post(ctx context.Context, m *member, app object) error {
	err := m.Do(ctx, http.MethodPost, "/v2/apps", app, nil)
	var refused *devcluster.StatusError
	if errors.As(err, &refused) && refused.Status == http.StatusConflict && strings.Contains(refused.Body, "already exists") {
		return nil
	}
	return err
}

// cluster is everything that must not change by itself.
type cluster struct {
	Tasks  map[string][]string // running tasks by app
	Claims []string
}

func (e *env) look(m *member) (c cluster, settled bool, why string) {
	var apps struct {
		Apps []struct {
			ID          string            `json:"id"`
			Instances   int               `json:"instances"`
			Deployments []json.RawMessage `json:"deployments"`
			Tasks       []devcluster.Task `json:"tasks"`
		} `json:"apps"`
	}
	var claims struct {
		Volumes []struct {
			Name, AgentID, State string
			Epoch                int
		} `json:"volumes"`
	}
	if err := errors.Join(m.Do(e.t.Context(), http.MethodGet, "/v2/apps?embed=apps.tasks", nil, &apps),
		m.Do(e.t.Context(), http.MethodGet, "/v2/volumes", nil, &claims)); err != nil {
		return c, false, err.Error()
	}
	c.Tasks = map[string][]string{}
	for _, a := range apps.Apps {
		for _, task := range a.Tasks {
			if task.State != "TASK_RUNNING" {
				return c, false, task.ID + " is " + task.State
			}
			c.Tasks[a.ID] = append(c.Tasks[a.ID], task.ID)
		}
		if len(a.Tasks) != a.Instances || len(a.Deployments) > 0 {
			return c, false, fmt.Sprintf("%s has %d of %d tasks and %d deployments", a.ID, len(a.Tasks), a.Instances, len(a.Deployments))
		}
		slices.Sort(c.Tasks[a.ID])
	}
	for _, v := range claims.Volumes {
		c.Claims = append(c.Claims, fmt.Sprint(v))
	}
	return c, true, ""
}

// settled waits until every app has what it wants, and returns that.
func (e *env) settled() (c cluster) {
	e.t.Helper()
	e.poll("all apps to run", func() (ok bool, why string) {
		c, ok, why = e.look(e.leader())
		return ok, why
	})
	return c
}

// same fails the test if what runs is not what ran before.
func (e *env) same(before, after cluster) {
	e.t.Helper()
	for id, tasks := range before.Tasks {
		if !slices.Equal(tasks, after.Tasks[id]) {
			e.t.Errorf("%s ran %v and runs %v", id, tasks, after.Tasks[id])
		}
	}
	if !slices.Equal(before.Claims, after.Claims) {
		e.t.Errorf("claims were %v and are %v", before.Claims, after.Claims)
	}
}

// startedOnce fails the test if a task was started twice, or if tasks were
// started that nobody wanted: of apps that only grew, none ever ends. A task runs
// before it has left its line, and an app may be made still that was asked for last.
func (e *env) startedOnce() {
	e.t.Helper()
	e.poll("each task that runs, and no other, to have started", func() (bool, string) {
		c, settled, why := e.look(e.leader())
		if !settled {
			return false, why
		}
		running := slices.Concat(slices.Collect(maps.Values(c.Tasks))...)
		slices.Sort(running)
		started := e.started()
		return slices.Equal(running, started), fmt.Sprintf("%v run, %v have started", running, started)
	})
}

// started are the tasks that were started once, sorted; one that was started again
// fails the test.
func (e *env) started() (tasks []string) {
	e.t.Helper()
	files, err := os.ReadDir(e.starts)
	if err != nil {
		e.t.Fatal(err)
	}
	for _, f := range files {
		content, err := os.ReadFile(filepath.Join(e.starts, f.Name()))
		if err != nil {
			e.t.Fatal(err)
		}
		switch n := strings.Count(string(content), "\n"); n {
		case 0: // it is about to write its line, or was killed before
		case 1:
			tasks = append(tasks, f.Name())
		default:
			e.t.Fatalf("task %s was started %d times", f.Name(), n)
		}
	}
	return tasks
}

// load creates apps through all members, one after the other.
type load struct {
	stop  context.CancelFunc
	wait  sync.WaitGroup
	taken atomic.Int64 // apps that were acknowledged
	mu    sync.Mutex   // guards apps
	apps  []string
}

// load creates apps below a group, with a pause after each that is taken: two
// processors do the rest.
func (e *env) load(prefix string, pause time.Duration) *load {
	ctx, cancel := context.WithCancel(e.t.Context())
	l := &load{stop: cancel}
	for n, m := range e.members {
		l.wait.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				id := fmt.Sprintf("/%s/m%d-%d", prefix, n, i)
				for ctx.Err() == nil && e.post(ctx, m, e.app(id, 1, "")) != nil {
					select {
					case <-time.After(50 * time.Millisecond):
					case <-ctx.Done():
					}
				}
				if ctx.Err() != nil {
					return
				}
				l.mu.Lock()
				l.apps = append(l.apps, id)
				l.mu.Unlock()
				l.taken.Add(1)
				select {
				case <-time.After(pause):
				case <-ctx.Done():
				}
			}
		})
	}
	return l
}

// end stops the load and returns the apps that were acknowledged.
func (l *load) end() []string {
	l.stop()
	l.wait.Wait()
	return l.apps
}

func TestHighAvailability(t *testing.T) {
	e := newEnv(t)
	e.leader()
	for _, app := range []object{e.app("/web", 3, ""), e.app("/db", 1, "ha-db"), e.app("/queue", 1, "ha-queue")} {
		if err := e.post(t.Context(), e.members[2], app); err != nil {
			t.Fatal(err)
		}
	}
	before := e.settled()
	rounds := 3
	if os.Getenv("DVDI_LONG") != "" {
		rounds = 20
	}
	t.Run("members pass requests on", func(t *testing.T) { e.passOn(t) })
	t.Run("leader killed under load", func(t *testing.T) {
		for n := range rounds {
			e.killLeaderUnderLoad(t, n)
		}
	})
	t.Run("lead given up", func(t *testing.T) { e.abdicate(t) })
	t.Run("ZooKeeper restarted", func(t *testing.T) {
		e.zk.Restart()
		e.changes(t, "/restarted")
	})
	t.Run("ZooKeeper paused beyond the session time-out", func(t *testing.T) { e.pause(t) })
	t.Run("leader cut off", func(t *testing.T) { e.cutLeader(t) })
	t.Run("leader asleep", func(t *testing.T) { e.sleepingLeader(t) })
	after := e.settled()
	e.same(before, after)
	e.startedOnce()
	e.leads.check(t)
}

// passOn asks those that do not lead.
func (e *env) passOn(t *testing.T) {
	leader := e.leader()
	client := &http.Client{Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	for _, m := range e.members {
		resp, err := client.Get(m.URL + "/v2/leader")
		if err != nil {
			t.Fatal(err)
		}
		var who struct{ Leader string }
		if err := errors.Join(json.NewDecoder(resp.Body).Decode(&who), resp.Body.Close()); err != nil || who.Leader != leader.addr {
			t.Errorf("%s says that %q leads (%v), it is %s", m.name, who.Leader, err, leader.addr)
		}
		via := resp.Header.Get("X-Marathon-Via")
		if (m == leader) != (via == "") || m != leader && !strings.Contains(via, m.addr) {
			t.Errorf("%s: X-Marathon-Via %q", m.name, via)
		}
		resp, err = client.Get(m.URL + "/v2/events?event_type=x")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if m != leader && (resp.StatusCode != http.StatusFound || resp.Header.Get("Location") != leader.URL+"/v2/events?event_type=x") {
			t.Errorf("%s: events: %s to %s", m.name, resp.Status, resp.Header.Get("Location"))
		}
	}
}

// killLeaderUnderLoad kills the leader while apps are created through all
// members: what was acknowledged is there afterwards and runs.
func (e *env) killLeaderUnderLoad(t *testing.T, round int) {
	leader := e.leader()
	l := e.load(fmt.Sprintf("load%d", round), 150*time.Millisecond)
	defer l.end()
	e.poll("apps to be taken", func() (bool, string) { return l.taken.Load() >= 3, "" })
	changes := e.leads.count()
	leader.kill()
	e.poll("another to lead", func() (bool, string) { return e.leads.count() > changes, "" })
	taken := l.taken.Load()
	e.poll("apps to be taken after the change", func() (bool, string) { return l.taken.Load() >= taken+3, "" })
	apps := l.end()
	c := e.settled()
	for _, id := range apps {
		if len(c.Tasks[id]) != 1 {
			t.Errorf("app %s was acknowledged and runs %d tasks", id, len(c.Tasks[id]))
		}
	}
	e.startedOnce()
}

// exit waits until a member has ended once more than it had, and returns the exit
// code of that end; it may have ended again since.
func (e *env) exit(m *member, times int) (code int) {
	e.t.Helper()
	e.poll(m.name+" to end", func() (ended bool, _ string) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if ended = len(m.exits) > times; ended {
			code = m.exits[times]
		}
		return ended, ""
	})
	return code
}

// abdicate asks the leader through another member to give up.
func (e *env) abdicate(t *testing.T) {
	leader := e.leader()
	other := e.members[0]
	if other == leader {
		other = e.members[1]
	}
	times := leader.exited()
	changes := e.leads.count()
	if err := other.Do(t.Context(), http.MethodDelete, "/v2/leader", nil, nil); err != nil {
		t.Fatal(err)
	}
	if code := e.exit(leader, times); code != 103 {
		t.Errorf("the leader that gave up ended with status %d", code)
	}
	e.poll("another to lead", func() (bool, string) { return e.leads.count() > changes, "" })
	e.changes(t, "/abdicated")
}

func (e *env) pause(t *testing.T) {
	leader := e.leader()
	times := leader.exited()
	e.zk.Pause()
	if code := e.exit(leader, times); code != 101 {
		t.Errorf("the leader without ZooKeeper ended with status %d", code)
	}
	resp, err := http.Get(e.members[0].URL + "/v2/apps")
	if err == nil {
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadGateway {
			t.Errorf("without a leader: %s", resp.Status)
		}
	}
	e.zk.Resume()
	e.changes(t, "/paused")
}

func (e *env) cutLeader(t *testing.T) {
	leader := e.leader()
	relay := e.relays[slices.Index(e.members, leader)]
	times := leader.exited()
	changes := e.leads.count()
	relay.Cut()
	// By its own clock it stops before its session is over for ZooKeeper; which of
	// both comes first is not sure where the whole machine stands still meanwhile.
	e.leads.over(leader.name, time.Now())
	if code := e.exit(leader, times); code != 101 {
		t.Errorf("the leader that was cut off ended with status %d", code)
	}
	e.poll("another to lead", func() (bool, string) { return e.leads.count() > changes, "" })
	relay.Mend()
	e.changes(t, "/cut")
}

// sleepingLeader freezes the leader until another leads, and wakes it: for a
// moment it believes to lead. Nothing that it does then takes effect.
func (e *env) sleepingLeader(t *testing.T) {
	leader := e.leader()
	times := leader.exited()
	changes := e.leads.count()
	leader.pause()
	e.leads.over(leader.name, time.Now()) // what it does later must fail
	e.poll("another to lead", func() (bool, string) { return e.leads.count() > changes, "" })
	leader.resume()
	taken := leader.Do(t.Context(), http.MethodPost, "/v2/apps", e.app("/stale", 1, ""), nil) == nil
	e.exit(leader, times)
	c := e.settled()
	if taken != (len(c.Tasks["/stale"]) == 1) {
		t.Errorf("the app was taken: %v; it runs %d tasks", taken, len(c.Tasks["/stale"]))
	}
	e.changes(t, "/awake")
}

// changes shows that the frameworks work: an app is created and runs.
func (e *env) changes(t *testing.T, id string) {
	e.poll(id+" to be taken", func() (bool, string) {
		err := e.post(t.Context(), e.leader(), e.app(id, 1, ""))
		return err == nil, fmt.Sprint(err)
	})
	if c := e.settled(); len(c.Tasks[id]) != 1 {
		t.Errorf("%s runs %d tasks", id, len(c.Tasks[id]))
	}
}
