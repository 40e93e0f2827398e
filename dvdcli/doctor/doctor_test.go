package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
)

type mounts struct{ table volume.MountTable }

func (m mounts) Own(context.Context) (volume.MountTable, error) { return m.table, nil }
func (m mounts) OfProcess(context.Context, int) (volume.MountTable, error) {
	return volume.MountTable{}, errors.ErrUnsupported
}
func (m mounts) Stat(context.Context, string) (volume.PathFacts, error) {
	return volume.PathFacts{}, errors.ErrUnsupported
}

type noDriver struct{ infos []volume.DriverInfo }

func (n noDriver) List(context.Context) ([]volume.DriverInfo, error) { return n.infos, nil }
func (n noDriver) Open(_ context.Context, name string) (volume.Driver, error) {
	return nil, &volume.Error{Kind: volume.DriverUnreachable, Driver: name}
}

// servedBy is drivers that a process serves.
type servedBy struct {
	noDriver
	pid int
}

func (s servedBy) Open(context.Context, string) (volume.Driver, error) {
	return served{pid: s.pid}, nil
}

type served struct {
	volume.Driver
	pid int
}

func (s served) ServerPID() int { return s.pid }
func (s served) Capabilities(context.Context) (volume.Capabilities, error) {
	return volume.Capabilities{}, nil
}

// closed is drivers whose sockets belong to somebody else.
type closed struct{ noDriver }

func (closed) Open(_ context.Context, name string) (volume.Driver, error) {
	return nil, &volume.Error{Kind: volume.DriverUnreachable, Driver: name, Err: fs.ErrPermission}
}

// sound is a host on which doctor finds nothing to complain of.
func sound(t *testing.T) Input {
	t.Helper()
	root := t.TempDir()
	write(t, root, "proc/self/ns/.keep", "")
	if err := os.Symlink("mnt:[1]", filepath.Join(root, "proc/self/ns/mnt")); err != nil {
		t.Fatal(err)
	}
	dir := func(name string) string {
		d := filepath.Join(root, name)
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
		return d
	}
	return Input{RunDir: dir("run"), StateDir: dir("state"), HostDir: dir("host"), Root: root, PluginDirs: []string{dir("plugins"), filepath.Join(root, "missing")},
		Leftovers: func() (aside, temporary []string, err error) { return nil, nil, nil },
		Mounts:    mounts{volume.MountTable{Mounts: []volume.MountPoint{{Path: "/", Propagation: "shared:1"}}}},
		Drivers:   noDriver{},
		Policy:    func() (*engine.Policy, error) { return &engine.Policy{}, nil },
		Reconcile: func() ([]engine.Finding, error) { return nil, nil }}
}

func write(t *testing.T, root, name, text string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// problems are the findings that need somebody, drivers that are simply absent
// not counted.
func problems(in Input) []Finding {
	var out []Finding
	for _, f := range Examine(context.Background(), in) {
		if f.Level != Good && f.What != "drivers" && !strings.Contains(f.Finding, "tmpfs") {
			out = append(out, f)
		}
	}
	return out
}

func TestSoundHost(t *testing.T) {
	own := sound(t)
	own.HostDir = filepath.Join(own.Root, "run/dvdi/ledgers")
	write(t, own.Root, "run/dvdi/ledgers/abc", "/run/dvdi\x00/var/lib/dvdi")
	if got := problems(own); len(got) != 0 {
		t.Errorf("with its own ledgers: %+v", got)
	}
	if got := problems(sound(t)); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

// Each fault is found, at the level that it deserves, and with a remedy.
func TestFaults(t *testing.T) {
	agent := func(t *testing.T, in *Input, ns string) {
		write(t, in.Root, "proc/42/comm", "mesos-agent\n")
		write(t, in.Root, "proc/42/ns/.keep", "")
		if err := os.Symlink(ns, filepath.Join(in.Root, "proc/42/ns/mnt")); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		spoil func(*testing.T, *Input)
		level Level
		says  string
	}{
		"run directory open to all": {func(t *testing.T, in *Input) {
			if err := os.Chmod(in.RunDir, 0o777); err != nil {
				t.Fatal(err)
			}
		}, Problem, "every user"},
		"state directory is a file": {func(t *testing.T, in *Input) {
			write(t, in.Root, "file", "")
			in.StateDir = filepath.Join(in.Root, "file")
		}, Problem, "not a directory"},
		"policy": {func(_ *testing.T, in *Input) {
			in.Policy = func() (*engine.Policy, error) { return nil, errors.New("line 3") }
		}, Problem, "line 3"},
		"driver that the policy forbids": {func(_ *testing.T, in *Input) {
			in.Drivers = servedBy{noDriver{[]volume.DriverInfo{{Name: "x", Source: "/x.sock"}}}, 77}
			in.Policy = func() (*engine.Policy, error) { return &engine.Policy{AllowedDrivers: []string{"y", "z"}}, nil }
		}, Warning, "forbidden by policy: driver is not among y, z"},
		"broken driver file": {func(_ *testing.T, in *Input) {
			in.Drivers = noDriver{[]volume.DriverInfo{{Name: "x", Source: "/x.json", Problem: "no address"}}}
		}, Problem, "no address"},
		"driver down": {func(_ *testing.T, in *Input) {
			in.Drivers = noDriver{[]volume.DriverInfo{{Name: "x", Source: "/x.sock"}}}
		}, Problem, "unreachable"},
		"private root": {func(_ *testing.T, in *Input) {
			in.Mounts = mounts{volume.MountTable{Mounts: []volume.MountPoint{{Path: "/"}}}}
		}, Warning, "not a shared mount"},
		"agent elsewhere": {func(t *testing.T, in *Input) { agent(t, in, "mnt:[2]") }, Warning, "mnt:[2]"},
		"PrivateTmp in the agent's unit": {func(t *testing.T, in *Input) {
			write(t, in.Root, "etc/systemd/system/mesos-agent.service", "[Service]\nPrivateTmp=yes\n")
		}, Problem, "PrivateTmp=yes"},
		"drop-in": {func(t *testing.T, in *Input) {
			write(t, in.Root, "usr/lib/systemd/system/mesos-slave.service.d/x.conf", "[Service]\n MountFlags = slave\n")
		}, Problem, "MountFlags"},
		"drop-in over a harmless unit": {func(t *testing.T, in *Input) {
			write(t, in.Root, "usr/lib/systemd/system/mesos-agent.service", "[Service]\nPrivateTmp=no\n")
			write(t, in.Root, "etc/systemd/system/mesos-agent.service.d/10-tmp.conf", "[Service]\nPrivateTmp=true\n")
		}, Problem, "10-tmp.conf"},
		"paths that are hidden from the agent": {func(t *testing.T, in *Input) {
			write(t, in.Root, "etc/systemd/system/mesos-slave.service", "[Service]\nReadOnlyPaths=/srv\n")
		}, Problem, "ReadOnlyPaths=/srv"},
		"PrivateTmp in the unit of a plugin": {func(t *testing.T, in *Input) {
			in.Drivers = servedBy{noDriver{[]volume.DriverInfo{{Name: "x", Source: "/x.sock"}}}, 77}
			write(t, in.Root, "proc/77/cgroup", "0::/system.slice/rexray.service\n")
			write(t, in.Root, "lib/systemd/system/rexray.service", "[Service]\nPrivateTmp=yes\n")
		}, Problem, "PrivateTmp=yes"},
		"socket of somebody else": {func(_ *testing.T, in *Input) {
			in.Drivers = closed{noDriver{[]volume.DriverInfo{{Name: "x", Source: "/x.sock"}}}}
		}, Problem, "permission denied"},
		"no plugin directory": {func(_ *testing.T, in *Input) { in.PluginDirs = in.PluginDirs[1:] }, Warning, "missing"},
		"plugin directory that is none": {func(t *testing.T, in *Input) {
			write(t, in.Root, "file", "")
			in.PluginDirs = append(in.PluginDirs, filepath.Join(in.Root, "file"))
		}, Problem, "not a directory"},
		"host directory open to all": {func(t *testing.T, in *Input) {
			if err := os.Chmod(in.HostDir, 0o777); err != nil {
				t.Fatal(err)
			}
		}, Problem, "every user"},
		"ledgers of another user": {func(t *testing.T, in *Input) {
			write(t, in.Root, "run/user/7/dvdi/ledgers/abc", "/run/user/7/dvdi\x00/home/u/.local/state/dvdi")
			write(t, in.Root, "tmp/dvdi-8/ledgers/locks/x.lock", "") // nobody joined
		}, Warning, "run/user/7/dvdi/ledgers"},
		"ledgers of root": {func(t *testing.T, in *Input) { write(t, in.Root, "run/dvdi/ledgers/abc", "/run/dvdi\x00/var/lib/dvdi") }, Warning, "do not know of each other"},
		"record set aside": {func(_ *testing.T, in *Input) {
			in.Leftovers = func() (aside, temporary []string, err error) { return []string{"/run/dvdi/set-aside/v.1"}, nil, nil }
		}, Warning, "set-aside/v.1"},
		"temporary files": {func(_ *testing.T, in *Input) {
			in.Leftovers = func() (aside, temporary []string, err error) { return nil, []string{"/a", "/b"}, nil }
		}, Warning, "2 temporary files"},
		"ledger": {func(_ *testing.T, in *Input) {
			in.Reconcile = func() ([]engine.Finding, error) {
				return []engine.Finding{{Driver: "d", Volume: "v", State: "mounted", Problem: "it is gone"}}, nil
			}
		}, Problem, "it is gone"},
		"owed work": {func(_ *testing.T, in *Input) {
			in.Reconcile = func() ([]engine.Finding, error) {
				return []engine.Finding{{Driver: "d", Volume: "v", State: "an unmount is owed", Action: "ask the driver to unmount"}}, nil
			}
		}, Warning, "owed"},
	} {
		t.Run(name, func(t *testing.T) {
			in := sound(t)
			c.spoil(t, &in)
			got := problems(in)
			if len(got) != 1 || got[0].Level != c.level || !strings.Contains(got[0].Finding, c.says) || got[0].Remedy == "" {
				t.Errorf("%+v", got)
			}
		})
	}
}

// Settings that hide nothing are left in peace.
func TestHarmlessUnits(t *testing.T) {
	in := sound(t)
	write(t, in.Root, "etc/systemd/system/mesos-agent.service", "[Service]\nPrivateTmp=no\nProtectHome=false\nMountFlags=shared\nProtectSystem=full\n#PrivateMounts=yes\nExecStart=/usr/sbin/mesos-agent\n")
	write(t, in.Root, "etc/systemd/system/mesos-agent.service.d/90-mounts.conf", "[Service]\nProtectSystem=\n")
	write(t, in.Root, "etc/systemd/system/other.service", "[Service]\nPrivateTmp=yes\n")
	agent := filepath.Join(in.Root, "proc/43")
	write(t, in.Root, "proc/43/comm", "mesos-agent\n")
	write(t, in.Root, "proc/43/ns/.keep", "")
	if err := os.Symlink("mnt:[1]", filepath.Join(agent, "ns/mnt")); err != nil {
		t.Fatal(err)
	}
	if got := problems(in); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}
