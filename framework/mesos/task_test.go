package mesos

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gogo/protobuf/proto"
	mesosgo "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// same compares a part of a task with what is wanted.
func same(t *testing.T, what string, got, want proto.Message) {
	t.Helper()
	if diff := diffMessages(got, want); diff != "" {
		t.Errorf("%s:\n%s", what, diff)
	}
}

func label(key, value string) mesosgo.Label { return mesosgo.Label{Key: key, Value: pointer(value)} }

func TestTaskNamesLabelsAndDiscovery(t *testing.T) {
	info := build(t, testTask(func(t *core.Task, a *app.App) {
		a.Labels = map[string]string{"b": "2", "a": "1"}
		a.KillGrace = pointer(30)
		a.Ports = []app.PortDefinition{{Port: 80, Name: "web", Protocol: "udp,tcp", Labels: map[string]string{"VIP_0": "x:80"}}}
		t.Ports = []uint32{31001}
		t.Resources = []resource.Resource{{Name: "cpus", Kind: resource.Scalar, Scalar: 1000, AllocatedRole: "dvdi"}}
	}))
	if info.Name != "db.prod" || info.TaskID.Value != testTaskID || info.AgentID.Value != "a1" {
		t.Errorf("name %q, task %q, agent %q", info.Name, info.TaskID.Value, info.AgentID.Value)
	}
	same(t, "labels", info.Labels, &mesosgo.Labels{Labels: []mesosgo.Label{label("a", "1"), label("b", "2")}})
	same(t, "kill policy", info.KillPolicy, &mesosgo.KillPolicy{GracePeriod: &mesosgo.DurationInfo{Nanoseconds: 30e9}})
	vip := &mesosgo.Labels{Labels: []mesosgo.Label{label("VIP_0", "x:80")}}
	same(t, "discovery", info.Discovery, &mesosgo.DiscoveryInfo{
		Visibility: mesosgo.FRAMEWORK, Name: pointer("db.prod"),
		Ports: &mesosgo.Ports{Ports: []mesosgo.Port{
			{Number: 31001, Name: pointer("web"), Protocol: pointer("udp"), Labels: vip},
			{Number: 31001, Name: pointer("web"), Protocol: pointer("tcp"), Labels: vip},
		}},
	})
	same(t, "resource", &info.Resources[0], &mesosgo.Resource{
		Name: "cpus", Type: mesosgo.SCALAR.Enum(), Scalar: &mesosgo.Value_Scalar{Value: 1},
		AllocationInfo: &mesosgo.Resource_AllocationInfo{Role: pointer("dvdi")},
	})
	if info.Container != nil || info.Limits != nil || info.HealthCheck != nil || info.Check != nil || info.Executor != nil {
		t.Errorf("more than was asked for: %v", info)
	}
}

func TestDiscoveryOfMappedPorts(t *testing.T) {
	info := build(t, testTask(func(t *core.Task, a *app.App) {
		a.Networks = []app.Network{{Mode: app.ContainerNetwork, Name: "n1"}, {Mode: app.ContainerNetwork, Name: "n2"}}
		a.Container = &app.Container{Type: app.Mesos, PortMappings: []app.PortMapping{
			{ContainerPort: 80, HostPort: pointer(0), NetworkNames: []string{"n1"}, Name: "out"},
			{ContainerPort: 81, Name: "everywhere"},
			{ContainerPort: 82, NetworkNames: []string{"n2"}, Labels: map[string]string{"l": "v"}},
		}}
		t.Ports = []uint32{31001}
	}))
	scope := func(labels ...mesosgo.Label) *mesosgo.Labels { return &mesosgo.Labels{Labels: labels} }
	inside := func(name string) []mesosgo.Label {
		return []mesosgo.Label{label("network-scope", "container"), label("network-name", name)}
	}
	same(t, "ports", info.Discovery.Ports, &mesosgo.Ports{Ports: []mesosgo.Port{
		{Number: 31001, Name: pointer("out"), Protocol: pointer("tcp"), Labels: scope(label("network-scope", "host"))},
		{Number: 81, Name: pointer("everywhere"), Protocol: pointer("tcp"), Labels: scope(inside("n1")...)},
		{Number: 81, Name: pointer("everywhere"), Protocol: pointer("tcp"), Labels: scope(inside("n2")...)},
		{Number: 82, Protocol: pointer("tcp"), Labels: scope(append([]mesosgo.Label{label("l", "v")}, inside("n2")...)...)},
	}})
}

func TestCommands(t *testing.T) {
	image := &app.DockerImage{Image: "i"}
	tests := []struct {
		name string
		fill func(a *app.App)
		want mesosgo.CommandInfo
	}{
		{"shell", func(a *app.App) { a.Cmd = "a && b"; a.User = "www" },
			mesosgo.CommandInfo{Shell: pointer(true), Value: pointer("a && b"), User: pointer("www")}},
		{"args without an image", func(a *app.App) { a.Cmd, a.Args = "", []string{"prog", "x"} },
			mesosgo.CommandInfo{Shell: pointer(false), Value: pointer("prog"), Arguments: []string{"prog", "x"}}},
		{"args in a container without an image", func(a *app.App) {
			a.Cmd, a.Args, a.Container = "", []string{"prog", "x"}, &app.Container{Type: app.Mesos}
		}, mesosgo.CommandInfo{Shell: pointer(false), Value: pointer("prog"), Arguments: []string{"prog", "x"}}},
		{"args with an image", func(a *app.App) {
			a.Cmd, a.Args, a.Container = "", []string{"x"}, &app.Container{Type: app.Mesos, Docker: image}
		}, mesosgo.CommandInfo{Shell: pointer(false), Arguments: []string{"x"}}},
		{"nothing but an image", func(a *app.App) {
			a.Cmd, a.Container = "", &app.Container{Type: app.Docker, Docker: image}
		}, mesosgo.CommandInfo{Shell: pointer(false)}},
		{"artifacts", func(a *app.App) {
			a.Fetch = []app.Fetch{{URI: "http://x/a.tgz", Extract: true}, {URI: "/b", Executable: true, Cache: true, DestPath: "bin/b"}}
		}, mesosgo.CommandInfo{Shell: pointer(true), Value: pointer("run"), URIs: []mesosgo.CommandInfo_URI{
			{Value: "http://x/a.tgz", Extract: pointer(true), Executable: pointer(false), Cache: pointer(false)},
			{Value: "/b", Extract: pointer(false), Executable: pointer(true), Cache: pointer(true), OutputFile: pointer("bin/b")},
		}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			info := build(t, testTask(func(_ *core.Task, a *app.App) { test.fill(a) }))
			info.Command.Environment = nil // has its own test
			same(t, "command", info.Command, &test.want)
		})
	}
}

func TestCustomExecutor(t *testing.T) {
	reserved := []resource.Reservation{{Role: "dvdi", Dynamic: true}}
	scalar := func(name string, m resource.Milli, stack []resource.Reservation) resource.Resource {
		return resource.Resource{Name: name, Kind: resource.Scalar, Scalar: m, Reservations: stack}
	}
	task := testTask(func(t *core.Task, a *app.App) {
		a.Executor = "/opt/it's an executor"
		a.Cmd, a.Args = "", []string{"a b", "c"}
		a.Container = &app.Container{Type: app.Mesos}
		a.ExecutorRes = &app.ExecutorRes{CPUs: 0.1, Mem: 32, Disk: 10}
		t.Resources = []resource.Resource{
			scalar("cpus", 50, reserved), scalar("cpus", 1050, nil), scalar("mem", 160_000, nil), scalar("disk", 10_000, nil),
			{Name: "ports", Kind: resource.Ranges, Ranges: []resource.Range{{Begin: 1, End: 1}}},
		}
	})
	info := build(t, task)
	e := info.Executor
	if info.Command != nil || info.Container != nil || e.Container == nil ||
		e.ExecutorID.Value != "marathon-"+testTaskID || e.Type != mesosgo.ExecutorInfo_CUSTOM {
		t.Errorf("task %v", info)
	}
	want := `chmod ug+rx '/opt/it'\''s an executor' && exec '/opt/it'\''s an executor' 'a b' 'c'`
	if e.Command.GetValue() != want || !e.Command.GetShell() || e.Command.Arguments != nil {
		t.Errorf("command %v, want %s", e.Command, want)
	}
	if envOf(t, info)["MESOS_TASK_ID"] != testTaskID {
		t.Error("the executor has no environment")
	}
	amounts := func(rs []mesosgo.Resource) (all []string) {
		for _, r := range rs {
			all = append(all, r.Name+" "+resource.FromFloat(r.GetScalar().GetValue()).String())
		}
		return all
	}
	if got := amounts(e.Resources); !slices.Equal(got, []string{"cpus 0.05", "cpus 0.05", "mem 32", "disk 10"}) {
		t.Errorf("executor's resources %v", got)
	}
	if got := amounts(info.Resources); !slices.Equal(got, []string{"cpus 1", "mem 128", "ports 0"}) {
		t.Errorf("task's resources %v", got)
	}
	if task.Resources[0].Scalar != 50 {
		t.Error("the caller's resources were changed")
	}

	task.Resources = task.Resources[:2]
	if reason := refused(t, task); !strings.Contains(reason, "lack 32 mem for the executor") {
		t.Errorf("reason %q", reason)
	}
	if info := buildWith(t, testTask(nil), TaskConfig{DefaultExecutor: "/opt/e"}); info.Executor == nil {
		t.Error("the default executor is not used")
	}
	if info := buildWith(t, testTask(func(_ *core.Task, a *app.App) { a.Executor = "//cmd" }), TaskConfig{DefaultExecutor: "/opt/e"}); info.Executor != nil {
		t.Error("//cmd is not Mesos' own executor")
	}
}

func TestLimits(t *testing.T) {
	info := build(t, testTask(func(_ *core.Task, a *app.App) {
		a.Limits = &app.Limits{CPUs: pointer(math.Inf(1)), Mem: pointer(256.0)}
	}))
	if len(info.Limits) != 2 || !math.IsInf(info.Limits["cpus"].Value, 1) || info.Limits["mem"].Value != 256 {
		t.Errorf("limits %v", info.Limits)
	}
	info = build(t, testTask(func(_ *core.Task, a *app.App) { a.Limits = &app.Limits{Mem: pointer(1.0)} }))
	if _, set := info.Limits["cpus"]; set || len(info.Limits) != 1 {
		t.Errorf("limits %v", info.Limits)
	}
}

func TestPortsThatDoNotMatchTheAppAreRefused(t *testing.T) {
	for name, fill := range map[string]func(t *core.Task, a *app.App){
		"too few":  func(t *core.Task, a *app.App) { a.Ports = []app.PortDefinition{{}, {}}; t.Ports = []uint32{1} },
		"too many": func(t *core.Task, a *app.App) { t.Ports = []uint32{1} },
		"mapping": func(t *core.Task, a *app.App) {
			a.Networks = []app.Network{{Mode: app.BridgeNetwork}}
			a.Container = &app.Container{Type: app.Mesos, PortMappings: []app.PortMapping{{HostPort: pointer(0)}}}
		},
	} {
		if reason := refused(t, testTask(fill)); !strings.Contains(reason, "host ports were chosen") {
			t.Errorf("%s: reason %q", name, reason)
		}
	}
}
