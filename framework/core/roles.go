package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"
)

// roleRetry is how long a role that the master does not allow is left out of the
// subscription: asking may cost a new one.
const roleRetry = 5 * time.Minute

// roleRefusal is a role that the master does not allow.
type roleRefusal struct {
	until time.Time // when it is asked for again
	why   string
}

// syncRoles keeps the subscription's roles those that the apps need.
func (c *Core) syncRoles(tx *txn) {
	if !c.rolesStale {
		return
	}
	c.rolesStale = false
	want := c.wantedRoles(tx.now)
	if slices.Equal(want, c.link.roles) {
		return
	}
	before := c.link.roles
	c.link.roles = want
	tx.call(call{
		make: func(ctx context.Context) error { return c.mesos.UpdateRoles(ctx, want) },
		done: func(tx *txn, err error) {
			var refused *RolesRefusedError
			switch {
			case errors.As(err, &refused):
				c.rolesRefused(tx, want, refused)
			case err != nil:
				c.log.Warn("roles not changed; it is tried again with the next tick", zap.Strings("roles", want), zap.Error(err))
				c.link.roles = before
			}
		},
	})
	c.flow.wantRevive()
}

// wantedRoles are those of the apps without the ones that the master does not
// allow.
func (c *Core) wantedRoles(now time.Time) []string {
	return slices.DeleteFunc(c.state.roles(c.cfg.DefaultRole), func(role string) bool {
		return now.Before(c.link.refusals[role].until)
	})
}

// rolesRefused goes on without roles that the master does not allow. Apps in
// them wait and say why.
func (c *Core) rolesRefused(tx *txn, asked []string, refused *RolesRefusedError) {
	if c.link.refusals == nil {
		c.link.refusals = map[string]roleRefusal{}
	}
	for _, role := range refused.Roles {
		c.link.refusals[role] = roleRefusal{
			until: tx.now.Add(roleRetry),
			why:   fmt.Sprintf("the Mesos master does not allow the role %s: %v", role, refused.Cause),
		}
	}
	c.link.roles = slices.DeleteFunc(slices.Clone(asked), func(role string) bool { return slices.Contains(refused.Roles, role) })
	c.log.Error("roles refused; apps in them get no offers", zap.Duration("asked_again_in", roleRetry), zap.Error(refused))
	c.flow.wantRevive()
}

// roleText says of an instance that its role is not allowed, empty if it is.
func (c *Core) roleText(i *instance) string {
	r := c.state.apps[i.App]
	if r == nil {
		return ""
	}
	role := roleOf(r.App, c.cfg.DefaultRole)
	if slices.Contains(c.link.roles, role) {
		return ""
	}
	return c.link.refusals[role].why
}
