package core

import (
	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/scheduler"
)

// sentOperation is an operation whose outcome is to be told.
type sentOperation struct {
	kind       scheduler.OperationKind
	instanceID string
	agentID    string
}

// maxOperations bounds how many outcomes are waited for; those beyond are sent
// without asking, and the next offers tell.
const maxOperations = 10000

// operationID is the id by which an operation's outcome is told, empty where
// the agent does not tell: those without the capability AGENT_OPERATION_FEEDBACK
// have operations with an id dropped (Master::accept). A launch never has one.
func (c *Core) operationID(op scheduler.Operation, agentID string) string {
	if c.flow.mute[agentID] || len(c.flow.operations) >= maxOperations {
		return ""
	}
	u, err := uuid.NewRandom()
	if err != nil {
		return ""
	}
	c.flow.operations[u.String()] = sentOperation{op.Kind, op.InstanceID, agentID}
	return u.String()
}

// operationOutcome notes how an operation ended. The offers that follow tell
// the same; this is sooner.
func (c *Core) operationOutcome(tx *txn, s OperationStatus) {
	sent, known := c.flow.operations[s.OperationID]
	if !known {
		return
	}
	switch s.State {
	case "OPERATION_PENDING", "OPERATION_RECOVERING", "OPERATION_UNREACHABLE", "OPERATION_UNKNOWN":
		return
	}
	delete(c.flow.operations, s.OperationID)
	if s.State == "OPERATION_FINISHED" {
		return
	}
	c.log.Warn("operation failed", zap.Stringer("kind", sent.kind), zap.String("instance", sent.instanceID),
		zap.String("agent", sent.agentID), zap.String("state", s.State), zap.String("message", s.Message))
	if s.State == "OPERATION_ERROR" || s.State == "OPERATION_DROPPED" {
		// It may be for its id alone: without one it is tried again.
		c.flow.mute[sent.agentID] = true
	}
	i := c.state.instances[sent.instanceID]
	if i == nil || i.Reserved == nil || i.Reserved.Deadline.IsZero() || sent.kind != scheduler.OpReserve {
		return
	}
	// The launch that went with it fails, too; after that nothing is left to
	// wait for.
	i.Reserved.Deadline = tx.now
	tx.saveInstance(i)
	c.flow.round = true
}
