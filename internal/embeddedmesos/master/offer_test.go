package master_test

import (
	"math"
	"strings"
	"testing"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/allocator"
	"github.com/mesos/mesos-go/api/v1/lib/maintenance"
	operator "github.com/mesos/mesos-go/api/v1/lib/master"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/master"
)

func TestOfferSaysAllOfTheAgent(t *testing.T) {
	c := startCluster(t)
	agent := c.agent(2).register()
	f := c.subscribe(mediaJSON, framework()).subscribed()
	o := f.offer(anyOffer)
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
	o := f.offer(anyOffer)
	f.call(&scheduler.Call{Type: scheduler.Call_DECLINE, Decline: &scheduler.Call_Decline{
		OfferIDs: []mesos.OfferID{o.ID}, Filters: &mesos.Filters{RefuseSeconds: ptr(3600.0)},
	}})
	f.quiet()
	f.call(&scheduler.Call{Type: scheduler.Call_REVIVE})
	if again := f.offer(anyOffer); again.ID == o.ID {
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
		OfferIDs: []mesos.OfferID{f.offer(anyOffer).ID}, Filters: &mesos.Filters{RefuseSeconds: ptr(0.05)},
	}})
	f.offer(anyOffer)
}

func TestSuppressedRolesGetNoOffers(t *testing.T) {
	c := startCluster(t)
	f := c.subscribe(mediaJSON, framework("a", "b"), "a").subscribed()
	c.agent(1).register()
	if o := f.offer(anyOffer); o.AllocationInfo.GetRole() != "b" {
		t.Errorf("offer for %v", o.AllocationInfo)
	}
	f.call(&scheduler.Call{Type: scheduler.Call_SUPPRESS})
	second := c.agent(2).register()
	f.quiet()
	f.call(&scheduler.Call{Type: scheduler.Call_REVIVE, Revive: &scheduler.Call_Revive{Roles: []string{"a"}}})
	o := f.offer(anyOffer)
	if o.AllocationInfo.GetRole() != "a" || o.AgentID != second.id() {
		t.Errorf("offer %v", o)
	}
}

func TestInvalidLaunches(t *testing.T) {
	c := startCluster(t)
	agent := c.agent(1).register()
	f := c.subscribe(mediaJSON, framework()).subscribed()
	o := f.offer(anyOffer)
	f.accept(o, launch(task("running", agent.id())))
	next[link.Run](agent)
	with := func(change func(*mesos.TaskInfo)) mesos.TaskInfo {
		info := task("t", agent.id())
		change(&info)
		return info
	}
	overlapping := mesos.Resource{Name: "ports", Type: mesos.RANGES.Enum(), Ranges: &mesos.Value_Ranges{
		Range: []mesos.Value_Range{{Begin: 31000, End: 31001}, {Begin: 31001, End: 31002}}}}
	emptyDisk := scalar("disk", 1)
	emptyDisk.Disk = &mesos.Resource_DiskInfo{}
	revocable := func(r mesos.Resource) mesos.Resource {
		r.Revocable = &mesos.Resource_RevocableInfo{}
		return r
	}
	refined := func(roles ...string) mesos.Resource {
		r := scalar("cpus", 0.1)
		for _, role := range roles {
			r.Reservations = append(r.Reservations, mesos.Resource_ReservationInfo{
				Type: mesos.Resource_ReservationInfo_DYNAMIC.Enum(), Role: ptr(role)})
		}
		return r
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
		{with(func(i *mesos.TaskInfo) {
			i.HealthCheck = &mesos.HealthCheck{Type: mesos.HealthCheck_COMMAND, Command: &mesos.CommandInfo{}}
		}), "Task uses invalid health check: Command health check must contain 'shell command'"},
		{with(func(i *mesos.TaskInfo) { i.HealthCheck = &mesos.HealthCheck{Type: mesos.HealthCheck_HTTP} }),
			"Task uses invalid health check: Expecting 'http' to be set for HTTP health check"},
		{with(func(i *mesos.TaskInfo) {
			i.HealthCheck = &mesos.HealthCheck{Type: mesos.HealthCheck_HTTP, HTTP: &mesos.HealthCheck_HTTPCheckInfo{Path: ptr("x")}}
		}), "Task uses invalid health check: The path 'x' of HTTP health check must start with '/'"},
		{with(func(i *mesos.TaskInfo) {
			i.HealthCheck = &mesos.HealthCheck{Type: mesos.HealthCheck_HTTP, HTTP: &mesos.HealthCheck_HTTPCheckInfo{Scheme: ptr("ftp")}}
		}), "Task uses invalid health check: Unsupported HTTP health check scheme: 'ftp'"},
		{with(func(i *mesos.TaskInfo) { i.HealthCheck = &mesos.HealthCheck{Type: mesos.HealthCheck_TCP} }),
			"Task uses invalid health check: Expecting 'tcp' to be set for TCP health check"},
		{with(func(i *mesos.TaskInfo) { i.HealthCheck = &mesos.HealthCheck{} }),
			"Task uses invalid health check: HealthCheck must specify 'type'"},
		{with(func(i *mesos.TaskInfo) {
			i.HealthCheck = &mesos.HealthCheck{
				Type: mesos.HealthCheck_TCP, TCP: &mesos.HealthCheck_TCPCheckInfo{Port: 1}, IntervalSeconds: ptr(-1.0),
			}
		}), "Task uses invalid health check: Expecting 'interval_seconds' to be non-negative"},
		{with(func(i *mesos.TaskInfo) {
			i.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_DOCKER.Enum()}
		}), "Task's `ContainerInfo` is invalid: DockerInfo 'docker' is not set for DOCKER typed ContainerInfo"},
		{withVolume(agent.id(), mesos.Volume{}), "Task's `ContainerInfo` is invalid: Invalid volume: Only one of them should be set: 'host_path', 'image' and 'source'"},
		{withVolume(agent.id(), mesos.Volume{Source: &mesos.Volume_Source{}}), "Task's `ContainerInfo` is invalid: Invalid volume: 'source.type' is unknown"},
		{withVolume(agent.id(), mesos.Volume{Source: &mesos.Volume_Source{Type: mesos.Volume_Source_HOST_PATH}}),
			"Task's `ContainerInfo` is invalid: Invalid volume: 'source.host_path' is not set for HOST_PATH volume"},
		{withVolume(agent.id(), mesos.Volume{Source: &mesos.Volume_Source{Type: mesos.Volume_Source_SANDBOX_PATH}}),
			"Task's `ContainerInfo` is invalid: Invalid volume: 'source.sandbox_path' is not set for SANDBOX_PATH volume"},
		{withVolume(agent.id(), mesos.Volume{Source: &mesos.Volume_Source{Type: mesos.Volume_Source_SECRET}}),
			"Task's `ContainerInfo` is invalid: Invalid volume: 'source.secret' is not set for SECRET volume"},
		{task("t", agent.id(), volume("v", 1), volume("v", 2)), "Task uses duplicate persistence ID: Persistence ID 'v' is not unique"},
		{with(func(i *mesos.TaskInfo) { i.Resources[0].Scalar.Value = -1 }),
			"Resource 'cpus:-1' is invalid: Invalid scalar resource: value <= 0"},
		{with(func(i *mesos.TaskInfo) { i.Resources[0].Scalar.Value = 0.0004 }),
			"Resource 'cpus:0.0004' is invalid: Invalid scalar resource: value <= 0"},
		{task("t", agent.id(), scalar("cpus", 0.1), overlapping),
			"Resource 'ports:[31000-31001, 31001-31002]' is invalid: Invalid ranges resource: overlapping ranges"},
		{task("t", agent.id(), emptyDisk), "Task uses invalid resources: Invalid DiskInfo: DiskInfo is set but empty"},
		{task("t", agent.id(), scalar("gpus", 0.5)), "Task uses invalid resources: Invalid 'gpus' resource: The 'gpus' resource must be an unsigned integer"},
		{task("t", agent.id(), scalar("cpus", 0.1), revocable(scalar("cpus", 0.1))),
			"Task mixes revocable and non-revocable resources: Cannot use both revocable and non-revocable 'cpus' at the same time"},
		{task("t", agent.id(), refined("dvdi", "other")),
			"Resource 'cpus(reservations: [(DYNAMIC,dvdi),(DYNAMIC,other)]):0.1' is invalid: Invalid refined reservation: role 'other' is not a refinement of 'dvdi'"},
		{with(func(i *mesos.TaskInfo) { i.Check = &mesos.CheckInfo{Type: mesos.CheckInfo_COMMAND} }),
			"Task uses invalid check: Expecting 'command' to be set for COMMAND check"},
		{with(func(i *mesos.TaskInfo) {
			i.Check = &mesos.CheckInfo{Type: mesos.CheckInfo_HTTP, HTTP: &mesos.CheckInfo_Http{Path: ptr("x")}}
		}), "Task uses invalid check: The path 'x' of HTTP check must start with '/'"},
		{with(func(i *mesos.TaskInfo) {
			i.Check = &mesos.CheckInfo{Type: mesos.CheckInfo_TCP, TCP: &mesos.CheckInfo_Tcp{Port: 1}, DelaySeconds: ptr(-1.0)}
		}), "Task uses invalid check: Expecting 'delay_seconds' to be non-negative"},
		{withVariable(agent.id(), mesos.Environment_Variable{Name: "V"}),
			"Task's `CommandInfo` is invalid: Environment variable 'V' of type 'VALUE' must have a value set"},
		{withVariable(agent.id(), mesos.Environment_Variable{Name: "V", Type: mesos.Environment_Variable_SECRET.Enum()}),
			"Task's `CommandInfo` is invalid: Environment variable 'V' of type 'SECRET' must have a secret set"},
		{withVariable(agent.id(), mesos.Environment_Variable{Name: "V", Type: mesos.Environment_Variable_SECRET.Enum(), Secret: &mesos.Secret{
			Type: mesos.Secret_VALUE, Value: &mesos.Secret_Value{Data: []byte("a\x00b")}}}),
			"Task's `CommandInfo` is invalid: Environment variable 'V' specifies a secret containing null bytes, which is not allowed in the environment"},
		{with(func(i *mesos.TaskInfo) {
			i.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_DOCKER.Enum(), Docker: &mesos.ContainerInfo_DockerInfo{
				Image: "i", Parameters: []mesos.Parameter{{Key: "name", Value: "n"}}}}
		}), "Task's `ContainerInfo` is invalid: Parameter in DockerInfo must not be 'name'"},
		{with(func(i *mesos.TaskInfo) { i.Limits = map[string]mesos.Value_Scalar{"cpus": {Value: 1}} }),
			"Agent is not capable of handling task resource limits"},
	} {
		o := f.offer(anyOffer)
		f.accept(o, launch(test.task))
		s := f.update()
		if s.GetState() != mesos.TASK_ERROR || s.GetReason() != mesos.REASON_TASK_INVALID || s.GetSource() != mesos.SOURCE_MASTER || s.GetMessage() != test.want {
			t.Errorf("%s: got %v, want %q", test.task.TaskID.Value, s, test.want)
		}
	}
	agent.silent()
}

func withVariable(agent mesos.AgentID, v mesos.Environment_Variable) mesos.TaskInfo {
	info := task("t", agent)
	info.Command.Environment = &mesos.Environment{Variables: []mesos.Environment_Variable{v}}
	return info
}

// What a task may use beyond its request is checked where the agent can limit
// tasks.
func TestTaskLimits(t *testing.T) {
	c := startCluster(t)
	agent := c.agent(1)
	agent.process.Capabilities = append(agent.process.Capabilities, mesos.AgentInfo_Capability{Type: mesos.AgentInfo_Capability_TASK_RESOURCE_LIMITS})
	agent.register()
	f := c.subscribe(mediaProtobuf, framework()).subscribed()
	for want, limits := range map[string]map[string]mesos.Value_Scalar{
		"The cpu limit must be greater than or equal to the cpu request":                  {"cpus": {Value: 0.05}},
		"The memory limit must be greater than or equal to the memory request":            {"mem": {Value: 1}},
		"Only cpus and mem may be included in a task's resource limits":                   {"disk": {Value: 1}},
		"When a CPU limit is specified, a CPU request must also be specified, without it": nil,
	} {
		info := task("t", agent.id())
		info.Limits = limits
		if limits == nil {
			info.Resources, info.Limits = info.Resources[1:], map[string]mesos.Value_Scalar{"cpus": {Value: 1}}
			want, _, _ = strings.Cut(want, ", without")
		}
		f.accept(f.offer(anyOffer), launch(info))
		if s := f.update(); s.GetState() != mesos.TASK_ERROR || s.GetMessage() != want {
			t.Errorf("got %v, want %q", s, want)
		}
	}
	info := task("unlimited", agent.id())
	info.Limits = map[string]mesos.Value_Scalar{"cpus": {Value: math.Inf(1)}, "mem": {Value: 64}}
	f.accept(f.offer(anyOffer), launch(info))
	if run := next[link.Run](agent); run.Task.TaskID.Value != "unlimited" {
		t.Errorf("agent was told %v", run)
	}
}

func TestOtherRefusedLaunches(t *testing.T) {
	c := startCluster(t)
	agent := c.agent(1).register()
	f := c.subscribe(mediaProtobuf, framework()).subscribed()
	withID := launch(task("t", agent.id()))
	withID.ID = &mesos.OperationID{Value: "op"}
	f.accept(f.offer(anyOffer), withID)
	if s := f.update(); s.GetMessage() != "The `id` field cannot be set on LAUNCH operations" || s.GetState() != mesos.TASK_ERROR {
		t.Errorf("LAUNCH with id: %v", s)
	}
	f.accept(f.offer(anyOffer), mesos.Offer_Operation{Type: mesos.Offer_Operation_LAUNCH_GROUP, LaunchGroup: &mesos.Offer_Operation_LaunchGroup{
		Executor:  mesos.ExecutorInfo{ExecutorID: mesos.ExecutorID{Value: "e"}},
		TaskGroup: mesos.TaskGroupInfo{Tasks: []mesos.TaskInfo{task("g", agent.id())}},
	}})
	if s := f.update(); s.GetReason() != mesos.REASON_TASK_GROUP_INVALID || s.GetState() != mesos.TASK_ERROR {
		t.Errorf("LAUNCH_GROUP: %v", s)
	}
	o := f.offer(anyOffer)
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
	f.accept(f.offer(anyOffer), launch(task("a", agent.id())))
	run := next[link.Run](agent)
	rest := f.offer(anyOffer)
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
	aware.offer(anyOffer)

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
	if o := f.offer(anyOffer); o.Unavailability != nil {
		t.Errorf("offer says %v", o.Unavailability)
	}
	machine := []mesos.MachineID{{Hostname: ptr("AGENT1.test")}}
	window := mesosWindow(machine)
	c.operate(schedule(window))
	f.await(scheduler.Event_RESCIND)
	if o := f.offer(anyOffer); !o.Unavailability.Equal(&window.Unavailability) {
		t.Errorf("offer says %v", o.Unavailability)
	}
	status := c.operate(&operator.Call{Type: operator.Call_GET_MAINTENANCE_STATUS}).GetMaintenanceStatus.Status
	if len(status.DrainingMachines) != 1 || len(status.DownMachines) != 0 {
		t.Errorf("status %v", status)
	}
	start := c.try(&operator.Call{
		Type: operator.Call_START_MAINTENANCE, StartMaintenance: &operator.Call_StartMaintenance{Machines: machine},
	})
	if start.status != 200 {
		t.Fatalf("START_MAINTENANCE: %d %s", start.status, start.body)
	}
	next[link.ShutdownAgent](agent)
	f.await(scheduler.Event_RESCIND)
	f.await(scheduler.Event_RESCIND_INVERSE_OFFER)
	f.await(scheduler.Event_FAILURE)
	// The next master knows of it: the agent may not come back before the
	// machine is up again.
	c.failover("m1")
	status = c.operate(&operator.Call{Type: operator.Call_GET_MAINTENANCE_STATUS}).GetMaintenanceStatus.Status
	if len(status.DownMachines) != 1 || len(status.DrainingMachines) != 0 {
		t.Errorf("status %v", status)
	}
	again := c.agent(1)
	again.connect()
	again.sender.Send(link.Register{Process: again.process, Info: again.info})
	if told := next[link.ShutdownAgent](again); told.Message != "Machine is `DOWN`" {
		t.Errorf("agent was told %v", told)
	}
	empty := &operator.Call{Type: operator.Call_UPDATE_MAINTENANCE_SCHEDULE, UpdateMaintenanceSchedule: &operator.Call_UpdateMaintenanceSchedule{}}
	for _, refused := range []*operator.Call{
		empty,
		{Type: operator.Call_START_MAINTENANCE, StartMaintenance: &operator.Call_StartMaintenance{Machines: machine}},
		{Type: operator.Call_STOP_MAINTENANCE, StopMaintenance: &operator.Call_StopMaintenance{Machines: []mesos.MachineID{{IP: ptr("10.0.0.1")}}}},
		schedule(mesosWindow(nil)),
		schedule(mesosWindow([]mesos.MachineID{{}})),
		schedule(mesosWindow(machine), mesosWindow(machine)),
	} {
		if got := c.try(refused); got.status != 400 || got.body == "" {
			t.Errorf("%v: %d %q", refused, got.status, got.body)
		}
	}
	if got := c.try(&operator.Call{Type: operator.Call_STOP_MAINTENANCE, StopMaintenance: &operator.Call_StopMaintenance{Machines: machine}}); got.status != 200 {
		t.Fatalf("STOP_MAINTENANCE: %d %s", got.status, got.body)
	}
	if left := c.operate(&operator.Call{Type: operator.Call_GET_MAINTENANCE_SCHEDULE}).GetMaintenanceSchedule.Schedule; len(left.Windows) != 0 {
		t.Errorf("schedule %v", left)
	}
	c.agent(1).register()
}

// Frameworks that have anything on an agent are asked to leave it in time; what
// they answer is shown to the operator, and asked again when the schedule changes.
func TestInverseOffers(t *testing.T) {
	c := startCluster(t)
	c.agent(1).register()
	f := c.subscribe(mediaJSON, framework()).subscribed()
	f.offer(anyOffer)
	machine := []mesos.MachineID{{Hostname: ptr("agent1.test")}}
	window := mesosWindow(machine)
	c.operate(schedule(window))
	f.await(scheduler.Event_RESCIND) // of the plain offer
	asked := func() mesos.InverseOffer {
		t.Helper()
		list := f.await(scheduler.Event_INVERSE_OFFERS).InverseOffers.InverseOffers
		if len(list) != 1 || list[0].AgentID == nil {
			t.Fatalf("inverse offers %v", list)
		}
		return list[0]
	}
	first := asked()
	if !first.Unavailability.Equal(&window.Unavailability) {
		t.Errorf("unavailability %v", first.Unavailability)
	}
	f.call(&scheduler.Call{Type: scheduler.Call_DECLINE_INVERSE_OFFERS, DeclineInverseOffers: &scheduler.Call_DeclineInverseOffers{
		InverseOfferIDs: []mesos.OfferID{first.OfferID, {Value: "no such"}}, Filters: &mesos.Filters{RefuseSeconds: ptr(0.0)}}})
	second := asked()
	f.call(&scheduler.Call{Type: scheduler.Call_ACCEPT_INVERSE_OFFERS, AcceptInverseOffers: &scheduler.Call_AcceptInverseOffers{
		InverseOfferIDs: []mesos.OfferID{second.OfferID}, Filters: &mesos.Filters{RefuseSeconds: ptr(3600.0)}}})
	status := c.operate(&operator.Call{Type: operator.Call_GET_MAINTENANCE_STATUS}).GetMaintenanceStatus.Status
	if d := status.DrainingMachines; len(d) != 1 || len(d[0].Statuses) != 1 || d[0].Statuses[0].GetStatus() != allocator.InverseOfferStatus_ACCEPT {
		t.Errorf("status %v", status)
	}
	window.Unavailability.Start.Nanoseconds++
	c.operate(schedule(window))
	f.await(scheduler.Event_RESCIND)
	third := asked() // although the framework wanted to hear no more of it
	c.operate(schedule())
	f.await(scheduler.Event_RESCIND)
	if gone := f.await(scheduler.Event_RESCIND_INVERSE_OFFER).RescindInverseOffer; gone.InverseOfferID != third.OfferID {
		t.Errorf("rescinded %v, want %v", gone.InverseOfferID, third.OfferID)
	}
	status = c.operate(&operator.Call{Type: operator.Call_GET_MAINTENANCE_STATUS}).GetMaintenanceStatus.Status
	if len(status.DrainingMachines) != 0 {
		t.Errorf("status %v", status)
	}
}

func schedule(windows ...maintenance.Window) *operator.Call {
	call := &operator.Call{Type: operator.Call_UPDATE_MAINTENANCE_SCHEDULE, UpdateMaintenanceSchedule: &operator.Call_UpdateMaintenanceSchedule{}}
	call.UpdateMaintenanceSchedule.Schedule.Windows = windows
	return call
}

// try makes an operator call that may be refused.
func (c *cluster) try(call *operator.Call) answer {
	c.t.Helper()
	return c.post("/api/v1", encode(c.t, mediaJSON, call), map[string]string{"Content-Type": mediaJSON})
}

func TestOffersInTheFrameworksFormat(t *testing.T) {
	c := startCluster(t)
	agent := c.agent(1)
	statically := scalar("cpus", 2)
	statically.Role = ptr("old")
	agent.info.Resources = append(agent.info.Resources, statically)
	agent.connect()
	agent.sender.Send(link.Register{Process: agent.process, Info: agent.info, Checkpointed: []mesos.Resource{
		inRole(reserved(scalar("mem", 64)), "old"),
	}})
	next[link.Registered](agent)
	info := framework()
	info.Capabilities, info.Roles, info.Role = nil, nil, ptr("old")
	f := c.subscribe(mediaJSON, info).subscribed()
	o := f.offer(anyOffer)
	if o.AllocationInfo != nil {
		t.Errorf("a framework without MULTI_ROLE is told %v", o.AllocationInfo)
	}
	formats := make(map[string]bool)
	for _, r := range o.Resources {
		if r.AllocationInfo != nil || r.Reservations != nil {
			t.Errorf("resource in the new format: %v", r)
		}
		formats[r.Name+" "+r.GetRole()+" "+r.GetReservation().GetPrincipal()] = true
	}
	for _, want := range []string{"cpus old ", "mem old dvdi-principal", "cpus * ", "mem * "} {
		if !formats[want] {
			t.Errorf("no %q in %v", want, formats)
		}
	}
	f.accept(o, launch(task("t", o.AgentID, statically)))
	next[link.Run](agent)
}

func inRole(r mesos.Resource, role string) mesos.Resource {
	r.Reservations[0].Role = ptr(role)
	return r
}

func withVolume(agent mesos.AgentID, v mesos.Volume) mesos.TaskInfo {
	v.ContainerPath, v.Mode = "v", mesos.RW.Enum()
	info := task("t", agent)
	info.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), Volumes: []mesos.Volume{v}}
	return info
}
