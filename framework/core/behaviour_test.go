package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/store"
	"github.com/mesos-dvdi/dvdi/internal/bubbletest"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

func TestLaunchWithoutAnswerIsNotRepeatedIfItArrived(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.cluster.set(func(c *cluster) { c.refuse, c.lose = errors.New("connection reset"), true })
		r.post(db)
		r.running("/db")
		r.pass(time.Minute)
		if n := r.cluster.launched(); n != 1 {
			t.Errorf("%d tasks launched", n)
		}
	})
}

func TestLaunchWithoutAnswerIsRepeatedIfItDidNotArrive(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.cluster.set(func(c *cluster) { c.refuse = errors.New("connection reset") })
		r.post(db)
		r.pass(time.Second)
		task := r.staged("/db")
		r.cluster.set(func(c *cluster) {
			c.refuse = nil
			// Too early to be believed: the launch may still be on its way.
			c.send(Status{TaskID: task, AgentID: "S0", State: taskGone, Source: sourceMaster, Reason: reasonReconciliation})
		})
		r.pass(time.Second)
		if still := r.staged("/db"); still != task {
			t.Fatalf("%s was given up for %s", task, still)
		}
		r.running("/db")
	})
}

// staged returns the app's only task, which has no status yet.
func (r *rig) staged(id app.ID) string {
	r.t.Helper()
	v := r.app(id)
	if len(v.Tasks) != 1 || v.Staged != 1 {
		r.t.Fatalf("%s: %+v", id, v)
	}
	return v.Tasks[0].ID
}

func TestStagingTaskIsKilledInTime(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		r.cluster.set(func(c *cluster) { c.silent = true })
		r.post(web)
		r.until("staged", func() bool { return r.app("/web").Staged == 2 })
		first := r.cluster.liveTasks("/web")
		r.pass(4 * time.Minute)
		if !equal(r.cluster.liveTasks("/web"), first) {
			t.Fatal("killed too early")
		}
		r.cluster.set(func(c *cluster) { c.silent = false })
		r.until("replaced", func() bool { return r.app("/web").Running == 2 })
	})
}

func TestBackoffGrowsAndIsReset(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		r.post(`{"id":"/web","cmd":"fail","cpus":1,"mem":64,"backoffSeconds":10,"backoffFactor":3,"maxLaunchDelaySeconds":60}`)
		for _, delay := range []time.Duration{10, 30, 60, 60} {
			r.running("/web")
			r.cluster.end("/web", taskFailed)
			ended := time.Now()
			r.until("queued", func() bool { return len(r.queue()) == 1 })
			if got := r.queue()[0].Delay.Round(time.Second); got != delay*time.Second {
				t.Fatalf("queue shows a delay of %v, want %v s", got, delay)
			}
			task := r.running("/web")
			waited := task.StagedAt.Sub(ended)
			if waited < delay*time.Second || waited > delay*time.Second+3*time.Second {
				t.Errorf("launched after %v, want %v s", waited, delay)
			}
			if f := r.app("/web").LastFailure; f == nil || f.State != taskFailed {
				t.Errorf("last failure: %+v", f)
			}
		}
		r.cluster.end("/web", taskFailed)
		r.pass(time.Second)
		r.restart() // the delay survives
		if q := r.queue(); len(q) != 1 || q[0].Delay < 50*time.Second {
			t.Fatalf("after a restart: %+v", q)
		}
		if err := r.core.ResetDelay(r.t.Context(), "/web"); err != nil {
			t.Fatal(err)
		}
		if q := r.queue(); len(q) == 1 && q[0].Delay != 0 {
			t.Fatalf("after the reset: %+v", q)
		}
		r.running("/web")
		var missing *NotFoundError
		if err := r.core.ResetDelay(r.t.Context(), "/web"); !errors.As(err, &missing) {
			t.Errorf("reset of what is not queued: %v", err)
		}
	})
}

func TestKilledTaskIsLaunchedAgainWithoutDelay(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		r.post(strings.Replace(web, `"instances":2`, `"backoffSeconds":1000`, 1))
		first := r.running("/web")
		killed, ref, err := r.core.KillTasks(r.t.Context(), Kill{TaskIDs: []string{first.ID, "unknown"}})
		if err != nil || ref != nil || len(killed) != 1 || killed[0].ID != first.ID {
			t.Fatalf("%+v %+v %v", killed, ref, err)
		}
		r.until("relaunched", func() bool {
			live := r.cluster.liveTasks("/web")
			return len(live) == 1 && live[0] != first.ID
		})
		if f := r.app("/web").LastFailure; f != nil {
			t.Errorf("a kill counted as a failure: %+v", f)
		}
	})
}

func TestKillIsRepeatedAfterARestart(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		r.post(db)
		first := r.running("/db")
		r.idle()
		r.cluster.set(func(c *cluster) { c.stubborn = true })
		if _, _, err := r.core.KillTasks(r.t.Context(), Kill{App: "/db"}); err != nil {
			t.Fatal(err)
		}
		r.pass(time.Second)
		r.cluster.set(func(c *cluster) { c.stubborn = false })
		r.restart()
		r.pass(5 * time.Second)
		if live := r.cluster.liveTasks("/db"); slices.Contains(live, first.ID) {
			t.Error("the kill was forgotten")
		}
	})
}

func TestTaskThatCannotBeSentIsAFailure(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		r.cluster.set(func(c *cluster) { c.invalid = "the image cannot be sent" })
		r.post(`{"id":"/web","cmd":"serve","cpus":1,"mem":64,"backoffSeconds":30,"backoffFactor":1}`)
		r.pass(10 * time.Second)
		f := r.app("/web").LastFailure
		if f == nil || f.State != taskError || f.Message != "the image cannot be sent" {
			t.Fatalf("last failure: %+v", f)
		}
		if q := r.queue(); len(q) != 1 || q[0].Delay < 10*time.Second {
			t.Fatalf("queue: %+v", q)
		}
		r.cluster.set(func(c *cluster) { c.invalid = "" })
		r.running("/web")
	})
}

func TestKillAndScale(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		r.post(strings.Replace(web, `"instances":2`, `"instances":3`, 1))
		r.idle()
		victim := r.cluster.liveTasks("/web")[1]
		_, ref, err := r.core.KillTasks(r.t.Context(), Kill{TaskIDs: []string{victim}, Scale: true})
		if err != nil || ref == nil {
			t.Fatal(ref, err)
		}
		r.idle()
		if live := r.cluster.liveTasks("/web"); len(live) != 2 || slices.Contains(live, victim) || r.app("/web").App.Instances != 2 {
			t.Fatalf("live: %v", live)
		}
	})
}

func TestKillSelection(t *testing.T) {
	for selection, want := range map[string]int{app.YoungestFirst: 0, app.OldestFirst: 1} {
		t.Run(selection, func(t *testing.T) {
			inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
				r.post(fmt.Sprintf(`{"id":"/web","cmd":"serve","cpus":1,"mem":64,"killSelection":%q}`, selection))
				tasks := []string{r.running("/web").ID}
				r.idle()
				r.pass(time.Minute)
				r.scale("/web", 2)
				r.idle()
				for _, id := range r.cluster.liveTasks("/web") {
					if id != tasks[0] {
						tasks = append(tasks, id)
					}
				}
				r.scale("/web", 1)
				r.idle()
				if live := r.cluster.liveTasks("/web"); !slices.Equal(live, tasks[want:want+1]) {
					t.Errorf("kept %v of %v", live, tasks)
				}
			})
		})
	}
}

func TestUnreachableStrategies(t *testing.T) {
	for name, c := range map[string]struct {
		strategy               string
		replacedAfter, goneAt  time.Duration // 0: never
		survivesItsOwnReturn   bool
		returnAfter, lookAfter time.Duration
	}{
		"at once":    {`{"inactiveAfterSeconds":0,"expungeAfterSeconds":0}`, time.Second, time.Second, false, time.Minute, time.Minute},
		"in stages":  {`{"inactiveAfterSeconds":60,"expungeAfterSeconds":300}`, 60 * time.Second, 300 * time.Second, false, 10 * time.Minute, time.Minute},
		"back early": {`{"inactiveAfterSeconds":60,"expungeAfterSeconds":300}`, 0, 0, true, 30 * time.Second, 10 * time.Minute},
		"disabled":   {`"disabled"`, 0, 0, true, time.Hour, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
				r.post(fmt.Sprintf(`{"id":"/web","cmd":"serve","cpus":1,"mem":64,"unreachableStrategy":%s}`, c.strategy))
				first := r.running("/web")
				r.idle()
				r.cluster.partition(first.AgentID)
				lost := time.Now()
				if c.replacedAfter > 0 {
					r.until("replaced", func() bool { return len(r.cluster.liveTasks("/web")) == 2 })
					if took := time.Since(lost); took < c.replacedAfter-time.Second || took > c.replacedAfter+3*time.Second {
						t.Errorf("replaced after %v", took)
					}
					r.until("expunged", func() bool { return len(r.app("/web").Tasks) == 1 })
					if took := time.Since(lost); took < c.goneAt-time.Second || took > c.goneAt+3*time.Second {
						t.Errorf("expunged after %v", took)
					}
				}
				r.pass(c.returnAfter - time.Since(lost))
				r.cluster.heal(first.AgentID)
				r.pass(c.lookAfter)
				live := r.cluster.liveTasks("/web")
				if len(live) != 1 || slices.Contains(live, first.ID) != c.survivesItsOwnReturn {
					t.Errorf("after the return: %v, the first was %s", live, first.ID)
				}
			})
		})
	}
}

func TestRollStep(t *testing.T) {
	for name, c := range map[string]struct {
		in          rollInput
		kill, start int
	}{
		"all new before any old dies":      {rollInput{n: 2, min: 1, over: 1, old: 2, oldHealthy: 2}, 0, 2},
		"one ready lets one die":           {rollInput{n: 2, min: 1, over: 1, old: 2, oldHealthy: 2, current: 2, currentReady: 1}, 1, 0},
		"half at a time":                   {rollInput{n: 4, min: 0.5, over: 0, old: 4, oldHealthy: 4}, 2, 0},
		"room after the end, not the kill": {rollInput{n: 4, min: 0.5, over: 0, old: 2, oldHealthy: 2, stopping: 2}, 0, 0},
		"room taken":                       {rollInput{n: 4, min: 0.5, over: 0, old: 2, oldHealthy: 2}, 0, 2},
		"unhealthy ones die first":         {rollInput{n: 3, min: 1, over: 0, old: 3, oldHealthy: 1}, 2, 1},
		"nothing could move: one extra":    {rollInput{n: 1, min: 1, over: 0, old: 1, oldHealthy: 1}, 0, 1},
		"one extra with a half":            {rollInput{n: 1, min: 0.5, over: 0, old: 1, oldHealthy: 1}, 0, 1},
		"stop all, then start":             {rollInput{n: 3, min: 0, over: 0, old: 3, oldHealthy: 3}, 3, 0},
		"to none":                          {rollInput{n: 0, min: 1, over: 1, old: 3, oldHealthy: 3}, 3, 0},
		"thirds are meant exactly":         {rollInput{n: 3, min: 2.0 / 3, over: 1.0 / 3, old: 3, oldHealthy: 3}, 1, 1},
		"more wanted than there were":      {rollInput{n: 4, min: 1, over: 0.5, old: 2, oldHealthy: 2}, 0, 4},
	} {
		if kill, start := rollStep(c.in); kill != c.kill || start != c.start {
			t.Errorf("%s: kill %d start %d, want %d and %d", name, kill, start, c.kill, c.start)
		}
	}
}

// TestRollingKeepsItsBounds watches the numbers of tasks during updates.
func TestRollingKeepsItsBounds(t *testing.T) {
	for _, s := range []struct{ min, over float64 }{{1, 1}, {0.5, 0}, {0.5, 0.5}, {1, 0}, {0, 0}} {
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
				r.post(fmt.Sprintf(`{"id":"/web","cmd":"serve","cpus":0.5,"mem":64,"instances":4,
					"upgradeStrategy":{"minimumHealthCapacity":%v,"maximumOverCapacity":%v}}`, s.min, s.over))
				r.idle()
				r.update("/web", func(a *app.App) { a.Cmd = "serve better" })
				keep, most := int(4*s.min), int(4*(1+s.over))
				if keep == most {
					most++
				}
				done := func() bool {
					n := len(r.cluster.liveTasks("/web"))
					if running := r.app("/web").Running; running < keep || n > most {
						t.Fatalf("%d running of %d, want at least %d and at most %d", running, n, keep, most)
					}
					return len(r.app("/web").Deployments) == 0
				}
				r.until("updated", done)
			})
		})
	}
}

func TestDependenciesStartInOrder(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		r.cluster.set(func(c *cluster) { c.silent = true })
		r.post(`{"id":"/p/web","cmd":"serve","cpus":1,"mem":64,"dependencies":["/p/data"]}`,
			`{"id":"/p/data/db","cmd":"run","cpus":1,"mem":64}`)
		d, err := r.core.Deployments(r.t.Context())
		if err != nil || len(d) != 1 {
			t.Fatal(d, err)
		}
		want := [][]Action{
			{{actionStart, "/p/data/db"}, {actionStart, "/p/web"}},
			{{actionScale, "/p/data/db"}}, {{actionScale, "/p/web"}},
		}
		if !slices.EqualFunc(d[0].Steps, want, slices.Equal[[]Action]) {
			t.Fatalf("steps: %v", d[0].Steps)
		}
		r.pass(10 * time.Second)
		if live := r.cluster.liveTasks("/p/web"); len(live) != 0 {
			t.Fatalf("started before its dependency runs: %v", live)
		}
		r.cluster.set(func(c *cluster) { c.silent = false })
		for _, id := range r.cluster.liveTasks("/p/data/db") {
			r.cluster.move(id, "", taskRunning)
		}
		r.running("/p/web")
		r.idle()
	})
}

func TestRefusals(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		r.cluster.set(func(c *cluster) { c.silent = true })
		ref := r.post(web)
		var locked *LockedError
		if _, err := r.change(strings.Replace(web, "serve", "other", 1)); !errors.As(err, &locked) || locked.App != "/web" || !slices.Equal(locked.Deployments, []string{ref.ID}) {
			t.Errorf("update of a locked app: %v", err)
		}
		if _, err := r.core.Restart(r.t.Context(), "/web", false); !errors.As(err, &locked) {
			t.Errorf("restart of a locked app: %v", err)
		}
		var conflict *ConflictError
		if _, err := r.core.Change(r.t.Context(), Change{Upsert: []*app.App{r.parse(web)}, CreateOnly: true}); !errors.As(err, &conflict) || err.Error() != "An app with id [/web] already exists." {
			t.Errorf("second creation: %v", err)
		}
		var missing *NotFoundError
		for what, err := range map[string]error{
			"app":        second(r.core.App(r.t.Context(), "/none")),
			"versions":   second(r.core.Versions(r.t.Context(), "/none")),
			"version":    second(r.core.AppVersion(r.t.Context(), "/web", app.NewTimestamp(time.Unix(0, 0)))),
			"restart":    second(r.core.Restart(r.t.Context(), "/none", false)),
			"deployment": second(r.core.CancelDeployment(r.t.Context(), "none", false)),
			"delete":     second(r.core.Change(r.t.Context(), Change{Delete: []app.ID{"/none"}})),
		} {
			if !errors.As(err, &missing) {
				t.Errorf("%s: %v", what, err)
			}
		}
		stale := Change{Upsert: []*app.App{r.parse(web)}, Base: map[app.ID]app.Timestamp{"/web": {}}, Force: true}
		if _, err := r.core.Change(r.t.Context(), stale); !errors.Is(err, ErrStale) {
			t.Errorf("change of an older version: %v", err)
		}
		var invalid *app.ValidationError
		if _, err := r.change(`{"id":"/x","cmd":"c","dependencies":["/y"]}`, `{"id":"/y","cmd":"c","dependencies":["/x"]}`); !errors.As(err, &invalid) {
			t.Errorf("cyclic dependencies: %v", err)
		}
		if r.exists("/x") {
			t.Error("a refused change left an app")
		}
	})
}

func second[T any](_ T, err error) error { return err }

func TestTooManyDeployments(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		if err := r.halt(); err != nil {
			t.Fatal(err)
		}
		r.cfg.MaxDeployments = 1
		r.cluster.set(func(c *cluster) { c.silent = true })
		r.start()
		r.post(web)
		var limit *TooManyDeploymentsError
		if _, err := r.change(db); !errors.As(err, &limit) || r.exists("/db") {
			t.Fatalf("got %v", err)
		}
	})
}

func TestCancelAndRevert(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		r.post(web)
		r.idle()
		before := r.cluster.liveTasks("/web")
		r.cluster.set(func(c *cluster) { c.silent = true })
		ref := r.update("/web", func(a *app.App) { a.Cmd = "broken" })
		r.pass(10 * time.Second)
		back, err := r.core.CancelDeployment(r.t.Context(), ref.ID, false)
		if err != nil || back == nil {
			t.Fatal(back, err)
		}
		r.idle()
		if live := r.cluster.liveTasks("/web"); !equal(live, before) || r.app("/web").App.Cmd != "serve" {
			t.Errorf("after the revert: %v, before the update: %v", live, before)
		}

		ref = r.update("/web", func(a *app.App) { a.Cmd = "broken again" })
		none, err := r.core.CancelDeployment(r.t.Context(), ref.ID, true)
		if err != nil || none != nil {
			t.Fatal(none, err)
		}
		r.idle()
		if v := r.app("/web"); v.App.Cmd != "broken again" {
			t.Errorf("a forced cancel changed the definition: %s", v.App.Cmd)
		}
	})
}

func TestRevertOfACreationDeletes(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		r.cluster.set(func(c *cluster) { c.silent = true })
		ref := r.post(db)
		r.pass(time.Second)
		if _, err := r.core.CancelDeployment(r.t.Context(), ref.ID, false); err != nil {
			t.Fatal(err)
		}
		r.until("gone", func() bool { return !r.exists("/db") })
	})
}

func TestRestartReplacesWithoutChange(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		r.post(db)
		first := r.running("/db")
		r.idle()
		if _, err := r.core.Restart(r.t.Context(), "/db", false); err != nil {
			t.Fatal(err)
		}
		r.idle()
		if next := r.running("/db"); next.ID == first.ID {
			t.Error("not restarted")
		}
		versions, err := r.core.Versions(r.t.Context(), "/db")
		if err != nil || len(versions) != 2 || versions[0].Compare(versions[1]) <= 0 {
			t.Errorf("versions: %v, %v", versions, err)
		}
	})
}

func TestIdenticalDefinitionChangesNothing(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		r.post(web)
		r.idle()
		before := r.cluster.liveTasks("/web")
		version := r.app("/web").App.Version
		r.post(web)
		if v := r.app("/web"); len(v.Deployments) != 0 || v.App.Version != version || !equal(r.cluster.liveTasks("/web"), before) {
			t.Errorf("%+v", v)
		}
	})
}

func TestUnknownTaskIsKilled(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		r.pass(time.Second)
		r.cluster.set(func(c *cluster) {
			c.tasks["stray"] = &clusterTask{id: "stray", agent: "S0", app: &app.App{ID: "/stray"}, state: taskRunning}
		})
		r.until("the stray task is killed", func() bool { return len(r.cluster.liveTasks("/stray")) == 0 })
	})
}

// otherFramework is a master that gives everybody a new framework id.
type otherFramework struct{ *conn }

func (o otherFramework) Run(ctx context.Context, _ string) error {
	defer close(o.events)
	o.events <- Subscribed{FrameworkID: "framework-2"}
	<-ctx.Done()
	return ctx.Err()
}

func TestNewFrameworkIDIsRefusedWhileTasksExist(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		r.post(db)
		r.running("/db")
		if err := r.halt(); err != nil {
			t.Fatal(err)
		}
		r.connect = func() Mesos { return otherFramework{r.cluster.connect()} }
		r.start()
		bubbletest.Wait()
		err := r.halt()
		if err == nil || !strings.Contains(err.Error(), "framework-2") || !strings.Contains(err.Error(), "framework-1") {
			t.Fatalf("ended with %v", err)
		}
		r.connect = nil
		r.start()
		r.running("/db")
		if id := r.core.Info().FrameworkID; id != testFramework {
			t.Errorf("framework id %s", id)
		}
	})
}

func TestEventsOfADeployment(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		ctx, cancel := context.WithCancel(r.t.Context())
		events := r.core.Subscribe(ctx, 100)
		slow := r.core.Subscribe(ctx, 1)
		r.post(db)
		r.idle()
		r.core.Publish(BusEvent{Type: "mine"})
		cancel()
		seen := map[string]int{}
		for ev := range events {
			seen[ev.Type]++
		}
		for _, want := range []string{"deployment_info", "deployment_step_success", "deployment_success",
			"status_update_event", "instance_changed_event", "mine"} {
			if seen[want] == 0 {
				t.Errorf("no %s in %v", want, seen)
			}
		}
		n := 0
		for range slow {
			n++
		}
		if n != 1 {
			t.Errorf("a listener with room for 1 got %d events", n)
		}
	})
}

func TestOffersStopWhenNothingWaits(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		r.post(web)
		r.idle()
		r.pass(10 * time.Second)
		r.cluster.set(func(c *cluster) {
			if !c.conn.suppress {
				t.Error("offers are not suppressed")
			}
			for _, a := range c.agents {
				if a.offered != "" {
					t.Errorf("offer %s is held", a.offered)
				}
			}
		})
	})
}

func TestSubscriptionFollowsTheRolesOfApps(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		roles := func() (out []string) {
			r.cluster.set(func(c *cluster) {
				for _, call := range c.calls {
					if strings.HasPrefix(call, "roles ") {
						out = append(out, strings.TrimPrefix(call, "roles "))
					}
				}
			})
			return out
		}
		a := r.parse(web)
		a.Role = "prod"
		r.pass(time.Second)
		r.cluster.set(func(c *cluster) { c.refuseRoles = errors.New("not now") })
		if _, err := r.core.Change(r.t.Context(), Change{Upsert: []*app.App{a}}); err != nil {
			t.Fatal(err)
		}
		r.pass(3 * time.Second)
		refused := roles()
		r.cluster.set(func(c *cluster) { c.refuseRoles = nil })
		r.pass(5 * time.Second)
		got := roles()
		// One at the start, one at the change, then one for each second.
		if len(refused) < 3 || len(refused) > 6 || got[len(got)-1] != "* prod" || len(got) > len(refused)+1 {
			t.Errorf("roles: %q", got)
		}
		r.delete("/web")
		r.until("gone", func() bool { return !r.exists("/web") })
		r.pass(2 * time.Second)
		if got := roles(); got[len(got)-1] != "*" {
			t.Errorf("after the end of the app: %q", got)
		}
		r.restart()
	})
}

// stuckStore blocks in Commit until it is released.
type stuckStore struct {
	store.Store
	release chan struct{}
}

func (s *stuckStore) Commit(writes []store.Write) error {
	<-s.release
	return s.Store.Commit(writes)
}

func TestRequestsEndWithTheirContext(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		if err := r.halt(); err != nil {
			t.Fatal(err)
		}
		stuck := &stuckStore{release: make(chan struct{})}
		r.wrap = func(st store.Store) store.Store { stuck.Store = st; return stuck }
		r.start()
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
		defer cancel()
		if _, err := r.core.Change(ctx, Change{Upsert: []*app.App{r.parse(web)}}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("change while the disk hangs: %v", err)
		}
		if _, err := r.core.Apps(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("query while the disk hangs: %v", err)
		}
		close(stuck.release)
		r.idle()
		if err := r.halt(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.core.Apps(r.t.Context()); !errors.Is(err, ErrStopped) {
			t.Errorf("query of a stopped core: %v", err)
		}
	})
}

func TestQueueSaysWhatIsLacking(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(`{"id":"/big","cmd":"run","cpus":100,"mem":64}`)
		r.pass(10 * time.Second)
		q := r.queue()
		if len(q) != 1 || q[0].Count != 1 || q[0].Processed == 0 || q[0].LastUnused.IsZero() {
			t.Fatalf("queue: %+v", q)
		}
		w := q[0].Waiting[0]
		if w.Offers != 2 || len(w.Counts) != 1 || w.Counts[0].Reason != scheduler.InsufficientCPUs || !strings.Contains(w.Text, "cpus") {
			t.Errorf("waiting: %+v", w)
		}
	})
}
