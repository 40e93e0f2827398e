package mesos

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/core"
)

// A master takes the roles of a framework all together or not at all. One role
// that its --roles does not list or its ACLs forbid must not keep the apps in
// other roles from their offers.

// UpdateRoles changes the roles of the framework. It returns when the master
// has accepted UPDATE_FRAMEWORK; a master that does not know that call (before
// 1.9) is subscribed with anew. Where the master refuses the new roles together
// each is asked for alone: a *core.RolesRefusedError names those that it does
// not allow, and the subscription has the others. Without a subscription the
// next one has the new roles. Suppressed roles stay suppressed if they remain.
func (c *Conn) UpdateRoles(ctx context.Context, roles []string) error {
	previous, sub := c.setRoles(roles)
	if sub == nil {
		return nil
	}
	err := c.announceRoles(ctx)
	var refusal *core.CallError
	switch {
	case err == nil || errors.Is(err, core.ErrNotSubscribed):
		return nil
	case !errors.As(err, &refusal):
		return err
	case unknownCall(refusal) || immutableField(refusal):
		return c.resubscribe(sub, previous, roles, refusal)
	case refusal.Temporary() || refusal.Stale():
		c.setRoles(previous)
		return err
	}
	return c.addRoles(ctx, previous, roles, refusal)
}

// setRoles changes the roles of the next announcement and returns those before.
func (c *Conn) setRoles(roles []string) (previous []string, sub *subscription) {
	c.mu.Lock()
	defer c.mu.Unlock()
	previous = c.roles
	c.roles = slices.Clone(roles)
	c.suppressed = slices.DeleteFunc(c.suppressed, func(r string) bool { return !slices.Contains(roles, r) })
	return previous, c.sub
}

// announceRoles tells the master the roles of now.
func (c *Conn) announceRoles(ctx context.Context) error {
	c.mu.Lock()
	suppressed := slices.Clone(c.suppressed)
	c.mu.Unlock()
	return c.call(ctx, &scheduler.Call{
		Type: scheduler.Call_UPDATE_FRAMEWORK,
		UpdateFramework: &scheduler.Call_UpdateFramework{
			FrameworkInfo:   *c.frameworkInfo(),
			SuppressedRoles: suppressed,
		},
	})
}

// addRoles asks for each new role alone, after roles were refused together.
func (c *Conn) addRoles(ctx context.Context, previous, roles []string, refusal *core.CallError) error {
	isNew := func(r string) bool { return !slices.Contains(previous, r) }
	accepted := slices.DeleteFunc(slices.Clone(roles), isNew)
	added := slices.DeleteFunc(slices.Clone(roles), func(r string) bool { return !isNew(r) })
	if len(added) == 0 || len(accepted) == 0 {
		c.setRoles(previous)
		return refusal
	}
	refused := &core.RolesRefusedError{Cause: refusal}
	if len(added) == 1 && len(accepted) == len(previous) {
		c.setRoles(previous)
		refused.Roles = added
		return refused
	}
	if len(accepted) < len(previous) {
		c.setRoles(accepted)
		if err := c.announceRoles(ctx); err != nil {
			return err
		}
	}
	for _, role := range added {
		with := append(slices.Clone(accepted), role)
		c.setRoles(with)
		err := c.announceRoles(ctx)
		var alone *core.CallError
		switch {
		case err == nil:
			accepted = with
		case errors.As(err, &alone) && !alone.Temporary() && !alone.Stale():
			refused.Roles, refused.Cause = append(refused.Roles, role), alone
			c.setRoles(accepted)
		default:
			c.setRoles(accepted)
			return err
		}
	}
	if len(refused.Roles) == 0 {
		return nil
	}
	return refused
}

// resubscribe has the next subscription carry the roles, unless one with them
// was refused: trying that again would only interrupt.
func (c *Conn) resubscribe(sub *subscription, previous, roles []string, refusal *core.CallError) error {
	c.mu.Lock()
	refused := slices.DeleteFunc(slices.Clone(roles), func(r string) bool { return !slices.Contains(c.refused, r) })
	cause := c.refusedFor
	c.refused, c.refusedFor = nil, nil
	c.mu.Unlock()
	if len(refused) > 0 {
		c.setRoles(previous)
		return &core.RolesRefusedError{Roles: refused, Cause: cause}
	}
	sub.end(errRolesChanged)
	return nil
}

// refused is why a subscription ends with the master's ERROR. One that asks for
// more than the roles of the configuration is tried again with these alone; the
// others may then be asked for one by one.
func (s *session) refused(message masterError) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	more := slices.DeleteFunc(slices.Clone(s.roles), func(r string) bool { return slices.Contains(c.config.Roles, r) })
	if s.subscribed || len(more) == 0 || message == principalChanged || message.Unwrap() != nil {
		return message
	}
	c.roles = slices.Clone(c.config.Roles)
	c.refused, c.refusedFor = more, message
	c.log.Error("subscription with all roles of the apps refused; subscribing without those of apps",
		zap.Strings("roles", more), zap.Error(message))
	return errRolesRefused
}

// unknownCall tells whether the master does not know the call's type: an
// unknown enum value is dropped by its decoder, so the type seems to be missing.
func unknownCall(refusal *core.CallError) bool {
	return refusal.Status == http.StatusNotImplemented ||
		refusal.Status == http.StatusBadRequest && refusal.Body == "Failed to validate scheduler::Call: Expecting 'type' to be present"
}

// immutableField tells whether the master knows the framework with another user
// or checkpoint flag than ours, from before a change of the configuration: a
// subscription keeps the master's (preserveImmutableFields), UPDATE_FRAMEWORK is
// refused (validateUpdate in src/master/validation.cpp).
func immutableField(refusal *core.CallError) bool {
	return refusal.Status == http.StatusBadRequest && strings.Contains(refusal.Body, "Updating 'FrameworkInfo.")
}
