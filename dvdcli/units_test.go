package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
)

func TestArrange(t *testing.T) {
	arity := map[string]bool{"name": true, "flag": false}
	for _, c := range []struct{ in, want string }{
		{"mount --name=x", "mount --name=x"},
		{"--name x mount", "mount --name x"},
		{"--flag mount", "mount --flag"},
		{"--flag=true mount extra", "mount --flag=true extra"},
		{"ledger --name x show", "ledger show --name x"},
		{"--unknown mount", "mount --unknown"},
		{"mount --name", "mount --name"},
		{"mount -- --name", "mount --name"},
		{"--version", "version"},
		{"", ""},
	} {
		if got := arrange(strings.Fields(c.in), arity); !slices.Equal(got, strings.Fields(c.want)) {
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

// Flags of the environment give way to those on the command line, value by
// value and as a whole where there are several.
func TestParse(t *testing.T) {
	options := []option{
		{name: "name", value: "standard"}, {name: "flag", alias: "Flag", value: false},
		{name: "time", value: time.Second}, {name: "opts", value: []string(nil)},
	}
	for _, c := range []struct {
		args, env string // the variable without DVDCLI_
		want      string
	}{
		{"", "", "standard false 1s []"},
		{"--name=x -flag --time 2m --opts a --opts=b", "", "x true 2m0s [a b]"},
		{"--Flag", "", "standard true 1s []"},
		{"--Flag=false", "FLAG=true", "standard false 1s []"},
		{"", "NAME=x FLAG=1 TIME=3s OPTS=a,b", "x true 3s [a,b]"},
		{"--name=y --opts=c --opts=d", "NAME=x OPTS=a,b", "y false 1s [c d]"},
	} {
		env := map[string]string{}
		for _, v := range strings.Fields(c.env) {
			key, value, _ := strings.Cut(v, "=")
			env["DVDCLI_"+key] = value
		}
		g, words, err := parse(options, strings.Fields(c.args), func(k string) string { return env[k] })
		got := fmt.Sprintf("%s %t %s %v", g.String("name"), g.Bool("flag"), g.Duration("time"), g.List("opts"))
		if err != nil || len(words) != 0 || got != c.want {
			t.Errorf("%q with %q: %s %v %v, want %s", c.args, c.env, got, words, err, c.want)
		}
	}
	for _, env := range []string{"perhaps", "-"} {
		if _, _, err := parse(options, nil, func(k string) string {
			if k == "DVDCLI_FLAG" {
				return env
			}
			return ""
		}); !errors.Is(err, errUsage) || !strings.Contains(err.Error(), "DVDCLI_FLAG") {
			t.Errorf("%v", err)
		}
	}
}

// Every command is in the help and in the man page, with every flag, and every
// flag has a variable.
func TestHelpAndManAreComplete(t *testing.T) {
	man := strings.ReplaceAll(manPage(allCommands()), `\-`, "-")
	var visit func(path string, specs []spec)
	visit = func(path string, specs []spec) {
		for _, s := range specs {
			name := strings.TrimSpace(path + " " + s.name)
			var out bytes.Buffer
			if err := help(&terminal{stdout: &out}, allCommands(), strings.Fields(name)); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out.String(), s.usage) {
				t.Errorf("help %s lacks what it does", name)
			}
			if s.sub != nil {
				visit(name, s.sub)
				continue
			}
			if !strings.Contains(man, ".SS "+name+"\n"+s.usage) {
				t.Errorf("the man page lacks %s", name)
			}
			next := candidates(allCommands(), strings.Fields(name))
			for _, o := range s.options() {
				for _, text := range []string{out.String(), man} {
					if !strings.Contains(text, "--"+o.name) || !strings.Contains(text, "$"+o.variable()) {
						t.Errorf("%s: --%s is missing", name, o.name)
					}
				}
				if !slices.Contains(next, "--"+o.name) {
					t.Errorf("completion of %s lacks --%s", name, o.name)
				}
			}
		}
	}
	visit("", allCommands())
}
