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
	used := map[int]bool{}
	for id, other := range apps {
		if id == a.ID {
			continue
		}
		for _, p := range other.servicePorts() {
			used[*p] = true
		}
	}
	for _, p := range a.servicePorts() {
		used[*p] = true
	}
	var candidates []int
	if old := apps[a.ID]; old != nil {
		for _, p := range old.servicePorts() {
			candidates = append(candidates, *p)
		}
	}
	for n := r.Min; n < r.Max; n++ {
		candidates = append(candidates, n)
	}
	next := 0
	for _, p := range a.servicePorts() {
		if *p != 0 {
			continue
		}
		for next < len(candidates) && (candidates[next] == 0 || used[candidates[next]]) {
			next++
		}
		if next == len(candidates) {
			return &ValidationError{Message: fmt.Sprintf("All ports in the range [%d-%d) are already in use", r.Min, r.Max)}
		}
		*p = candidates[next]
		used[*p] = true
	}
	return nil
}

// ServicePorts returns the app's service ports in the order of its ports.
func (a *App) ServicePorts() []int {
	var out []int
	for _, p := range a.servicePorts() {
		out = append(out, *p)
	}
	return out
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
