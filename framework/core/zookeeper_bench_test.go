package core

import (
	"fmt"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/detect"
	"github.com/mesos-dvdi/dvdi/framework/detect/zktest"
	"github.com/mesos-dvdi/dvdi/framework/store"
	"github.com/mesos-dvdi/dvdi/framework/zookeeper"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// largeState is what is kept in ZooKeeper at most.
const (
	largeApps  = 2_000
	largeTasks = 50_000
)

// largeInstallation is a state of that size in a ZooKeeper, and how it is written:
// through the transactions that the core makes of bursts.
type largeInstallation struct {
	t        testing.TB
	server   *zktest.Server
	ensemble detect.Ensemble
	largest  int // record, in bytes
}

func newLargeInstallation(t testing.TB) *largeInstallation {
	server := zktest.StartWithHeap(t, 512)
	return &largeInstallation{t: t, server: server, ensemble: detect.Ensemble{Servers: []string{server.Addr}, Path: "/bench"}}
}

func (l *largeInstallation) open() (*store.ZooKeeper, func()) {
	l.t.Helper()
	session, err := zookeeper.Connect(l.t.Context(), zookeeper.Config{Ensemble: l.ensemble, SessionTimeout: time.Minute, ConnectTimeout: time.Minute}, zap.NewNop())
	if err != nil {
		l.t.Fatal(err)
	}
	st, err := store.OpenZooKeeper(session, l.ensemble, l.ensemble.Path, store.ZooKeeperOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	return st, session.Close
}

// write writes all apps, all tasks, and one deployment of all apps at once, and
// calls step after each.
func (l *largeInstallation) write(st store.Store, step func(what string, took time.Duration)) {
	l.t.Helper()
	w := benchWriter{l: l, st: st}
	all := &deployment{ID: "all", Changes: map[app.ID]appChange{}}
	timed := func(what string, do func()) {
		begin := time.Now()
		do()
		w.flush()
		step(what, time.Since(begin))
	}
	timed("apps", func() {
		for n := range largeApps {
			a := benchApp(l.t, n)
			all.Changes[a.ID] = appChange{To: a}
			w.put(kindApp, string(a.ID), &appRecord{App: a})
			w.put(kindVersion, versionKey(a.ID, a.Version), a)
		}
	})
	timed("tasks", func() {
		for n := range largeTasks {
			i := benchInstance(n, largeApps)
			w.put(kindInstance, i.ID, i)
			if len(w.tx.dirty) == maxBatch {
				w.flush()
			}
		}
	})
	timed("deployment", func() { w.put(kindDeployment, all.ID, all) })
}

// BenchmarkZooKeeper reports how many tasks are written per second, the largest
// records, how long the deployment of all apps takes, and how long a new leader
// until it has everything.
func BenchmarkZooKeeper(b *testing.B) {
	l := newLargeInstallation(b)
	for b.Loop() {
		st, end := l.open()
		l.write(st, func(what string, took time.Duration) {
			switch what {
			case "tasks":
				b.ReportMetric(largeTasks/took.Seconds(), "tasks/s")
				b.ReportMetric(float64(l.largest), "largest-record-B")
			case "deployment":
				b.ReportMetric(took.Seconds(), "deploy-all-s")
				b.ReportMetric(float64(l.largest), "largest-deployment-B")
			}
		})
		end()
		begin := time.Now()
		st, end = l.open()
		s, err := loadState(st)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(begin).Seconds(), "take-over-s")
		if len(s.apps) != largeApps || len(s.instances) != largeTasks {
			b.Fatalf("%d apps and %d instances", len(s.apps), len(s.instances))
		}
		end()
	}
}

// benchWriter commits as the core does.
type benchWriter struct {
	l  *largeInstallation
	st store.Store
	tx *txn
}

func (w *benchWriter) put(kind, key string, record any) {
	if w.tx == nil {
		w.tx = &txn{dirty: map[recordKey]any{}}
	}
	w.tx.put(kind, key, record)
}

func (w *benchWriter) flush() {
	if w.tx == nil {
		return
	}
	writes, err := w.tx.writes()
	if err != nil {
		w.l.t.Fatal(err)
	}
	for _, record := range writes {
		w.l.largest = max(w.l.largest, len(record.Value))
	}
	if err := w.st.Commit(writes); err != nil {
		w.l.t.Fatal(err)
	}
	w.tx = nil
}

func benchApp(t testing.TB, n int) *app.App {
	a, err := app.Parse(fmt.Appendf(nil, `{"id":"/team-%d/service-%d","cmd":"exec ./serve --port=$PORT0","cpus":0.5,"mem":256,
		"instances":25,"env":{"A":"some value","B":"another value"},"labels":{"HAPROXY_GROUP":"external"},
		"healthChecks":[{"protocol":"HTTP","path":"/health"}],"container":{"type":"MESOS","docker":{"image":"registry.test/team/service:1.2.3"}}}`,
		n/20, n), app.Options{})
	if err != nil {
		t.Fatal(err)
	}
	a.Version = app.NewTimestamp(time.Unix(1_700_000_000+int64(n), 0))
	return a
}

func benchInstance(n, apps int) *instance {
	id := fmt.Sprintf("team-%d_service-%d.instance-%08x-0000-11f0-8000-0242ac110002", n%apps/20, n%apps, n)
	at := time.Unix(1_700_000_000, 0)
	return &instance{
		ID: id, App: app.ID(fmt.Sprintf("/team-%d/service-%d", n%apps/20, n%apps)), Version: app.NewTimestamp(at), Config: app.NewTimestamp(at),
		Phase: active, Since: at, Incarnation: 1,
		Task: &task{
			ID: taskID(id, 1), AgentID: "5c85a9de-4663-434d-b7e9-ad10acb9747f-S" + fmt.Sprint(n%500), Hostname: fmt.Sprintf("agent-%d.test", n%500),
			Role: "db", Ports: []uint32{31000}, IPs: []string{"10.1.2.3"}, State: taskRunning, StagedAt: at, StartedAt: at, Ready: true,
			Volumes: []scheduler.VolumeKey{{Driver: "ref", Name: fmt.Sprintf("volume-%d", n)}},
		},
	}
}
