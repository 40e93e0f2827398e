package scheduler_test

import (
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/schedtest"
)

// An agent that comes back with a new id has its reservations and volumes still:
// the instance runs on them again. Another agent's volumes of the same name are
// not those of the instance, and while its own agent offers it is not left.
func TestRelaunchWhereTheAgentHasANewID(t *testing.T) {
	cases := []struct {
		name string
		set  func(w *schedtest.World, o *schedtest.Offer, r *scheduler.ReservationState)
		on   string
	}{
		{"new id", func(_ *schedtest.World, o *schedtest.Offer, _ *scheduler.ReservationState) { o.AgentID = "a1-new" }, "a1-new"},
		{"other host", func(_ *schedtest.World, o *schedtest.Offer, _ *scheduler.ReservationState) {
			o.AgentID, o.Hostname = "a2", schedtest.Host("a2")
		}, ""},
		{"what came late of another attempt", func(_ *schedtest.World, o *schedtest.Offer, r *scheduler.ReservationState) {
			o.AgentID, r.GivenUp = "a1-beside", []string{"a1-beside"}
		}, ""},
		{"host not known", func(_ *schedtest.World, o *schedtest.Offer, r *scheduler.ReservationState) {
			o.AgentID, r.Hostname = "a1-new", ""
		}, ""},
		{"own agent offers, too", func(w *schedtest.World, o *schedtest.Offer, _ *scheduler.ReservationState) {
			o.AgentID = "a1-new"
			w.Agents("a1")
		}, ""},
		{"without one of the volumes", func(_ *schedtest.World, o *schedtest.Offer, r *scheduler.ReservationState) {
			o.AgentID = "a1-new"
			r.PersistenceIDs = append(r.PersistenceIDs, "db#other")
		}, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w, o, i := relaunched()
			i.Reservation.Hostname = schedtest.Host("a1")
			c.set(w, o, i.Reservation)
			plan := w.Decide()
			if on := schedtest.On(plan)["db"]; on != c.on {
				t.Fatalf("launched on %q, want %q; waiting %+v", on, c.on, plan.Waiting)
			}
			if c.on != "" && kinds(plan) != "launch" {
				t.Errorf("operations %q, want a launch on what is there", kinds(plan))
			}
			// Of what is not the instance's own only what holds no data goes.
			strange := c.name == "other host" || c.name == "what came late of another attempt"
			if want := map[bool]string{true: "unreserve"}[strange]; c.on == "" && kinds(plan) != want {
				t.Errorf("operations %q on what is not the instance's, want %q", kinds(plan), want)
			}
		})
	}
}

// A reservation that shows on the agent with its new id has not been lost.
func TestReservationOfANewIDDoesNotExpire(t *testing.T) {
	w, o, i := relaunched()
	i.Reservation.Hostname, i.Reservation.Deadline = schedtest.Host("a1"), w.Now.Add(-time.Second)
	i.NotBefore = w.Now.Add(time.Hour)
	o.AgentID = "a1-new"
	if plan := w.Decide(); len(plan.Expired) > 0 || kinds(plan) != "" {
		t.Errorf("expired %q, operations %q", plan.Expired, kinds(plan))
	}
}
