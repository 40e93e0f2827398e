package scheduler_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/schedtest"
)

// cluster is n agents that hold ten instances of one cpu each.
func cluster(n int) *schedtest.World {
	w := schedtest.New()
	for a := range n {
		o := w.Offer(fmt.Sprintf("agent-%06d", a)).CPUs(10).Mem(16384).Disk(65536).Ports(31000, 31999)
		o.In("r", fmt.Sprintf("z%d", a%3)).Attr("rack", fmt.Sprintf("rack%d", a%20))
	}
	return w
}

// populate adds ten instances per agent with one volume each.
func populate(w *schedtest.World, agents int, each func(i int, inst *schedtest.Instance)) {
	for i := range 10 * agents {
		inst := w.Pending(fmt.Sprintf("app-%07d.instance", i)).Of(fmt.Sprintf("/app-%07d", i))
		inst.Port(0).Mounts(fmt.Sprintf("volume-%07d", i), scheduler.OneTask)
		each(i, inst)
	}
}

var workloads = []struct {
	name string
	each func(w *schedtest.World, agents int) func(int, *schedtest.Instance)
}{
	// Volumes that were never used: any agent will do.
	{"fresh", func(*schedtest.World, int) func(int, *schedtest.Instance) {
		return func(int, *schedtest.Instance) {}
	}},
	// Volumes that were used before: each goes back to its agent.
	{"return", func(w *schedtest.World, agents int) func(int, *schedtest.Instance) {
		return func(i int, _ *schedtest.Instance) {
			w.Volume(fmt.Sprintf("volume-%07d", i)).Last(fmt.Sprintf("agent-%06d", i%agents))
		}
	}},
	// The same in random order, so that nothing that belongs together lies together
	// in memory: the cost of a cluster that no cache holds.
	{"random", func(w *schedtest.World, agents int) func(int, *schedtest.Instance) {
		return func(i int, _ *schedtest.Instance) {
			w.Volume(fmt.Sprintf("volume-%07d", i)).Last(fmt.Sprintf("agent-%06d", i%agents))
		}
	}},
	// Ten sizes and three rules about racks, no two instances of an app alike.
	{"mixed", func(w *schedtest.World, agents int) func(int, *schedtest.Instance) {
		return func(i int, inst *schedtest.Instance) {
			inst.Needs(float64(1+i%10)/10, float64(64+i%100))
			switch i % 4 {
			case 0:
				inst.Where("rack", scheduler.Unlike, "rack1.*")
			case 1:
				inst.Where("@zone", scheduler.Like, "z[12]")
			}
		}
	}},
	// Apps of twenty instances, spread over zones, one per host. They leave room:
	// the last of what fills a cluster to the brim would not find a host.
	{"apps", func(w *schedtest.World, agents int) func(int, *schedtest.Instance) {
		return func(i int, inst *schedtest.Instance) {
			inst.Of(fmt.Sprintf("/app-%05d", i/20)).Needs(0.8, 64)
			inst.Where("@zone", scheduler.GroupBy, "3").Where("hostname", scheduler.Unique, "")
		}
	}},
}

// BenchmarkPlace reports the whole round, from snapshot to plan: placements per
// second, time and bytes allocated per placement, the part of the instances
// that was placed, and the cpu time per placement as a multiple of that at 100
// agents. The cpu time includes that of the garbage collector; it depends less
// on what else the machine does than elapsed time would. What else it does still
// takes caches: both sizes are measured in turns, and the least of several
// measurements counts. Each measurement decides the same number of placements
// over the same live memory, so that garbage is collected as often at both sizes,
// and for long enough that it does not matter where in a decision a collection
// falls.
func BenchmarkPlace(b *testing.B) {
	for _, l := range workloads {
		snapshot := func(agents int) scheduler.Snapshot {
			w := cluster(agents)
			populate(w, agents, l.each(w, agents))
			if l.name == "random" {
				return shuffled(w.Build())
			}
			return w.Build()
		}
		for _, agents := range []int{100, 1000, 10000} {
			b.Run(fmt.Sprintf("%s/agents=%d", l.name, agents), func(b *testing.B) {
				few, many := snapshot(100), snapshot(agents)
				var small, large, sum cost
				for b.Loop() {
					for range measurements {
						small.least(measure(b, few, decisions*100))
						c := measure(b, many, decisions*10000/agents)
						large.least(c)
						sum.time += c.time
						sum.placed += c.placed
					}
				}
				b.ReportMetric(float64(sum.placed)/sum.time.Seconds(), "placements/s")
				b.ReportMetric(large.bytes/float64(large.placed), "B/instance")
				b.ReportMetric(float64(large.placed)/(decisions*10*10000), "placed")
				b.ReportMetric(large.each(), "cpu-ns/placement")
				b.ReportMetric(large.each()/small.each(), "x100agents")
			})
		}
	}
}

// decisions is how many decisions about 10,000 agents a measurement takes, or as
// many placements about fewer agents.
const (
	measurements = 5
	decisions    = 2
)

// cost is what so many placements took.
type cost struct {
	placed    int
	time, cpu time.Duration
	bytes     float64
}

// each is the cpu time per placement, in nanoseconds.
func (c *cost) each() float64 { return float64(c.cpu) / float64(c.placed) }

func (c *cost) least(other cost) {
	if c.placed == 0 || other.each() < c.each() {
		*c = other
	}
}

// measure decides so many times.
func measure(b *testing.B, s scheduler.Snapshot, rounds int) (c cost) {
	b.Helper()
	runtime.GC() // what others have left is not on this account
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu, start := cpuTime(b), time.Now()
	for range rounds {
		for _, a := range scheduler.Decide(s).Accepts {
			c.placed += len(a.Operations)
		}
	}
	c.time, c.cpu = time.Since(start), cpuTime(b)-cpu
	runtime.ReadMemStats(&after)
	c.bytes = float64(after.TotalAlloc - before.TotalAlloc)
	if c.placed == 0 {
		b.Fatal("nothing was placed")
	}
	return c
}

// shuffled puts a snapshot into an order in which nothing helps.
func shuffled(s scheduler.Snapshot) scheduler.Snapshot {
	rnd := rand.New(rand.NewPCG(1, 2))
	rnd.Shuffle(len(s.Offers), func(i, j int) { s.Offers[i], s.Offers[j] = s.Offers[j], s.Offers[i] })
	rnd.Shuffle(len(s.Pending), func(i, j int) { s.Pending[i], s.Pending[j] = s.Pending[j], s.Pending[i] })
	rnd.Shuffle(len(s.Volumes), func(i, j int) { s.Volumes[i], s.Volumes[j] = s.Volumes[j], s.Volumes[i] })
	return s
}

// cpuTime is what the process has used so far.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkIdle is a round with nothing to place: nothing waits, everything is
// in back-off, or one app waits for what no agent has.
func BenchmarkIdle(b *testing.B) {
	for _, agents := range []int{100, 1000, 10000} {
		for _, c := range []struct {
			name  string
			build func(w *schedtest.World)
		}{
			{"nothing", func(w *schedtest.World) {}},
			{"backoff", func(w *schedtest.World) {
				for i := range 100 {
					w.Pending(fmt.Sprintf("x%d", i)).NotBefore = w.Now.Add(time.Hour)
				}
			}},
			// One instance to place that cannot be, next to a full cluster.
			{"full", func(w *schedtest.World) {
				for i := range 10 * len(w.Build().Offers) {
					a, v := fmt.Sprintf("agent-%06d", i/10), fmt.Sprintf("v%d", i)
					w.Placed(fmt.Sprintf("p%d", i), a)
					w.Claim(v, a, scheduler.Held, fmt.Sprintf("p%d", i))
					w.Volume(v).Last(a)
				}
				w.Pending("x").Needs(64, 64).Mounts("v", scheduler.OneTask)
			}},
			// The same for as many as the whole cluster holds.
			{"outage", func(w *schedtest.World) {
				for i := range 10 * len(w.Build().Offers) {
					w.Pending(fmt.Sprintf("x%d", i)).Needs(64, 64).Mounts(fmt.Sprintf("v%d", i), scheduler.OneTask)
				}
			}},
			{"unplaceable", func(w *schedtest.World) {
				for i := range 100 {
					w.Pending(fmt.Sprintf("x%d", i)).Needs(64, 64).Mounts(fmt.Sprintf("v%d", i), scheduler.OneTask)
				}
			}},
		} {
			b.Run(fmt.Sprintf("%s/agents=%d", c.name, agents), func(b *testing.B) {
				w := cluster(agents)
				c.build(w)
				snapshot := w.Build()
				for b.Loop() {
					scheduler.Decide(snapshot)
				}
			})
		}
	}
}
