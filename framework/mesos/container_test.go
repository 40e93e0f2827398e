package mesos

import (
	"math"
	"strings"
	"testing"

	mesosgo "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
)

func TestContainers(t *testing.T) {
	mesosType, dockerType := mesosgo.ContainerInfo_MESOS.Enum(), mesosgo.ContainerInfo_DOCKER.Enum()
	anyAddress := []mesosgo.NetworkInfo_IPAddress{{}}
	taskLabel := mesosgo.Parameter{Key: "label", Value: "MESOS_TASK_ID=" + testTaskID}
	mapped := []app.PortMapping{
		{ContainerPort: 80, HostPort: pointer(0), Protocol: "udp,tcp"}, {HostPort: pointer(0)}, {ContainerPort: 90}}
	mappedPorts := []uint32{31001, 31002}
	tests := []struct {
		name string
		fill func(t *core.Task, a *app.App)
		want *mesosgo.ContainerInfo
	}{
		{"none", nil, nil},
		{"MESOS without an image", func(_ *core.Task, a *app.App) { a.Container = &app.Container{Type: app.Mesos} },
			&mesosgo.ContainerInfo{Type: mesosType, Mesos: &mesosgo.ContainerInfo_MesosInfo{}}},
		{"MESOS with an image", func(_ *core.Task, a *app.App) {
			a.Secrets = map[string]app.Secret{"pull": {Source: "registry"}}
			a.Container = &app.Container{Type: app.Mesos, Docker: &app.DockerImage{
				Image: "postgres:16", ForcePullImage: true, PullConfig: &app.PullConfig{Secret: "pull"}}}
		}, &mesosgo.ContainerInfo{Type: mesosType, Mesos: &mesosgo.ContainerInfo_MesosInfo{Image: &mesosgo.Image{
			Type: mesosgo.Image_DOCKER.Enum(), Cached: pointer(false),
			Docker: &mesosgo.Image_Docker{Name: "postgres:16", Config: &mesosgo.Secret{
				Type: mesosgo.Secret_REFERENCE, Reference: &mesosgo.Secret_Reference{Name: "registry"}}},
		}}}},
		{"terminal", func(_ *core.Task, a *app.App) { a.TTY = pointer(true) },
			&mesosgo.ContainerInfo{Type: mesosType, Mesos: &mesosgo.ContainerInfo_MesosInfo{}, TTYInfo: &mesosgo.TTYInfo{}}},
		{"network without a container", func(_ *core.Task, a *app.App) {
			a.Networks = []app.Network{{Mode: app.ContainerNetwork, Name: "net", Labels: map[string]string{"k": "v"}}}
		}, &mesosgo.ContainerInfo{Type: mesosType, Mesos: &mesosgo.ContainerInfo_MesosInfo{},
			NetworkInfos: []mesosgo.NetworkInfo{{Name: pointer("net"), IPAddresses: anyAddress,
				Labels: &mesosgo.Labels{Labels: []mesosgo.Label{label("k", "v")}}}}}},
		{"MESOS on the bridge", func(t *core.Task, a *app.App) {
			a.Networks = []app.Network{{Mode: app.BridgeNetwork}}
			a.Container = &app.Container{Type: app.Mesos, PortMappings: mapped}
			t.Ports = mappedPorts
		}, &mesosgo.ContainerInfo{Type: mesosType, Mesos: &mesosgo.ContainerInfo_MesosInfo{},
			NetworkInfos: []mesosgo.NetworkInfo{{Name: pointer("mesos-bridge"), IPAddresses: anyAddress,
				PortMappings: []mesosgo.NetworkInfo_PortMapping{
					{HostPort: 31001, ContainerPort: 80, Protocol: pointer("udp")},
					{HostPort: 31001, ContainerPort: 80, Protocol: pointer("tcp")},
					{HostPort: 31002, ContainerPort: 31002, Protocol: pointer("tcp")},
				}}}}},
		{"MESOS on two networks", func(t *core.Task, a *app.App) {
			a.Networks = []app.Network{{Mode: app.ContainerNetwork, Name: "n1"}, {Mode: app.ContainerNetwork, Name: "n2"}}
			a.Container = &app.Container{Type: app.Mesos, PortMappings: []app.PortMapping{
				{ContainerPort: 80, HostPort: pointer(0), NetworkNames: []string{"n2"}}}}
			t.Ports = []uint32{31001}
		}, &mesosgo.ContainerInfo{Type: mesosType, Mesos: &mesosgo.ContainerInfo_MesosInfo{},
			NetworkInfos: []mesosgo.NetworkInfo{
				{Name: pointer("n1"), IPAddresses: anyAddress},
				{Name: pointer("n2"), IPAddresses: anyAddress, PortMappings: []mesosgo.NetworkInfo_PortMapping{
					{HostPort: 31001, ContainerPort: 80, Protocol: pointer("tcp")}}},
			}}},
		{"Linux settings", func(_ *core.Task, a *app.App) {
			a.Container = &app.Container{Type: app.Mesos, Linux: &app.LinuxInfo{
				Seccomp: &app.Seccomp{ProfileName: "p.json"}, IPC: &app.IPC{Mode: "PRIVATE", ShmSize: pointer(64)}}}
		}, &mesosgo.ContainerInfo{Type: mesosType, Mesos: &mesosgo.ContainerInfo_MesosInfo{}, LinuxInfo: &mesosgo.LinuxInfo{
			Seccomp: &mesosgo.SeccompInfo{ProfileName: pointer("p.json")},
			IPCMode: mesosgo.LinuxInfo_PRIVATE.Enum(), SHMSize: pointer(uint32(64))}}},
		{"Linux settings of the parent", func(_ *core.Task, a *app.App) {
			a.Container = &app.Container{Type: app.Mesos, Linux: &app.LinuxInfo{
				Seccomp: &app.Seccomp{Unconfined: pointer(true)}, IPC: &app.IPC{Mode: "SHARE_PARENT"}}}
		}, &mesosgo.ContainerInfo{Type: mesosType, Mesos: &mesosgo.ContainerInfo_MesosInfo{}, LinuxInfo: &mesosgo.LinuxInfo{
			Seccomp: &mesosgo.SeccompInfo{Unconfined: pointer(true)}, IPCMode: mesosgo.LinuxInfo_SHARE_PARENT.Enum()}}},
		{"DOCKER on the host's network", func(t *core.Task, a *app.App) {
			a.Ports, t.Ports = []app.PortDefinition{{}}, []uint32{31001}
			a.Container = &app.Container{Type: app.Docker, Docker: &app.DockerImage{
				Image: "i", Privileged: true, Parameters: []app.Parameter{{Key: "volume-driver", Value: "rexray"}}}}
		}, &mesosgo.ContainerInfo{Type: dockerType, Docker: &mesosgo.ContainerInfo_DockerInfo{
			Image: "i", Privileged: pointer(true), ForcePullImage: pointer(false),
			Network:    mesosgo.ContainerInfo_DockerInfo_HOST.Enum(),
			Parameters: []mesosgo.Parameter{{Key: "volume-driver", Value: "rexray"}, taskLabel}}}},
		{"DOCKER on the bridge", func(t *core.Task, a *app.App) {
			a.Networks = []app.Network{{Mode: app.BridgeNetwork}}
			a.Container = &app.Container{Type: app.Docker, Docker: &app.DockerImage{Image: "i", ForcePullImage: true}, PortMappings: mapped}
			t.Ports = mappedPorts
		}, &mesosgo.ContainerInfo{Type: dockerType, Docker: &mesosgo.ContainerInfo_DockerInfo{
			Image: "i", Privileged: pointer(false), ForcePullImage: pointer(true),
			Network:    mesosgo.ContainerInfo_DockerInfo_BRIDGE.Enum(),
			Parameters: []mesosgo.Parameter{taskLabel},
			PortMappings: []mesosgo.ContainerInfo_DockerInfo_PortMapping{
				{HostPort: 31001, ContainerPort: 80, Protocol: pointer("udp")},
				{HostPort: 31001, ContainerPort: 80, Protocol: pointer("tcp")},
				{HostPort: 31002, ContainerPort: 31002, Protocol: pointer("tcp")},
			}}}},
		{"DOCKER on a network of its own", func(_ *core.Task, a *app.App) {
			a.Networks = []app.Network{{Mode: app.ContainerNetwork, Name: "net"}}
			a.Container = &app.Container{Type: app.Docker, Docker: &app.DockerImage{Image: "i"}}
		}, &mesosgo.ContainerInfo{Type: dockerType,
			NetworkInfos: []mesosgo.NetworkInfo{{Name: pointer("net")}},
			Docker: &mesosgo.ContainerInfo_DockerInfo{
				Image: "i", Privileged: pointer(false), ForcePullImage: pointer(false),
				Network: mesosgo.ContainerInfo_DockerInfo_USER.Enum(), Parameters: []mesosgo.Parameter{taskLabel}}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			info := build(t, testTask(test.fill))
			if test.want == nil {
				if info.Container != nil {
					t.Errorf("container %v", info.Container)
				}
				return
			}
			same(t, "container", info.Container, test.want)
		})
	}
	if reason := refused(t, testTask(func(_ *core.Task, a *app.App) { a.Container = &app.Container{Type: app.Docker} })); !strings.Contains(reason, "needs an image") {
		t.Errorf("reason %q", reason)
	}
}

// TestVolumes follows contract 3.2, 3.3.3 and 3.5.
func TestVolumes(t *testing.T) {
	size := int64(10)
	info := build(t, testTask(func(t *core.Task, a *app.App) {
		a.Secrets = map[string]app.Secret{"cert": {Source: "tls/cert"}}
		a.Container = &app.Container{Type: app.Mesos, Volumes: []app.Volume{
			{ContainerPath: "/data", Mode: "RW", External: &app.External{Provider: "dvdi", Name: "v1", Size: &size, Options: map[string]string{
				"dvdi/driver": "rexray", "dvdi/size": "5", "dvdi/volumetype": " io1 ", "other/x": "y", "dvdi/Driver": "no"}}},
			{ContainerPath: "plain", Mode: "RO", External: &app.External{Provider: "dvdi", Name: "v2", Options: map[string]string{"dvdi/driver": "rclone"}}},
			{ContainerPath: "engine", Mode: "RW", External: &app.External{Provider: "dvdi", Name: "v3", Options: map[string]string{"dvdi/driver": "rclone", "dvdi/size": "5 GB"}}},
			{ContainerPath: "kept", Mode: "RW", Persistent: &app.Persistent{Size: 10}},
			{ContainerPath: "/etc/x", Mode: "RO", HostPath: "/var/x"},
			{ContainerPath: "tls/cert", Secret: "cert"},
		}}
		t.VolumeOptions = map[int]map[string]string{2: {"dvdi.instance": "i1", "dvdi.epoch": "7"}}
	}))
	external := func(path string, mode mesosgo.Volume_Mode, driver, name string, options ...mesosgo.Parameter) mesosgo.Volume {
		v := mesosgo.Volume{ContainerPath: path, Mode: mode.Enum(), Source: &mesosgo.Volume_Source{
			Type:         mesosgo.Volume_Source_DOCKER_VOLUME,
			DockerVolume: &mesosgo.Volume_Source_DockerVolume{Driver: pointer(driver), Name: name}}}
		if len(options) > 0 {
			v.Source.DockerVolume.DriverOptions = &mesosgo.Parameters{Parameter: options}
		}
		return v
	}
	same(t, "volumes", &mesosgo.ContainerInfo{Volumes: info.Container.Volumes}, &mesosgo.ContainerInfo{Volumes: []mesosgo.Volume{
		external("/data", mesosgo.RW, "rexray", "v1", mesosgo.Parameter{Key: "size", Value: "10"}, mesosgo.Parameter{Key: "volumetype", Value: "io1"}),
		external("plain", mesosgo.RO, "rclone", "v2"),
		external("engine", mesosgo.RW, "rclone", "v3", mesosgo.Parameter{Key: "dvdi.epoch", Value: "7"},
			mesosgo.Parameter{Key: "dvdi.instance", Value: "i1"}, mesosgo.Parameter{Key: "size", Value: "5 GB"}),
		{ContainerPath: "/etc/x", Mode: mesosgo.RO.Enum(), HostPath: pointer("/var/x")},
		{ContainerPath: "tls/cert", Mode: mesosgo.RO.Enum(), Source: &mesosgo.Volume_Source{Type: mesosgo.Volume_Source_SECRET,
			Secret: &mesosgo.Secret{Type: mesosgo.Secret_REFERENCE, Reference: &mesosgo.Secret_Reference{Name: "tls/cert"}}}},
	}})
	if info.Container.Volumes[1].Source.DockerVolume.DriverOptions != nil {
		t.Error("a volume without options has an empty list of them")
	}
}

func TestVolumesThatCannotBeSentAreRefused(t *testing.T) {
	for want, c := range map[string]*app.Container{
		`provider "csi"`: {Type: app.Mesos, Volumes: []app.Volume{{External: &app.External{Provider: "csi", Name: "v"}}}},
		"secret volume":  {Type: app.Docker, Docker: &app.DockerImage{Image: "i"}, Volumes: []app.Volume{{ContainerPath: "p", Secret: "s"}}},
		`"s" is not def`: {Type: app.Mesos, Volumes: []app.Volume{{ContainerPath: "p", Secret: "s"}}},
	} {
		if reason := refused(t, testTask(func(_ *core.Task, a *app.App) { a.Container = c })); !strings.Contains(reason, want) {
			t.Errorf("reason %q, want %q", reason, want)
		}
	}
}

func TestHealthChecks(t *testing.T) {
	base := app.HealthCheck{
		GracePeriodSeconds: 300, IntervalSeconds: 60, TimeoutSeconds: 20, MaxConsecutiveFailures: 3, DelaySeconds: 15, IPProtocol: "IPv4",
	}
	want := func(fill func(*mesosgo.HealthCheck)) *mesosgo.HealthCheck {
		h := &mesosgo.HealthCheck{
			GracePeriodSeconds: pointer(300.0), IntervalSeconds: pointer(60.0), TimeoutSeconds: pointer(20.0),
			ConsecutiveFailures: pointer(uint32(3)), DelaySeconds: pointer(15.0),
		}
		fill(h)
		return h
	}
	v4, v6 := mesosgo.IPv4.Enum(), mesosgo.IPv6.Enum()
	tests := []struct {
		name   string
		set    func(h *app.HealthCheck)
		mapped bool // container ports 80 and 81, the second on the host's 31001
		want   *mesosgo.HealthCheck
	}{
		{"the framework's own", func(h *app.HealthCheck) { h.Protocol = "HTTP" }, false, nil},
		{"command", func(h *app.HealthCheck) { h.Protocol, h.Command = "COMMAND", &app.Command{Value: "pg_isready"} }, false,
			want(func(h *mesosgo.HealthCheck) {
				h.Type = mesosgo.HealthCheck_COMMAND
				h.Command = &mesosgo.CommandInfo{Shell: pointer(true), Value: pointer("pg_isready")}
			})},
		{"http on a host port", func(h *app.HealthCheck) { h.Protocol, h.PortIndex, h.Path = "MESOS_HTTP", pointer(0), "up" }, false,
			want(func(h *mesosgo.HealthCheck) {
				h.Type = mesosgo.HealthCheck_HTTP
				h.HTTP = &mesosgo.HealthCheck_HTTPCheckInfo{Protocol: v4, Scheme: pointer("http"), Port: 31000, Path: pointer("/up")}
			})},
		{"https on a container port", func(h *app.HealthCheck) { h.Protocol, h.PortIndex, h.IPProtocol = "MESOS_HTTPS", pointer(1), "IPv6" }, true,
			want(func(h *mesosgo.HealthCheck) {
				h.Type = mesosgo.HealthCheck_HTTP
				h.HTTP = &mesosgo.HealthCheck_HTTPCheckInfo{Protocol: v6, Scheme: pointer("https"), Port: 81}
			})},
		{"tcp on a fixed port", func(h *app.HealthCheck) { h.Protocol, h.Port = "MESOS_TCP", pointer(7000) }, false,
			want(func(h *mesosgo.HealthCheck) {
				h.Type = mesosgo.HealthCheck_TCP
				h.TCP = &mesosgo.HealthCheck_TCPCheckInfo{Protocol: v4, Port: 7000}
			})},
		{"tcp on the first port, never killed", func(h *app.HealthCheck) { h.Protocol, h.MaxConsecutiveFailures = "MESOS_TCP", 0 }, false,
			want(func(h *mesosgo.HealthCheck) {
				h.Type = mesosgo.HealthCheck_TCP
				h.ConsecutiveFailures = pointer(uint32(math.MaxUint32))
				h.TCP = &mesosgo.HealthCheck_TCPCheckInfo{Protocol: v4, Port: 31000}
			})},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			info := build(t, testTask(func(task *core.Task, a *app.App) {
				h := base
				test.set(&h)
				a.Health = []app.HealthCheck{{Protocol: "TCP"}, h}
				a.Ports, task.Ports = []app.PortDefinition{{}}, []uint32{31000}
				if test.mapped {
					a.Ports, task.Ports = nil, []uint32{31001}
					a.Networks = []app.Network{{Mode: app.BridgeNetwork}}
					a.Container = &app.Container{Type: app.Mesos, PortMappings: []app.PortMapping{
						{ContainerPort: 80}, {ContainerPort: 81, HostPort: pointer(0)}}}
				}
			}))
			if test.want == nil {
				if info.HealthCheck != nil {
					t.Errorf("health check %v", info.HealthCheck)
				}
				return
			}
			same(t, "health check", info.HealthCheck, test.want)
		})
	}
}

func TestGeneralChecks(t *testing.T) {
	check := func(fill func(*mesosgo.CheckInfo)) *mesosgo.CheckInfo {
		c := &mesosgo.CheckInfo{DelaySeconds: pointer(1.0), IntervalSeconds: pointer(2.0), TimeoutSeconds: pointer(3.0)}
		fill(c)
		return c
	}
	for name, test := range map[string]struct {
		set  func(c *app.Check)
		want *mesosgo.CheckInfo
	}{
		"http": {func(c *app.Check) { c.HTTP = &app.CheckHTTP{PortIndex: pointer(0), Path: "/p"} }, check(func(c *mesosgo.CheckInfo) {
			c.Type, c.HTTP = mesosgo.CheckInfo_HTTP, &mesosgo.CheckInfo_Http{Port: 31000, Path: pointer("/p")}
		})},
		"tcp": {func(c *app.Check) { c.TCP = &app.CheckTCP{Port: pointer(22)} }, check(func(c *mesosgo.CheckInfo) {
			c.Type, c.TCP = mesosgo.CheckInfo_TCP, &mesosgo.CheckInfo_Tcp{Port: 22}
		})},
		"shell": {func(c *app.Check) { c.Exec = &app.CheckExec{Command: app.Command{Value: "x"}} }, check(func(c *mesosgo.CheckInfo) {
			c.Type = mesosgo.CheckInfo_COMMAND
			c.Command = &mesosgo.CheckInfo_Command{Command: mesosgo.CommandInfo{Shell: pointer(true), Value: pointer("x")}}
		})},
		"program": {func(c *app.Check) { c.Exec = &app.CheckExec{Argv: []string{"p", "a"}} }, check(func(c *mesosgo.CheckInfo) {
			c.Type = mesosgo.CheckInfo_COMMAND
			c.Command = &mesosgo.CheckInfo_Command{Command: mesosgo.CommandInfo{Shell: pointer(false), Value: pointer("p"), Arguments: []string{"p", "a"}}}
		})},
	} {
		info := build(t, testTask(func(task *core.Task, a *app.App) {
			a.Check = &app.Check{DelaySeconds: 1, IntervalSeconds: 2, TimeoutSeconds: 3}
			test.set(a.Check)
			a.Ports, task.Ports = []app.PortDefinition{{}}, []uint32{31000}
		}))
		same(t, name, info.Check, test.want)
	}
}

func TestChecksThatCannotBeSentAreRefused(t *testing.T) {
	for want, fill := range map[string]func(a *app.App){
		"port index 2":      func(a *app.App) { a.Health = []app.HealthCheck{{Protocol: "MESOS_TCP", PortIndex: pointer(2)}} },
		"port index 0":      func(a *app.App) { a.Check = &app.Check{TCP: &app.CheckTCP{}} },
		"no command":        func(a *app.App) { a.Health = []app.HealthCheck{{Protocol: "COMMAND"}} },
		"none of http, tcp": func(a *app.App) { a.Check = &app.Check{} },
	} {
		if reason := refused(t, testTask(func(_ *core.Task, a *app.App) { fill(a) })); !strings.Contains(reason, want) {
			t.Errorf("reason %q, want %q", reason, want)
		}
	}
}
