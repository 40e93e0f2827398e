// Package doctor looks on a host for what keeps volumes from being mounted, or
// from being seen once they are.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
)

// Level says how bad a finding is.
type Level string

// The levels: what works, what may be meant that way, what does not work.
const (
	Good    Level = "ok"
	Warning Level = "warning"
	Problem Level = "problem"
)

// Finding is one thing that was looked at.
type Finding struct {
	Level   Level  `json:"level"`
	What    string `json:"what"`
	Finding string `json:"finding"`
	// Remedy says what to do; empty for what is good.
	Remedy string `json:"remedy,omitempty"`
}

// Input is what to look at.
type Input struct {
	RunDir, StateDir string
	Mounts           volume.MountTables
	Drivers          volume.Drivers
	// Policy reads the policy and returns what is wrong with it.
	Policy func() error
	// Reconcile compares the ledger with the host without changing anything.
	Reconcile func() ([]engine.Finding, error)
	// Root is the root of the file system that is examined: "/", but for tests.
	Root string
}

// Examine makes all checks. What a check cannot find out is a finding too.
func Examine(ctx context.Context, in Input) []Finding {
	var out []Finding
	out = append(out, directory("run directory", in.RunDir)...)
	out = append(out, directory("state directory", in.StateDir)...)
	out = append(out, kept(in.StateDir)...)
	out = append(out, policy(in)...)
	out = append(out, drivers(ctx, in)...)
	out = append(out, propagation(ctx, in)...)
	out = append(out, namespaces(ctx, in)...)
	out = append(out, units(in)...)
	return append(out, records(in)...)
}

func directory(what, path string) []Finding {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []Finding{{Good, what, path + " does not exist yet and will be made", ""}}
	case err != nil:
		return []Finding{{Problem, what, err.Error(), "give this user access to it, or name another directory"}}
	case !st.IsDir():
		return []Finding{{Problem, what, path + " is not a directory", "remove it, or name another directory"}}
	case st.Mode().Perm()&0o002 != 0:
		return []Finding{{Problem, what, path + " can be written by every user", "chmod o-w " + path}}
	}
	if err := unix.Access(path, unix.W_OK); err != nil {
		return []Finding{{Problem, what, path + ": " + err.Error(), "run as the user whom it belongs to, or name another directory"}}
	}
	return []Finding{{Good, what, path, ""}}
}

// kept warns of a state directory that does not survive a reboot.
func kept(path string) []Finding {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil || st.Type != unix.TMPFS_MAGIC {
		return nil
	}
	return []Finding{{Warning, "state directory", path + " is on a tmpfs and lost at a reboot",
		"put it on a disk: drivers that mount again by themselves after a reboot could not be told apart otherwise"}}
}

func policy(in Input) []Finding {
	if err := in.Policy(); err != nil {
		return []Finding{{Problem, "policy", err.Error(), "correct the file; until then nothing is mounted"}}
	}
	return []Finding{{Good, "policy", "readable or absent", ""}}
}

func drivers(ctx context.Context, in Input) []Finding {
	infos, err := in.Drivers.List(ctx)
	if err != nil {
		return []Finding{{Problem, "drivers", err.Error(), "give this user access to the plugin directories"}}
	}
	if len(infos) == 0 {
		return []Finding{{Warning, "drivers", "none found", "start a volume plugin, or name its directory in DVDCLI_PLUGIN_DIRS"}}
	}
	var out []Finding
	for _, info := range infos {
		out = append(out, driver(ctx, in, info))
	}
	return out
}

func driver(ctx context.Context, in Input, info volume.DriverInfo) Finding {
	what := "driver " + info.Name
	if info.Problem != "" {
		return Finding{Problem, what, info.Source + ": " + info.Problem, "correct or remove that file"}
	}
	d, err := in.Drivers.Open(ctx, info.Name)
	if err == nil {
		_, err = d.Capabilities(ctx)
	}
	if err != nil {
		return Finding{Problem, what, err.Error(), "start the driver, or remove " + info.Source + " if it is gone for good"}
	}
	return Finding{Good, what, "reachable, defined by " + info.Source, ""}
}

// propagation looks whether mounts under the root reach other namespaces.
func propagation(ctx context.Context, in Input) []Finding {
	table, err := in.Mounts.Own(ctx)
	if err != nil {
		return []Finding{{Problem, "mount propagation", err.Error(), "mount /proc"}}
	}
	top, n := table.At("/")
	if n == 0 {
		return []Finding{{Warning, "mount propagation", "the mount table has no entry for /", "run dvdcli outside of chroots"}}
	}
	if strings.Contains(top.Propagation, "shared:") {
		return []Finding{{Good, "mount propagation", "/ is shared", ""}}
	}
	return []Finding{{Warning, "mount propagation", "/ is not a shared mount: what drivers mount in another mount namespace is not seen here",
		"mount --make-rshared /, or run driver and agent in one mount namespace"}}
}

// namespaces compares the mount namespace of the agents with this one.
func namespaces(ctx context.Context, in Input) []Finding {
	mine, err := os.Readlink(filepath.Join(in.Root, "proc/self/ns/mnt"))
	if err != nil {
		return []Finding{{Warning, "mount namespaces", err.Error(), "mount /proc"}}
	}
	var out []Finding
	for _, pid := range processes(ctx, in.Root, "mesos-agent", "mesos-slave") {
		theirs, err := os.Readlink(filepath.Join(in.Root, "proc", pid, "ns/mnt"))
		what := "mesos agent, pid " + pid
		switch {
		case err != nil:
			out = append(out, Finding{Warning, what, "its mount namespace cannot be read: " + err.Error(), "run doctor as root"})
		case theirs != mine:
			out = append(out, Finding{Warning, what, fmt.Sprintf("it runs in mount namespace %s, not in this one, %s", theirs, mine),
				"take PrivateTmp, PrivateMounts, ProtectSystem and MountFlags out of its unit, or make sure that mounts propagate there"})
		default:
			out = append(out, Finding{Good, what, "in this mount namespace", ""})
		}
	}
	return out
}

// processes finds processes by name.
func processes(ctx context.Context, root string, names ...string) []string {
	found, err := filepath.Glob(filepath.Join(root, "proc/[0-9]*/comm"))
	if err != nil {
		return nil
	}
	var out []string
	for _, f := range found {
		if ctx.Err() != nil {
			return out
		}
		data, err := os.ReadFile(f)
		if err == nil && slices.Contains(names, strings.TrimSpace(string(data))) {
			out = append(out, filepath.Base(filepath.Dir(f)))
		}
	}
	return out
}

// hiding are unit settings that give a service a mount namespace of its own
// (systemd.exec(5)), with the values that do not.
var hiding = map[string][]string{
	"PrivateTmp": {"no", "false", "0", "off"}, "PrivateMounts": {"no", "false", "0", "off"},
	"PrivateDevices": {"no", "false", "0", "off"}, "ProtectHome": {"no", "false", "0", "off"},
	"ProtectSystem": {"no", "false", "0", "off"}, "MountFlags": {"shared"},
}

// units reads the units of agents and plugins for settings that hide mounts.
func units(in Input) []Finding {
	var out []Finding
	for _, dir := range []string{"etc/systemd/system", "run/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"} {
		for _, pattern := range []string{"mesos-*.service", "mesos-*.service.d/*.conf", "dcos-mesos-*.service", "dcos-mesos-*.service.d/*.conf", "isolator-bridge.service", "isolator-bridge.service.d/*.conf"} {
			files, err := filepath.Glob(filepath.Join(in.Root, dir, pattern))
			if err != nil {
				continue
			}
			for _, f := range files {
				out = append(out, unit(f)...)
			}
		}
	}
	return out
}

func unit(file string) []Finding {
	data, err := os.ReadFile(file)
	if err != nil {
		return []Finding{{Warning, "unit " + file, err.Error(), "run doctor as root"}}
	}
	var out []Finding
	for line := range strings.Lines(string(data)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		harmless, known := hiding[strings.TrimSpace(key)]
		if !ok || !known || slices.Contains(harmless, strings.ToLower(strings.TrimSpace(value))) || strings.TrimSpace(value) == "" {
			continue
		}
		out = append(out, Finding{Problem, "unit " + file, strings.TrimSpace(line) + " gives the service mounts of its own: volumes mounted later are not seen in it, or only in it",
			"remove the setting, systemctl daemon-reload, restart the service"})
	}
	return out
}

func records(in Input) []Finding {
	findings, err := in.Reconcile()
	if err != nil {
		return []Finding{{Problem, "ledger", err.Error(), "see `dvdcli ledger list`"}}
	}
	out := []Finding{}
	for _, f := range findings {
		what := fmt.Sprintf("volume %q of driver %q", f.Volume, f.Driver)
		if f.File != "" {
			what = f.File
		}
		switch {
		case f.Problem != "":
			out = append(out, Finding{Problem, what, f.State + ": " + f.Problem, "see `dvdcli ledger verify`; `dvdcli ledger repair` does what can be done"})
		case f.Action != "":
			out = append(out, Finding{Warning, what, f.State, "`dvdcli ledger repair`, or a running isolator-bridge, will " + f.Action})
		}
	}
	if len(out) == 0 {
		out = append(out, Finding{Good, "ledger", fmt.Sprintf("%d records, all in order", len(findings)), ""})
	}
	return out
}
