package master

import (
	"net/http"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/master"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

// serveOperator is /api/v1 (Master::Http::api).
func (m *Master) serveOperator(w http.ResponseWriter, r *http.Request, principal string) error {
	var call master.Call
	if err := decodeCall(w, r, &call); err != nil {
		return err
	}
	if err := validateOperatorCall(&call); err != nil {
		return badRequest("Failed to validate master::Call: %v", err)
	}
	media, err := acceptedMedia(r)
	if err != nil {
		return err
	}
	var answer *master.Response
	var failure error
	if err := m.ask(r.Context(), func() { answer, failure = m.operate(&call, principal) }); err != nil {
		return err
	}
	if failure != nil {
		return failure
	}
	if answer == nil {
		w.WriteHeader(operatorSuccess(call.Type))
		return nil
	}
	return writeMessage(w, media, answer)
}

// operatorSuccess is the status of a call that has no answer of its own.
func operatorSuccess(call master.Call_Type) int {
	switch call {
	case master.Call_RESERVE_RESOURCES, master.Call_UNRESERVE_RESOURCES,
		master.Call_CREATE_VOLUMES, master.Call_DESTROY_VOLUMES:
		return http.StatusAccepted
	}
	return http.StatusOK
}

// operate carries a call out on the state goroutine.
func (m *Master) operate(call *master.Call, principal string) (*master.Response, error) {
	m.log.Debug("operator call", zap.Stringer("type", call.Type), zap.String("principal", principal))
	if answer := m.query(call.Type); answer != nil {
		return answer, nil
	}
	switch call.Type {
	case master.Call_MARK_AGENT_GONE:
		return nil, m.operateMarkGone(call.MarkAgentGone.AgentID.Value)
	case master.Call_TEARDOWN:
		f := m.frameworks.registered[call.Teardown.FrameworkID.Value]
		if f == nil {
			return nil, badRequest("No framework found with specified ID")
		}
		m.removeFramework(f)
		return nil, nil
	case master.Call_DRAIN_AGENT:
		return nil, m.operateDrain(call.DrainAgent)
	case master.Call_DEACTIVATE_AGENT:
		return nil, m.operateDeactivated(call.DeactivateAgent.AgentID.Value, true)
	case master.Call_REACTIVATE_AGENT:
		return nil, m.operateDeactivated(call.ReactivateAgent.AgentID.Value, false)
	case master.Call_UPDATE_MAINTENANCE_SCHEDULE:
		return nil, m.updateSchedule(call.UpdateMaintenanceSchedule)
	case master.Call_START_MAINTENANCE:
		return nil, m.setDown(call.StartMaintenance.Machines, true)
	case master.Call_STOP_MAINTENANCE:
		return nil, m.setDown(call.StopMaintenance.Machines, false)
	case master.Call_RESERVE_RESOURCES, master.Call_UNRESERVE_RESOURCES,
		master.Call_CREATE_VOLUMES, master.Call_DESTROY_VOLUMES:
		return nil, m.operateResources(call, principal)
	}
	return nil, &httpError{http.StatusNotImplemented, call.Type.String() + " is not supported by the embedded Mesos master"}
}

func (m *Master) operateMarkGone(id string) error {
	switch m.presence(id) {
	case agentGone:
		return nil
	case agentUnknown:
		return &httpError{http.StatusNotFound, "Agent '" + id + "' not found"}
	}
	return m.markGone(id)
}

func (m *Master) operateDrain(call *master.Call_DrainAgent) error {
	switch m.presence(call.AgentID.Value) {
	case agentUnknown, agentGone:
		return badRequest("Unknown agent")
	}
	config := mesos.DrainConfig{MarkGone: call.MarkGone}
	if limit := call.MaxGracePeriod; limit != nil {
		config.MaxGracePeriod = &mesos.DurationInfo{Nanoseconds: limit.Seconds*1e9 + int64(limit.Nanos)}
	}
	return m.drainAgent(call.AgentID.Value, config)
}

func (m *Master) operateDeactivated(id string, off bool) error {
	switch m.presence(id) {
	case agentUnknown, agentGone:
		return badRequest("Unknown agent")
	}
	if info, draining := m.registry.draining[id]; !off && draining && info.State == mesos.DrainState_DRAINING {
		return badRequest("Agent is still in the DRAINING state")
	}
	return m.setDeactivated(id, off)
}

func (m *Master) updateSchedule(call *master.Call_UpdateMaintenanceSchedule) error {
	if err := m.schedule.validate(call.Schedule); err != nil {
		return badRequest("%v", err)
	}
	m.schedule.schedule = call.Schedule
	if err := m.registry.save(); err != nil {
		m.fail(err)
		return err
	}
	m.refreshOffers(func(*agent) bool { return true })
	return nil
}

// refreshOffers takes offers back that say something outdated about the
// agents' unavailability, and makes new ones.
func (m *Master) refreshOffers(concerns func(*agent) bool) {
	for _, a := range m.agents.sorted() {
		now := m.schedule.unavailability(a.host())
		for _, o := range sortedOffers(a.offers) {
			if concerns(a) && !now.Equal(o.Unavailability) {
				m.rescind(o)
			}
		}
		if concerns(a) {
			m.reassess(a)
		}
	}
	m.allocate()
}

// setDown handles START_MAINTENANCE and STOP_MAINTENANCE. Agents on machines
// that go down are shut down.
func (m *Master) setDown(ids []mesos.MachineID, down bool) error {
	for _, id := range ids {
		one := machineOf(id)
		if !m.schedule.scheduled(one) {
			return badRequest("Machine '%s' is not part of a maintenance schedule", one)
		}
		if m.schedule.down[one] == down {
			return badRequest("Machine '%s' is not in %s mode", one, modeBefore(down))
		}
	}
	for _, id := range ids {
		m.setMachine(machineOf(id), down)
	}
	if err := m.registry.save(); err != nil {
		m.fail(err)
		return err
	}
	return nil
}

func modeBefore(down bool) string {
	if down {
		return "DRAINING"
	}
	return "DOWN"
}

func (m *Master) setMachine(one machine, down bool) {
	if !down {
		delete(m.schedule.down, one)
		m.schedule.forget(one)
		return
	}
	m.schedule.down[one] = true
	for _, a := range m.agents.sorted() {
		if one.matches(a.host()) {
			a.conn.Send(link.ShutdownAgent{Message: "Operator initiated 'Machine DOWN'"})
			m.unregisterAgent(a, "Operator initiated 'Machine DOWN'")
		}
	}
}

// validateOperatorCall says what validation::master::call::validate does.
func validateOperatorCall(call *master.Call) error {
	missing := func(field string, present bool) error {
		if present {
			return nil
		}
		return refusal("Expecting '" + field + "' to be present")
	}
	switch call.Type {
	case master.Call_UNKNOWN:
		return refusal("Expecting 'type' to be present")
	case master.Call_GET_METRICS:
		return missing("get_metrics", call.GetMetrics != nil)
	case master.Call_RESERVE_RESOURCES:
		return missing("reserve_resources", call.ReserveResources != nil)
	case master.Call_UNRESERVE_RESOURCES:
		return missing("unreserve_resources", call.UnreserveResources != nil)
	case master.Call_CREATE_VOLUMES:
		return missing("create_volumes", call.CreateVolumes != nil)
	case master.Call_DESTROY_VOLUMES:
		return missing("destroy_volumes", call.DestroyVolumes != nil)
	case master.Call_UPDATE_MAINTENANCE_SCHEDULE:
		return missing("update_maintenance_schedule", call.UpdateMaintenanceSchedule != nil)
	case master.Call_START_MAINTENANCE:
		return missing("start_maintenance", call.StartMaintenance != nil)
	case master.Call_STOP_MAINTENANCE:
		return missing("stop_maintenance", call.StopMaintenance != nil)
	case master.Call_DRAIN_AGENT:
		return missing("drain_agent", call.DrainAgent != nil)
	case master.Call_DEACTIVATE_AGENT:
		return missing("deactivate_agent", call.DeactivateAgent != nil)
	case master.Call_REACTIVATE_AGENT:
		return missing("reactivate_agent", call.ReactivateAgent != nil)
	case master.Call_MARK_AGENT_GONE:
		return missing("mark_agent_gone", call.MarkAgentGone != nil)
	case master.Call_TEARDOWN:
		return missing("teardown", call.Teardown != nil)
	}
	return nil
}

// operateResources handles the operator's reservations and volumes
// (Master::Http::_operation): offers that hold what is needed are taken back.
func (m *Master) operateResources(call *master.Call, principal string) error {
	id, op := operatorOperation(call)
	a := m.agents.registered[id]
	if a == nil || !a.connected {
		return badRequest("No agent found with specified ID")
	}
	for _, list := range operationResources(op) {
		for i := range list {
			if list[i].AllocationInfo != nil {
				return badRequest("Invalid %s operation on agent %s: resources must not be allocated", op.Type, id)
			}
		}
	}
	if err := upgradeOperation(op, ""); err != nil {
		return badRequest("%v", err)
	}
	op = unallocatedOperation(op)
	if err := validateOperation(op, a, nil); err != nil {
		return badRequest("Invalid %s operation on agent %s: %v", op.Type, id, err)
	}
	conversions, err := conversionsOf(op)
	if err != nil {
		return badRequest("%v", err)
	}
	m.rescindDestroyed(a, op)
	m.log.Info("operator changes resources", zap.Stringer("type", op.Type), zap.String("agent", id), zap.String("principal", principal))
	for _, o := range sortedOffers(a.offers) {
		if convertible(a.available(), conversions) {
			break
		}
		m.rescind(o)
	}
	if available := a.available(); !convertible(available, conversions) {
		return &httpError{http.StatusConflict, "Invalid " + op.Type.String() + " operation: " + available.String() + " does not contain what it needs"}
	}
	m.applyOperation(a, nil, op, conversions)
	return nil
}

func convertible(rs resources, conversions []conversion) bool {
	for _, c := range conversions {
		next, err := c.apply(rs)
		if err != nil {
			return false
		}
		rs = next
	}
	return true
}

func operatorOperation(call *master.Call) (agent string, op *mesos.Offer_Operation) {
	switch call.Type {
	case master.Call_RESERVE_RESOURCES:
		c := call.ReserveResources
		return c.AgentID.Value, &mesos.Offer_Operation{
			Type:    mesos.Offer_Operation_RESERVE,
			Reserve: &mesos.Offer_Operation_Reserve{Source: c.Source, Resources: c.Resources},
		}
	case master.Call_UNRESERVE_RESOURCES:
		c := call.UnreserveResources
		return c.AgentID.Value, &mesos.Offer_Operation{
			Type:      mesos.Offer_Operation_UNRESERVE,
			Unreserve: &mesos.Offer_Operation_Unreserve{Resources: c.Resources},
		}
	case master.Call_CREATE_VOLUMES:
		c := call.CreateVolumes
		return c.AgentID.Value, &mesos.Offer_Operation{
			Type:   mesos.Offer_Operation_CREATE,
			Create: &mesos.Offer_Operation_Create{Volumes: c.Volumes},
		}
	default:
		c := call.DestroyVolumes
		return c.AgentID.Value, &mesos.Offer_Operation{
			Type:    mesos.Offer_Operation_DESTROY,
			Destroy: &mesos.Offer_Operation_Destroy{Volumes: c.Volumes},
		}
	}
}
