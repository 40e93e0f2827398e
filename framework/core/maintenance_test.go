package core

import (
	"reflect"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/scheduler"
)

func TestMaintenanceIsAddedToWhatBridgesTell(t *testing.T) {
	now := time.Now()
	c := &Core{flow: newOfferFlow(time.Second)}
	c.cfg.Policy.MaintenanceMargin = time.Minute
	c.flow.noteMaintenance(scheduler.Offer{AgentID: "known", UnavailableFrom: now.Add(30 * time.Second)})
	c.flow.noteMaintenance(scheduler.Offer{AgentID: "alone", UnavailableFrom: now.Add(-time.Hour), UnavailableFor: 2 * time.Hour})
	c.flow.noteMaintenance(scheduler.Offer{AgentID: "later", UnavailableFrom: now.Add(time.Hour)})
	c.flow.noteMaintenance(scheduler.Offer{AgentID: "over", UnavailableFrom: now.Add(-time.Hour), UnavailableFor: time.Minute})
	c.flow.noteMaintenance(scheduler.Offer{AgentID: "called off", UnavailableFrom: now})
	c.flow.noteMaintenance(scheduler.Offer{AgentID: "called off"})
	s := scheduler.Snapshot{Agents: []scheduler.AgentFact{{AgentID: "other", Known: true}, {AgentID: "known", Known: true}}}
	c.addDraining(&s, now)
	want := []scheduler.AgentFact{{AgentID: "other", Known: true}, {AgentID: "known", Known: true, Draining: true}, {AgentID: "alone", Draining: true}}
	if !reflect.DeepEqual(s.Agents, want) {
		t.Errorf("facts %+v, want %+v", s.Agents, want)
	}
	c.cfg.Policy.MaintenanceMargin = -1
	s.Agents = nil
	if c.addDraining(&s, now); s.Agents != nil {
		t.Errorf("maintenance is not ignored: %+v", s.Agents)
	}
}
