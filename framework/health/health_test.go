package health

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mesos-dvdi/dvdi/framework/core"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newRunner(t *testing.T) *Runner {
	t.Helper()
	r := New(4)
	t.Cleanup(r.Close)
	return r
}

// outcome waits for the next result.
func outcome(t *testing.T, r *Runner) core.CheckOutcome {
	t.Helper()
	select {
	case o := <-r.Results():
		return o
	case <-time.After(time.Minute):
		t.Fatal("no result")
		return core.CheckOutcome{}
	}
}

func target(id string) core.CheckTarget {
	return core.CheckTarget{Key: core.CheckKey{TaskID: id}, Interval: time.Millisecond, Timeout: 30 * time.Second}
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func TestStatusDecides(t *testing.T) {
	for _, c := range []struct {
		status   int
		statuses []int
		ok       bool
	}{
		{200, nil, true}, {302, nil, true}, {399, nil, true}, {404, nil, false}, {500, nil, false},
		{200, []int{204}, false}, {503, []int{503}, true},
	} {
		r := New(1)
		tg := target("t")
		tg.URL = serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(c.status)
		})
		tg.Statuses = c.statuses
		r.Sync([]core.CheckTarget{tg})
		o := outcome(t, r)
		if o.OK != c.ok || o.Status != c.status || (o.Cause == "") != c.ok {
			t.Errorf("%d of %v: %+v", c.status, c.statuses, o)
		}
		r.Close()
	}
}

func TestUnverifiedTLS(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	r := newRunner(t)
	tg := target("t")
	tg.URL = s.URL
	r.Sync([]core.CheckTarget{tg})
	if o := outcome(t, r); !o.OK {
		t.Errorf("%+v", o)
	}
}

func TestTimeout(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	r := newRunner(t)
	tg := target("t")
	tg.Timeout = 20 * time.Millisecond
	tg.URL = serve(t, func(_ http.ResponseWriter, req *http.Request) {
		select {
		case <-release:
		case <-req.Context().Done():
		}
	})
	r.Sync([]core.CheckTarget{tg})
	if o := outcome(t, r); o.OK || !strings.Contains(o.Cause, "deadline") {
		t.Errorf("%+v", o)
	}
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := newRunner(t)
	tg := target("t")
	tg.Address = l.Addr().String()
	r.Sync([]core.CheckTarget{tg})
	if o := outcome(t, r); !o.OK {
		t.Errorf("open port: %+v", o)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 { // one may have been under way
		if o := outcome(t, r); !o.OK {
			return
		}
	}
	t.Error("closed port: still healthy")
}

func TestBodyIsKeptOnRequestAndBounded(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Write([]byte(strings.Repeat("x", 3*maxBody)))
	})
	r := newRunner(t)
	tg := target("t")
	tg.URL, tg.KeepBody = url, true
	r.Sync([]core.CheckTarget{tg})
	if o := outcome(t, r); len(o.Body) != maxBody || o.ContentType != "text/plain" {
		t.Errorf("%d bytes of %s", len(o.Body), o.ContentType)
	}
	tg.KeepBody = false
	r.Sync([]core.CheckTarget{tg})
	for range 3 {
		if o := outcome(t, r); o.Body == "" {
			return
		}
	}
	t.Error("body kept without request")
}

func TestSyncStartsStopsAndLeavesAlone(t *testing.T) {
	var hits atomic.Int64
	url := serve(t, func(http.ResponseWriter, *http.Request) { hits.Add(1) })
	r := newRunner(t)
	slow := target("slow")
	slow.URL, slow.Interval = url, time.Hour
	r.Sync([]core.CheckTarget{slow})
	outcome(t, r)
	// The same target again is not checked again before its interval is over.
	quick := target("quick")
	quick.URL = url
	r.Sync([]core.CheckTarget{slow, quick})
	for range 5 {
		if o := outcome(t, r); o.Key.TaskID != "quick" {
			t.Fatalf("%+v", o)
		}
	}
	r.Sync(nil)
	r.Close()
	select {
	case o := <-r.Results():
		t.Errorf("result after the end: %+v", o)
	default:
	}
	r.Sync([]core.CheckTarget{quick}) // after Close: nothing starts, goleak would tell
}
