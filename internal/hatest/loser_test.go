package hatest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/detect/zktest"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
)

// duel is two frameworks of which one can be frozen at a commit and lose the lead
// meanwhile, with a ZooKeeper session that lives on: nothing but the fencing token
// and the stream id stops it then.
type duel struct {
	*env
	relays []*masterRelay
	faults []faultFile
}

func newDuel(t *testing.T) *duel {
	t.Helper()
	timing := embeddedmesos.FastTiming()
	timing.Heartbeat = deadline // silence tells the frozen one nothing
	e, c := newMesos(t, timing)
	e.zk = zktest.StartWithSessions(t, 10*deadline)
	d := &duel{env: e}
	for n := range 2 {
		relay, faults := newMasterRelay(t, c.Mesos.Addr()), faultFile{t, filepath.Join(d.dir, fmt.Sprintf("fault%d", n))}
		m := prepareMember(t, fmt.Sprintf("framework%d", n+1), d.dir, &d.leads, "--master", relay.addr, "--zk", "zk://"+d.zk.Addr+"/dvdi",
			"--zk_session_timeout", fmt.Sprint((10 * deadline).Milliseconds()), "--min_revive_offers_interval", "200",
			"--reconciliation_initial_delay", "1000")
		m.program, m.env = "dvdi-framework-faults", func(int) []string { return faults.env() }
		m.run()
		d.members, d.relays, d.faults = append(d.members, m), append(d.relays, relay), append(d.faults, faults)
	}
	return d
}

// freeze has the leader freeze at its next commit with a record that holds text,
// which follows from cause, and lose the lead to the other. It returns the places of
// both among the members.
func (d *duel) freeze(f fault, cause func(leader *member)) (loser, winner int) {
	d.t.Helper()
	if d.leader() == d.members[1] {
		loser = 1
	}
	winner = 1 - loser
	f.Commit, f.Stop = 1, true
	d.faults[loser].arm(f)
	cause(d.members[loser])
	d.poll("the leader to freeze", func() (bool, string) {
		_, err := os.Stat(d.faults[loser].path)
		return err != nil && d.members[loser].frozen(), fmt.Sprint(err)
	})
	d.relays[loser].deafen()
	d.leads.over(d.members[loser].name, time.Now()) // what it does later must fail
	d.depose(d.members[loser])
	d.poll("the other to lead", func() (bool, string) {
		var info struct {
			Leader    string `json:"leader"`
			Connected bool   `json:"connected"`
		}
		err := d.members[winner].Do(d.t.Context(), http.MethodGet, "/v2/info?extensions=true", nil, &info)
		return err == nil && info.Leader == d.members[winner].addr && info.Connected, fmt.Sprint(info, err)
	})
	return loser, winner
}

// wake has the loser go on, and waits for its end.
func (d *duel) wake(loser int, seen func() bool) {
	d.t.Helper()
	m := d.members[loser]
	times := m.exited()
	if err := os.WriteFile(d.faults[loser].path+".go", nil, 0o600); err != nil {
		d.t.Fatal(err)
	}
	m.resume()
	d.poll("what the loser does to fail", func() (bool, string) { return seen(), "" })
	if code := d.exit(m, times); code != 103 {
		d.t.Errorf("the loser ended with status %d", code)
	}
}

// depose deletes a member's node in the election, as a person may.
func (d *duel) depose(m *member) {
	d.t.Helper()
	conn := d.zk.Client()
	defer conn.Close()
	const election = "/dvdi/election"
	names, _, err := conn.Children(election)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, name := range names {
		node := path.Join(election, name)
		data, stat, err := conn.Get(node)
		var who struct{ URL string }
		if err == nil {
			err = json.Unmarshal(data, &who)
		}
		if err == nil && who.URL == m.URL {
			if err := conn.Delete(node, stat.Version); err != nil {
				d.t.Fatal(err)
			}
			return
		}
	}
	d.t.Fatalf("%s takes no part in the election: %v", m.name, names)
}

// written is the log so far.
func (m *member) written() string {
	content, err := os.ReadFile(m.log.Name())
	if err != nil {
		m.t.Fatal(err)
	}
	return string(content)
}

// frozen tells whether the process is stopped (proc(5), /proc/pid/stat: the state
// follows the name in parentheses).
func (m *member) frozen() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.cmd.Process.Pid))
	_, state, found := strings.Cut(string(stat), ") ")
	return err == nil && found && strings.HasPrefix(state, "T")
}

// TestTheLosersActsFail freezes the leader between a launch's commit and its call,
// and then before a commit, and has another lead meanwhile: the call is made on the
// old stream and refused by the master, the write on the fencing token.
func TestTheLosersActsFail(t *testing.T) {
	t.Parallel()
	d := newDuel(t)
	d.leader()
	t.Run("call", func(t *testing.T) {
		loser, _ := d.freeze(fault{Text: `"phase":"launching"`, After: true}, func(leader *member) {
			if err := d.post(t.Context(), leader, d.app("/launched", 1, "duel")); err != nil {
				t.Fatal(err)
			}
		})
		d.wake(loser, func() bool { return d.relays[loser].staleCalls() > 0 })
	})
	t.Run("write", func(t *testing.T) {
		answered := make(chan error, 1)
		loser, winner := d.freeze(fault{Text: `"/written"`}, func(leader *member) {
			go func() { answered <- d.post(t.Context(), leader, d.app("/written", 1, "")) }()
		})
		d.wake(loser, func() bool { return strings.Contains(d.members[loser].written(), "another process has taken over") })
		if err := <-answered; err == nil {
			t.Error("the loser has answered that it made an app")
		}
		err := d.members[winner].Do(t.Context(), http.MethodGet, "/v2/apps/written", nil, nil)
		if err == nil || !strings.Contains(err.Error(), "answered 404") {
			t.Errorf("the loser's app: %v", err)
		}
	})
	d.changes(t, "/after")
	c := d.settled()
	if len(c.Tasks["/launched"]) != 1 {
		t.Errorf("/launched runs %v", c.Tasks["/launched"])
	}
	d.startedOnce()
	d.leads.check(t)
}
