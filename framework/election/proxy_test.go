package election

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap"
)

// led is a Leadership that a test sets.
type led struct {
	mu     sync.Mutex // guards what follows
	leader Member
	self   bool
}

func (l *led) Leader() (Member, bool, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leader, l.self, l.leader != Member{}
}

func (l *led) set(url string, self bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leader, l.self = Member{URL: url}, self
}

// member is a process with its proxy; its own API answers with its name.
type member struct {
	led
	*httptest.Server
	proxy *Proxy
}

func newMember(t *testing.T, name string) *member {
	t.Helper()
	m := &member{}
	m.Server = httptest.NewUnstartedServer(nil)
	self := m.Listener.Addr().String()
	m.proxy = NewProxy(ProxyConfig{Self: self}, &m.led, zap.NewNop())
	m.proxy.SetLocal(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("X-Name", name)
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprintf(w, "%s %s %s %s via %s", name, r.Method, r.URL, body, r.Header.Get(viaHeader))
	}))
	m.Config.Handler = m.proxy
	m.Start()
	t.Cleanup(func() { m.Close(); m.proxy.Close() })
	return m
}

func (m *member) ask(t *testing.T, method, path, body string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, m.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(data)
}

func TestTheLeaderAnswersItself(t *testing.T) {
	m := newMember(t, "one")
	m.set(m.URL, true)
	if resp, text := m.ask(t, "GET", "/v2/apps?x=1", ""); resp.StatusCode != 202 || text != "one GET /v2/apps?x=1  via " {
		t.Errorf("%s: %s", resp.Status, text)
	}
}

func TestOthersPassRequestsOn(t *testing.T) {
	leader, other := newMember(t, "one"), newMember(t, "two")
	leader.set(leader.URL, true)
	other.set(leader.URL, false)
	for _, path := range []string{"/v2/apps//a%2Fb?force=true&x=%20", "/ping", "/", "/v2/eventsource"} {
		resp, text := other.ask(t, "PUT", path, "body")
		want := "one PUT " + path + " body via 1.1 " + other.Listener.Addr().String()
		if resp.StatusCode != 202 || text != want {
			t.Errorf("%s: %s: %q, want %q", path, resp.Status, text, want)
		}
		if h := resp.Header; h.Get("X-Name") != "one" || h.Get(leaderHeader) != leader.URL || !strings.Contains(h.Get(viaHeader), other.Listener.Addr().String()) {
			t.Errorf("%s: headers %v", path, h)
		}
	}
}

func TestEventsAreRedirected(t *testing.T) {
	leader, other := newMember(t, "one"), newMember(t, "two")
	other.set(leader.URL, false)
	resp, _ := other.ask(t, "GET", "/v2/events?event_type=a&event_type=b", "")
	if resp.StatusCode != http.StatusFound || resp.Header.Get("Location") != leader.URL+"/v2/events?event_type=a&event_type=b" {
		t.Errorf("%s to %s", resp.Status, resp.Header.Get("Location"))
	}
}

func TestALoopIsRefused(t *testing.T) {
	one, two := newMember(t, "one"), newMember(t, "two")
	one.set(two.URL, false)
	two.set(one.URL, false)
	if resp, text := one.ask(t, "GET", "/v2/apps", ""); resp.StatusCode != http.StatusBadGateway || !strings.Contains(text, "loop") {
		t.Errorf("%s: %s", resp.Status, text)
	}
}

func TestNobodyLeads(t *testing.T) {
	m := newMember(t, "one")
	resp, text := m.ask(t, "GET", "/v2/apps", "")
	if resp.StatusCode != http.StatusBadGateway || text != "Could not determine the current leader\n" || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("%s: %q", resp.Status, text)
	}
	// A node of an earlier life of the same process is nobody, too.
	m.set(m.URL, false)
	if resp, text := m.ask(t, "GET", "/v2/apps", ""); resp.StatusCode != http.StatusBadGateway || text != "Could not determine the current leader\n" {
		t.Errorf("own earlier life: %s: %q", resp.Status, text)
	}
	// Elected, but not yet able to answer.
	m.proxy.SetLocal(nil)
	m.set(m.URL, true)
	if resp, _ := m.ask(t, "GET", "/v2/apps", ""); resp.StatusCode != http.StatusBadGateway {
		t.Errorf("not ready: %s", resp.Status)
	}
}

func TestALeaderThatIsGone(t *testing.T) {
	leader, other := newMember(t, "one"), newMember(t, "two")
	other.set(leader.URL, false)
	leader.Close()
	if resp, text := other.ask(t, "GET", "/v2/apps", ""); resp.StatusCode != http.StatusBadGateway || !strings.Contains(text, leader.URL) {
		t.Errorf("%s: %s", resp.Status, text)
	}
}
