package agentstate

import (
	"context"
	"strings"
	"testing"
)

// A wrong --agent-cgroups-root is noticed by the first container that has a
// control group, and by nothing else.
func TestWrongCgroupsRootIsNoticed(t *testing.T) {
	const id, other = "1b4e28ba-2fa1-11d2-883f-0016d3cca427", "2b4e28ba-2fa1-11d2-883f-0016d3cca427"
	for _, c := range []struct {
		name       string
		containers []Container
		cgroup     string // of process 10
		dirs       []string
		wrong      bool
	}{
		{"wrong, one hierarchy per controller", []Container{{ID: id, PID: 10}}, "4:memory:/mesos2/" + id + "\n0::/\n", []string{"memory/mesos2/" + id, "memory/mesos"}, true},
		{"wrong, unified", []Container{{ID: id, PID: 10}}, "0::/mesos2/" + id + "/leaf\n", []string{"mesos2/" + id + "/leaf"}, true},
		{"wrong, unified beside others", []Container{{ID: id, PID: 10}}, "4:memory:/\n0::/mesos2/" + id + "\n", []string{"unified/mesos2/" + id, "memory/mesos/" + other}, true},
		{"wrong, nested", []Container{{ID: other, Parents: []string{id}, PID: 10}}, "0::/a/" + id + "/mesos/" + other + "/leaf\n", []string{"a/" + id + "/mesos/" + other}, true},
		{"right, one hierarchy per controller", []Container{{ID: id, PID: 10}}, "4:memory:/mesos/" + id + "\n0::/\n", []string{"memory/mesos/" + id}, false},
		{"right, unified", []Container{{ID: id, PID: 10}}, "0::/mesos/" + id + "/leaf\n", []string{"mesos/" + id + "/leaf"}, false},
		{"right, unified beside others", []Container{{ID: id, PID: 10}}, "0::/mesos/" + id + "\n", []string{"unified/mesos/" + id}, false},
		{"right, nested", []Container{{ID: other, Parents: []string{id}, PID: 10}}, "0::/mesos/" + id + "/mesos/" + other + "/leaf\n", []string{"mesos/" + id + "/mesos/" + other}, false},
		{"right, seen from another control group namespace", []Container{{ID: id, PID: 10}}, "4:memory:/docker/c/mesos/" + id + "\n", []string{"memory/mesos/" + id}, false},
		{"right, of one container", []Container{{ID: id, PID: 10}, {ID: other, PID: 10}}, "0::/mesos/" + id + "/x/" + other + "\n", []string{"mesos/" + other}, false},
		{"no isolator", []Container{{ID: id, PID: 10}}, "0::/system.slice/mesos-agent.service\n", nil, false},
		{"no container", nil, "0::/mesos2/" + id + "\n", nil, false},
		{"ended", []Container{{ID: id, PID: 11}}, "0::/mesos2/" + id + "\n", nil, false},
		{"ended, its control group too", []Container{{ID: id, PID: 10}}, "0::/mesos2/" + id + " (deleted)\n", nil, false},
		{"no process", []Container{{ID: id}}, "0::/mesos2/" + id + "\n", nil, false},
		{"an id that somebody chose", []Container{{ID: "user.slice", PID: 10}}, "0::/user.slice/mesos-agent\n", nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.process("10", c.cgroup, "", "", "/")
			for _, dir := range c.dirs {
				w.mkdir("cgroup/" + dir)
			}
			v := w.watcher(&answers{containers: c.containers}).Look(context.Background())
			if c.wrong && (v.GroupsErr == nil || !strings.Contains(v.GroupsErr.Error(), "--agent-cgroups-root")) || !c.wrong && v.GroupsErr != nil {
				t.Errorf("%v", v.GroupsErr)
			}
		})
	}
	w := newWorld(t)
	w.process("10", "0::/mesos2/"+id+"\n", "", "", "/")
	if v := w.watcher(&answers{err: ErrRecovering}).Look(context.Background()); v.GroupsErr != nil {
		t.Errorf("no agent: %v", v.GroupsErr)
	}
}
