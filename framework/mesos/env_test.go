package mesos

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	mesosgo "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
)

var testVersion = app.Timestamp(time.Date(2026, 11, 20, 22, 0, 39, 123e6, time.UTC))

const testTaskID = "prod_db.instance-1f0d._app.1"

// testTask is a task of an app that a test fills in.
func testTask(fill func(t *core.Task, a *app.App)) *core.Task {
	a := &app.App{ID: "/prod/db", Cmd: "run", CPUs: 1, Mem: 128, Version: testVersion}
	t := &core.Task{ID: testTaskID, AgentID: "a1", Hostname: "agent1.test", App: a}
	if fill != nil {
		fill(t, a)
	}
	return t
}

// build translates a task with the default settings.
func build(t *testing.T, task *core.Task) mesosgo.TaskInfo {
	t.Helper()
	return buildWith(t, task, TaskConfig{})
}

func buildWith(t *testing.T, task *core.Task, config TaskConfig) mesosgo.TaskInfo {
	t.Helper()
	info, err := (&Conn{config: Config{Tasks: config}.withDefaults()}).taskInfo(task)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// refused is the reason why a task cannot be sent.
func refused(t *testing.T, task *core.Task) string {
	t.Helper()
	_, err := (&Conn{config: Config{}.withDefaults()}).taskInfo(task)
	var invalid *core.InvalidTaskError
	if !errors.As(err, &invalid) {
		t.Fatalf("error %v, want InvalidTaskError", err)
	}
	return invalid.Reason
}

// envOf is the environment as the task sees it.
func envOf(t *testing.T, info mesosgo.TaskInfo) map[string]string {
	t.Helper()
	command := info.Command
	if command == nil {
		command = info.Executor.Command
	}
	env := map[string]string{}
	for _, v := range command.Environment.Variables {
		if _, twice := env[v.Name]; twice {
			t.Errorf("variable %s stands twice", v.Name)
		}
		env[v.Name] = v.GetValue()
	}
	return env
}

// TestEnvironment follows contract 7.1 line by line. Each case lists the
// variables that it is about; absent means that the variable must not be there.
func TestEnvironment(t *testing.T) {
	long := strings.Repeat("x", 600)
	tests := []struct {
		name   string
		config TaskConfig
		fill   func(t *core.Task, a *app.App)
		want   map[string]string
		absent []string
	}{
		{
			name: "1: the app",
			fill: func(_ *core.Task, a *app.App) { a.CPUs, a.Mem, a.Disk, a.GPUs = 0.5, 32, 0, 2 },
			want: map[string]string{
				"MESOS_TASK_ID": testTaskID, "MARATHON_APP_ID": "/prod/db",
				"MARATHON_APP_VERSION":       "2026-11-20T22:00:39.123Z",
				"MARATHON_APP_RESOURCE_CPUS": "0.5", "MARATHON_APP_RESOURCE_MEM": "32.0",
				"MARATHON_APP_RESOURCE_DISK": "0.0", "MARATHON_APP_RESOURCE_GPUS": "2",
				"MARATHON_APP_ENFORCE_GROUP_ROLE": "FALSE",
			},
			absent: []string{"MARATHON_APP_DOCKER_IMAGE", "PORT", "PORTS", "PORT0"},
		},
		{
			name: "1: image of a DOCKER container",
			fill: func(_ *core.Task, a *app.App) {
				a.Container = &app.Container{Type: app.Docker, Docker: &app.DockerImage{Image: "postgres:16"}}
			},
			want: map[string]string{"MARATHON_APP_DOCKER_IMAGE": "postgres:16"},
		},
		{
			name: "1: no image of a MESOS container",
			fill: func(_ *core.Task, a *app.App) {
				a.Container = &app.Container{Type: app.Mesos, Docker: &app.DockerImage{Image: "postgres:16"}}
			},
			absent: []string{"MARATHON_APP_DOCKER_IMAGE"},
		},
		{
			name:   "1: group that enforces its role",
			config: TaskConfig{EnforceGroupRole: func(id string) bool { return id == "/prod/db" }},
			want:   map[string]string{"MARATHON_APP_ENFORCE_GROUP_ROLE": "TRUE"},
		},
		{
			name: "2: labels",
			fill: func(_ *core.Task, a *app.App) {
				a.Labels = map[string]string{"env": "prod", "HAPROXY_0_VHOST": "db.test", "a.b--c d": "odd"}
			},
			want: map[string]string{
				"MARATHON_APP_LABELS":    "HAPROXY_0_VHOST A_B_C_D ENV",
				"MARATHON_APP_LABEL_ENV": "prod", "MARATHON_APP_LABEL_HAPROXY_0_VHOST": "db.test",
				"MARATHON_APP_LABEL_A_B_C_D": "odd",
			},
		},
		{
			name: "2: no labels",
			want: map[string]string{"MARATHON_APP_LABELS": ""},
		},
		{
			name: "2: labels that are too long",
			fill: func(_ *core.Task, a *app.App) {
				a.Labels = map[string]string{
					long[:493]: "key", "V": long[:512], long[:492]: "fits", "W": long[:511],
				}
			},
			want: map[string]string{
				"MARATHON_APP_LABELS":                               "W " + strings.ToUpper(long[:492]),
				"MARATHON_APP_LABEL_W":                              long[:511],
				"MARATHON_APP_LABEL_" + strings.ToUpper(long[:492]): "fits",
				"MARATHON_APP_RESOURCE_CPUS":                        "1.0",
				"MARATHON_APP_RESOURCE_MEM":                         "128.0",
				"MARATHON_APP_ENFORCE_GROUP_ROLE":                   "FALSE",
				"HOST":                                              "agent1.test",
				"MARATHON_APP_ID":                                   "/prod/db",
				"MARATHON_APP_VERSION":                              "2026-11-20T22:00:39.123Z",
				"MARATHON_APP_RESOURCE_GPUS":                        "0",
			},
			absent: []string{"MARATHON_APP_LABEL_V", "MARATHON_APP_LABEL_" + strings.ToUpper(long[:493])},
		},
		{
			name: "3: host ports",
			fill: func(t *core.Task, a *app.App) {
				a.Ports = []app.PortDefinition{{Port: 10000, Name: "http-api"}, {Port: 0}, {Port: 443, Protocol: "udp,tcp"}}
				t.Ports = []uint32{31001, 31002, 31003}
			},
			want: map[string]string{
				"HOST": "agent1.test", "PORT": "31001", "PORTS": "31001,31002,31003",
				"PORT0": "31001", "PORT1": "31002", "PORT2": "31003",
				"PORT_10000": "31001", "PORT_31002": "31002", "PORT_443": "31003",
				"PORT_HTTP-API": "31001",
			},
		},
		{
			name: "3: mappings on a bridge",
			fill: func(t *core.Task, a *app.App) {
				a.Networks = []app.Network{{Mode: app.BridgeNetwork}}
				a.Container = &app.Container{Type: app.Mesos, PortMappings: []app.PortMapping{
					{ContainerPort: 5432, HostPort: pointer(0), Name: "pg"}, {ContainerPort: 0, HostPort: pointer(0)}}}
				t.Ports = []uint32{31001, 31002}
			},
			want: map[string]string{
				"PORT": "31001", "PORTS": "31001,31002", "PORT0": "31001", "PORT1": "31002",
				"PORT_5432": "31001", "PORT_31002": "31002", "PORT_PG": "31001",
			},
		},
		{
			name: "3: mappings that are not on the host",
			fill: func(t *core.Task, a *app.App) {
				a.Networks = []app.Network{{Mode: app.ContainerNetwork, Name: "net"}}
				a.Container = &app.Container{Type: app.Mesos, PortMappings: []app.PortMapping{
					{ContainerPort: 5432, Name: "pg"}, {ContainerPort: 80, HostPort: pointer(0)}}}
				t.Ports = []uint32{31001}
			},
			want: map[string]string{
				"PORT": "5432", "PORTS": "5432,31001", "PORT0": "5432", "PORT1": "31001",
				"PORT_5432": "5432", "PORT_80": "31001", "PORT_PG": "5432",
			},
		},
		{
			name: "3: no ports",
			fill: func(_ *core.Task, a *app.App) { a.Ports = []app.PortDefinition{} },
			want: map[string]string{"HOST": "agent1.test"}, absent: []string{"PORT", "PORTS", "PORT0"},
		},
		{
			name:   "3: prefix of this block only",
			config: TaskConfig{EnvPrefix: "CUSTOM_"},
			fill: func(t *core.Task, a *app.App) {
				a.Ports, t.Ports = []app.PortDefinition{{Port: 80, Name: "web"}}, []uint32{31001}
				a.Env = map[string]app.EnvVar{"OWN": {Value: "1"}}
			},
			want: map[string]string{
				"CUSTOM_HOST": "agent1.test", "CUSTOM_PORT": "31001", "CUSTOM_PORTS": "31001",
				"CUSTOM_PORT0": "31001", "CUSTOM_PORT_80": "31001", "CUSTOM_PORT_WEB": "31001",
				"OWN": "1", "MESOS_TASK_ID": testTaskID,
			},
			absent: []string{"HOST", "PORT", "CUSTOM_OWN", "CUSTOM_MESOS_TASK_ID"},
		},
		{
			name: "4: the app's own variables win",
			fill: func(t *core.Task, a *app.App) {
				a.Ports, t.Ports = []app.PortDefinition{{Port: 80}}, []uint32{31001}
				a.Labels = map[string]string{"l": "label"}
				a.Env = map[string]app.EnvVar{
					"PORT0": {Value: "mine"}, "MESOS_TASK_ID": {Value: "mine"}, "MARATHON_APP_LABEL_L": {Value: "mine"}, "EMPTY": {},
				}
			},
			want: map[string]string{
				"PORT0": "mine", "MESOS_TASK_ID": "mine", "MARATHON_APP_LABEL_L": "mine", "EMPTY": "", "PORT": "31001",
			},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := envOf(t, buildWith(t, testTask(test.fill), test.config))
			for name, want := range test.want {
				if value, there := got[name]; !there || value != want {
					t.Errorf("%s=%q (set: %v), want %q", name, value, there, want)
				}
			}
			for _, name := range test.absent {
				if value, there := got[name]; there {
					t.Errorf("%s=%q, want it unset", name, value)
				}
			}
		})
	}
}

func TestInventedPortIsFreeStableAndTheSameEverywhere(t *testing.T) {
	task := func(id string) *core.Task {
		return testTask(func(t *core.Task, a *app.App) {
			t.ID = id
			a.Networks = []app.Network{{Mode: app.ContainerNetwork, Name: "net"}}
			a.Container = &app.Container{Type: app.Mesos, PortMappings: []app.PortMapping{
				{Name: "a"}, {Name: "b"}, {ContainerPort: 5432}}}
			a.Health = []app.HealthCheck{{Protocol: "MESOS_TCP", PortIndex: pointer(0)}}
		})
	}
	seen := map[string]bool{}
	for _, id := range []string{"t1", "t2", "t3", "t4"} {
		info := build(t, task(id))
		env := envOf(t, info)
		if !maps.Equal(env, envOf(t, build(t, task(id)))) {
			t.Error("a second translation has other ports")
		}
		discovered := info.Discovery.Ports.Ports
		if discovered[0].Number < 1025 || discovered[0].Number == discovered[1].Number {
			t.Errorf("ports %v", discovered)
		}
		if got := info.HealthCheck.TCP.Port; got != discovered[0].Number {
			t.Errorf("the health check probes %d, discovery says %d", got, discovered[0].Number)
		}
		if env["PORT_A"] != env["PORT0"] || env["PORT_"+env["PORT1"]] != env["PORT1"] || env["PORT1"] != env["PORT_B"] {
			t.Errorf("environment %v", env)
		}
		seen[env["PORT0"]] = true
	}
	if len(seen) < 2 {
		t.Error("all tasks have the same port")
	}
}

func TestSecretsInTheEnvironment(t *testing.T) {
	fill := func(t *core.Task, a *app.App) {
		a.Env = map[string]app.EnvVar{"KNOWN": {Secret: "known"}, "ELSEWHERE": {Secret: "elsewhere"}}
		a.Secrets = map[string]app.Secret{"known": {Source: "db/known"}, "elsewhere": {Source: "db/elsewhere"}}
		t.SecretValues = map[string]string{"known": "pa55"}
	}
	info := build(t, testTask(fill))
	secrets := map[string]mesosgo.Environment_Variable{}
	for _, v := range info.Command.Environment.Variables {
		if v.GetType() == mesosgo.Environment_Variable_SECRET {
			secrets[v.Name] = v
		}
	}
	if s := secrets["KNOWN"].Secret; s.GetType() != mesosgo.Secret_VALUE || string(s.Value.Data) != "pa55" || secrets["KNOWN"].Value != nil {
		t.Errorf("known secret %v", secrets["KNOWN"])
	}
	if s := secrets["ELSEWHERE"].Secret; s.GetType() != mesosgo.Secret_REFERENCE || s.Reference.Name != "db/elsewhere" {
		t.Errorf("secret of the agent's resolver %v", secrets["ELSEWHERE"])
	}

	docker := func(t *core.Task, a *app.App) {
		fill(t, a)
		a.Container = &app.Container{Type: app.Docker, Docker: &app.DockerImage{Image: "i"}}
	}
	if reason := refused(t, testTask(docker)); !strings.Contains(reason, `"elsewhere"`) {
		t.Errorf("reason %q", reason)
	}
	env := envOf(t, build(t, testTask(func(t *core.Task, a *app.App) {
		docker(t, a)
		delete(a.Env, "ELSEWHERE")
	})))
	if env["KNOWN"] != "pa55" {
		t.Errorf("DOCKER: KNOWN=%q", env["KNOWN"])
	}
	if reason := refused(t, testTask(func(_ *core.Task, a *app.App) {
		a.Env = map[string]app.EnvVar{"X": {Secret: "nope"}}
	})); !strings.Contains(reason, `"nope" is not defined`) {
		t.Errorf("reason %q", reason)
	}
}
