package master

import (
	"fmt"

	"github.com/gogo/protobuf/proto"
	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

// accept handles ACCEPT (Master::accept and _accept).
func (m *Master) accept(f *framework, call *scheduler.Call_Accept) {
	offers, err := m.validateOffers(f, call.OfferIDs)
	if err != nil {
		m.refuseAccept(f, call, err)
		return
	}
	acceptance := &acceptance{
		master: m, framework: f, agent: offers[0].agent, role: offers[0].role(),
	}
	for _, o := range offers {
		acceptance.offered.add(o.Resources...)
		m.forgetOffer(o)
	}
	acceptance.remaining = acceptance.offered.clone()
	acceptance.shared = acceptance.offered.shared()
	operations := proto.Clone(call).(*scheduler.Call_Accept).Operations
	for _, op := range acceptance.admissible(operations) {
		acceptance.perform(op)
	}
	filters := call.Filters
	if filters == nil {
		filters = &mesos.Filters{}
	}
	acceptance.settle(filters)
}

// validateOffers says what validation::offer::validate does.
func (m *Master) validateOffers(f *framework, ids []mesos.OfferID) ([]*offer, error) {
	if len(ids) == 0 {
		return nil, refusedf("No offers specified")
	}
	seen := make(map[string]bool)
	for _, id := range ids {
		if seen[id.Value] {
			return nil, refusedf("Duplicate offer %s in offer list", id.Value)
		}
		seen[id.Value] = true
	}
	var offers []*offer
	for _, id := range ids {
		o := m.offers[id.Value]
		if o == nil {
			return nil, refusedf("Offer %s is no longer valid", id.Value)
		}
		offers = append(offers, o)
	}
	first := offers[0]
	for _, o := range offers {
		switch {
		case o.framework != f:
			return nil, refusedf("Offer %s has invalid framework %s while framework %s is expected", o.ID.Value, o.framework.id(), f.id())
		case o.role() != first.role():
			return nil, refusedf("Aggregated offers must be allocated to the same role. Offer %s uses role '%s but another is using role '%s", o.ID.Value, o.role(), first.role())
		case o.agent != first.agent:
			return nil, refusedf("Aggregated offers must belong to one single agent. Offer %s uses agent %s and agent %s", o.ID.Value, o.agent.id(), first.agent.id())
		}
	}
	return offers, nil
}

// refuseAccept answers an ACCEPT of offers that are not valid: the valid ones
// among them are gone, too.
func (m *Master) refuseAccept(f *framework, call *scheduler.Call_Accept, reason error) {
	m.log.Warn("ACCEPT with invalid offers", zap.String("framework", f.id()), zap.Error(reason))
	for _, id := range call.OfferIDs {
		if o := m.offers[id.Value]; o != nil && o.framework == f {
			m.recoverOffer(o, nil)
		}
	}
	for i := range call.Operations {
		op := &call.Operations[i]
		tasks, isLaunch := launchedTasks(op)
		if !isLaunch {
			m.dropOperation(f, op, "Operation attempted with invalid offers: "+reason.Error())
			continue
		}
		for _, t := range tasks {
			m.forward(f, m.status(statusOf{
				task: t.TaskID, agent: &t.AgentID, state: f.lostOr(mesos.TASK_DROPPED),
				message: "Task launched with invalid offers: " + reason.Error(), reason: mesos.REASON_INVALID_OFFERS,
			}))
		}
	}
}

// launchedTasks are the tasks of a LAUNCH or LAUNCH_GROUP.
func launchedTasks(op *mesos.Offer_Operation) (tasks []mesos.TaskInfo, isLaunch bool) {
	switch op.Type {
	case mesos.Offer_Operation_LAUNCH:
		return op.GetLaunch().GetTaskInfos(), true
	case mesos.Offer_Operation_LAUNCH_GROUP:
		group := op.GetLaunchGroup().GetTaskGroup()
		return group.Tasks, true
	}
	return nil, false
}

// acceptance is one ACCEPT being carried out.
type acceptance struct {
	master    *Master
	framework *framework
	agent     *agent
	role      string
	offered   resources
	remaining resources // of the offer after the operations so far
	// shared are the shared volumes that tasks may use: those that remained after
	// the last CREATE or DESTROY, whoever has used them since.
	shared resources
	// conversions of all operations so far, in order.
	conversions []conversion
}

// admissible refuses the operations that are malformed, before any is carried
// out, and returns the others.
func (c *acceptance) admissible(operations []mesos.Offer_Operation) []*mesos.Offer_Operation {
	var admitted []*mesos.Offer_Operation
	for i := range operations {
		op := &operations[i]
		if err := c.admit(op); err != nil {
			c.refuse(op, err)
			continue
		}
		admitted = append(admitted, op)
	}
	return admitted
}

func (c *acceptance) admit(op *mesos.Offer_Operation) error {
	_, isLaunch := launchedTasks(op)
	if op.Type == mesos.Offer_Operation_LAUNCH_GROUP {
		return refusedf("task groups are not supported by the embedded Mesos master")
	}
	if err := upgradeOperation(op, c.role); err != nil {
		if isLaunch {
			return err
		}
		return refusedf("Operation attempted with invalid resources: %v", err)
	}
	if op.ID == nil {
		return nil
	}
	switch {
	case isLaunch:
		return refusedf("The `id` field cannot be set on LAUNCH operations")
	case !c.agent.capable(mesos.AgentInfo_Capability_RESOURCE_PROVIDER):
		return refusedf("Operation requested feedback, but agent %s does not have the required RESOURCE_PROVIDER capability", c.agent.id())
	case !c.agent.capable(mesos.AgentInfo_Capability_AGENT_OPERATION_FEEDBACK):
		return refusedf("Operation on agent default resources requested feedback, but agent %s does not have the required AGENT_OPERATION_FEEDBACK and RESOURCE_PROVIDER capabilities", c.agent.id())
	}
	return nil
}

// refuse answers an operation that is not carried out.
func (c *acceptance) refuse(op *mesos.Offer_Operation, reason error) {
	tasks, isLaunch := launchedTasks(op)
	if !isLaunch {
		c.master.dropOperation(c.framework, op, reason.Error())
		return
	}
	code := mesos.REASON_TASK_INVALID
	if op.Type == mesos.Offer_Operation_LAUNCH_GROUP {
		code = mesos.REASON_TASK_GROUP_INVALID
	}
	for i := range tasks {
		c.taskError(&tasks[i], code, reason)
	}
}

func (c *acceptance) taskError(t *mesos.TaskInfo, code mesos.TaskStatus_Reason, reason error) {
	c.master.forward(c.framework, c.master.status(statusOf{
		task: t.TaskID, agent: &t.AgentID, state: mesos.TASK_ERROR, message: reason.Error(), reason: code,
	}))
}

func (c *acceptance) perform(op *mesos.Offer_Operation) {
	if op.Type == mesos.Offer_Operation_LAUNCH {
		for i := range op.GetLaunch().GetTaskInfos() {
			c.launch(&op.Launch.TaskInfos[i])
		}
		return
	}
	if err := validateOperation(op, c.agent, c.framework); err != nil {
		c.master.dropOperation(c.framework, op, fmt.Sprintf("%v; on agent %s at %s (%s)",
			err, c.agent.id(), c.agent.process.PID, c.agent.info.Hostname))
		return
	}
	conversions, err := conversionsOf(op)
	if err != nil {
		c.master.dropOperation(c.framework, op, err.Error())
		return
	}
	c.master.rescindDestroyed(c.agent, op)
	remaining := c.remaining
	for _, conversion := range conversions {
		if remaining, err = conversion.apply(remaining); err != nil {
			c.master.dropOperation(c.framework, op, err.Error())
			return
		}
	}
	c.remaining = remaining
	if op.Type == mesos.Offer_Operation_CREATE || op.Type == mesos.Offer_Operation_DESTROY {
		c.shared = remaining.shared()
	}
	c.conversions = append(c.conversions, conversions...)
	c.master.applyOperation(c.agent, c.framework, op, conversions)
}

func (c *acceptance) launch(info *mesos.TaskInfo) {
	available := c.remaining
	if len(c.shared) > 0 {
		available = available.nonShared()
		available.add(c.shared...)
	}
	if err := validateTask(info, c.agent, c.framework, available); err != nil {
		c.taskError(info, mesos.REASON_TASK_INVALID, err)
		return
	}
	t := newTask(*c.framework.info.ID, info)
	c.framework.addTask(t)
	c.agent.tasks[taskKey{c.framework.id(), t.id()}] = t
	// A task may use a shared volume that others of this ACCEPT use: one more copy
	// is booked for it.
	if more := newResources(info.Resources).shared().minus(c.remaining.shared()); len(more) > 0 {
		c.conversions = append(c.conversions, conversion{converted: more})
	}
	c.remaining.subtract(info.Resources...)
	c.master.log.Info("launch task", zap.String("task", t.id()), zap.String("agent", c.agent.id()))
	c.agent.conn.Send(link.Run{Framework: c.framework.info, Task: *info})
}

// settle books what became of the offered resources: converted ones are free
// at once, what is left over is declined with the call's filters.
func (c *acceptance) settle(filters *mesos.Filters) {
	id := c.framework.id()
	if len(c.conversions) > 0 {
		updated := c.offered.clone()
		for _, conversion := range c.conversions {
			next, err := conversion.apply(updated)
			if err != nil {
				panic(fmt.Sprintf("%v, which was checked", err))
			}
			updated = next
		}
		c.agent.release(id, c.offered)
		c.agent.take(id, updated)
	}
	converted := c.remaining.minus(c.offered)
	declined := c.remaining.minus(converted)
	c.agent.release(id, converted)
	if len(declined) > 0 {
		c.agent.release(id, declined)
		c.master.addFilter(c.framework, filterKey{c.role, c.agent.id()}, declined, filters)
	}
}
