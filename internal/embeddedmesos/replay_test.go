package embeddedmesos_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap/zaptest"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/agenttest"
)

// patience is how long the replay waits for what was recorded.
const patience = 2 * time.Minute

// causality is how long before a call's line the events that the call caused
// may stand: the recorder wrote the call down when its answer had come.
const causality = 0.006

// replay makes the calls of a recorded session against an embedded cluster and
// compares answers and events. Calls are made as soon as the events recorded
// before them have come.
type replay struct {
	t       *testing.T
	cluster *embeddedmesos.Cluster
	script  *agenttest.Script
	compare *comparison
	lines   []line
	// notes says what to do at a note of the recording, after lines what to do
	// after a call that it knows by its type and position among that type.
	notes map[string]func()
	after map[string]func()

	lanes    map[string][]expectation
	seen     map[string]map[string]any // our updates, by their ids
	repeated int                       // how many came again
	recorded map[string]bool           // the ids in recorded events
	offers   map[string]string         // our offer → its lane's agent, as recorded
	hosts    map[string]string         // hostname → recorded agent id
	agents   map[string]string         // our agent id → recorded one

	stream   string // our stream id
	units    chan map[string]any
	ended    chan error
	cancel   context.CancelFunc
	counters map[string]int
}

// expectation is a recorded event, or offer, that has to come.
type expectation struct {
	line int
	t    float64
	unit map[string]any
}

// captureCluster starts a cluster as the recordings' was.
func captureCluster(t *testing.T, timing embeddedmesos.Timing) (*embeddedmesos.Cluster, *agenttest.Script) {
	t.Helper()
	script := agenttest.NewScript(t)
	config := embeddedmesos.Config{
		Dir: t.TempDir(), DVDCLI: script.Path(), Timing: timing,
		Logger: zaptest.NewLogger(t),
	}
	for n := 1; n <= 2; n++ {
		first := uint64(30000 + 1000*n)
		config.Agents = append(config.Agents, embeddedmesos.AgentConfig{
			Hostname: fmt.Sprintf("agent%d.test", n), Region: "region-1", Zone: fmt.Sprintf("zone-%d", n),
			Env: script.Env(),
			AttributeList: []mesos.Attribute{
				attribute("rack", fmt.Sprintf("r%d", n)),
				attribute("dvdi", fmt.Sprintf(`http\://127.0.0.1\:986%d`, n)),
			},
			Resources: []mesos.Resource{
				scalar("cpus", 4, nil), scalar("mem", 4096, nil),
				{Name: "ports", Type: mesos.RANGES.Enum(), Ranges: &mesos.Value_Ranges{
					Range: []mesos.Value_Range{{Begin: first, End: first + 999}},
				}},
				scalar("disk", 10240, nil),
				scalar("disk", 2048, &mesos.Resource_DiskInfo_Source{
					Type: mesos.Resource_DiskInfo_Source_PATH,
					Path: &mesos.Resource_DiskInfo_Source_Path{Root: ptr(fmt.Sprintf("/var/lib/mesos-disks/a%d/path1", n))},
				}),
				scalar("disk", 512, &mesos.Resource_DiskInfo_Source{
					Type:  mesos.Resource_DiskInfo_Source_MOUNT,
					Mount: &mesos.Resource_DiskInfo_Source_Mount{Root: ptr(fmt.Sprintf("/var/lib/mesos-disks/a%d/mount1", n))},
				}),
			},
		})
	}
	cluster, err := embeddedmesos.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := cluster.Destroy(ctx); err != nil {
			t.Errorf("destroy the cluster: %v", err)
		}
	})
	return cluster, script
}

func ptr[T any](v T) *T { return &v }

func attribute(name, value string) mesos.Attribute {
	return mesos.Attribute{Name: name, Type: mesos.TEXT, Text: &mesos.Value_Text{Value: value}}
}

func scalar(name string, value float64, source *mesos.Resource_DiskInfo_Source) mesos.Resource {
	r := mesos.Resource{Name: name, Type: mesos.SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: value}}
	if source != nil {
		r.Disk = &mesos.Resource_DiskInfo{Source: source}
	}
	return r
}

func newReplay(t *testing.T, capture string, timing embeddedmesos.Timing) *replay {
	t.Helper()
	r := &replay{
		t: t, compare: newComparison(), lines: readCapture(t, capture),
		notes: make(map[string]func()), after: make(map[string]func()),
		lanes: make(map[string][]expectation), seen: make(map[string]map[string]any), recorded: make(map[string]bool),
		offers: make(map[string]string), hosts: make(map[string]string), agents: make(map[string]string),
		counters: make(map[string]int),
	}
	r.cluster, r.script = captureCluster(t, timing)
	r.expect()
	return r
}

// expect sorts the recorded events into lanes.
func (r *replay) expect() {
	offers := make(map[string]string)
	seen := make(map[string]bool)
	for _, l := range r.lines {
		for _, unit := range units(l.Event) {
			if l.Event == nil || unit["type"] == "HEARTBEAT" {
				continue
			}
			if id := repetition(unit); id != "" {
				if seen[id] {
					continue
				}
				seen[id] = true
			}
			if offer := offerOf(unit); offer != nil {
				agent := textAt(offer, "agent_id", "value")
				offers[textAt(offer, "id", "value")] = agent
				r.hosts[textAt(offer, "hostname")] = agent
			}
			r.noteIDs("", unit)
			lane := laneOf(unit, offers)
			r.lanes[lane] = append(r.lanes[lane], expectation{line: l.number, t: l.T, unit: unit})
		}
	}
}

// noteIDs remembers which recorded values are ids.
func (r *replay) noteIDs(path string, tree any) {
	switch tree := tree.(type) {
	case map[string]any:
		for key, value := range tree {
			r.noteIDs(path+"."+key, value)
		}
	case []any:
		for i, value := range tree {
			r.noteIDs(fmt.Sprintf("%s.%d", path, i), value)
		}
	case string:
		if r.compare.may("ids", path) {
			r.recorded[tree] = true
		}
	}
}

// laneOf names the sequence that keeps its order: one per agent, another for
// its offers, one for what concerns no agent.
func laneOf(unit map[string]any, offers map[string]string) string {
	switch unit["type"] {
	case "OFFERS":
		return "offers of " + textAt(offerOf(unit), "agent_id", "value")
	case "RESCIND":
		return offers[textAt(unit, "rescind", "offer_id", "value")]
	case "UPDATE":
		return textAt(unit, "update", "status", "agent_id", "value")
	case "UPDATE_OPERATION_STATUS":
		return textAt(unit, "update_operation_status", "status", "agent_id", "value")
	case "FAILURE":
		return textAt(unit, "failure", "agent_id", "value")
	}
	return ""
}

// run goes through the recording.
func (r *replay) run() {
	r.t.Helper()
	for _, l := range r.lines {
		switch {
		case l.Note != "":
			act := r.notes[l.Note]
			if act == nil {
				r.t.Fatalf("line %d: nothing to do at the note %q", l.number, l.Note)
			}
			r.catchUp(l)
			act()
			delete(r.notes, l.Note)
		case l.Dir == "call":
			r.catchUp(l)
			r.call(l)
		case l.Dir == "closed" && l.Error != nil:
			r.closed(func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) })
		}
	}
	r.awaitBefore(1e9)
	r.closed(func(err error) bool { return err == io.EOF })
	for note := range r.notes {
		r.t.Errorf("the recording has no note %q", note)
	}
	for call := range r.after {
		r.t.Errorf("the recording has no call %s", call)
	}
}

// catchUp waits for what was recorded before the line.
func (r *replay) catchUp(l line) {
	r.t.Helper()
	r.awaitBefore(l.T - causality)
}

func (r *replay) awaitBefore(t float64) {
	r.t.Helper()
	for {
		missing := r.missing(t)
		if missing == nil {
			return
		}
		r.take(fmt.Sprintf("line %d: %s", missing.line, short(missing.unit)))
	}
}

func (r *replay) missing(t float64) *expectation {
	for _, lane := range r.lanes {
		if len(lane) > 0 && lane[0].t < t {
			return &lane[0]
		}
	}
	return nil
}

// take compares the next of our events with the head of its lane.
func (r *replay) take(waitingFor string) {
	r.t.Helper()
	select {
	case unit, open := <-r.units:
		if !open {
			r.t.Fatalf("the stream ended while waiting for %s", waitingFor)
		}
		r.match(unit)
	case <-time.After(patience):
		r.t.Fatalf("waited in vain for %s", waitingFor)
	}
}

func (r *replay) match(unit map[string]any) {
	r.t.Helper()
	if unit["type"] == "HEARTBEAT" {
		return
	}
	if id := repetition(unit); id != "" {
		if first := r.seen[id]; first != nil {
			r.repeated++
			if !reflect.DeepEqual(unit, first) {
				r.t.Errorf("%s came again as %s", short(first), short(unit))
			}
			return
		}
		r.seen[id] = unit
	}
	lane := r.ourLane(unit)
	if len(r.lanes[lane]) == 0 {
		r.t.Fatalf("%s was not recorded", short(unit))
	}
	want := r.lanes[lane][0]
	r.lanes[lane] = r.lanes[lane][1:]
	if err := r.compare.equal("", want.unit, unit); err != nil {
		r.t.Fatalf("line %d: %v\ngot  %s\nwant %s", want.line, err, short(unit), short(want.unit))
	}
}

// ourLane is the recorded lane of one of our events.
func (r *replay) ourLane(unit map[string]any) string {
	if offer := offerOf(unit); offer != nil {
		recorded := r.hosts[textAt(offer, "hostname")]
		r.agents[textAt(offer, "agent_id", "value")] = recorded
		r.offers[textAt(offer, "id", "value")] = recorded
		return "offers of " + recorded
	}
	lane := laneOf(unit, r.offers)
	if recorded, ok := r.agents[lane]; ok {
		return recorded
	}
	return lane
}

// call makes a recorded call and compares the answer.
func (r *replay) call(l line) {
	r.t.Helper()
	kind := textAt(l.Call, "type")
	body := []byte(r.compare.translate(deref(l.Raw)))
	if l.Raw == nil {
		body = r.translated(l)
	}
	header := map[string]string{"Content-Type": "application/json", "Accept": "application/json"}
	switch {
	case l.Sent != nil:
		header = make(map[string]string)
		for key, value := range l.Sent {
			header[key] = r.compare.translate(value)
		}
	case kind != "SUBSCRIBE":
		header["Mesos-Stream-Id"] = r.stream
	}
	response := r.post("/api/v1/scheduler", body, header)
	if kind == "SUBSCRIBE" {
		r.subscribed(l, response)
	} else {
		r.answered(l, response)
	}
	r.counters[kind]++
	key := fmt.Sprintf("%s %d", kind, r.counters[kind])
	if act := r.after[key]; act != nil {
		delete(r.after, key)
		act()
	}
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// translated is the recorded call with our ids; it waits for the events that
// tell them.
func (r *replay) translated(l line) []byte {
	r.t.Helper()
	tree := mapStrings(l.Call, func(s string) string {
		for r.recorded[s] && r.compare.ours[s] == "" {
			r.take(fmt.Sprintf("line %d: what %q stands for", l.number, s))
		}
		if ours := r.compare.ours[s]; ours != "" {
			return ours
		}
		return s
	})
	body, err := json.Marshal(tree)
	if err != nil {
		r.t.Fatal(err)
	}
	return body
}

func (r *replay) post(path string, body []byte, header map[string]string) *http.Response {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+r.cluster.Addr()+path, strings.NewReader(string(body)))
	if err != nil {
		r.t.Fatal(err)
	}
	for key, value := range header {
		request.Header.Set(key, value)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		cancel()
		r.t.Fatal(err)
	}
	r.cancel = cancel
	r.t.Cleanup(cancel)
	return response
}

// subscribed reads the event stream from now on.
func (r *replay) subscribed(l line, response *http.Response) {
	r.t.Helper()
	if response.StatusCode != l.Status || response.Header.Get("Content-Type") != l.Headers["Content-Type"] ||
		!reflect.DeepEqual(response.TransferEncoding, []string{l.Headers["Transfer-Encoding"]}) {
		r.t.Errorf("line %d: %d %v %v, recorded was %d %v", l.number, response.StatusCode, response.Header, response.TransferEncoding, l.Status, l.Headers)
	}
	r.stream = response.Header.Get("Mesos-Stream-Id")
	if err := r.compare.pair(l.Headers["Mesos-Stream-Id"], r.stream); err != nil {
		r.t.Errorf("line %d: stream id: %v", l.number, err)
	}
	r.units, r.ended = make(chan map[string]any, 1000), make(chan error, 1)
	go readEvents(response.Body, r.units, r.ended)
	// The first heartbeat follows at once.
	r.take("SUBSCRIBED")
	if first := <-r.units; first["type"] != "HEARTBEAT" {
		r.t.Errorf("line %d: after SUBSCRIBED came %s", l.number, short(first))
	}
}

func readEvents(body io.ReadCloser, out chan<- map[string]any, ended chan<- error) {
	defer body.Close()
	defer close(out)
	reader := bufio.NewReader(body)
	for {
		header, err := reader.ReadString('\n')
		if err != nil {
			ended <- err
			return
		}
		length, err := strconv.Atoi(strings.TrimSuffix(header, "\n"))
		if err != nil {
			ended <- err
			return
		}
		record := make([]byte, length)
		if _, err := io.ReadFull(reader, record); err != nil {
			ended <- err
			return
		}
		var event map[string]any
		if err := json.Unmarshal(record, &event); err != nil {
			ended <- err
			return
		}
		for _, unit := range units(event) {
			out <- unit
		}
	}
}

func (r *replay) answered(l line, response *http.Response) {
	r.t.Helper()
	defer r.cancel()
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	if want := r.compare.translate(l.Body); response.StatusCode != l.Status || string(body) != want {
		r.t.Errorf("line %d: answer %d %q, recorded was %d %q", l.number, response.StatusCode, body, l.Status, want)
	}
	if l.Headers == nil {
		return
	}
	for _, name := range []string{"Content-Type", "Content-Length"} {
		if got := response.Header.Get(name); got != l.Headers[name] {
			r.t.Errorf("line %d: header %s is %q, recorded was %q", l.number, name, got, l.Headers[name])
		}
	}
	if _, err := http.ParseTime(response.Header.Get("Date")); err != nil {
		r.t.Errorf("line %d: header Date: %v", l.number, err)
	}
}

// closed waits for the end of the stream; what comes before must have been
// recorded.
func (r *replay) closed(right func(error) bool) {
	r.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case unit, open := <-r.units:
			if open {
				r.match(unit)
				continue
			}
			if err := <-r.ended; !right(err) {
				r.t.Errorf("the stream ended with %v", err)
			}
			return
		case <-timeout:
			r.t.Fatal("the stream does not end")
		}
	}
}

// operator makes an operator call and compares the answer with a recorded one.
func (r *replay) operator(kind, recorded string) {
	r.t.Helper()
	response := r.post("/api/v1", []byte(`{"type":"`+kind+`"}`), map[string]string{"Content-Type": "application/json", "Accept": "application/json"})
	defer r.cancel()
	defer response.Body.Close()
	var got, want any
	if err := json.NewDecoder(response.Body).Decode(&got); err != nil {
		r.t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join("testdata", recorded))
	if err != nil {
		r.t.Fatal(err)
	}
	if err := json.Unmarshal(text, &want); err != nil {
		r.t.Fatal(err)
	}
	sortAgents(got)
	sortAgents(want)
	if err := r.compare.equal("", want, got); err != nil {
		r.t.Errorf("%s: %v\ngot %s", kind, err, short(got))
	}
}

// sortAgents puts lists that concern several agents into one order.
func sortAgents(tree any) {
	object, ok := tree.(map[string]any)
	if !ok {
		if list, ok := tree.([]any); ok {
			for _, item := range list {
				sortAgents(item)
			}
		}
		return
	}
	for key, value := range object {
		sortAgents(value)
		list, ok := value.([]any)
		if !ok || (key != "agents" && key != "offers" && key != "offered_resources") {
			continue
		}
		sort.SliceStable(list, func(i, j int) bool { return sortKey(list[i]) < sortKey(list[j]) })
	}
}

// sortKey is an agent's hostname, an offer's with what it offers, or a
// resource.
func sortKey(item any) string {
	if at(item, "name") != nil {
		return short(item)
	}
	return textAt(item, "hostname") + textAt(item, "agent_info", "hostname") + short(at(item, "resources"))
}

func TestReplayStatefulSession(t *testing.T) {
	t.Parallel()
	r := newReplay(t, "stateful-session.jsonl", embeddedmesos.Timing{StatusRetry: time.Second})
	outputs := dvdcliOutputs(t, 145, 200)
	for _, operation := range []string{"mount nosuchdriver/v1", "unmount nosuchdriver/v1"} {
		answer := outputs[operation]
		// The recorded dvdcli took 15 s: the task is still being staged when
		// the framework reconciles.
		answer.Hold = operation == "mount nosuchdriver/v1"
		r.script.On(operation, answer)
	}
	r.after["KILL 1"] = func() { r.script.Release("mount nosuchdriver/v1") }
	// The failed unmount is left over, and tried again when the cluster ends.
	t.Cleanup(func() {
		r.script.Release("mount nosuchdriver/v1")
		r.script.On("unmount nosuchdriver/v1", agenttest.Answer{})
	})
	r.run()

	if r.repeated == 0 {
		t.Error("operation statuses that nobody acknowledged were not repeated")
	}
	want := []string{"mount rclone/v1", "unmount rclone/v1", "mount nosuchdriver/v1", "unmount nosuchdriver/v1"}
	if got := r.script.Operations(); !reflect.DeepEqual(got, want) {
		t.Errorf("dvdcli was called for %v, recorded was %v", got, want)
	}
}

// dvdcliOutputs are the recorded answers of dvdcli in a span of time, by
// operation.
func dvdcliOutputs(t *testing.T, from, to float64) map[string]agenttest.Answer {
	t.Helper()
	answers := make(map[string]agenttest.Answer)
	for _, text := range readLines(t, "dvdcli-calls.jsonl") {
		var call struct {
			T      float64
			Argv   []string
			Exit   int
			Stderr string
		}
		if err := json.Unmarshal(text, &call); err != nil {
			t.Fatal(err)
		}
		if call.Argv == nil || call.T < from || call.T > to {
			continue
		}
		answers[agenttest.Call{Argv: call.Argv}.Operation()] = agenttest.Answer{Stderr: call.Stderr, Exit: call.Exit}
	}
	return answers
}

func TestReplayPartitionAndFailoverSession(t *testing.T) {
	t.Parallel()
	r := newReplay(t, "partition-failover-session.jsonl", embeddedmesos.Timing{
		AgentPing: time.Second, AgentPingTimeouts: 5, // as many as recorded
	})
	agents := r.cluster.Agents()
	agent2 := agents[1]
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	r.notes["agent2 process frozen (SIGSTOP)"] = agent2.Freeze
	r.notes["agent2 process resumed (SIGCONT)"] = agent2.Thaw
	r.notes["agent2 process killed (SIGKILL) and started again: agent recovery, task keeps running"] = func() {
		check(agent2.KillProcess())
		check(agent2.Start(t.Context()))
	}
	r.notes["master killed (SIGKILL) and started again"] = func() {
		// The recorded agents took until after the framework's reconciliation
		// to come back.
		for _, a := range agents {
			a.Partition()
		}
		r.cluster.KillMaster()
		check(r.cluster.StartMaster(t.Context()))
	}
	r.after["RECONCILE 1"] = func() {
		for _, a := range agents {
			a.Heal()
		}
	}
	r.notes["operator call MARK_AGENT_GONE agent2"] = func() {
		for kind, recorded := range map[string]string{
			"GET_MASTER": "operator-get_master.json", "GET_AGENTS": "operator-get_agents.json",
			"GET_STATE": "operator-get_state.json", "GET_VERSION": "operator-get_version.json",
		} {
			r.operator(kind, recorded)
		}
		check(r.cluster.MarkAgentGone(t.Context(), agent2.ID()))
	}
	r.run()
}
