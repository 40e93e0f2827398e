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

// BenchmarkZooKeeper keeps 2,000 apps and 50,000 tasks in ZooKeeper, through the
// transactions that the core makes of bursts. It reports how many records are
// written per second, the largest record, one deployment of all apps at once,
// and how long a new leader takes until it has everything.
func BenchmarkZooKeeper(b *testing.B) {
	const apps, tasks = 2_000, 50_000
	server := zktest.StartWithHeap(b, 512)
	ensemble := detect.Ensemble{Servers: []string{server.Addr}, Path: "/bench"}
	open := func() (*store.ZooKeeper, func()) {
		session, err := zookeeper.Connect(b.Context(), zookeeper.Config{Ensemble: ensemble, ConnectTimeout: time.Minute}, zap.NewNop())
		if err != nil {
			b.Fatal(err)
		}
		st, err := store.OpenZooKeeper(session, ensemble, "/bench", store.ZooKeeperOptions{})
		if err != nil {
			b.Fatal(err)
		}
		return st, session.Close
	}
	for b.Loop() {
		st, end := open()
		w := benchWriter{b: b, st: st}
		all := &deployment{ID: "all", Changes: map[app.ID]appChange{}}
		for n := range apps {
			a := benchApp(b, n)
			all.Changes[a.ID] = appChange{To: a}
			w.put(kindApp, string(a.ID), &appRecord{App: a})
			w.put(kindVersion, versionKey(a.ID, a.Version), a)
		}
		w.flush()
		begin := time.Now()
		for n := range tasks {
			i := benchInstance(n, apps)
			w.put(kindInstance, i.ID, i)
			if len(w.tx.dirty) == maxBatch {
				w.flush()
			}
		}
		w.flush()
		b.ReportMetric(tasks/time.Since(begin).Seconds(), "tasks/s")
		b.ReportMetric(float64(w.largest), "largest-record-B")
		begin = time.Now()
		w.put(kindDeployment, all.ID, all)
		w.flush()
		b.ReportMetric(time.Since(begin).Seconds(), "deploy-all-s")
		b.ReportMetric(float64(w.largest), "largest-deployment-B")
		end()

		begin = time.Now()
		st, end = open()
		s, err := loadState(st)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(begin).Seconds(), "take-over-s")
		if len(s.apps) != apps || len(s.instances) != tasks {
			b.Fatalf("%d apps and %d instances", len(s.apps), len(s.instances))
		}
		end()
	}
}

// benchWriter commits as the core does.
type benchWriter struct {
	b       *testing.B
	st      store.Store
	tx      *txn
	largest int
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
		w.b.Fatal(err)
	}
	for _, record := range writes {
		w.largest = max(w.largest, len(record.Value))
	}
	if err := w.st.Commit(writes); err != nil {
		w.b.Fatal(err)
	}
	w.tx = nil
}

func benchApp(b *testing.B, n int) *app.App {
	a, err := app.Parse(fmt.Appendf(nil, `{"id":"/team-%d/service-%d","cmd":"exec ./serve --port=$PORT0","cpus":0.5,"mem":256,
		"instances":25,"env":{"A":"some value","B":"another value"},"labels":{"HAPROXY_GROUP":"external"},
		"healthChecks":[{"protocol":"HTTP","path":"/health"}],"container":{"type":"MESOS","docker":{"image":"registry.test/team/service:1.2.3"}}}`,
		n/20, n), app.Options{})
	if err != nil {
		b.Fatal(err)
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
