package core

import (
	"cmp"
	"context"
	"slices"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

// PersistentView is a Mesos persistent volume of an app.
type PersistentView struct {
	ID                string // the persistence id
	App               app.ID
	ContainerPath     string
	AgentID, Hostname string
	Shared            bool
	// Instances have it; a volume that is not shared has one.
	Instances []string
}

// PersistentVolumes implements Service: the volumes that instances have or are
// about to make, by id.
func (c *Core) PersistentVolumes(ctx context.Context) ([]PersistentView, error) {
	return ask(ctx, c, func(*txn) ([]PersistentView, error) {
		byID := map[string]*PersistentView{}
		for _, i := range c.state.allInstances() {
			if i.Reserved == nil {
				continue
			}
			for _, l := range i.Local {
				v := byID[l.ID]
				if v == nil {
					v = &PersistentView{ID: l.ID, App: i.App, ContainerPath: l.ContainerPath,
						AgentID: i.Reserved.AgentID, Hostname: i.Reserved.Hostname, Shared: l.Shared}
					byID[l.ID] = v
				}
				v.Instances = append(v.Instances, i.ID)
			}
		}
		out := make([]PersistentView, 0, len(byID))
		for _, v := range byID {
			out = append(out, *v)
		}
		slices.SortFunc(out, func(a, b PersistentView) int { return cmp.Compare(a.ID, b.ID) })
		return out, nil
	})
}
