package core

import (
	"math"
	"slices"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// milli converts an amount to thousandths, rounded as Mesos rounds.
func milli(x float64) resource.Milli { return resource.Milli(math.Round(x * 1000)) }

// constraint translates a constraint of an app definition.
func constraint(c []string) (scheduler.Constraint, bool) {
	if len(c) < 2 {
		return scheduler.Constraint{}, false
	}
	out := scheduler.Constraint{Field: c[0], Operator: scheduler.Operator(c[1])}
	if len(c) > 2 {
		out.Value = c[2]
	}
	return out, true
}

// hostPorts returns the host ports that an app needs, in the order of its
// ports: those of its port definitions with host networking, else those of the
// mappings that are exposed on the host.
func hostPorts(a *app.App) []scheduler.Port {
	var out []scheduler.Port
	if a.HostNetworked() {
		for _, p := range a.Ports {
			port := scheduler.Port{}
			if a.RequirePorts {
				port.Number = uint32(p.Port)
			}
			out = append(out, port)
		}
		return out
	}
	if a.Container == nil {
		return nil
	}
	for _, m := range a.Container.PortMappings {
		if m.HostPort != nil {
			out = append(out, scheduler.Port{Number: uint32(*m.HostPort)})
		}
	}
	return out
}

// acceptedRoles tells whether an app takes resources that are not reserved, and
// those reserved for its role. What it does not say is the operator's choice; an
// app whose own reservations are made of unreserved resources needs those.
func (c *Core) acceptedRoles(def *app.App, role string) (unreserved, reserved bool) {
	if len(def.AcceptedRoles) > 0 {
		return slices.Contains(def.AcceptedRoles, "*"), slices.Contains(def.AcceptedRoles, role)
	}
	if def.Resident() || role == "*" {
		return true, c.cfg.AcceptByDefault != app.AcceptUnreserved
	}
	return c.cfg.AcceptByDefault != app.AcceptReserved, c.cfg.AcceptByDefault != app.AcceptUnreserved
}
