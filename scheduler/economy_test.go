package scheduler_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/schedtest"
)

const (
	long   = 10 * time.Minute
	unfit  = time.Minute
	moment = 3 * time.Second
)

func thrifty() *schedtest.World {
	w := schedtest.New()
	w.Policy.Refuse, w.Policy.RefuseUnfit, w.Policy.RefuseWaiting = long, unfit, moment
	w.Roles = []scheduler.RoleState{{Role: schedtest.Role}}
	return w
}

// refused maps each offer to how long it is refused.
func refused(p scheduler.Plan) map[string]time.Duration {
	m := make(map[string]time.Duration)
	for _, d := range p.Declines {
		for _, id := range d.OfferIDs {
			m[id] = d.Refuse
		}
	}
	for _, a := range p.Accepts {
		for _, id := range a.OfferIDs {
			m[id] = a.Refuse
		}
	}
	return m
}

func TestNothingWaits(t *testing.T) {
	w := thrifty()
	w.Agents("a1", "a2")
	plan := w.Decide()
	if len(plan.Declines) != 1 || plan.Declines[0].Refuse != long || !slices.Equal(plan.Declines[0].OfferIDs, []string{"offer-1", "offer-2"}) {
		t.Errorf("declines %+v, want all in one call for long", plan.Declines)
	}
	if !slices.Equal(plan.Suppress, []string{schedtest.Role}) || plan.Revive != nil {
		t.Errorf("suppress %v revive %v, want to suppress", plan.Suppress, plan.Revive)
	}
	w.Roles[0].Suppressed = true
	if plan = w.Decide(); plan.Suppress != nil || plan.Revive != nil {
		t.Errorf("suppress %v revive %v, want silence once suppressed", plan.Suppress, plan.Revive)
	}
	w.Roles[0].Suppressed, w.Policy.NoSuppress = false, true
	if plan = w.Decide(); plan.Suppress != nil {
		t.Errorf("suppress %v, want offers to keep coming", plan.Suppress)
	}
}

func TestRefusalDependsOnWhatCouldChange(t *testing.T) {
	w := thrifty()
	w.Offer("launches").Usual().Attr("rack", "r1")
	w.Offer("full").CPUs(0.1).Attr("rack", "r1")
	w.Offer("wrong").Usual().Attr("rack", "r2")
	w.Offer("other").Usual().For("other")
	for _, id := range []string{"x", "y"} {
		w.Pending(id).Needs(3, 128).Where("rack", scheduler.Is, "r1")
	}
	got := refused(w.Decide())
	want := map[string]time.Duration{"offer-1": moment, "offer-2": moment, "offer-3": unfit, "offer-4": long}
	for id, t1 := range want {
		if got[id] != t1 {
			t.Errorf("%s refused for %s, want %s", id, got[id], t1)
		}
	}
	w.Policy.RefuseUnfit = 0
	if got = refused(w.Decide()); got["offer-3"] != moment {
		t.Errorf("refused for %s without RefuseUnfit, want %s", got["offer-3"], moment)
	}
}

func TestAgentsThatCannotHelpABoundInstance(t *testing.T) {
	w := thrifty()
	w.Agents("a1", "a2")
	w.Claim("v", "a1", scheduler.Held, "other")
	w.Pending("x").Mounts("v", scheduler.OneTask)
	if got := refused(w.Decide()); got["offer-1"] != moment || got["offer-2"] != unfit {
		t.Errorf("refused for %v, want the agent of the claim back soon", got)
	}
	fence := w.Claim("u", "a3", scheduler.Fenced)
	fence.FenceAt = w.Now.Add(time.Second)
	w.Pending("y").Mounts("u", scheduler.OneTask)
	if got := refused(w.Decide()); got["offer-2"] != moment {
		t.Errorf("refused for %v, want all agents back when the fence may have expired", got)
	}
}

func TestTooManyKindsOfWaitingInstancesRefuseNothingForLong(t *testing.T) {
	w := thrifty()
	w.Agents("a1")
	for i := range 70 {
		w.Pending(fmt.Sprintf("x%d", i)).Where("rack", scheduler.Like, fmt.Sprintf("r%d.*", i))
	}
	if got := refused(w.Decide())["offer-1"]; got != moment {
		t.Errorf("refused for %s, want %s", got, moment)
	}
}

func TestRestOfAnAcceptedOffer(t *testing.T) {
	w := thrifty()
	w.Agents("a1")
	w.Pending("x")
	if got := refused(w.Decide())["offer-1"]; got != long {
		t.Errorf("the rest is refused for %s when nothing waits, want %s", got, long)
	}
}

func TestDefaultsAreBounded(t *testing.T) {
	w := schedtest.New()
	w.Agents("a1")
	if got := refused(w.Decide())["offer-1"]; got != scheduler.DefaultRefuse {
		t.Errorf("refused for %s, want %s", got, scheduler.DefaultRefuse)
	}
	w.Pending("x").Needs(99, 1)
	if got := refused(w.Decide())["offer-1"]; got != scheduler.DefaultRefuseWaiting {
		t.Errorf("refused for %s while something waits, want %s", got, scheduler.DefaultRefuseWaiting)
	}
}

func TestReviveOnce(t *testing.T) {
	w := thrifty()
	w.Pending("x")
	w.Roles[0].Suppressed = true
	if plan := w.Decide(); !slices.Equal(plan.Revive, []string{schedtest.Role}) {
		t.Errorf("revive %v, want the role of what waits", plan.Revive)
	}
	w.Roles[0].Suppressed = false
	if plan := w.Decide(); plan.Revive != nil || plan.Suppress != nil {
		t.Errorf("revive %v suppress %v, want neither while it waits", plan.Revive, plan.Suppress)
	}
	w.Roles[0].FilteredAt = w.Now.Add(-time.Second)
	if plan := w.Decide(); len(plan.Revive) != 1 {
		t.Error("no revive for what began to wait after offers were refused")
	}
	w.Roles[0].FilteredAt = w.Now
	if plan := w.Decide(); plan.Revive != nil {
		t.Errorf("revive %v, want none for what had its chance", plan.Revive)
	}
}

func TestBackOffNeedsNoReviveUntilItEnds(t *testing.T) {
	w := thrifty()
	i := w.Pending("x")
	i.Since, i.NotBefore = w.Now.Add(-time.Hour), w.Now.Add(time.Second)
	w.Roles[0].FilteredAt = w.Now.Add(-time.Minute)
	if plan := w.Decide(); plan.Revive != nil {
		t.Errorf("revive %v during back-off", plan.Revive)
	}
	w.Now = w.Now.Add(time.Second)
	if plan := w.Decide(); len(plan.Revive) != 1 {
		t.Error("no revive at the end of back-off")
	}
}

func TestWipeKeepsOffersNear(t *testing.T) {
	w := thrifty()
	w.Offer("a1").Usual().Attr("rack", "r2")
	w.Pending("x").Where("rack", scheduler.Is, "r1")
	w.Wiped = []string{"gone"}
	if got := refused(w.Decide())["offer-1"]; got != moment {
		t.Errorf("refused for %s while data is to be destroyed, want %s", got, moment)
	}
}

func TestWipeNeedsOffers(t *testing.T) {
	w := thrifty()
	w.Wiped = []string{"gone"}
	w.Roles[0].Suppressed = true
	if plan := w.Decide(); len(plan.Revive) != 1 {
		t.Error("no revive for data that is to be destroyed")
	}
}

func TestRescindedOfferIsNoLongerThere(t *testing.T) {
	w := schedtest.New()
	w.Pending("x")
	plan := w.Decide()
	if len(plan.Accepts)+len(plan.Declines) != 0 {
		t.Fatalf("plan %+v without offers", plan)
	}
	if waits := schedtest.Waits(plan, "x"); waits.Counts[0].Reason != scheduler.NoOffers || waits.Offers != 0 {
		t.Errorf("waits %+v, want NoOffers", waits)
	}
}
