package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/resources"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/agenttest"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

// reservedDisk returns a disk of a hierarchical role's, as a framework sends
// it in an operation.
func reservedDisk() mesos.Resource {
	return mesos.Resource{
		Name:           "disk",
		Type:           mesos.SCALAR.Enum(),
		Scalar:         &mesos.Value_Scalar{Value: 64},
		AllocationInfo: &mesos.Resource_AllocationInfo{Role: ptr("eng/db")},
		Reservations: []mesos.Resource_ReservationInfo{{
			Type: mesos.Resource_ReservationInfo_DYNAMIC.Enum(), Role: ptr("eng/db"), Principal: ptr("p")}},
	}
}

func persistentVolume() mesos.Resource {
	r := reservedDisk()
	r.Disk = &mesos.Resource_DiskInfo{
		Persistence: &mesos.Resource_DiskInfo_Persistence{ID: "db#data#1", Principal: ptr("p")},
		Volume:      &mesos.Volume{ContainerPath: "data", Mode: mesos.RW.Enum()},
	}
	return r
}

func operation(kind mesos.Offer_Operation_Type, r mesos.Resource) mesos.Offer_Operation {
	o := mesos.Offer_Operation{Type: kind, ID: &mesos.OperationID{Value: "op-" + kind.String()}}
	list := []mesos.Resource{r}
	switch kind {
	case mesos.Offer_Operation_RESERVE:
		o.Reserve = &mesos.Offer_Operation_Reserve{Resources: list}
	case mesos.Offer_Operation_UNRESERVE:
		o.Unreserve = &mesos.Offer_Operation_Unreserve{Resources: list}
	case mesos.Offer_Operation_CREATE:
		o.Create = &mesos.Offer_Operation_Create{Volumes: list}
	case mesos.Offer_Operation_DESTROY:
		o.Destroy = &mesos.Offer_Operation_Destroy{Volumes: list}
	}
	return o
}

// outcomes returns the updates for an operation, repetitions included.
func (h *host) outcomes(kind mesos.Offer_Operation_Type) []link.OperationUpdate {
	var list []link.OperationUpdate
	for _, m := range h.master.Messages() {
		if u, ok := m.(link.OperationUpdate); ok && u.OperationID == "op-"+kind.String() {
			list = append(list, u)
		}
	}
	return list
}

func (h *host) apply(kind mesos.Offer_Operation_Type, r mesos.Resource, want mesos.OperationState) {
	h.t.Helper()
	before := len(h.outcomes(kind))
	h.master.Apply(name, operation(kind, r))
	agenttest.Eventually(h.t, "outcome of "+kind.String(), func() bool { return len(h.outcomes(kind)) > before })
	all := h.outcomes(kind)
	if last := all[len(all)-1]; last.State != want {
		h.t.Fatalf("%v: %v %s", kind, last.State, last.Message)
	}
}

// checkpointed returns what the agent said that it has when it last came back.
func (h *host) checkpointed() []mesos.Resource {
	h.t.Helper()
	h.kill()
	h.start()
	var last []mesos.Resource
	for _, m := range h.master.Messages() {
		if r, ok := m.(link.Reregister); ok {
			last = r.Checkpointed
		}
	}
	return last
}

func unallocated(r mesos.Resource) mesos.Resource {
	r.AllocationInfo = nil
	return r
}

// A persistent volume is made, keeps its data from task to task and across the
// agent's restart, and is deleted with everything in it.
func TestPersistentVolume(t *testing.T) {
	h := newHost(t)
	h.apply(mesos.Offer_Operation_RESERVE, reservedDisk(), mesos.OPERATION_FINISHED)
	expectResources(t, h.checkpointed(), unallocated(reservedDisk()))
	h.apply(mesos.Offer_Operation_CREATE, persistentVolume(), mesos.OPERATION_FINISHED)
	expectResources(t, h.checkpointed(), unallocated(persistentVolume()))

	writer := agenttest.Task("t.1", "echo data > data/file")
	writer.Resources = append(writer.Resources, persistentVolume())
	h.master.Run(name, writer)
	h.master.Await("t.1", mesos.TASK_FINISHED)
	reader := agenttest.Task("t.2", "cat data/file")
	reader.Resources = append(reader.Resources, persistentVolume())
	h.master.Run(name, reader)
	h.master.Await("t.2", mesos.TASK_FINISHED)
	expectEqual(t, "output", h.sandboxFile("t.2", "stdout"), "data\n")
	dir := filepath.Join(h.Dir(), "volumes", "roles", "eng db", "db#data#1")
	if data, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(data) != "data\n" {
		t.Errorf("volume has %q, %v", data, err)
	}

	h.apply(mesos.Offer_Operation_DESTROY, persistentVolume(), mesos.OPERATION_FINISHED)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("destroyed volume: %v", err)
	}
	expectResources(t, h.checkpointed(), unallocated(reservedDisk()))
	h.apply(mesos.Offer_Operation_UNRESERVE, reservedDisk(), mesos.OPERATION_FINISHED)
	expectResources(t, h.checkpointed())
	expectEqual(t, "number of calls of dvdcli", len(h.dvdcli.Calls()), 0)
}

func expectResources(t *testing.T, got []mesos.Resource, want ...mesos.Resource) {
	t.Helper()
	if !resources.Equivalent(got, want) {
		t.Fatalf("checkpointed resources: got %v, want %v", mesos.Resources(got), mesos.Resources(want))
	}
}

// What the agent does not have cannot be destroyed or unreserved.
func TestImpossibleOperations(t *testing.T) {
	h := newHost(t)
	h.apply(mesos.Offer_Operation_UNRESERVE, reservedDisk(), mesos.OPERATION_FAILED)
	h.apply(mesos.Offer_Operation_DESTROY, persistentVolume(), mesos.OPERATION_FAILED)
	evil := persistentVolume()
	evil.Disk.Persistence.ID = "../../evil"
	h.apply(mesos.Offer_Operation_CREATE, evil, mesos.OPERATION_FAILED)
}

// The outcome of an operation is repeated until it is acknowledged, across a
// restart of the agent, which does not carry it out twice.
func TestOperationOutcomeIsRepeated(t *testing.T) {
	h := newHost(t)
	h.master.AcknowledgeNothing(true)
	h.apply(mesos.Offer_Operation_RESERVE, reservedDisk(), mesos.OPERATION_FINISHED)
	sent := func() int { return len(h.outcomes(mesos.Offer_Operation_RESERVE)) }
	agenttest.Eventually(t, "repetition", func() bool { return sent() >= 3 })
	h.kill()
	before := sent()
	h.start()
	agenttest.Eventually(t, "repetition after the restart", func() bool { return sent() > before })
	first := h.outcomes(mesos.Offer_Operation_RESERVE)[0]
	h.master.Send(name, link.Apply{FrameworkID: first.FrameworkID, UUID: first.UUID, Operation: first.Operation})
	before = sent()
	agenttest.Eventually(t, "answer to the repeated operation", func() bool { return sent() > before })
	for _, o := range h.outcomes(mesos.Offer_Operation_RESERVE) {
		expectEqual(t, "status uuid", o.StatusUUID, first.StatusUUID)
	}
	h.master.AcknowledgeNothing(false)
	h.master.Send(name, link.AcknowledgeOperation{UUID: first.UUID, StatusUUID: first.StatusUUID})
	agenttest.Eventually(t, "end of the repetition", func() bool {
		data, err := os.ReadFile(filepath.Join(h.Dir(), "meta", "resources", "resources.state"))
		return err == nil && strings.Contains(string(data), `"Operations":null`)
	})
	expectResources(t, h.checkpointed(), unallocated(reservedDisk()))
}
