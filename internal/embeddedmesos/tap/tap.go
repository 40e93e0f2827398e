// Package tap listens to what frameworks tell a master. A Tap stands between
// them as a proxy that changes nothing, so that tests of whole processes see the
// calls on the wire.
package tap

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/gogo/protobuf/proto"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/mesosjson"
)

// Call is one call of the v1 scheduler API.
type Call struct {
	Type string // as in scheduler.proto
	// JSON is the whole call in the form of the API's JSON.
	JSON json.RawMessage
}

// Tap is a running proxy. It is safe for concurrent use.
type Tap struct {
	listener net.Listener
	server   *http.Server
	client   *http.Transport // to the master
	served   chan error

	mu    sync.Mutex // guards all below
	calls []Call
	errs  []error
	gates map[string]chan struct{} // by the type of the calls that they stop
}

// Start listens on a free port of the loopback interface and passes everything
// on to the master at host:port. Close ends it.
func Start(master string) (*Tap, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("tap of master %s: %w", master, err)
	}
	t := &Tap{listener: l, served: make(chan error, 1), client: &http.Transport{}, gates: map[string]chan struct{}{}}
	proxy := &httputil.ReverseProxy{
		Transport:     t.client,
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: master}) },
		FlushInterval: -1, // events are wanted as they come
	}
	t.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the framework has ended, or given the call up
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		gate, err := t.note(r, body)
		if err != nil {
			t.failed(err)
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		select {
		case <-gate:
		case <-r.Context().Done():
			return
		}
		proxy.ServeHTTP(w, r)
	})}
	go func() { t.served <- t.server.Serve(l) }()
	return t, nil
}

// Addr is where frameworks find the master, as host:port.
func (t *Tap) Addr() string { return t.listener.Addr().String() }

// Calls are those seen so far, in the order in which they came in: each is noted
// before the master gets it. Without types all are returned.
func (t *Tap) Calls(types ...string) []Call {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []Call
	for _, c := range t.calls {
		if len(types) == 0 || slices.Contains(types, c.Type) {
			out = append(out, c)
		}
	}
	return out
}

// Stop keeps calls of a type, once they are noted, from the master until open is
// called.
func (t *Tap) Stop(kind string) (open func()) {
	gate := make(chan struct{})
	t.mu.Lock()
	defer t.mu.Unlock()
	t.gates[kind] = gate
	return sync.OnceFunc(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.gates, kind)
		close(gate)
	})
}

// passed is the gate of calls that nothing stops.
var passed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// Close ends the proxy and all connections. The error tells of calls that could
// not be understood.
func (t *Tap) Close() error {
	err := t.server.Close()
	t.client.CloseIdleConnections()
	if served := <-t.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return errors.Join(append(t.errs, err)...)
}

func (t *Tap) failed(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.errs = append(t.errs, err)
}

// note notes a call. It may go on when its gate is closed.
func (t *Tap) note(r *http.Request, body []byte) (gate <-chan struct{}, err error) {
	if !strings.HasSuffix(r.URL.Path, "/api/v1/scheduler") {
		return passed, nil
	}
	var call scheduler.Call
	if strings.Contains(r.Header.Get("Content-Type"), "json") {
		err = mesosjson.Unmarshal(body, &call)
	} else {
		err = proto.Unmarshal(body, &call)
	}
	if err != nil {
		return nil, fmt.Errorf("tap: decode a call: %w", err)
	}
	text, err := mesosjson.Marshal(&call)
	if err != nil {
		return nil, fmt.Errorf("tap: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	kind := call.Type.String()
	t.calls = append(t.calls, Call{Type: kind, JSON: text})
	if gate, stopped := t.gates[kind]; stopped {
		return gate, nil
	}
	return passed, nil
}
