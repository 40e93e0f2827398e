package hatest

import (
	"net/http"
	"path/filepath"
	"slices"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/devcluster"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
)

// TestTasksOutliveMesosFaults does to Mesos what was done to a real one when its
// behaviour was recorded: the master fails over, an agent's process is killed and
// comes back, an agent is cut off and returns. The tasks and their volumes are
// the same afterwards; meanwhile nothing takes the place of the task with a
// volume on the agent that was cut off.
func TestTasksOutliveMesosFaults(t *testing.T) {
	t.Parallel()
	e, c := newMesos(t, embeddedmesos.FastTiming())
	m := prepareMember(t, "framework", e.dir, &e.leads, "--master", c.Mesos.Addr(), "--data-dir", filepath.Join(e.dir, "data"),
		"--min_revive_offers_interval", "200", "--reconciliation_initial_delay", "1000")
	e.members = []*member{m}
	m.run()
	e.leader()
	if err := e.post(t.Context(), m, e.app("/db", 1, "faults-db")); err != nil {
		t.Fatal(err)
	}
	before := e.settled()
	node := c.Node(runsOn(t, e, &devcluster.Framework{Client: m.Client}, 1))

	t.Run("master failover", func(t *testing.T) {
		c.Mesos.KillMaster()
		e.poll("the framework to notice", func() (bool, string) { return !e.connected(), "" })
		if err := c.Mesos.StartMaster(t.Context()); err != nil {
			t.Fatal(err)
		}
		e.same(before, e.settled())
	})
	t.Run("agent failover", func(t *testing.T) {
		if err := node.Agent.KillProcess(); err != nil {
			t.Fatal(err)
		}
		if err := node.Agent.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := node.Agent.AwaitRegistration(t.Context()); err != nil {
			t.Fatal(err)
		}
		e.same(before, e.settled())
	})
	t.Run("partition", func(t *testing.T) {
		node.Agent.Partition()
		e.poll("the task to be unreachable", func() (bool, string) {
			tasks, err := m.Tasks(t.Context(), "/db")
			return err == nil && slices.ContainsFunc(tasks, func(t devcluster.Task) bool { return t.State == "TASK_UNREACHABLE" }), describe(tasks)
		})
		// Another app is served meanwhile, so offers were looked at; /db is not
		// started a second time.
		if err := e.post(t.Context(), m, e.app("/other", 1, "")); err != nil {
			t.Fatal(err)
		}
		e.poll("/other to run", func() (bool, string) {
			tasks, err := m.Tasks(t.Context(), "/other")
			return err == nil && len(tasks) == 1 && tasks[0].State == "TASK_RUNNING", describe(tasks)
		})
		node.Agent.Heal()
		after := e.settled()
		e.same(before, after)
		e.startedOnce()
	})
}

// connected tells whether the framework has a subscription.
func (e *env) connected() bool {
	var info struct {
		Connected bool `json:"connected"`
	}
	err := e.members[0].Do(e.t.Context(), http.MethodGet, "/v2/info?extensions=true", nil, &info)
	return err == nil && info.Connected
}
