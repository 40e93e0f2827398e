package core

import (
	"context"
	"fmt"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

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

// invertingConn makes the inverse offer for S0 anew at each revive, as Mesos does.
type invertingConn struct {
	*conn
	revives *atomic.Int32
	start   time.Time
}

func (c invertingConn) Revive(ctx context.Context, roles []string) error {
	c.revives.Add(1)
	if err := c.conn.Revive(ctx, roles); err != nil {
		return err
	}
	c.conn.c.set(func(cl *cluster) { c.invert(cl) })
	return nil
}

func (c invertingConn) invert(cl *cluster) {
	cl.send(InverseOffers{Offers: []InverseOffer{{ID: "io", AgentID: "S0", At: c.start}}})
}

// While what is on a draining agent has no other place to go, the master is not
// asked for all of its offers again and again, and is told that the agent is not
// left; once there is one, it goes there.
func TestDrainingWithoutRoomIsPatient(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		if err := r.halt(); err != nil {
			t.Fatal(err)
		}
		r.cfg.Policy = scheduler.Policy{MaxMoves: 1, Drain: true, MaintenanceMargin: time.Hour, Refuse: 24 * time.Hour, RefuseUnfit: 30 * time.Second}
		m := invertingConn{r.cluster.connect(), &atomic.Int32{}, time.Now().Add(40 * time.Minute)}
		r.connect = func() Mesos { return m }
		r.start()
		r.post(`{"id":"/web","cmd":"serve","cpus":1,"mem":64,"instances":2,"constraints":[["hostname","UNIQUE"]]}`)
		r.idle()
		r.cluster.set(func(c *cluster) {
			c.agents["S0"].unavailable = m.start
			m.invert(c)
		})
		answered := func(accept bool) func() bool {
			return func() (so bool) {
				r.cluster.set(func(c *cluster) {
					answer, any := c.inverse["io"]
					so = any && answer == accept
				})
				return so
			}
		}
		r.until("the inverse offer is accepted, since there may be room", answered(true))
		r.until("it is declined, since there is none", answered(false))
		before := m.revives.Load()
		r.pass(10 * time.Minute)
		if !answered(false)() {
			t.Error("it is accepted again although nothing has changed")
		}
		if n := m.revives.Load() - before; n < 2 || n > 22 {
			t.Errorf("asked for all offers %d times in 10 minutes, want one in 30 s", n)
		}
		r.cluster.set(func(c *cluster) { c.agents["S2"] = &agent{id: "S2", host: "c", cpus: 8, mem: 8192} })
		r.until("what is on a moves to c", func() bool { return fmt.Sprint(r.cluster.agentsOf("/web")) == "[S1 S2]" })
		r.cluster.set(m.invert)
		r.until("the inverse offer is accepted", answered(true))
	})
}

// The log tells of an agent's maintenance once, and again when it changes.
func TestInverseOfferThatComesAgainIsLoggedOnce(t *testing.T) {
	log, lines := observer.New(zap.InfoLevel)
	c := &Core{flow: newOfferFlow(time.Second), state: &state{}, log: zap.New(log)}
	from := time.Now()
	for i, want := range []int{1, 1, 2, 2} {
		o := InverseOffer{ID: fmt.Sprint(i), AgentID: "S0", At: from}
		if i >= 2 {
			o.At = from.Add(time.Hour)
		}
		c.inverseOffers(&txn{c: c, now: from}, []InverseOffer{o})
		if n := lines.Len(); n != want {
			t.Errorf("after offer %d the log has %d lines, want %d", i, n, want)
		}
	}
	c.flow.noteMaintenance(scheduler.Offer{AgentID: "S0"}) // called off
	c.inverseOffers(&txn{c: c, now: from}, []InverseOffer{{ID: "5", AgentID: "S0", At: from.Add(time.Hour)}})
	if n := lines.Len(); n != 3 {
		t.Errorf("maintenance that is announced again after it was called off: %d lines, want 3", n)
	}
}
