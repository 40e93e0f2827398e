package scheduler_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/schedtest"
)

func TestPropertyRecordsReplay(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := anyWorld(rt)
		line, err := scheduler.EncodeRecord(scheduler.Record{Snapshot: s, Plan: scheduler.Decide(s)})
		if err != nil {
			rt.Fatal(err)
		}
		if n := bytes.Count(line, []byte("\n")); n != 1 || line[len(line)-1] != '\n' {
			rt.Fatalf("record of %d lines", n)
		}
		r, err := scheduler.DecodeRecord(line)
		if err != nil {
			rt.Fatal(err)
		}
		if _, same, err := r.Replay(); err != nil || !same {
			rt.Fatalf("replayed the same: %t, %v", same, err)
		}
		again, err := scheduler.EncodeRecord(r)
		if err != nil || !bytes.Equal(line, again) {
			rt.Fatalf("%v: encoded again\n%s\nnot\n%s", err, again, line)
		}
	})
}

func TestReplayTellsAnotherPlan(t *testing.T) {
	w := schedtest.New()
	w.Agents("a1")
	w.Pending("x")
	s := w.Build()
	plan := scheduler.Decide(s)
	plan.Accepts[0].Refuse += time.Second
	r := scheduler.Record{Snapshot: s, Plan: plan}
	if _, same, err := r.Replay(); err != nil || same {
		t.Errorf("same %t, %v; want another plan", same, err)
	}
}

func TestSnapshotAlone(t *testing.T) {
	w := schedtest.New()
	w.Agents("a1")
	line, err := scheduler.EncodeSnapshot(w.Build())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := scheduler.DecodeRecord(line); !errors.Is(err, scheduler.ErrNoPlan) {
		t.Errorf("error %v, want ErrNoPlan", err)
	}
	s, err := scheduler.DecodeSnapshot(line)
	if err != nil || len(s.Offers) != 1 || !s.Now.Equal(w.Now) {
		t.Errorf("snapshot %+v, %v", s, err)
	}
}

// TestWrittenForm holds the written form: a change of it
// breaks the logs that users have kept.
func TestWrittenForm(t *testing.T) {
	w := schedtest.New()
	w.Offer("a1").CPUs(0.5)
	w.Claim("v", "a1", scheduler.Releasing)
	w.Pending("x").Mounts("v", scheduler.OneAgent)
	line, err := scheduler.EncodeSnapshot(w.Build())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`{"dvdiDecision":1,"at":"2026-01-02T03:04:05Z","snapshot":{"Now":"2026-01-02T03:04:05Z"`,
		`{"Name":"cpus","Kind":"scalar","Scalar":500,`,
		`"Key":{"Driver":"drv","Name":"v"},"AgentID":"a1","Hostname":"a1.test","Access":"one-task","Instances":null,"Epoch":0,"State":"releasing"`,
		`"Access":"one-agent"`,
	} {
		if !strings.Contains(string(line), want) {
			t.Errorf("no %s in\n%s", want, line)
		}
	}
}

func TestBadRecords(t *testing.T) {
	for _, c := range []struct{ name, line, want string }{
		{"empty", ``, "empty"},
		{"no JSON", `{`, "unexpected EOF"},
		{"newer", `{"dvdiDecision":99,"snapshot":{}}`, "its version is 99"},
		{"something else", `{"foo":1}`, `unknown field "foo"`},
		{"unknown field", `{"dvdiDecision":1,"snapshot":{"Moon":1}}`, `unknown field "Moon"`},
		{"no snapshot", `{"dvdiDecision":1}`, "decode snapshot: it is empty"},
		{"unknown word", `{"dvdiDecision":1,"snapshot":{"Claims":[{"State":"dreaming"}]}}`, `"dreaming" is not one of`},
		{"unknown kind", `{"dvdiDecision":1,"snapshot":{"Offers":[{"Resources":[{"Kind":"pile"}]}]}}`, `"pile" is not one of`},
		{"two lines", "{\"dvdiDecision\":1,\"snapshot\":{}}\n{}", "one line at a time"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := scheduler.DecodeRecord([]byte(c.line)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
}
