package master_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gogo/protobuf/proto"
	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/maintenance"
	operator "github.com/mesos/mesos-go/api/v1/lib/master"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"go.uber.org/zap/zaptest"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/master"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/mesosjson"
	"github.com/mesos-dvdi/dvdi/internal/freeport"
)

// deadline is how long a test waits for what must happen.
const deadline = 2 * time.Minute

const (
	mediaJSON     = "application/json"
	mediaProtobuf = "application/x-protobuf"
)

// fast are intervals for tests. No agent is given up for its silence unless
// losesAgents says so: on a busy machine none would be safe.
var fast = master.Timing{
	Heartbeat:         100 * time.Millisecond,
	AgentPing:         deadline,
	AgentPingTimeouts: 5,
	Allocation:        10 * time.Millisecond,
	AgentReregister:   time.Minute,
}

// losesAgents has the master notice soon when an agent is cut off.
func losesAgents(cfg *master.Config) { cfg.Timing.AgentPing = 200 * time.Millisecond }

// cluster is a master with a network, both of which survive restarts.
type cluster struct {
	t       *testing.T
	cfg     master.Config
	address string
	network *link.Network
	master  *master.Master
	auth    string // principal:secret for subscriptions
}

func startCluster(t *testing.T, configure ...func(*master.Config)) *cluster {
	t.Helper()
	c := &cluster{t: t, network: link.NewNetwork()}
	c.cfg = master.Config{
		Network: c.network,
		Dir:     t.TempDir(),
		ID:      "m0",
		Logger:  zaptest.NewLogger(t),
		Timing:  fast,
		Domain:  domain("region-1", "zone-1"),
	}
	for _, f := range configure {
		f(&c.cfg)
	}
	c.start()
	t.Cleanup(func() {
		if err := c.master.Close(); err != nil {
			t.Errorf("master had failed: %v", err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return c
}

func domain(region, zone string) *mesos.DomainInfo {
	return &mesos.DomainInfo{FaultDomain: &mesos.DomainInfo_FaultDomain{
		Region: mesos.DomainInfo_FaultDomain_RegionInfo{Name: region},
		Zone:   mesos.DomainInfo_FaultDomain_ZoneInfo{Name: zone},
	}}
}

// listen opens a free address, and the same again when the master is started again.
func (c *cluster) listen() (net.Listener, error) {
	if c.address == "" {
		return freeport.Listen("127.0.0.1")
	}
	return net.Listen("tcp", c.address)
}

func (c *cluster) start() {
	c.t.Helper()
	listener, err := c.listen()
	if err != nil {
		c.t.Fatal(err)
	}
	c.address = listener.Addr().String()
	c.cfg.Listener = listener
	if c.master, err = master.Start(c.cfg); err != nil {
		c.t.Fatal(err)
	}
}

// failover ends the master and starts another one.
func (c *cluster) failover(id string) {
	c.t.Helper()
	if err := c.master.Kill(); err != nil {
		c.t.Fatal(err)
	}
	c.cfg.ID = id
	c.start()
}

// answer is an HTTP answer that was read whole.
type answer struct {
	status int
	header http.Header
	body   string
}

// post sends a raw request body.
func (c *cluster) post(path, body string, header map[string]string) answer {
	c.t.Helper()
	request, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, "http://"+c.address+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	for key, value := range header {
		if key == "auth" {
			user, secret, _ := strings.Cut(value, ":")
			request.SetBasicAuth(user, secret)
			continue
		}
		request.Header.Set(key, value)
	}
	return c.do(request)
}

func (c *cluster) do(request *http.Request) answer {
	c.t.Helper()
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	request.Close = true // the next master may be another one
	response, err := client.Do(request)
	if err != nil {
		c.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(body)}
}

// operate makes an operator call in both media types and wants the same answer.
func (c *cluster) operate(call *operator.Call) *operator.Response {
	c.t.Helper()
	var answers []*operator.Response
	for _, media := range []string{mediaJSON, mediaProtobuf} {
		got := c.post("/api/v1", encode(c.t, media, call), map[string]string{"Content-Type": media, "Accept": media})
		if got.status/100 != 2 {
			c.t.Fatalf("%s: %d %s", call.Type, got.status, got.body)
		}
		response := &operator.Response{}
		if got.body != "" {
			decode(c.t, media, []byte(got.body), response)
		}
		answers = append(answers, response)
	}
	if call.Type < operator.Call_MARK_AGENT_GONE && !reflect.DeepEqual(answers[0].GetType(), answers[1].GetType()) {
		c.t.Errorf("JSON says %v, protobuf %v", answers[0], answers[1])
	}
	return answers[0]
}

func encode(t *testing.T, media string, m proto.Message) string {
	t.Helper()
	marshal := proto.Marshal
	if media == mediaJSON {
		marshal = mesosjson.Marshal
	}
	body, err := marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func decode(t *testing.T, media string, body []byte, m proto.Message) {
	t.Helper()
	unmarshal := proto.Unmarshal
	if media == mediaJSON {
		unmarshal = mesosjson.Unmarshal
	}
	if err := unmarshal(body, m); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
}

// client is a framework.
type client struct {
	t      *testing.T
	c      *cluster
	media  string
	auth   string
	id     *mesos.FrameworkID
	stream string
	cancel func()
	events chan *scheduler.Event
	ended  chan error
}

func framework(roles ...string) *mesos.FrameworkInfo {
	if len(roles) == 0 {
		roles = []string{"dvdi"}
	}
	info := &mesos.FrameworkInfo{
		User: "root", Name: "test", Roles: roles, FailoverTimeout: ptr(60.0), Checkpoint: ptr(true),
		Principal: ptr("dvdi-principal"),
	}
	for _, c := range []mesos.FrameworkInfo_Capability_Type{
		mesos.FrameworkInfo_Capability_MULTI_ROLE, mesos.FrameworkInfo_Capability_RESERVATION_REFINEMENT,
		mesos.FrameworkInfo_Capability_PARTITION_AWARE, mesos.FrameworkInfo_Capability_REGION_AWARE,
		mesos.FrameworkInfo_Capability_TASK_KILLING_STATE,
	} {
		info.Capabilities = append(info.Capabilities, mesos.FrameworkInfo_Capability{Type: c})
	}
	return info
}

func ptr[T any](v T) *T { return &v }

// subscribe opens an event stream and returns the framework's client once the
// answer's header is there.
func (c *cluster) subscribe(media string, info *mesos.FrameworkInfo, suppressed ...string) *client {
	c.t.Helper()
	f := &client{t: c.t, c: c, media: media, id: info.ID, events: make(chan *scheduler.Event, 1000), ended: make(chan error, 1)}
	call := &scheduler.Call{
		Type: scheduler.Call_SUBSCRIBE, FrameworkID: info.ID,
		Subscribe: &scheduler.Call_Subscribe{FrameworkInfo: info, SuppressedRoles: suppressed},
	}
	connection, err := net.Dial("tcp", c.address)
	if err != nil {
		c.t.Fatal(err)
	}
	f.cancel = func() { connection.Close() }
	c.t.Cleanup(func() {
		f.cancel()
		<-f.ended
	})
	body := encode(c.t, media, call)
	authorization := ""
	if c.auth != "" {
		f.auth = c.auth
		authorization = "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(c.auth)) + "\r\n"
	}
	fmt.Fprintf(connection, "POST /api/v1/scheduler HTTP/1.1\r\nHost: x\r\n%sContent-Type: %s\r\nAccept: %s\r\nContent-Length: %d\r\n\r\n%s",
		authorization, media, media, len(body), body)
	response, err := http.ReadResponse(bufio.NewReader(connection), nil)
	if err != nil {
		c.t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		c.t.Fatalf("SUBSCRIBE: %s", response.Status)
	}
	if got := response.Header.Get("Content-Type"); got != media {
		c.t.Errorf("Content-Type %q, want %q", got, media)
	}
	f.stream = response.Header.Get("Mesos-Stream-Id")
	go f.read(response.Body)
	return f
}

// read decodes records until the stream ends.
func (f *client) read(body io.Reader) {
	reader := bufio.NewReader(body)
	defer close(f.ended)
	defer close(f.events)
	for {
		record, err := readRecord(reader)
		if err != nil {
			f.ended <- err
			return
		}
		event := &scheduler.Event{}
		unmarshal := proto.Unmarshal
		if f.media == mediaJSON {
			unmarshal = mesosjson.Unmarshal
		}
		if err := unmarshal(record, event); err != nil {
			f.ended <- fmt.Errorf("%w in %q", err, record)
			return
		}
		f.events <- event
	}
}

func readRecord(reader *bufio.Reader) ([]byte, error) {
	header, err := reader.ReadString('\n')
	if err != nil {
		return nil, err
	}
	length, err := strconv.Atoi(strings.TrimSuffix(header, "\n"))
	if err != nil {
		return nil, err
	}
	if length > 64<<20 {
		return nil, fmt.Errorf("record of %d bytes", length)
	}
	record := make([]byte, length)
	_, err = io.ReadFull(reader, record)
	return record, err
}

// next returns the next event that is not a heartbeat.
func (f *client) next() *scheduler.Event {
	f.t.Helper()
	timeout := time.After(deadline)
	for {
		select {
		case event, open := <-f.events:
			if !open {
				f.t.Fatal("the stream ended")
			}
			if event.Type != scheduler.Event_HEARTBEAT {
				return event
			}
		case <-timeout:
			f.t.Fatal("no event")
		}
	}
}

// await returns the next event of a type; offers and inverse offers in between
// are ignored, other events are an error.
func (f *client) await(want scheduler.Event_Type) *scheduler.Event {
	f.t.Helper()
	for {
		event := f.next()
		if event.Type == want {
			return event
		}
		if event.Type != scheduler.Event_OFFERS && event.Type != scheduler.Event_INVERSE_OFFERS {
			f.t.Fatalf("got %v while waiting for %s", event, want)
		}
	}
}

func (f *client) subscribed() *client {
	f.t.Helper()
	f.id = f.await(scheduler.Event_SUBSCRIBED).Subscribed.FrameworkID
	return f
}

func (f *client) update() mesos.TaskStatus {
	f.t.Helper()
	return f.await(scheduler.Event_UPDATE).Update.Status
}

// offer waits for an offer that satisfies the condition.
func (f *client) offer(wanted func(mesos.Offer) bool) mesos.Offer {
	f.t.Helper()
	for {
		for _, o := range f.await(scheduler.Event_OFFERS).Offers.Offers {
			if wanted(o) {
				return o
			}
		}
	}
}

func anyOffer(mesos.Offer) bool { return true }

// call makes a call and wants 202.
func (f *client) call(call *scheduler.Call) {
	f.t.Helper()
	if got := f.try(call); got.status != http.StatusAccepted {
		f.t.Fatalf("%s: %d %s", call.Type, got.status, got.body)
	}
}

func (f *client) try(call *scheduler.Call) answer {
	f.t.Helper()
	call.FrameworkID = f.id
	header := map[string]string{"Content-Type": f.media, "Mesos-Stream-Id": f.stream}
	if f.auth != "" {
		header["auth"] = f.auth
	}
	return f.c.post("/api/v1/scheduler", encode(f.t, f.media, call), header)
}

func (f *client) accept(o mesos.Offer, operations ...mesos.Offer_Operation) {
	f.t.Helper()
	f.call(&scheduler.Call{Type: scheduler.Call_ACCEPT, Accept: &scheduler.Call_Accept{
		OfferIDs: []mesos.OfferID{o.ID}, Operations: operations, Filters: &mesos.Filters{RefuseSeconds: ptr(0.0)},
	}})
}

func (f *client) acknowledge(status mesos.TaskStatus) {
	f.t.Helper()
	f.call(&scheduler.Call{Type: scheduler.Call_ACKNOWLEDGE, Acknowledge: &scheduler.Call_Acknowledge{
		AgentID: *status.AgentID, TaskID: status.TaskID, UUID: status.UUID,
	}})
}

func (f *client) reconcile(tasks ...scheduler.Call_Reconcile_Task) {
	f.t.Helper()
	f.call(&scheduler.Call{Type: scheduler.Call_RECONCILE, Reconcile: &scheduler.Call_Reconcile{Tasks: tasks}})
}

func launch(tasks ...mesos.TaskInfo) mesos.Offer_Operation {
	return mesos.Offer_Operation{Type: mesos.Offer_Operation_LAUNCH, Launch: &mesos.Offer_Operation_Launch{TaskInfos: tasks}}
}

func task(id string, agent mesos.AgentID, rs ...mesos.Resource) mesos.TaskInfo {
	if len(rs) == 0 {
		rs = []mesos.Resource{scalar("cpus", 0.1), scalar("mem", 32)}
	}
	return mesos.TaskInfo{
		Name: id, TaskID: mesos.TaskID{Value: id}, AgentID: agent, Resources: rs,
		Command: &mesos.CommandInfo{Value: ptr("true"), Shell: ptr(true)},
	}
}

func scalar(name string, value float64) mesos.Resource {
	return mesos.Resource{Name: name, Type: mesos.SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: value}}
}

// text is a message as JSON, for comparing.
func text(t *testing.T, m proto.Message) string {
	t.Helper()
	body, err := mesosjson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, body, "", " "); err != nil {
		t.Fatal(err)
	}
	return indented.String()
}

// poll waits until a condition that nothing announces holds.
func poll(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func mesosWindow(machines []mesos.MachineID) maintenance.Window {
	return maintenance.Window{
		MachineIDs:     machines,
		Unavailability: mesos.Unavailability{Start: mesos.TimeInfo{Nanoseconds: 1}, Duration: &mesos.DurationInfo{Nanoseconds: 2}},
	}
}
