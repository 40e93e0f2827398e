package app

import (
	"fmt"
	"iter"
	"slices"
)

// PortRange is the range of service ports that the server assigns, Max not
// included (--local_port_min, --local_port_max).
type PortRange struct{ Min, Max int }

// DefaultPortRange is Marathon's.
var DefaultPortRange = PortRange{Min: 10000, Max: 20000}

// ServicePorts hands out service ports for one change of apps. It looks at the
// apps that are there only once, whatever the number of apps that are changed.
// It is for one goroutine.
type ServicePorts struct {
	apps  iter.Seq[*App] // stored and changed, nil once they are counted
	users []int32        // by port, how many times it is defined
	r     PortRange
	next  int // all ports of the range below it are in use
}

// NewServicePorts returns the ports of r that are in use by none of apps: all
// stored definitions and all those that are to take their place. What a stored
// definition gives up is not given to another app by the same change.
func NewServicePorts(apps iter.Seq[*App], r PortRange) *ServicePorts {
	return &ServicePorts{apps: apps, r: r, next: r.Min}
}

// Assign gives every service port of a that is 0 a number that no other app uses,
// first those that stored, the definition that a takes the place of, had and a
// does not name; stored is nil for a new app. Both are among the apps that the
// ports were made for. The error is a *ValidationError when the range is exhausted.
func (s *ServicePorts) Assign(a, stored *App) error {
	ports := a.servicePorts()
	if !slices.ContainsFunc(ports, func(p *int) bool { return *p == 0 }) {
		return nil
	}
	s.count()
	var earlier []int
	if stored != nil {
		earlier = stored.ServicePorts()
	}
	s.add(-1, earlier)
	defer s.add(1, earlier)
	for _, p := range ports {
		if *p != 0 {
			continue
		}
		port, err := s.free(earlier)
		if err != nil {
			return err
		}
		s.addOne(1, port)
		*p = port
	}
	return nil
}

// free returns the first port of earlier that is not in use, or else the next one
// of the range.
func (s *ServicePorts) free(earlier []int) (int, error) {
	for _, p := range earlier {
		if !s.inUse(p) {
			return p, nil
		}
	}
	for s.next < s.r.Max && s.inUse(s.next) {
		s.next++
	}
	if s.next >= s.r.Max {
		return 0, &ValidationError{Message: fmt.Sprintf("All ports in the range [%d-%d) are already in use", s.r.Min, s.r.Max)}
	}
	return s.next, nil
}

// count looks at all apps when the first port is to be assigned.
func (s *ServicePorts) count() {
	if s.apps == nil {
		return
	}
	s.users = make([]int32, maxPort+1)
	for a := range s.apps {
		if a.HostNetworked() {
			for i := range a.Ports {
				s.addOne(1, a.Ports[i].Port)
			}
		} else if a.Container != nil {
			for i := range a.Container.PortMappings {
				s.addOne(1, a.Container.PortMappings[i].ServicePort)
			}
		}
	}
	s.apps = nil
}

// inUse is also true of what is no port.
func (s *ServicePorts) inUse(port int) bool {
	return port <= 0 || port > maxPort || s.users[port] > 0
}

func (s *ServicePorts) add(n int32, ports []int) {
	for _, p := range ports {
		s.addOne(n, p)
	}
}

func (s *ServicePorts) addOne(n int32, port int) {
	if port >= 0 && port <= maxPort {
		s.users[port] += n
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
