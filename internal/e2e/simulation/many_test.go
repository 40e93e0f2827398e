package simulation_test

import (
	"context"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/framework/detect"
	"github.com/mesos-dvdi/dvdi/framework/mesos"
	"github.com/mesos-dvdi/dvdi/framework/store"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/master"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/simulated"
	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

const (
	manyAgents    = 50
	manyInstances = 500
)

func stateful(i int) string {
	return fmt.Sprintf(`{"id":"/db%d","cmd":"run","cpus":0.1,"mem":32,"portDefinitions":[],"container":{"type":"MESOS","volumes":[%s]}}`,
		i, external("disk", fmt.Sprintf("vol%d", i), false))
}

// TestFiveHundredVolumes starts 500 instances with a volume each on 50 agents
// at once: all run, spread evenly, and each volume is mounted once.
func TestFiveHundredVolumes(t *testing.T) {
	withAgents(t, manyAgents, scheduler.Policy{}, func(t *testing.T, w *world) {
		var apps []*app.App
		for i := range manyInstances {
			apps = append(apps, w.parse(stateful(i)))
		}
		w.upsert(apps...)
		running := func() (n int) {
			for _, a := range w.cluster.Agents() {
				n += len(a.Tasks())
			}
			return n
		}
		w.until("all run", 5*time.Minute, func() bool { return running() == manyInstances })
		mounted := map[simulated.Volume]bool{}
		for _, a := range w.cluster.Agents() {
			if n := len(a.Tasks()); n != manyInstances/manyAgents {
				t.Errorf("%d instances on %s, want %d on each", n, a.Hostname(), manyInstances/manyAgents)
			}
			for v := range a.Mounts() {
				mounted[v] = true
			}
		}
		if len(mounted) != manyInstances {
			t.Errorf("%d volumes are mounted, want %d", len(mounted), manyInstances)
		}
		if n := len(w.claims()); n != manyInstances {
			t.Errorf("%d claims", n)
		}
	})
}

// counter tells when so many tasks run.
type counter struct {
	mu   sync.Mutex // guards left
	left int
	done chan struct{}
}

func newCounter(n int) *counter { return &counter{left: n, done: make(chan struct{})} }

func (c *counter) count() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left--; c.left == 0 {
		close(c.done)
	}
}

// counting is a connection that counts the acknowledgements of TASK_RUNNING:
// each is the end of a launch for the framework.
type counting struct {
	core.Mesos
	running *counter
}

func (c counting) Acknowledge(ctx context.Context, s core.Status) error {
	err := c.Mesos.Acknowledge(ctx, s)
	if s.State == "TASK_RUNNING" {
		c.running.count()
	}
	return err
}

// BenchmarkFiveHundred measures, in real time and on the same kind of cluster,
// how long it takes from the offers until 500 stateful instances run on 50
// agents and all of that is acknowledged: by the framework, deciding and storing,
// and by a bare loop of ACCEPT and ACKNOWLEDGE calls that knows beforehand what
// goes where. ms-request is the time from the request, with 500 definitions
// checked and stored and the master's next round of offers, for which there is
// nothing in the bare loop. The least of several turns counts.
func BenchmarkFiveHundred(b *testing.B) {
	const never = time.Duration(math.MaxInt64)
	request, framework, bare := never, never, never
	for b.Loop() {
		for range 5 {
			all, launches := frameworkLaunches(b)
			request, framework = min(request, all), min(framework, launches)
			bare = min(bare, bareLaunches(b))
		}
	}
	b.ReportMetric(request.Seconds()*1000, "ms-request")
	b.ReportMetric(framework.Seconds()*1000, "ms-framework")
	b.ReportMetric(bare.Seconds()*1000, "ms-bare")
	b.ReportMetric(float64(framework)/float64(bare), "xbare")
}

func benchCluster(b *testing.B) (*simulated.Cluster, *mesos.Conn) {
	b.Helper()
	cfg := simulated.Config{Dir: b.TempDir(), Timing: master.Timing{Allocation: 50 * time.Millisecond}}
	for i := range manyAgents {
		cfg.Agents = append(cfg.Agents, agentConfig(i))
	}
	cluster, err := simulated.Start(cfg)
	if err != nil {
		b.Fatal(err)
	}
	for _, a := range cluster.Agents() {
		for a.ID() == "" {
			time.Sleep(time.Millisecond)
		}
	}
	detector, err := detect.NewList(cluster.Addr())
	if err != nil {
		b.Fatal(err)
	}
	conn, err := mesos.New(mesos.Config{
		Detector: detector, Name: "bench", Roles: []string{role}, FailoverTimeout: time.Hour, Dial: cluster.Dial,
	}, zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	return cluster, conn
}

func benchApps(b *testing.B) []*app.App {
	var apps []*app.App
	for i := range manyInstances {
		a, err := app.Parse([]byte(stateful(i)), app.Options{Role: role})
		if err != nil {
			b.Fatal(err)
		}
		apps = append(apps, a)
	}
	return apps
}

// frameworkLaunches returns how long it takes from the request, and from the
// moment when the offers are at hand.
func frameworkLaunches(b *testing.B) (all, launches time.Duration) {
	cluster, conn := benchCluster(b)
	st, err := store.OpenBolt(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	running := newCounter(manyInstances)
	offered := make(chan time.Time, 1)
	c, err := core.New(core.Config{
		DefaultRole: role, ReviveInterval: time.Millisecond,
		Decisions: func(r scheduler.Record) {
			if len(r.Plan.Accepts) > 0 {
				select {
				case offered <- r.Snapshot.Now: // the first round with launches
				default:
				}
			}
		},
	}, counting{conn, running}, st, zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	end := make(chan error, 1)
	go func() { end <- c.Run(ctx) }()
	for !c.Info().Connected {
		time.Sleep(time.Millisecond)
	}
	apps := benchApps(b)
	start := time.Now()
	if _, err := c.Change(ctx, core.Change{Upsert: apps}); err != nil {
		b.Fatal(err)
	}
	<-running.done
	all, launches = time.Since(start), time.Since(<-offered)
	cancel()
	if err := <-end; err != nil {
		b.Error(err)
	}
	finish(b, cluster, st)
	return all, launches
}

func finish(b *testing.B, cluster *simulated.Cluster, st store.Store) {
	b.Helper()
	if st != nil {
		if err := st.Close(); err != nil {
			b.Error(err)
		}
	}
	if err := cluster.Stop(); err != nil {
		b.Error(err)
	}
	if v := cluster.Violations(); len(v) > 0 {
		b.Error(v)
	}
}

func bareLaunches(b *testing.B) time.Duration {
	cluster, conn := benchCluster(b)
	ctx, cancel := context.WithCancel(b.Context())
	end := make(chan error, 1)
	go func() { end <- conn.Run(ctx, "") }()
	apps := benchApps(b)
	var start time.Time
	running, perAgent := 0, manyInstances/manyAgents
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	for running < manyInstances {
		switch ev := (<-conn.Events()).(type) {
		case core.Offers:
			if start.IsZero() {
				start = time.Now()
			}
			for _, o := range ev.Offers {
				accept := core.Accept{OfferIDs: []string{o.ID}, AgentID: o.AgentID}
				for range min(perAgent, len(apps)) {
					accept.Operations = append(accept.Operations, bareLaunch(o, apps[0]))
					apps = apps[1:]
				}
				if len(accept.Operations) > 0 {
					accept.Refuse = time.Hour
					must(conn.Accept(ctx, accept))
				}
			}
		case core.Status:
			must(conn.Acknowledge(ctx, ev))
			if ev.State == "TASK_RUNNING" {
				running++
			}
		}
	}
	took := time.Since(start)
	cancel()
	for range conn.Events() { // until Run has ended
	}
	<-end
	finish(b, cluster, nil)
	return took
}

func bareLaunch(o scheduler.Offer, a *app.App) core.Operation {
	scalar := func(name string, m float64) resource.Resource {
		return resource.Resource{Name: name, Kind: resource.Scalar, Scalar: resource.FromFloat(m), AllocatedRole: role}
	}
	id := a.ID.SafePath()
	return core.Operation{Kind: scheduler.OpLaunch, Task: &core.Task{
		ID: id + ".instance-1._app.1", InstanceID: id + ".instance-1", AgentID: o.AgentID, Hostname: o.Hostname, App: a,
		Resources: []resource.Resource{scalar("cpus", a.CPUs), scalar("mem", a.Mem)},
	}}
}
