package simulation_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/framework/detect"
	"github.com/mesos-dvdi/dvdi/framework/mesos"
	"github.com/mesos-dvdi/dvdi/framework/store"
	"github.com/mesos-dvdi/dvdi/internal/bubbletest"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/master"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/simulated"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	role      = "dvdi"
	principal = "dvdi"
	// refusing is a driver whose backend refuses to attach a volume twice.
	refusing = "cloud"
)

// world is a whole framework on a simulated Mesos, both in made-up time.
type world struct {
	t       *testing.T
	rnd     *rand.Rand
	dir     string
	policy  scheduler.Policy
	cluster *simulated.Cluster

	core *core.Core
	st   store.Store
	stop context.CancelFunc
	end  chan error

	// down are the hosts that are off, gone those that an operator has marked so.
	down, cut, gone map[*simulated.Agent]bool
	// wiped are the persistent volumes that a user has asked to be destroyed.
	wiped map[string]bool
	adopt []string
	// callsAtOnce is that of the framework's configuration: with one, seeds take
	// the same course each time.
	callsAtOnce int
	log         *zap.Logger
	// sim are the agents' bridges; nil: their reports come by another way.
	sim *simBridges
}

// newWorld starts a cluster and a framework. It must be called inside of a
// bubble.
func newWorld(t *testing.T, dir string, seed uint64, cfg simulated.Config, policy scheduler.Policy) *world {
	w := &world{
		t: t, dir: dir, policy: policy, rnd: rand.New(rand.NewPCG(seed, 11)), log: zap.NewNop(),
		down: map[*simulated.Agent]bool{}, cut: map[*simulated.Agent]bool{}, gone: map[*simulated.Agent]bool{},
		wiped: map[string]bool{}, callsAtOnce: 1 + int(seed%4/3)*7,
	}
	cfg.Dir = dir + "/master"
	cfg.Refuses = func(driver string) bool { return driver == refusing }
	var err error
	if w.cluster, err = simulated.Start(cfg); err != nil {
		t.Fatal(err)
	}
	if seed%2 == 0 {
		w.sim = newSimBridges(w.cluster)
	}
	w.startFramework()
	return w
}

// stateDir is a directory in memory, where there is such a place: simulations
// flush all the time, and no power is lost that their state would have to outlive.
func stateDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "dvdi-simulation-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func timing() master.Timing {
	return master.Timing{
		Heartbeat: 15 * time.Second, AgentPing: 5 * time.Second, AgentPingTimeouts: 3,
		Allocation: time.Second, AgentReregister: time.Minute,
	}
}

func (w *world) startFramework() {
	w.t.Helper()
	var err error
	if w.st, err = store.OpenBolt(w.dir); err != nil {
		w.t.Fatal(err)
	}
	detector, err := detect.NewList(w.cluster.Addr())
	if err != nil {
		w.t.Fatal(err)
	}
	conn, err := mesos.New(mesos.Config{
		Detector: detector, Name: "simulation", Roles: []string{role}, Principal: principal, Checkpoint: true,
		FailoverTimeout: 7 * 24 * time.Hour, Dial: w.cluster.Dial, MaxBackoff: 5 * time.Second,
	}, w.log)
	if err != nil {
		w.t.Fatal(err)
	}
	w.policy.Principal = principal
	cfg := core.Config{
		DefaultRole: role, Policy: w.policy, BackendExclusive: map[string]bool{refusing: true}, Adopt: w.adopt,
		CallsAtOnce: w.callsAtOnce,
	}
	if w.sim != nil {
		cfg.Bridges = w.sim
	}
	w.core, err = core.New(cfg, conn, w.st, w.log)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.stop, w.end = cancel, make(chan error, 1)
	go func(c *core.Core, end chan error) { end <- c.Run(ctx) }(w.core, w.end)
}

func (w *world) stopFramework() {
	w.t.Helper()
	w.stop()
	if err := <-w.end; err != nil {
		w.t.Errorf("the framework ended with %v", err)
	}
	if err := w.st.Close(); err != nil {
		w.t.Error(err)
	}
}

func (w *world) close() {
	w.stopFramework()
	if err := w.cluster.Stop(); err != nil {
		w.t.Error(err)
	}
}

// pass lets time pass, a second at a time: after each the bridges report and
// the invariants are checked.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(time.Second)
		bubbletest.Wait()
		w.check()
		if time.Now().Unix()%3 == 0 {
			w.bridges()
		}
	}
}

// until lets time pass until something is so.
func (w *world) until(what string, limit time.Duration, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(limit); !ok(); {
		if time.Now().After(end) {
			w.t.Fatalf("%s: never happened: %s\n%s", w.clock(), what, w.picture())
		}
		w.pass(time.Second)
	}
}

func (w *world) clock() string { return time.Now().Format("15:04:05") }

// bridges reports, as the bridges on reachable agents do, which claimed volumes
// are not mounted there.
func (w *world) bridges() {
	if w.sim != nil {
		reachable := map[string]bool{}
		for _, a := range w.cluster.Agents() {
			reachable[a.ID()] = !w.cut[a] && !w.down[a] && !w.gone[a]
		}
		w.sim.look(reachable)
		return
	}
	for _, c := range w.claims() {
		if c.Claim.State != scheduler.Releasing {
			continue
		}
		a := w.agent(c.Claim.AgentID)
		if a == nil || w.cut[a] || w.down[a] || w.gone[a] {
			continue
		}
		v := simulated.Volume{Driver: c.Claim.Key.Driver, Name: c.Claim.Key.Name}
		if len(a.Mounts()[v]) > 0 {
			continue
		}
		if err := w.core.VolumeReleased(w.t.Context(), c.Claim.Key, c.Claim.AgentID, c.Claim.Epoch); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) agent(id string) *simulated.Agent {
	for _, a := range w.cluster.Agents() {
		if a.ID() == id {
			return a
		}
	}
	return nil
}

func (w *world) claims() []core.ClaimView {
	w.t.Helper()
	list, err := w.core.Claims(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

// check holds the invariants of the design.
func (w *world) check() {
	w.t.Helper()
	for _, v := range w.cluster.Violations() {
		w.t.Fatalf("%s: %s\n%s", w.clock(), v, w.picture())
	}
	if w.sim != nil {
		for _, c := range w.sim.complaints() {
			w.t.Fatalf("%s: %s\n%s", w.clock(), c, w.picture())
		}
	}
	claims := map[simulated.Volume]string{}
	for _, c := range w.claims() {
		claims[simulated.Volume{Driver: c.Claim.Key.Driver, Name: c.Claim.Key.Name}] = c.Claim.AgentID
	}
	writers := map[simulated.Volume][]string{}
	for _, a := range w.cluster.Agents() {
		_, destroyed := a.PersistentVolumes()
		for _, id := range destroyed {
			if !w.wiped[id] {
				w.t.Fatalf("%s: volume %s was destroyed on %s and nobody asked for that\n%s", w.clock(), id, a.Hostname(), w.picture())
			}
		}
		live := a.Tasks()
		for v, users := range a.Mounts() {
			if claims[v] != a.ID() && v.Driver != refusing {
				w.t.Fatalf("%s: volume %s is mounted on %s, but claimed on %q\n%s", w.clock(), v.Name, a.ID(), claims[v], w.picture())
			}
			for _, task := range users {
				if slices.Contains(live, task) {
					writers[v] = append(writers[v], task)
				}
			}
		}
	}
	for v, tasks := range writers {
		if len(tasks) > 1 && !strings.HasPrefix(v.Name, "shared") {
			w.t.Fatalf("%s: volume %s is in use by %v\n%s", w.clock(), v.Name, tasks, w.picture())
		}
	}
}

// picture is what there is, for the report of a failure.
func (w *world) picture() string {
	var b strings.Builder
	for _, a := range w.cluster.Agents() {
		volumes, destroyed := a.PersistentVolumes()
		fmt.Fprintf(&b, "agent %s %s cut=%t down=%t gone=%t tasks %v mounts %v volumes %v destroyed %v reserved cpus %g\n",
			a.Hostname(), a.ID(), w.cut[a], w.down[a], w.gone[a], a.Tasks(), a.Mounts(), volumes, destroyed, a.Reserved("cpus"))
	}
	for _, c := range w.claims() {
		fmt.Fprintf(&b, "claim %s\n", c.Text)
	}
	queue, err := w.core.Queue(w.t.Context())
	fmt.Fprintf(&b, "queue %v\n", err)
	for _, q := range queue {
		fmt.Fprintf(&b, "%s waits for %d, delay %s: %+v\n", q.App.ID, q.Count, q.Delay, q.Waiting)
	}
	deployments, err := w.core.Deployments(w.t.Context())
	fmt.Fprintf(&b, "deployments %+v %v\n", deployments, err)
	return b.String()
}

func (w *world) parse(body string) *app.App {
	w.t.Helper()
	a, err := app.Parse([]byte(body), app.Options{Role: role})
	if err != nil {
		w.t.Fatalf("%s: %v", body, err)
	}
	return a
}

func (w *world) upsert(apps ...*app.App) {
	w.t.Helper()
	if _, err := w.core.Change(w.t.Context(), core.Change{Upsert: apps, Force: true}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) view(id app.ID) core.AppView {
	w.t.Helper()
	v, err := w.core.App(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}
