package mesos

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	mesosgo "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"

	"github.com/mesos-dvdi/dvdi/framework/core"
)

// Why a call has no answer.
var (
	errCallTimeout       = errors.New("no answer in time")
	errSubscriptionEnded = errors.New("the subscription ended before the answer")
)

// call sends a call of the current subscription. It fails with
// core.ErrNotSubscribed when there is none (the call was not sent), with
// *core.CallError when the master refuses; with any other error it is not known
// whether the call took effect.
func (c *Conn) call(ctx context.Context, call *scheduler.Call) error {
	sub, frameworkID, err := c.current()
	if err != nil {
		return describe(call, err)
	}
	call.FrameworkID = &mesosgo.FrameworkID{Value: frameworkID}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(sub.ctx, func() {
		cancel(fmt.Errorf("%w: %w", errSubscriptionEnded, context.Cause(sub.ctx)))
	})()
	return describe(call, c.exchange(ctx, sub, call))
}

// describe says which call failed, where the error does not.
func describe(call *scheduler.Call, err error) error {
	var refusal *core.CallError
	if err == nil || errors.As(err, &refusal) {
		return err
	}
	return fmt.Errorf("call %s to the Mesos master: %w", call.Type, err)
}

// exchange sends a call to the master of a subscription and takes the answer.
func (c *Conn) exchange(ctx context.Context, sub *subscription, call *scheduler.Call) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.config.CallTimeout, fmt.Errorf("%w (%s)", errCallTimeout, c.config.CallTimeout))
	defer cancel()
	resp, err := c.transport.postTo(ctx, sub.base, schedulerPath, call, sub.streamID)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	defer drain(resp)
	// UPDATE_FRAMEWORK is answered with 200, everything else with 202.
	if resp.StatusCode != http.StatusAccepted && resp.StatusCode != http.StatusOK {
		return &core.CallError{Call: call.Type.String(), Status: resp.StatusCode, Body: explanation(resp)}
	}
	return nil
}

// Accept carries out operations on offers. All offers must be of one agent.
func (c *Conn) Accept(ctx context.Context, a core.Accept) error {
	operations, err := c.operations(a)
	if err != nil {
		return fmt.Errorf("call ACCEPT on agent %s to the Mesos master: %w", a.AgentID, err)
	}
	return c.call(ctx, &scheduler.Call{
		Type: scheduler.Call_ACCEPT,
		Accept: &scheduler.Call_Accept{
			OfferIDs:   offerIDs(a.OfferIDs),
			Operations: operations,
			Filters:    refuseFor(a.Refuse),
		},
	})
}

// Decline refuses offers for a time.
func (c *Conn) Decline(ctx context.Context, ids []string, refuse time.Duration) error {
	return c.call(ctx, &scheduler.Call{
		Type:    scheduler.Call_DECLINE,
		Decline: &scheduler.Call_Decline{OfferIDs: offerIDs(ids), Filters: refuseFor(refuse)},
	})
}

// AnswerInverseOffers accepts or declines inverse offers.
func (c *Conn) AnswerInverseOffers(ctx context.Context, ids []string, accept bool, refuse time.Duration) error {
	if accept {
		return c.call(ctx, &scheduler.Call{
			Type:                scheduler.Call_ACCEPT_INVERSE_OFFERS,
			AcceptInverseOffers: &scheduler.Call_AcceptInverseOffers{InverseOfferIDs: offerIDs(ids), Filters: refuseFor(refuse)},
		})
	}
	return c.call(ctx, &scheduler.Call{
		Type:                 scheduler.Call_DECLINE_INVERSE_OFFERS,
		DeclineInverseOffers: &scheduler.Call_DeclineInverseOffers{InverseOfferIDs: offerIDs(ids), Filters: refuseFor(refuse)},
	})
}

// Kill asks for a task to be stopped.
func (c *Conn) Kill(ctx context.Context, taskID, agentID string, grace *time.Duration) error {
	kill := &scheduler.Call_Kill{TaskID: mesosgo.TaskID{Value: taskID}, AgentID: agentIDOf(agentID)}
	if grace != nil {
		kill.KillPolicy = killPolicy(*grace)
	}
	return c.call(ctx, &scheduler.Call{Type: scheduler.Call_KILL, Kill: kill})
}

// Acknowledge confirms a status; one without a UUID or an agent, which the
// master made up itself, needs none and is left alone.
func (c *Conn) Acknowledge(ctx context.Context, s core.Status) error {
	if len(s.UUID) == 0 || s.AgentID == "" {
		return nil
	}
	return c.call(ctx, &scheduler.Call{
		Type: scheduler.Call_ACKNOWLEDGE,
		Acknowledge: &scheduler.Call_Acknowledge{
			AgentID: mesosgo.AgentID{Value: s.AgentID},
			TaskID:  mesosgo.TaskID{Value: s.TaskID},
			UUID:    s.UUID,
		},
	})
}

// AcknowledgeOperation confirms the outcome of an operation; one without an id
// or a UUID needs none.
func (c *Conn) AcknowledgeOperation(ctx context.Context, s core.OperationStatus) error {
	if len(s.UUID) == 0 || s.OperationID == "" {
		return nil
	}
	ack := &scheduler.Call_AcknowledgeOperationStatus{
		AgentID:     agentIDOf(s.AgentID),
		UUID:        s.UUID,
		OperationID: mesosgo.OperationID{Value: s.OperationID},
	}
	if s.ProviderID != "" {
		ack.ResourceProviderID = &mesosgo.ResourceProviderID{Value: s.ProviderID}
	}
	return c.call(ctx, &scheduler.Call{
		Type:                       scheduler.Call_ACKNOWLEDGE_OPERATION_STATUS,
		AcknowledgeOperationStatus: ack,
	})
}

// Reconcile asks for the state of tasks; the answers come as Status events.
func (c *Conn) Reconcile(ctx context.Context, tasks []core.TaskRef) error {
	reconcile := &scheduler.Call_Reconcile{}
	for _, t := range tasks {
		reconcile.Tasks = append(reconcile.Tasks, scheduler.Call_Reconcile_Task{
			TaskID:  mesosgo.TaskID{Value: t.TaskID},
			AgentID: agentIDOf(t.AgentID),
		})
	}
	return c.call(ctx, &scheduler.Call{Type: scheduler.Call_RECONCILE, Reconcile: reconcile})
}

// Suppress stops offers for roles, for all roles when none is named. A new
// subscription starts with no role suppressed.
func (c *Conn) Suppress(ctx context.Context, roles []string) error {
	return c.changeFlow(ctx, roles, true, &scheduler.Call{
		Type: scheduler.Call_SUPPRESS, Suppress: &scheduler.Call_Suppress{Roles: roles},
	})
}

// Revive asks for offers for roles again, for all roles when none is named, and
// lifts the filters of earlier declines.
func (c *Conn) Revive(ctx context.Context, roles []string) error {
	return c.changeFlow(ctx, roles, false, &scheduler.Call{
		Type: scheduler.Call_REVIVE, Revive: &scheduler.Call_Revive{Roles: roles},
	})
}

// changeFlow sends SUPPRESS or REVIVE and remembers which roles are suppressed,
// because UPDATE_FRAMEWORK replaces them.
func (c *Conn) changeFlow(ctx context.Context, roles []string, suppressed bool, call *scheduler.Call) error {
	c.mu.Lock()
	sub := c.sub
	c.mu.Unlock()
	if err := c.call(ctx, call); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sub != sub {
		return nil // a newer subscription began with no role suppressed
	}
	if len(roles) == 0 {
		roles = c.roles
	}
	c.suppressed = slices.DeleteFunc(c.suppressed, func(r string) bool { return slices.Contains(roles, r) })
	if suppressed {
		c.suppressed = append(c.suppressed, roles...)
	}
	return nil
}

// Teardown removes the framework; Run then returns core.ErrFrameworkRemoved.
// The master ends the subscription before it answers, so this call does not end
// with it.
func (c *Conn) Teardown(ctx context.Context) error {
	call := &scheduler.Call{Type: scheduler.Call_TEARDOWN}
	sub, frameworkID, err := c.current()
	if err != nil {
		return describe(call, err)
	}
	call.FrameworkID = &mesosgo.FrameworkID{Value: frameworkID}
	c.setTearingDown(true)
	if err := c.exchange(ctx, sub, call); err != nil {
		c.setTearingDown(false)
		return describe(call, err)
	}
	c.tearDown()
	sub.end(errTornDown)
	return nil
}

func offerIDs(ids []string) []mesosgo.OfferID {
	var all []mesosgo.OfferID
	for _, id := range ids {
		all = append(all, mesosgo.OfferID{Value: id})
	}
	return all
}

func agentIDOf(id string) *mesosgo.AgentID {
	if id == "" {
		return nil
	}
	return &mesosgo.AgentID{Value: id}
}

func refuseFor(d time.Duration) *mesosgo.Filters {
	return &mesosgo.Filters{RefuseSeconds: pointer(d.Seconds())}
}

func killPolicy(grace time.Duration) *mesosgo.KillPolicy {
	return &mesosgo.KillPolicy{GracePeriod: &mesosgo.DurationInfo{Nanoseconds: grace.Nanoseconds()}}
}
