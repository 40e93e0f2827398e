package client

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs handler and returns a client of it.
func serve(t *testing.T, cfg Config, handler http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	cfg.URL = srv.URL + "/"
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func answers(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body) // a client that is gone fails the test anyway
	}
}

func TestErrorsOfTheAPI(t *testing.T) {
	for body, want := range map[string]string{
		`{"message":"Object is not valid","details":[{"path":"/cpus","errors":["a","b"]}]}`: "Object is not valid\n  /cpus: a; b",
		`{"message":"Invalid JSON","details":"at byte 3"}`:                                  "Invalid JSON: at byte 3",
		`{"message":"locked","deployments":[{"id":"d1"}]}`:                                  "locked\n  locked by deployment d1",
		`<html>gateway</html>`: "GET /v2/info?extensions=true was answered with status 422: <html>gateway</html>",
		`{}`:                   "GET /v2/info?extensions=true was answered with status 422",
	} {
		_, err := serve(t, Config{}, answers(422, body)).Info(t.Context())
		var answer *Error
		if !errors.As(err, &answer) || answer.Status != 422 || err.Error() != want {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestAnswersOfSomethingElse(t *testing.T) {
	_, err := serve(t, Config{}, answers(200, "<html>")).Apps(t.Context(), "")
	if err == nil || !strings.Contains(err.Error(), "not that of a dvdi-framework") {
		t.Errorf("%v", err)
	}
}

func TestNoAnswerInTime(t *testing.T) {
	held := make(chan struct{})
	c := serve(t, Config{Timeout: 10 * time.Millisecond}, func(http.ResponseWriter, *http.Request) { <-held })
	defer close(held)
	_, err := c.Info(t.Context())
	var unreachable *UnreachableError
	if !errors.As(err, &unreachable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestRequests(t *testing.T) {
	var got string
	c := serve(t, Config{User: "u", Password: "p"}, func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		got = fmt.Sprint(r.Method, " ", r.URL.RequestURI(), " ", user, " ", password)
		_, _ = io.WriteString(w, "{}")
	})
	for want, call := range map[string]func() error{
		"GET /v2/apps?label=a%3D%3Db u p":                              func() error { _, err := c.Apps(t.Context(), "a==b"); return err },
		"GET /v2/apps/g/a u p":                                         func() error { _, err := c.App(t.Context(), "/g/a"); return err },
		"PUT /v2/apps?partialUpdate=false&force=true u p":              func() error { _, err := c.Put(t.Context(), []byte("[]"), true); return err },
		"DELETE /v2/volumes/rexray%2Febs/a%20b/c/claim?force=true u p": func() error { return c.Release(t.Context(), "rexray/ebs", "a b/c") },
		"DELETE /v2/volumes/rexray%2Febs/a%20b/c/removal u p":          func() error { return c.Keep(t.Context(), "rexray/ebs", "a b/c") },
	} {
		if err := call(); err != nil || got != want {
			t.Errorf("got %s %v, want %s", got, err, want)
		}
	}
}

func TestEventsWithoutEnd(t *testing.T) {
	c := serve(t, Config{Timeout: time.Nanosecond}, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept") != "text/event-stream" || r.URL.Query()["event_type"][1] != "b" {
			t.Errorf("asked with %v %v", r.URL, r.Header)
		}
		_, _ = io.WriteString(w, "\r\nevent: a\r\ndata: {\"n\":1}\r\n\r\n\r\nevent: b\r\ndata: {}\r\n\r\nevent: cut")
	})
	events, err := c.Events(t.Context(), "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for ev := range events {
		got = append(got, ev.Type+string(ev.Data))
	}
	if fmt.Sprint(got) != `[a{"n":1} b{}]` {
		t.Errorf("%v", got)
	}
	if _, err := serve(t, Config{}, answers(401, `{"message":"no"}`)).Events(t.Context()); err == nil || !strings.Contains(err.Error(), "--credentials") {
		t.Errorf("%v", err)
	}
}

func TestCertificatesToTrust(t *testing.T) {
	srv := httptest.NewTLSServer(answers(200, `{"version":"1"}`))
	defer srv.Close()
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good"), filepath.Join(dir, "bad")
	block := &pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}
	for path, content := range map[string][]byte{good: pem.EncodeToMemory(block), bad: []byte("nothing")} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := New(Config{URL: srv.URL, CA: good})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if info, err := c.Info(t.Context()); err != nil || info.Version != "1" {
		t.Errorf("%v %v", info, err)
	}
	untrusting, err := New(Config{URL: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer untrusting.Close()
	if _, err := untrusting.Info(t.Context()); err == nil {
		t.Error("an unknown certificate was trusted")
	}
	for _, cfg := range []Config{{URL: srv.URL, CA: bad}, {URL: srv.URL, CA: "/nonexistent"}, {URL: "host:80"}, {URL: "ftp://h"}, {URL: "://"}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}
