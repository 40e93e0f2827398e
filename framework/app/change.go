package app

import (
	"bytes"
	"encoding/json"
	"reflect"
)

// SameConfig says whether a and b differ in nothing but the number of instances
// (and the version), so that going from one to the other is scaling and leaves
// running tasks alone (contract 5.1).
func (a *App) SameConfig(b *App) bool {
	x, y := a.config(), b.config()
	if reflect.DeepEqual(x, y) {
		return true
	}
	// Stored and fresh definitions may differ in nil and empty collections.
	xj, err := json.Marshal(x)
	if err != nil {
		return false
	}
	yj, err := json.Marshal(y)
	return err == nil && bytes.Equal(xj, yj)
}

func (a *App) config() *App {
	c := *a
	c.Instances, c.Version, c.VersionInfo = 0, Timestamp{}, nil
	return &c
}

// validateResidentChange adds to p what an update of an app with persistent
// volumes may not do, since its instances keep their reservations (contract 6).
func validateResidentChange(p *problems, a, stored *App) {
	if stored == nil || !stored.Resident() && !a.Resident() {
		return
	}
	if !reflect.DeepEqual(persistent(a), persistent(stored)) {
		p.add("/", "Persistent volumes can not be changed!")
	}
	if !stored.Resident() || !a.Resident() {
		return
	}
	const fixed = "Services with persistent volumes configured may not change resource requirements. " +
		"If you need to make this change, please create a new service."
	for _, field := range []struct {
		path    string
		changed bool
	}{
		{"/cpus", a.CPUs != stored.CPUs},
		{"/mem", a.Mem != stored.Mem},
		{"/disk", a.Disk != stored.Disk},
		{"/gpus", a.GPUs != stored.GPUs},
		{"/requirePorts", a.RequirePorts != stored.RequirePorts},
	} {
		if field.changed {
			p.add(field.path, fixed)
		}
	}
	if !reflect.DeepEqual(a.hostPorts(), stored.hostPorts()) {
		p.add("/", "Services with persistent volumes configured may not change host ports. "+
			"If you need to make this change, please create a new service.")
	}
}

func persistent(a *App) map[string]Persistent {
	out := map[string]Persistent{}
	for _, i := range a.PersistentVolumes() {
		v := a.Container.Volumes[i]
		out[v.ContainerPath] = *v.Persistent
	}
	return out
}

// hostPorts are the ports that the app asks of its agent, 0 for any, in order.
// Port definitions name a host port only with RequirePorts.
func (a *App) hostPorts() []int {
	var out []int
	for _, d := range a.Ports {
		if a.RequirePorts {
			out = append(out, d.Port)
		} else {
			out = append(out, 0)
		}
	}
	if a.Container != nil {
		for _, m := range a.Container.PortMappings {
			if m.HostPort != nil {
				out = append(out, *m.HostPort)
			}
		}
	}
	return out
}
