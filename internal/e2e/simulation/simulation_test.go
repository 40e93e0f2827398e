// Package simulation_test plays random troubles on whole clusters: the real
// framework, connection included, on the real master of the embedded Mesos with
// simulated agents, in made-up time.
package simulation_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/internal/bubbletest"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/simulated"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// TestRandomClusters has agents partitioned, hosts lost, replaced, and back under
// a new id of their agent, slow detaches, rolling updates, scaling, failing tasks, and restarts of framework
// and master. The invariants hold after every second; when the trouble ends
// everything that can run does. A seed that fails is played again by the command
// that the failure prints. Nearly all take the same course each time; where
// messages arrive in the same instant, goroutines may take them in another order,
// above all in every fourth, where calls to the master are made at the same time.
// In even seeds the framework asks the agents' bridges, in the others it is told
// what is unmounted.
func TestRandomClusters(t *testing.T) {
	seeds := 6
	if os.Getenv("DVDI_LONG") != "" {
		seeds = 1000
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("to play it again: DVDI_LONG=1 go test ./internal/e2e/simulation -count=1 -run '^TestRandomClusters$/^seed=%d$'", seed)
				}
			})
			dir := stateDir(t)
			bubbletest.Test(t, func(t *testing.T) { playSeed(t, dir, uint64(seed)) })
		})
	}
}

func playSeed(t *testing.T, dir string, seed uint64) {
	s := newScenario(t, dir, seed)
	defer s.close()
	for range 60 {
		s.trouble()
		s.pass(time.Duration(s.rnd.IntN(20)) * time.Second)
	}
	s.peace()
	var since time.Time // for how long everything has been running
	s.until("everything runs, and goes on to", time.Hour, func() bool {
		if !s.allRun() {
			since = time.Time{} // also while something is moved, which must end
		} else if since.IsZero() {
			since = time.Now()
		}
		return !since.IsZero() && time.Since(since) > 5*time.Minute
	})
}

// scenario is a world with apps and what has been asked of them.
type scenario struct {
	*world
	wanted map[app.ID]int
	edits  int
	// former are the ids of agents that have registered anew, of which nobody has
	// been told that they are over; unknown are those that the master forgot.
	former, unknown []formerID
}

// withoutTask is how an instance shows that has a reservation and no task.
const withoutTask = "TASK_FINISHED"

// formerID is an id that the agent of a host had.
type formerID struct {
	id   string
	host *simulated.Agent
}

func newScenario(t *testing.T, dir string, seed uint64) *scenario {
	s := &scenario{wanted: map[app.ID]int{}}
	var cfg simulated.Config
	cfg.Timing = timing()
	// These functions are called by many goroutines: what they return must not
	// depend on the order, nor on ids, which differ from run to run.
	chance := func(id string) uint32 {
		name, _, _ := strings.Cut(id, ".")
		return sum(fmt.Sprint(name, id[strings.LastIndex(id, "."):], seed, time.Now().Unix()))
	}
	cfg.StartDelay = func(id string) time.Duration { return time.Duration(chance(id)%3) * time.Second }
	cfg.UnmountDelay = func(id string) time.Duration { return time.Duration(chance(id)%40) * time.Second }
	n := 3 + int(seed%6)
	for i := range n {
		cfg.Agents = append(cfg.Agents, agentConfig(i))
	}
	policy := scheduler.Policy{
		Wait: scheduler.Wait{Attached: time.Duration(seed%4) * 5 * time.Second, LastAttached: time.Duration(seed%3) * 10 * time.Second},
		Pack: seed%5 == 0, MaxInstancesPerOffer: int(seed % 4),
		RefuseUnfit: time.Duration(seed%2) * 30 * time.Second,
	}
	if seed%3 == 0 {
		policy.MaxMoves, policy.Drain, policy.Balance = 1+int(seed%2), true, 3
	}
	s.world = newWorld(t, dir, seed, cfg, policy)
	s.deploy(fmt.Sprintf(`{"id":"/web","cmd":"run","cpus":0.2,"mem":32,"instances":%d,"constraints":[["@zone","GROUP_BY","3"]],"portDefinitions":[{"port":0}]}`, n))
	s.deploy(`{"id":"/per","cmd":"run","cpus":0.1,"mem":32,"instances":2,"constraints":[["hostname","UNIQUE"]]}`)
	for i := range n {
		driver := "disk"
		if i%3 == 2 {
			driver = refusing
		}
		s.deploy(fmt.Sprintf(`{"id":"/db%d","cmd":"run","cpus":0.3,"mem":64,"upgradeStrategy":{"minimumHealthCapacity":0,"maximumOverCapacity":0},
			"container":{"type":"MESOS","volumes":[%s]}}`, i, external(driver, fmt.Sprintf("vol%d", i), false)))
	}
	s.deploy(`{"id":"/kept","cmd":"run","cpus":0.2,"mem":32,"instances":2,"upgradeStrategy":{"minimumHealthCapacity":0.5,"maximumOverCapacity":0},
		"container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW","persistent":{"size":100}},
		{"containerPath":"fast","mode":"RW","persistent":{"type":"mount","size":1000,"maxSize":5000,"constraints":[["path","LIKE","/mnt/.*"]]}}]}}`)
	s.deploy(fmt.Sprintf(together, 2))
	for _, id := range []string{"one", "two"} {
		s.deploy(fmt.Sprintf(`{"id":"/%s","cmd":"run","cpus":0.1,"mem":32,"instances":1,"container":{"type":"MESOS","volumes":[%s]}}`,
			id, external("disk", "shared", true)))
	}
	return s
}

func sum(s string) (n uint32) {
	for _, b := range []byte(s) {
		n = n*31 + uint32(b)
	}
	return n
}

func agentConfig(i int) simulated.AgentConfig {
	return simulated.AgentConfig{
		Hostname: fmt.Sprintf("host%d.test", i), Region: "r", Zone: fmt.Sprintf("z%d", i%3),
		CPUs: 6, MemMiB: 8192, MountDisks: []float64{2048, 4096},
	}
}

func external(driver, name string, shared bool) string {
	return fmt.Sprintf(`{"containerPath":"data","mode":"RW","external":{"provider":"dvdi","name":%q,"shared":%t,"options":{"dvdi/driver":%q}}}`, name, shared, driver)
}

func (s *scenario) deploy(body string) {
	a := s.parse(body)
	s.wanted[a.ID] = a.Instances
	s.upsert(a)
}

// change edits the current definition of an app.
func (s *scenario) change(id app.ID, edit func(a *app.App)) {
	a := *s.view(id).App
	edit(&a)
	s.wanted[id] = a.Instances
	s.upsert(&a)
}

func (s *scenario) anyApp() app.ID {
	var ids []app.ID
	for i := range len(s.wanted) - 6 {
		ids = append(ids, app.ID(fmt.Sprintf("/db%d", i)))
	}
	ids = append(ids, "/web", "/per", "/one", "/two", "/kept", "/kept", "/together", "/together")
	return ids[s.rnd.IntN(len(ids))]
}

func (s *scenario) anyAgent() *simulated.Agent {
	all := s.cluster.Agents()
	return all[s.rnd.IntN(len(all))]
}

// trouble makes at most one thing happen.
func (s *scenario) trouble() {
	a := s.anyAgent()
	usable := !s.gone[a] && a.ID() != ""
	switch s.rnd.IntN(20) {
	case 0, 1:
		if usable && !s.down[a] && !s.cut[a] {
			a.Partition()
			s.cut[a] = true
		}
	case 2, 3, 4:
		s.repair(a)
	case 5:
		if usable && !s.down[a] {
			a.LoseHost()
			s.down[a] = true
		}
	case 6:
		if usable && s.down[a] {
			s.replace(a)
		}
	case 7, 8:
		s.edits++
		s.change(s.anyApp(), func(d *app.App) { d.Cmd = fmt.Sprintf("run %d", s.edits) })
	case 9, 10:
		s.scale(s.anyApp())
	case 11, 12:
		if tasks := a.Tasks(); len(tasks) > 0 {
			a.End(tasks[s.rnd.IntN(len(tasks))], false)
		}
	case 13:
		s.stopFramework()
		s.startFramework()
	case 14:
		if s.rnd.IntN(3) == 0 {
			s.failMaster()
		}
	case 15:
		s.killTasks(s.anyApp())
	case 16:
		s.maintain(a)
	case 17, 18:
		if usable && s.down[a] {
			s.startAnew(a)
		}
	case 19:
		if len(s.former) > 0 {
			s.settle(s.rnd.IntN(len(s.former)))
		}
	}
}

// maintain announces that a host is taken down in a moment, for some minutes;
// another announcement takes its place.
func (s *scenario) maintain(a *simulated.Agent) {
	window := map[string]any{
		"machine_ids":    []any{map[string]any{"hostname": a.Hostname(), "ip": a.IP()}},
		"unavailability": map[string]any{"start": map[string]any{"nanoseconds": time.Now().Add(10 * time.Second).UnixNano()}, "duration": map[string]any{"nanoseconds": (5 * time.Minute).Nanoseconds()}},
	}
	s.schedule(window)
}

func (s *scenario) schedule(windows ...any) {
	err := s.cluster.Operate(s.t.Context(), map[string]any{"type": "UPDATE_MAINTENANCE_SCHEDULE",
		"update_maintenance_schedule": map[string]any{"schedule": map[string]any{"windows": windows}}})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *scenario) repair(a *simulated.Agent) {
	switch {
	case s.gone[a]:
	case s.cut[a]:
		a.Heal()
		delete(s.cut, a)
	case s.down[a]:
		a.StartHost()
		delete(s.down, a)
	}
}

// replace marks a host gone that is off, as an operator does who has made sure
// of that, and puts a new one in its place.
func (s *scenario) replace(a *simulated.Agent) {
	a.Heal()
	if err := s.cluster.MarkAgentGone(s.t.Context(), a.ID()); err != nil {
		s.t.Fatal(err)
	}
	s.gone[a] = true
	next := a.Config() // in the same zone: spreading over three must stay possible
	next.Hostname = fmt.Sprintf("host%d.test", len(s.cluster.Agents()))
	s.cluster.AddAgent(next)
}

// startAnew has a host that is off come back with a new id of its agent. The old
// one is marked gone before that, or some time after.
func (s *scenario) startAnew(a *simulated.Agent) {
	s.former = append(s.former, formerID{a.ID(), a})
	if s.rnd.IntN(2) == 0 {
		s.settle(len(s.former) - 1)
	}
	a.Heal()
	delete(s.cut, a)
	a.StartHostAnew()
	delete(s.down, a)
}

// settle has an operator, who knows that nothing runs under an agent's former id
// any more, say so: to the master or, where that has forgotten the id because the
// host registered anew too soon, to the framework, once that has lost its tasks.
func (s *scenario) settle(n int) {
	f := s.former[n]
	err := s.cluster.MarkAgentGone(s.t.Context(), f.id)
	switch {
	case err == nil:
	case !strings.Contains(err.Error(), "404"):
		s.t.Fatal(err)
	case !s.release(f.id):
		return // not yet
	default:
		s.unknown = append(s.unknown, f)
	}
	s.former = slices.Delete(s.former, n, n+1)
}

// giveUp has a user give up what is waited for under an id that the master has
// forgotten, on a host that is gone for good.
func (s *scenario) giveUp() {
	for _, f := range s.unknown {
		if s.gone[f.host] {
			s.killOn(f.id, func(task core.TaskView) bool { return task.State == withoutTask }, true)
		}
	}
}

// release ends what the framework thinks that there is on an agent, and reports
// whether all of that may be ended yet.
func (s *scenario) release(agentID string) bool {
	for _, c := range s.claims() {
		if c.Claim.AgentID != agentID {
			continue
		}
		err := s.core.ReleaseClaim(s.t.Context(), c.Claim.Key, true)
		var conflict *core.ConflictError
		if errors.As(err, &conflict) {
			return false
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
	s.killOn(agentID, func(task core.TaskView) bool { return task.State != withoutTask }, false)
	return true
}

// killOn kills the tasks that the framework has under an agent's id, or gives their
// volumes up.
func (s *scenario) killOn(agentID string, which func(core.TaskView) bool, wipe bool) {
	for _, id := range slices.Sorted(maps.Keys(s.wanted)) {
		for _, task := range s.view(id).Tasks {
			if task.AgentID != agentID || !which(task) {
				continue
			}
			if _, _, err := s.core.KillTasks(s.t.Context(), core.Kill{App: id, TaskIDs: []string{task.ID}, Wipe: wipe}); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

func (s *scenario) scale(id app.ID) {
	most := 1
	if id == "/web" {
		most = 8
	} else if id == "/per" || id == "/kept" || id == "/together" {
		most = 3
	}
	s.change(id, func(d *app.App) { d.Instances = s.rnd.IntN(most + 1) })
}

func (s *scenario) failMaster() {
	if err := s.cluster.KillMaster(); err != nil {
		s.t.Fatal(err)
	}
	s.pass(time.Duration(s.rnd.IntN(20)) * time.Second)
	if err := s.cluster.StartMaster(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *scenario) killTasks(id app.ID) {
	wipe := s.rnd.IntN(2) == 0
	if wipe {
		for _, task := range s.view(id).Tasks {
			for _, v := range task.Local {
				s.wiped[v.PersistenceID] = true
			}
		}
	}
	if _, _, err := s.core.KillTasks(s.t.Context(), core.Kill{App: id, Wipe: wipe}); err != nil {
		s.t.Fatal(err)
	}
}

// peace ends all trouble and asks for at least one instance of everything.
func (s *scenario) peace() {
	for _, a := range s.cluster.Agents() {
		if s.down[a] && !s.gone[a] {
			a.Heal()
			a.StartHost()
			delete(s.down, a)
			delete(s.cut, a)
		}
		s.repair(a)
	}
	s.until("an operator has dealt with all former ids", 10*time.Minute, func() bool {
		if len(s.former) > 0 {
			s.settle(0)
		}
		return len(s.former) == 0
	})
	s.giveUp()
	s.schedule()
	for id := range s.wanted {
		if s.wanted[id] == 0 {
			s.change(id, func(d *app.App) { d.Instances = 1 })
		}
	}
}

func (s *scenario) allRun() bool {
	deployments, err := s.core.Deployments(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	if len(deployments) > 0 {
		return false
	}
	for id, n := range s.wanted {
		if v := s.view(id); v.Running != n || id != "/kept" && id != "/together" && len(v.Tasks) != n {
			return false
		}
	}
	s.checkShared()
	return true
}

// checkShared: those that share a volume run with one, on one agent.
func (s *scenario) checkShared() {
	homes := map[string]bool{}
	for _, task := range s.view("/together").Tasks {
		if task.State == "TASK_RUNNING" {
			homes[task.AgentID+" "+task.Local[0].PersistenceID] = true
		}
	}
	if len(homes) > 1 {
		s.t.Fatalf("/together runs with %v", homes)
	}
}
