package scheduler_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/resource"
	"github.com/mesos-dvdi/dvdi/scheduler/schedtest"
)

// TestFilters gives for each rule one agent that fails it and what is said.
func TestFilters(t *testing.T) {
	type world = schedtest.World
	cases := []struct {
		name   string
		build  func(w *world, o *schedtest.Offer, i *schedtest.Instance)
		reason scheduler.Reason // empty: it is launched
		lacks  string
	}{
		{"fits exactly", func(w *world, o *schedtest.Offer, i *schedtest.Instance) { i.Needs(4, 4096).Disk = 10240_000 }, "", ""},
		{"cpus", func(w *world, o *schedtest.Offer, i *schedtest.Instance) { i.Needs(4.001, 1) },
			scheduler.InsufficientCPUs, "0.001 cpus (has 4, needs 4.001)"},
		{"memory", func(w *world, o *schedtest.Offer, i *schedtest.Instance) { i.Needs(1, 4097) },
			scheduler.InsufficientMemory, "1 MiB of memory (has 4096, needs 4097)"},
		{"disk", func(w *world, o *schedtest.Offer, i *schedtest.Instance) { i.Disk = 10241_000 },
			scheduler.InsufficientDisk, "1 MiB of disk (has 10240, needs 10241)"},
		{"a path disk is no sandbox", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			o.Source(resource.SourcePath, "/disk", 99999)
			i.Disk = 10241_000
		}, scheduler.InsufficientDisk, "1 MiB of disk"},
		{"gpus", func(w *world, o *schedtest.Offer, i *schedtest.Instance) { i.GPUs = 1000 },
			scheduler.InsufficientGPUs, "1 gpus (has 0, needs 1)"},
		{"fixed port", func(w *world, o *schedtest.Offer, i *schedtest.Instance) { i.Port(31000, 80) },
			scheduler.InsufficientPorts, "host port 80"},
		{"the same port twice", func(w *world, o *schedtest.Offer, i *schedtest.Instance) { i.Port(31000, 31000) },
			scheduler.InsufficientPorts, "host ports"},
		{"too many ports", func(w *world, o *schedtest.Offer, i *schedtest.Instance) { i.Port(make([]uint32, 1001)...) },
			scheduler.InsufficientPorts, "host ports (has 1000, needs 1001)"},
		{"all ports", func(w *world, o *schedtest.Offer, i *schedtest.Instance) { i.Port(make([]uint32, 1000)...) }, "", ""},
		{"another role's share", func(w *world, o *schedtest.Offer, i *schedtest.Instance) { o.For("other") },
			scheduler.UnfulfilledRole, "resources for role dvdi"},
		{"reserved for another role", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			o.Resources = []resource.Resource{schedtest.Static(schedtest.Scalar("cpus", 9), "other")}
		}, scheduler.UnfulfilledRole, ""},
		{"unreserved not accepted", func(w *world, o *schedtest.Offer, i *schedtest.Instance) { i.AcceptReserved = true },
			scheduler.UnfulfilledRole, ""},
		{"reserved not accepted", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			i.AcceptUnreserved = true
			o.Add(schedtest.Static(schedtest.Scalar("cpus", 9), schedtest.Role))
			i.Needs(5, 1)
		}, scheduler.InsufficientCPUs, "1 cpus (has 4, needs 5)"},
		{"reserved and unreserved together", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			o.Add(schedtest.Static(schedtest.Scalar("cpus", 9), schedtest.Role))
			i.Needs(13, 1)
		}, "", ""},
		{"reserved for a role above", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			o.Resources = nil
			o.Usual().Add(schedtest.Static(schedtest.Scalar("cpus", 9), "eng"))
			o.For("eng/db")
			i.Role = "eng/db"
			i.Needs(13, 1)
		}, "", ""},
		{"reserved dynamically for the role, without labels", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			o.Add(schedtest.Scalar("cpus", 9).Reserve(resource.Reservation{Role: schedtest.Role, Principal: "ops", Dynamic: true}))
			i.Needs(13, 1)
		}, "", ""},
		{"refined by a stranger below our own role's reservation", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			r := schedtest.Static(schedtest.Scalar("cpus", 9), schedtest.Role)
			o.Add(r.Reserve(resource.Reservation{Role: schedtest.Role + "/sub", Dynamic: true}))
			i.Needs(5, 1)
		}, scheduler.InsufficientCPUs, "1 cpus"},
		{"thousandths add up exactly", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			o.CPUs(0.1).CPUs(0.2) // 4.3 in all, more in floating point
			i.Needs(4.301, 1)
		}, scheduler.InsufficientCPUs, "0.001 cpus (has 4.3, needs 4.301)"},
		{"thousandths are enough", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			o.CPUs(0.1).CPUs(0.2)
			i.Needs(4.3, 1)
		}, "", ""},
		{"only unreserved resources, by acceptedResourceRoles", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			i.AcceptUnreserved = true
			o.Resources = []resource.Resource{schedtest.Static(schedtest.Scalar("cpus", 9), schedtest.Role)}
		}, scheduler.UnfulfilledRole, ""},
		{"a port reserved for the role, with unreserved ones only", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			i.AcceptUnreserved = true
			o.Add(schedtest.Static(portsOf(40000, 40001), schedtest.Role))
			i.Port(40000)
		}, scheduler.InsufficientPorts, "host port 40000"},
		{"a port reserved for the role, too few others", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			i.AcceptUnreserved = true
			o.Add(schedtest.Static(portsOf(40000, 40001), schedtest.Role))
			i.Port(make([]uint32, 1001)...)
		}, scheduler.InsufficientPorts, "host ports (has 1000, needs 1001)"},
		{"maintenance without end", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			o.UnavailableFrom = w.Now.Add(-24 * time.Hour)
		}, scheduler.AgentMaintenance, ""},
		{"revocable", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			r := schedtest.Scalar("cpus", 9)
			r.Revocable = true
			o.Add(r)
			i.Needs(5, 1)
		}, scheduler.InsufficientCPUs, ""},
		{"reserved with a stranger's labels", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			o.Add(schedtest.Scalar("cpus", 9).Reserve(resource.Reservation{
				Role: schedtest.Role, Dynamic: true, Labels: []resource.Label{{Key: "owner", Value: "somebody"}},
			}))
			i.Needs(5, 1)
		}, scheduler.InsufficientCPUs, ""},
		{"maintenance begun", func(w *world, o *schedtest.Offer, i *schedtest.Instance) { o.UnavailableFrom = w.Now },
			scheduler.AgentMaintenance, "an end of its maintenance"},
		{"maintenance within the margin", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			w.Policy.MaintenanceMargin = time.Minute
			o.UnavailableFrom = w.Now.Add(time.Minute)
		}, scheduler.AgentMaintenance, ""},
		{"maintenance later", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			w.Policy.MaintenanceMargin = time.Minute
			o.UnavailableFrom = w.Now.Add(time.Minute + 1)
		}, "", ""},
		{"maintenance over", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			o.UnavailableFrom, o.UnavailableFor = w.Now.Add(-time.Hour), time.Hour
		}, "", ""},
		{"maintenance ignored", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			w.Policy.MaintenanceMargin = -1
			o.UnavailableFrom = w.Now
		}, "", ""},
		{"draining", func(w *world, o *schedtest.Offer, i *schedtest.Instance) { w.Bridge("a1").Draining = true },
			scheduler.AgentMaintenance, ""},
		{"driver missing", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			i.Mounts("v", scheduler.OneTask)
			w.Bridge("a1").Drivers = nil
		}, scheduler.DriverMissing, "a working driver drv"},
		{"driver unhealthy", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			i.Mounts("v", scheduler.OneTask)
			w.Bridge("a1").Drivers[0].Healthy = false
		}, scheduler.DriverMissing, ""},
		{"driver unknown without a bridge", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			i.Mounts("v", scheduler.OneTask)
			b := w.Bridge("a1")
			b.Known, b.Drivers = false, nil
		}, "", ""},
		{"zone of the offer", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			i.Mounts("v", scheduler.OneTask)
			w.Volume("v").Zone = "z1"
			o.In("r", "z2")
		}, scheduler.WrongZone, "zone z1 (it is in z2)"},
		{"zone of the bridge", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			i.Mounts("v", scheduler.OneTask)
			w.Volume("v").Zone = "z1"
			w.Bridge("a1").Zone = "z2"
		}, scheduler.WrongZone, ""},
		{"zone unknown", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			i.Mounts("v", scheduler.OneTask)
			w.Volume("v").Zone = "z1"
		}, "", ""},
		{"attach limit", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			i.Mounts("v", scheduler.OneTask).Mounts("u", scheduler.OneTask)
			w.Bridge("a1").Drivers[0] = scheduler.DriverFact{Name: "drv", Healthy: true, AttachLimit: 3, Attached: 2}
		}, scheduler.AttachLimit, "room to attach its volumes"},
		{"attach limit, volume attached already", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			i.Mounts("v", scheduler.OneTask)
			w.Bridge("a1").Drivers[0] = scheduler.DriverFact{Name: "drv", Healthy: true, AttachLimit: 1, Attached: 1}
			w.Volume("v").AttachedTo = []string{"a1"}
		}, "", ""},
		{"gpu agent", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			w.Policy.RestrictGPUAgents = true
			o.GPUs(1)
		}, scheduler.DeclinedScarceResources, "permission to use an agent with gpus"},
		{"gpu agent, allowed for the instance", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			w.Policy.RestrictGPUAgents = true
			i.GPUUnrestricted = true
			o.GPUs(1)
		}, "", ""},
		{"gpu agent, gpus wanted", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			w.Policy.RestrictGPUAgents = true
			i.GPUs = 1000
			o.GPUs(1)
		}, "", ""},
		{"the first rule counts", func(w *world, o *schedtest.Offer, i *schedtest.Instance) {
			i.Needs(99, 1).Where("rack", scheduler.Is, "r")
			o.UnavailableFrom = w.Now
		}, scheduler.UnfulfilledConstraint, "rack IS r (it is absent)"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := schedtest.New()
			o := w.Offer("a1").Usual()
			i := w.Pending("x")
			c.build(w, o, i)
			plan := w.Decide()
			if c.reason == "" {
				if l := schedtest.Launched(plan, "x"); l == nil {
					t.Fatalf("waits for %+v, want a launch", plan.Waiting)
				}
				return
			}
			waits := schedtest.Waits(plan, "x")
			if waits == nil {
				t.Fatalf("launched, want %s", c.reason)
			}
			if got := schedtest.Reasons(plan, "x"); !maps.Equal(got, map[scheduler.Reason]int{c.reason: 1}) {
				t.Errorf("reasons %v, want one agent with %s", got, c.reason)
			}
			if lacks := strings.Join(waits.Lacks, "; "); !strings.Contains(lacks, c.lacks) || lacks == "" || waits.Best != "a1.test" {
				t.Errorf("best %q lacks %q, want a1.test and %q", waits.Best, lacks, c.lacks)
			}
			if !strings.Contains(waits.Text, c.lacks) {
				t.Errorf("text %q, want %q in it", waits.Text, c.lacks)
			}
		})
	}
}

func TestLaunchUsesWhatItAskedFor(t *testing.T) {
	w := schedtest.New()
	o := w.Offer("a1").CPUs(1).Mem(512).Disk(100).Ports(31003, 31005)
	o.Add(schedtest.Static(schedtest.Scalar("cpus", 0.3), schedtest.Role))
	i := w.Pending("x").Needs(0.7, 64).Port(31004, 0, 0)
	i.Disk = 10_000
	l := schedtest.Launched(w.Decide(), "x")
	if l == nil {
		t.Fatal("not launched")
	}
	got := resource.Resources(l.Resources)
	for name, want := range map[string]resource.Milli{"cpus": 700, "mem": 64_000, "disk": 10_000} {
		if got.Scalar(name) != want {
			t.Errorf("%s: %s, want %s", name, got.Scalar(name), want)
		}
	}
	if got[0].Role() != schedtest.Role || got[0].Scalar != 300 {
		t.Errorf("first resource %+v, want the reserved cpus used up first", got[0])
	}
	if len(l.Ports) != 3 || l.Ports[0] != 31004 || l.Ports[1] == l.Ports[2] {
		t.Errorf("ports %v, want 31004 and two others", l.Ports)
	}
	if !resource.Resources(o.Resources).Contains(l.Resources) {
		t.Errorf("uses %+v, which the offer does not hold", l.Resources)
	}
}

// TestWhatOneTakesIsGoneForTheNext needs the books of each portion: the totals
// alone would let the second instance take what is reserved once more.
func TestWhatOneTakesIsGoneForTheNext(t *testing.T) {
	w := schedtest.New()
	o := w.Offer("a1").CPUs(4).Mem(4096).Add(schedtest.Static(schedtest.Scalar("cpus", 3), schedtest.Role))
	w.Pending("x").Needs(4, 1)
	w.Pending("y").Needs(3, 1)
	plan := w.Decide()
	if on := schedtest.On(plan); len(on) != 2 {
		t.Fatalf("launched %v, want both", on)
	}
	apply(t, o.Resources, plan.Accepts[0].Operations)
}

func portsOf(begin, end uint64) resource.Resource {
	return resource.Resource{Name: "ports", Kind: resource.Ranges, Ranges: []resource.Range{{Begin: begin, End: end}}}
}

// TestPortsOfSeveralReservations has host ports that are reserved for the role,
// for one above it, and for nobody: each port that is taken is taken from where
// it is, and no two instances have the same.
func TestPortsOfSeveralReservations(t *testing.T) {
	w := schedtest.New()
	o := w.Offer("a1").CPUs(9).Mem(4096)
	o.Add(portsOf(31000, 31001)).Add(schedtest.Static(portsOf(32000, 32001), "eng")).Add(schedtest.Static(portsOf(33000, 33001), "eng/db"))
	o.For("eng/db")
	for _, id := range []string{"x", "y"} {
		w.Pending(id).Port(0, 0).Role = "eng/db"
	}
	w.Pending("z").Port(32001, 0).Role = "eng/db"
	w.Pending("late").Port(0).Role = "eng/db"
	plan := w.Decide()
	if on := schedtest.On(plan); len(on) != 3 || on["late"] == "" {
		t.Fatalf("launched %v, want what has room beside z, which goes last by its name", on)
	}
	apply(t, o.Resources, plan.Accepts[0].Operations)
	seen := map[uint32]bool{}
	for _, id := range []string{"x", "y", "late"} {
		l := schedtest.Launched(plan, id)
		for _, p := range l.Ports {
			if seen[p] {
				t.Errorf("port %d is given twice", p)
			}
			seen[p] = true
			reserved := map[uint32]string{31: resource.Unreserved, 32: "eng", 33: "eng/db"}[p/1000]
			if !slices.ContainsFunc(l.Resources, func(r resource.Resource) bool {
				return r.Name == "ports" && r.Role() == reserved && resource.ContainsValue(r.Ranges, uint64(p))
			}) {
				t.Errorf("%s has port %d, but uses %+v", id, p, l.Resources)
			}
		}
	}
}

// TestFixedPortsAfterOthers has an instance want a port by its number after others
// of the same plan have taken any: it gets the port if they have left it, and
// waits if not.
func TestFixedPortsAfterOthers(t *testing.T) {
	w := schedtest.New()
	w.Offer("a1").CPUs(9).Mem(4096).Ports(31000, 31002)
	w.Pending("a").Port(0)
	w.Pending("b").Port(0)
	w.Pending("c").Port(31001)
	launched, waited := false, false
	for seed := range uint64(40) {
		w.Seed = seed
		plan := w.Decide()
		taken := map[uint32]bool{}
		for _, id := range []string{"a", "b"} {
			taken[schedtest.Launched(plan, id).Ports[0]] = true
		}
		got := schedtest.Launched(plan, "c") != nil
		if got == taken[31001] {
			t.Fatalf("others have %v, c is launched: %t", taken, got)
		}
		launched, waited = launched || got, waited || !got
	}
	if !launched || !waited {
		t.Errorf("of forty seeds c is launched by some: %t, and waits by others: %t", launched, waited)
	}
}

func TestGPUAgentsAreOpenToThoseWhoMay(t *testing.T) {
	w := schedtest.New()
	w.Policy.RestrictGPUAgents = true
	w.Offer("a1").Usual().GPUs(1)
	w.Pending("no")
	w.Pending("yes").GPUUnrestricted = true
	if on := schedtest.On(w.Decide()); len(on) != 1 || on["yes"] != "a1" {
		t.Errorf("launched %v, want the unrestricted instance alone", on)
	}
}

func TestPortsOfOneInstanceAreDifferent(t *testing.T) {
	w := schedtest.New()
	w.Offer("a1").CPUs(1).Mem(512).Ports(31003, 31005)
	w.Pending("x").Port(31004, 0, 0)
	for seed := range uint64(9) {
		w.Seed = seed
		l := schedtest.Launched(w.Decide(), "x")
		if l == nil || l.Ports[0] != 31004 || l.Ports[1]+l.Ports[2] != 31003+31005 {
			t.Fatalf("launch %+v, want the fixed port and the two others", l)
		}
	}
}

func TestOffersOfOneAgentAreMerged(t *testing.T) {
	w := schedtest.New()
	w.Offer("a1").CPUs(1).Mem(100)
	w.Offer("a1").CPUs(1).Mem(100).Ports(31000, 31001)
	w.Pending("x").Needs(2, 150).Port(0)
	plan := w.Decide()
	if len(plan.Accepts) != 1 || len(plan.Accepts[0].OfferIDs) != 2 || schedtest.Launched(plan, "x") == nil {
		t.Fatalf("accepts %+v, want one of both offers", plan.Accepts)
	}
}

func TestOffersOfDifferentRolesAreNotMerged(t *testing.T) {
	w := schedtest.New()
	w.Offer("a1").CPUs(1).Mem(100)
	w.Offer("a1").CPUs(1).Mem(100).For("other")
	w.Pending("x").Needs(2, 150)
	w.Pending("y").Needs(1, 10)
	w.Pending("z").Needs(1, 10).Role = "other"
	plan := w.Decide()
	if len(plan.Accepts) != 2 || schedtest.Launched(plan, "x") != nil {
		t.Fatalf("accepts %+v, want one of each offer, without x", plan.Accepts)
	}
	if on := schedtest.On(plan); len(on) != 2 {
		t.Errorf("launched %v, want y and z", on)
	}
}

func TestSeveralInstancesOnOneOffer(t *testing.T) {
	w := schedtest.New()
	w.Agents("a1")
	for i := range 5 {
		w.Pending(fmt.Sprintf("x%d", i)).Port(0)
	}
	plan := w.Decide()
	if on := schedtest.On(plan); len(on) != 4 || len(plan.Accepts) != 1 {
		t.Fatalf("launched %v in %d accepts, want four in one", on, len(plan.Accepts))
	}
	if got := schedtest.Reasons(plan, "x4"); got[scheduler.InsufficientCPUs] != 1 {
		t.Errorf("x4 waits for %v, want cpus", got)
	}
	w.Policy.MaxInstancesPerOffer = 2
	plan = w.Decide()
	if on := schedtest.On(plan); len(on) != 2 {
		t.Errorf("launched %v, want two at most", on)
	}
	if got := schedtest.Reasons(plan, "x4"); got[scheduler.LaunchLimit] != 1 {
		t.Errorf("x4 waits for %v, want the limit", got)
	}
}

func TestAttachLimitCountsLaunchesOfTheSamePlan(t *testing.T) {
	w := schedtest.New()
	w.Agents("a1")
	w.Bridge("a1").Drivers[0].AttachLimit = 2
	for i := range 3 {
		w.Pending(fmt.Sprintf("x%d", i)).Mounts(fmt.Sprintf("v%d", i), scheduler.OneTask)
	}
	if on := schedtest.On(w.Decide()); len(on) != 2 {
		t.Errorf("launched %v, want as many as can be attached", on)
	}
}

func TestSpreadAndPack(t *testing.T) {
	w := schedtest.New()
	w.Agents("a1", "a2", "a3")
	w.Placed("p1", "a1")
	w.Placed("p2", "a1")
	w.Placed("p3", "a2")
	for i := range 3 {
		w.Pending(fmt.Sprintf("x%d", i)).Of(fmt.Sprintf("/app%d", i))
	}
	count := func() map[string]int {
		n := make(map[string]int)
		for _, a := range schedtest.On(w.Decide()) {
			n[a]++
		}
		return n
	}
	if got := count(); got["a1"] != 0 || got["a2"] != 1 || got["a3"] != 2 {
		t.Errorf("spread %v, want a1 at 2, a2 at 2, a3 at 2", got)
	}
	w.Policy.Pack = true
	if got := count(); got["a1"] != 3 {
		t.Errorf("packed %v, want all on the fullest agent", got)
	}
}

func TestAnAppIsSpreadFirst(t *testing.T) {
	w := schedtest.New()
	w.Agents("a1", "a2")
	w.Placed("p", "a1")
	for i := range 3 {
		w.Placed(fmt.Sprintf("other%d", i), "a2").App = "/other"
	}
	w.Pending("x")
	if on := schedtest.On(w.Decide()); on["x"] != "a2" {
		t.Errorf("launched %v, want away from the app's other instance", on)
	}
}

func TestTheSeedBreaksTies(t *testing.T) {
	w := schedtest.New()
	w.Agents("a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8")
	w.Pending("x")
	seen := make(map[string]bool)
	for seed := range uint64(50) {
		w.Seed = seed
		seen[schedtest.On(w.Decide())["x"]] = true
	}
	if len(seen) < 4 {
		t.Errorf("50 seeds chose among %v only", slices.Collect(maps.Keys(seen)))
	}
}
