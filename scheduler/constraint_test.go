package scheduler_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/schedtest"
)

// racks are four agents: two on rack r1, one on r2, one without a rack.
func racks() *schedtest.World {
	w := schedtest.New()
	w.Offer("a1").Usual().Attr("rack", "r1").Attr("size", "4").Attr("slots", "[1-2,5-9]").In("eu", "eu-1")
	w.Offer("a2").Usual().Attr("rack", "r1").Attr("size", "4.5").Attr("slots", "{a,b}").In("eu", "eu-2")
	w.Offer("b1").Usual().Attr("rack", "r2").Attr("size", "8").Attr("slots", "inf").In("us", "us-1")
	w.Offer("c1").Usual()
	return w
}

// TestConstraintsOnTheAgent gives for each rule the agents that it accepts,
// found by offering each agent alone.
func TestConstraintsOnTheAgent(t *testing.T) {
	cases := []struct {
		field string
		op    scheduler.Operator
		value string
		want  string
	}{
		{"rack", scheduler.Cluster, "r1", "a1 a2"},
		{"rack", scheduler.Cluster, "r", ""},
		{"rack", scheduler.Cluster, "", "a1 a2 b1"},
		{"rack", scheduler.Like, "r[12]", "a1 a2 b1"},
		{"rack", scheduler.Like, "r", ""}, // a pattern has to match the whole value
		{"rack", scheduler.Like, "r1|r2", "a1 a2 b1"},
		{"rack", scheduler.Like, "r1", "a1 a2"},
		{"rack", scheduler.Like, "r[", ""}, // not a pattern: matches nothing
		{"rack", scheduler.Unlike, "r1", "b1 c1"},
		{"rack", scheduler.Unlike, "r", "a1 a2 b1 c1"},
		{"rack", scheduler.Unlike, "r[", "c1"},
		{"rack", scheduler.Is, "r2", "b1"},
		{"size", scheduler.Is, "4.0", "a1"},
		{"size", scheduler.Is, "4.50", "a2"},
		{"size", scheduler.Is, "4.0004", "a1"},
		{"size", scheduler.Is, "-4", ""},
		{"slots", scheduler.Is, "inf", "b1"},
		{"slots", scheduler.Is, "0", ""}, // "inf" is a word, not a number out of range
		{"slots", scheduler.Is, "NaN", ""},
		{"slots", scheduler.Is, "1", ""}, // ranges and sets compare as a whole
		{"slots", scheduler.Like, `\[1-2,.*\]`, "a1"},
		{"slots", scheduler.Like, `\{a,b\}`, "a2"},
		{"slots", scheduler.Unlike, `[\[{].*`, "b1 c1"},
		{"slots", scheduler.Cluster, "{a,b}", "a2"},
		{"size", scheduler.Like, `4(\.5)?`, "a1 a2"},
		{"rack", scheduler.Unique, "", "a1 a2 b1"},
		{"rack", scheduler.GroupBy, "", "a1 a2 b1"},
		{"rack", scheduler.MaxPer, "1", "a1 a2 b1"},
		{"rack", scheduler.MaxPer, "0", ""},
		{"rack", scheduler.MaxPer, "many", ""},
		{"hostname", scheduler.Cluster, "a2.test", "a2"},
		{"@hostname", scheduler.Cluster, "a2.test", "a2"},
		{"hostname", scheduler.Like, "a.*", "a1 a2"},
		{"hostname", scheduler.Unlike, "a.*", "b1 c1"},
		{"hostname", scheduler.Unique, "", "a1 a2 b1 c1"},
		{"@region", scheduler.Is, "eu", "a1 a2"},
		{"@zone", scheduler.Like, "eu-.", "a1 a2"},
		{"@zone", scheduler.Unlike, "eu-.", "b1 c1"},
		{"@zone", scheduler.GroupBy, "3", "a1 a2 b1"},
		{"absent", scheduler.Like, ".*", ""},
		{"absent", scheduler.Unlike, ".*", "a1 a2 b1 c1"},
		{"absent", scheduler.MaxPer, "9", ""},
	}
	for _, c := range cases {
		t.Run(fmt.Sprintf("%s %s %s", c.field, c.op, c.value), func(t *testing.T) {
			w := racks()
			w.Pending("x").Where(c.field, c.op, c.value)
			if got := accepting(w.Build()); got != c.want {
				t.Errorf("accepted by %q, want %q", got, c.want)
			}
		})
	}
}

// accepting lists the agents that would take the only pending instance.
func accepting(s scheduler.Snapshot) string {
	var on []string
	all := s.Offers
	for i := range all {
		s.Offers = all[i : i+1]
		plan := scheduler.Decide(s)
		for _, a := range schedtest.On(plan) {
			on = append(on, a)
		}
		if len(plan.Waiting) > 0 && plan.Waiting[0].Counts[0].Reason != scheduler.UnfulfilledConstraint {
			on = append(on, string(plan.Waiting[0].Counts[0].Reason))
		}
	}
	slices.Sort(on)
	return strings.Join(on, " ")
}

// TestGroupByShares gives the agents that are accepted for one more of so many
// instances of an app, beside those that run: each of n groups takes its part of
// them, and of the rest one.
func TestGroupByShares(t *testing.T) {
	rack := map[string]string{"a1": "r1", "a2": "r1", "b1": "r2"}
	cases := []struct {
		groups string
		of     int
		placed string
		want   string
	}{
		{"2", 6, "", "a1 a2 b1"},
		{"2", 6, "a1", "a1 a2 b1"}, // its part is three, whoever comes first
		{"2", 6, "a1 a1 a2", "b1"},
		{"2", 5, "a1 a1 b1", "a1 a2 b1"}, // two each, and one of them three
		{"2", 5, "a1 a1 a2 b1", "b1"},
		{"2", 5, "a1 a1 a2 b1 b1", "b1"}, // a sixth, beyond what is asked for
		{"2", 1, "", "a1 a2 b1"},
		{"1", 4, "", "a1 a2 b1"},
		{"1", 4, "b1", "b1"}, // no second group
		{"2", 4, "a1 a1 a1", "b1"},
		{"3", 6, "a1 a2 b1 b1", ""}, // the third group takes the rest
		{"0", 6, "a1", "a1 a2 b1"},  // no number of groups
		{"-1", 6, "a1 b1 b1", "a1 a2"},
	}
	for _, c := range cases {
		t.Run(fmt.Sprintf("%s groups of %d beside %s", c.groups, c.of, c.placed), func(t *testing.T) {
			w := racks()
			for i, a := range strings.Fields(c.placed) {
				w.Placed(fmt.Sprintf("p%d", i), a).Attr("rack", rack[a])
			}
			w.Pending("x").Where("rack", scheduler.GroupBy, c.groups).AppInstances = c.of
			if got := accepting(w.Build()); got != c.want {
				t.Errorf("accepted by %q, want %q", got, c.want)
			}
		})
	}
}

// TestConstraintsThatCount gives the agents that are accepted beside instances
// that run already.
func TestConstraintsThatCount(t *testing.T) {
	rack := map[string]string{"a1": "r1", "a2": "r1", "b1": "r2"}
	cases := []struct {
		field  string
		op     scheduler.Operator
		value  string
		placed string
		want   string
	}{
		{"hostname", scheduler.Unique, "", "a1", "a2 b1 c1"},
		{"rack", scheduler.Unique, "", "a1", "b1"},
		{"rack", scheduler.Unique, "", "a1 b1", ""},
		{"rack", scheduler.Cluster, "", "b1", "b1"},
		{"rack", scheduler.Cluster, "", "a2", "a1 a2"},
		{"hostname", scheduler.Cluster, "", "c1", "c1"},
		{"rack", scheduler.MaxPer, "2", "a1", "a1 a2 b1"},
		{"rack", scheduler.MaxPer, "2", "a1 a2", "b1"},
		{"hostname", scheduler.MaxPer, "2", "a1 a1 b1", "a2 b1 c1"},
		{"rack", scheduler.GroupBy, "2", "a1", "b1"},
		{"rack", scheduler.GroupBy, "2", "a1 b1", "a1 a2 b1"},
		{"rack", scheduler.GroupBy, "2", "a1 a2 b1", "b1"},
		{"rack", scheduler.GroupBy, "3", "a1 b1", ""}, // a third rack is expected
		{"rack", scheduler.GroupBy, "", "a1", "a1 a2 b1"},
		{"rack", scheduler.GroupBy, "", "a1 a2 b1", "b1"},
		{"hostname", scheduler.GroupBy, "4", "a1 a2 b1", "c1"},
	}
	for _, c := range cases {
		t.Run(fmt.Sprintf("%s %s %s beside %s", c.field, c.op, c.value, c.placed), func(t *testing.T) {
			w := racks()
			for i, a := range strings.Fields(c.placed) {
				p := w.Placed(fmt.Sprintf("p%d", i), a)
				if r, ok := rack[a]; ok {
					p.Attr("rack", r)
				}
				// What runs an older configuration or belongs to others does
				// not count.
				w.Placed(fmt.Sprintf("old%d", i), a).Attr("rack", "r2").Counts = false
				w.Placed(fmt.Sprintf("other%d", i), a).Attr("rack", "r2").App = "/other"
			}
			w.Pending("x").Where(c.field, c.op, c.value)
			if got := accepting(w.Build()); got != c.want {
				t.Errorf("accepted by %q, want %q", got, c.want)
			}
		})
	}
}

// TestConstraintsCountLaunchesOfTheSamePlan launches four instances at once.
func TestConstraintsCountLaunchesOfTheSamePlan(t *testing.T) {
	cases := []struct {
		field string
		op    scheduler.Operator
		value string
		want  map[string]int // instances per rack, "" for none
	}{
		{"rack", scheduler.Unique, "", map[string]int{"r1": 1, "r2": 1}},
		{"rack", scheduler.MaxPer, "1", map[string]int{"r1": 1, "r2": 1}},
		{"rack", scheduler.GroupBy, "2", map[string]int{"r1": 2, "r2": 2}},
		{"rack", scheduler.GroupBy, "", map[string]int{"r1": 2, "r2": 2}},
		{"hostname", scheduler.Unique, "", map[string]int{"r1": 2, "r2": 1, "": 1}},
	}
	rack := map[string]string{"a1": "r1", "a2": "r1", "b1": "r2"}
	for _, c := range cases {
		t.Run(fmt.Sprintf("%s %s %s", c.field, c.op, c.value), func(t *testing.T) {
			w := racks()
			for i := range 4 {
				w.Pending(fmt.Sprintf("x%d", i)).Where(c.field, c.op, c.value)
			}
			got := make(map[string]int)
			for _, a := range schedtest.On(w.Decide()) {
				got[rack[a]]++
			}
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("instances per rack %v, want %v", got, c.want)
			}
		})
	}
}

// TestGroupByGetsAnotherChance needs a second pass: the older instance cannot
// go where it is bound to until the younger has made the other group as large.
func TestGroupByGetsAnotherChance(t *testing.T) {
	w := schedtest.New()
	w.Offer("a1").Usual().Attr("rack", "r1")
	w.Offer("b1").Usual().Attr("rack", "r2")
	w.Placed("p", "a1").Attr("rack", "r1")
	w.Placed("q", "b1").Attr("rack", "r2")
	w.Placed("r", "a1").Attr("rack", "r1")
	w.Pending("young").Where("rack", scheduler.GroupBy, "")
	w.Pending("old").Where("rack", scheduler.GroupBy, "").Where("rack", scheduler.Is, "r1").Since = w.Now.Add(-1)
	on := schedtest.On(w.Decide())
	if on["old"] != "a1" || on["young"] != "b1" {
		t.Errorf("launched %v, want old on a1 and young on b1", on)
	}
}

func TestConstraintsHoldTogether(t *testing.T) {
	w := racks()
	w.Pending("x").Where("rack", scheduler.Cluster, "r1").Where("hostname", scheduler.Unlike, "a1.*")
	if got := accepting(w.Build()); got != "a2" {
		t.Errorf("accepted by %q, want a2", got)
	}
}

func TestRemoteRegionNeedsAConstraint(t *testing.T) {
	w := racks()
	w.Policy.LocalRegion = "eu"
	x := w.Pending("x")
	if got := accepting(w.Build()); got != "a1 a2 c1" {
		t.Errorf("without constraint accepted by %q, want the local region", got)
	}
	x.Where("@region", scheduler.Like, "us|eu")
	if got := accepting(w.Build()); got != "a1 a2 b1" {
		t.Errorf("with @region accepted by %q, want both regions", got)
	}
}

func TestRemoteRegionIsOpenToThoseWhoAsk(t *testing.T) {
	w := racks()
	w.Policy.LocalRegion = "asia"
	// Alike but for that constraint, both with a volume that was on b1.
	w.Volume("u").Last("b1")
	w.Volume("v").Last("b1")
	w.Pending("goes").Mounts("v", scheduler.OneTask).Where("hostname", scheduler.Unlike, "c1.*").Where("@zone", scheduler.GroupBy, "")
	w.Pending("stays").Mounts("u", scheduler.OneTask).Where("hostname", scheduler.Unlike, "c1.*")
	if on := schedtest.On(w.Decide()); len(on) != 1 || on["goes"] == "" {
		t.Errorf("launched %v, want the one with a constraint on @zone alone", on)
	}
}

func TestAPendingInstanceDoesNotCountAgainstItself(t *testing.T) {
	w := schedtest.New()
	w.Agents("a1")
	w.Placed("x", "a1")
	w.Pending("x").Where("hostname", scheduler.Unique, "")
	if on := schedtest.On(w.Decide()); on["x"] != "a1" {
		t.Errorf("launched %v, want x where it was", on)
	}
}

func TestConstraintOnAFieldWithManyValues(t *testing.T) {
	w := schedtest.New()
	for i := range 100 {
		w.Offer(fmt.Sprintf("a%d", i)).Usual().Attr("id", fmt.Sprint(i))
		w.Pending(fmt.Sprintf("x%d", i)).Where("id", scheduler.Unique, "")
	}
	agents := make(map[string]bool)
	for _, a := range schedtest.On(w.Decide()) {
		agents[a] = true
	}
	if len(agents) != 100 {
		t.Errorf("launched on %d agents, want each on its own", len(agents))
	}
}
