package api

import (
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/mesos-dvdi/dvdi/framework/loglevel"
)

// POST /logging changes what is logged from then on, in the form and with the
// answers of Marathon (SystemResource.changeLogger).
func TestLevelsOfTheLogAreChanged(t *testing.T) {
	to, logs := observer.New(zapcore.DebugLevel)
	log := zap.New(loglevel.New(zapcore.InfoLevel, nil).Core(to))
	f := newFake()
	srv := httptest.NewServer(New(everything(), f, log.Named("api")))
	t.Cleanup(srv.Close)
	t.Cleanup(srv.Client().CloseIdleConnections)
	w := &wire{t: t, core: f, srv: srv}
	logged := func(logger string) bool {
		log.Named(logger).Debug("probe")
		return logs.FilterMessage("probe").FilterLoggerName(logger).Len() > 0
	}
	levels := func(want string) {
		t.Helper()
		if got := strings.TrimSpace(string(w.ok(200, "GET", "/logging", "").body)); got != want {
			t.Errorf("levels %s, want %s", got, want)
		}
	}
	levels(`{"ROOT":"INFO"}`)
	if logged("core") {
		t.Fatal("debug is logged before it is asked for")
	}
	a := w.ok(200, "POST", "/logging", `{"level":"DEBUG","logger":"core","durationSeconds":3600}`)
	if got := strings.TrimSpace(string(a.body)); got != `{"level":"debug","logger":"core","durationSeconds":3600}` {
		t.Errorf("answer %s", got)
	}
	levels(`{"ROOT":"INFO","core":"DEBUG"}`)
	if !logged("core") || !logged("core.part") || logged("mesos") {
		t.Errorf("logged: %v", logs.All())
	}
	w.ok(200, "POST", "/logging", `{"level":"trace","logger":"root"}`)
	levels(`{"ROOT":"DEBUG","core":"DEBUG"}`)
	if !logged("mesos") {
		t.Error("the root's level does not count for all")
	}
}

func TestRefusedLevelsOfTheLog(t *testing.T) {
	w := start(t, everything())
	w.ok(400, "POST", "/logging", ``).wants("Please specify data in JSON format", "message")
	w.ok(400, "POST", "/logging", `{`).wants("Invalid JSON", "message")
	w.ok(400, "POST", "/logging", `[]`)
	for _, c := range []struct{ body, path, why string }{
		{`{"logger":"core"}`, "/level", "error.path.missing"},
		{`{"level":"info"}`, "/logger", "error.path.missing"},
		{`{"level":1,"logger":"core"}`, "/level", "error.expected.jsstring"},
		{`{"level":"off","logger":"core"}`, "/level", "error.unknown.enum.literal"},
		{`{"level":"info","logger":""}`, "/logger", "must not be empty"},
		{`{"level":"info","logger":"` + strings.Repeat("x", 257) + `"}`, "/logger", "error.maxLength"},
		{`{"level":"","logger":"core"}`, "/level", "must not be empty"},
		{`{"level":"info","logger":"core","durationSeconds":"1"}`, "/durationSeconds", "error.expected.jsnumber"},
		{`{"level":"info","logger":"core","durationSeconds":1.5}`, "/durationSeconds", "error.expected.int"},
		{`{"level":"info","logger":"core","durationSeconds":99999999999}`, "/durationSeconds", "error.expected.int"},
		{`{"level":"info","logger":"core","durationSeconds":-1}`, "/durationSeconds", "error.min"},
	} {
		if a := w.ok(422, "POST", "/logging", c.body); a.detail(c.path) != c.why {
			t.Errorf("%s: %s", c.body, a.body)
		}
	}
	if got := strings.TrimSpace(string(w.ok(200, "GET", "/logging", "").body)); got != `{"ROOT":"ERROR"}` {
		t.Errorf("a refused change was made: %s", got)
	}
}
