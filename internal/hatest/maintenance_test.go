package hatest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/detect/zktest"
	"github.com/mesos-dvdi/dvdi/internal/devcluster"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
)

// upkeep is a framework with its state in ZooKeeper that is stopped and started
// between the commands that work on the state.
type upkeep struct {
	*env
	mesos string
	lives int
}

func newUpkeep(t *testing.T) *upkeep {
	t.Helper()
	e, c := newMesos(t, embeddedmesos.FastTiming())
	e.zk = zktest.StartWithSessions(t, deadline)
	return &upkeep{env: e, mesos: c.Mesos.Addr()}
}

// zkFlags name the ensemble. Sessions last long: none is lost in these tests, and a
// busy machine must not end a life.
func (u *upkeep) zkFlags() []string {
	return []string{"--zk", "zk://" + u.zk.Addr + "/dvdi", "--zk_session_timeout", fmt.Sprint((deadline / 4).Milliseconds())}
}

func (u *upkeep) flags() []string { return append(u.zkFlags(), "--master", u.mesos) }

// start starts the framework and waits until it leads.
func (u *upkeep) start() *member {
	u.t.Helper()
	u.lives++
	m := prepareMember(u.t, fmt.Sprintf("framework%d", u.lives), u.dir, &u.leads, append(u.flags(), "--min_revive_offers_interval", "200",
		"--reconciliation_initial_delay", "1000", "--new_framework_id_hold", "2000", "--restore_hold", "3000")...)
	u.members = []*member{m}
	m.run()
	return u.leader()
}

// stop ends it as systemd does.
func (u *upkeep) stop() {
	u.t.Helper()
	m := u.members[0]
	m.end()
	<-m.done
	if code := u.exit(m, m.exited()-1); code != 0 {
		u.t.Errorf("%s ended with status %d", m.name, code)
	}
}

// command runs the program to its end, which must be with this exit code, and say
// these texts.
func (u *upkeep) command(args []string, code int, says ...string) {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), deadline)
	defer cancel()
	out, err := exec.CommandContext(ctx, filepath.Join(binaries, "dvdi-framework"), args...).CombinedOutput()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		u.t.Fatal(err)
	}
	got := 0
	if failed != nil {
		got = failed.ExitCode()
	}
	if got != code {
		u.t.Errorf("%v: exit code %d, want %d: %s", args, got, code, out)
	}
	for _, text := range says {
		if !strings.Contains(string(out), text) {
			u.t.Errorf("%v: %q lacks %q", args, out, text)
		}
	}
}

func with(args []string, more ...string) []string {
	return append(append([]string{}, args...), more...)
}

// stateful is an app whose tasks write their ids to its volume, one after the
// other, and leave a copy of what they find there.
func (u *upkeep) stateful(name string) object {
	a := u.app("/"+name, 1, "upkeep-"+name)
	a["cmd"] = fmt.Sprintf(`echo "$MESOS_TASK_ID" >> data/log && cp data/log %s/"$MESOS_TASK_ID"; exec sleep 1000`, u.starts)
	return a
}

// runsAfter waits until an app runs one task, which found what so many tasks
// before it had left, and returns its host.
func (u *upkeep) runsAfter(id string, tasks int) (host string) {
	u.t.Helper()
	u.poll(fmt.Sprintf("%s to run with the data of %d tasks before", id, tasks), func() (bool, string) {
		list, err := u.members[0].Tasks(u.t.Context(), id)
		if err != nil || len(list) != 1 || list[0].State != "TASK_RUNNING" {
			return false, fmt.Sprint(describe(list), " ", err)
		}
		found, err := os.ReadFile(filepath.Join(u.starts, list[0].ID))
		host = list[0].Host
		return err == nil && strings.Count(string(found), "\n") == tasks+1, fmt.Sprintf("%q %v", found, err)
	})
	return host
}

func (u *upkeep) create(app object) {
	u.t.Helper()
	if err := u.post(u.t.Context(), u.members[0], app); err != nil {
		u.t.Fatal(err)
	}
}

func (u *upkeep) claims() (names []string) {
	u.t.Helper()
	var out struct{ Volumes []struct{ Name string } }
	if err := u.members[0].Do(u.t.Context(), http.MethodGet, "/v2/volumes", nil, &out); err != nil {
		u.t.Fatal(err)
	}
	for _, v := range out.Volumes {
		names = append(names, v.Name)
	}
	return names
}

// TestMaintenanceWithZooKeeper goes through the life of an installation with
// volumes: backups while it works, commands that it refuses while it runs, an old
// backup restored, torn down, removed by the master. The data of every volume is
// there in the end, and no task of an app ran beside another.
func TestMaintenanceWithZooKeeper(t *testing.T) {
	t.Parallel()
	u := newUpkeep(t)
	u.start()
	u.create(u.stateful("db"))
	u.create(u.app("/web", 2, ""))
	host := u.runsAfter("/db", 0)
	first := u.settled()

	backup := filepath.Join(u.dir, "backup")
	t.Run("while it runs", func(t *testing.T) {
		l := u.load("busy", time.Second) // a backup from outside needs moments without a commit
		u.poll("apps to be taken", func() (bool, string) { return l.taken.Load() >= 2, "" })
		for n := range 3 {
			file := fmt.Sprint(backup, n)
			u.command(with([]string{"backup"}, append(u.zkFlags(), file)...), 0, "records written")
			u.command([]string{"backup", "--url", u.members[0].URL, file}, 0, "records written")
			u.command(with([]string{"restore"}, append(u.zkFlags(), file)...), 107, "a framework runs at "+u.members[0].URL)
			u.command(with([]string{"restore", "--yes"}, append(u.zkFlags(), file)...), 107, "a framework runs at "+u.members[0].URL)
		}
		l.end()
		u.command(with([]string{"teardown", "--yes"}, u.flags()...), 107, "a framework runs at")
		u.command(with(u.flags(), "--new-framework-id", "--yes"), 107, "a framework runs at")
		u.same(first, u.settled())
	})
	if err := u.members[0].Do(t.Context(), http.MethodDelete, "/v2/groups/busy?force=true", nil, nil); err != nil {
		t.Fatal(err)
	}
	first = u.settled()
	u.command(with([]string{"backup"}, append(u.zkFlags(), backup)...), 0)

	t.Run("an old backup", func(t *testing.T) {
		u.create(u.stateful("later"))
		at := u.runsAfter("/later", 0)
		u.stop()
		u.command(with(u.flags(), "--new-framework-id", "--yes"), 106, "has not removed framework")
		u.command(with([]string{"restore"}, append(u.zkFlags(), backup)...), 0, "Repeat with --yes")
		u.command(with([]string{"restore", "--yes"}, append(u.zkFlags(), backup)...), 0,
			"restored 2 apps with 3 instances", "kept what is known of volume upkeep-later")
		u.start()
		u.same(first, cluster{Tasks: u.settled().Tasks, Claims: first.Claims})
		if claims := u.claims(); len(claims) != 2 {
			t.Errorf("claims %v", claims)
		}
		// Defined again it takes the place of the task that nobody knew.
		u.create(u.stateful("later"))
		if now := u.runsAfter("/later", 1); now != at {
			t.Errorf("/later runs on %s, its volume was on %s", now, at)
		}
	})
	t.Run("torn down", func(t *testing.T) {
		u.stop()
		u.command(with([]string{"teardown"}, u.flags()...), 0, "/db", "stays with that agent", "Repeat with --yes")
		u.command(with([]string{"teardown", "--yes"}, u.flags()...), 0, "Mesos has removed the framework")
		u.start()
		if now := u.runsAfter("/db", 1); now != host {
			t.Errorf("/db runs on %s, its volume was on %s", now, host)
		}
		u.runsAfter("/later", 2)
	})
	t.Run("removed by the master", func(t *testing.T) {
		var info struct{ FrameworkID string }
		if err := u.members[0].Do(t.Context(), http.MethodGet, "/v2/info", nil, &info); err != nil {
			t.Fatal(err)
		}
		u.stop()
		call := object{"type": "TEARDOWN", "teardown": object{"framework_id": object{"value": info.FrameworkID}}}
		master := devcluster.NewClient("http://" + u.mesos)
		defer master.HTTP.CloseIdleConnections()
		if err := master.Do(t.Context(), http.MethodPost, "/api/v1", call, nil); err != nil {
			t.Fatal(err)
		}
		u.command(with(u.flags(), "--new-framework-id"), 0, info.FrameworkID, "/db", "launched again under the new id", "Repeat with --yes")
		u.command(with(u.flags(), "--new-framework-id", "--yes"), 0, "registers anew")
		u.start()
		if now := u.runsAfter("/db", 2); now != host {
			t.Errorf("/db runs on %s, its volume was on %s", now, host)
		}
		u.runsAfter("/later", 3)
	})
	t.Run("given up", func(t *testing.T) {
		u.stop()
		u.command(with([]string{"teardown", "--yes", "--delete-state"}, u.flags()...), 0)
		u.start()
		if c := u.settled(); len(c.Tasks) != 0 || len(u.claims()) != 0 {
			t.Errorf("left: %v, %v", c.Tasks, u.claims())
		}
		u.create(u.stateful("db"))
		u.runsAfter("/db", 3) // the data is there
	})
}
