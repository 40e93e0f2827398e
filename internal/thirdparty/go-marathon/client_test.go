// Package gomarathon runs github.com/gambol99/go-marathon, the client library of
// most tools, against a running framework. It is a module of its own so that
// the library is no dependency of the project.
package gomarathon

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"testing"
	"time"

	marathon "github.com/gambol99/go-marathon"
)

const (
	// urlVar names the environment variable with the framework's URL.
	urlVar = "DVDI_MARATHON_URL"
	// driverVar names a volume driver that the agents have; without it no
	// volume is used.
	driverVar = "DVDI_VOLUME_DRIVER"

	patience = 2 * time.Minute
)

func connect(t *testing.T) marathon.Marathon {
	t.Helper()
	address := os.Getenv(urlVar)
	if address == "" {
		t.Skipf("%s is not set: no framework to test against", urlVar)
	}
	cfg := marathon.NewDefaultConfig()
	cfg.URL = address
	cfg.EventsTransport = marathon.EventsTransportSSE
	cfg.PollingWaitTime = 50 * time.Millisecond
	cfg.HTTPClient = &http.Client{} // a time-out would cut the event stream
	c, err := marathon.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// prefix keeps the names of one run apart from those of others.
var prefix = fmt.Sprintf("/gm-%d", time.Now().UnixNano())

func sleeper(name string) *marathon.Application {
	return marathon.NewDockerApplication().Name(prefix+name).Command("sleep 10000").CPU(0.1).Memory(32).Count(1).
		AddLabel("suite", prefix[1:]).AddEnv("A", "b")
}

// plain is an app without a container, which runs wherever a shell does.
func plain(name string) *marathon.Application {
	a := sleeper(name)
	a.Container = nil
	return a
}

type session struct {
	*testing.T
	marathon.Marathon
}

func (s session) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s session) settled(d *marathon.DeploymentID, err error) {
	s.Helper()
	s.must(err)
	if d.DeploymentID == "" || d.Version == "" {
		s.Fatalf("incomplete deployment %+v", d)
	}
	s.must(s.WaitOnDeployment(d.DeploymentID, patience))
}

func (s session) create(a *marathon.Application) *marathon.Application {
	s.Helper()
	created, err := s.CreateApplication(a)
	s.must(err)
	s.Cleanup(func() {
		_, err := s.DeleteApplication(a.ID, true)
		if err != nil && code(err) != marathon.ErrCodeNotFound {
			s.Error(err)
		}
	})
	s.must(s.WaitOnApplication(a.ID, patience))
	return created
}

// code is the kind of an API error, -1 for other errors.
func code(err error) int {
	var e *marathon.APIError
	if errors.As(err, &e) {
		return e.ErrCode
	}
	return -1
}

// until polls for a condition with a deadline.
func (s session) until(what string, cond func() bool) {
	s.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.Fatalf("waited too long until %s", what)
		}
	}
}

func TestGeneral(t *testing.T) {
	s := session{t, connect(t)}
	if ok, err := s.Ping(); err != nil || !ok {
		t.Errorf("ping: %v %v", ok, err)
	}
	info, err := s.Info()
	s.must(err)
	if info.FrameworkID == "" || info.Name == "" || info.Version == "" || info.Leader == "" {
		t.Errorf("info: %+v", info)
	}
	leader, err := s.Leader()
	s.must(err)
	if leader != info.Leader {
		t.Errorf("leader %q, info says %q", leader, info.Leader)
	}
	if s.GetMarathonURL() != os.Getenv(urlVar) {
		t.Errorf("url %q", s.GetMarathonURL())
	}
	// What Marathon has removed must not look like a server that is down.
	if _, err := s.Subscriptions(); code(err) != marathon.ErrCodeNotFound {
		t.Errorf("subscriptions: %v", err)
	}
	if err := s.Subscribe("http://127.0.0.1/x"); code(err) != marathon.ErrCodeNotFound {
		t.Errorf("subscribe: %v", err)
	}
	if err := s.Unsubscribe("http://127.0.0.1/x"); code(err) != marathon.ErrCodeNotFound {
		t.Errorf("unsubscribe: %v", err)
	}
}

func TestApplications(t *testing.T) {
	s := session{t, connect(t)}
	id := prefix + "/app"
	created := s.create(plain("/app"))
	if created.ID != id || created.Version == "" || len(created.Deployments) != 1 {
		t.Errorf("created %+v", created)
	}
	if _, err := s.CreateApplication(plain("/app")); code(err) != marathon.ErrCodeDuplicateID {
		t.Errorf("created twice: %v", err)
	}

	byLabel, err := s.Applications(url.Values{"label": {"suite==" + prefix[1:]}, "embed": {"apps.tasks"}})
	s.must(err)
	if len(byLabel.Apps) != 1 || byLabel.Apps[0].ID != id || len(byLabel.Apps[0].Tasks) != 1 {
		t.Errorf("by label: %+v", byLabel.Apps)
	}
	ids, err := s.ListApplications(nil)
	s.must(err)
	if !slices.Contains(ids, id) {
		t.Errorf("%s is not in %v", id, ids)
	}
	got, err := s.Application(id)
	s.must(err)
	if *got.Cmd != "sleep 10000" || got.TasksRunning != 1 || len(got.Tasks) != 1 || (*got.Env)["A"] != "b" {
		t.Errorf("got %+v", got)
	}
	withStats, err := s.ApplicationBy(id, &marathon.GetAppOpts{Embed: []string{"app.taskStats", "app.counts"}})
	s.must(err)
	if withStats.TaskStats["totalSummary"].Stats.Counts["running"] != 1 {
		t.Errorf("statistics %+v", withStats.TaskStats)
	}
	ok, err := s.ApplicationOK(id)
	s.must(err)
	if !ok {
		t.Error("the app is not ok")
	}
	if _, err := s.Application(prefix + "/none"); code(err) != marathon.ErrCodeNotFound {
		t.Errorf("unknown app: %v", err)
	}

	s.settled(s.ScaleApplicationInstances(id, 2, false))
	s.until("two tasks run", func() bool { a, err := s.Application(id); return err == nil && a.TasksRunning == 2 })

	got, err = s.Application(id)
	s.must(err)
	got.Version = "" // as every user of this client has to
	got.AddLabel("more", "yes").Count(1)
	s.settled(s.UpdateApplication(got, true))
	again, err := s.Application(id)
	s.must(err)
	if (*again.Labels)["more"] != "yes" || *again.Cmd != "sleep 10000" {
		t.Errorf("after the update %+v", again)
	}
	s.settled(s.RestartApplication(id, false))

	versions(s, id, created.Version)
	deployments, err := s.ApplicationDeployments(id)
	s.must(err)
	if len(deployments) != 0 {
		t.Errorf("deployments of a settled app: %v", deployments)
	}
	s.settled(s.DeleteApplication(id, false))
	if _, err := s.DeleteApplication(id, false); code(err) != marathon.ErrCodeNotFound {
		t.Errorf("deleted twice: %v", err)
	}
}

// versions goes back to the first version of an app.
func versions(s session, id, first string) {
	s.Helper()
	list, err := s.ApplicationVersions(id)
	s.must(err)
	if len(list.Versions) < 4 || list.Versions[len(list.Versions)-1] != first {
		s.Errorf("versions %v, the first was %s", list.Versions, first)
	}
	if has, err := s.HasApplicationVersion(id, first); err != nil || !has {
		s.Errorf("has version: %v %v", has, err)
	}
	old, err := s.ApplicationByVersion(id, first)
	s.must(err)
	if _, more := (*old.Labels)["more"]; more || old.Version != first {
		s.Errorf("version %s: %+v", first, old)
	}
	s.settled(s.SetApplicationVersion(id, &marathon.ApplicationVersion{Version: first}))
	now, err := s.Application(id)
	s.must(err)
	if _, more := (*now.Labels)["more"]; more {
		s.Errorf("rolled back to %+v", now.Labels)
	}
}

func TestErrors(t *testing.T) {
	s := session{t, connect(t)}
	bad := plain("/bad")
	bad.Command("").Count(-1)
	_, err := s.CreateApplication(bad)
	if code(err) != marathon.ErrCodeInvalidBean {
		t.Errorf("invalid app: %v", err)
	}
	// A client's mistake must not mark the server as down.
	if ok, err := s.Ping(); err != nil || !ok {
		t.Errorf("ping: %v %v", ok, err)
	}
	if _, err := s.Applications(url.Values{"label": {"a=b(("}}); code(err) != marathon.ErrCodeInvalidBean {
		t.Errorf("bad selector: %v", err)
	}
	if _, err := s.DeleteDeployment("none", false); code(err) != marathon.ErrCodeNotFound {
		t.Errorf("unknown deployment: %v", err)
	}
}

func TestTasks(t *testing.T) {
	s := session{t, connect(t)}
	id := prefix + "/workers"
	s.create(plain("/workers").Count(3))
	tasks, err := s.Tasks(id)
	s.must(err)
	if len(tasks.Tasks) != 3 {
		t.Fatalf("tasks %+v", tasks)
	}
	one := tasks.Tasks[0]
	if one.AppID != id || one.Host == "" || one.SlaveID == "" || one.State != "TASK_RUNNING" || one.StartedAt == "" || len(one.Ports) != 1 {
		t.Errorf("task %+v", one)
	}
	all, err := s.AllTasks(&marathon.AllTasksOpts{Status: "running"})
	s.must(err)
	if !slices.ContainsFunc(all.Tasks, func(x marathon.Task) bool { return x.ID == one.ID }) {
		t.Errorf("%s is not among all tasks", one.ID)
	}
	gone := func(taskID string) func() bool {
		return func() bool {
			tasks, err := s.Tasks(id)
			return err == nil && !slices.ContainsFunc(tasks.Tasks, func(x marathon.Task) bool { return x.ID == taskID && x.State == "TASK_RUNNING" })
		}
	}
	killed, err := s.KillTask(one.ID, nil)
	s.must(err)
	if killed.ID != one.ID {
		t.Errorf("killed %+v", killed)
	}
	s.until("the task is gone", gone(one.ID))
	s.must(s.WaitOnApplication(id, patience))

	tasks, err = s.Tasks(id)
	s.must(err)
	second := tasks.Tasks[0].ID
	s.must(s.KillTasks([]string{second}, &marathon.KillTaskOpts{Scale: true}))
	s.until("the app is scaled down", func() bool {
		a, err := s.Application(id)
		return err == nil && *a.Instances == 2 && a.TasksRunning == 2 && len(a.Deployments) == 0
	})
	list, err := s.KillApplicationTasks(id, &marathon.KillApplicationTasksOpts{})
	s.must(err)
	if len(list.Tasks) != 2 {
		t.Errorf("killed %+v", list)
	}
	for _, x := range list.Tasks {
		s.until("all old tasks are gone", gone(x.ID))
	}
	s.must(s.WaitOnApplication(id, patience))
}

func TestGroups(t *testing.T) {
	s := session{t, connect(t)}
	name := prefix + "/group"
	group := marathon.NewApplicationGroup(name).App(plain("/group/a")).App(plain("/group/b").DependsOn(prefix + "/group/a"))
	s.must(s.CreateGroup(group))
	t.Cleanup(func() {
		if _, err := s.DeleteGroup(name, true); err != nil && code(err) != marathon.ErrCodeNotFound {
			t.Error(err)
		}
	})
	s.must(s.WaitOnGroup(name, patience))
	if has, err := s.HasGroup(name); err != nil || !has {
		t.Errorf("has group: %v %v", has, err)
	}
	if has, err := s.HasGroup(prefix + "/none"); err != nil || has {
		t.Errorf("has unknown group: %v %v", has, err)
	}
	got, err := s.Group(name)
	s.must(err)
	if got.ID != name || len(got.Apps) != 2 {
		t.Errorf("group %+v", got)
	}
	got, err = s.GroupBy(name, &marathon.GetGroupOpts{Embed: []string{"group.apps"}})
	s.must(err)
	if len(got.Apps) != 2 || len(got.Groups) != 0 {
		t.Errorf("group %+v", got)
	}
	root, err := s.Groups()
	s.must(err)
	if root.ID != "/" || !slices.ContainsFunc(root.Groups, func(g *marathon.Group) bool { return g.ID == prefix }) {
		t.Errorf("root %+v", root)
	}
	if _, err := s.GroupsBy(&marathon.GetGroupOpts{Embed: []string{"group.groups"}}); err != nil {
		t.Error(err)
	}
	s.settled(s.UpdateGroup(name, marathon.NewApplicationGroup(name).App(plain("/group/a")), true))
	if _, err := s.Application(prefix + "/group/b"); code(err) != marathon.ErrCodeNotFound {
		t.Errorf("an app that is not listed stays: %v", err)
	}
	s.settled(s.DeleteGroup(name, true))
}

func TestDeploymentsAndQueue(t *testing.T) {
	s := session{t, connect(t)}
	id := prefix + "/huge"
	created, err := s.CreateApplication(plain("/huge").CPU(100000))
	s.must(err)
	t.Cleanup(func() {
		if _, err := s.DeleteApplication(id, true); err != nil && code(err) != marathon.ErrCodeNotFound {
			t.Error(err)
		}
	})
	deployment := created.Deployments[0]["id"]
	if has, err := s.HasDeployment(deployment); err != nil || !has {
		t.Errorf("has deployment: %v %v", has, err)
	}
	list, err := s.Deployments()
	s.must(err)
	i := slices.IndexFunc(list, func(d *marathon.Deployment) bool { return d.ID == deployment })
	if i < 0 || len(list[i].Steps) == 0 || !slices.Contains(list[i].AffectedApps, id) {
		t.Errorf("deployments %+v", list)
	}
	if _, err := s.ScaleApplicationInstances(id, 2, false); code(err) != marathon.ErrCodeAppLocked {
		t.Errorf("a locked app is scaled: %v", err)
	}
	if err := s.WaitOnDeployment(deployment, time.Millisecond); !errors.Is(err, marathon.ErrTimeoutError) {
		t.Errorf("wait for what cannot be: %v", err)
	}
	s.until("it is queued", func() bool {
		q, err := s.Queue()
		s.must(err)
		return slices.ContainsFunc(q.Items, func(i marathon.Item) bool { return i.Application.ID == id && i.Count == 1 })
	})
	s.must(s.DeleteQueueDelay(id))
	if err := s.DeleteQueueDelay(prefix + "/none"); code(err) != marathon.ErrCodeNotFound {
		t.Errorf("unknown app in the queue: %v", err)
	}
	s.settled(s.DeleteDeployment(deployment, false))
	s.until("the app is gone", func() bool { _, err := s.Application(id); return code(err) == marathon.ErrCodeNotFound })
}

func TestEvents(t *testing.T) {
	s := session{t, connect(t)}
	events, err := s.AddEventsListener(marathon.EventIDAPIRequest | marathon.EventIDStatusUpdate | marathon.EventIDDeploymentSuccess)
	s.must(err)
	defer s.RemoveEventsListener(events)
	id := prefix + "/events"
	s.create(plain("/events"))
	seen := map[string]bool{}
	timeout := time.After(patience)
	for len(seen) < 3 {
		select {
		case ev := <-events:
			switch e := ev.Event.(type) {
			case *marathon.EventAPIRequest:
				if e.AppDefinition != nil && e.AppDefinition.ID == id {
					seen["api"] = true
				}
			case *marathon.EventStatusUpdate:
				if e.AppID == id && e.TaskStatus == "TASK_RUNNING" && e.Host != "" && e.SlaveID != "" {
					seen["status"] = true
				}
			case *marathon.EventDeploymentSuccess:
				if e.ID != "" {
					seen["deployment"] = true
				}
			}
		case <-timeout:
			t.Fatalf("only these events came: %v", seen)
		}
	}
}

func TestVolume(t *testing.T) {
	s := session{t, connect(t)}
	driver := os.Getenv(driverVar)
	if driver == "" {
		t.Skipf("%s is not set: no volume driver to test with", driverVar)
	}
	id := prefix + "/volume"
	a := plain("/volume").Command("echo data > vol/file && sleep 10000")
	v := marathon.Volume{ContainerPath: "vol", Mode: "RW"}
	v.SetExternalVolume(prefix[1:]+"-vol", "dvdi").AddOption("dvdi/driver", driver)
	a.Container = &marathon.Container{Type: "MESOS", Volumes: &[]marathon.Volume{v}}
	s.create(a)
	got, err := s.Application(id)
	s.must(err)
	if got.Container == nil || len(*got.Container.Volumes) != 1 || (*(*got.Container.Volumes)[0].External.Options)["dvdi/driver"] != driver {
		t.Errorf("got %+v", got.Container)
	}
	got.Version = ""
	got.AddLabel("more", "yes")
	s.settled(s.UpdateApplication(got, true)) // the volume moves to the new task
	s.must(s.WaitOnApplication(id, patience))
	s.settled(s.DeleteApplication(id, true))
}
