package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
)

func TestArrange(t *testing.T) {
	takesValue := func(name string) bool { return name == "name" }
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
		if got := arrange(strings.Fields(c.in), takesValue); !slices.Equal(got, strings.Fields(c.want)) {
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
	tags, err := releaseTags()
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(release(t, t.TempDir(), ".", tags))
	if err != nil {
		t.Fatal(err)
	}
	if st.Size() >= 10_000_000 {
		t.Errorf("%d bytes", st.Size())
	}
}

// Flags of the environment give way to those on the command line, value by
// value and as a whole where there are several.
func TestFlagsOverEnvironment(t *testing.T) {
	for _, c := range []struct {
		args, env string // the variable without DVDCLI_
		want      string
	}{
		{"", "", "standard false 1s []"},
		{"--name=x -flag --time 2m --volumeopts a --volumeopts=b", "", "x true 2m0s [a b]"},
		{"--Flag", "", "standard true 1s []"},
		{"--Flag=false", "FLAG=true", "standard false 1s []"},
		{"", "NAME=x FLAG=1 TIME=3s VOLUMEOPTS=a,b", "x true 3s [a,b]"},
		{"--name=y --volumeopts=c --volumeopts=d", "NAME=x VOLUMEOPTS=a,b", "y false 1s [c d]"},
	} {
		got, err := probeFlags(t, c.env, strings.Fields(c.args)...)
		if err != nil || got != c.want {
			t.Errorf("%q with %q: %s %v, want %s", c.args, c.env, got, err, c.want)
		}
	}
	if got, err := probeFlags(t, "", "--volumeopts", " a, =b "); err != nil || got != "standard false 1s [ a, =b ]" {
		t.Errorf("%q %v", got, err)
	}
	for _, value := range []string{"perhaps", "-"} {
		if _, err := probeFlags(t, "FLAG="+value); !errors.Is(err, errUsage) || !strings.Contains(err.Error(), "DVDCLI_FLAG") {
			t.Errorf("%v", err)
		}
	}
}

// probeFlags is what a command with a flag of each kind gets.
func probeFlags(t *testing.T, variables string, args ...string) (string, error) {
	t.Helper()
	for _, name := range []string{"NAME", "FLAG", "TIME", "VOLUMEOPTS"} {
		t.Setenv("DVDCLI_"+name, "")
	}
	for _, v := range strings.Fields(variables) {
		key, value, _ := strings.Cut(v, "=")
		t.Setenv("DVDCLI_"+key, value)
	}
	if err := forgetEmpty(); err != nil {
		t.Fatal(err)
	}
	a := newApp(&terminal{}, everything)
	var got string
	a.Commands = []*cli.Command{{
		Name: "probe", OnUsageError: usageError,
		Flags: []cli.Flag{stringFlag("name", "standard", ""), boolFlag("flag", "", "Flag"), timeFlag("time", time.Second, "", ""), optsFlag()},
		Action: func(c *cli.Context) error {
			got = fmt.Sprintf("%s %t %s %v", c.String("name"), c.Bool("flag"), c.Duration("time"), c.StringSlice(flagOpts))
			return nil
		},
	}}
	err := a.RunContext(t.Context(), append([]string{"dvdcli", "probe"}, args...))
	return got, err
}

// Every command is in the help, in the man page and in what shells complete,
// with every flag, and every flag has a variable.
func TestHelpAndManAreComplete(t *testing.T) {
	b := newBox(t)
	man := strings.ReplaceAll(b.must("man"), `\-`, "-")
	for _, want := range []string{"EXIT STATUS", "/etc/dvdi/dvdcli.yaml", "DVDCLI_"} {
		if !strings.Contains(man, want) {
			t.Errorf("the man page lacks %s", want)
		}
	}
	var visit func(path []string, commands []*cli.Command)
	visit = func(path []string, commands []*cli.Command) {
		known := strings.Fields(b.must(slices.Concat(path, []string{completionRequest})...))
		for _, c := range commands {
			name := slices.Concat(path, []string{c.Name})
			help := b.must(slices.Concat(name, []string{"--help"})...)
			_, section, _ := strings.Cut(man, " "+c.Name+"\n"+c.Usage+"\n")
			section, _, _ = strings.Cut(section, "\n.S")
			if !strings.Contains(help, c.Usage) || !slices.Contains(known, c.Name) {
				t.Errorf("help or completion lacks %s", name)
			}
			visit(name, c.Subcommands)
			flags := strings.Fields(b.must(slices.Concat(name, []string{"--", completionRequest})...))
			for _, f := range c.Flags {
				flag := "--" + f.Names()[0]
				if !strings.Contains(help, flag) || !strings.Contains(help, "$"+env(f.Names()[0])[0]) || !slices.Contains(flags, flag) {
					t.Errorf("help or completion of %s lacks %s", name, flag)
				}
				if !strings.Contains(section, flag) {
					t.Errorf("the man page of %s lacks %s", name, flag)
				}
			}
		}
	}
	visit(nil, newApp(&terminal{}, everything).Commands)
}

// bash completes commands, and flags once a dash was written.
func TestBashCompletes(t *testing.T) {
	b := newBox(t)
	for _, c := range []struct{ typed, want string }{
		{"dvdcli unm", "unmount"},
		{"dvdcli ledger re", "repair"},
		{"dvdcli mount --volumen", "--volumename"},
		{"dvdcli --volumename x unm", "unmount"},
		{"dvdcli ledger forget --y", "--yes"},
	} {
		script := `eval "$(dvdcli completion --shell=bash)"; COMP_WORDS=(` + c.typed + `); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _dvdcli; echo "${COMPREPLY[*]}"`
		cmd := exec.Command("bash", "-c", script)
		cmd.Env = append(b.command().Env, "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != c.want {
			t.Errorf("%q: %q %v, want %q", c.typed, got, err, c.want)
		}
	}
}

// A reader that does not read is given up when the command's time is over.
func TestReaderIsGivenUp(t *testing.T) {
	r, w := io.Pipe()
	term := terminal{stdout: w, until: time.Now()}
	if err := term.print("/vol/v"); !errors.Is(err, volume.Deadline) || exitStatus(err) != exitUnsettled {
		t.Errorf("error %v", err)
	}
	if err := r.Close(); err != nil { // which ends the write
		t.Fatal(err)
	}
}
