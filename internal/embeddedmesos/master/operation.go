package master

import (
	"bytes"
	"fmt"
	"sort"

	"github.com/gogo/protobuf/proto"
	"github.com/google/uuid"
	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

// operation is a reservation or volume operation that an agent carries out and
// whose outcome the framework has not acknowledged.
type operation struct {
	info      mesos.Offer_Operation
	uuid      []byte
	seq       int
	framework *framework // nil once the framework is removed, and for operators
	agent     *agent
	statuses  []mesos.OperationStatus
}

// key is the operation's place in agent.operations.
func (op *operation) key() string { return string(op.uuid) }

func (op *operation) operationID() string { return op.info.ID.GetValue() }

func sortedOperations(operations map[string]*operation) []*operation {
	list := make([]*operation, 0, len(operations))
	for _, op := range operations {
		list = append(list, op)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].seq < list[j].seq })
	return list
}

// latest is the operation's state as far as the master knows.
func (op *operation) latest() mesos.OperationStatus {
	if n := len(op.statuses); n > 0 {
		return op.statuses[n-1]
	}
	return mesos.OperationStatus{
		OperationID: op.info.ID,
		State:       mesos.OPERATION_PENDING,
		AgentID:     op.agent.info.ID,
	}
}

// reconciliation is the latest status without the uuid: it is not sent
// reliably, so there is nothing to acknowledge.
func (op *operation) reconciliation() mesos.OperationStatus {
	status := op.latest()
	status.UUID = nil
	return status
}

func terminalOperation(state mesos.OperationState) bool {
	switch state {
	case mesos.OPERATION_FINISHED, mesos.OPERATION_FAILED, mesos.OPERATION_ERROR,
		mesos.OPERATION_DROPPED, mesos.OPERATION_GONE_BY_OPERATOR:
		return true
	}
	return false
}

// conversionsOf is what an operation does to resources (getResourceConversions).
func conversionsOf(op *mesos.Offer_Operation) ([]conversion, error) {
	var list []conversion
	switch op.Type {
	case mesos.Offer_Operation_RESERVE:
		reserved := newResources(op.Reserve.Resources)
		return []conversion{{consumed: reserved.popReservation(), converted: reserved}}, nil
	case mesos.Offer_Operation_UNRESERVE:
		for _, r := range op.Unreserve.Resources {
			one := newResources([]mesos.Resource{r})
			list = append(list, conversion{consumed: one, converted: one.popReservation()})
		}
	case mesos.Offer_Operation_CREATE:
		for _, v := range op.Create.Volumes {
			list = append(list, conversion{consumed: diskOf(v), converted: resources{v}})
		}
	case mesos.Offer_Operation_DESTROY:
		for _, v := range op.Destroy.Volumes {
			list = append(list, conversion{consumed: resources{v}, converted: diskOf(v), final: true})
		}
	default:
		return nil, refusedf("%s is not supported by the embedded Mesos master", op.Type)
	}
	return list, nil
}

// diskOf is the disk that a volume is on.
func diskOf(volume mesos.Resource) resources {
	r := *proto.Clone(&volume).(*mesos.Resource)
	withoutVolume(&r)
	return resources{r}
}

// popReservation takes the last refinement off.
func (rs resources) popReservation() resources {
	var out resources
	for _, r := range rs.clone() {
		if n := len(r.Reservations); n > 0 {
			r.Reservations = r.Reservations[:n-1]
		}
		if len(r.Reservations) == 0 {
			r.Reservations = nil
		}
		out.add1(r)
	}
	return out
}

// applyOperation has the agent carry out an operation whose effect the master
// takes for granted (Master::_apply).
func (m *Master) applyOperation(a *agent, f *framework, info *mesos.Offer_Operation, conversions []conversion) {
	id := uuid.New()
	op := &operation{info: *info, uuid: id[:], seq: m.nextOperation, framework: f, agent: a}
	m.nextOperation++
	a.operations[op.key()] = op
	message := link.Apply{UUID: op.uuid, Operation: *unallocatedOperation(info)}
	if f != nil {
		message.FrameworkID = *f.info.ID
		if op.operationID() != "" {
			f.operations[op.operationID()] = op
		}
	}
	for _, c := range conversions {
		a.convert(c)
	}
	a.conn.Send(message)
}

// convert applies a conversion to what the agent has.
func (a *agent) convert(c conversion) {
	c = conversion{consumed: c.consumed.unallocated(), converted: c.converted.unallocated()}
	total, err := c.apply(a.total)
	if err != nil {
		// The caller has checked it against a part of the total.
		panic(fmt.Sprintf("agent %s: %v", a.id(), err))
	}
	a.total = total
	a.checkpointed = a.total.filter(func(r *mesos.Resource) bool {
		return r.IsDynamicallyReserved() || r.IsPersistentVolume()
	})
}

// unallocatedOperation is the operation as agents get it.
func unallocatedOperation(info *mesos.Offer_Operation) *mesos.Offer_Operation {
	op := proto.Clone(info).(*mesos.Offer_Operation)
	for _, list := range operationResources(op) {
		for i := range list {
			list[i].AllocationInfo = nil
		}
	}
	return op
}

// operationResources are the lists of resources that an operation names.
func operationResources(op *mesos.Offer_Operation) [][]mesos.Resource {
	return [][]mesos.Resource{
		op.GetReserve().GetResources(), op.GetUnreserve().GetResources(),
		op.GetCreate().GetVolumes(), op.GetDestroy().GetVolumes(),
	}
}

// dropOperation tells the framework that an operation was refused, if it wants
// to know (Master::drop).
func (m *Master) dropOperation(f *framework, op *mesos.Offer_Operation, message string) {
	m.log.Warn("operation refused",
		zap.String("framework", f.id()), zap.Stringer("type", op.Type), zap.String("reason", message))
	if op.ID != nil {
		m.sendOperationStatus(f, mesos.OperationStatus{
			OperationID: op.ID, State: mesos.OPERATION_ERROR, Message: ptr(message),
		})
	}
}

func (m *Master) sendOperationStatus(f *framework, status mesos.OperationStatus) {
	m.send(f, &scheduler.Event{
		Type:                  scheduler.Event_UPDATE_OPERATION_STATUS,
		UpdateOperationStatus: &scheduler.Event_UpdateOperationStatus{Status: status},
	})
}

// operationUpdate handles an agent's report (Master::updateOperationStatus).
// What nobody will acknowledge the master acknowledges itself.
func (m *Master) operationUpdate(a *agent, update link.OperationUpdate) {
	op := a.operations[string(update.UUID)]
	if op == nil {
		op = m.adoptOperation(a, update)
	}
	status := operationStatus(a, update)
	op.statuses = append(op.statuses[:0], status)
	if op.framework != nil && op.operationID() != "" {
		m.sendOperationStatus(op.framework, status)
		return
	}
	a.conn.Send(link.AcknowledgeOperation{UUID: update.UUID, StatusUUID: update.StatusUUID})
	if terminalOperation(status.State) {
		m.removeOperation(op)
	}
}

func operationStatus(a *agent, update link.OperationUpdate) mesos.OperationStatus {
	status := mesos.OperationStatus{State: update.State, AgentID: a.info.ID}
	if update.OperationID != "" {
		status.OperationID = &mesos.OperationID{Value: update.OperationID}
	}
	if update.Message != "" {
		status.Message = ptr(update.Message)
	}
	if len(update.StatusUUID) > 0 {
		status.UUID = &mesos.UUID{Value: update.StatusUUID}
	}
	return status
}

// adoptOperation learns of an operation from the agent, after a master failover
// or a partition.
func (m *Master) adoptOperation(a *agent, update link.OperationUpdate) *operation {
	op := &operation{
		info: update.Operation, uuid: update.UUID, seq: m.nextOperation,
		framework: m.frameworks.registered[update.FrameworkID.Value], agent: a,
	}
	m.nextOperation++
	if update.OperationID != "" {
		op.info.ID = &mesos.OperationID{Value: update.OperationID}
	}
	a.operations[op.key()] = op
	if op.framework != nil && op.operationID() != "" {
		op.framework.operations[op.operationID()] = op
	}
	return op
}

// takeOperations learns of the operations of an agent that came back.
// Operations that the agent does not know were lost on the way to it.
func (m *Master) takeOperations(a *agent, reported []link.OperationUpdate) {
	known := make(map[string]bool)
	for _, update := range reported {
		known[string(update.UUID)] = true
		op := a.operations[string(update.UUID)]
		if op == nil {
			op = m.adoptOperation(a, update)
		}
		if update.State != mesos.OPERATION_PENDING {
			op.statuses = append(op.statuses[:0], operationStatus(a, update))
		}
	}
	for _, op := range sortedOperations(a.operations) {
		if !known[op.key()] {
			m.endOperation(op, mesos.OPERATION_DROPPED, "Reconciliation: Operation is unknown to the agent")
			m.removeOperation(op)
		}
	}
}

// endOperation tells the framework a state that the master has decided on. It
// is not sent reliably.
func (m *Master) endOperation(op *operation, state mesos.OperationState, message string) {
	if op.framework == nil || op.operationID() == "" {
		return
	}
	m.sendOperationStatus(op.framework, mesos.OperationStatus{
		OperationID: op.info.ID, State: state, Message: ptr(message), AgentID: op.agent.info.ID,
	})
}

func (m *Master) removeOperation(op *operation) {
	delete(op.agent.operations, op.key())
	if op.framework != nil && op.framework.operations[op.operationID()] == op {
		delete(op.framework.operations, op.operationID())
	}
}

// acknowledgeOperation handles ACKNOWLEDGE_OPERATION_STATUS
// (Master::acknowledgeOperationStatus).
func (m *Master) acknowledgeOperation(f *framework, call *scheduler.Call_AcknowledgeOperationStatus) {
	a := m.agents.registered[call.AgentID.GetValue()]
	op := f.operations[call.OperationID.Value]
	if a == nil || !a.connected || op == nil || op.agent != a {
		m.log.Warn("acknowledgement of an operation that is not here ignored",
			zap.String("agent", call.AgentID.GetValue()), zap.String("operation", call.OperationID.Value))
		return
	}
	status := op.latest()
	if !bytes.Equal(status.UUID.GetValue(), call.UUID) {
		m.log.Warn("acknowledgement of an unknown operation status ignored",
			zap.String("operation", call.OperationID.Value))
		return
	}
	if terminalOperation(status.State) {
		m.removeOperation(op)
	}
	a.conn.Send(link.AcknowledgeOperation{UUID: op.uuid, StatusUUID: call.UUID})
	m.checkDrained(a)
}
