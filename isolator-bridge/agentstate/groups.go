package agentstate

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// madeByMesos knows the ids that Mesos makes, as it does for executors and
// tasks (random UUIDs).
var madeByMesos = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// MadeByMesos says that a container's id has the form of those that Mesos makes,
// which nothing else has by chance. Those of nested and standalone containers may
// be chosen by whoever launches them.
func MadeByMesos(id string) bool { return madeByMesos.MatchString(id) }

// GroupNamed is the first control group of a /proc/PID/cgroup that is, or is
// below, one with such a name (cgroups(7): hierarchy:controllers:path); empty if
// none. In one that was removed nothing runs.
func GroupNamed(text string, names map[string]bool) string {
	for line := range strings.Lines(text) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) < 3 || strings.HasSuffix(fields[2], " (deleted)") {
			continue
		}
		if slices.ContainsFunc(strings.Split(fields[2], "/"), func(part string) bool { return names[part] }) {
			return fields[2]
		}
	}
	return ""
}

// ErrGroupsElsewhere says that containers have control groups, and not where they
// are looked for.
var ErrGroupsElsewhere = errors.New("control groups are elsewhere")

// found says that a listed container has its control group below CgroupRoot,
// which shows that the root is right. The error is ErrGroupsElsewhere about one that
// has its group elsewhere, where none is in the right place. Nothing can be told of an agent
// without the cgroups isolators, whose containers have none, nor by a container
// that ends meanwhile.
func (h Host) found(listed map[string]Container) (bool, error) {
	h = h.withDefaults()
	var grouped []string
	for _, id := range slices.Sorted(maps.Keys(listed)) {
		if c := listed[id]; c.PID > 0 && MadeByMesos(id) && h.groupOf(c) != "" {
			grouped = append(grouped, id)
		}
	}
	if len(grouped) == 0 {
		return false, nil
	}
	traces := map[string]string{}
	if err := h.controlGroups(grouped, traces); err != nil || len(traces) > 0 {
		return err == nil, err
	}
	for _, id := range grouped {
		if group := h.groupOf(listed[id]); group != "" { // it has not ended meanwhile
			return false, fmt.Errorf("%w: process %d of container %s is in control group %s, and none of that name is below %s in %s; give the agent's --cgroups_root to the bridge as --agent-cgroups-root, and see that its --cgroups_hierarchy is the default",
				ErrGroupsElsewhere, listed[id].PID, id, group, h.CgroupRoot, h.Cgroups)
		}
	}
	return false, nil
}

// groupOf is the control group that a container's process has for the container;
// empty if it has none or has ended.
func (h Host) groupOf(c Container) string {
	text, err := os.ReadFile(filepath.Join(h.Proc, strconv.Itoa(c.PID), "cgroup"))
	if err != nil {
		return ""
	}
	return GroupNamed(string(text), map[string]bool{c.ID: true})
}
