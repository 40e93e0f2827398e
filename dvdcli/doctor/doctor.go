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
	"strconv"
	"strings"
	"sync"

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
	RunDir, StateDir, HostDir string
	// PluginDirs are where drivers are looked for.
	PluginDirs []string
	// Leftovers are files that the ledger set aside, and temporary ones of crashes.
	Leftovers func() (aside, temporary []string, err error)
	Mounts    volume.MountTables
	Drivers   volume.Drivers
	// Policy reads what this agent's operator allows.
	Policy func() (*engine.Policy, error)
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
	out = append(out, directory("directory of this host's ledgers", in.HostDir)...)
	out = append(out, otherLedgers(in)...)
	out = append(out, policy(in)...)
	out = append(out, pluginDirectories(in)...)
	found, pids := drivers(ctx, in)
	out = append(out, found...)
	out = append(out, propagation(ctx, in)...)
	agents := processes(ctx, in.Root, "mesos-agent", "mesos-slave")
	out = append(out, namespaces(in, agents)...)
	out = append(out, units(in, append(pids, agents...))...)
	out = append(out, records(in)...)
	return append(out, leftovers(in)...)
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
	err = unix.Access(path, unix.W_OK)
	switch {
	case errors.Is(err, unix.EROFS):
		return []Finding{{Problem, what, path + ": " + err.Error(), "see the kernel's log for why its file system became read-only, and remount it; until then nothing is mounted"}}
	case err != nil:
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
	if _, err := in.Policy(); err != nil {
		return []Finding{{Problem, "policy", err.Error(), "correct the file; until then nothing is mounted"}}
	}
	return []Finding{{Good, "policy", "readable or absent", ""}}
}

// pluginDirectories looks whether the places where drivers are looked for can be
// read. Those that are missing hold nothing, which is no fault as long as there is
// another one.
func pluginDirectories(in Input) []Finding {
	var out []Finding
	missing := 0
	for _, dir := range in.PluginDirs {
		_, err := os.ReadDir(dir)
		switch {
		case err == nil:
			out = append(out, Finding{Good, "plugin directory", dir, ""})
		case errors.Is(err, fs.ErrNotExist):
			missing++
		default:
			out = append(out, Finding{Problem, "plugin directory", err.Error(), "give this user access to it, or name another one in DVDCLI_PLUGIN_DIRS"})
		}
	}
	if missing > 0 && missing == len(in.PluginDirs) {
		out = append(out, Finding{Warning, "plugin directory", "none of " + strings.Join(in.PluginDirs, ", ") + " exists", "start a volume plugin, or name its directory in DVDCLI_PLUGIN_DIRS"})
	}
	return out
}

// drivers asks all drivers, and tells the processes that serve them.
func drivers(ctx context.Context, in Input) (out []Finding, pids []int) {
	infos, err := in.Drivers.List(ctx)
	if err != nil {
		return []Finding{{Problem, "drivers", err.Error(), "give this user access to the plugin directories"}}, nil
	}
	if len(infos) == 0 {
		return []Finding{{Warning, "drivers", "none found", "start a volume plugin, or name its directory in DVDCLI_PLUGIN_DIRS"}}, nil
	}
	out, pids = make([]Finding, len(infos)), make([]int, len(infos))
	var wg sync.WaitGroup // one that hangs must not keep the others from being asked
	for i, info := range infos {
		wg.Go(func() { out[i], pids[i] = driver(ctx, in, info) })
	}
	wg.Wait()
	return out, slices.DeleteFunc(pids, func(pid int) bool { return pid == 0 })
}

func driver(ctx context.Context, in Input, info volume.DriverInfo) (Finding, int) {
	what := "driver " + info.Name
	if info.Problem != "" {
		return Finding{Problem, what, info.Source + ": " + info.Problem, "correct or remove that file"}, 0
	}
	d, err := in.Drivers.Open(ctx, info.Name)
	if err == nil {
		_, err = d.Capabilities(ctx)
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		return Finding{Problem, what, err.Error(), "give this user the right to write to the driver's socket, or run as root"}, 0
	case err != nil:
		return Finding{Problem, what, err.Error(), "start the driver, or remove " + info.Source + " if it is gone for good"}, 0
	}
	pid := 0
	if served, ok := d.(volume.Served); ok {
		pid = served.ServerPID()
	}
	if policy, err := in.Policy(); err == nil {
		if err := policy.AllowsDriver(in.Drivers, info.Name); err != nil {
			return Finding{Warning, what, "reachable, but " + err.Error(), "add it to allowedDrivers in the policy, if its volumes are to be mounted here"}, pid
		}
	}
	return Finding{Good, what, "reachable, defined by " + info.Source, ""}, pid
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
func namespaces(in Input, agents []int) []Finding {
	mine, err := os.Readlink(filepath.Join(in.Root, "proc/self/ns/mnt"))
	if err != nil {
		return []Finding{{Warning, "mount namespaces", err.Error(), "mount /proc"}}
	}
	var out []Finding
	for _, pid := range agents {
		theirs, err := os.Readlink(filepath.Join(in.Root, "proc", strconv.Itoa(pid), "ns/mnt"))
		what := fmt.Sprintf("mesos agent, pid %d", pid)
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
func processes(ctx context.Context, root string, names ...string) []int {
	found, err := filepath.Glob(filepath.Join(root, "proc/[0-9]*/comm"))
	if err != nil {
		return nil
	}
	var out []int
	for _, f := range found {
		if ctx.Err() != nil {
			return out
		}
		data, err := os.ReadFile(f)
		if err != nil || !slices.Contains(names, strings.TrimSpace(string(data))) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil {
			out = append(out, pid)
		}
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

// leftovers are told, since nobody else looks at them.
func leftovers(in Input) []Finding {
	aside, temporary, err := in.Leftovers()
	if err != nil {
		return []Finding{{Problem, "leftovers", err.Error(), "see `dvdcli ledger list`"}}
	}
	var out []Finding
	for _, f := range aside {
		out = append(out, Finding{Warning, "leftovers", f + " is a record that could not be read",
			"see what it says and whether the volume is mounted, then remove the file"})
	}
	if len(temporary) > 0 {
		out = append(out, Finding{Warning, "leftovers", fmt.Sprintf("%d temporary files of killed processes, such as %s", len(temporary), temporary[0]),
			"`dvdcli ledger repair`, or a running isolator-bridge, removes those older than an hour"})
	}
	return out
}
