package store

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/detect"
	"github.com/mesos-dvdi/dvdi/framework/detect/zktest"
	"github.com/mesos-dvdi/dvdi/framework/zookeeper"
)

// place is where a store keeps its records; opening it again finds them.
type place interface {
	open(t *testing.T, f format) (Store, error)
}

type boltPlace struct{ dir string }

func (p boltPlace) open(_ *testing.T, f format) (Store, error) { return openBolt(p.dir, f) }

// zkPlace opens each store in a session of its own, as a new process would.
type zkPlace struct {
	server *zktest.Server
	root   string
	opts   ZooKeeperOptions
}

func (p zkPlace) open(t *testing.T, f format) (Store, error) {
	return openZooKeeper(p.session(t), p.ensemble(), p.root, p.opts, f)
}

func (p zkPlace) ensemble() detect.Ensemble {
	return detect.Ensemble{Servers: []string{p.server.Addr}, Path: p.root}
}

func (p zkPlace) session(t testing.TB) *zookeeper.Session {
	t.Helper()
	s, err := zookeeper.Connect(t.Context(), zookeeper.Config{
		Ensemble: p.ensemble(), SessionTimeout: time.Minute, ConnectTimeout: time.Minute,
	}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// everywhere runs a test on each kind of store; ZooKeeper with bounds so small
// that records are cut, commits go through the journal and the fence's node is
// made anew, too.
func everywhere(t *testing.T, test func(t *testing.T, p place)) {
	t.Run("bolt", func(t *testing.T) { test(t, boltPlace{t.TempDir()}) })
	server := zktest.StartWithSessions(t, time.Minute)
	n := 0
	zk := func(opts ZooKeeperOptions) func(t *testing.T) {
		return func(t *testing.T) {
			n++
			test(t, zkPlace{server, fmt.Sprintf("/dvdi/state%d", n), opts})
		}
	}
	t.Run("zookeeper", zk(ZooKeeperOptions{}))
	t.Run("zookeeper with small nodes", zk(ZooKeeperOptions{MaxNode: 64, MaxBatch: 600, renewFence: 5}))
}

// TestConformance is what every store has to do. It reopens after each step.
func TestConformance(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		noise := make([]byte, 20_000)
		for i := range noise {
			noise[i] = byte(rand.N(256))
		}
		strange := "/a b;1%2F\u00e4/../@" + strings.Repeat("x", 100)
		steps := []struct {
			writes []Write
			want   map[string]string
		}{
			{nil, map[string]string{}},
			{[]Write{{"app", "/a", []byte("1")}, {"task", "t", []byte("x")}}, map[string]string{"app /a": "1", "task t": "x"}},
			{[]Write{{"app", "/a", []byte("2")}}, map[string]string{"app /a": "2", "task t": "x"}},
			{[]Write{{"app", "/a", nil}, {"app", "/b", []byte("3")}}, map[string]string{"app /b": "3", "task t": "x"}},
			{[]Write{{"task", "unknown", nil}}, map[string]string{"app /b": "3", "task t": "x"}},
			{[]Write{{"app", strange, []byte("s")}, {"task", "empty", []byte{}}},
				map[string]string{"app /b": "3", "task t": "x", "app " + strange: "s", "task empty": ""}},
			{[]Write{{"app", strange, nil}, {"task", "empty", nil}, {"app", "/b", noise}}, map[string]string{"app /b": string(noise), "task t": "x"}},
			{[]Write{{"app", "/b", noise[:9000]}, {"task", "t", noise}}, map[string]string{"app /b": string(noise[:9000]), "task t": string(noise)}},
			{[]Write{{"app", "/b", []byte("small")}, {"task", "t", nil}}, map[string]string{"app /b": "small"}},
			{[]Write{{"app", "/b", bytes.Repeat([]byte("z"), 100_000)}}, map[string]string{"app /b": strings.Repeat("z", 100_000)}},
			{[]Write{{"app", "/b", nil}}, map[string]string{}},
		}
		s, err := p.open(t, current)
		if err != nil {
			t.Fatal(err)
		}
		for n, step := range steps {
			if err := s.Commit(step.writes); err != nil {
				t.Fatalf("step %d: %v", n, err)
			}
			if got := records(t, s); !maps.Equal(got, step.want) {
				t.Fatalf("step %d: %d records, want %d", n, len(got), len(step.want))
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if s, err = p.open(t, current); err != nil {
				t.Fatal(err)
			}
			if got := records(t, s); !maps.Equal(got, step.want) {
				t.Fatalf("step %d, reopened: %d records, want %d", n, len(got), len(step.want))
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := s.Commit([]Write{{"app", "/a", nil}}); !errors.Is(err, ErrClosed) {
			t.Errorf("Commit after Close: %v", err)
		}
		if err := s.Load(func(string, string, []byte) error { return nil }); !errors.Is(err, ErrClosed) {
			t.Errorf("Load after Close: %v", err)
		}
	})
}

func TestLoadIsInOrderAndStopsAtAnError(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		s, err := p.open(t, current)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		var writes []Write
		for n := range 30 {
			writes = append(writes, Write{"b", fmt.Sprintf("%02d", n), []byte{1}}, Write{"a", fmt.Sprintf("%02d", n), []byte{1}})
		}
		if err := s.Commit(writes); err != nil {
			t.Fatal(err)
		}
		var keys []string
		mine := errors.New("mine")
		err = s.Load(func(kind, key string, _ []byte) error {
			keys = append(keys, kind+key)
			if len(keys) == 40 {
				return mine
			}
			return nil
		})
		if err != mine || len(keys) != 40 || !slices.IsSorted(keys) {
			t.Errorf("%v after %v", err, keys)
		}
	})
}

func TestAFailedCommitLeavesNothing(t *testing.T) {
	everywhere(t, func(t *testing.T, p place) {
		s, err := p.open(t, current)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Commit([]Write{{"app", "/a", []byte("1")}, {"app", "", []byte("2")}}); err == nil {
			t.Fatal("a record without a key is taken")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if s, err = p.open(t, current); err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if got := records(t, s); len(got) != 0 {
			t.Fatalf("half a commit: %v", got)
		}
	})
}

// TestMigration opens what version 1 wrote with a program of version 3, which
// renames a kind and then extends its records.
func TestMigration(t *testing.T) {
	rename := func(list []Write) ([]Write, error) {
		var out []Write
		for _, r := range list {
			if r.Kind == "old" {
				out = append(out, Write{"old", r.Key, nil}, Write{"new", r.Key, r.Value})
			}
		}
		return out, nil
	}
	extend := func(list []Write) ([]Write, error) {
		var out []Write
		for _, r := range list {
			if r.Kind == "new" {
				out = append(out, Write{"new", r.Key, append([]byte("v3:"), r.Value...)})
			}
		}
		return out, nil
	}
	broken := func([]Write) ([]Write, error) { return nil, errors.New("cannot be read") }
	everywhere(t, func(t *testing.T, p place) {
		first := format{version: 1}
		s, err := p.open(t, first)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"app /a": "1"}
		writes := []Write{{"app", "/a", []byte("1")}}
		for n := range 40 {
			writes = append(writes, Write{"old", fmt.Sprint(n), []byte(fmt.Sprint(n))})
			want["new "+fmt.Sprint(n)] = "v3:" + fmt.Sprint(n)
		}
		if err := errors.Join(s.Commit(writes), s.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := p.open(t, format{3, []migration{rename, broken}}); err == nil || !strings.Contains(err.Error(), "from format 2 to 3") {
			t.Fatalf("a migration that fails: %v", err)
		}
		third := format{3, []migration{rename, extend}}
		for range 2 { // the second time there is nothing to migrate
			if s, err = p.open(t, third); err != nil {
				t.Fatal(err)
			}
			if got := records(t, s); !maps.Equal(got, want) {
				t.Fatalf("migrated: %v", got)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		_, err = p.open(t, first)
		if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "start the version that wrote it") {
			t.Errorf("opened by an older program: %v", err)
		}
	})
}

// TestKilledInALargeCommit breaks a commit that goes through the journal at
// each of its transactions: it is there wholly or not at all.
func TestKilledInALargeCommit(t *testing.T) {
	server := zktest.StartWithSessions(t, time.Minute)
	before := map[string]string{"app /a": "1", "app /b": "2"}
	after := map[string]string{"app /a": strings.Repeat("new", 50)}
	writes := []Write{{"app", "/a", []byte(after["app /a"])}, {"app", "/b", nil}}
	for n := range 40 {
		key := fmt.Sprint(n)
		after["task "+key] = strings.Repeat(key, 20)
		writes = append(writes, Write{"task", key, []byte(after["task "+key])})
	}
	outcomes := map[bool]int{}
	for at := 0; ; at++ {
		p := zkPlace{server, fmt.Sprintf("/killed/%d", at), ZooKeeperOptions{MaxNode: 200, MaxBatch: 1000}}
		opened, err := p.open(t, current)
		if err != nil {
			t.Fatal(err)
		}
		s := opened.(*ZooKeeper)
		if err := s.Commit([]Write{{"app", "/a", []byte("1")}, {"app", "/b", []byte("2")}}); err != nil {
			t.Fatal(err)
		}
		killed := errors.New("killed")
		left := at
		s.beforeTransaction = func() error {
			if left == 0 {
				return killed
			}
			left--
			return nil
		}
		err = s.Commit(writes)
		if err != nil && !errors.Is(err, killed) {
			t.Fatal(err)
		}
		if err != nil {
			if again := s.Commit([]Write{{"app", "/c", []byte("3")}}); !errors.Is(again, killed) {
				t.Errorf("a store that failed goes on: %v", again)
			}
		}
		again, loadErr := p.open(t, current)
		if loadErr != nil {
			t.Fatal(loadErr)
		}
		got := records(t, again)
		done := maps.Equal(got, after)
		if !done && !maps.Equal(got, before) {
			t.Fatalf("killed at transaction %d: half a commit: %v", at, got)
		}
		if left, err := children(again.(*ZooKeeper).session, path.Join(p.root, "journal")); err != nil || len(left) > 0 {
			t.Errorf("killed at transaction %d: journal nodes %v are left (%v)", at, left, err)
		}
		outcomes[done]++
		if err == nil {
			break
		}
	}
	if outcomes[false] < 2 || outcomes[true] < 3 {
		t.Errorf("%d times nothing and %d times everything: the points of failure do not cover the commit", outcomes[false], outcomes[true])
	}
}

// TestTheLoserIsFenced has two stores open on the same state: who opened it
// first can neither write nor finish what it began.
func TestTheLoserIsFenced(t *testing.T) {
	p := zkPlace{zktest.StartWithSessions(t, time.Minute), "/fenced", ZooKeeperOptions{MaxNode: 64, MaxBatch: 600, Owner: "one"}}
	first, err := p.open(t, current)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Commit([]Write{{"app", "/a", []byte("1")}}); err != nil {
		t.Fatal(err)
	}
	second, err := p.open(t, current)
	if err != nil {
		t.Fatal(err)
	}
	large := []Write{{"app", "/a", []byte("stale")}}
	for n := range 50 {
		large = append(large, Write{"task", fmt.Sprint(n), []byte("stale")})
	}
	for _, writes := range [][]Write{large[:1], large} {
		err := first.Commit(writes)
		var e *Error
		if !errors.Is(err, ErrFenced) || !errors.As(err, &e) || e.Op != "write" || !strings.Contains(err.Error(), "/fenced") {
			t.Errorf("the loser's commit: %v", err)
		}
	}
	if err := second.Commit([]Write{{"app", "/b", []byte("2")}}); err != nil {
		t.Fatal(err)
	}
	if got := records(t, second); !maps.Equal(got, map[string]string{"app /a": "1", "app /b": "2"}) {
		t.Errorf("after the loser's attempts: %v", got)
	}
	if a, b := first.(*ZooKeeper).Epoch(), second.(*ZooKeeper).Epoch(); b <= a {
		t.Errorf("epochs %d and then %d", a, b)
	}
}

// TestTheFencesVersionIsBounded opens a second store after each number of commits
// around the one at which the fence's node is made anew: the first is fenced, and
// versions stay below the bound.
func TestTheFencesVersionIsBounded(t *testing.T) {
	const bound = 4
	server := zktest.StartWithSessions(t, time.Minute)
	for commits := range 3 * bound {
		p := zkPlace{server, fmt.Sprintf("/renewed%d", commits), ZooKeeperOptions{renewFence: bound}}
		first, err := p.open(t, current)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{}
		for n := range commits {
			if err := first.Commit([]Write{{"n", fmt.Sprint(n), []byte("x")}}); err != nil {
				t.Fatal(err)
			}
			want[fmt.Sprint("n ", n)] = "x"
			if v := first.(*ZooKeeper).version; v > bound {
				t.Errorf("version %d after %d commits", v, n+1)
			}
		}
		second, err := p.open(t, current)
		if err != nil {
			t.Fatal(err)
		}
		if err := first.Commit([]Write{{"n", "stale", []byte("x")}}); !errors.Is(err, ErrFenced) {
			t.Errorf("after %d commits: the loser's commit: %v", commits, err)
		}
		if got := records(t, second); !maps.Equal(got, want) {
			t.Errorf("after %d commits: %v", commits, got)
		}
	}
}

// TestCommitSurvivesBrokenConnections restarts ZooKeeper while commits run: none
// is lost, doubled or refused.
func TestCommitSurvivesBrokenConnections(t *testing.T) {
	p := zkPlace{zktest.StartWithSessions(t, time.Minute), "/broken", ZooKeeperOptions{}}
	session, err := zookeeper.Connect(t.Context(), zookeeper.Config{
		Ensemble: p.ensemble(), SessionTimeout: time.Minute, ConnectTimeout: time.Minute}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(session.Close)
	s, err := OpenZooKeeper(session, p.ensemble(), p.root, p.opts)
	if err != nil {
		t.Fatal(err)
	}
	stop, failed := make(chan struct{}), make(chan error, 1)
	count := 0
	go func() {
		for {
			select {
			case <-stop:
				failed <- nil
				return
			default:
			}
			count++
			if err := s.Commit([]Write{{"n", fmt.Sprint(count), []byte("x")}}); err != nil {
				failed <- err
				return
			}
		}
	}()
	p.server.Restart()
	if err := s.Commit([]Write{{"after", "restart", []byte("x")}}); err != nil {
		t.Fatal(err)
	}
	close(stop)
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	again, err := p.open(t, current)
	if err != nil {
		t.Fatal(err)
	}
	if got := records(t, again); len(got) != count+1 {
		t.Errorf("%d records after %d commits", len(got), count+1)
	}
}

func TestLostSessionEndsCommit(t *testing.T) {
	p := zkPlace{zktest.Start(t), "/lost", ZooKeeperOptions{}} // whose sessions are short
	s, err := p.open(t, current)
	if err != nil {
		t.Fatal(err)
	}
	p.server.Pause()
	defer p.server.Resume()
	if err := s.Commit([]Write{{"app", "/a", []byte("1")}}); !errors.Is(err, zookeeper.ErrLost) {
		t.Errorf("got %v", err)
	}
}

func TestCredentialsProtectTheState(t *testing.T) {
	server := zktest.StartWithSessions(t, time.Minute)
	connect := func(credentials string) *zookeeper.Session {
		e := detect.Ensemble{Servers: []string{server.Addr}, Path: "/secret", Credentials: credentials}
		s, err := zookeeper.Connect(t.Context(), zookeeper.Config{Ensemble: e, ConnectTimeout: time.Minute}, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
	owner := detect.Ensemble{Servers: []string{server.Addr}, Path: "/secret", Credentials: "dvdi:pa55"}
	s, err := OpenZooKeeper(connect("dvdi:pa55"), owner, "/secret", ZooKeeperOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Commit([]Write{{"app", "/a", []byte("1")}}); err != nil {
		t.Fatal(err)
	}
	_, err = OpenZooKeeper(connect(""), owner, "/secret", ZooKeeperOptions{})
	if err == nil || !strings.Contains(err.Error(), "user:pass") || strings.Contains(err.Error(), "pa55") {
		t.Errorf("opened without credentials: %v", err)
	}
}
