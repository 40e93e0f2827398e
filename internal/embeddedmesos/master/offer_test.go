package master_test

import (
	"strings"
	"testing"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	operator "github.com/mesos/mesos-go/api/v1/lib/master"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/master"
)

func TestOfferSaysAllOfTheAgent(t *testing.T) {
	c := startCluster(t)
	agent := c.agent(2).register()
	f := c.subscribe(mediaJSON, framework()).subscribed()
	o := f.offer(any1)
	want := `{
 "id": {
  "value": "m0-O0"
 },
 "framework_id": {
  "value": "m0-0000"
 },
 "agent_id": {
  "value": "m0-S0"
 },
 "hostname": "agent2.test",
 "url": {
  "scheme": "http",
  "address": {
   "hostname": "agent2.test",
   "ip": "127.0.0.1",
   "port": 5052
  },
  "path": "/slave(1)"
 },
 "domain": {
  "fault_domain": {
   "region": {
    "name": "region-1"
   },
   "zone": {
    "name": "zone-2"
   }
  }
 },
 "resources": [
  {
   "name": "ports",
   "type": "RANGES",
   "ranges": {
    "range": [
     {
      "begin": 31000,
      "end": 31999
     }
    ]
   },
   "allocation_info": {
    "role": "dvdi"
   }
  },
  {
   "name": "cpus",
   "type": "SCALAR",
   "scalar": {
    "value": 4.0
   },
   "allocation_info": {
    "role": "dvdi"
   }
  },
  {
   "name": "mem",
   "type": "SCALAR",
   "scalar": {
    "value": 4096.0
   },
   "allocation_info": {
    "role": "dvdi"
   }
  },
  {
   "name": "disk",
   "type": "SCALAR",
   "scalar": {
    "value": 10240.0
   },
   "allocation_info": {
    "role": "dvdi"
   }
  }
 ],
 "attributes": [
  {
   "name": "rack",
   "type": "TEXT",
   "text": {
    "value": "r1"
   }
  }
 ],
 "allocation_info": {
  "role": "dvdi"
 }
}`
	if got := text(t, &o); got != want {
		t.Errorf("got %s", got)
	}
	if agent.timeout != fast.AgentPing*5 {
		t.Errorf("ping time-out %s", agent.timeout)
	}
}

func TestDeclinedOfferStaysAwayUntilRevived(t *testing.T) {
	c := startCluster(t)
	c.agent(1).register()
	f := c.subscribe(mediaJSON, framework()).subscribed()
	o := f.offer(any1)
	f.call(&scheduler.Call{Type: scheduler.Call_DECLINE, Decline: &scheduler.Call_Decline{
		OfferIDs: []mesos.OfferID{o.ID}, Filters: &mesos.Filters{RefuseSeconds: ptr(3600.0)},
	}})
	f.quiet()
	f.call(&scheduler.Call{Type: scheduler.Call_REVIVE})
	if again := f.offer(any1); again.ID == o.ID {
		t.Error("an offer id was used twice")
	}
}

// quiet waits for two rounds of heartbeats, and many of the allocator, in
// which nothing else may come.
func (f *client) quiet() {
	f.t.Helper()
	for beats := 0; beats < 2; {
		event, open := <-f.events
		if !open {
			f.t.Fatal("the stream ended")
		}
		if event.Type != scheduler.Event_HEARTBEAT {
			f.t.Fatalf("got %v", event)
		}
		beats++
	}
}

func TestShortFilterExpires(t *testing.T) {
	c := startCluster(t)
	c.agent(1).register()
	f := c.subscribe(mediaJSON, framework()).subscribed()
	f.call(&scheduler.Call{Type: scheduler.Call_DECLINE, Decline: &scheduler.Call_Decline{
		OfferIDs: []mesos.OfferID{f.offer(any1).ID}, Filters: &mesos.Filters{RefuseSeconds: ptr(0.05)},
	}})
	f.offer(any1)
}

func TestSuppressedRolesGetNoOffers(t *testing.T) {
	c := startCluster(t)
	f := c.subscribe(mediaJSON, framework("a", "b"), "a").subscribed()
	c.agent(1).register()
	if o := f.offer(any1); o.AllocationInfo.GetRole() != "b" {
		t.Errorf("offer for %v", o.AllocationInfo)
	}
	f.call(&scheduler.Call{Type: scheduler.Call_SUPPRESS})
	second := c.agent(2).register()
	f.quiet()
	f.call(&scheduler.Call{Type: scheduler.Call_REVIVE, Revive: &scheduler.Call_Revive{Roles: []string{"a"}}})
	o := f.offer(any1)
	if o.AllocationInfo.GetRole() != "a" || o.AgentID != second.id() {
		t.Errorf("offer %v", o)
	}
}

func TestInvalidLaunches(t *testing.T) {
	c := startCluster(t)
	agent := c.agent(1).register()
	f := c.subscribe(mediaJSON, framework()).subscribed()
	o := f.offer(any1)
	f.accept(o, launch(task("running", agent.id())))
	next[link.Run](agent)
	with := func(change func(*mesos.TaskInfo)) mesos.TaskInfo {
		info := task("t", agent.id())
		change(&info)
		return info
	}
	for _, test := range []struct {
		task mesos.TaskInfo
		want string
	}{
		{task("big", agent.id(), scalar("cpus", 100), scalar("mem", 32)),
			"Total resources cpus(allocated: dvdi):100; mem(allocated: dvdi):32 required by task and its executor is more than available ports(allocated: dvdi):[31000-31999]; cpus(allocated: dvdi):3.9; mem(allocated: dvdi):4064; disk(allocated: dvdi):10240"},
		{task("running", agent.id()), "Task has duplicate ID: running"},
		{task("", agent.id()), "ID must not be empty"},
		{task("a/b", agent.id()), "'a/b' contains invalid characters"},
		{task("..", agent.id()), "'..' is disallowed"},
		{task(strings.Repeat("x", 256), agent.id()), "ID must not be greater than 255 characters"},
		{task("t", mesos.AgentID{Value: "x"}), "Task uses invalid agent x while agent " + agent.id().Value + " is expected"},
		{with(func(i *mesos.TaskInfo) { i.Resources = nil }), "Task uses no resources"},
		{with(func(i *mesos.TaskInfo) { i.Command = nil }),
			"Task should have at least one (but not both) of CommandInfo or ExecutorInfo present"},
		{with(func(i *mesos.TaskInfo) {
			i.Command, i.Executor = nil, &mesos.ExecutorInfo{ExecutorID: mesos.ExecutorID{Value: "e"}}
		}), "custom executors are not supported by the embedded Mesos master"},
		{with(func(i *mesos.TaskInfo) {
			i.KillPolicy = &mesos.KillPolicy{GracePeriod: &mesos.DurationInfo{Nanoseconds: -1}}
		}), "Task's 'kill_policy.grace_period' must be non-negative"},
		{with(func(i *mesos.TaskInfo) { i.HealthCheck = &mesos.HealthCheck{Type: mesos.HealthCheck_COMMAND} }),
			"Task uses invalid health check: Expecting 'command' to be set for COMMAND health check"},
		{with(func(i *mesos.TaskInfo) {
			i.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), Volumes: []mesos.Volume{{
				ContainerPath: "v", Mode: mesos.RW.Enum(), Source: &mesos.Volume_Source{Type: mesos.Volume_Source_DOCKER_VOLUME},
			}}}
		}), "Task's `ContainerInfo` is invalid: Invalid volume: 'source.docker_volume' is not set for DOCKER_VOLUME volume"},
		{with(func(i *mesos.TaskInfo) { i.Resources[0].Scalar.Value = -1 }),
			"Invalid resource cpus: resource error: illegal scalar resource: value < 0"},
	} {
		o := f.offer(any1)
		f.accept(o, launch(test.task))
		s := f.update()
		if s.GetState() != mesos.TASK_ERROR || s.GetReason() != mesos.REASON_TASK_INVALID || s.GetSource() != mesos.SOURCE_MASTER || s.GetMessage() != test.want {
			t.Errorf("%s: got %v, want %q", test.task.TaskID.Value, s, test.want)
		}
	}
	agent.silent()
}

func TestOtherRefusedLaunches(t *testing.T) {
	c := startCluster(t)
	agent := c.agent(1).register()
	f := c.subscribe(mediaProtobuf, framework()).subscribed()
	withID := launch(task("t", agent.id()))
	withID.ID = &mesos.OperationID{Value: "op"}
	f.accept(f.offer(any1), withID)
	if s := f.update(); s.GetMessage() != "The `id` field cannot be set on LAUNCH operations" || s.GetState() != mesos.TASK_ERROR {
		t.Errorf("LAUNCH with id: %v", s)
	}
	f.accept(f.offer(any1), mesos.Offer_Operation{Type: mesos.Offer_Operation_LAUNCH_GROUP, LaunchGroup: &mesos.Offer_Operation_LaunchGroup{
		Executor:  mesos.ExecutorInfo{ExecutorID: mesos.ExecutorID{Value: "e"}},
		TaskGroup: mesos.TaskGroupInfo{Tasks: []mesos.TaskInfo{task("g", agent.id())}},
	}})
	if s := f.update(); s.GetReason() != mesos.REASON_TASK_GROUP_INVALID || s.GetState() != mesos.TASK_ERROR {
		t.Errorf("LAUNCH_GROUP: %v", s)
	}
	o := f.offer(any1)
	f.accept(o)
	f.accept(o, launch(task("late", agent.id())))
	want := "Task launched with invalid offers: Offer " + o.ID.Value + " is no longer valid"
	if s := f.update(); s.GetMessage() != want || s.GetState() != mesos.TASK_DROPPED || s.GetReason() != mesos.REASON_INVALID_OFFERS {
		t.Errorf("used offer: %v", s)
	}
}

func TestSeveralOffersOfOneAgentTogether(t *testing.T) {
	c := startCluster(t)
	agent := c.agent(1).register()
	f := c.subscribe(mediaJSON, framework()).subscribed()
	f.accept(f.offer(any1), launch(task("a", agent.id())))
	run := next[link.Run](agent)
	rest := f.offer(any1)
	agent.update(run, mesos.TASK_FINISHED)
	f.update()
	freed := f.offer(func(o mesos.Offer) bool { return cpus(o) == 0.1 })
	f.call(&scheduler.Call{Type: scheduler.Call_ACCEPT, Accept: &scheduler.Call_Accept{
		OfferIDs:   []mesos.OfferID{rest.ID, freed.ID},
		Operations: []mesos.Offer_Operation{launch(task("all", agent.id(), scalar("cpus", 4), scalar("mem", 4096)))},
	}})
	if run := next[link.Run](agent); run.Task.TaskID.Value != "all" {
		t.Errorf("agent was told %v", run)
	}
}

func TestRegionsAndDomains(t *testing.T) {
	c := startCluster(t)
	far := c.agent(1)
	far.info.Domain = domain("region-2", "zone-1")
	far.register()
	info := framework()
	info.Capabilities = info.Capabilities[:2] // neither partition nor region aware
	f := c.subscribe(mediaJSON, info).subscribed()
	f.quiet()
	aware := c.subscribe(mediaJSON, framework("aware")).subscribed()
	aware.offer(any1)

	plain := startCluster(t, func(cfg *master.Config) { cfg.Domain = nil })
	agent := plain.agent(1)
	agent.connect()
	agent.sender.Send(link.Register{Process: agent.process, Info: agent.info})
	if told := next[link.ShutdownAgent](agent); told.Message == "" {
		t.Error("an agent with a domain was not told why it may not join")
	}
}

func TestUnavailabilityShowsInOffers(t *testing.T) {
	c := startCluster(t)
	agent := c.agent(1).register()
	f := c.subscribe(mediaJSON, framework()).subscribed()
	if o := f.offer(any1); o.Unavailability != nil {
		t.Errorf("offer says %v", o.Unavailability)
	}
	machine := []mesos.MachineID{{Hostname: ptr("AGENT1.test")}}
	update := &operator.Call{Type: operator.Call_UPDATE_MAINTENANCE_SCHEDULE, UpdateMaintenanceSchedule: &operator.Call_UpdateMaintenanceSchedule{}}
	window := mesosWindow(machine)
	update.UpdateMaintenanceSchedule.Schedule.Windows = append(update.UpdateMaintenanceSchedule.Schedule.Windows, window)
	c.operate(update)
	f.await(scheduler.Event_RESCIND)
	if o := f.offer(any1); !o.Unavailability.Equal(&window.Unavailability) {
		t.Errorf("offer says %v", o.Unavailability)
	}
	status := c.operate(&operator.Call{Type: operator.Call_GET_MAINTENANCE_STATUS}).GetMaintenanceStatus.Status
	if len(status.DrainingMachines) != 1 || len(status.DownMachines) != 0 {
		t.Errorf("status %v", status)
	}
	start := c.post("/api/v1", encode(t, mediaJSON, &operator.Call{
		Type: operator.Call_START_MAINTENANCE, StartMaintenance: &operator.Call_StartMaintenance{Machines: machine},
	}), map[string]string{"Content-Type": mediaJSON})
	if start.status != 200 {
		t.Fatalf("START_MAINTENANCE: %d %s", start.status, start.body)
	}
	next[link.ShutdownAgent](agent)
	f.await(scheduler.Event_RESCIND)
	f.await(scheduler.Event_FAILURE)
	status = c.operate(&operator.Call{Type: operator.Call_GET_MAINTENANCE_STATUS}).GetMaintenanceStatus.Status
	if len(status.DownMachines) != 1 {
		t.Errorf("status %v", status)
	}
}
