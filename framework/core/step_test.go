package core

import (
	"slices"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/mesos-dvdi/dvdi/framework/store"
	"github.com/mesos-dvdi/dvdi/internal/bubbletest"
)

// stepped is a core that does not run, for tests that do its steps themselves.
func stepped(t *testing.T) *Core {
	t.Helper()
	st, err := store.OpenBolt(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	c, err := New(Config{}, newCluster("a").connect(), st, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestQueriesSeeWhatIsCommitted(t *testing.T) {
	c := stepped(t)
	var order []string
	note := func(what string) message {
		return message{
			handle: func(*txn) { order = append(order, what) },
			reply:  func() { order = append(order, what+" answered") },
		}
	}
	query := note("query")
	query.query = true
	rest, err := c.step([]message{note("change"), query, note("other change")})
	if err != nil || len(rest) != 0 {
		t.Fatal(err, rest)
	}
	want := []string{"query", "query answered", "change", "other change", "change answered", "other change answered"}
	if !slices.Equal(order, want) {
		t.Errorf("order %v", order)
	}
}

func TestLongWorkIsDoneInParts(t *testing.T) {
	bubbletest.Test(t, func(t *testing.T) {
		c := stepped(t)
		done := 0
		work := message{handle: func(*txn) {
			time.Sleep(2 * time.Millisecond) // of fake time
			done++
		}, reply: func() {}}
		batch := []message{work, work, work, work, work, work, work}
		steps := 0
		for ; len(batch) > 0; steps++ {
			before := done
			rest, err := c.step(batch)
			if err != nil {
				t.Fatal(err)
			}
			if len(rest) != len(batch)-(done-before) {
				t.Fatalf("%d of %d messages handled, %d left", done-before, len(batch), len(rest))
			}
			batch = rest
		}
		if done != 7 || steps != 3 {
			t.Errorf("%d messages in %d steps", done, steps)
		}
	})
}
