package decision_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/mesos-dvdi/dvdi/framework/decision"
	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/schedtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// record is the n-th decision of a test.
func record(n int) scheduler.Record {
	w := schedtest.New()
	w.Offer("a").CPUs(4).Mem(4096)
	w.Pending(fmt.Sprintf("i%d", n)).Needs(1, 64)
	s := w.Build()
	s.Now = s.Now.Add(time.Duration(n) * time.Second)
	return scheduler.Record{Snapshot: s, Plan: scheduler.Decide(s)}
}

// lines reads the instances of a file's decisions, in order.
func lines(t *testing.T, file string) (out []string) {
	t.Helper()
	f, err := os.Open(file)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	scanner := bufio.NewScanner(f)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		r, err := scheduler.DecodeRecord(scanner.Bytes())
		if err != nil {
			out = append(out, "broken")
			continue
		}
		if _, same, err := r.Replay(); err != nil || !same {
			t.Errorf("a logged decision is another when made again (%v)", err)
		}
		out = append(out, r.Snapshot.Pending[0].ID)
	}
	return out
}

func open(t *testing.T, cfg decision.Config) *decision.Log {
	t.Helper()
	l, err := decision.Open(cfg, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLogIsReadBackAndContinued(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sub", "decisions.jsonl")
	for n := range 3 {
		l := open(t, decision.Config{File: file})
		l.Record(record(n))
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l.Record(record(n)) // too late, and harmless
	}
	if got := fmt.Sprint(lines(t, file)); got != "[i0 i1 i2]" {
		t.Errorf("logged %s", got)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestIdleRoundsAreLeftOut(t *testing.T) {
	file := filepath.Join(t.TempDir(), "d")
	l := open(t, decision.Config{File: file})
	w := schedtest.New()
	w.Offer("a").CPUs(1)
	l.Record(scheduler.Record{Snapshot: w.Build(), Plan: w.Decide()})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := lines(t, file); len(got) != 0 {
		t.Errorf("logged %v", got)
	}
}

func TestLogIsBounded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "d")
	line, err := scheduler.EncodeRecord(record(0))
	if err != nil {
		t.Fatal(err)
	}
	cfg := decision.Config{File: file, MaxBytes: int64(2*len(line) + 16), Files: 3}
	for n := range 10 { // one Log for each: the queue may not hold all of them
		l := open(t, cfg)
		l.Record(record(n))
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{file: "[i8 i9]", file + ".1": "[i6 i7]", file + ".2": "[i4 i5]", file + ".3": "[]"} {
		if got := fmt.Sprint(lines(t, name)); got != want {
			t.Errorf("%s holds %s, want %s", filepath.Base(name), got, want)
		}
	}
}

func TestUnfinishedLineSpoilsOnlyItself(t *testing.T) {
	file := filepath.Join(t.TempDir(), "d")
	if err := os.WriteFile(file, []byte(`{"dvdiDecision":1,"at":`), 0o600); err != nil {
		t.Fatal(err)
	}
	l := open(t, decision.Config{File: file})
	l.Record(record(1))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(lines(t, file)); got != "[broken i1]" {
		t.Errorf("read %s", got)
	}
}

func TestWhatDoesNotFitIsReported(t *testing.T) {
	core, logs := observer.New(zap.ErrorLevel)
	file := filepath.Join(t.TempDir(), "d")
	l, err := decision.Open(decision.Config{File: file, MaxBytes: 10}, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	l.Record(record(1))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if logs.Len() != 1 || len(lines(t, file)) != 0 {
		t.Errorf("%d errors logged: %v", logs.Len(), logs.All())
	}
	if _, err := decision.Open(decision.Config{File: t.TempDir()}, zap.NewNop()); err == nil {
		t.Error("a directory can be opened as the log")
	}
}
