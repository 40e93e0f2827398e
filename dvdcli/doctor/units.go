package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// unitDirs are where systemd looks for units, those that win first
// (systemd.unit(5)).
var unitDirs = []string{"etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"}

// no are the values with which a setting gives no mounts of its own.
var no = []string{"", "no", "false", "0", "off", "n", "f"}

// hiding are unit settings that give a service a mount namespace of its own
// (systemd.exec(5)), with the values that do not.
var hiding = map[string][]string{
	"PrivateTmp": no, "PrivateMounts": no, "PrivateDevices": no, "PrivateIPC": no, "DynamicUser": no,
	"ProtectHome": no, "ProtectSystem": no, "ProtectKernelTunables": no, "ProtectKernelModules": no,
	"ProtectKernelLogs": no, "ProtectControlGroups": no, "ProtectHostname": no,
	"ProtectProc": {"", "default"}, "ProcSubset": {"", "all"},
	"MountFlags": {"", "shared"}, "RootDirectory": {"", "/"}, "RootImage": {""}, "TemporaryFileSystem": {""},
	"ReadOnlyPaths": {""}, "InaccessiblePaths": {""}, "NoExecPaths": {""}, "BindPaths": {""}, "BindReadOnlyPaths": {""},
}

// setting is what a unit says last.
type setting struct{ value, file string }

// units reads the units of agents, of the bridge and of the processes that are
// given for settings that hide mounts.
func units(in Input, pids []int) []Finding {
	var out []Finding
	for _, name := range unitNames(in.Root, pids) {
		settings, problems := readUnit(in.Root, name)
		out = append(out, problems...)
		for _, key := range sortedKeys(settings) {
			s := settings[key]
			if slices.Contains(hiding[key], strings.ToLower(s.value)) {
				continue
			}
			out = append(out, Finding{Problem, "unit " + name, fmt.Sprintf("%s=%s in %s gives the service mounts of its own: volumes mounted later are not seen in it, or only in it", key, s.value, s.file),
				"take the setting out (a drop-in can set it to its default), systemctl daemon-reload, restart the service"})
		}
	}
	return out
}

// unitNames are the units of agents and the bridge that are installed, and those
// that the processes belong to.
func unitNames(root string, pids []int) []string {
	var names []string
	for _, dir := range unitDirs {
		for _, pattern := range []string{"mesos-*.service", "dcos-mesos-*.service", "isolator-bridge.service"} {
			for _, suffix := range []string{"", ".d"} {
				found, err := filepath.Glob(filepath.Join(root, dir, pattern+suffix))
				if err != nil {
					continue
				}
				for _, f := range found {
					names = append(names, strings.TrimSuffix(filepath.Base(f), suffix))
				}
			}
		}
	}
	for _, pid := range pids {
		if name := unitOf(root, pid); name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// unitOf is the service of a process, by its control group (cgroups(7)); empty if
// it is of none.
func unitOf(root string, pid int) string {
	data, err := os.ReadFile(filepath.Join(root, "proc", fmt.Sprint(pid), "cgroup"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		for part := range strings.SplitSeq(strings.TrimSpace(line), "/") {
			if strings.HasSuffix(part, ".service") && !strings.HasPrefix(part, "user@") {
				return part
			}
		}
	}
	return ""
}

// readUnit reads the settings of interest of a unit: its file from the first
// directory that has it, then its drop-ins by their names, of which the last word
// counts.
func readUnit(root, name string) (settings map[string]setting, problems []Finding) {
	settings = map[string]setting{}
	dropins := map[string]string{}
	main := ""
	for _, dir := range unitDirs {
		file := filepath.Join(root, dir, name)
		if _, err := os.Stat(file); err == nil && main == "" {
			main = file
		}
		found, err := filepath.Glob(filepath.Join(file+".d", "*.conf"))
		if err != nil {
			continue
		}
		for _, f := range found {
			if base := filepath.Base(f); dropins[base] == "" {
				dropins[base] = f
			}
		}
	}
	var files []string
	if main != "" {
		files = append(files, main)
	}
	for _, base := range sortedKeys(dropins) {
		files = append(files, dropins[base])
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			problems = append(problems, Finding{Warning, "unit " + name, err.Error(), "run doctor as root"})
			continue
		}
		for line := range strings.Lines(string(data)) {
			key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
			key = strings.TrimSpace(key)
			if _, known := hiding[key]; ok && known {
				settings[key] = setting{strings.TrimSpace(value), f}
			}
		}
	}
	return settings, problems
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
