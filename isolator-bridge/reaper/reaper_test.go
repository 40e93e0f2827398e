package reaper

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/agentstate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is engine and watcher of a test.
type fake struct {
	record      *ledger.Record
	unmounted   int
	released    string // holder
	named       map[ledger.Key][]string
	gone        map[string]bool
	checkpoints []agentstate.Checkpoint // as seen under the lock
	inUse       map[ledger.Key]string
	err         error
}

func (f *fake) UnmountIf(_ context.Context, req engine.UnmountRequest, condition func(*ledger.Record) error) (engine.UnmountResult, error) {
	if err := condition(f.record); err != nil {
		return engine.UnmountResult{}, err
	}
	f.unmounted++
	f.released = req.Holder.Name
	return engine.UnmountResult{Unmounted: true}, f.err
}
func (f *fake) Named(agentstate.View) map[ledger.Key][]string        { return f.named }
func (f *fake) Dark(agentstate.View) []agentstate.Checkpoint         { return nil }
func (f *fake) LookAgain() ([]agentstate.Checkpoint, error)          { return f.checkpoints, nil }
func (f *fake) Remembered(string) ([]ledger.Key, bool)               { return nil, false }
func (f *fake) InUse(context.Context) (map[ledger.Key]string, error) { return f.inUse, nil }
func (f *fake) Prove(_ context.Context, _ agentstate.View, ids []string) map[string]agentstate.Proof {
	out := map[string]agentstate.Proof{}
	for _, id := range ids {
		out[id] = agentstate.Proof{Gone: f.gone[id]}
	}
	return out
}

var key = ledger.Key{Driver: "d", Volume: "v"}

func leaked() *fake {
	return &fake{
		record: &ledger.Record{Driver: "d", Volume: "v", Phase: ledger.PhaseMounted, Path: "/x", Holders: []ledger.Holder{{Name: "agent"}}},
		named:  map[ledger.Key][]string{key: {"c1"}}, gone: map[string]bool{"c1": true},
		checkpoints: []agentstate.Checkpoint{{ContainerID: "c1", Volumes: []ledger.Key{key}}},
	}
}

type clock struct{ now time.Duration }

func reaperOf(f *fake, c *clock) *Reaper {
	return New(Config{Engine: f, Watcher: f, AgentHolder: func(n string) bool { return n == "agent" }, Grace: time.Minute,
		SinceBoot: func() (time.Duration, error) { return c.now, nil }})
}

func pass(t *testing.T, r *Reaper, f *fake) Verdict {
	t.Helper()
	list, err := r.Pass(context.Background(), agentstate.View{}, []ledger.Record{*f.record})
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	return list[0]
}

// The grace counts from when the volume was first seen leaked without a break.
func TestGrace(t *testing.T) {
	f, c := leaked(), &clock{now: time.Hour}
	r := reaperOf(f, c)
	if v := pass(t, r, f); v.State != Leaked || v.Due || v.After != time.Minute {
		t.Errorf("%+v", v)
	}
	c.now += 59 * time.Second
	if v := pass(t, r, f); v.Due || v.After != time.Second {
		t.Errorf("%+v", v)
	}
	f.gone["c1"] = false
	if v := pass(t, r, f); v.State != Used {
		t.Errorf("%+v", v)
	}
	f.gone["c1"] = true
	c.now += time.Second
	if v := pass(t, r, f); v.Due {
		t.Errorf("the break was forgotten: %+v", v)
	}
	c.now += time.Minute
	v := pass(t, r, f)
	if !v.Due || f.unmounted != 0 {
		t.Errorf("%+v, %d unmounts", v, f.unmounted)
	}
	if v := r.Reap(context.Background(), v); v.State != Reaped || f.unmounted != 1 {
		t.Errorf("%+v, %d unmounts", v, f.unmounted)
	}
}

// What happened between the proof and the volume's lock is seen under the lock.
func TestReapLooksAgainUnderTheLock(t *testing.T) {
	for name, change := range map[string]func(*fake){
		"a new container wants it": func(f *fake) {
			f.checkpoints = append(f.checkpoints, agentstate.Checkpoint{ContainerID: "c2", Volumes: []ledger.Key{key}})
		},
		"a new container's checkpoint is being written": func(f *fake) {
			f.checkpoints = append(f.checkpoints, agentstate.Checkpoint{ContainerID: "c2", Problem: "the file is missing"})
		},
		"it was unmounted":    func(f *fake) { f.record = nil },
		"an unmount is owed":  func(f *fake) { f.record.Phase = ledger.PhasePending },
		"somebody else's now": func(f *fake) { f.record.Holders[0].Name = "person" },
	} {
		f, c := leaked(), &clock{}
		r := reaperOf(f, c)
		pass(t, r, f)
		c.now += time.Hour
		v := pass(t, r, f)
		change(f)
		if v := r.Reap(context.Background(), v); v.State != Used || f.unmounted != 0 {
			t.Errorf("%s: %+v, %d unmounts", name, v, f.unmounted)
		}
	}
}

// The agent's own word that a task names the volume counts, even if no
// checkpoint of a living container does.
func TestTaskNamesVolume(t *testing.T) {
	f, c := leaked(), &clock{}
	f.inUse = map[ledger.Key]string{key: `task "t"`}
	if v := pass(t, reaperOf(f, c), f); v.State != Used || v.Reason == "" {
		t.Errorf("%+v", v)
	}
}

// A failure is told; the engine has it on its list.
func TestReapTellsFailures(t *testing.T) {
	f, c := leaked(), &clock{}
	f.err = errors.New("busy")
	r := reaperOf(f, c)
	pass(t, r, f)
	c.now += time.Hour
	if v := r.Reap(context.Background(), pass(t, r, f)); v.State != Leaked || v.Reason != "busy" {
		t.Errorf("%+v", v)
	}
}

// With two agents in the ledger nothing is a leak, unless it is known which of
// them the bridge looks at; that one's hold is given up, and no other.
func TestSeveralAgents(t *testing.T) {
	f := leaked()
	f.record.Holders = []ledger.Holder{{Name: "mesos-agent:/b"}, {Name: "mesos-agent:"}, {Name: "mesos-agent:/a"}}
	any := func(name string) bool { return strings.HasPrefix(name, "mesos-agent:") }
	c := &clock{now: time.Hour}
	r := reaperOf(f, c)
	r.cfg.AgentHolder = any
	if v := pass(t, r, f); v.State != Unclaimed || v.Due || !strings.Contains(v.Reason, "mesos-agent:/a, mesos-agent:/b") {
		t.Errorf("%+v", v)
	}
	r.cfg.AgentHolder = func(name string) bool { return name == "mesos-agent:/a" }
	pass(t, r, f)
	c.now += 2 * time.Minute
	v := pass(t, r, f)
	if !v.Due {
		t.Fatalf("%+v", v)
	}
	if r.Reap(context.Background(), v); f.released != "mesos-agent:/a" {
		t.Errorf("released %q", f.released)
	}
	f = leaked()
	f.record.Holders = []ledger.Holder{{Name: "mesos-agent:"}, {Name: "mesos-agent:/a"}}
	r.cfg.AgentHolder = any
	if v := pass(t, r, f); v.State != Leaked {
		t.Errorf("the only agent's: %+v", v)
	}
}

// A volume that another agent holds is told of if it seems to be this agent's, and
// never given up: work directories have to be the same to the letter.
func TestHeldByAnotherAgent(t *testing.T) {
	some := func(name string) bool { return strings.HasPrefix(name, "mesos-agent:") }
	listed := agentstate.View{Listed: map[string]agentstate.Container{"c1": {}}}
	own := ledger.Record{Driver: "d", Volume: "own", Phase: ledger.PhaseMounted, Holders: []ledger.Holder{{Name: "mesos-agent:/link"}}}
	for name, test := range map[string]struct {
		holder string
		view   agentstate.View
		more   []ledger.Record
		told   bool
	}{
		"nothing is held by the agent":     {holder: "mesos-agent:/real", told: true},
		"two agents":                       {holder: "mesos-agent:/real", more: []ledger.Record{own}},
		"a container that the agent lists": {holder: "mesos-agent:/real", view: listed, more: []ledger.Record{own}, told: true},
		"somebody else":                    {holder: "person"},
	} {
		f := leaked()
		f.record.Holders[0].Name = test.holder
		r := reaperOf(f, &clock{})
		r.cfg.AgentHolder, r.cfg.IsAgent = func(n string) bool { return n == "mesos-agent:/link" }, some
		list, err := r.Pass(context.Background(), test.view, append([]ledger.Record{*f.record}, test.more...))
		if err != nil {
			t.Fatal(err)
		}
		told := false
		for _, v := range list {
			if v.Key != key {
				continue
			}
			told = v.State == Foreign && strings.Contains(v.Reason, "mesos-agent:/real")
			if v.Due || v.After > 0 || !told {
				t.Errorf("%s: %+v", name, v)
			}
		}
		if told != test.told {
			t.Errorf("%s: told %v", name, told)
		}
	}
}
