package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
)

// listen opens an event stream and waits until the core knows the listener.
func (w *wire) listen(query string, known int) *bufio.Reader {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", w.srv.URL+"/v2/events"+query, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	resp, err := w.srv.Client().Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		w.t.Fatalf("status %d, %v", resp.StatusCode, resp.Header)
	}
	w.until(func() bool { return w.core.listeners() == known })
	return bufio.NewReader(resp.Body)
}

// until polls for a condition with a deadline.
func (w *wire) until(cond func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatal("the condition did not come true")
		}
	}
}

// frame reads one event: its type and its data.
func frame(r *bufio.Reader) (kind, data string, err error) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", "", err
		}
		if !strings.HasSuffix(line, "\r\n") {
			return "", "", fmt.Errorf("line without CRLF: %q", line)
		}
		line = strings.TrimSuffix(line, "\r\n")
		switch {
		case strings.HasPrefix(line, "event: "):
			kind = line[len("event: "):]
		case strings.HasPrefix(line, "data: "):
			data = line[len("data: "):]
		case line == "" && kind != "":
			return kind, data, nil
		case line != "":
			return "", "", fmt.Errorf("unexpected line %q", line)
		}
	}
}

func event(kind string, n int) core.BusEvent {
	return core.BusEvent{Type: kind, Data: map[string]any{"eventType": kind, "n": n}}
}

func TestEventStreamNeedsItsMediaType(t *testing.T) {
	w := start(t, everything())
	w.ok(405, "GET", "/v2/events", "")
	if a := w.do("HEAD", "/v2/events", "", "Accept", "text/event-stream"); a.status != 200 || w.core.listeners() != 0 {
		t.Errorf("HEAD: status %d, %d listeners", a.status, w.core.listeners())
	}
}

func TestEventsArriveCompleteAndInOrder(t *testing.T) {
	const listeners, events = 100, 200
	w := start(t, everything())
	readers := make([]*bufio.Reader, listeners)
	for i := range readers {
		readers[i] = w.listen("?event_type=a&plan-format=light", i+1)
	}
	for n := range events {
		w.core.Publish(event("a", n))
		w.core.Publish(event("b", n))
	}
	var wg sync.WaitGroup
	for i, r := range readers {
		wg.Go(func() {
			for n := range events {
				kind, data, err := frame(r)
				var v struct{ N int }
				if err == nil {
					err = json.Unmarshal([]byte(data), &v)
				}
				if err != nil || kind != "a" || v.N != n {
					t.Errorf("listener %d: got %s %s %v, want number %d", i, kind, data, err, n)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestSlowListenerIsDropped(t *testing.T) {
	cfg := everything()
	cfg.EventBuffer = 8
	w := start(t, cfg)
	conn, err := net.Dial("tcp", w.srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// It asks and never reads.
	if _, err := fmt.Fprint(conn, "GET /v2/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	w.until(func() bool { return w.core.listeners() == 1 })
	quick := w.listen("?event_type=small", 2)
	big := core.BusEvent{Type: "big", Data: strings.Repeat("x", 1<<20)}
	for n := 0; w.core.listeners() == 2; n++ {
		w.core.Publish(big)
		w.core.Publish(event("small", n))
		// The quick one takes each event before the next is sent.
		if kind, _, err := frame(quick); err != nil || kind != "small" {
			t.Fatalf("the quick listener suffers: %s %v", kind, err)
		}
		if n > 1000 {
			t.Fatal("the slow listener is not dropped")
		}
	}
}

func TestHeartbeat(t *testing.T) {
	cfg := everything()
	cfg.Heartbeat = time.Millisecond
	w := start(t, cfg)
	r := w.listen("?event_type=none", 1)
	for range 3 {
		if line, err := r.ReadString('\n'); err != nil || line != "\r\n" {
			t.Fatalf("got %q %v", line, err)
		}
	}
}

func TestChangeOfOneAppIsAnnounced(t *testing.T) {
	w := start(t, everything())
	r := w.listen("?event_type=api_post_event", 1)
	w.ok(201, "POST", "/v2/apps", sleeper)
	w.ok(200, "PUT", "/v2/apps/a", `{"instances":2}`)
	for _, want := range []struct {
		uri       string
		instances int
	}{{"/v2/apps", 1}, {"/v2/apps/a", 2}} {
		_, data, err := frame(r)
		if err != nil {
			t.Fatal(err)
		}
		var ev struct {
			EventType, ClientIP, URI, Timestamp string
			AppDefinition                       struct {
				ID        string
				Instances int
				Version   string
			}
		}
		if err := json.Unmarshal([]byte(data), &ev); err != nil {
			t.Fatal(err)
		}
		if ev.EventType != "api_post_event" || ev.ClientIP != "127.0.0.1" || ev.URI != want.uri || ev.AppDefinition.Instances != want.instances || ev.AppDefinition.Version == "" {
			t.Errorf("got %s", data)
		}
	}
}

// Clients of Marathon's that know all its events get no others, unless they ask.
func TestEventsThatMarathonDoesNotHave(t *testing.T) {
	w := start(t, everything())
	own := core.BusEvent{Type: "own", Data: map[string]any{"eventType": "own"}, Extension: true}
	for n, c := range []struct{ query, want string }{
		{"", "a"}, {"?event_type=a", "a"}, {"?event_type=own", "own"}, {"?extensions=true", "own"}, {"?extensions=true&event_type=a", "a"},
	} {
		r := w.listen(c.query, n+1)
		w.core.Publish(own)
		w.core.Publish(event("a", 1))
		kind := ""
		for kind != "own" && kind != "a" {
			var err error
			if kind, _, err = frame(r); err != nil {
				t.Fatal(err)
			}
		}
		if kind != c.want {
			t.Errorf("%q: %s came first, want %s", c.query, kind, c.want)
		}
	}
}

func TestDeprecatedDefinitionsAreAnnounced(t *testing.T) {
	const old = `{"id":"/a","cmd":"x","env":{"DVDI_VOLUME_NAME":"v","DVDI_VOLUME_DRIVER":"d"}}`
	for what, send := range map[string]func(*wire){
		"post":   func(w *wire) { w.ok(201, "POST", "/v2/apps", old) },
		"put":    func(w *wire) { w.ok(201, "PUT", "/v2/apps/a", old) },
		"groups": func(w *wire) { w.ok(201, "POST", "/v2/groups", `{"id":"/","apps":[`+old+`]}`) },
	} {
		w := start(t, everything())
		r := w.listen("?event_type=deprecation_event", 1)
		send(w)
		_, data, err := frame(r)
		if err != nil {
			t.Fatal(err)
		}
		var ev struct{ EventType, AppID, Message, Timestamp string }
		if err := json.Unmarshal([]byte(data), &ev); err != nil {
			t.Fatal(err)
		}
		if ev.AppID != "/a" || !strings.Contains(ev.Message, "container.volumes") || ev.Timestamp == "" {
			t.Errorf("%s: %s", what, data)
		}
	}
}

func TestChangeOfAGroupIsAnnounced(t *testing.T) {
	w := start(t, everything())
	r := w.listen("?event_type=group_change_success&event_type=group_change_failed", 1)
	w.ok(201, "POST", "/v2/groups", `{"id":"/g","apps":[{"id":"a","cmd":"x"}]}`)
	w.core.mu.Lock()
	w.core.deployments = []core.DeploymentView{{ID: "d", Apps: []app.ID{"/g/a"}}}
	w.core.mu.Unlock()
	w.ok(409, "DELETE", "/v2/groups/g?force=false", "")
	for _, want := range []string{"group_change_success", "group_change_failed"} {
		kind, data, err := frame(r)
		if err != nil || kind != want || !strings.Contains(data, `"groupId":"/g"`) || strings.Contains(data, "locked") != (want == "group_change_failed") {
			t.Errorf("%s %s %v, want %s", kind, data, err, want)
		}
	}
}
