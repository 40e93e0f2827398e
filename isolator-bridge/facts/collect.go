package facts

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/fence"
)

// collection is the volumes as all sources together tell of them.
type collection struct {
	volumes  map[ledger.Key]*client.Volume
	attached map[string]uint32
}

// newCollection puts the sources together. The caller holds the board's mutex.
func newCollection(b *Board, items []ledger.Listed, registrations []ledger.Registration) *collection {
	c := &collection{volumes: map[ledger.Key]*client.Volume{}, attached: map[string]uint32{}}
	for _, item := range items {
		if item.Record != nil {
			c.record(item)
		}
	}
	for _, reg := range registrations {
		c.at(reg.Key()).Registered = registered(reg, b.cfg.Leases)
	}
	for key, containers := range b.uses.Containers {
		v := c.at(key)
		for _, u := range containers {
			v.Containers = append(v.Containers, &client.Container{Id: text(u.ID), FrameworkId: text(u.FrameworkID), TaskId: text(u.TaskID),
				ExecutorId: text(u.ExecutorID), Live: !u.Gone})
		}
		slices.SortFunc(v.Containers, func(x, y *client.Container) int { return strings.Compare(x.Id, y.Id) })
	}
	for key, v := range c.volumes {
		v.Leaked = b.uses.Leaked[key]
		if v.Problem == "" {
			v.Problem = text(b.uses.Problems[key])
		}
		v.Replicas = b.replicas.of(key)
	}
	b.zones.put(c.volumes)
	return c
}

// text makes what users and drivers choose fit for protobuf, whose strings are
// UTF-8: one name that is not must not keep all facts from being told.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func (c *collection) at(key ledger.Key) *client.Volume {
	if c.volumes[key] == nil {
		c.volumes[key] = &client.Volume{Name: &client.VolumeName{Driver: text(key.Driver), Name: text(key.Volume)}}
	}
	return c.volumes[key]
}

// record tells of a volume in the ledger.
func (c *collection) record(item ledger.Listed) {
	r := item.Record
	v := c.at(r.Key())
	v.State, v.Problem, v.Epoch = stateOf(item), text(r.LastError), r.Epoch
	if v.State != client.Volume_NONE {
		c.attached[text(r.Driver)]++
	}
}

// stateOf says what a record means for somebody who wants to know whether the
// volume may be in use here. A record of an earlier boot is a hint: nothing of
// it is mounted, unless its driver mounts by itself.
func stateOf(item ledger.Listed) client.Volume_State {
	r := item.Record
	switch {
	case item.Hint && r.Phase == ledger.PhaseReleased:
		return client.Volume_NONE
	case item.Hint:
		return client.Volume_UNKNOWN
	case r.Call != nil && r.Call.Op != ledger.OpCreate && r.Call.Op != ledger.OpRemove:
		return client.Volume_UNSETTLED
	}
	switch r.Phase {
	case ledger.PhaseMounted:
		return client.Volume_MOUNTED
	case ledger.PhasePending:
		return client.Volume_PENDING
	case ledger.PhaseWatched:
		return client.Volume_UNSETTLED
	}
	return client.Volume_NONE
}

// count completes the drivers with the numbers of their volumes.
func (c *collection) count(drivers []*client.Driver, limits map[string]uint32) []*client.Driver {
	for _, d := range drivers {
		d.Attached, d.AttachLimit = c.attached[d.Name], limits[d.Name]
	}
	return drivers
}

func registered(reg ledger.Registration, leases *fence.Keeper) *client.Registered {
	out := &client.Registered{FrameworkId: reg.Framework, Epoch: reg.Epoch, Withdrawn: reg.Withdrawn}
	if reg.Lease <= 0 || leases == nil {
		return out
	}
	terms, ok := leases.Terms(reg.Key())
	if !ok {
		return out
	}
	out.Fence = fenceOf(terms)
	out.Fence.Basis = nil // it changes all the time; who renews gets one with each answer
	return out
}

func fenceOf(t fence.Terms) *client.Fence {
	return &client.Fence{
		Lease: durationpb.New(t.Lease), Trusted: t.Trusted, Reason: t.Reason, Grace: durationpb.New(t.Grace), Basis: t.Basis,
		State: map[fence.State]client.Fence_State{
			fence.Holding: client.Fence_HOLDS, fence.Fencing: client.Fence_FENCING, fence.Fenced: client.Fence_FENCED}[t.State],
	}
}
