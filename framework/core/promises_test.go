package core

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/store"
)

// diary writes down, in their order, what the core commits and what it tells the
// master.
type diary struct {
	began time.Time
	// held, where a test sets it, holds up commits of running tasks until it is closed.
	held chan struct{}

	mu    sync.Mutex // guards lines
	lines []string
}

func (d *diary) note(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf(format, args...))
}

func (d *diary) read() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.lines)
}

// inDiary runs a test on a rig with a diary.
func inDiary(t *testing.T, test func(t *testing.T, r *rig, d *diary)) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		if err := r.halt(); err != nil {
			t.Fatal(err)
		}
		d := &diary{began: time.Now()}
		r.wrap = func(st store.Store) store.Store { return diaryStore{st, d} }
		r.connect = func() Mesos { return diaryConn{r.cluster.connect(), d} }
		r.start()
		test(t, r, d)
	})
}

type diaryStore struct {
	store.Store
	d *diary
}

func (s diaryStore) Commit(writes []store.Write) error {
	for _, w := range writes {
		if w.Kind != kindInstance {
			continue
		}
		text := string(w.Value)
		if s.d.held != nil && strings.Contains(text, taskRunning) {
			<-s.d.held
		}
		for what, mark := range map[string]string{"launch": `"phase":"launching"`, "running": taskRunning, "kill": `"killWhy"`} {
			if strings.Contains(text, mark) {
				s.d.note("commit %s", what)
			}
		}
	}
	return s.Store.Commit(writes)
}

type diaryConn struct {
	*conn
	d *diary
}

func (c diaryConn) Accept(ctx context.Context, a Accept) error {
	c.d.note("accept")
	return c.conn.Accept(ctx, a)
}

func (c diaryConn) Kill(ctx context.Context, task, agent string, grace *time.Duration) error {
	c.d.note("kill")
	return c.conn.Kill(ctx, task, agent, grace)
}

func (c diaryConn) Revive(ctx context.Context, roles []string) error {
	c.d.note("revive %v", roles)
	return c.conn.Revive(ctx, roles)
}

func (c diaryConn) Acknowledge(ctx context.Context, s Status) error {
	c.d.note("acknowledge %s", s.State)
	return c.conn.Acknowledge(ctx, s)
}

func (c diaryConn) AcknowledgeOperation(_ context.Context, s OperationStatus) error {
	c.d.note("acknowledge operation %s %s %s", s.OperationID, s.State, s.UUID)
	return nil
}

func (c diaryConn) Reconcile(ctx context.Context, refs []TaskRef) error {
	c.d.note("reconcile %d after %s", len(refs), time.Since(c.d.began).Round(time.Second))
	return c.conn.Reconcile(ctx, refs)
}

// inOrder fails the test unless the lines are there in this order.
func (d *diary) inOrder(t *testing.T, want ...string) {
	t.Helper()
	rest := d.read()
	for _, w := range want {
		at := slices.Index(rest, w)
		if at < 0 {
			t.Fatalf("no %q in its place among %q", w, d.read())
		}
		rest = rest[at+1:]
	}
}

// TestIntentsAreCommittedBeforeAndAcknowledgementsAfter: what the master hears of
// follows from what is on disk.
func TestIntentsAreCommittedBeforeAndAcknowledgementsAfter(t *testing.T) {
	inDiary(t, func(t *testing.T, r *rig, d *diary) {
		d.held = make(chan struct{})
		r.post(db)
		r.pass(time.Second)
		if lines := d.read(); slices.Contains(lines, "acknowledge "+taskRunning) {
			t.Errorf("acknowledged before it is on disk: %q", lines)
		}
		close(d.held)
		r.running("/db")
		r.idle()
		if _, _, err := r.core.KillTasks(t.Context(), Kill{App: "/db"}); err != nil {
			t.Fatal(err)
		}
		r.until("the kill", func() bool { return slices.Contains(d.read(), "kill") })
		d.inOrder(t, "commit launch", "accept", "commit running", "acknowledge "+taskRunning, "commit kill", "kill")
	})
}

// TestReconciliation asks at the subscription for the tasks that are known, a
// moment later for all, for both again every ten minutes, and after each change of
// the master.
func TestReconciliation(t *testing.T) {
	inDiary(t, func(t *testing.T, r *rig, d *diary) {
		r.post(web)
		r.until("/web runs", func() bool { return r.steady("/web", 2) })
		if err := r.halt(); err != nil {
			t.Fatal(err)
		}
		d.mu.Lock()
		d.lines, d.began = nil, time.Now()
		d.mu.Unlock()
		r.start()
		r.pass(21 * time.Minute)
		d.inOrder(t, "reconcile 2 after 0s", "reconcile 2 after 15s", "reconcile 0 after 15s", "reconcile 2 after 10m15s", "reconcile 0 after 10m15s",
			"reconcile 2 after 20m15s", "reconcile 0 after 20m15s")
		r.cluster.set(func(c *cluster) { c.send(Disconnected{}) })
		r.pass(time.Minute)
		r.cluster.subscribe(r.cluster.conn)
		r.pass(time.Minute)
		d.inOrder(t, "reconcile 2 after 22m0s", "reconcile 2 after 22m15s", "reconcile 0 after 22m15s")
	})
}

// TestOperationStatusesAreAcknowledged where they ask for it, whatever they say.
func TestOperationStatusesAreAcknowledged(t *testing.T) {
	inDiary(t, func(t *testing.T, r *rig, d *diary) {
		r.idle()
		r.cluster.set(func(c *cluster) {
			c.send(OperationStatus{OperationID: "mine", State: "OPERATION_FINISHED", UUID: []byte("u1")})
			c.send(OperationStatus{State: "OPERATION_DROPPED", UUID: []byte("u2")})
			c.send(OperationStatus{OperationID: "reconciled", State: "OPERATION_UNKNOWN"})
		})
		r.pass(time.Second)
		d.inOrder(t, "acknowledge operation mine OPERATION_FINISHED u1", "acknowledge operation  OPERATION_DROPPED u2")
		if lines := d.read(); strings.Contains(fmt.Sprint(lines), "reconciled") {
			t.Errorf("acknowledged without being asked: %q", lines)
		}
	})
}
