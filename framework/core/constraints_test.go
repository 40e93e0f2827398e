package core

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// TestUnreachableInstancesDoNotCount has the only instance that a zone may have
// become unreachable: its replacement goes to the same zone, as Marathon counts
// reachable instances alone, and one of the two ends when the first is back.
func TestUnreachableInstancesDoNotCount(t *testing.T) {
	for _, constraint := range []string{`["@zone","UNIQUE"]`, `["@zone","MAX_PER","1"]`, `["@zone","GROUP_BY","1"]`} {
		inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
			r.cluster.set(func(c *cluster) {
				for _, a := range c.agents {
					a.zone = "z"
				}
			})
			r.post(`{"id":"/web","cmd":"serve","cpus":1,"mem":64,"constraints":[` + constraint + `],
				"unreachableStrategy":{"inactiveAfterSeconds":60,"expungeAfterSeconds":600}}`)
			first := r.running("/web")
			r.idle()
			r.pass(20 * time.Second) // offers come again
			r.cluster.partition(first.AgentID)
			r.until("replaced", func() bool { return len(r.cluster.liveTasks("/web")) == 2 })
			r.cluster.heal(first.AgentID)
			r.until("one is left", func() bool { return len(r.cluster.liveTasks("/web")) == 1 })
			r.until("it runs", func() bool { return r.app("/web").Running == 1 })
		})
	}
}

// TestGroupsTakeTheirPartOnly scales an app that is to be spread over two zones,
// of which there is one: half of it runs, the rest says why it waits, and runs
// when the other zone is there.
func TestGroupsTakeTheirPartOnly(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		zone := func(z string, hosts ...string) {
			r.cluster.set(func(c *cluster) {
				for _, a := range c.agents {
					for _, h := range hosts {
						if a.host == h {
							a.zone = z
						}
					}
				}
			})
		}
		zone("z1", "a", "b")
		r.post(`{"id":"/web","cmd":"serve","cpus":0.1,"mem":32,"instances":4,"constraints":[["@zone","GROUP_BY","2"]]}`)
		r.until("half of them run", func() bool { return r.app("/web").Running == 2 })
		r.pass(time.Minute)
		if n := r.app("/web").Running; n != 2 {
			t.Fatalf("%d run in one of two zones, want 2", n)
		}
		if w := r.queue()[0].Waiting[0]; len(w.Counts) != 1 || w.Counts[0].Reason != scheduler.UnfulfilledConstraint {
			t.Errorf("waits for %+v, want the constraint", w)
		}
		zone("z2", "b")
		r.until("all run", func() bool { return r.app("/web").Running == 4 })
	})
}

// TestSurplusComesFromTheLargestGroup gives where instances run, the oldest
// first, and which of them are stopped.
func TestSurplusComesFromTheLargestGroup(t *testing.T) {
	for _, c := range []struct {
		zones       string // one letter each, "-" for one that waits, capitals for ones that start
		constraints string
		selection   string
		n           int
		want        string // the places of those that are stopped
	}{
		{"aabb", `[["@zone","GROUP_BY","2"]]`, "YOUNGEST_FIRST", 2, "[1 3]"},
		{"aabb", `[["@zone","GROUP_BY","2"]]`, "OLDEST_FIRST", 2, "[0 2]"},
		{"aabb", `[["@zone","GROUP_BY"]]`, "YOUNGEST_FIRST", 3, "[1 2 3]"},
		{"aabb", `[["@zone","UNIQUE"]]`, "YOUNGEST_FIRST", 2, "[2 3]"}, // nothing to keep spread
		{"aaabc", `[["@zone","GROUP_BY","3"]]`, "YOUNGEST_FIRST", 2, "[1 2]"},
		{"aab-", `[["@zone","GROUP_BY","2"]]`, "YOUNGEST_FIRST", 2, "[1 3]"}, // who waits goes first
		{"aaB", `[["@zone","GROUP_BY","2"]]`, "YOUNGEST_FIRST", 1, "[2]"},
		{"aabb", `[["hostname","LIKE",".*"],["rack","GROUP_BY","2"]]`, "YOUNGEST_FIRST", 2, "[2 3]"}, // nobody has a rack
	} {
		var list []*instance
		for n, z := range c.zones {
			i := &instance{ID: fmt.Sprint(n), Phase: active, Task: &task{
				State: taskRunning, Zone: strings.ToLower(string(z)), StagedAt: time.Unix(int64(n), 0),
			}}
			switch {
			case z == '-':
				i.Phase, i.Task = waiting, nil
			case z < 'a':
				i.Task.State = taskStarting
			}
			list = append(list, i)
		}
		def, err := app.Parse([]byte(fmt.Sprintf(`{"id":"/web","cmd":"serve","killSelection":%q,"constraints":%s}`, c.selection, c.constraints)), app.Options{})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, i := range surplusOf(list, def, c.n) {
			got = append(got, i.ID)
		}
		slices.Sort(got)
		if fmt.Sprint(got) != c.want {
			t.Errorf("of %s by %s %s %v are stopped, want %s", c.zones, c.constraints, c.selection, got, c.want)
		}
	}
}
