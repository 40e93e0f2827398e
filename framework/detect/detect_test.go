package detect

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"go.uber.org/zap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestListGivesOutItsMastersInTurn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "master")
	if err := os.WriteFile(file, []byte("m1,m2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for master, want := range map[string]string{
		"m1":                                  "m1:5050 m1:5050 m1:5050",
		"m1:5051, m2":                         "m1:5051 m2:5050 m1:5051",
		"http://m1:5050":                      "http://m1:5050 http://m1:5050 http://m1:5050",
		"https://m1/mesos/":                   "https://m1/mesos https://m1/mesos https://m1/mesos",
		"127.0.0.1:5050,[::1]:5051":           "127.0.0.1:5050 [::1]:5051 127.0.0.1:5050",
		"::1,[2001:db8::1]":                   "[::1]:5050 [2001:db8::1]:5050 [::1]:5050",
		"file://" + file:                      "m1:5050 m2:5050 m1:5050",
		"  m1  ":                              "m1:5050 m1:5050 m1:5050",
		"http://[2001:db8::1]:5050,http://m2": "http://[2001:db8::1]:5050 http://m2 http://[2001:db8::1]:5050",
	} {
		d, err := Parse(master, zap.NewNop())
		if err != nil {
			t.Errorf("%q: %v", master, err)
			continue
		}
		var got []string
		for range 3 {
			l, err := d.Leader(t.Context())
			if err != nil || l.Lost != nil {
				t.Fatalf("%q: %+v, %v", master, l, err)
			}
			got = append(got, l.Address)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %v, want %s", master, got, want)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestMastersThatAreNoneAreRefusedWithoutShowingCredentials(t *testing.T) {
	for master, want := range map[string]string{
		"":                           "is not host:port",
		"m1,,m2":                     "is not host:port",
		"m1:":                        "is not host:port",
		"m1:0":                       "is not host:port",
		"m1:70000":                   "is not host:port",
		"m1:http":                    "is not host:port",
		"user:pa55@m1:5050":          "credentials",
		"ftp://m1":                   "none of http, https, zk",
		"http://user:pa55@m1:5050":   "credentials",
		"http://user:pa55@m1:50 50":  "credentials",
		"zk://user:pa/pa55@h/mesos":  "cannot hold a slash",
		"http://:5050":               "not a URL of",
		"http://m1?x=1":              "not a URL of",
		"http://m1:0":                "not a port",
		"zk://user:pa55@/mesos":      "is not host:port",
		"zk://user@h/mesos":          "user:pass@",
		"zk://:pa55@h/mesos":         "user:pass@",
		"zk://h:0/mesos":             "is not host:port",
		"zk://h1,,h2/mesos":          "is not host:port",
		"file:///nowhere/to/be/seen": "no such file",
	} {
		d, err := Parse(master, zap.NewNop())
		if err == nil {
			t.Errorf("%q is accepted", master)
			_ = d.Close()
			continue
		}
		if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "pa55") {
			t.Errorf("%q: error %q, want %q", master, err, want)
		}
	}
}

func TestEnsembles(t *testing.T) {
	for url, want := range map[string]struct{ servers, path, credentials, text string }{
		"zk://h":                                {"h:2181", "/", "", "zk://h:2181/"},
		"zk://h1,h2:2182/mesos":                 {"h1:2181 h2:2182", "/mesos", "", "zk://h1:2181,h2:2182/mesos"},
		"zk://user:pa@55@h1,h2/a/b/":            {"h1:2181 h2:2181", "/a/b", "user:pa@55", "zk://xxxx:xxxx@h1:2181,h2:2181/a/b"},
		"zk://[2001:db8::1]:2181,::1,[::2]/m":   {"[2001:db8::1]:2181 [::1]:2181 [::2]:2181", "/m", "", "zk://[2001:db8::1]:2181,[::1]:2181,[::2]:2181/m"},
		"zk://192.0.2.1:2181, 192.0.2.2/mesos/": {"192.0.2.1:2181 192.0.2.2:2181", "/mesos", "", "zk://192.0.2.1:2181,192.0.2.2:2181/mesos"},
	} {
		e, err := ParseEnsemble(url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if strings.Join(e.Servers, " ") != want.servers || e.Path != want.path || e.Credentials != want.credentials || e.String() != want.text {
			t.Errorf("%s: %+v, %s", url, e, e)
		}
	}
	if _, err := ParseEnsemble("http://h"); err == nil {
		t.Error("http is accepted")
	}
}

func TestEndedContextEndsTheQuestion(t *testing.T) {
	list, err := NewList("m1")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := list.Leader(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestLowestNodeLeads(t *testing.T) {
	for want, nodes := range map[string][]string{
		"json.info_0000000002":  {"json.info_0000000010", "json.info_0000000002", "log_replicas", "info_0000000001", "json.info_x"},
		"json.info_-2147483648": {"json.info_0000000003", "json.info_-2147483648"},
		"":                      {"log_replicas", "json.info_"},
	} {
		if got, found := lowest(nodes); got != want || found != (want != "") {
			t.Errorf("%v: %q, want %q", nodes, got, want)
		}
	}
}

func TestMasterNodes(t *testing.T) {
	for data, want := range map[string]Leader{
		`{"address":{"hostname":"m1.test","ip":"127.0.0.1","port":5060},"hostname":"m1.test","id":"x","ip":16777343,"pid":"master@127.0.0.1:5060","port":5060}`: {Address: "127.0.0.1:5060", Name: "m1.test:5060"},
		`{"address":{"ip":"2001:db8::1","port":5050}}`: {Address: "[2001:db8::1]:5050"},
		`{"address":{"hostname":"m1","port":5050}}`:    {Address: "m1:5050", Name: "m1:5050"},
	} {
		if got, err := parseInfo([]byte(data)); err != nil || got != want {
			t.Errorf("%s: %+v, %v", data, got, err)
		}
	}
	for _, data := range []string{``, `[]`, `{}`, `{"address":{"ip":"127.0.0.1"}}`, `{"address":{"port":5050}}`, `{"address":{"ip":"127.0.0.1","port":70000}}`} {
		if got, err := parseInfo([]byte(data)); err == nil {
			t.Errorf("%s: %+v", data, got)
		}
	}
}
