package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
)

func TestArrange(t *testing.T) {
	arity := map[string]bool{"name": true, "flag": false}
	for _, c := range []struct{ in, want string }{
		{"d mount --name=x", "d mount --name=x"},
		{"d --name x mount", "d mount --name x"},
		{"d --flag mount", "d mount --flag"},
		{"d --flag=true mount extra", "d mount --flag=true extra"},
		{"d ledger --name x show", "d ledger show --name x"},
		{"d --unknown mount", "d mount --unknown"},
		{"d mount --name", "d mount --name"},
		{"d mount -- --name", "d mount --name"},
		{"d --version", "d version"},
		{"d", "d"},
	} {
		if got := arrange(strings.Fields(c.in), arity); !reflect.DeepEqual(got, strings.Fields(c.want)) {
			t.Errorf("%q: %q, want %q", c.in, got, c.want)
		}
	}
}

func TestHolder(t *testing.T) {
	env := func(m map[string]string) func(string) string { return func(k string) string { return m[k] } }
	for _, c := range []struct {
		argv string
		env  map[string]string
		want engine.Holder
	}{
		{"/usr/sbin/mesos-agent --work_dir=/var/lib/mesos --port=5051", nil, engine.Holder{Name: "mesos-agent:/var/lib/mesos"}},
		{"mesos-slave --work_dir /data", nil, engine.Holder{Name: "mesos-agent:/data"}},
		{"/build/.libs/lt-mesos-agent", map[string]string{"MESOS_WORK_DIR": "/w"}, engine.Holder{Name: "mesos-agent:/w"}},
		{"-bash", nil, engine.Holder{Name: "user:7", Person: true}},
		{"", nil, engine.Holder{Name: "user:7", Person: true}},
	} {
		if got := holderOf(process{argv: strings.Fields(c.argv), env: env(c.env)}, 7); got != c.want {
			t.Errorf("%q: %+v", c.argv, got)
		}
	}
}

// The release binary stays under 10 MB.
func TestBinarySize(t *testing.T) {
	out := filepath.Join(t.TempDir(), "dvdcli")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, text)
	}
	st, err := os.Stat(out)
	if err != nil {
		t.Fatal(err)
	}
	if st.Size() >= 10_000_000 {
		t.Errorf("%d bytes", st.Size())
	}
}
