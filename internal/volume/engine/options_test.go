package engine

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mesos-dvdi/dvdi/internal/volume"
)

func TestParseOptions(t *testing.T) {
	for _, c := range []struct {
		args   []string
		driver map[string]string
		engine map[string]string
	}{
		{nil, nil, nil},
		{[]string{"size=5"}, map[string]string{"size": "5"}, nil},
		{[]string{"a=b=c"}, map[string]string{"a": "b=c"}, nil},
		{[]string{"k=x,y"}, map[string]string{"k": "x,y"}, nil},
		{[]string{"a=1,b=2"}, map[string]string{"a": "1", "b": "2"}, nil},
		{[]string{"a=1,b"}, map[string]string{"a": "1,b"}, nil},
		{[]string{"flag"}, map[string]string{"flag": ""}, nil},
		{[]string{"flag,other"}, map[string]string{"flag,other": ""}, nil},
		{[]string{"a="}, map[string]string{"a": ""}, nil},
		{[]string{"a=1", "a=2"}, map[string]string{"a": "2"}, nil},
		{[]string{"o=uid=1,gid=2"}, map[string]string{"o": "uid=1", "gid": "2"}, nil},
		{[]string{"a= b "}, map[string]string{"a": " b "}, nil},
		{[]string{"dvdi.instance=x", "a=1"}, map[string]string{"a": "1"}, map[string]string{"dvdi.instance": "x"}},
		{[]string{"DVDI.instance=x"}, map[string]string{"DVDI.instance": "x"}, nil},
	} {
		got, err := ParseOptions(c.args)
		if err != nil || !maps.Equal(got.Driver, c.driver) || !maps.Equal(got.Engine, c.engine) {
			t.Errorf("%q: %v, %v", c.args, got, err)
		}
	}
	for _, bad := range []string{"", "=", "=x", "a=1,=2"} {
		if _, err := ParseOptions([]string{bad}); !errors.Is(err, volume.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// Nothing of an option is lost or made up, and reserved ones stay here.
func FuzzParseOptions(f *testing.F) {
	for _, s := range []string{"a=b", "a=b=c", "k=x,y", "flag", "a=1,b=2", "dvdi.epoch=3", ",", "=,=", "\x00=\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, arg string) {
		got, err := ParseOptions([]string{arg})
		if err != nil {
			if !errors.Is(err, volume.Invalid) {
				t.Error(err)
			}
			return
		}
		for k, v := range got.Driver {
			if strings.HasPrefix(k, "dvdi.") || k == "" || !strings.Contains(arg, k) || !strings.Contains(arg, v) {
				t.Errorf("%q: %q=%q", arg, k, v)
			}
		}
		for k := range got.Engine {
			if !strings.HasPrefix(k, "dvdi.") {
				t.Errorf("%q: %q", arg, k)
			}
		}
		if len(got.Driver)+len(got.Engine) == 0 {
			t.Errorf("%q gave nothing", arg)
		}
	})
}

const fullPolicy = `
explicitCreate: true
allowedDrivers: [rexray, rclone]
defaults:
  mountpoint: required
  secretOptions: [pin]
  timeouts: {mount: 30s}
drivers:
  rexray:
    explicitCreate: false
    allowedOptions: [size, iops]
    forbiddenOptions: [IOPS]
    defaultOptions: {size: "5"}
    secretOptions: [key]
    timeouts: {mount: 10s, unmount: 5m}
    root: /var/lib/rexray
    chown: "1000:1000"
  rclone:
    forbiddenOnExisting: []
    mountpoint: auto
`

// asIs is for drivers with one name.
func asIs(name string) string { return name }

func TestPolicy(t *testing.T) {
	p, err := ParsePolicy([]byte(fullPolicy))
	if err != nil {
		t.Fatal(err)
	}
	rexray, rclone := p.rulesFor("rexray", asIs), p.rulesFor("rclone", asIs)
	if rexray.MountPoint != "required" || rclone.MountPoint != "auto" || rexray.Root == "" || rclone.Root != "" {
		t.Errorf("%+v\n%+v", rexray, rclone)
	}
	if rexray.Timeouts.Mount.Seconds() != 10 || rclone.Timeouts.Mount.Seconds() != 30 || rexray.Timeouts.Unmount.Minutes() != 5 {
		t.Errorf("%+v %+v", rexray.Timeouts, rclone.Timeouts)
	}
	if p.explicitCreate(rexray) || !p.explicitCreate(rclone) {
		t.Error("explicitCreate")
	}
	if !rexray.isSecret("PIN") || !rexray.isSecret("key") || rclone.isSecret("key") {
		t.Error("secrets")
	}
	for _, c := range []struct {
		driver, option string
		ok             bool
	}{
		{"rexray", "size", true}, {"rexray", "iops", false}, {"rexray", "other", false},
		{"rclone", "anything", true}, {"sshfs", "size", false},
	} {
		err := p.allows(c.driver, asIs, map[string]string{c.option: "1"})
		if c.ok != (err == nil) || err != nil && !errors.Is(err, volume.Forbidden) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	overwrite := map[string]string{"overwriteFs": "true"}
	if err := rexray.allowsOnExisting(overwrite); !errors.Is(err, volume.Forbidden) {
		t.Errorf("overwriteFs by default: %v", err)
	}
	if err := rclone.allowsOnExisting(overwrite); err != nil {
		t.Errorf("overwriteFs where the policy allows it: %v", err)
	}
	if err := rexray.allowsOnExisting(map[string]string{"overwritefs": "false"}); err != nil {
		t.Errorf("overwriteFs=false: %v", err)
	}
	if got := rexray.withDefaults(map[string]string{"iops": "1"}); got["size"] != "5" || got["iops"] != "1" {
		t.Error(got)
	}
}

// A mistake in the policy is told; nothing is guessed.
func TestPolicyMistakes(t *testing.T) {
	for name, text := range map[string]string{
		"no yaml":           "{",
		"unknown key":       "allowDrivers: [x]",
		"unknown rule":      "drivers: {x: {mountpiont: auto}}",
		"mountpoint":        "defaults: {mountpoint: maybe}",
		"relative root":     "drivers: {x: {root: var}}",
		"owner":             "drivers: {x: {chown: root}}",
		"owner's name":      "drivers: {x: {chown: 'root:root'}}",
		"negative owner":    "drivers: {x: {chown: '-1:0'}}",
		"time":              "defaults: {timeouts: {mount: 10}}",
		"negative time":     "defaults: {timeouts: {mount: -10s}}",
		"wrong type":        "allowedDrivers: x",
		"second document":   "explicitCreate: true\n---\nexplicitCreate: false",
		"same driver twice": "drivers: {x: {}, x: {}}",
	} {
		if p, err := ParsePolicy([]byte(text)); err == nil {
			t.Errorf("%s: accepted as %+v", name, p)
		}
	}
	for _, text := range []string{"", "# nothing\n", "drivers: {x: }"} {
		if _, err := ParsePolicy([]byte(text)); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	if p, err := loadPolicy(t.TempDir()+"/none", true); p != nil || err != nil {
		t.Errorf("%v %v", p, err)
	}
	if _, err := LoadPolicy(t.TempDir()); !errors.Is(err, volume.BadPolicy) {
		t.Errorf("unreadable: %v", err)
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add([]byte(fullPolicy))
	f.Add([]byte("drivers: {x: {chown: '1:1'}}"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParsePolicy(data)
		if err != nil {
			return
		}
		for name := range p.Drivers {
			r := p.rulesFor(name, asIs)
			if r.Chown != "" {
				if _, _, err := parseOwner(r.Chown); err != nil {
					t.Error(err)
				}
			}
		}
	})
}

// The example that operators start from is a policy.
func TestExamplePolicy(t *testing.T) {
	p, err := LoadPolicy("../../../examples/dvdcli.yaml")
	if err != nil || p == nil {
		t.Fatal(err)
	}
	if r := p.rulesFor("rexray", asIs); r.MountPoint != "required" || r.OneCallAtATime || !p.rulesFor("rclone", asIs).OneCallAtATime {
		t.Errorf("%+v", r)
	}
}

// A policy that somebody meant to be there must not be taken for none; and
// nothing makes reading it hang.
func TestPolicyThatIsNotThere(t *testing.T) {
	dir := t.TempDir()
	link, fifo := filepath.Join(dir, "link"), filepath.Join(dir, "fifo")
	if err := os.Symlink("/nonexistent/policy", link); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	big := filepath.Join(dir, "big")
	if err := os.WriteFile(big, bytes.Repeat([]byte("#"), maxPolicy+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, optional := range map[string]bool{link: true, fifo: true, big: true, filepath.Join(dir, "none"): false} {
		if p, err := loadPolicy(path, optional); p != nil || !errors.Is(err, volume.BadPolicy) {
			t.Errorf("%s: %+v, %v", path, p, err)
		}
	}
	for _, path := range []string{os.DevNull, DefaultPolicyFile} {
		if _, err := os.Lstat(DefaultPolicyFile); err == nil && path == DefaultPolicyFile {
			continue // this host has one
		}
		if p, err := LoadPolicy(path); p != nil || err != nil {
			t.Errorf("%s: %+v, %v", path, p, err)
		}
	}
}

// rclone gets one call at a time unless the policy says otherwise; others do not.
func TestRcloneGetsOneCallAtATime(t *testing.T) {
	for _, c := range []struct {
		policy, driver string
		want           bool
	}{
		{"", "rclone", true}, {"", "rexray", false},
		{"drivers: {rclone: {concurrentCalls: true}}", "rclone", false},
		{"drivers: {rexray: {oneCallAtATime: true}}", "rexray", true},
		{"defaults: {oneCallAtATime: true}", "rexray", true},
	} {
		p, err := ParsePolicy([]byte(c.policy))
		if err != nil {
			t.Fatal(err)
		}
		if got := p.rulesFor(c.driver, asIs).OneCallAtATime; got != c.want {
			t.Errorf("%s with %q: %t", c.driver, c.policy, got)
		}
	}
}
