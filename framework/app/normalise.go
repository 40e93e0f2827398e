package app

import (
	"slices"
	"strings"
)

const (
	// mesosBridge is the name by which old definitions could ask for bridge
	// networking.
	mesosBridge = "mesos-bridge"

	defaultRelaunchEscalation = 3600 // seconds
	defaultPortName           = "default"
)

// defaultUpgrade is the upgrade strategy of apps without volumes that a driver
// or Mesos keeps, managedUpgrade that of apps with such volumes.
var (
	defaultUpgrade = UpgradeStrategy{MinimumHealthCapacity: 1, MaximumOverCapacity: 1}
	managedUpgrade = UpgradeStrategy{MinimumHealthCapacity: 0.5, MaximumOverCapacity: 0}
)

// HostNetworked says whether the app uses its agent's network.
func (a *App) HostNetworked() bool {
	for _, n := range a.Networks {
		if n.Mode != HostNetwork {
			return false
		}
	}
	return true
}

// normalise fills in the defaults that depend on other fields or on the
// operator's options.
func normalise(p *problems, d definition, opts Options, stored *App) {
	a := d.App
	normaliseRole(a, opts, stored)
	normaliseNetwork(a, d, opts)
	normaliseConstraints(a)
	resolveDependencies(p, d, opts.Base)
	fillHealthDefaults(a)
	fillStrategies(a, d)
	dropEmpty(a)
}

// normaliseRole keeps the role of a stored app that an update does not name, also
// where the update is a whole definition: a new default of the operator must not
// move apps to another role as a side effect.
func normaliseRole(a *App, opts Options, stored *App) {
	switch {
	case a.Role != "":
	case stored != nil:
		a.Role = stored.Role
	case opts.GroupRole && a.ID.topGroup() != "":
		a.Role = a.ID.topGroup()
	default:
		a.Role = opts.role()
	}
}

func normaliseNetwork(a *App, d definition, opts Options) {
	if len(a.Networks) == 0 {
		a.Networks = []Network{{Mode: HostNetwork}}
	}
	for i := range a.Networks {
		n := &a.Networks[i]
		if n.Mode == ContainerNetwork && n.Name == "" {
			n.Name = opts.DefaultNetwork
		}
		if len(n.Labels) == 0 {
			n.Labels = nil
		}
	}
	if a.HostNetworked() {
		if !d.given.has("portDefinitions") {
			a.Ports = []PortDefinition{{Protocol: "tcp", Name: defaultPortName, Labels: map[string]string{}}}
		}
		return
	}
	a.RequirePorts = false
	if a.Container == nil {
		a.Container = &Container{Type: Mesos, Volumes: []Volume{}}
	}
	fillPortMappings(a)
}

// fillPortMappings gives an app off the host's network its one default port,
// and with a bridge a random host port where none was asked for.
func fillPortMappings(a *App) {
	c := a.Container
	if c.PortMappings == nil {
		c.PortMappings = []PortMapping{{Protocol: "tcp", Name: defaultPortName, Labels: map[string]string{}}}
	}
	if len(a.Networks) != 1 || a.Networks[0].Mode != BridgeNetwork {
		return
	}
	for i := range c.PortMappings {
		if c.PortMappings[i].HostPort == nil {
			c.PortMappings[i].HostPort = new(int)
		}
	}
}

// normaliseConstraints accepts operators in any case.
func normaliseConstraints(a *App) {
	for _, c := range a.Constraints {
		if len(c) > 1 {
			c[1] = strings.ToUpper(c[1])
		}
	}
	for _, i := range a.PersistentVolumes() {
		for _, c := range a.Container.Volumes[i].Persistent.Constraints {
			if len(c) > 1 {
				c[1] = strings.ToUpper(c[1])
			}
		}
	}
}

// resolveDependencies takes relative paths from the group whose body holds the
// app, as Marathon does: from the root for an app posted by itself.
func resolveDependencies(p *problems, d definition, base ID) {
	for i, s := range d.dependencies {
		id, err := ResolveID(s, base)
		if err != nil {
			p.add(indexed("/dependencies", i), err.Error())
			continue
		}
		if !slices.Contains(d.Dependencies, id) { // other words for the same, or the group's
			d.Dependencies = append(d.Dependencies, id)
		}
	}
}

// defaultStrategies are the strategies of an app that names none; they depend on
// its volumes. An unreachable instance may still write to its volume: hold,
// unless the backend itself keeps it from that.
func defaultStrategies(a *App) (UpgradeStrategy, UnreachableStrategy) {
	upgrade := defaultUpgrade
	if len(a.ExternalVolumes()) > 0 || a.Resident() {
		upgrade = managedUpgrade
	}
	return upgrade, UnreachableStrategy{Disabled: a.Resident() || a.hasUnguardedVolume()}
}

func fillStrategies(a *App, d definition) {
	upgrade, unreachable := defaultStrategies(a)
	if !d.given.has("upgradeStrategy") {
		a.Upgrade = upgrade
	}
	if !d.given.has("unreachableStrategy") {
		a.Unreachable = unreachable
	}
	switch {
	case !a.Resident():
		a.Residency = nil
	case a.Residency == nil:
		a.Residency = &Residency{RelaunchEscalationTimeoutSeconds: defaultRelaunchEscalation, TaskLostBehavior: "WAIT_FOREVER"}
	}
}

// dropEmpty makes equal definitions equal in JSON too: collections that are
// left out when empty are nil then.
func dropEmpty(a *App) {
	if len(a.Args) == 0 {
		a.Args = nil
	}
	if len(a.Env) == 0 {
		a.Env = nil
	}
	if len(a.Secrets) == 0 {
		a.Secrets = nil
	}
	if len(a.Constraints) == 0 {
		a.Constraints = nil
	}
	if len(a.Fetch) == 0 {
		a.Fetch = nil
	}
	if len(a.Health) == 0 {
		a.Health = nil
	}
	if len(a.Readiness) == 0 {
		a.Readiness = nil
	}
	if a.Limits != nil && a.Limits.CPUs == nil && a.Limits.Mem == nil {
		a.Limits = nil
	}
}
