package api

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/core"
)

func TestBasicAuthentication(t *testing.T) {
	cfg := everything()
	cfg.User, cfg.Password = "ops", "s3cret"
	w := start(t, cfg)
	for _, path := range []string{"/v2/apps", "/ping", "/v2/events", "/v2/nothing"} {
		a := w.ok(401, "GET", path, "")
		if a.header.Get("WWW-Authenticate") != `Basic realm="Mesosphere"` {
			t.Errorf("%s: headers %v", path, a.header)
		}
	}
	for _, c := range []struct {
		user, password string
		status         int
	}{{"ops", "s3cret", 200}, {"ops", "wrong", 401}, {"other", "s3cret", 401}, {"ops", "", 401}} {
		req := httptest.NewRequest("GET", "/", nil)
		req.SetBasicAuth(c.user, c.password)
		if a := w.do("GET", "/v2/apps", "", "Authorization", req.Header.Get("Authorization")); a.status != c.status {
			t.Errorf("%s:%s: status %d, want %d", c.user, c.password, a.status, c.status)
		}
	}
}

func TestCrossOriginIsOffByDefault(t *testing.T) {
	w := start(t, everything())
	if a := w.do("GET", "/v2/apps", "", "Origin", "http://x"); a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("headers %v", a.header)
	}
	cfg := everything()
	cfg.AllowOrigin = "http://x"
	cfg.User, cfg.Password = "ops", "s3cret"
	w = start(t, cfg)
	a := w.do("OPTIONS", "/v2/apps", "", "Origin", "http://x", "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "X-A, X-B")
	if a.status != 200 {
		t.Errorf("preflight: status %d", a.status)
	}
	for k, v := range map[string]string{
		"Access-Control-Allow-Origin": "http://x", "Access-Control-Allow-Headers": "X-A, X-B",
		"Access-Control-Allow-Methods": "GET, HEAD, OPTIONS", "Access-Control-Max-Age": "86400",
	} {
		if a.header.Get(k) != v {
			t.Errorf("%s: %q", k, a.header.Get(k))
		}
	}
	if a := w.do("OPTIONS", "/v2/apps", ""); a.status != 401 {
		t.Errorf("OPTIONS that is no preflight: status %d", a.status)
	}
}

func TestConcurrencyLimit(t *testing.T) {
	s := &server{cfg: Config{MaxConcurrent: 1}, log: zap.NewNop()}
	entered, leave := make(chan struct{}), make(chan struct{})
	srv := httptest.NewServer(s.limited(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(entered)
			<-leave
		}
	})))
	t.Cleanup(srv.Close)
	t.Cleanup(srv.Client().CloseIdleConnections)
	w := &wire{t: t, srv: srv}
	done := make(chan struct{})
	go func() {
		defer close(done)
		resp, err := srv.Client().Get(srv.URL + "/slow")
		if err != nil {
			t.Error(err)
			return
		}
		resp.Body.Close()
	}()
	<-entered
	w.ok(503, "GET", "/v2/apps", "").wants("Too many concurrent requests! Allowed: 1.", "message")
	w.ok(200, "GET", "/v2/events", "")
	close(leave)
	<-done
	w.ok(200, "GET", "/v2/apps", "")
}

// panicking is a core with a bug.
type panicking struct{ core.Service }

func (panicking) Info() core.Info { return core.Info{} }

func TestPanicIsAnswered(t *testing.T) {
	srv := httptest.NewServer(New(everything(), panicking{}, zap.NewNop()))
	t.Cleanup(srv.Close)
	t.Cleanup(srv.Client().CloseIdleConnections)
	w := &wire{t: t, srv: srv}
	a := w.ok(500, "GET", "/v2/apps", "")
	if !strings.Contains(a.message(), "internal error") {
		t.Errorf("got %s", a.body)
	}
}

func TestOptionsListsMethods(t *testing.T) {
	w := start(t, everything())
	a := w.ok(200, "OPTIONS", "/v2/apps/a", "")
	if got := a.header.Get("Allow"); got != "DELETE, GET, HEAD, OPTIONS, PATCH, PUT" {
		t.Errorf("Allow: %q", got)
	}
}

func TestSlowBodiesEnd(t *testing.T) {
	cfg := everything()
	cfg.BodyTimeout = 50 * time.Millisecond
	w := start(t, cfg)
	conn, err := net.Dial("tcp", w.srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprint(conn, "POST /v2/apps HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 408 ") {
		t.Errorf("%v: %s", err, answer)
	}
}

// deadlines notes what becomes of a connection's deadline for reading.
type deadlines struct {
	http.ResponseWriter
	last time.Time
	set  int
}

func (d *deadlines) SetReadDeadline(t time.Time) error {
	d.last = t
	d.set++
	return nil
}

// A change may take longer than its body had to arrive in.
func TestDeadlineEndsWithTheBody(t *testing.T) {
	h := New(everything(), newFake(), zap.NewNop())
	w := httptest.NewRecorder()
	d := &deadlines{ResponseWriter: w}
	h.ServeHTTP(d, httptest.NewRequest("POST", "/v2/apps", strings.NewReader(`{"id":"/a","cmd":"x"}`)))
	if w.Code != 201 || d.set < 2 || !d.last.IsZero() {
		t.Errorf("%d; the deadline was set %d times, last to %v", w.Code, d.set, d.last)
	}
}

func TestCodedBodiesAreRefused(t *testing.T) {
	w := start(t, everything())
	var coded bytes.Buffer
	z := gzip.NewWriter(&coded)
	if _, err := z.Write([]byte(`{"id":"/a","cmd":"x"}`)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for _, coding := range []string{"gzip", "identity, br"} {
		a := w.do("POST", "/v2/apps", coded.String(), "Content-Encoding", coding)
		if a.status != 415 || a.header.Get("Accept-Encoding") != "identity" || !strings.Contains(a.message(), coding) {
			t.Errorf("%s: %d, Accept-Encoding %q, %s", coding, a.status, a.header.Get("Accept-Encoding"), a.body)
		}
	}
	w.ok(404, "GET", "/v2/apps/a", "")
	if a := w.do("POST", "/v2/apps", `{"id":"/a","cmd":"x"}`, "Content-Encoding", "Identity"); a.status != 201 {
		t.Errorf("a body without a coding: %d %s", a.status, a.body)
	}
}

// A page of another server can have its reader's browser send a body, but not one
// that is called JSON.
func TestBodiesOfOtherPagesAreRefused(t *testing.T) {
	w := start(t, everything())
	w.ok(201, "POST", "/v2/apps", `{"id":"/a","cmd":"x"}`)
	for _, c := range []struct {
		kind, origin string
		want         int
	}{
		{"text/plain", "http://elsewhere", 415},
		{"application/x-www-form-urlencoded", "http://elsewhere", 415},
		{"", "null", 415},
		{"application/json; charset=utf-8", "http://elsewhere", 200},
		{"application/x-www-form-urlencoded", "", 200}, // as curl sends it
		{"", "", 200},
	} {
		if a := w.do("PUT", "/v2/apps/a?force=true", `{"cmd":"y"}`, "Content-Type", c.kind, "Origin", c.origin); a.status != c.want {
			t.Errorf("type %q, origin %q: %d %s", c.kind, c.origin, a.status, a.body)
		}
	}
	if a := w.do("POST", "/v2/apps/a/restart?force=true", "", "Origin", "http://elsewhere"); a.status != 200 {
		t.Errorf("without a body: %d %s", a.status, a.body)
	}
}
