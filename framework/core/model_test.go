package core

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/store"
)

// TestRandomSchedules lets everything happen in random order: requests, lost
// and returning agents, gone ones, failing tasks, restarts, crashes at commits
// and launches of which nobody knows whether they arrived. The cluster watches
// all the time that no volume has two writers and no task starts twice; when
// all faults are over, every app must be as it was asked for.
func TestRandomSchedules(t *testing.T) {
	seeds := 25
	if os.Getenv("DVDI_LONG") != "" {
		seeds = 2000
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inBubble(t, []string{"a", "b", "c"}, func(t *testing.T, r *rig) {
				m := &model{rig: r, rand: rand.New(rand.NewPCG(1, uint64(seed))), wanted: map[app.ID]int{}}
				for range 60 {
					m.step()
				}
				m.recover()
				m.verify()
			})
		})
	}
}

// model makes random steps and remembers what was asked for.
type model struct {
	*rig
	rand   *rand.Rand
	wanted map[app.ID]int // instances; a deleted app has no entry
	agents int            // replaced so far
	crash  *crashStore
}

var modelApps = map[app.ID]string{
	"/web": web,
	"/db":  db,
	"/one": strings.Replace(shared, "ID", "one", 1),
	"/two": strings.Replace(shared, "ID", "two", 1),
}

func (m *model) step() {
	steps := []func(){
		m.stepPost, m.stepPost, m.stepScale, m.stepScale, m.stepUpdate, m.stepKill, m.stepDelete, m.stepFail,
		m.stepPartition, m.stepHeal, m.stepHeal, m.stepGone, m.stepRestart, m.stepCrash, m.stepFlaky, m.stepPass, m.stepPass,
	}
	steps[m.rand.IntN(len(steps))]()
	m.pass(time.Duration(m.rand.IntN(3000)) * time.Millisecond)
	m.revive()
}

// revive starts the core again if a planned crash has ended it.
func (m *model) revive() {
	select {
	case err := <-m.end:
		m.end <- err
		if err := m.halt(); !errors.Is(err, errCrash) {
			m.t.Fatalf("ended with %v", err)
		}
		m.wrap = nil
		m.start()
	default:
	}
}

func (m *model) pick() app.ID {
	ids := []app.ID{"/web", "/db", "/one", "/two"}
	return ids[m.rand.IntN(len(ids))]
}

// ask makes a request, again if the core crashes over it.
func (m *model) ask(id app.ID, ch Change) {
	ch.Force = true
	_, err := m.core.Change(m.t.Context(), ch)
	if errors.Is(err, ErrStopped) {
		m.pass(0)
		m.revive()
		_, err = m.core.Change(m.t.Context(), ch)
	}
	var missing *NotFoundError
	if err != nil && !errors.As(err, &missing) {
		m.t.Fatalf("%s: %v", id, err)
	}
	if len(ch.Delete) > 0 {
		delete(m.wanted, id)
	} else {
		m.wanted[id] = ch.Upsert[0].Instances
	}
}

func (m *model) stepPost() {
	id := m.pick()
	m.ask(id, Change{Upsert: []*app.App{m.parse(modelApps[id])}})
}

func (m *model) change(id app.ID, edit func(a *app.App)) {
	v, err := m.core.App(m.t.Context(), id)
	if err != nil {
		return // not there
	}
	a := *v.App
	edit(&a)
	m.ask(id, Change{Upsert: []*app.App{&a}})
}

func (m *model) stepScale() {
	id := m.pick()
	most := 2
	if id == "/web" {
		most = 5
	}
	m.change(id, func(a *app.App) { a.Instances = m.rand.IntN(most) })
}

func (m *model) stepUpdate() {
	m.change(m.pick(), func(a *app.App) { a.Cmd = fmt.Sprint("run ", m.rand.IntN(1000)) })
}

func (m *model) stepKill() {
	_, _, err := m.core.KillTasks(m.t.Context(), Kill{App: m.pick(), Wipe: m.rand.IntN(2) == 0})
	var missing *NotFoundError
	if err != nil && !errors.Is(err, ErrStopped) && !errors.As(err, &missing) {
		m.t.Fatal(err)
	}
}

func (m *model) stepDelete() {
	id := m.pick()
	m.ask(id, Change{Delete: []app.ID{id}})
}

func (m *model) stepFail() { m.cluster.end(m.pick(), taskFailed) }

func (m *model) agent() string {
	return fmt.Sprintf("S%d", m.rand.IntN(3+m.agents))
}

// is tells the state of an agent.
func (m *model) is(id string) (unreachable, gone bool) {
	m.cluster.set(func(c *cluster) { unreachable, gone = c.agents[id].unreachable, c.agents[id].gone })
	return unreachable, gone
}

func (m *model) stepPartition() {
	id := m.agent()
	if unreachable, gone := m.is(id); !unreachable && !gone {
		m.cluster.partition(id)
	}
}

func (m *model) stepHeal() {
	id := m.agent()
	if unreachable, _ := m.is(id); unreachable {
		m.cluster.heal(id)
	}
}

// stepGone marks an agent gone; a new one takes its place.
func (m *model) stepGone() {
	id := m.agent()
	if _, gone := m.is(id); gone || m.agents > 5 {
		return
	}
	m.cluster.markGone(id)
	m.cluster.set(func(c *cluster) {
		next := fmt.Sprintf("S%d", 3+m.agents)
		c.agents[next] = &agent{id: next, host: "new" + next, cpus: 8, mem: 8192}
	})
	m.agents++
}

func (m *model) stepRestart() {
	if m.crash != nil && m.wrap != nil {
		return
	}
	m.restart()
}

// stepCrash plans a crash at one of the next commits.
func (m *model) stepCrash() {
	if m.wrap != nil {
		return
	}
	if err := m.halt(); err != nil {
		m.t.Fatal(err)
	}
	m.crash = &crashStore{left: m.rand.IntN(6), after: m.rand.IntN(2) == 0}
	m.wrap = func(st store.Store) store.Store { m.crash.Store = st; return m.crash }
	m.start()
}

// stepFlaky has launches fail for a while: refused, or without an answer and
// with or without effect.
func (m *model) stepFlaky() {
	m.cluster.set(func(c *cluster) {
		c.refuse, c.lose = errors.New("connection reset"), m.rand.IntN(2) == 0
		if m.rand.IntN(3) == 0 {
			c.refuse, c.lose = &CallError{Call: "ACCEPT", Status: 503}, false
		}
	})
	m.pass(time.Duration(m.rand.IntN(8)) * time.Second)
	m.cluster.set(func(c *cluster) { c.refuse, c.lose = nil, false })
}

func (m *model) stepPass() { m.pass(time.Duration(m.rand.IntN(60)) * time.Second) }

// recover ends all faults.
func (m *model) recover() {
	for n := range 3 + m.agents {
		id := fmt.Sprintf("S%d", n)
		if unreachable, _ := m.is(id); unreachable {
			m.cluster.heal(id)
		}
	}
	if m.wrap != nil {
		m.crash.mu.Lock()
		m.crash.left = -1
		m.crash.mu.Unlock()
	}
	m.pass(time.Second)
	m.revive()
}

// verify expects everything to be as it was asked for.
func (m *model) verify() {
	for id := range modelApps {
		n, wanted := m.wanted[id]
		if wanted {
			m.until(fmt.Sprintf("%s has %d instances", id, n), func() bool { return m.steady(id, n) })
			continue
		}
		m.until(fmt.Sprintf("%s is gone", id), func() bool { return !m.exists(id) && len(m.cluster.liveTasks(id)) == 0 })
	}
}
