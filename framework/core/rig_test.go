package core

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/store"
	"github.com/mesos-dvdi/dvdi/internal/bubbletest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig runs a core against a cluster, both in the fake time of a synctest
// bubble, with its state in a real file.
type rig struct {
	t       *testing.T
	dir     string
	cluster *cluster
	cfg     Config
	wrap    func(store.Store) store.Store // around the store, nil for none
	connect func() Mesos                  // nil: to the cluster

	core   *Core
	st     store.Store
	stop   context.CancelFunc
	end    chan error
	halted bool
}

// inBubble runs a test in fake time with a cluster of the given hosts.
func inBubble(t *testing.T, hosts []string, test func(t *testing.T, r *rig)) {
	t.Helper()
	dir := t.TempDir()
	bubbletest.Test(t, func(t *testing.T) {
		r := &rig{t: t, dir: dir, cluster: newCluster(hosts...)}
		r.start()
		defer func() {
			if err := r.halt(); err != nil {
				t.Errorf("Run: %v", err)
			}
			for _, v := range r.cluster.noViolations() {
				t.Error(v)
			}
		}()
		test(t, r)
	})
}

func (r *rig) start() {
	r.t.Helper()
	st, err := store.OpenBolt(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	r.st = st
	if r.wrap != nil {
		r.st = r.wrap(st)
	}
	var m Mesos = r.cluster.connect()
	if r.connect != nil {
		m = r.connect()
	}
	r.core, err = New(r.cfg, m, r.st, r.logger())
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	r.end = make(chan error, 1)
	r.halted = false
	go func(c *Core, end chan error) { end <- c.Run(ctx) }(r.core, r.end)
}

func (r *rig) logger() *zap.Logger {
	return zaptest.NewLogger(r.t, zaptest.Level(zap.InfoLevel))
}

// halt stops the core, if it runs, and returns what Run returned.
func (r *rig) halt() error {
	r.t.Helper()
	if r.halted {
		return nil
	}
	r.halted = true
	r.stop()
	err := <-r.end
	if cerr := r.st.Close(); cerr != nil {
		r.t.Error(cerr)
	}
	return err
}

func (r *rig) restart() {
	r.t.Helper()
	if err := r.halt(); err != nil {
		r.t.Fatalf("Run: %v", err)
	}
	r.start()
}

// until waits in fake time for a condition.
func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	for range 3000 {
		bubbletest.Wait()
		if ok() {
			bubbletest.Wait() // for what follows from it: views are shown before that is done
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	r.t.Fatalf("never happened: %s", what)
}

// pass lets fake time pass.
func (r *rig) pass(d time.Duration) {
	time.Sleep(d)
	bubbletest.Wait()
}

func (r *rig) parse(body string) *app.App {
	r.t.Helper()
	a, err := app.Parse([]byte(body), app.Options{})
	if err != nil {
		r.t.Fatal(err)
	}
	return a
}

func (r *rig) post(bodies ...string) DeploymentRef {
	r.t.Helper()
	ref, err := r.change(bodies...)
	if err != nil {
		r.t.Fatal(err)
	}
	return ref
}

func (r *rig) change(bodies ...string) (DeploymentRef, error) {
	r.t.Helper()
	var ch Change
	for _, b := range bodies {
		ch.Upsert = append(ch.Upsert, r.parse(b))
	}
	return r.core.Change(r.t.Context(), ch)
}

func (r *rig) delete(id app.ID) {
	r.t.Helper()
	if _, err := r.core.Change(r.t.Context(), Change{Delete: []app.ID{id}, Force: true}); err != nil {
		r.t.Fatal(err)
	}
}

// update changes an app's current definition.
func (r *rig) update(id app.ID, change func(a *app.App)) DeploymentRef {
	r.t.Helper()
	a := *r.app(id).App
	change(&a)
	ref, err := r.core.Change(r.t.Context(), Change{Upsert: []*app.App{&a}})
	if err != nil {
		r.t.Fatal(err)
	}
	return ref
}

func (r *rig) scale(id app.ID, n int) {
	r.t.Helper()
	r.update(id, func(a *app.App) { a.Instances = n })
}

func (r *rig) app(id app.ID) AppView {
	r.t.Helper()
	r.boardIsTrue()
	v, err := r.core.App(r.t.Context(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}

func (r *rig) exists(id app.ID) bool {
	r.t.Helper()
	_, err := r.core.App(r.t.Context(), id)
	var missing *NotFoundError
	if err != nil && !errors.As(err, &missing) {
		r.t.Fatal(err)
	}
	return err == nil
}

// idle waits until no deployment runs.
func (r *rig) idle() {
	r.t.Helper()
	r.until("all deployments finished", func() bool {
		d, err := r.core.Deployments(r.t.Context())
		if err != nil {
			r.t.Fatal(err)
		}
		return len(d) == 0
	})
}

func (r *rig) claims() []ClaimView {
	r.t.Helper()
	list, err := r.core.Claims(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return list
}

func (r *rig) queue() []QueueView {
	r.t.Helper()
	list, err := r.core.Queue(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return list
}

// running returns the app's only live task once it runs.
func (r *rig) running(id app.ID) TaskView {
	r.t.Helper()
	var v TaskView
	r.until(string(id)+" runs", func() bool {
		tasks := r.app(id).Tasks
		if len(tasks) != 1 || tasks[0].State != taskRunning {
			return false
		}
		v = tasks[0]
		return true
	})
	return v
}

const (
	web = `{"id":"/web","cmd":"serve","cpus":1,"mem":64,"instances":2}`
	db  = `{"id":"/db","cmd":"run","cpus":1,"mem":64,"container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW",
		"external":{"provider":"dvdi","name":"vol","options":{"dvdi/driver":"ref"}}}]}}`
)
