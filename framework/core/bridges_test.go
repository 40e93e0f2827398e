package core

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// fakeBridges answers as the test says.
type fakeBridges struct {
	news chan struct{}

	mu       sync.Mutex // guards all below
	reports  map[string]*BridgeReport
	tracked  []BridgeAgent
	refuse   error
	trusted  bool
	released bool
	left     string // what keeps volumes from being removed, empty for nothing
	keep     error  // of Remove
	calls    []string
	held     []Epoch
	over     time.Time
}

func newFakeBridges(agents ...string) *fakeBridges {
	f := &fakeBridges{news: make(chan struct{}, 1), reports: map[string]*BridgeReport{}}
	for _, id := range agents {
		f.reports[id] = &BridgeReport{Agent: scheduler.AgentFact{AgentID: id, Known: true, Drivers: []scheduler.DriverFact{{Name: "ref", Healthy: true}}},
			Epochs: true, Leases: true, Removal: true, Volumes: map[scheduler.VolumeKey]BridgeVolume{}}
	}
	return f
}

func (f *fakeBridges) set(change func()) {
	f.mu.Lock()
	change()
	f.mu.Unlock()
	signal(f.news)
}

func (f *fakeBridges) Track(agents []BridgeAgent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tracked = agents
}
func (f *fakeBridges) News() <-chan struct{} { return f.news }
func (f *fakeBridges) Reports() map[string]*BridgeReport {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string]*BridgeReport{}
	for id, r := range f.reports {
		c := *r // a report is not changed once it is given: tests change theirs
		c.Agent.Drivers, c.Volumes = slices.Clone(r.Agent.Drivers), maps.Clone(r.Volumes)
		out[id] = &c
	}
	return out
}
func (f *fakeBridges) Register(_ context.Context, frameworkID string, e Epoch) (LeaseTerms, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf("register %s %d", e.AgentID, e.Number))
	if frameworkID == "" {
		return LeaseTerms{}, errors.New("no framework id")
	}
	if f.refuse != nil {
		return LeaseTerms{}, f.refuse
	}
	if e.Terms.Lease == 0 {
		return LeaseTerms{}, nil
	}
	return LeaseTerms{Lease: e.Terms.Lease, Grace: time.Second, Trusted: f.trusted}, nil
}
func (f *fakeBridges) Withdraw(_ context.Context, _ string, e Epoch) (bool, string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf("withdraw %s %d", e.AgentID, e.Number))
	return f.released, "it is mounted at /mnt", nil
}
func (f *fakeBridges) Remove(_ context.Context, _ string, e Epoch) (bool, string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf("remove %s %s %d", e.AgentID, e.Key.Name, e.Number))
	if f.keep != nil {
		return false, "", f.keep
	}
	return f.left == "", f.left, nil
}
func (f *fakeBridges) Hold(_ string, leases []Epoch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = leases
}
func (f *fakeBridges) LeaseOver(Epoch) (time.Time, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.over, f.trusted
}

func (f *fakeBridges) did(prefix string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, c := range f.calls {
		if strings.HasPrefix(c, prefix) {
			n++
		}
	}
	return n
}

func (f *fakeBridges) holds() []Epoch {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.held)
}

// withBridges runs a test with a bridge on each agent.
func withBridges(t *testing.T, test func(t *testing.T, r *rig, f *fakeBridges)) {
	t.Helper()
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		if err := r.halt(); err != nil {
			t.Fatal(err)
		}
		f := newFakeBridges(r.cluster.agentIDs()...)
		r.cfg.Bridges = f
		r.start()
		test(t, r, f)
	})
}

// agentIDs are the ids of all agents.
func (c *cluster) agentIDs() (ids []string) {
	c.set(func(c *cluster) {
		for _, a := range c.agents {
			ids = append(ids, a.id)
		}
	})
	slices.Sort(ids)
	return ids
}

// optionsOf are the engine's options of an app's running task.
func (r *rig) optionsOf(id app.ID) map[string]string {
	var out map[string]string
	r.cluster.set(func(c *cluster) {
		for _, task := range c.tasks {
			if task.app.ID == id && task.state == taskRunning {
				out = task.options[0]
			}
		}
	})
	return out
}

// A claim is registered before its launch and ends when the bridge says that
// nothing is left, not before.
func TestClaimEndsByTheBridgesWord(t *testing.T) {
	withBridges(t, func(t *testing.T, r *rig, f *fakeBridges) {
		r.post(db)
		first := r.running("/db")
		if f.did("register "+first.AgentID+" 1") != 1 {
			t.Errorf("registered: %q", f.calls)
		}
		if o := r.optionsOf("/db"); o["dvdi.epoch"] != "1" || o["dvdi.instance"] == "" || o["dvdi.lease"] != "" {
			t.Errorf("options %v", o)
		}
		r.scale("/db", 0)
		r.idle()
		r.until("the bridge was asked", func() bool { return f.did("withdraw "+first.AgentID+" 1") > 1 })
		if text := r.claims()[0].Text; !strings.Contains(text, "mounted at /mnt") {
			t.Errorf("the claim does not say what is left: %s", text)
		}
		f.set(func() { f.released = true })
		r.until("the claim ended", func() bool { return len(r.claims()) == 0 })
		r.scale("/db", 1)
		r.idle()
		if r.running("/db"); f.did("register") != 2 {
			t.Errorf("%q", f.calls)
		}
		if o := r.optionsOf("/db"); o["dvdi.epoch"] != "2" {
			t.Errorf("options of the second launch %v", o)
		}
	})
}

// A running task's volume is never withdrawn.
func TestNothingIsWithdrawnUnderATask(t *testing.T) {
	withBridges(t, func(t *testing.T, r *rig, f *fakeBridges) {
		f.set(func() { f.released = true })
		r.post(db)
		r.running("/db")
		r.pass(time.Minute)
		if f.did("withdraw") != 0 || len(r.claims()) != 1 {
			t.Errorf("%q", f.calls)
		}
	})
}

// What the bridge refuses to register is not launched there, and leaves no
// claim behind.
func TestNoLaunchWithoutRegistration(t *testing.T) {
	withBridges(t, func(t *testing.T, r *rig, f *fakeBridges) {
		f.set(func() { f.refuse = errors.New("a newer epoch is registered") })
		r.post(db)
		r.until("it was tried", func() bool { return f.did("register") > 1 })
		if n := r.cluster.launched(); n != 0 {
			t.Errorf("%d launches", n)
		}
		f.set(func() { f.refuse = nil })
		r.running("/db")
		if c := r.onlyClaim(); c.State != scheduler.Held {
			t.Errorf("%+v", c)
		}
	})
}

// Without an answer of a bridge everything is as it was: no options, and the
// volume stays with its agent.
func TestAgentWithoutABridge(t *testing.T) {
	withBridges(t, func(t *testing.T, r *rig, f *fakeBridges) {
		f.set(func() { clear(f.reports); f.released = true })
		r.post(db)
		r.running("/db")
		if o := r.optionsOf("/db"); len(o) != 0 || f.did("register") != 0 {
			t.Errorf("options %v, calls %q", o, f.calls)
		}
		r.scale("/db", 0)
		r.idle()
		r.pass(time.Minute)
		if f.did("withdraw") != 0 || len(r.claims()) != 1 {
			t.Errorf("%q", f.calls)
		}
	})
}

// The agents' facts reach the scheduler: a driver that is not healthy takes
// nothing, a volume mounted by a stranger is left alone.
func TestFactsReachTheScheduler(t *testing.T) {
	withBridges(t, func(t *testing.T, r *rig, f *fakeBridges) {
		ids := r.cluster.agentIDs()
		f.set(func() { f.reports[ids[0]].Agent.Drivers[0].Healthy = false })
		r.post(db)
		if on := r.running("/db"); on.AgentID != ids[1] {
			t.Errorf("launched where the driver is not healthy")
		}
		r.scale("/db", 0)
		r.idle()
		f.set(func() { f.released = true })
		r.until("released", func() bool { return len(r.claims()) == 0 })
		f.set(func() {
			f.reports[ids[0]].Agent.Drivers[0].Healthy = true
			f.reports[ids[1]].Agent.Drivers[0].Healthy = false
			f.reports[ids[1]].Volumes[volKey] = BridgeVolume{Attached: true}
		})
		r.scale("/db", 1)
		r.pass(time.Minute)
		if n := len(r.cluster.liveTasks("/db")); n != 0 {
			t.Error("launched although somebody else has the volume mounted elsewhere")
		}
		f.set(func() { delete(f.reports[ids[1]].Volumes, volKey) })
		if on := r.running("/db"); on.AgentID != ids[0] {
			t.Errorf("on %s", on.AgentID)
		}
	})
}

// fenced is db with a lease.
var fenced = strings.Replace(db, `"id"`, `"labels":{"DVDI_FENCE":"30s"},"id"`, 1)

// An expiry ends the claim on a lost agent only where it can be trusted, and
// not before its time.
func TestFenceEndsTheClaimOfALostAgent(t *testing.T) {
	for _, trusted := range []bool{true, false} {
		t.Run(fmt.Sprintf("trusted %v", trusted), func(t *testing.T) {
			withBridges(t, func(t *testing.T, r *rig, f *fakeBridges) {
				f.set(func() { f.trusted = trusted })
				r.cluster.set(func(c *cluster) { c.revokes = true }) // the watchdog
				r.post(fenced)
				first := r.running("/db")
				if o := r.optionsOf("/db"); o["dvdi.lease"] != "30s" {
					t.Errorf("options %v", o)
				}
				r.until("the lease is held", func() bool {
					h := f.holds()
					return len(h) == 1 && h[0].Terms == LeaseTerms{Lease: 30 * time.Second, Grace: time.Second, Trusted: trusted}
				})
				r.restart()
				r.until("the lease is held after a restart", func() bool { return len(f.holds()) == 1 && f.holds()[0].Terms.Lease > 0 })
				f.set(func() { f.over = time.Now().Add(5 * time.Minute) })
				r.cluster.partition(first.AgentID)
				r.until("the lease is let go", func() bool { return len(f.holds()) == 0 })
				r.until("the claim is told to be fenced or lost", func() bool {
					c := r.onlyClaim()
					return c.State == scheduler.Lost || c.State == scheduler.Fenced
				})
				r.pass(4 * time.Minute)
				if c := r.onlyClaim(); c.AgentID != first.AgentID {
					t.Fatal("moved before the lease was over")
				}
				r.pass(5 * time.Minute)
				moved := r.onlyClaim().AgentID != first.AgentID
				if moved != trusted {
					t.Errorf("moved: %v", moved)
				}
				r.cluster.heal(first.AgentID)
				r.until("one task to be left", func() bool { return len(r.cluster.liveTasks("/db")) == 1 })
			})
		})
	}
}
