package core

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// An agent whose id is lost, or was marked gone by an operator, keeps its
// reservations and volumes and offers them under a new id (Mesos'
// src/slave/paths.hpp, getResourcesInfoPath). What belongs to an instance is
// known by the host's name, our labels and the persistence ids; whether the old
// id is marked gone before or after the new one's offers come decides nothing, as
// long as nothing was launched on new volumes.

// formerVolumes are those that an instance had on an agent which was marked gone,
// kept until the instance is launched on new ones.
type formerVolumes struct {
	AgentID  string        `json:"agentId,omitempty"`
	Hostname string        `json:"hostname"`
	Role     string        `json:"role"`
	LastTask string        `json:"lastTask,omitempty"`
	Local    []localVolume `json:"local"`
	// Until is when new volumes may be made: an agent that is back with a new id
	// has offered by then.
	Until time.Time `json:"until"`
}

const (
	// returnPatience is how long new volumes are not made after an agent was
	// marked gone: until all agents have offered what they have.
	returnPatience = 10 * time.Second
	// returnWindow is how long an instance without a task outlives the end of the
	// agent that had its volumes.
	returnWindow = 24 * time.Hour
)

// shown is an agent whose offers have something of an instance.
type shown struct {
	agentID, hostname string
	volumes           map[string]bool // all of ours there, by persistence id
}

// noteReturned looks in the offers at hand for what instances had on agents that
// offer nothing under the id that is known.
func (c *Core) noteReturned(tx *txn) {
	wanted := c.awayFromHome()
	if len(wanted) == 0 {
		return
	}
	found := c.shownOf(wanted)
	for _, id := range sortedKeys(found) {
		for _, s := range found[id] {
			if c.comesBack(tx, wanted[id], s) {
				break
			}
		}
	}
}

// awayFromHome lists by id the instances without a task whose volumes' agent has
// no offer at hand, or was marked gone. One whose task is lost is not among them:
// the task may come back with the old id.
func (c *Core) awayFromHome() map[string]*instance {
	if len(c.flow.held) == 0 {
		return nil
	}
	var out map[string]*instance
	var offered map[string]bool
	for _, i := range c.state.instances {
		if i.Task != nil || i.Reserved == nil && (i.Former == nil || i.Phase != waiting) {
			continue
		}
		if offered == nil {
			offered, out = map[string]bool{}, map[string]*instance{}
			for _, o := range c.flow.held {
				offered[o.AgentID] = true
			}
		}
		if i.Reserved == nil || !offered[i.Reserved.AgentID] {
			out[i.ID] = i
		}
	}
	return out
}

// shownOf lists the agents whose offers at hand have something of instances.
func (c *Core) shownOf(wanted map[string]*instance) map[string][]*shown {
	out := map[string][]*shown{}
	agents := map[string]*shown{}
	formats := c.labelFormats()
	for _, o := range c.flow.held {
		for n := range o.Resources {
			r := &o.Resources[n]
			if len(r.Reservations) == 0 {
				continue
			}
			id, ours := ownerBy(formats, r.ReservationLabels())
			if !ours {
				continue
			}
			if agents[o.AgentID] == nil {
				agents[o.AgentID] = &shown{agentID: o.AgentID, hostname: o.Hostname, volumes: map[string]bool{}}
			}
			if r.IsPersistent() {
				agents[o.AgentID].volumes[r.Disk.PersistenceID] = true
			}
			if s := agents[o.AgentID]; wanted[id] != nil && !slices.Contains(out[id], s) {
				out[id] = append(out[id], s)
			}
		}
	}
	for _, list := range out {
		slices.SortFunc(list, func(a, b *shown) int { return strings.Compare(a.agentID, b.agentID) })
	}
	return out
}

// ownerBy is the instance that labels name, if they are ours.
func ownerBy(formats []scheduler.LabelFormat, labels []resource.Label) (id string, ours bool) {
	for _, f := range formats {
		if v, ok := resource.LabelValue(labels, f.FrameworkKey); ok && v == f.FrameworkID {
			return resource.LabelValue(labels, f.InstanceKey)
		}
	}
	return "", false
}

func (s *shown) has(volumes []localVolume) bool {
	return len(volumes) > 0 && !slices.ContainsFunc(volumes, func(v localVolume) bool { return !s.volumes[v.ID] })
}

// comesBack has an instance find its volumes where they are shown, and reports
// whether they are its own. What an attempt that was given up has left on another
// agent of the host is not.
func (c *Core) comesBack(tx *txn, i *instance, s *shown) bool {
	if i.Reserved == nil {
		if c.hasOtherShared(i.App, i.Former.Local) || s.hostname != i.Former.Hostname || !s.has(i.Former.Local) || slices.Contains(i.GivenUp, s.agentID) {
			return false
		}
		c.takeBack(tx, i, s)
		return true
	}
	// A wipe may have left a part.
	mine := s.has(i.Local) || i.Phase == wiping
	if i.Phase != wiping && c.hasOtherShared(i.App, i.Local) {
		return false // it joins the others when it is launched
	}
	if s.hostname != i.Reserved.Hostname || !mine || slices.Contains(i.GivenUp, s.agentID) {
		return false
	}
	c.rehome(tx, i, s.agentID)
	return true
}

// rehome notes the new id of the agent that has an instance's volumes.
func (c *Core) rehome(tx *txn, i *instance, agentID string) {
	c.log.Info("the agent with an instance's volumes has a new id", zap.String("instance", i.ID),
		zap.String("was", i.Reserved.AgentID), zap.String("agent", agentID), zap.String("host", i.Reserved.Hostname))
	i.Reserved.AgentID, i.Reserved.Gone, i.Reserved.Deadline = agentID, time.Time{}, time.Time{}
	tx.saveInstance(i)
	c.touch(i.App)
	c.flow.wantRevive()
}

// takeBack has a waiting instance use its former volumes again, which have shown
// up before it was launched on new ones.
func (c *Core) takeBack(tx *txn, i *instance, s *shown) {
	c.log.Info("an instance's volumes are back under a new id of their agent", zap.String("instance", i.ID),
		zap.String("agent", s.agentID), zap.String("host", s.hostname))
	i.Local = i.Former.Local
	i.Reserved = &reservation{AgentID: s.agentID, Hostname: s.hostname, Role: i.Former.Role, LastTask: i.Former.LastTask}
	i.Former = nil
	tx.saveInstance(i)
	c.touch(i.App)
	c.flow.wantRevive()
}

// abandonReservations ends the reservations on an agent that is gone for good:
// what waits starts anew elsewhere, unless the host offers them within
// returnPatience. Instances that have no task are kept for returnWindow.
func (tx *txn) abandonReservations(agentID string) {
	for _, i := range tx.c.state.allInstances() {
		if i.Reserved != nil && i.Reserved.AgentID == agentID && i.Task == nil && i.Reserved.Gone.IsZero() {
			tx.c.abandonReservation(tx, i)
		}
	}
}

func (c *Core) abandonReservation(tx *txn, i *instance) {
	c.log.Warn("the agent with an instance's volumes is gone for good", zap.String("instance", i.ID),
		zap.String("agent", i.Reserved.AgentID))
	def := c.state.definition(i)
	switch {
	case i.parked():
		i.Reserved.Gone = tx.now
		tx.saveInstance(i)
	case def == nil:
		tx.removeInstance(i)
	default:
		c.startAnew(tx, i, def)
	}
	c.flow.wantRevive()
}

// startAnew has an instance whose volumes are lost, as far as is known, make new
// ones.
func (c *Core) startAnew(tx *txn, i *instance, def *app.App) {
	lost := &formerVolumes{
		AgentID: i.Reserved.AgentID, Hostname: i.Reserved.Hostname, Role: i.Reserved.Role, LastTask: i.Reserved.LastTask,
		Local: i.Local, Until: tx.now.Add(returnPatience),
	}
	i.Reserved = nil
	if err := i.chooseVolumes(def); err != nil {
		c.log.Error("cannot name new volumes; the old names are used again", zap.Error(err))
		i.Local = lost.Local
	} else if lost.Hostname != "" {
		i.Former = lost
	}
	tx.saveInstance(i)
	c.touch(i.App)
	c.flow.wantRevive()
}

// waitForFormer has an instance that is not to be launched any more keep its former
// volumes instead of the names of new ones.
func (i *instance) waitForFormer(now time.Time) {
	f := i.Former
	i.Local, i.Former = f.Local, nil
	i.Reserved = &reservation{AgentID: f.AgentID, Hostname: f.Hostname, Role: f.Role, LastTask: f.LastTask, Gone: now}
}

// goneRank puts what may be there before what is gone.
func (r *reservation) goneRank() int { return boolRank(r != nil && !r.Gone.IsZero()) }

// returnUntil is when an instance whose volumes' agent is gone may make new ones,
// zero if at once.
func (i *instance) returnUntil() time.Time {
	if i.Former == nil || i.Reserved != nil {
		return time.Time{}
	}
	return i.Former.Until
}

// returnText says that an instance waits for its former volumes, empty if it does
// not.
func (i *instance) returnText(now time.Time) string {
	until := i.returnUntil()
	if !now.Before(until) {
		return ""
	}
	return fmt.Sprintf("waits until %s for its volumes on %s, whose agent was marked gone, to show up under a new id of that agent; "+
		"without them it makes new ones", until.UTC().Format(time.RFC3339), i.Former.Hostname)
}

// forgetGone removes the instances that were kept for volumes whose agent is gone
// and did not come back.
func (c *Core) forgetGone(tx *txn) {
	for _, i := range c.state.instances {
		if !i.parked() || i.Reserved == nil || i.Reserved.Gone.IsZero() || tx.now.Before(i.Reserved.Gone.Add(returnWindow)) {
			continue
		}
		c.log.Warn("an instance without a task is forgotten: its volumes' agent was marked gone and has not come back",
			zap.String("instance", i.ID), zap.String("agent", i.Reserved.AgentID), zap.String("host", i.Reserved.Hostname))
		tx.removeInstance(i)
	}
}
