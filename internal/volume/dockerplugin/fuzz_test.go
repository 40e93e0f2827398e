package dockerplugin

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

// checkEndpoint holds for whatever a file made it.
func checkEndpoint(t *testing.T, e endpoint) {
	t.Helper()
	switch e.network {
	case "unix":
		if e.target == "" || e.https {
			t.Errorf("%+v", e)
		}
	case "tcp":
		if i := strings.LastIndexByte(e.target, ':'); i <= 0 || i == len(e.target)-1 {
			t.Errorf("no host and port in %+v", e)
		}
	default:
		t.Errorf("%+v", e)
	}
	if strings.Contains(e.address(), "@") && e.network == "tcp" {
		t.Errorf("credentials in %q", e.address())
	}
}

func FuzzSpec(f *testing.F) {
	for _, seed := range []string{
		"", "unix:///run/p.sock", "unix://p.sock", "tcp://localhost:8080", "http://user:pw@host", "https://host/", "https://[::1]:9",
		"npipe:////./pipe/x", "//host", "tcp://:80", "tcp://host:", "unix://%zz", "tcp://[::1", "UNIX:///a", "unix:///\x00", "tcp://a b",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		if e, err := parseSpec(content); err == nil {
			checkEndpoint(t, e)
		}
	})
}

func FuzzJSON(f *testing.F) {
	for _, seed := range []string{
		"", "{}", "null", "[]", `{"Name":"n","Addr":"unix:///x"}`, `{"Addr":"https://h","TLSConfig":{"InsecureSkipVerify":false,"CAFile":"ca","CertFile":"c","KeyFile":"k"}}`,
		`{"Addr":"tcp://h:1","TLSConfig":null}`, `{"addr":"tcp://h:1"} tail`, `{"Addr":["x"]}`, `{"TLSConfig":7}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		e, err := parseJSON(content)
		if err != nil {
			return
		}
		checkEndpoint(t, e)
		if e.tls.CAFile == "" && !e.tls.InsecureSkipVerify {
			t.Errorf("no authority to verify with: %+v", e)
		}
	})
}

func FuzzManagedRecord(f *testing.F) {
	for _, seed := range []string{
		"", "{}", `{"plugin":{"Name":"n:latest","Enabled":true,"Config":{"PropagatedMount":"/m","Interface":{"Socket":"p.sock","Types":["docker.volumedriver/1.0"]}}}}`,
		`{"plugin":{"Name":"n","Config":{"Interface":{"Socket":"../x","Types":[{"Prefix":"docker","Capability":"volumedriver"},7,null]}}}}`,
	} {
		f.Add([]byte(seed), "/m/../x")
	}
	f.Fuzz(func(t *testing.T, content []byte, path string) {
		m, err := parseManaged(content)
		if err != nil {
			return
		}
		if strings.ContainsRune(m.socket, '/') || m.socket == ".." || m.name == "" {
			t.Errorf("%+v", m)
		}
		m.dir = "/plugin"
		if got := m.rescope(path); path != "" && got != "/plugin" && !strings.HasPrefix(got, "/plugin/") {
			t.Errorf("rescope(%q) = %q", path, got)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	for _, test := range answers {
		f.Add(test.status, []byte(test.body))
	}
	f.Add(200, []byte(`{"Volumes":[null,{"Name":"a","Status":[]}]}`))
	f.Add(200, []byte(`{"Volume":{"Name":"a","Mountpoint":null,"CreatedAt":1}}`))
	f.Add(100, []byte("null}"))
	f.Add(200, []byte(`{"Err":"\u0000\ud800"}`))
	d := &driver{name: "d", config: Config{Clock: realClock{}}, found: found{managed: &managed{dir: "/p"}}}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		var list listAnswer
		for _, result := range []any{nil, &struct{ Volume *pluginVolume }{}, &struct{ Mountpoint string }{}, &list} {
			for _, mutating := range []bool{true, false} {
				c := call{method: methodGet, volume: "v", mutating: mutating, result: result, secrets: volume.Secrets{"k": "hidden"}}
				err := d.judge(c, d.config.Clock.Now(), attempt{reply: reply{status: status, body: body}, sent: true})
				checkJudgement(t, err, status, mutating)
			}
		}
		for _, v := range list.volumes {
			if v != nil {
				d.translate(*v)
			}
		}
		if redacted := redactJSON(body, volume.Secrets{"k": "hidden"}); json.Valid(body) && !json.Valid([]byte(redacted)) {
			t.Errorf("redaction broke %q: %q", body, redacted)
		}
	})
}

func checkJudgement(t *testing.T, err error, status int, mutating bool) {
	t.Helper()
	if err == nil {
		if status != 200 {
			t.Errorf("status %d is success", status)
		}
		return
	}
	kind := volume.KindOf(err)
	if kind != volume.Refused && kind != volume.Unsupported && (kind != volume.Garbled || !mutating || status != 200) {
		t.Errorf("status %d: kind %q", status, kind)
	}
	text := err.Error()
	if !utf8.ValidString(text) || len(text) > maxShown+500 || strings.ContainsAny(text, "\x00\x1b\n") || strings.Contains(text, "hidden") {
		t.Errorf("error %q", text)
	}
}
