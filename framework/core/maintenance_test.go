package core

import (
	"fmt"
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

// An inverse offer is accepted where all that runs on the agent is moved in time,
// which begins at once although all offers are declined for long.
func TestInverseOffersAreAnswered(t *testing.T) {
	drain := scheduler.Policy{MaxMoves: 1, Drain: true, MaintenanceMargin: time.Hour, Refuse: 24 * time.Hour}
	late := drain
	late.MaintenanceMargin = 0
	for name, test := range map[string]struct {
		policy scheduler.Policy
		app    string
		accept bool
	}{
		"moved":               {drain, `{"id":"/web","cmd":"serve","cpus":1,"mem":64,"instances":3}`, true},
		"must not be moved":   {drain, `{"id":"/web","cmd":"serve","cpus":1,"mem":64,"instances":3,"labels":{"DVDI_MOVE":"false"}}`, false},
		"moving is off":       {scheduler.Policy{MaintenanceMargin: time.Hour}, `{"id":"/web","cmd":"serve","cpus":1,"mem":64,"instances":3}`, false},
		"moving begins late":  {late, `{"id":"/web","cmd":"serve","cpus":1,"mem":64,"instances":3}`, false},
		"nothing runs on any": {scheduler.Policy{}, `{"id":"/web","cmd":"serve","cpus":1,"mem":64,"instances":0}`, true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
				if err := r.halt(); err != nil {
					t.Fatal(err)
				}
				r.cfg.Policy = test.policy
				r.start()
				r.post(test.app)
				r.idle()
				r.pass(time.Minute) // offers are declined by now
				r.cluster.set(func(c *cluster) {
					start := time.Now().Add(30 * time.Minute)
					c.agents["S0"].unavailable = start
					c.send(InverseOffers{Offers: []InverseOffer{{ID: "io", AgentID: "S0", At: start}, {ID: "all", At: start}}})
				})
				r.until("it is answered", func() (all bool) {
					r.cluster.set(func(c *cluster) { all = len(c.inverse) == 2 })
					return all
				})
				r.cluster.set(func(c *cluster) {
					if c.inverse["io"] != test.accept || c.inverse["all"] {
						t.Errorf("answers %v", c.inverse)
					}
				})
				r.pass(time.Minute)
				on := fmt.Sprint(r.cluster.agentsOf("/web"))
				moved := on == "[S1 S1 S1]" || on == "[S1]"
				if n := len(r.cluster.liveTasks("/web")); n > 0 && moved != test.accept {
					t.Errorf("%d instances run on %s", n, on)
				}
			})
		})
	}
}
