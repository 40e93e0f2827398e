package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// flow is a call by which the framework steers its offers.
type flow struct {
	Type    string
	Decline struct {
		OfferIDs []valueJSON `json:"offer_ids"`
		Filters  filters
	}
	Suppress, Revive struct{ Roles []string }
}

func (f flow) String() string {
	switch f.Type {
	case "DECLINE":
		return fmt.Sprintf("DECLINE %g", f.Decline.Filters.RefuseSeconds)
	case "SUPPRESS":
		return "SUPPRESS " + strings.Join(f.Suppress.Roles, ",")
	}
	return "REVIVE " + strings.Join(f.Revive.Roles, ",")
}

// flows are the calls that steer offers, beyond the first skip of them.
func (e *env) flows(skip int) (out []string) {
	e.t.Helper()
	for _, c := range e.tap.Calls("DECLINE", "SUPPRESS", "REVIVE")[skip:] {
		var f flow
		if err := json.Unmarshal(c.JSON, &f); err != nil {
			e.t.Fatalf("%v: %s", err, c.JSON)
		}
		out = append(out, f.String())
	}
	return out
}

func count(list []string, s string) (n int) {
	for _, v := range list {
		if v == s {
			n++
		}
	}
	return n
}

// sees waits until the calls beyond the first skip contain one.
func (e *env) sees(skip int, call string) []string {
	e.t.Helper()
	var all []string
	e.poll("the call "+call, func() (bool, string, error) {
		all = e.flows(skip)
		return count(all, call) > 0, strings.Join(all, "; "), nil
	})
	return all
}

func sleeper(id string, more object) object {
	a := object{"id": id, "cmd": "sleep 1000", "cpus": 0.1, "mem": 32, "instances": 1}
	for k, v := range more {
		a[k] = v
	}
	return a
}

// TestOfferEconomy looks at the calls by which the framework steers offers: it
// declines for long and suppresses while nothing waits, revives once when
// something does, and declines for a moment, or longer where an agent could never
// do, while it waits. Roles are steered each for itself.
func TestOfferEconomy(t *testing.T) {
	if os.Getenv("DVDI_E2E_MASTER") != "" {
		t.Skip("the calls to an external Mesos are not listened to")
	}
	e := newEnvOf(t, setup{agents: 2, pick: reference, tapped: true, args: []string{
		"--min_revive_offers_interval", "200", "--decline_offer_duration", "77000", "--decline_unfit_offer_duration", "33000",
	}})
	// The master may have made offers before it is told that none are wanted.
	if all := e.sees(0, "SUPPRESS *"); count(all, "SUPPRESS *") != 1 || count(all, "REVIVE *") != 0 {
		t.Errorf("with nothing to run: %v", all)
	}

	// One revive serves one change, however many instances it brings.
	seen := len(e.flows(0))
	e.must(http.MethodPost, "/v2/apps", sleeper("/some", object{"instances": 6}), nil)
	e.running("/some", 6)
	e.settled()
	if all := e.sees(seen, "SUPPRESS *"); count(all, "REVIVE *") != 1 || count(all, "SUPPRESS *") != 1 {
		t.Errorf("for six instances: %v", all)
	}
	if n := len(e.accepts(0)); n > 4 {
		t.Errorf("%d ACCEPT calls for six instances on two agents, of at most five each", n)
	}

	// What an agent may serve as soon as something ends is asked for soon again,
	// what it never can is not.
	seen = len(e.flows(0))
	e.must(http.MethodPost, "/v2/apps", sleeper("/huge", object{"cpus": 100}), nil)
	e.sees(seen, "DECLINE 5")
	beforeRemoval := len(e.flows(0))
	e.remove("/huge")
	e.sees(beforeRemoval, "SUPPRESS *")
	seen = len(e.flows(0))
	e.must(http.MethodPost, "/v2/apps", sleeper("/nowhere", object{"constraints": [][]string{{"hostname", "CLUSTER", "agent9.test"}}}), nil)
	if all := e.sees(seen, "DECLINE 33"); count(all, "DECLINE 5") != 0 {
		t.Errorf("for an app that no agent can take: %v", all)
	}
	e.explained("/nowhere", "UnfulfilledConstraint", "lacks hostname CLUSTER agent9.test")
	e.remove("/nowhere")

	// A role of its own, in which nothing waits for the others' sake. It starts
	// with an offer of each agent, and the one that is not used is not wanted soon.
	seen = len(e.flows(0))
	e.must(http.MethodPost, "/v2/apps", sleeper("/team/x", object{"role": "team"}), nil)
	e.running("/team/x", 1)
	e.settled()
	e.sees(seen, "SUPPRESS team")
	if all := e.sees(seen, "DECLINE 77"); count(all, "REVIVE *") != 0 {
		t.Errorf("for an app of another role: %v", all)
	}
	accepts := e.accepts(0)
	var last struct{ Allocation string }
	for _, c := range e.tap.Calls("ACCEPT")[len(accepts)-1:] {
		last.Allocation = string(c.JSON)
	}
	if !strings.Contains(last.Allocation, `"allocation_info":{"role":"team"}`) {
		t.Errorf("it was launched with %s", last.Allocation)
	}
}

// TestOfferThatIsGone has the agents' offers rescinded while the framework's
// answer is under way: the launch is dropped, and made again.
func TestOfferThatIsGone(t *testing.T) {
	if os.Getenv("DVDI_E2E_MASTER") != "" {
		t.Skip("the calls to an external Mesos are not listened to")
	}
	e := newEnvOf(t, setup{agents: 1, pick: reference, tapped: true, args: []string{"--min_revive_offers_interval", "200"}})
	open := e.tap.Stop("ACCEPT")
	defer open()
	e.must(http.MethodPost, "/v2/apps", e.app("/late", "late", writer), nil)
	e.poll("the answer to be under way", func() (bool, string, error) { return len(e.accepts(0)) == 1, "no ACCEPT", nil })
	e.fault("kill-agent", "agent1.test")
	e.poll("the agent to be unreachable", func() (bool, string, error) {
		text, err := e.operate(object{"type": "GET_AGENTS"})
		return !strings.Contains(text, "agent1.test"), text, err
	})
	e.fault("start-agent", "agent1.test")
	open()
	task := e.did(e.running("/late", 1)[0])
	if strings.HasSuffix(task.ID, "._app.1") {
		t.Errorf("%s runs although its offer was gone", task.ID)
	}
	e.remove("/late")
	e.holds("late", task.ID)
}

// operate calls the embedded Mesos' operator API.
func (e *env) operate(call object) (string, error) {
	body, err := json.Marshal(call)
	if err != nil {
		return "", err
	}
	request, err := http.NewRequestWithContext(e.ctx, http.MethodPost, "http://"+e.cluster.Mesos.Addr()+"/api/v1", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	r, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(r.Body)
	_ = r.Body.Close()
	if err == nil && r.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %s", r.Status, text)
	}
	return string(text), err
}

// TestInstancesAreMoved has instances moved where the operator allows it: evenly
// over the agents when one comes back, and off an agent before its maintenance, of
// which an inverse offer tells, and to which the framework agrees.
func TestInstancesAreMoved(t *testing.T) {
	if os.Getenv("DVDI_E2E_MASTER") != "" {
		t.Skip("the agents of an external Mesos belong to its operator")
	}
	e := newEnvOf(t, setup{agents: 2, pick: reference, bridges: true, tapped: true, args: []string{
		"--min_revive_offers_interval", "200", "--max_moves", "1", "--move_draining", "--balance", "2", "--draining_seconds", "3600",
	}})
	e.fault("kill-agent", "agent2.test")
	e.poll("the agent to be unreachable", func() (bool, string, error) {
		text, err := e.operate(object{"type": "GET_AGENTS"})
		return !strings.Contains(text, "agent2.test"), text, err
	})
	e.must(http.MethodPost, "/v2/apps", sleeper("/web", nil), nil)
	e.must(http.MethodPost, "/v2/apps", e.app("/db", "moved", writer), nil)
	first := e.running("/db", 1)[0]
	e.running("/web", 1)
	e.settled()
	e.fault("start-agent", "agent2.test")
	e.spread(1, 1)

	// The volume's host goes into maintenance: all leave it, one by one, the
	// volume when it is unmounted, and nothing comes back.
	db := e.running("/db", 1)[0]
	start := time.Now().Add(30 * time.Minute).UnixNano()
	if _, err := e.operate(object{"type": "UPDATE_MAINTENANCE_SCHEDULE", "update_maintenance_schedule": object{"schedule": object{"windows": []object{{
		"machine_ids": []object{{"hostname": db.Host}}, "unavailability": object{"start": object{"nanoseconds": start}},
	}}}}}); err != nil {
		t.Fatal(err)
	}
	if db.Host == "agent1.test" {
		e.spread(0, 2)
	} else {
		e.spread(2, 0)
	}
	moved := e.running("/db", 1, db.ID)[0]
	e.poll("the operator to be told that the framework agrees", func() (bool, string, error) {
		status, err := e.operate(object{"type": "GET_MAINTENANCE_STATUS"})
		return strings.Contains(status, `"ACCEPT"`), status, err
	})
	if len(e.tap.Calls("ACCEPT_INVERSE_OFFERS")) == 0 || len(e.tap.Calls("DECLINE_INVERSE_OFFERS")) != 0 {
		t.Error("the inverse offer was not accepted, or declined as well")
	}
	e.must(http.MethodPost, "/v2/apps", sleeper("/fixed", object{"constraints": [][]string{{"hostname", "CLUSTER", db.Host}}}), nil)
	e.explained("/fixed", "AgentMaintenance", "lacks an end of its maintenance")
	// It has the volume of those before it, as far as they came to write.
	before := strings.Join([]string{first.ID, db.ID}, " ")
	e.poll("it writes to its volume", func() (bool, string, error) {
		found, err := e.logs("store")
		if err != nil || len(found) != 1 {
			return false, strings.Join(found, " | "), err
		}
		lines := strings.Fields(found[0])
		for _, line := range lines[:max(0, len(lines)-1)] {
			if !strings.Contains(before, line) {
				return false, found[0], fmt.Errorf("a stranger wrote %s", line)
			}
		}
		return len(lines) > 0 && lines[len(lines)-1] == moved.ID, found[0], nil
	})
}

// spread waits until so many instances of /web and /db run on each agent.
func (e *env) spread(one, two int) {
	e.t.Helper()
	e.poll(fmt.Sprintf("%d and %d instances on the agents", one, two), func() (bool, string, error) {
		on := map[string]int{}
		for _, app := range []string{"/web", "/db"} {
			tasks, err := e.Tasks(e.ctx, app)
			if err != nil {
				return false, "", err
			}
			for _, task := range tasks {
				if task.State == "TASK_RUNNING" {
					on[task.Host]++
				}
			}
		}
		return on["agent1.test"] == one && on["agent2.test"] == two, fmt.Sprint(on), nil
	})
}
