package mesos

import (
	"hash/fnv"
	"strings"

	mesosgo "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

// port is one port of an app as one task gets it.
type port struct {
	name      string
	protocols []string
	labels    map[string]string
	networks  []string // names of the container networks that it is for, empty for all
	requested int      // number in the definition, 0 for any
	host      uint32   // 0 where it is not exposed on the host
	container uint32   // 0 with host networking
}

// effective is the number under which others reach the port.
func (p port) effective() uint32 {
	if p.host != 0 {
		return p.host
	}
	return p.container
}

// probed is the number for checks by Mesos, which enters the container's
// network.
func (p port) probed() uint32 {
	if p.container != 0 {
		return p.container
	}
	return p.host
}

// assignPorts joins the app's ports with the host ports that the scheduler
// chose: one for each port definition, or for each mapping with a host port.
func (b *taskBuilder) assignPorts() error {
	given := b.task.Ports
	next := func() (uint32, error) {
		if len(given) == 0 {
			return 0, b.invalid("%d host ports were chosen, more are needed", len(b.task.Ports))
		}
		p := given[0]
		given = given[1:]
		return p, nil
	}
	if b.hostNetwork() {
		for _, d := range b.app.Ports {
			host, err := next()
			if err != nil {
				return err
			}
			b.ports = append(b.ports, port{
				name: d.Name, protocols: protocols(d.Protocol), labels: d.Labels, requested: d.Port, host: host,
			})
		}
	} else if b.app.Container != nil {
		for _, m := range b.app.Container.PortMappings {
			p := port{
				name: m.Name, protocols: protocols(m.Protocol), labels: m.Labels, networks: m.NetworkNames,
				requested: m.ContainerPort, container: uint32(m.ContainerPort),
			}
			if m.HostPort != nil {
				var err error
				if p.host, err = next(); err != nil {
					return err
				}
				if p.container == 0 {
					// An app that announces itself must know the number
					// under which others see it.
					p.container = p.host
				}
			}
			b.ports = append(b.ports, p)
		}
		b.inventPorts()
	}
	if len(given) > 0 {
		return b.invalid("%d host ports were chosen, %d of them without use", len(b.task.Ports), len(given))
	}
	return nil
}

// inventPorts gives a number to ports that have none, neither on the host nor in
// the container: one of 1025..65535 that the task does not use otherwise. It
// follows from the task's id, so that asking again gives the same.
func (b *taskBuilder) inventPorts() {
	const lowest, count = 1025, 65536 - 1025
	used := map[uint32]bool{}
	for _, p := range b.ports {
		used[p.host], used[p.container] = true, true
	}
	h := fnv.New32a()
	h.Write([]byte(b.task.ID))
	candidate := h.Sum32() % count
	for i := range b.ports {
		if b.ports[i].effective() != 0 {
			continue
		}
		for used[lowest+candidate] {
			candidate = (candidate + 1) % count
		}
		b.ports[i].container = lowest + candidate
		used[lowest+candidate] = true
	}
}

// protocols splits "udp,tcp".
func protocols(s string) []string {
	if s == "" {
		return []string{"tcp"}
	}
	return strings.Split(s, ",")
}

// discovery announces the task's name and ports to service discovery that reads
// the master's state.
func (b *taskBuilder) discovery() *mesosgo.DiscoveryInfo {
	info := &mesosgo.DiscoveryInfo{
		Visibility: mesosgo.FRAMEWORK,
		Name:       pointer(b.app.ID.TaskName()),
		Ports:      &mesosgo.Ports{},
	}
	for _, p := range b.ports {
		for _, scope := range b.scopes(p) {
			for _, protocol := range p.protocols {
				info.Ports.Ports = append(info.Ports.Ports, mesosgo.Port{
					Number:   p.effective(),
					Name:     optional(p.name),
					Protocol: pointer(protocol),
					Labels:   labelsOf(p.labels, scope...),
				})
			}
		}
	}
	return info
}

// scopes are the labels that tell on which networks a port is reachable, one
// set for each announcement of the port.
func (b *taskBuilder) scopes(p port) [][]string {
	switch {
	case b.hostNetwork():
		return [][]string{nil}
	case p.host != 0:
		return [][]string{{"network-scope", "host"}}
	}
	names := p.networks
	if len(names) == 0 {
		for _, n := range b.app.Networks {
			if n.Mode == app.ContainerNetwork {
				names = append(names, n.Name)
			}
		}
	}
	var all [][]string
	for _, name := range names {
		all = append(all, []string{"network-scope", "container", "network-name", name})
	}
	return all
}
