package app

import (
	"slices"
	"strings"
)

func validateNetworks(p *problems, a *App) {
	modes := map[string]int{}
	names := map[string]bool{}
	for i, n := range a.Networks {
		path := indexed("/networks", i)
		modes[n.Mode]++
		switch n.Mode {
		case HostNetwork:
			if n.Name != "" || len(n.Labels) > 0 {
				p.add(path, "Host networks may not have names or labels")
			}
		case BridgeNetwork:
			if n.Name != "" {
				p.add(path, "Bridge networks may not have names")
			}
		case ContainerNetwork:
			if n.Name == "" {
				p.add("/networks", "Network name must be specified when container network is selected.")
			} else if names[n.Name] {
				p.add("/networks", "Duplicate networks are not allowed")
			}
			names[n.Name] = true
		}
	}
	if len(modes) > 1 || modes[HostNetwork] > 1 || modes[BridgeNetwork] > 1 {
		p.add("/networks", "May specify a single host network, single bridge network, or else 1-to-n container networks")
	}
	if modes[ContainerNetwork] > 1 && a.Container != nil && a.Container.Type == Docker {
		p.add("/networks", "may only specify a single container network when using the Docker container engine")
	}
}

func validatePorts(p *problems, a *App) {
	if a.HostNetworked() {
		if a.Container != nil && len(a.Container.PortMappings) > 0 {
			p.add("/", "portMappings are not allowed with host-networking")
		}
		validatePortDefinitions(p, a.Ports)
		return
	}
	if len(a.Ports) > 0 {
		p.add("/", "portDefinitions are only allowed with host-networking")
	}
	if a.Container != nil {
		validatePortMappings(p, a)
	}
}

func validatePortDefinitions(p *problems, ports []PortDefinition) {
	names, numbers := map[string]bool{}, map[int]bool{}
	sameName, sameNumber := false, false
	for _, d := range ports {
		sameName = sameName || d.Name != "" && names[d.Name]
		sameNumber = sameNumber || d.Port != 0 && numbers[d.Port]
		names[d.Name], numbers[d.Port] = true, true
	}
	if sameName {
		p.add("/portDefinitions", "Port names must be unique.")
	}
	if sameNumber {
		p.add("/portDefinitions", "Ports must be unique.")
	}
}

func validatePortMappings(p *problems, a *App) {
	containerNetworks := []string{}
	for _, n := range a.Networks {
		if n.Mode == ContainerNetwork {
			containerNetworks = append(containerNetworks, n.Name)
		}
	}
	names := map[string]bool{}
	sameName := false
	for i, m := range a.Container.PortMappings {
		path := indexed("/container/portMappings", i)
		sameName = sameName || m.Name != "" && names[m.Name]
		names[m.Name] = true
		for j, n := range m.NetworkNames {
			if !slices.Contains(containerNetworks, n) {
				p.addf(indexed(path+"/networkNames", j), "is not one of (%s)", strings.Join(containerNetworks, ","))
			}
		}
		if len(containerNetworks) > 1 && m.HostPort != nil && len(m.NetworkNames) != 1 {
			p.add(path, "networkNames must be a single item list when hostPort is specified and more than 1 container network is defined")
		}
	}
	if sameName {
		p.add("/container/portMappings", "Port names must be unique.")
	}
}

// portNames are the names of the app's ports, in order, empty where a port has
// none.
func (a *App) portNames() []string {
	var names []string
	for _, d := range a.Ports {
		names = append(names, d.Name)
	}
	if a.Container != nil {
		for _, m := range a.Container.PortMappings {
			names = append(names, m.Name)
		}
	}
	return names
}
