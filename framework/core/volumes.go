package core

import (
	"strings"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// explicitOption tells the volume engine that mounting must not create the
// volume.
const explicitOption = "dvdi.explicit"

var accessModes = map[string]scheduler.AccessMode{
	app.AccessOneTask:     scheduler.OneTask,
	app.AccessOneAgent:    scheduler.OneAgent,
	app.AccessManyReaders: scheduler.ManyReaders,
	app.AccessManyWriters: scheduler.ManyWriters,
}

// volumeRequests returns the external volumes of an app as the scheduler sees
// them. Names hold the ordinal only where a is the definition for an instance.
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
		class := v.External.Class
		out = append(out, scheduler.VolumeRequest{
			Key:              scheduler.VolumeKey{Driver: driver, Name: v.External.Name},
			Access:           accessModes[v.External.Access()],
			ReadOnly:         strings.EqualFold(v.Mode, "RO"),
			BackendExclusive: c.cfg.BackendExclusive[driver] || class != nil && class.BackendExclusive,
		})
	}
	return out
}

// requestsOf are the volumes of an instance that runs def.
func (c *Core) requestsOf(i *instance, def *app.App) []scheduler.VolumeRequest {
	return c.volumeRequests(def.ForInstance(i.Ordinal))
}

// engineOptions are what the volume engine is told about volumes beside the
// driver's options, by their index. The operator who defines such a class knows
// that the agents have a dvdcli that understands it.
func engineOptions(a *app.App) map[int]map[string]string {
	var out map[int]map[string]string
	for _, n := range a.ExternalVolumes() {
		if class := a.Container.Volumes[n].External.Class; class != nil && class.ExplicitCreate {
			if out == nil {
				out = map[int]map[string]string{}
			}
			out[n] = map[string]string{explicitOption: "true"}
		}
	}
	return out
}

// bindsVolume tells whether an app mounts a volume that must not be in use on
// two agents.
func (c *Core) bindsVolume(a *app.App) bool {
	for _, v := range c.volumeRequests(a) {
		if v.Exclusive() {
			return true
		}
	}
	return false
}
