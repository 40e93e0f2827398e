package dockerplugin

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
)

// docker is a host with managed plugins, laid out as Docker does it.
type docker struct {
	t         *testing.T
	run, root string
}

func newDocker(t *testing.T) *docker {
	t.Helper()
	// A plugin's id is 64 characters of the 107 that a socket's path may have.
	run, err := os.MkdirTemp("/tmp", "run")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(run); err != nil {
			t.Error(err)
		}
	})
	return &docker{t: t, run: run, root: t.TempDir()}
}

func (d *docker) drivers() *Drivers {
	return New(Config{Dirs: []string{d.run}, DockerRoot: d.root, Clock: newFakeClock()})
}

func id(n int) string { return strings.Repeat(fmt.Sprint(n), 64) }

// install records a plugin as Docker does.
func (d *docker) install(n int, name, propagated string, enabled bool, kind string) (dir string) {
	d.t.Helper()
	dir = filepath.Join(d.root, "plugins", id(n))
	writeFile(d.t, filepath.Join(dir, "config.json"), fmt.Sprintf(
		`{"plugin":{"Config":{"Interface":{"Socket":"test.sock","Types":[%s]},"PropagatedMount":%q},"Enabled":%t,"Id":%q,"Name":%q,"Settings":{}},"Config":"sha256:0"}`,
		kind, propagated, enabled, id(n), name))
	return dir
}

const volumeDriver = `"docker.volumedriver/1.0"`

// start runs the plugin's process.
func (d *docker) start(n int, config volumetest.Config) *volumetest.Plugin {
	d.t.Helper()
	config.PluginDir = filepath.Join(d.run, id(n))
	return volumetest.Start(d.t, config)
}

func TestManagedPluginByAnyName(t *testing.T) {
	d := newDocker(t)
	dir := d.install(1, "rexray/ebs:latest", "/var/lib/volumes", true, volumeDriver)
	d.install(2, "rexray/ebs:0.11", "", true, `{"Prefix":"docker","Capability":"volumedriver","Version":"1.0"}`)
	p := d.start(1, volumetest.Config{Rules: []volumetest.Rule{
		{Method: "Mount", Do: volumetest.DoAnswer, Body: `{"Mountpoint":"/var/lib/volumes/v"}`},
		{Method: "Path", Do: volumetest.DoAnswer, Body: `{"Mountpoint":"/mnt/v"}`},
		{Method: "Get", Do: volumetest.DoAnswer, Body: `{"Volume":{"Name":"v","Mountpoint":"/var/lib/volumes2/v"}}`},
		{Method: "List", Do: volumetest.DoAnswer, Body: `{"Volumes":[{"Name":"v","Mountpoint":"/var/lib/volumes"},{"Name":"w"}]}`},
	}})
	second := d.start(2, volumetest.Config{})
	drivers := d.drivers()
	for _, name := range []string{"rexray/ebs", "rexray/ebs:latest", id(1), id(1)[:12]} {
		driver := open(t, drivers, name)
		if driver.Name() != name {
			t.Errorf("name %q", driver.Name())
		}
		mounted, err := driver.Mount(t.Context(), mountOf("v", "1"))
		if err != nil || mounted.Path != filepath.Join(dir, "propagated-mount/v") {
			t.Errorf("Mount by %s: %+v, %v", name, mounted, err)
		}
	}
	driver := open(t, drivers, "rexray/ebs")
	if path, err := driver.Path(t.Context(), ref("v")); err != nil || path != filepath.Join(dir, "rootfs/mnt/v") {
		t.Errorf("Path = %q, %v", path, err)
	}
	if v, err := driver.Get(t.Context(), ref("v")); err != nil || v.Mountpoint != filepath.Join(dir, "rootfs/var/lib/volumes2/v") {
		t.Errorf("Get = %+v, %v", v, err)
	}
	if all, err := driver.List(t.Context()); err != nil || all[0].Mountpoint != filepath.Join(dir, "propagated-mount") || all[1].Mountpoint != "" {
		t.Errorf("List = %+v, %v", all, err)
	}
	if n := len(p.Calls("Mount")); n != 4 {
		t.Errorf("%d mounts", n)
	}
	if _, err := open(t, drivers, "rexray/ebs:0.11").List(t.Context()); err != nil || len(second.Calls("List")) != 1 {
		t.Errorf("the other version: %v", err)
	}
}

func TestManagedPluginThatCannotBeUsed(t *testing.T) {
	d := newDocker(t)
	d.install(1, "off:latest", "", false, volumeDriver)
	d.install(2, "net:latest", "", true, `"docker.networkdriver/1.0"`)
	d.install(3, "dead:latest", "", true, volumeDriver)
	broken := filepath.Join(d.root, "plugins", id(4), "config.json")
	writeFile(t, broken, "{")
	d.install(5, "evil:latest", "", true, volumeDriver)
	writeFile(t, filepath.Join(d.root, "plugins", id(6), "config.json"),
		`{"plugin":{"Name":"escape:latest","Enabled":true,"Config":{"Interface":{"Socket":"../x.sock","Types":["docker.volumedriver/1.0"]}}}}`)
	// Legacy plugins of the same names are not a way out.
	for _, name := range []string{"off", "net", "dead"} {
		listenUnix(t, filepath.Join(d.run, name+".sock"))
	}
	drivers := d.drivers()
	for name, part := range map[string]string{
		"off":  "docker plugin enable off:latest",
		"net":  "no volume driver",
		"dead": filepath.Join(d.run, id(3), "test.sock"),
		id(4):  "not the record",
		id(6):  `"../x.sock"`,
	} {
		_, err := drivers.Open(t.Context(), name)
		wantKind(t, err, volume.DriverUnreachable, part)
	}
	infos, err := drivers.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// By the names that records and rules have; the first of a name is the one that
	// Open would take.
	problems, seen := map[string]int{}, map[string]bool{}
	for _, info := range infos {
		if info.Problem != "" && !seen[info.Name] {
			problems[info.Name]++
		}
		seen[info.Name] = true
	}
	for _, name := range []string{"off", "net", "dead", id(4), id(6)} {
		if problems[name] != 1 {
			t.Errorf("%s is not listed with its problem: %+v", name, infos)
		}
	}
	_, err = drivers.Open(t.Context(), "other")
	wantKind(t, err, volume.DriverUnknown, filepath.Join(d.root, "plugins"))
}

func TestAmbiguousID(t *testing.T) {
	d := newDocker(t)
	for _, last := range []string{"a", "b"} {
		writeFile(t, filepath.Join(d.root, "plugins", strings.Repeat("0", 63)+last, "config.json"), "{}")
	}
	_, err := d.drivers().Open(t.Context(), strings.Repeat("0", 12))
	wantKind(t, err, volume.Invalid, "several")
	_, err = d.drivers().Open(t.Context(), strings.Repeat("0", 11))
	wantKind(t, err, volume.DriverUnknown)
}

func TestManagedRecordsOutOfReach(t *testing.T) {
	d := newDocker(t)
	writeFile(t, filepath.Join(d.root, "plugins", "storage", "config.json"), "{}") // not a plugin
	if err := os.MkdirAll(filepath.Join(d.root, "plugins", id(1)), 0o755); err != nil {
		t.Fatal(err)
	}
	infos, err := d.drivers().List(t.Context())
	if err != nil || len(infos) != 1 || infos[0].Name != id(1) || !strings.Contains(infos[0].Problem, "no such file") {
		t.Errorf("%+v, %v", infos, err)
	}
}

func TestRescope(t *testing.T) {
	for _, test := range []struct{ propagated, path, want string }{
		{"", "", ""},
		{"", "/mnt/v", "/p/rootfs/mnt/v"},
		{"", "mnt/v", "/p/rootfs/mnt/v"},
		{"/data", "/data/v", "/p/propagated-mount/v"},
		{"/data/", "/data/v", "/p/propagated-mount/v"},
		{"/data", "/data", "/p/propagated-mount"},
		{"/data", "/database/v", "/p/rootfs/database/v"},
		{"/data", "/data/../../../etc", "/p/rootfs/etc"},
		{"/", "/v", "/p/propagated-mount/v"},
	} {
		m := &managed{dir: "/p", propagatedMount: test.propagated}
		if got := m.rescope(test.path); got != test.want {
			t.Errorf("rescope(%q) with %q = %q, want %q", test.path, test.propagated, got, test.want)
		}
	}
	var legacy *managed
	if got := legacy.rescope("/x/../y"); got != "/x/../y" {
		t.Errorf("a legacy plugin's path became %q", got)
	}
}

// Whatever a managed plugin is called by, it has one name.
func TestCanonicalName(t *testing.T) {
	d := newDocker(t)
	d.install(1, "rexray/ebs:latest", "", true, volumeDriver)
	d.install(2, "rexray/ebs:0.11", "", false, volumeDriver)
	drivers := d.drivers()
	for name, want := range map[string]string{
		"rexray/ebs": "rexray/ebs", "rexray/ebs:latest": "rexray/ebs", "rexray/ebs:0.11": "rexray/ebs:0.11",
		id(1): "rexray/ebs", id(1)[:12]: "rexray/ebs", id(2)[:20]: "rexray/ebs:0.11",
		id(3)[:12]: id(3)[:12], id(1)[:11]: id(1)[:11], "rclone": "rclone", "gone:latest": "gone", "": "",
	} {
		if got := drivers.Canonical(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
