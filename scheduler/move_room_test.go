package scheduler_test

import (
	"fmt"
	"testing"

	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/schedtest"
)

// kind says what the placed instances p0 to p3 of a lopsided world ask for.
func kind(w *schedtest.World, placed []*schedtest.Placed, set func(i *schedtest.Instance)) {
	like := schedtest.New()
	i := like.Pending("kind").Of("app").Needs(1, 128)
	set(i)
	w.Kinds = map[string]scheduler.Instance{"k": i.Instance}
	for _, p := range placed {
		p.Kind, p.App = "k", "app"
	}
}

// Whatever cannot run on another agent is not stopped: it would be down until it
// may come back, and be stopped again.
func TestMovesOnlyWhatCanRunElsewhere(t *testing.T) {
	cases := []struct {
		name string
		set  func(w *schedtest.World, i *schedtest.Instance)
		want string
	}{
		{"anywhere", func(*schedtest.World, *schedtest.Instance) {}, "p0 p1"},
		{"host", func(_ *schedtest.World, i *schedtest.Instance) {
			i.Where("hostname", scheduler.Cluster, schedtest.Host("a1"))
		}, ""},
		{"attribute", func(_ *schedtest.World, i *schedtest.Instance) { i.Where("rack", scheduler.Like, "r.*") }, ""},
		{"first one's agent", func(_ *schedtest.World, i *schedtest.Instance) {
			i.Where("hostname", scheduler.Cluster, "")
		}, ""},
		{"one per agent", func(_ *schedtest.World, i *schedtest.Instance) { i.Where("hostname", scheduler.MaxPer, "1") }, "p0"},
		{"driver", func(w *schedtest.World, i *schedtest.Instance) {
			i.Mounts("v", scheduler.OneTask)
			w.Bridge("a2").Drivers = []scheduler.DriverFact{{Name: "other", Healthy: true}}
		}, ""},
		{"attach limit", func(w *schedtest.World, i *schedtest.Instance) {
			i.Mounts("v", scheduler.OneTask)
			w.Bridge("a2").Drivers = []scheduler.DriverFact{{Name: "drv", Healthy: true, AttachLimit: 3, Attached: 3}}
		}, ""},
		{"port", func(_ *schedtest.World, i *schedtest.Instance) { i.Port(80) }, ""},
		{"GPU", func(_ *schedtest.World, i *schedtest.Instance) { i.GPUs = 1000 }, ""},
		{"role", func(_ *schedtest.World, i *schedtest.Instance) { i.AcceptUnreserved, i.AcceptReserved = false, true }, ""},
	}
	for _, c := range cases {
		for _, drain := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/drain %t", c.name, drain), func(t *testing.T) {
				w := schedtest.New()
				w.Agents("a1", "a2")
				var placed []*schedtest.Placed
				for i := range 4 {
					p := w.Placed(fmt.Sprintf("p%d", i), "a1")
					p.Movable, p.Counts = true, true
					placed = append(placed, p)
				}
				kind(w, placed, func(i *schedtest.Instance) { c.set(w, i) })
				w.Policy.MaxMoves, w.Policy.Balance = 2, 2
				if drain {
					w.Policy.Balance, w.Policy.Drain = 0, true
					w.Bridge("a1").Draining = true
				}
				if got := kills(w.Decide()); got != c.want {
					t.Errorf("stops %q, want %q", got, c.want)
				}
			})
		}
	}
}

func TestMovesWithinTheZoneOfTheVolumes(t *testing.T) {
	for zone, want := range map[string]string{"z1": "", "z2": "p"} {
		w := schedtest.New()
		w.Offer("a1").Usual().In("r", "z1")
		w.Offer("a2").Usual().In("r", "z2")
		p := w.Placed("p", "a1")
		p.Movable, p.VolumeZone = true, zone
		w.Bridge("a1").Draining = true
		w.Policy.Drain, w.Policy.MaxMoves = true, 1
		if got := kills(w.Decide()); got != want {
			t.Errorf("volumes in %s: stops %q, want %q", zone, got, want)
		}
	}
}

// Many that can go nowhere do not keep others on an agent that is about to go.
func TestDrainGetsPastThoseThatStay(t *testing.T) {
	w := schedtest.New()
	w.Agents("a1", "a2")
	for i := range 100 {
		p := w.Placed(fmt.Sprintf("big%02d", i), "a1")
		p.Movable, p.CPUs = true, 1_000_000
	}
	w.Placed("small", "a1").Movable = true
	w.Bridge("a1").Draining = true
	w.Policy.Drain, w.Policy.MaxMoves = true, 1
	if got := kills(w.Decide()); got != "small" {
		t.Errorf("stops %q, want small", got)
	}
}

// Two instances that are moved off different agents in one round do not count on
// the same port, GPU, disk or place for a volume.
func TestMovesOfARoundDoNotShareWhatIsForOne(t *testing.T) {
	cases := []struct {
		name string
		set  func(w *schedtest.World, i *schedtest.Instance)
		want string
	}{
		{"nothing of that", func(*schedtest.World, *schedtest.Instance) {}, "p1 p3"},
		{"port", func(_ *schedtest.World, i *schedtest.Instance) { i.Port(31005) }, "p1"},
		{"any port", func(_ *schedtest.World, i *schedtest.Instance) { i.Port(0) }, "p1 p3"},
		{"GPU", func(_ *schedtest.World, i *schedtest.Instance) { i.GPUs = 1000 }, "p1"},
		{"disk", func(_ *schedtest.World, i *schedtest.Instance) { i.Disk = 6_000_000 }, "p1"},
		{"place for a volume", func(w *schedtest.World, i *schedtest.Instance) {
			i.Mounts("v", scheduler.OneTask)
			w.Bridge("a2").Drivers = []scheduler.DriverFact{{Name: "drv", Healthy: true, AttachLimit: 2, Attached: 1}}
		}, "p1"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := schedtest.New()
			w.Offer("a2").Usual().GPUs(1)
			placed := []*schedtest.Placed{w.Placed("p1", "a1"), w.Placed("p3", "a3")}
			for _, p := range placed {
				p.Movable = true
				w.Bridge(p.AgentID).Draining = true
			}
			kind(w, placed, func(i *schedtest.Instance) { c.set(w, i) })
			w.Policy.MaxMoves, w.Policy.Drain = 2, true
			if got := kills(w.Decide()); got != c.want {
				t.Errorf("stops %q, want %q", got, c.want)
			}
		})
	}
}
