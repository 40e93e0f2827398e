package master

import (
	"net/http"

	"github.com/mesos/mesos-go/api/v1/lib/allocator"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

// streamIDHeader ties calls to the subscription that they belong to.
const streamIDHeader = "Mesos-Stream-Id"

// serveScheduler is /api/v1/scheduler (Master::Http::scheduler).
func (m *Master) serveScheduler(w http.ResponseWriter, r *http.Request, principal string) error {
	var call scheduler.Call
	if err := decodeCall(w, r, &call); err != nil {
		return err
	}
	if err := validateCall(&call, principal); err != nil {
		return badRequest("Failed to validate scheduler::Call: %v", err)
	}
	if call.Type == scheduler.Call_SUBSCRIBE {
		return m.serveSubscribe(w, r, call.Subscribe, principal)
	}
	if call.Type == scheduler.Call_RECONCILE_OPERATIONS {
		if _, err := acceptedMedia(r); err != nil {
			return err
		}
	}
	var answer error
	err := m.ask(r.Context(), func() { answer = m.handleCall(r.Header, &call, principal) })
	if err != nil {
		return err
	}
	if answer != nil {
		return answer
	}
	if call.Type != scheduler.Call_UPDATE_FRAMEWORK {
		w.WriteHeader(http.StatusAccepted)
	}
	return nil
}

func (m *Master) serveSubscribe(w http.ResponseWriter, r *http.Request, call *scheduler.Call_Subscribe, principal string) error {
	media, err := acceptedMedia(r)
	if err != nil {
		return err
	}
	if r.Header.Get(streamIDHeader) != "" {
		return badRequest("Subscribe calls should not include the 'Mesos-Stream-Id' header")
	}
	s := newStream(media)
	if !m.enterStream() {
		return errStopped
	}
	defer m.streams.Done()
	if err := m.ask(r.Context(), func() { m.subscribe(s, call, principal) }); err != nil {
		return err
	}
	defer m.post(func() { m.streamEnded(s) })
	w.Header().Set("Content-Type", media)
	w.Header().Set(streamIDHeader, s.id)
	w.WriteHeader(http.StatusOK)
	m.serveStream(r.Context(), w, s)
	return nil
}

// handleCall finds the framework and carries its call out.
func (m *Master) handleCall(header http.Header, call *scheduler.Call, principal string) error {
	f := m.frameworks.registered[call.FrameworkID.GetValue()]
	if f == nil {
		return badRequest("Framework cannot be found")
	}
	if principal != "" && principal != f.info.GetPrincipal() {
		return badRequest("Authenticated principal '%s' does not match principal '%s' set in `FrameworkInfo`", principal, f.info.GetPrincipal())
	}
	if !f.connected() {
		return &httpError{http.StatusForbidden, "Framework is not subscribed"}
	}
	switch id := header.Get(streamIDHeader); id {
	case f.stream.id:
	case "":
		return badRequest("All non-subscribe calls should include the 'Mesos-Stream-Id' header")
	default:
		return badRequest("The stream ID '%s' included in this request didn't match the stream ID currently associated with framework ID %s", id, f.id())
	}
	return m.dispatch(f, call)
}

func (m *Master) dispatch(f *framework, call *scheduler.Call) error {
	switch call.Type {
	case scheduler.Call_TEARDOWN:
		m.removeFramework(f)
	case scheduler.Call_ACCEPT:
		m.accept(f, call.Accept)
	case scheduler.Call_DECLINE:
		m.decline(f, call.Decline)
	case scheduler.Call_REVIVE:
		m.revive(f, call.GetRevive().GetRoles())
	case scheduler.Call_SUPPRESS:
		m.suppress(f, call.GetSuppress().GetRoles())
	case scheduler.Call_KILL:
		m.kill(f, call.Kill)
	case scheduler.Call_ACKNOWLEDGE:
		m.acknowledge(f, call.Acknowledge)
	case scheduler.Call_ACKNOWLEDGE_OPERATION_STATUS:
		m.acknowledgeOperation(f, call.AcknowledgeOperationStatus)
	case scheduler.Call_RECONCILE:
		m.reconcile(f, call.Reconcile)
	case scheduler.Call_RECONCILE_OPERATIONS:
		m.reconcileOperations(f, call.ReconcileOperations)
	case scheduler.Call_MESSAGE:
		m.message(f, call.Message)
	case scheduler.Call_UPDATE_FRAMEWORK:
		return m.updateFramework(f, call.UpdateFramework)
	case scheduler.Call_ACCEPT_INVERSE_OFFERS:
		m.answerInverse(f, call.AcceptInverseOffers.InverseOfferIDs, allocator.InverseOfferStatus_ACCEPT, call.AcceptInverseOffers.Filters)
	case scheduler.Call_DECLINE_INVERSE_OFFERS:
		m.answerInverse(f, call.DeclineInverseOffers.InverseOfferIDs, allocator.InverseOfferStatus_DECLINE, call.DeclineInverseOffers.Filters)
	case scheduler.Call_SHUTDOWN, scheduler.Call_REQUEST:
		// Accepted without effect: there are no custom executors to shut down,
		// the allocator never honours requests.
	default:
		return &httpError{status: http.StatusNotImplemented}
	}
	return nil
}

func (m *Master) message(f *framework, call *scheduler.Call_Message) {
	if a := m.agents.registered[call.AgentID.Value]; a != nil && a.connected {
		a.conn.Send(link.Message{FrameworkID: *f.info.ID, ExecutorID: call.ExecutorID, Data: call.Data})
	}
}

// updateFramework handles UPDATE_FRAMEWORK (Master::updateFramework).
func (m *Master) updateFramework(f *framework, call *scheduler.Call_UpdateFramework) error {
	info := call.FrameworkInfo
	if err := m.validateFramework(&info); err != nil {
		return badRequest("Supplied FrameworkInfo is not valid: %v", err)
	}
	if err := validateFrameworkUpdate(&f.info, &info); err != nil {
		return badRequest("FrameworkInfo update is not valid: %v", err)
	}
	if err := validateSuppressed(&info, call.SuppressedRoles); err != nil {
		return badRequest("'UpdateFramework' call is not valid: %v", err)
	}
	f.suppressed = make(map[string]bool)
	for _, role := range call.SuppressedRoles {
		f.suppressed[role] = true
	}
	m.updateFrameworkInfo(f, info)
	m.allocate()
	return nil
}

// validateCall says what validation::scheduler::call::validate does.
func validateCall(call *scheduler.Call, principal string) error {
	if call.Type == scheduler.Call_UNKNOWN {
		return refusal("Expecting 'type' to be present")
	}
	if call.Type == scheduler.Call_SUBSCRIBE {
		return validateSubscribe(call, principal)
	}
	if call.FrameworkID == nil {
		return refusal("Expecting 'framework_id' to be present")
	}
	if field, present := callBody(call); !present {
		return refusal("Expecting '" + field + "' to be present")
	}
	switch call.Type {
	case scheduler.Call_ACKNOWLEDGE:
		return validateUUID(call.Acknowledge.UUID)
	case scheduler.Call_ACKNOWLEDGE_OPERATION_STATUS:
		if err := validateUUID(call.AcknowledgeOperationStatus.UUID); err != nil {
			return err
		}
		if call.AcknowledgeOperationStatus.AgentID == nil {
			return refusal("Expecting 'agent_id' to be present")
		}
	case scheduler.Call_UPDATE_FRAMEWORK:
		if call.UpdateFramework.FrameworkInfo.ID.GetValue() != call.FrameworkID.Value {
			return refusal("'framework_id' differs from 'update_framework.framework_info.id'")
		}
	}
	return nil
}

func validateSubscribe(call *scheduler.Call, principal string) error {
	if call.Subscribe == nil {
		return refusal("Expecting 'subscribe' to be present")
	}
	info := call.Subscribe.FrameworkInfo
	if info == nil {
		return refusal("Not initialized: subscribe.framework_info")
	}
	if info.ID.GetValue() != call.FrameworkID.GetValue() {
		return refusal("'framework_id' differs from 'subscribe.framework_info.id'")
	}
	if principal != "" && info.Principal != nil && *info.Principal != principal {
		return refusal("Authenticated principal '" + principal + "' does not match principal '" + *info.Principal + "' set in `FrameworkInfo`")
	}
	return nil
}

// callBody names the field that a call's type needs and tells whether it is
// there.
func callBody(call *scheduler.Call) (field string, present bool) {
	switch call.Type {
	case scheduler.Call_ACCEPT:
		return "accept", call.Accept != nil
	case scheduler.Call_DECLINE:
		return "decline", call.Decline != nil
	case scheduler.Call_ACCEPT_INVERSE_OFFERS:
		return "accept_inverse_offers", call.AcceptInverseOffers != nil
	case scheduler.Call_DECLINE_INVERSE_OFFERS:
		return "decline_inverse_offers", call.DeclineInverseOffers != nil
	case scheduler.Call_KILL:
		return "kill", call.Kill != nil
	case scheduler.Call_SHUTDOWN:
		return "shutdown", call.Shutdown != nil
	case scheduler.Call_ACKNOWLEDGE:
		return "acknowledge", call.Acknowledge != nil
	case scheduler.Call_ACKNOWLEDGE_OPERATION_STATUS:
		return "acknowledge_operation_status", call.AcknowledgeOperationStatus != nil
	case scheduler.Call_RECONCILE:
		return "reconcile", call.Reconcile != nil
	case scheduler.Call_RECONCILE_OPERATIONS:
		return "reconcile_operations", call.ReconcileOperations != nil
	case scheduler.Call_MESSAGE:
		return "message", call.Message != nil
	case scheduler.Call_REQUEST:
		return "request", call.Request != nil
	case scheduler.Call_UPDATE_FRAMEWORK:
		return "update_framework", call.UpdateFramework != nil
	}
	return "", true
}

func validateUUID(uuid []byte) error {
	if len(uuid) != 16 {
		return refusal("Not a valid UUID")
	}
	return nil
}
