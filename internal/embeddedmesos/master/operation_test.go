package master_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/gogo/protobuf/proto"
	"github.com/google/uuid"
	mesos "github.com/mesos/mesos-go/api/v1/lib"
	operator "github.com/mesos/mesos-go/api/v1/lib/master"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

// reserved is a resource with a dynamic reservation for the test's role.
func reserved(r mesos.Resource) mesos.Resource {
	r.Reservations = []mesos.Resource_ReservationInfo{{
		Type: mesos.Resource_ReservationInfo_DYNAMIC.Enum(), Role: ptr("dvdi"), Principal: ptr("dvdi-principal"),
		Labels: &mesos.Labels{Labels: []mesos.Label{{Key: "instance", Value: ptr("db.0")}}},
	}}
	return r
}

// volume is a persistent volume on a reserved disk.
func volume(id string, size float64) mesos.Resource {
	r := reserved(scalar("disk", size))
	r.Disk = &mesos.Resource_DiskInfo{
		Persistence: &mesos.Resource_DiskInfo_Persistence{ID: id, Principal: ptr("dvdi-principal")},
		Volume:      &mesos.Volume{ContainerPath: "data", Mode: mesos.RW.Enum()},
	}
	return r
}

func reserve(id string, rs ...mesos.Resource) mesos.Offer_Operation {
	return withID(id, mesos.Offer_Operation{Type: mesos.Offer_Operation_RESERVE, Reserve: &mesos.Offer_Operation_Reserve{Resources: rs}})
}

func unreserve(id string, rs ...mesos.Resource) mesos.Offer_Operation {
	return withID(id, mesos.Offer_Operation{Type: mesos.Offer_Operation_UNRESERVE, Unreserve: &mesos.Offer_Operation_Unreserve{Resources: rs}})
}

func create(id string, rs ...mesos.Resource) mesos.Offer_Operation {
	return withID(id, mesos.Offer_Operation{Type: mesos.Offer_Operation_CREATE, Create: &mesos.Offer_Operation_Create{Volumes: rs}})
}

func destroy(id string, rs ...mesos.Resource) mesos.Offer_Operation {
	return withID(id, mesos.Offer_Operation{Type: mesos.Offer_Operation_DESTROY, Destroy: &mesos.Offer_Operation_Destroy{Volumes: rs}})
}

func withID(id string, op mesos.Offer_Operation) mesos.Offer_Operation {
	if id != "" {
		op.ID = &mesos.OperationID{Value: id}
	}
	return op
}

// finish reports that an operation was carried out.
func (a *fakeAgent) finish(apply link.Apply) link.OperationUpdate {
	id := uuid.New()
	update := link.OperationUpdate{
		FrameworkID: apply.FrameworkID, UUID: apply.UUID, OperationID: apply.Operation.ID.GetValue(),
		Operation: apply.Operation, State: mesos.OPERATION_FINISHED, StatusUUID: id[:],
	}
	a.sender.Send(update)
	return update
}

func (f *client) operationStatus() mesos.OperationStatus {
	f.t.Helper()
	return f.await(scheduler.Event_UPDATE_OPERATION_STATUS).UpdateOperationStatus.Status
}

func TestVolumeFromReservationToItsEnd(t *testing.T) {
	c := startCluster(t)
	agent := c.agent(1).register()
	f := c.subscribe(mediaJSON, framework()).subscribed()
	kept := []mesos.Resource{reserved(scalar("cpus", 0.1)), reserved(scalar("mem", 32)), volume("v", 64)}
	f.accept(f.offer(anyOffer),
		reserve("op-reserve", kept[0], kept[1], reserved(scalar("disk", 64))),
		create("op-create", kept[2]),
		launch(task("db", agent.id(), kept...)))

	made := next[link.Apply](agent)
	if made.Operation.Type != mesos.Offer_Operation_RESERVE || made.Operation.Reserve.Resources[0].AllocationInfo != nil {
		t.Errorf("agent was told %v", made)
	}
	created := next[link.Apply](agent)
	run := next[link.Run](agent)
	sent := agent.finish(made)
	status := f.operationStatus()
	want := mesos.OperationStatus{
		OperationID: &mesos.OperationID{Value: "op-reserve"}, State: mesos.OPERATION_FINISHED,
		UUID: &mesos.UUID{Value: sent.StatusUUID}, AgentID: agent.info.ID,
	}
	if !reflect.DeepEqual(status, want) {
		t.Errorf("got %v, want %v", status, want)
	}
	// The agent repeats it until it is acknowledged.
	agent.sender.Send(sent)
	if again := f.operationStatus(); !reflect.DeepEqual(again, want) {
		t.Errorf("repetition %v", again)
	}
	f.acknowledgeOperation(status)
	if ack := next[link.AcknowledgeOperation](agent); !reflect.DeepEqual(ack, link.AcknowledgeOperation{UUID: made.UUID, StatusUUID: sent.StatusUUID}) {
		t.Errorf("agent got %v", ack)
	}
	agent.finish(created)
	f.acknowledgeOperation(f.operationStatus())
	next[link.AcknowledgeOperation](agent)

	agent.update(run, mesos.TASK_FINISHED)
	f.acknowledge(f.update())
	next[link.Acknowledge](agent)
	o := f.offer(func(o mesos.Offer) bool { return reservedIn(o) == 3 })
	f.accept(o, destroy("", kept[2]), unreserve("", kept[0], kept[1], reserved(scalar("disk", 64))))
	// Nobody waits for these: the master acknowledges them itself.
	destroyed, unreserved := next[link.Apply](agent), next[link.Apply](agent)
	for _, apply := range []link.Apply{destroyed, unreserved} {
		agent.finish(apply)
		next[link.AcknowledgeOperation](agent)
	}
	// Alone, or with the rest of the agent if that was not offered before.
	f.offer(func(o mesos.Offer) bool { return reservedIn(o) == 0 && (cpus(o) == 0.1 || cpus(o) == 4) })
	if left := c.operate(&operator.Call{Type: operator.Call_GET_OPERATIONS}).GetOperations.Operations; len(left) != 0 {
		t.Errorf("operations left: %v", left)
	}
}

func reservedIn(o mesos.Offer) int {
	n := 0
	for _, r := range o.Resources {
		if len(r.Reservations) > 0 {
			n++
		}
	}
	return n
}

func (f *client) acknowledgeOperation(status mesos.OperationStatus) {
	f.t.Helper()
	f.call(&scheduler.Call{Type: scheduler.Call_ACKNOWLEDGE_OPERATION_STATUS, AcknowledgeOperationStatus: &scheduler.Call_AcknowledgeOperationStatus{
		AgentID: status.AgentID, OperationID: *status.OperationID, UUID: status.UUID.Value,
	}})
}

func TestRefusedOperations(t *testing.T) {
	c := startCluster(t)
	agent := c.agent(1).register()
	f := c.subscribe(mediaJSON, framework()).subscribed()
	allocated := func(r mesos.Resource, role string) mesos.Resource {
		r = *proto.Clone(&r).(*mesos.Resource)
		r.AllocationInfo = &mesos.Resource_AllocationInfo{Role: ptr(role)}
		return r
	}
	anonymous := reserved(scalar("cpus", 1))
	anonymous.Reservations[0].Principal = nil
	foreign := reserved(scalar("cpus", 1))
	foreign.Reservations[0].Principal = ptr("other")
	otherRole := reserved(scalar("cpus", 1))
	otherRole.Reservations[0].Role = ptr("other")
	readOnly := volume("v", 1)
	readOnly.Disk.Volume.Mode = mesos.RO.Enum()
	unreservedVolume := volume("v", 1)
	unreservedVolume.Reservations = nil
	provided := reserved(scalar("disk", 1))
	provided.ProviderID = &mesos.ResourceProviderID{Value: "p"}
	nowhere := volume("v", 1)
	nowhere.Disk.Volume = nil
	shared := volume("v", 1)
	shared.Shared = &mesos.Resource_SharedInfo{}
	for want, op := range map[string]mesos.Offer_Operation{
		"Resource cpus(allocated: dvdi):1 is not dynamically reserved":                                       reserve("op", scalar("cpus", 1)),
		"but there is a reserved resource in the request with no principal set":                              reserve("op", anonymous),
		"which does not match a reserved resource in the request with principal 'other'":                     reserve("op", foreign),
		"for a resource with role 'other', but the resource was allocated to role 'dvdi'":                    reserve("op", otherRole),
		"but the framework only has roles '{ dvdi }'":                                                        reserve("op", allocated(otherRole, "other")),
		"does not contain cpus(allocated: dvdi):100":                                                         reserve("op", reserved(scalar("cpus", 100))),
		"Reservation updates are not yet implemented":                                                        withID("op", mesos.Offer_Operation{Type: mesos.Offer_Operation_RESERVE, Reserve: &mesos.Offer_Operation_Reserve{Source: []mesos.Resource{reserved(scalar("cpus", 1))}}}),
		"does not contain cpus(allocated: dvdi)(reservations: [(DYNAMIC,dvdi,dvdi-principal,{instance: db.0": unreserve("op", reserved(scalar("cpus", 1))),
		"cannot be unreserved directly":                                                                      unreserve("op", volume("v", 1)),
		"Not a persistent volume: Resource disk(allocated: dvdi)":                                            create("op", reserved(scalar("disk", 1))),
		"Read-only persistent volume not supported":                                                          create("op", readOnly),
		"Persistent volumes cannot be created from unreserved resources":                                     create("op", unreservedVolume),
		"with no SHARED_RESOURCES capability":                                                                create("op", shared),
		"Invalid persistence ID for persistent volume: 'a/b' contains invalid characters":                    create("op", volume("a/b", 1)),
		"Persistent volumes not found":                                                                       destroy("op", volume("v", 1)),
		"Operation attempted with invalid resources: Resource 'cpus(":                                        reserve("op", reserved(scalar("cpus", -1))),
		"Some resources have a resource provider and some do not":                                            reserve("op", reserved(scalar("cpus", 1)), provided),
		"The resources have multiple allocation roles":                                                       create("op", volume("v", 1), allocated(volume("w", 1), "other")),
		"Persistence ID 'v' is not unique":                                                                   create("op", volume("v", 1), volume("v", 1)),
		"Expecting 'volume' to be set for persistent volume":                                                 create("op", nowhere),
		"GROW_VOLUME is not supported by the embedded Mesos master":                                          withID("op", mesos.Offer_Operation{Type: mesos.Offer_Operation_GROW_VOLUME, GrowVolume: &mesos.Offer_Operation_GrowVolume{Volume: volume("v", 1), Addition: scalar("disk", 1)}}),
	} {
		f.accept(f.offer(anyOffer), op)
		status := f.operationStatus()
		if status.State != mesos.OPERATION_ERROR || status.OperationID.GetValue() != "op" || !strings.Contains(status.GetMessage(), want) || status.UUID != nil {
			t.Errorf("%s: got %v, want %q", op.Type, status, want)
		}
	}
	// Without an id nobody hears of it: the next offer tells.
	f.accept(f.offer(anyOffer), reserve("", scalar("cpus", 1)))
	f.offer(func(o mesos.Offer) bool { return reservedIn(o) == 0 && cpus(o) == 4 })
	agent.silent()
}

func TestOperationsWithUsedOffers(t *testing.T) {
	c := startCluster(t)
	c.agent(1).register()
	f := c.subscribe(mediaJSON, framework()).subscribed()
	o := f.offer(anyOffer)
	f.accept(o)
	f.accept(o, reserve("op", reserved(scalar("cpus", 1))))
	want := "Operation attempted with invalid offers: Offer " + o.ID.Value + " is no longer valid"
	if s := f.operationStatus(); s.State != mesos.OPERATION_ERROR || s.GetMessage() != want {
		t.Errorf("got %v", s)
	}
}

func TestAgentWithoutOperationFeedback(t *testing.T) {
	c := startCluster(t)
	agent := c.agent(1)
	agent.process.Capabilities = agent.process.Capabilities[:3]
	agent.register()
	f := c.subscribe(mediaJSON, framework()).subscribed()
	f.accept(f.offer(anyOffer), reserve("op", reserved(scalar("cpus", 1))))
	if s := f.operationStatus(); s.State != mesos.OPERATION_ERROR || !strings.Contains(s.GetMessage(), "AGENT_OPERATION_FEEDBACK") {
		t.Errorf("got %v", s)
	}
	f.accept(f.offer(anyOffer), reserve("", reserved(scalar("cpus", 1))))
	agent.finish(next[link.Apply](agent))
	next[link.AcknowledgeOperation](agent)
	f.offer(func(o mesos.Offer) bool { return reservedIn(o) == 1 })
}

func TestOperationReconciliation(t *testing.T) {
	c := startCluster(t)
	agent := c.agent(1).register()
	f := c.subscribe(mediaJSON, framework()).subscribed()
	f.accept(f.offer(anyOffer), reserve("op", reserved(scalar("cpus", 1))))
	apply := next[link.Apply](agent)
	ask := func(operations ...scheduler.Call_ReconcileOperations_Operation) mesos.OperationStatus {
		f.call(&scheduler.Call{Type: scheduler.Call_RECONCILE_OPERATIONS, ReconcileOperations: &scheduler.Call_ReconcileOperations{Operations: operations}})
		return f.operationStatus()
	}
	if s := ask(); s.State != mesos.OPERATION_PENDING || s.OperationID.Value != "op" {
		t.Errorf("pending operation: %v", s)
	}
	agent.finish(apply)
	f.operationStatus()
	known := scheduler.Call_ReconcileOperations_Operation{OperationID: mesos.OperationID{Value: "op"}}
	if s := ask(known); s.State != mesos.OPERATION_FINISHED || s.UUID != nil {
		t.Errorf("finished operation: %v", s)
	}
	for want, agentID := range map[string]*mesos.AgentID{
		"Reconciliation: Operation is unknown":                                agent.info.ID,
		"Reconciliation: Both operation and agent are unknown":                {Value: "x"},
		"Reconciliation: Operation is unknown and no 'agent_id' was provided": nil,
	} {
		s := ask(scheduler.Call_ReconcileOperations_Operation{OperationID: mesos.OperationID{Value: "other"}, AgentID: agentID})
		if s.State != mesos.OPERATION_UNKNOWN || s.GetMessage() != want {
			t.Errorf("got %v, want %q", s, want)
		}
	}
}

func TestOperationThatNeverReachedTheAgent(t *testing.T) {
	c := startCluster(t)
	agent := c.agent(1).register()
	f := c.subscribe(mediaJSON, framework()).subscribed()
	o := f.offer(anyOffer)
	agent.cable.Cut()
	f.accept(o, reserve("op", reserved(scalar("cpus", 1))))
	agent.cable.Heal()
	agent.die()
	agent.connect()
	agent.reregister(link.Reregister{})
	s := f.operationStatusAfterRescinds()
	if s.State != mesos.OPERATION_DROPPED || s.OperationID.Value != "op" {
		t.Errorf("got %v", s)
	}
	f.offer(func(o mesos.Offer) bool { return reservedIn(o) == 0 && cpus(o) == 4 })
}

// operationStatusAfterRescinds ignores offers that come and go.
func (f *client) operationStatusAfterRescinds() mesos.OperationStatus {
	f.t.Helper()
	for {
		switch event := f.next(); event.Type {
		case scheduler.Event_UPDATE_OPERATION_STATUS:
			return event.UpdateOperationStatus.Status
		case scheduler.Event_OFFERS, scheduler.Event_RESCIND:
		default:
			f.t.Fatalf("got %v", event)
		}
	}
}

func TestOperatorReservesAndCreates(t *testing.T) {
	c := startCluster(t)
	agent := c.agent(1).register()
	f := c.subscribe(mediaJSON, framework()).subscribed()
	f.offer(anyOffer)
	try := func(call *operator.Call) answer {
		return c.post("/api/v1", encode(t, mediaJSON, call), map[string]string{"Content-Type": mediaJSON})
	}
	got := try(&operator.Call{Type: operator.Call_RESERVE_RESOURCES, ReserveResources: &operator.Call_ReserveResources{
		AgentID: agent.id(), Resources: []mesos.Resource{reserved(scalar("disk", 64))},
	}})
	if got.status != 202 {
		t.Fatalf("RESERVE_RESOURCES: %d %s", got.status, got.body)
	}
	f.await(scheduler.Event_RESCIND)
	agent.finish(next[link.Apply](agent))
	next[link.AcknowledgeOperation](agent)
	f.offer(func(o mesos.Offer) bool { return reservedIn(o) == 1 })
	got = try(&operator.Call{Type: operator.Call_CREATE_VOLUMES, CreateVolumes: &operator.Call_CreateVolumes{
		AgentID: agent.id(), Volumes: []mesos.Resource{volume("v", 64)},
	}})
	if got.status != 202 {
		t.Fatalf("CREATE_VOLUMES: %d %s", got.status, got.body)
	}
	next[link.Apply](agent)
	got = try(&operator.Call{Type: operator.Call_UNRESERVE_RESOURCES, UnreserveResources: &operator.Call_UnreserveResources{
		AgentID: agent.id(), Resources: []mesos.Resource{reserved(scalar("disk", 64))},
	}})
	if got.status != 409 {
		t.Errorf("UNRESERVE_RESOURCES of a volume's disk: %d %s", got.status, got.body)
	}
	got = try(&operator.Call{Type: operator.Call_DESTROY_VOLUMES, DestroyVolumes: &operator.Call_DestroyVolumes{
		AgentID: agent.id(), Volumes: []mesos.Resource{volume("v", 64)},
	}})
	if got.status != 202 {
		t.Errorf("DESTROY_VOLUMES: %d %s", got.status, got.body)
	}
}

func TestOperationOutlivesTheMaster(t *testing.T) {
	c := startCluster(t)
	agent := c.agent(1).register()
	f := c.subscribe(mediaJSON, framework()).subscribed()
	f.accept(f.offer(anyOffer), reserve("op", reserved(scalar("cpus", 1))))
	sent := agent.finish(next[link.Apply](agent))
	f.operationStatus()
	c.failover("m1")
	agent.die()
	agent.connect()
	agent.reregister(link.Reregister{
		Checkpointed: []mesos.Resource{reserved(scalar("cpus", 1))},
		Operations:   []link.OperationUpdate{sent},
		Frameworks:   []mesos.FrameworkInfo{{User: "root", Name: "test", ID: f.id, Principal: ptr("dvdi-principal")}},
	})
	info := framework()
	info.ID = f.id
	again := c.subscribe(mediaJSON, info).subscribed()
	again.offer(func(o mesos.Offer) bool { return reservedIn(o) == 1 })
	again.call(&scheduler.Call{Type: scheduler.Call_RECONCILE_OPERATIONS, ReconcileOperations: &scheduler.Call_ReconcileOperations{}})
	if s := again.operationStatus(); s.State != mesos.OPERATION_FINISHED || s.UUID != nil || s.OperationID.GetValue() != "op" {
		t.Errorf("reconciliation says %v", s)
	}
	agent.sender.Send(sent)
	again.acknowledgeOperation(again.operationStatus())
	if ack := next[link.AcknowledgeOperation](agent); !reflect.DeepEqual(ack.UUID, sent.UUID) {
		t.Errorf("agent got %v", ack)
	}
}

func TestCheckpointedResourcesThatTheAgentDoesNotHave(t *testing.T) {
	c := startCluster(t)
	agent := c.agent(1)
	agent.connect()
	agent.sender.Send(link.Register{Process: agent.process, Info: agent.info, Checkpointed: []mesos.Resource{reserved(scalar("cpus", 100))}})
	if told := next[link.ShutdownAgent](agent); !strings.Contains(told.Message, "is not among the agent's resources") {
		t.Errorf("agent was told %v", told)
	}
}
