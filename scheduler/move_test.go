package scheduler_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/schedtest"
)

func kills(p scheduler.Plan) string {
	var ids []string
	for _, k := range p.Kills {
		ids = append(ids, k.InstanceID)
	}
	return strings.Join(ids, " ")
}

// lopsided has four instances on a1, none on a2, which has room.
func lopsided() *schedtest.World {
	w := schedtest.New()
	w.Agents("a1", "a2")
	for i := range 4 {
		w.Placed(fmt.Sprintf("p%d", i), "a1").Movable = true
	}
	return w
}

func TestBalance(t *testing.T) {
	cases := []struct {
		name string
		set  func(w *schedtest.World)
		want string
	}{
		{"off", func(w *schedtest.World) { w.Policy.MaxMoves = 9 }, ""},
		{"no moves allowed", func(w *schedtest.World) { w.Policy.Balance = 2 }, ""},
		{"one at a time", func(w *schedtest.World) { w.Policy.Balance, w.Policy.MaxMoves = 2, 1 }, "p0"},
		{"until even", func(w *schedtest.World) { w.Policy.Balance, w.Policy.MaxMoves = 2, 9 }, "p0 p1"},
		{"never for a difference of one", func(w *schedtest.World) {
			w.Policy.Balance, w.Policy.MaxMoves = 1, 9
			w.Placed("q0", "a2")
			w.Placed("q1", "a2")
			w.Placed("q2", "a2")
		}, ""},
		{"within the difference", func(w *schedtest.World) { w.Policy.Balance, w.Policy.MaxMoves = 5, 9 }, ""},
		{"those under way count", func(w *schedtest.World) {
			w.Policy.Balance, w.Policy.MaxMoves = 2, 1
			w.Placed("q", "a1").Moving = true
		}, ""},
		{"nothing while something waits", func(w *schedtest.World) {
			w.Policy.Balance, w.Policy.MaxMoves = 2, 9
			w.Pending("x").Needs(99, 1)
		}, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := lopsided()
			c.set(w)
			if got := kills(w.Decide()); got != c.want {
				t.Errorf("stops %q, want %q", got, c.want)
			}
		})
	}
}

func TestMovesNeedOffers(t *testing.T) {
	for _, suppressed := range []bool{false, true} {
		w := lopsided()
		w.Roles = []scheduler.RoleState{{Role: schedtest.Role, Suppressed: suppressed}}
		if plan := w.Decide(); (len(plan.Suppress) == 0) != suppressed || len(plan.Revive) > 0 {
			t.Errorf("suppressed %t, without moves: suppress %v, revive %v", suppressed, plan.Suppress, plan.Revive)
		}
		w.Policy.Drain, w.Policy.MaxMoves = true, 1
		if plan := w.Decide(); len(plan.Suppress) > 0 || (len(plan.Revive) > 0) != suppressed {
			t.Errorf("suppressed %t, with moves: suppress %v, revive %v", suppressed, plan.Suppress, plan.Revive)
		}
	}
}

func TestPackingIsNotBalanced(t *testing.T) {
	w := lopsided()
	w.Policy.Balance, w.Policy.MaxMoves = 2, 9
	if kills(w.Decide()) == "" {
		t.Fatal("nothing is moved without packing either")
	}
	w.Policy.Pack = true
	if got := kills(w.Decide()); got != "" {
		t.Errorf("stops %q that packing would put back", got)
	}
}

func TestBalanceNeedsRoom(t *testing.T) {
	w := schedtest.New()
	w.Agents("a1")
	w.Offer("a2").CPUs(0.5).Mem(4096)
	for i := range 4 {
		w.Placed(fmt.Sprintf("p%d", i), "a1").Movable = true
	}
	w.Policy.Balance, w.Policy.MaxMoves = 2, 9
	if got := kills(w.Decide()); got != "" {
		t.Errorf("stops %q though no agent has room", got)
	}
}

func TestDrain(t *testing.T) {
	build := func() *schedtest.World {
		w := lopsided()
		w.Placed("fixed", "a1").Movable = false
		w.Policy.Drain, w.Policy.MaxMoves = true, 2
		return w
	}
	w := build()
	if got := kills(w.Decide()); got != "" {
		t.Errorf("stops %q though nothing drains", got)
	}
	w.Bridge("a1").Draining = true
	plan := w.Decide()
	if got := kills(plan); got != "p0 p1" {
		t.Fatalf("stops %q, want two of those that may move", got)
	}
	if why := plan.Kills[0].Why; !strings.Contains(why, "a1.test is draining") || !strings.Contains(why, "a2.test") {
		t.Errorf("why %q", why)
	}
	x := w.Pending("stopped before").Needs(100, 1)
	x.Avoid, x.AvoidUntil = "a1", w.Now.Add(time.Minute)
	if got := kills(w.Decide()); got != "p0" {
		t.Errorf("stops %q while one of two that may be on the move has no place yet", got)
	}
	x.AvoidUntil = w.Now
	if got := kills(w.Decide()); got != "p0 p1" {
		t.Errorf("stops %q when that has had its time", got)
	}
	w = build()
	w.Policy.MaintenanceMargin = time.Hour
	for i, o := range w.Build().Offers {
		if o.AgentID == "a1" {
			w.At(i).UnavailableFrom = w.Now.Add(time.Minute)
		}
	}
	if got := kills(w.Decide()); got != "p0 p1" {
		t.Errorf("stops %q before maintenance, want two", got)
	}
	w.Bridge("a2").Draining = true
	if got := kills(w.Decide()); got != "" {
		t.Errorf("stops %q with nowhere to go", got)
	}
}

func TestMovesShareTheRoom(t *testing.T) {
	w := schedtest.New()
	w.Agents("a1")
	w.Offer("a2").CPUs(1).Mem(4096)
	for i := range 6 {
		w.Placed(fmt.Sprintf("p%d", i), "a1").Movable = true
	}
	w.Policy.Balance, w.Policy.MaxMoves = 2, 9
	if got := kills(w.Decide()); got != "p0" {
		t.Errorf("stops %q, want as many as there is room for", got)
	}
}

func TestAMovedInstanceDoesNotGoBack(t *testing.T) {
	w := schedtest.New()
	w.Agents("a1", "a2")
	w.Policy.Wait.LastAttached = time.Hour
	w.Volume("v").Last("a1")
	x := w.Pending("x").Mounts("v", scheduler.OneTask)
	x.Avoid, x.AvoidUntil = "a1", w.Now.Add(time.Minute)
	if on := schedtest.On(w.Decide()); on["x"] != "a2" {
		t.Errorf("launched %v, want away from a1", on)
	}
	claim := w.Claim("v", "a1", scheduler.Releasing)
	plan := w.Decide()
	if on := schedtest.On(plan); len(on) != 0 {
		t.Fatalf("launched %v while the volume is being unmounted", on)
	}
	if waits := schedtest.Waits(plan, "x"); !strings.Contains(waits.Text, "moved off agent a1.test") {
		t.Errorf("text %q", waits.Text)
	}
	claim.State = scheduler.Held
	claim.Instances = []string{"x"}
	w.Now = x.AvoidUntil
	if on := schedtest.On(w.Decide()); on["x"] != "a1" {
		t.Errorf("launched %v when the time is over, want a1", on)
	}
}
