package core

import (
	"strings"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// volumeRequests returns the external volumes of an app as the scheduler sees
// them. A volume is for one task at a time unless the app says that it shares
// it with others on the same agent.
func (c *Core) volumeRequests(a *app.App) []scheduler.VolumeRequest {
	if a.Container == nil {
		return nil
	}
	var out []scheduler.VolumeRequest
	for _, v := range a.Container.Volumes {
		if v.External == nil || v.External.Provider != app.DVDI {
			continue
		}
		driver := v.External.Driver()
		r := scheduler.VolumeRequest{
			Key:              scheduler.VolumeKey{Driver: driver, Name: v.External.Name},
			ReadOnly:         strings.EqualFold(v.Mode, "RO"),
			BackendExclusive: c.cfg.BackendExclusive[driver],
		}
		if v.External.Shared {
			r.Access = scheduler.OneAgent
		}
		out = append(out, r)
	}
	return out
}

// exclusive tells whether an access mode binds a volume to one agent.
func exclusive(m scheduler.AccessMode) bool {
	return m == scheduler.OneTask || m == scheduler.OneAgent
}

// bindsVolume tells whether an app mounts a volume that must not be in use on
// two agents.
func (c *Core) bindsVolume(a *app.App) bool {
	for _, v := range c.volumeRequests(a) {
		if exclusive(v.Access) {
			return true
		}
	}
	return false
}
