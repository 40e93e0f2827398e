package mesos

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/gogo/protobuf/proto"
	mesosgo "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/master"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/framework/detect"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/mesosjson"
)

// deadline bounds every wait of the tests; no test comes near it unless it fails.
const deadline = time.Minute

const testFrameworkID = "f-0001"

// scriptedMaster is a master that answers as the test says.
type scriptedMaster struct {
	*httptest.Server
	// subscribe answers the n-th SUBSCRIBE, counted from 1. Its return ends
	// the stream.
	subscribe func(n int, s *stream)
	// answer answers all other calls; nil accepts them.
	answer func(w http.ResponseWriter, r *http.Request, call *scheduler.Call)
	// operator answers /api/v1.
	operator func(w http.ResponseWriter, r *http.Request)

	calls chan received // all calls but SUBSCRIBE

	mu         sync.Mutex // guards what follows
	subscribes []received
}

type received struct {
	call   *scheduler.Call
	header http.Header
}

// stream is the answer to one SUBSCRIBE.
type stream struct {
	http.ResponseWriter
	request *http.Request
	id      string
}

func newScriptedMaster(t *testing.T, subscribe func(n int, s *stream)) *scriptedMaster {
	return newUnstartedMaster(t, subscribe).start(t)
}

func newUnstartedMaster(t *testing.T, subscribe func(n int, s *stream)) *scriptedMaster {
	m := &scriptedMaster{subscribe: subscribe, calls: make(chan received, 256)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+schedulerPath, func(w http.ResponseWriter, r *http.Request) { m.scheduler(t, w, r) })
	mux.HandleFunc("POST "+operatorPath, func(w http.ResponseWriter, r *http.Request) { m.operator(w, r) })
	m.Server = httptest.NewUnstartedServer(mux)
	return m
}

func (m *scriptedMaster) start(t *testing.T) *scriptedMaster {
	m.Start()
	t.Cleanup(m.Close)
	return m
}

func (m *scriptedMaster) scheduler(t *testing.T, w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Errorf("read a call: %v", err)
	}
	call := &scheduler.Call{}
	if err := proto.Unmarshal(body, call); err != nil {
		t.Errorf("decode a call: %v", err)
	}
	if got := r.Header.Get("Content-Type"); got != protobufType {
		t.Errorf("content type %q, want %q", got, protobufType)
	}
	if call.Type == scheduler.Call_SUBSCRIBE {
		m.mu.Lock()
		m.subscribes = append(m.subscribes, received{call, r.Header})
		n := len(m.subscribes)
		m.mu.Unlock()
		m.subscribe(n, &stream{ResponseWriter: w, request: r, id: "stream-" + strconv.Itoa(n)})
		return
	}
	m.calls <- received{call, r.Header}
	if m.answer != nil {
		m.answer(w, r, call)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

// hostPort is where the master listens.
func (m *scriptedMaster) hostPort() (host, port string) {
	host, port, err := net.SplitHostPort(m.Listener.Addr().String())
	if err != nil {
		panic(err)
	}
	return host, port
}

// subscriptions are the SUBSCRIBE calls so far.
func (m *scriptedMaster) subscriptions() []received {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]received(nil), m.subscribes...)
}

// accept begins the stream with SUBSCRIBED.
func (s *stream) accept() {
	s.acceptEvery(15)
}

func (s *stream) acceptEvery(heartbeatSeconds float64) {
	s.Header().Set(streamIDHeader, s.id)
	s.Header().Set("Content-Type", protobufType)
	s.WriteHeader(http.StatusOK)
	s.send(&scheduler.Event{
		Type: scheduler.Event_SUBSCRIBED,
		Subscribed: &scheduler.Event_Subscribed{
			FrameworkID:              &mesosgo.FrameworkID{Value: testFrameworkID},
			HeartbeatIntervalSeconds: &heartbeatSeconds,
			MasterInfo:               &mesosgo.MasterInfo{ID: "m", Port: pointer(uint32(5050)), Version: pointer("1.12.0")},
		},
	})
}

func (s *stream) send(e *scheduler.Event) {
	data, err := proto.Marshal(e)
	if err != nil {
		panic(err)
	}
	s.frame(data)
}

func (s *stream) frame(data []byte) {
	s.raw(strconv.Itoa(len(data)) + "\n" + string(data))
}

// raw writes bytes as they are. A reader that has gone away is the test's
// matter, not an error.
func (s *stream) raw(text string) {
	_, _ = io.WriteString(s, text)
	s.ResponseWriter.(http.Flusher).Flush()
}

// hold keeps the stream open until the client leaves.
func (s *stream) hold() { <-s.request.Context().Done() }

// abort cuts the connection.
func (s *stream) abort() { panic(http.ErrAbortHandler) }

// testConn is a connection under test.
type testConn struct {
	*Conn
	t    *testing.T
	logs *observer.ObservedLogs
	stop context.CancelFunc
	done chan struct{}
	err  error // of Run, to be read after done
}

func testConfig(t *testing.T, addresses ...string) Config {
	t.Helper()
	list, err := detect.NewList(addresses...)
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Detector: list, Name: "test", User: "nobody", Roles: []string{"dvdi"},
		FailoverTimeout: time.Hour, Checkpoint: true, Principal: "dvdi-principal",
		MinBackoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond,
	}
}

// run starts a connection that ends with the test.
func run(t *testing.T, config Config, frameworkID string) *testConn {
	t.Helper()
	observed, logs := observer.New(zap.DebugLevel)
	conn, err := New(config, zap.New(observed))
	if err != nil {
		t.Fatal(err)
	}
	c := runConn(t, conn, frameworkID)
	c.logs = logs
	return c
}

// runConn starts a connection that was made before.
func runConn(t *testing.T, conn *Conn, frameworkID string) *testConn {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	c := &testConn{Conn: conn, t: t, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.err = conn.Run(ctx, frameworkID)
	}()
	t.Cleanup(func() {
		stop()
		c.wait()
	})
	return c
}

// wait waits for the end of Run and returns its error.
func (c *testConn) wait() error {
	c.t.Helper()
	for {
		select {
		case <-c.Events():
		case <-c.done:
			return c.err
		case <-time.After(deadline):
			c.t.Fatal("Run does not return")
		}
	}
}

// next returns the next event.
func (c *testConn) next() core.Event {
	c.t.Helper()
	select {
	case e, ok := <-c.Events():
		if !ok {
			<-c.done
			c.t.Fatalf("no more events, Run returned: %v", c.err)
		}
		return e
	case <-time.After(deadline):
		c.t.Fatal("no event")
	}
	return nil
}

// expect returns the next event, which must be of type E.
func expect[E core.Event](c *testConn) E {
	c.t.Helper()
	e := c.next()
	want, ok := e.(E)
	if !ok {
		c.t.Fatalf("event %T %+v, want %T", e, e, want)
	}
	return want
}

// nextCall returns the next call that the master got.
func (m *scriptedMaster) nextCall(t *testing.T) received {
	t.Helper()
	select {
	case r := <-m.calls:
		return r
	case <-time.After(deadline):
		t.Fatal("no call")
	}
	return received{}
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	return ctx
}

// recorded is one line of a capture.
type recorded struct {
	Dir   string          `json:"dir"`
	Call  json.RawMessage `json:"call"`
	Raw   *string         `json:"raw"`
	Event json.RawMessage `json:"event"`
	// Status is that of the answer to a call.
	Status int `json:"status"`
}

// capture reads a session with a real master.
func capture(t *testing.T, name string) (events []*scheduler.Event, calls []*scheduler.Call) {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line recorded
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		switch {
		case line.Dir == "event":
			e := &scheduler.Event{}
			unmarshalJSON(t, line.Event, e)
			events = append(events, e)
		case line.Dir == "call" && line.Raw == nil && line.Status/100 == 2:
			call := &scheduler.Call{}
			unmarshalJSON(t, line.Call, call)
			calls = append(calls, call)
		}
	}
	if lines.Err() != nil || len(events) == 0 || len(calls) == 0 {
		t.Fatalf("%s: %d events, %d calls, error %v", name, len(events), len(calls), lines.Err())
	}
	return events, calls
}

func unmarshalJSON(t *testing.T, data []byte, into proto.Message) {
	t.Helper()
	if err := mesosjson.Unmarshal(data, into); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
}

// agentsAnswer is the recorded answer to GET_AGENTS.
func agentsAnswer(t *testing.T) *master.Response {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "operator-get_agents.json"))
	if err != nil {
		t.Fatal(err)
	}
	answer := &master.Response{}
	unmarshalJSON(t, data, answer)
	return answer
}

func writeMessage(t *testing.T, w http.ResponseWriter, m proto.Message) {
	data, err := proto.Marshal(m)
	if err != nil {
		t.Error(err)
	}
	w.Header().Set("Content-Type", protobufType)
	if _, err := w.Write(data); err != nil {
		t.Error(err)
	}
}

func diffMessages(got, want proto.Message) string {
	if proto.Equal(got, want) {
		return ""
	}
	return fmt.Sprintf("got  %v\nwant %v", got, want)
}
