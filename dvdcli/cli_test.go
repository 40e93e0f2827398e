package main

import (
	"encoding/json"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
)

func TestMountPrintsThePathAndNothingElse(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{})
	b := newBox(t, p.PluginDir())
	out := b.run(mountArgs(p, "v", "--volumeopts=size=5")...)
	if out.code != 0 || out.stdout != p.Mountpoint("v")+"\n" || out.stderr != "" {
		t.Errorf("%+v, want the path %s alone", out, p.Mountpoint("v"))
	}
	if out := b.run(unmountArgs(p, "v")...); out != (outcome{}) {
		t.Errorf("unmount: %+v", out)
	}
	expect(t, p, "v", 1, 1)
	b.noRecords()
}

// Flags stand before or after the command, with "=" or a space, with one dash
// or two, and both spellings of explicitcreate are known.
func TestFlagsStandAnywhere(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{})
	b := newBox(t, p.PluginDir())
	want := p.Mountpoint("v")
	for _, args := range [][]string{
		{"mount", "--volumedriver=test", "--volumename=v", "--volumeopts=a=b"},
		{"mount", "--volumedriver", "test", "--volumename", "v", "--volumeopts", "a=b"},
		{"--volumedriver", "test", "--volumename=v", "mount", "--volumeopts=a=b"},
		{"--volumeopts=a=b", "--volumedriver=test", "--volumename", "v", "mount"},
		{"-volumedriver", "test", "mount", "-volumename=v"},
		{"--explicitcreate", "mount", "--volumedriver=test", "--volumename=v"},
		{"mount", "--explicitCreate", "--volumedriver=test", "--volumename=v"},
		{"mount", "--explicitCreate=true", "--volumedriver=test", "--volumename=v"},
		{"mount", "--explicitcreate=false", "--volumedriver=test", "--volumename=v"},
	} {
		if got := b.must(args...); got != want {
			t.Errorf("%v: %q", args, got)
		}
	}
	if text := b.fails(exitNotFound, "--explicitCreate", "mount", "--volumedriver=test", "--volumename=w"); calls(p, "Create", "w") != 0 {
		t.Errorf("created in spite of --explicitCreate: %s", text)
	}
}

func TestEnvironmentForEveryFlag(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{})
	b := newBox(t, p.PluginDir()).with("DVDCLI_VOLUMEDRIVER", "test").with("DVDCLI_VOLUMENAME", "v").
		with("DVDCLI_VOLUMEOPTS", "size=5,type=x").with("DVDCLI_OUTPUT", "json")
	var got struct{ Path string }
	if err := json.Unmarshal([]byte(b.must("mount")), &got); err != nil || got.Path != p.Mountpoint("v") {
		t.Errorf("%+v %v", got, err)
	}
	if opts := p.Calls("Create")[0].Opts; opts["size"] != "5" || opts["type"] != "x" {
		t.Errorf("options %v", opts)
	}
	// Empty is as good as unset.
	if got := b.with("DVDCLI_OUTPUT", "").with("DVDCLI_DEADLINE", "").must("get"); got != "v" {
		t.Errorf("%q", got)
	}
	if out := b.with("DVDCLI_EXPLICITCREATE", "true").run("mount", "--volumename=w"); out.code != exitNotFound {
		t.Errorf("%+v", out)
	}
	if out := b.with("DVDCLI_STRICT", "1").run("unmount", "--volumename=w"); out.code != exitNotFound {
		t.Errorf("%+v", out)
	}
}

func TestMistakesAreFailures(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{})
	b := newBox(t, p.PluginDir())
	for _, args := range [][]string{
		{}, {"frobnicate"}, {"mount", "--frobnicate"}, {"--frobnicate", "mount"}, {"ledger"}, {"ledger", "frobnicate"},
		{"mount", "--volumedriver=test"}, {"mount", "--volumename=v"}, {"unmount"}, {"list"},
		{"mount", "--volumedriver=test", "--volumename=v", "extra"},
		{"mount", "--volumedriver=test", "--volumename=v", "--explicitcreate=perhaps"},
		{"mount", "--volumedriver=test", "--volumename=v", "--output=xml"},
		{"mount", "--volumedriver=test", "--volumename=v", "--volumeopts", "=x"},
		{"unmount", "--volumedriver=test", "--volumename=v", "--volumeopts=a=b"},
		{"mount", "--volumedriver=test", "--volumename"},
		{"mount", "--volumedriver=test", "--volumename=v", "--deadline=-5s"},
		{"mount", "--volumedriver=test", "--volumename=v", "--deadline=0"},
		{"mount", "--volumedriver=test", "--volumename=v", "--call-timeout=-1s"},
	} {
		if out := b.run(args...); out.code != exitUsage || out.stdout != "" || out.stderr == "" {
			t.Errorf("%v: %+v", args, out)
		}
	}
	if n := len(p.Requests()); n != 0 {
		t.Errorf("the plugin got %d requests", n)
	}
}

func TestErrorsNameEverything(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{Rules: []volumetest.Rule{
		{Method: "Mount", Do: volumetest.DoAnswer, Status: 500, Body: `{"Err":"","Error":"quota exceeded"}`},
	}})
	b := newBox(t, p.PluginDir())
	text := b.fails(exitFailure, mountArgs(p, "v")...)
	for _, want := range []string{"mount", `"v"`, `"test"`, "500", "quota exceeded", "after", "log"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q lacks %q", text, want)
		}
	}
	text = b.fails(exitUnreachable, "mount", "--volumedriver=nosuch", "--volumename=v")
	for _, want := range []string{`"nosuch"`, p.PluginDir(), "test", "install"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q lacks %q", text, want)
		}
	}
	var asJSON struct{ Error, Kind string }
	out := b.run(mountArgs(p, "v", "--output=json")...)
	if err := json.Unmarshal([]byte(out.stderr), &asJSON); err != nil || asJSON.Kind != "refused by the driver" || !strings.Contains(asJSON.Error, "quota") {
		t.Errorf("%q: %v", out.stderr, err)
	}
}

func TestUnmountOfNothing(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{})
	b := newBox(t, p.PluginDir())
	for driver, strict := range map[string]int{"test": exitNotFound, "nosuch": exitNotFound} {
		args := []string{"unmount", "--volumedriver=" + driver, "--volumename=v"}
		if out := b.run(args...); out.code != 0 || out.stdout != "" || !strings.Contains(out.stderr, "not mounted") {
			t.Errorf("%s: %+v", driver, out)
		}
		b.fails(strict, append(args, "--strict")...)
	}
	if n := len(p.Calls("Unmount")); n != 0 {
		t.Errorf("%d unmounts", n)
	}
}

// A volume that exists and is not mounted has no path, which is no failure unless
// the caller is strict; one that does not exist is one.
func TestPathOfNothing(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{AlwaysMountpoint: true})
	b := newBox(t, p.PluginDir())
	b.must("create", "--volumedriver=test", "--volumename=v")
	args := []string{"path", "--volumedriver=test", "--volumename=v"}
	if out := b.run(args...); out.code != 0 || out.stdout != "" || !strings.Contains(out.stderr, "not mounted") {
		t.Errorf("%+v", out)
	}
	if got := b.must(append(args, "--output=json")...); !strings.Contains(got, `"path": ""`) {
		t.Error(got)
	}
	b.fails(exitNotFound, append(args, "--strict")...)
	b.fails(exitNotFound, "path", "--volumedriver=test", "--volumename=nothing")
	b.fails(exitUnreachable, "path", "--volumedriver=nosuch", "--volumename=v")
}

// A plugin from before Docker 1.10 has neither Get nor List.
func TestOldPluginWithoutGet(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{Lacks: []string{"Get", "List", "Capabilities"}})
	b := newBox(t, p.PluginDir())
	b.must("create", "--volumedriver=test", "--volumename=v")
	if got := b.must(mountArgs(p, "v")...); got != p.Mountpoint("v") {
		t.Errorf("path %q", got)
	}
	b.must(unmountArgs(p, "v")...)
	expect(t, p, "v", 1, 1)
	if n := len(p.Calls("Create")); n != 1 {
		t.Errorf("%d creates", n)
	}
}

func TestPolicyFile(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{})
	b := newBox(t, p.PluginDir())
	b.policy("drivers:\n  test:\n    forbiddenOptions: [nuke]\n    defaultOptions: {size: '7'}\n")
	if text := b.fails(exitForbidden, mountArgs(p, "v", "--volumeopts=NUKE=1")...); !strings.Contains(text, "NUKE") {
		t.Error(text)
	}
	b.must(mountArgs(p, "v", "--volumeopts=a=1")...)
	if opts := p.Calls("Create")[0].Opts; opts["size"] != "7" || opts["a"] != "1" {
		t.Errorf("options %v", opts)
	}
	// Apps carry overwritefs with every mount; on a volume with data it would
	// destroy them.
	b.fails(exitForbidden, mountArgs(p, "v2", "--volumeopts=nuke=1")...)
	b.must(unmountArgs(p, "v")...)
	b.fails(exitForbidden, mountArgs(p, "v", "--volumeopts=overwriteFs=true")...)
	b.must(mountArgs(p, "v", "--volumeopts=overwriteFs=true", "--force")...)
	b.policy("drivers: [")
	if text := b.fails(exitForbidden, mountArgs(p, "w")...); !strings.Contains(text, "policy.yaml") {
		t.Error(text)
	}
	if text := b.must("drivers"); !strings.Contains(text, "policy.yaml") {
		t.Errorf("drivers under a policy that cannot be read: %s", text)
	}
	b.policy("allowedDrivers: [other]\n")
	if text := b.must("drivers"); !strings.Contains(text, "driver is not among other") {
		t.Errorf("drivers under a policy that forbids one: %s", text)
	}
	b.fails(exitForbidden, mountArgs(p, "w")...)
	b.must(unmountArgs(p, "v")...)
	expect(t, p, "v", 2, 2)
}

func TestAdminCommands(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{PluginDir: t.TempDir()})
	b := newBox(t, p.PluginDir())
	b.must(mountArgs(p, "v", "--volumeopts=password=hunter22")...)
	for _, c := range []struct{ args, want string }{
		{"status", "v mounted agent " + p.Mountpoint("v")},
		{"ledger list", "test v mounted"},
		{"ledger show --volumedriver=test --volumename=v", `"phase": "mounted"`},
		{"ledger verify", "mounted"},
		{"ledger repair --yes", "mounted"},
		{"drivers", "test docker yes local " + p.Socket()},
		{"doctor", "driver test"},
		{"man", "dvdcli"},
		{"completion --shell=bash", "complete"},
		{"completion --shell=zsh", "compdef"},
		{"completion --shell=fish", "complete"},
		{"version", "dvdcli"},
		{"help", "mount"},
		{"mount --help", "volumeopts"},
	} {
		text := b.must(strings.Fields(c.args)...)
		for _, w := range strings.Fields(c.want) {
			if !strings.Contains(text, w) {
				t.Errorf("%s: %q lacks %q", c.args, text, w)
			}
		}
		if strings.Contains(text, "hunter22") {
			t.Errorf("%s shows a secret", c.args)
		}
	}
	for _, args := range []string{"status", "ledger list", "ledger verify", "drivers", "doctor", "version", "list --volumedriver=test",
		"get --volumedriver=test --volumename=v", "path --volumedriver=test --volumename=v"} {
		var v any
		if err := json.Unmarshal([]byte(b.must(append(strings.Fields(args), "--output=json")...)), &v); err != nil {
			t.Errorf("%s: %v", args, err)
		}
	}
	if out := b.run("ledger", "forget", "--volumedriver=test", "--volumename=v"); out.code == 0 || len(b.records()) != 1 {
		t.Errorf("forgot without being told: %+v", out)
	}
	b.must("ledger", "forget", "--volumedriver=test", "--volumename=v", "--yes")
	b.noRecords()
	expect(t, p, "v", 1, 0)
}

// With --output json every command prints one JSON value and nothing else, or an
// error in JSON.
func TestEveryCommandInJSON(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{})
	b := newBox(t, p.PluginDir()).with("DVDCLI_OUTPUT", "json")
	lines := map[string]string{ // the arguments that a command needs
		"create": "--volumename=new", "remove": "--volumename=new", "ledger repair": "--yes", "ledger show": "--volumename=other", "ledger forget": "--yes --volumename=other",
	}
	vol := []string{"--volumedriver=test", "--volumename=v"}
	b.must(mountArgs(p, "v")...)
	b.must(mountArgs(p, "other")...)
	var visit func(path string, from []definition)
	visit = func(path string, from []definition) {
		for _, d := range from {
			name := strings.TrimSpace(path + " " + d.name)
			if len(d.below) > 0 {
				visit(name, d.below)
				continue
			}
			args := strings.Fields(name)
			for _, f := range d.flags() {
				for _, v := range vol {
					if strings.HasPrefix(v, "--"+f.Names()[0]+"=") {
						args = append(args, v)
					}
				}
			}
			if name == "ledger repair" {
				args = strings.Fields(name)
			}
			args = append(args, strings.Fields(lines[name])...)
			out := b.run(args...)
			var v any
			if err := json.Unmarshal([]byte(out.stdout), &v); err != nil || out.stderr != "" || out.code != 0 && out.code != exitFindings {
				t.Errorf("%q: %v in %+v", args, err, out)
			}
		}
	}
	visit("", definitions())
	for _, args := range [][]string{{"get", "--volumedriver=test", "--volumename=none"}, {"ledger", "show", "--volumedriver=test", "--volumename=none"},
		{"mount", "--volumedriver=nosuch", "--volumename=v"}} {
		out := b.run(args...)
		var asJSON struct{ Error, Kind string }
		if err := json.Unmarshal([]byte(out.stderr), &asJSON); err != nil || asJSON.Error == "" || out.stdout != "" || out.code == 0 {
			t.Errorf("%q: %v in %+v", args, err, out)
		}
	}
}

func TestVerboseTracesWithoutSecrets(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{})
	b := newBox(t, p.PluginDir())
	out := b.run(mountArgs(p, "v", "--verbose", "--volumeopts=password=hunter22", "--volumeopts=size=5")...)
	for _, want := range []string{"VolumeDriver.Create", "VolumeDriver.Mount", "size"} {
		if !strings.Contains(out.stderr, want) {
			t.Errorf("%q lacks %q", out.stderr, want)
		}
	}
	if strings.Contains(out.stderr, "hunter22") || p.Calls("Create")[0].Opts["password"] != "hunter22" {
		t.Errorf("secret shown or not sent: %q", out.stderr)
	}
}

// Plugins repeat options, in answers to other calls and in their errors.
func TestSecretsThatThePluginRepeats(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{Rules: []volumetest.Rule{
		{Method: "Mount", Do: volumetest.DoAnswer, Status: 500, Body: `{"Err":"cannot mount: pin=4711-0815 password=hunter22"}`},
		{Method: "Get", Do: volumetest.DoAnswer, Body: `{"Volume":{"Name":"v","Status":{"opts":{"password":"hunter22","pin":"4711-0815"}}}}`},
		{Method: "Unmount", Do: volumetest.DoAnswer, Status: 500, Body: `{"Err":"cannot unmount: password=hunter22, {\"api_key\": \"hunter22\"}"}`},
	}})
	b := newBox(t, p.PluginDir())
	b.policy("defaults: {secretOptions: [pin]}")
	out := b.run(mountArgs(p, "v", "--verbose", "--volumeopts=password=hunter22", "--volumeopts=pin=4711-0815")...)
	if out.code == 0 || strings.Contains(out.stderr, "hunter22") || strings.Contains(out.stderr, "4711") || !strings.Contains(out.stderr, "VolumeDriver.Get") {
		t.Errorf("%+v", out)
	}
	p.Clear()
	b.must(mountArgs(p, "v")...)
	p.Add(volumetest.Rule{Method: "Unmount", Do: volumetest.DoAnswer, Status: 500, Body: `{"Err":"cannot unmount: password=hunter22, {\"api_key\": \"hunter22\"}"}`})
	text := b.fails(exitFailure, unmountArgs(p, "v")...)
	if record := b.must("ledger", "show", "--volumedriver=test", "--volumename=v"); strings.Contains(text+record, "hunter22") || !strings.Contains(record, "cannot unmount") {
		t.Errorf("%s %s", text, record)
	}
}

// Repair says what it will do and does it when told yes, not otherwise.
func TestRepairAsks(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{Bind: os.Geteuid() == 0})
	b := newBox(t, p.PluginDir())
	b.must(mountArgs(p, "v")...)
	p.Add(volumetest.Rule{Method: "Unmount", Times: 1, Do: volumetest.DoAnswer, Status: 500, Body: `{"Err":"busy"}`})
	b.fails(exitFailure, unmountArgs(p, "v")...)
	for _, c := range []struct {
		answer         string
		code, unmounts int
	}{{"n\n", exitFailure, 1}, {"", exitFailure, 1}, {"y\n", 0, 2}} {
		cmd := b.command("ledger", "repair", "--now")
		cmd.Stdin = strings.NewReader(c.answer)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != c.code || !strings.Contains(string(out), "ask the driver to unmount") {
			t.Errorf("answer %q: %v: %s", c.answer, err, out)
		}
		expect(t, p, "v", 1, c.unmounts)
	}
	b.nothingMounted(p)
}

// fullPipe is the end of a pipe that takes nothing more, since nobody reads.
func fullPipe(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	fd := int(w.Fd()) // which makes it block
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = unix.Write(fd, make([]byte, 4096))
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		t.Fatal(err)
	}
	return w
}

// Nobody reads the result: the first signal ends the program, and so does the
// deadline. What was done is written down by then, and the unmount that the
// isolator makes after a failed mount leaves nothing.
func TestNobodyReadsStdout(t *testing.T) {
	for name, c := range map[string]struct {
		json, told bool
		end        os.Signal // nil: none, but the deadline
	}{
		"SIGTERM":            {end: syscall.SIGTERM},
		"SIGTERM, with JSON": {end: syscall.SIGTERM, json: true},
		"SIGINT":             {end: os.Interrupt},
		"SIGTERM with notes": {end: syscall.SIGTERM, told: true},
		"deadline":           {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			deadline := mountDeadline
			if c.end == nil {
				if !long() {
					t.Skip("takes 20 s; DVDI_LONG=1")
				}
				deadline = 20 * time.Second
			}
			p := volumetest.Start(t, volumetest.Config{Bind: os.Geteuid() == 0, Counting: volumetest.CountCalls})
			b := newBox(t, p.PluginDir())
			b.must("create", "--volumedriver=test", "--volumename=v")
			args := mountArgs(p, "v", "--deadline="+deadline.String())
			if c.json {
				args = append(args, "--output=json")
			}
			cmd := b.command(args...)
			w := fullPipe(t)
			cmd.Stdout = w
			if c.told { // a note, of which nobody hears either
				p.Add(volumetest.Rule{Method: "Get", Do: volumetest.DoAnswer, Status: 404, Body: "page not found"})
				cmd.Stderr = w
			}
			if c.end == os.Interrupt { // which a shell's background job ignores, and so would this process
				caught := make(chan os.Signal, 1)
				signal.Notify(caught, c.end)
				defer signal.Stop(caught)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			await(t, "the mount is written down", func() bool {
				records := b.records()
				return len(records) == 1 && records[0].State == "mounted"
			})
			if c.end != nil {
				if err := cmd.Process.Signal(c.end); err != nil {
					t.Fatal(err)
				}
			}
			stuck := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
			defer stuck.Stop()
			_ = cmd.Wait() // its state tells more
			ended, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
			// The signal ends it at once, or, if it is still at work, after that.
			if !ok || !(ended.Signaled() && ended.Signal() == c.end) && ended.ExitStatus() != exitUnsettled {
				t.Errorf("ended by %s", cmd.ProcessState)
			}
			b.must(unmountArgs(p, "v", "--deadline=20s")...)
			expect(t, p, "v", 1, 1)
			b.nothingMounted(p)
		})
	}
}

// Nobody reads stderr: the volume must not stay locked for that, nor the program
// wait for a reader.
func TestNobodyReadsStderr(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{})
	b := newBox(t, p.PluginDir())
	b.must(mountArgs(p, "v")...)
	w := fullPipe(t)
	p.Add(volumetest.Rule{Method: "Unmount", Do: volumetest.DoAnswer, Status: 500, Body: `{"Err":"busy"}`})
	cmd := b.command(unmountArgs(p, "v", "--verbose")...)
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, "the unmount is owed", func() bool {
		records := b.records()
		return len(records) == 1 && records[0].State == "pending-unmount"
	})
	p.Clear()
	b.must(unmountArgs(p, "v")...)
	stuck := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer stuck.Stop()
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != exitFailure {
		t.Errorf("ended by %s", cmd.ProcessState)
	}
}

// A volume that somebody else on this host uses is not destroyed.
func TestRemoveOfWhatOthersUse(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{Bind: os.Geteuid() == 0, Counting: volumetest.CountNothing})
	b := newBox(t, p.PluginDir())
	other := b.with("DVDCLI_RUN_DIR", filepath.Join(b.dir, "run2")).with("DVDCLI_STATE_DIR", filepath.Join(b.dir, "state2"))
	remove := []string{"remove", "--volumedriver=test", "--volumename=v"}
	other.must(mountArgs(p, "v")...)
	if text := b.fails(exitInUse, remove...); !strings.Contains(text, "run2") {
		t.Error(text)
	}
	if n := len(p.Calls("Remove")); n != 0 {
		t.Errorf("%d removes", n)
	}
	if os.Geteuid() != 0 {
		return // once forgotten, a plain directory does not tell that it is in use
	}
	other.must("ledger", "forget", "--yes", "--volumedriver=test", "--volumename=v")
	b.fails(exitInUse, remove...) // mounted, for nobody that is known
	if n := len(p.Calls("Remove")); n != 0 {
		t.Errorf("%d removes", n)
	}
	b.must(unmountArgs(p, "v")...)
	b.must(append(remove, "--force")...)
}

// Two agents of a host share a volume of a plugin that keeps no account of mount
// IDs: the first one's unmount takes nothing from the other, and the last one's
// leaves nothing.
func TestTwoAgentsOneMount(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{Bind: os.Geteuid() == 0, Counting: volumetest.CountNothing})
	b := newBox(t, p.PluginDir())
	other := b.with("DVDCLI_RUN_DIR", filepath.Join(b.dir, "run2")).with("DVDCLI_STATE_DIR", filepath.Join(b.dir, "state2"))
	for _, agent := range []*box{b, other} {
		if got := agent.must(mountArgs(p, "v")...); got != p.Mountpoint("v") {
			t.Fatalf("path %q", got)
		}
	}
	if out := b.run(unmountArgs(p, "v")...); out.code != 0 || !strings.Contains(out.stderr, "run2") {
		t.Errorf("%+v", out)
	}
	if !p.States()["v"].Mounted {
		t.Fatal("the other agent's mount is gone")
	}
	if out := other.run(unmountArgs(p, "v")...); out.code != 0 {
		t.Errorf("%+v", out)
	}
	expect(t, p, "v", 2, 2)
	b.nothingMounted(p)
	other.nothingMounted(p)
}

// A socket's path that is too long for the kernel is named as that.
func TestLongSocketPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("x", 120))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	b := newBox(t, dir)
	spec := "unix://" + filepath.Join(dir, "far.sock")
	if err := os.WriteFile(filepath.Join(dir, "far.spec"), []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	text := b.fails(exitUnreachable, "mount", "--volumedriver=far", "--volumename=v", "--deadline=2s")
	if !strings.Contains(text, "107") || !strings.Contains(text, "path") {
		t.Error(text)
	}
}

// The volume's root directory is given to the owner that the policy names, what
// is in it is not.
func TestChownOnMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give files away")
	}
	p := volumetest.Start(t, volumetest.Config{Bind: true})
	b := newBox(t, p.PluginDir())
	path := b.must(mountArgs(p, "v")...)
	if err := os.WriteFile(filepath.Join(path, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.must(unmountArgs(p, "v")...)
	b.policy("drivers: {test: {chown: '1234:5678'}}")
	b.must(mountArgs(p, "v")...)
	for name, want := range map[string][2]uint32{"": {1234, 5678}, "file": {0, 0}} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(path, name), &st); err != nil || [2]uint32{st.Uid, st.Gid} != want {
			t.Errorf("%q belongs to %d:%d, %v", name, st.Uid, st.Gid, err)
		}
	}
	b.must(unmountArgs(p, "v")...)
}

// Managed plugins are found below the daemon's data directory.
func TestDockerRoot(t *testing.T) {
	b := newBox(t, t.TempDir())
	root := t.TempDir()
	id := strings.Repeat("a", 64)
	if err := os.MkdirAll(filepath.Join(root, "plugins", id), 0o700); err != nil {
		t.Fatal(err)
	}
	config := `{"plugin":{"Name":"rexray/ebs:latest","Enabled":false,"Config":{"Interface":{"Socket":"rexray.sock","Types":["docker.volumedriver/1.0"]}}}}`
	if err := os.WriteFile(filepath.Join(root, "plugins", id, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	mount := []string{"mount", "--volumedriver=rexray/ebs", "--volumename=v"}
	if text := b.with("DVDCLI_DOCKER_ROOT", root).fails(exitUnreachable, mount...); !strings.Contains(text, "disabled") {
		t.Error(text)
	}
	if text := b.fails(exitUnreachable, mount...); !strings.Contains(text, "unknown") {
		t.Error(text)
	}
}

// A reader that went away is an error, not a silent success.
func TestClosedStdout(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{})
	b := newBox(t, p.PluginDir())
	cmd := b.command(mountArgs(p, "v")...)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = w
	if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != exitFailure {
		t.Errorf("%v", err)
	}
	b.must(unmountArgs(p, "v")...)
	expect(t, p, "v", 1, 1)
}

// Directories that cannot be used are named, with the remedy.
func TestUnusableDirectories(t *testing.T) {
	p := volumetest.Start(t, volumetest.Config{})
	b := newBox(t, p.PluginDir())
	file := filepath.Join(b.dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(b.dir, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, open, "relative"} {
		text := b.with("DVDCLI_RUN_DIR", dir).fails(exitLedger, mountArgs(p, "v")...)
		if !strings.Contains(text, dir) || !strings.Contains(text, "DVDCLI_RUN_DIR") {
			t.Errorf("%s: %s", dir, text)
		}
	}
	expect(t, p, "v", 0, 0)
}
