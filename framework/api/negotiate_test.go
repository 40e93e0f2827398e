package api

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestWhatClientsAccept(t *testing.T) {
	for _, c := range []struct {
		values  []string
		offered string
		want    bool
	}{
		{nil, "application/json", true},
		{[]string{"application/json"}, "application/json", true},
		{[]string{"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}, "application/json", true},
		{[]string{"text/plain"}, "application/json", false},
		{[]string{"text/plain", "application/*"}, "application/json", true},
		{[]string{"application/json;q=0, */*"}, "application/json", false},
		{[]string{"Application/JSON; charset=utf-8"}, "application/json", true},
		{[]string{"gzip, deflate"}, "gzip", true},
		{[]string{"br;q=1.0, gzip;q=0.8, *;q=0.1"}, "gzip", true},
		{[]string{"identity"}, "gzip", false},
		{[]string{"gzip;q=0"}, "gzip", false},
		{[]string{"*"}, "gzip", true},
	} {
		if got := accepts(c.values, c.offered); got != c.want {
			t.Errorf("%q: %s accepted %v, want %v", c.values, c.offered, got, c.want)
		}
	}
}

// The lists of tasks in plain text are Marathon's no more: who asks for them must
// not take JSON for one.
func TestOnlyJSONIsServed(t *testing.T) {
	w := withTasks(t)
	for path, want := range map[string]int{"/v2/tasks": 406, "/v2/apps/a/tasks": 406, "/v2/apps": 406, "/ping": 200, "/metrics/prometheus": 200, "/v2/openapi.yaml": 200} {
		if a := w.do("GET", path, "", "Accept", "text/plain, application/yaml"); a.status != want {
			t.Errorf("%s: %d, want %d", path, a.status, want)
		}
	}
	if a := w.do("GET", "/v2/tasks", "", "Accept", "text/html, */*;q=0.8"); a.status != 200 {
		t.Errorf("a browser gets %d", a.status)
	}
}

func TestLongAnswersAreCompressed(t *testing.T) {
	for _, compress := range []bool{true, false} {
		cfg := everything()
		cfg.Compress = compress
		w := start(t, cfg)
		for n := range 10 {
			w.ok(201, "POST", "/v2/apps", fmt.Sprintf(`{"id":"/a-%d","cmd":"x"}`, n))
		}
		get := func(path, encoding string) (header http.Header, body string) {
			t.Helper()
			req, err := http.NewRequest("GET", w.srv.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Accept-Encoding", encoding) // so the client decompresses nothing
			resp, err := w.srv.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var r io.Reader = resp.Body
			if resp.Header.Get("Content-Encoding") == "gzip" {
				if r, err = gzip.NewReader(resp.Body); err != nil {
					t.Fatal(err)
				}
			}
			b, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			return resp.Header, string(b)
		}
		for _, c := range []struct {
			path, encoding string
			want           bool
		}{{"/v2/apps", "gzip", compress}, {"/v2/apps", "identity", false}, {"/v2/leader", "gzip", false}} {
			header, body := get(c.path, c.encoding)
			if got := header.Get("Content-Encoding") == "gzip"; got != c.want {
				t.Errorf("compress %v: %s for %s: compressed %v", compress, c.path, c.encoding, got)
			}
			if c.path == "/v2/apps" && strings.Count(body, `"cmd":"x"`) != 10 {
				t.Errorf("compress %v: %s", compress, body)
			}
		}
	}
}
