package app

import "fmt"

// PortRange is the range of service ports that the server assigns, Max not
// included (--local_port_min, --local_port_max).
type PortRange struct{ Min, Max int }

// DefaultPortRange is Marathon's.
var DefaultPortRange = PortRange{Min: 10000, Max: 20000}

// AssignServicePorts gives every service port of a that is 0 a number of r that
// no other app uses, first those that the app's stored version had and the new
// one does not name. apps are all stored apps, that one included; a is changed.
// The error is a *ValidationError when the range is exhausted.
func AssignServicePorts(a *App, apps map[ID]*App, r PortRange) error {
	open := 0
	for _, p := range a.servicePorts() {
		if *p == 0 {
			open++
		}
	}
	if open == 0 {
		return nil
	}
	used := make(portSet, maxPort+1)
	for id, other := range apps {
		if id != a.ID {
			other.markServicePorts(used)
		}
	}
	a.markServicePorts(used)
	var earlier []*int
	if old := apps[a.ID]; old != nil {
		earlier = old.servicePorts()
	}
	next := r.Min
	for _, p := range a.servicePorts() {
		if *p != 0 {
			continue
		}
		for len(earlier) > 0 && (*earlier[0] == 0 || used.has(*earlier[0])) {
			earlier = earlier[1:]
		}
		if len(earlier) > 0 {
			*p = *earlier[0]
			used.add(*p)
			continue
		}
		for next < r.Max && (next == 0 || used.has(next)) {
			next++
		}
		if next >= r.Max {
			return &ValidationError{Message: fmt.Sprintf("All ports in the range [%d-%d) are already in use", r.Min, r.Max)}
		}
		*p = next
		used.add(*p)
	}
	return nil
}

// portSet tells of every port whether it is in it: what is filled from thousands of
// apps each time that one is posted.
type portSet []bool

func (s portSet) has(port int) bool { return port < 0 || port >= len(s) || s[port] }

func (s portSet) add(port int) {
	if port >= 0 && port < len(s) {
		s[port] = true
	}
}

// ServicePorts returns the app's service ports in the order of its ports.
func (a *App) ServicePorts() []int {
	var out []int
	for _, p := range a.servicePorts() {
		out = append(out, *p)
	}
	return out
}

// markServicePorts adds the app's service ports.
func (a *App) markServicePorts(used portSet) {
	if a.HostNetworked() {
		for i := range a.Ports {
			used.add(a.Ports[i].Port)
		}
		return
	}
	if a.Container != nil {
		for i := range a.Container.PortMappings {
			used.add(a.Container.PortMappings[i].ServicePort)
		}
	}
}

func (a *App) servicePorts() []*int {
	var out []*int
	if a.HostNetworked() {
		for i := range a.Ports {
			out = append(out, &a.Ports[i].Port)
		}
		return out
	}
	if a.Container != nil {
		for i := range a.Container.PortMappings {
			out = append(out, &a.Container.PortMappings[i].ServicePort)
		}
	}
	return out
}
