package master_test

import (
	"io"
	"strings"
	"testing"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	operator "github.com/mesos/mesos-go/api/v1/lib/master"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/master"
)

func TestSubscribedTellsMasterAndHeartbeatsFollow(t *testing.T) {
	c := startCluster(t)
	f := c.subscribe(mediaJSON, framework())
	first := <-f.events
	want := `{
 "type": "SUBSCRIBED",
 "subscribed": {
  "framework_id": {
   "value": "m0-0000"
  },
  "heartbeat_interval_seconds": 0.1,
  "master_info": {
   "id": "m0",
   "ip": 16777343,
   "port": PORT,
   "pid": "master@127.0.0.1:PORT",
   "hostname": "localhost",
   "version": "1.12.0",
   "address": {
    "hostname": "localhost",
    "ip": "127.0.0.1",
    "port": PORT
   },
   "domain": {
    "fault_domain": {
     "region": {
      "name": "region-1"
     },
     "zone": {
      "name": "zone-1"
     }
    }
   },
   "capabilities": [
    {
     "type": "AGENT_UPDATE"
    },
    {
     "type": "AGENT_DRAINING"
    },
    {
     "type": "QUOTA_V2"
    }
   ]
  }
 }
}`
	_, port, _ := strings.Cut(c.address, ":")
	if got := text(t, first); got != strings.ReplaceAll(want, "PORT", port) {
		t.Errorf("got %s", got)
	}
	for range 3 {
		if event := <-f.events; event.Type != scheduler.Event_HEARTBEAT {
			t.Errorf("got %v", event)
		}
	}
}

func TestSubscriptionsThatAreRefused(t *testing.T) {
	c := startCluster(t)
	removed := c.subscribe(mediaJSON, framework()).subscribed()
	removed.call(&scheduler.Call{Type: scheduler.Call_TEARDOWN})
	for want, change := range map[string]func(*mesos.FrameworkInfo){
		"Framework has been removed": func(info *mesos.FrameworkInfo) { info.ID = removed.id },
		"'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE capable": func(info *mesos.FrameworkInfo) {
			info.Capabilities = nil
		},
		"'FrameworkInfo.role' must not be set when the framework is MULTI_ROLE capable": func(info *mesos.FrameworkInfo) {
			info.Role = ptr("x")
		},
		"'FrameworkInfo.roles' contains duplicate items: { a }": func(info *mesos.FrameworkInfo) {
			info.Roles = []string{"a", "a"}
		},
		"The framework failover_timeout (-1) is invalid": func(info *mesos.FrameworkInfo) {
			info.FailoverTimeout = ptr(-1.0)
		},
	} {
		info := framework()
		change(info)
		f := c.subscribe(mediaJSON, info)
		if got := f.await(scheduler.Event_ERROR).Error.Message; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if err := <-f.ended; err != io.EOF {
			t.Errorf("%q: stream ended with %v", want, err)
		}
	}
	f := c.subscribe(mediaJSON, framework("a"), "b")
	if got := f.await(scheduler.Event_ERROR).Error.Message; got != "Suppressed roles { b } are not contained in the set of roles" {
		t.Errorf("got %q", got)
	}
}

func TestSubscribingAgainEndsTheOlderStream(t *testing.T) {
	c := startCluster(t)
	agent := c.agent(1).register()
	first := c.subscribe(mediaJSON, framework()).subscribed()
	o := first.offer(anyOffer)
	first.accept(o, launch(task("a", agent.id())))
	run := next[link.Run](agent)

	info := framework()
	info.ID = first.id
	second := c.subscribe(mediaProtobuf, info).subscribed()
	if got := first.await(scheduler.Event_ERROR).Error.Message; got != "Framework failed over" {
		t.Errorf("the older stream was told %q", got)
	}
	if err := <-first.ended; err != io.EOF {
		t.Errorf("the older stream ended with %v", err)
	}
	if got := first.try(&scheduler.Call{Type: scheduler.Call_REVIVE}); got.status != 400 {
		t.Errorf("a call of the older stream: %d %s", got.status, got.body)
	}
	second.offer(anyOffer)
	agent.update(run, mesos.TASK_RUNNING)
	if s := second.update(); s.GetState() != mesos.TASK_RUNNING {
		t.Errorf("the newer stream got %v", s)
	}
}

func TestPrincipalCannotChange(t *testing.T) {
	c := startCluster(t)
	first := c.subscribe(mediaJSON, framework()).subscribed()
	info := framework()
	info.ID, info.Principal = first.id, ptr("other")
	second := c.subscribe(mediaJSON, info)
	if got := second.await(scheduler.Event_ERROR).Error.Message; got != "Changing framework's principal is not allowed." {
		t.Errorf("got %q", got)
	}
	first.call(&scheduler.Call{Type: scheduler.Call_REVIVE})
}

func TestTasksOutliveTheSchedulerUntilItsTimeout(t *testing.T) {
	c := startCluster(t)
	agent := c.agent(1).register()
	info := framework()
	f := c.subscribe(mediaJSON, info).subscribed()
	f.accept(f.offer(anyOffer), launch(task("a", agent.id())))
	run := next[link.Run](agent)
	agent.update(run, mesos.TASK_RUNNING)
	f.update()

	f.cancel()
	<-f.ended
	poll(t, "the framework to be disconnected", func() bool {
		return !c.operate(&operator.Call{Type: operator.Call_GET_FRAMEWORKS}).GetFrameworks.Frameworks[0].Connected
	})
	agent.silent()
	info.ID, info.FailoverTimeout = f.id, ptr(0.01)
	again := c.subscribe(mediaJSON, info).subscribed()
	again.reconcile()
	if s := again.update(); s.GetState() != mesos.TASK_RUNNING || s.TaskID.Value != "a" {
		t.Errorf("after coming back: %v", s)
	}
	again.cancel()
	if told := next[link.ShutdownFramework](agent); told.FrameworkID.Value != f.id.Value {
		t.Errorf("agent was told %v", told)
	}
	late := c.subscribe(mediaJSON, info)
	if got := late.await(scheduler.Event_ERROR).Error.Message; got != "Framework has been removed" {
		t.Errorf("after the time-out: %q", got)
	}
	tasks := c.operate(&operator.Call{Type: operator.Call_GET_TASKS}).GetTasks
	if len(tasks.Tasks) != 0 || len(tasks.CompletedTasks) != 1 || tasks.CompletedTasks[0].GetState() != mesos.TASK_KILLED {
		t.Errorf("tasks after the time-out: %v", tasks)
	}
}

func TestTeardownKillsAndFrees(t *testing.T) {
	c := startCluster(t)
	agent := c.agent(1).register()
	f := c.subscribe(mediaJSON, framework()).subscribed()
	f.accept(f.offer(anyOffer), launch(task("a", agent.id())))
	next[link.Run](agent)
	other := c.subscribe(mediaJSON, framework("other")).subscribed()
	f.call(&scheduler.Call{Type: scheduler.Call_TEARDOWN})
	for range f.events {
	}
	if err := <-f.ended; err != io.EOF {
		t.Errorf("stream ended with %v", err)
	}
	next[link.ShutdownFramework](agent)
	offered := 0.0
	other.offer(func(o mesos.Offer) bool {
		offered += cpus(o)
		return offered > 3.99
	})
}

func cpus(o mesos.Offer) float64 {
	sum := 0.0
	for _, r := range o.Resources {
		if r.Name == "cpus" {
			sum += r.Scalar.Value
		}
	}
	return sum
}

func TestFrameworkCanChangeItsRoles(t *testing.T) {
	c := startCluster(t)
	c.agent(1).register()
	f := c.subscribe(mediaJSON, framework("a")).subscribed()
	if o := f.offer(anyOffer); o.AllocationInfo.GetRole() != "a" {
		t.Errorf("offer for %v", o.AllocationInfo)
	}
	info := framework("b")
	info.ID = f.id
	got := f.try(&scheduler.Call{Type: scheduler.Call_UPDATE_FRAMEWORK, UpdateFramework: &scheduler.Call_UpdateFramework{FrameworkInfo: *info}})
	if got.status != 200 {
		t.Fatalf("UPDATE_FRAMEWORK: %d %s", got.status, got.body)
	}
	f.await(scheduler.Event_RESCIND)
	if o := f.offer(anyOffer); o.AllocationInfo.GetRole() != "b" {
		t.Errorf("offer for %v", o.AllocationInfo)
	}
	info.Roles = []string{"b", "b"}
	got = f.try(&scheduler.Call{Type: scheduler.Call_UPDATE_FRAMEWORK, UpdateFramework: &scheduler.Call_UpdateFramework{FrameworkInfo: *info}})
	if got.status != 400 {
		t.Errorf("invalid update: %d %s", got.status, got.body)
	}
}

// A master with a list of roles refuses all others, and a subscription cannot
// change the user of the tasks.
func TestWhatAnUpdateOfAFrameworkIsRefusedFor(t *testing.T) {
	c := startCluster(t, func(cfg *master.Config) { cfg.Roles = []string{"a", "b"} })
	refused := c.subscribe(mediaJSON, framework("a", "y", "x"))
	if got := refused.await(scheduler.Event_ERROR).Error.Message; got != "Roles { x, y } are not present in the master's --roles" {
		t.Errorf("got %q", got)
	}
	f := c.subscribe(mediaJSON, framework("*", "a")).subscribed()
	update := func(change func(*mesos.FrameworkInfo)) answer {
		info := framework("a", "b")
		info.ID = f.id
		change(info)
		return f.try(&scheduler.Call{Type: scheduler.Call_UPDATE_FRAMEWORK, UpdateFramework: &scheduler.Call_UpdateFramework{FrameworkInfo: *info}})
	}
	for want, change := range map[string]func(*mesos.FrameworkInfo){
		"Supplied FrameworkInfo is not valid: Roles { x } are not present in the master's --roles": func(i *mesos.FrameworkInfo) { i.Roles = []string{"a", "x"} },
		"FrameworkInfo update is not valid: Updating 'FrameworkInfo.user' is unsupported; attempted to update from 'root' to 'nobody'": func(i *mesos.FrameworkInfo) {
			i.User = "nobody"
		},
		"FrameworkInfo update is not valid: Updating 'FrameworkInfo.checkpoint' is unsupported; attempted to update from 'true' to 'false'": func(i *mesos.FrameworkInfo) {
			i.Checkpoint = nil
		},
	} {
		if got := update(change); got.status != 400 || got.body != want {
			t.Errorf("got %d %s, want %s", got.status, got.body, want)
		}
	}
	if got := update(func(*mesos.FrameworkInfo) {}); got.status != 200 {
		t.Errorf("a good update: %d %s", got.status, got.body)
	}

	// A new subscription goes on with the user of the first.
	info := framework("a")
	info.ID, info.User = f.id, "nobody"
	again := c.subscribe(mediaJSON, info).subscribed()
	if got := again.try(&scheduler.Call{Type: scheduler.Call_UPDATE_FRAMEWORK, UpdateFramework: &scheduler.Call_UpdateFramework{FrameworkInfo: *info}}); got.status != 400 {
		t.Errorf("an update to another user: %d %s", got.status, got.body)
	}
}

// REVIVE and SUPPRESS with one role that the framework does not have are
// dropped as a whole.
func TestOfferFlowOfAForeignRole(t *testing.T) {
	c := startCluster(t)
	agent := c.agent(1).register()
	f := c.subscribe(mediaJSON, framework("a"), "a").subscribed()
	f.call(&scheduler.Call{Type: scheduler.Call_REVIVE, Revive: &scheduler.Call_Revive{Roles: []string{"a", "b"}}})
	f.reconcile(scheduler.Call_Reconcile_Task{TaskID: mesos.TaskID{Value: "unknown"}})
	if e := f.next(); e.Type != scheduler.Event_UPDATE {
		t.Errorf("got %v although the only role is suppressed", e)
	}
	f.call(&scheduler.Call{Type: scheduler.Call_REVIVE, Revive: &scheduler.Call_Revive{Roles: []string{"a"}}})
	o := f.offer(anyOffer)
	f.call(&scheduler.Call{Type: scheduler.Call_SUPPRESS, Suppress: &scheduler.Call_Suppress{Roles: []string{"a", "b"}}})
	f.accept(o, launch(task("t", agent.id())))
	next[link.Run](agent)
	f.offer(anyOffer) // of what the task left
}

func TestFrameworksShareTheCluster(t *testing.T) {
	c := startCluster(t, func(cfg *master.Config) { cfg.Timing.Heartbeat = deadline })
	first, second := c.agent(1), c.agent(2)
	first.register()
	a := c.subscribe(mediaJSON, framework("a")).subscribed()
	// Whoever has the smaller dominant share comes first.
	a.accept(a.offer(anyOffer), launch(task("t", first.id(), scalar("cpus", 3), scalar("mem", 3000), scalar("disk", 10000))))
	next[link.Run](first)
	b := c.subscribe(mediaJSON, framework("b")).subscribed()
	second.register()
	o := b.offer(func(o mesos.Offer) bool { return o.AgentID == second.id() })
	if o.FrameworkID != *b.id {
		t.Errorf("offer for %v", o.FrameworkID)
	}
	// What is offered to one cannot be accepted by the other.
	a.accept(o, launch(task("theft", second.id())))
	s := a.update()
	want := "Task launched with invalid offers: Offer " + o.ID.Value + " has invalid framework " + b.id.Value + " while framework " + a.id.Value + " is expected"
	if s.GetState() != mesos.TASK_DROPPED || s.GetMessage() != want {
		t.Errorf("got %v", s)
	}
	b.accept(o, launch(task("t", second.id())))
	next[link.Run](second)
}
