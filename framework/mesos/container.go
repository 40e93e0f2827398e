package mesos

import (
	"slices"

	mesosgo "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

// image is the app's image, nil for none.
func (b *taskBuilder) image() *app.DockerImage {
	if b.app.Container == nil {
		return nil
	}
	return b.app.Container.Docker
}

// container is nil for a task that runs without any isolation of its own
// settings: no container section, no network but the host's, no terminal.
func (b *taskBuilder) container() (*mesosgo.ContainerInfo, error) {
	tty := b.app.TTY != nil && *b.app.TTY
	if b.app.Container == nil && b.hostNetwork() && !tty {
		return nil, nil
	}
	info := &mesosgo.ContainerInfo{}
	var err error
	if b.isDocker() {
		err = b.dockerContainer(info)
	} else {
		err = b.mesosContainer(info)
	}
	if err != nil {
		return nil, err
	}
	if tty {
		info.TTYInfo = &mesosgo.TTYInfo{}
	}
	if b.app.Container == nil {
		return info, nil
	}
	info.Volumes, err = b.volumes()
	return info, err
}

func (b *taskBuilder) mesosContainer(info *mesosgo.ContainerInfo) error {
	info.Type = mesosgo.ContainerInfo_MESOS.Enum()
	info.Mesos = &mesosgo.ContainerInfo_MesosInfo{}
	info.NetworkInfos = b.mesosNetworks()
	if b.app.Container == nil {
		return nil
	}
	info.LinuxInfo = linuxInfo(b.app.Container.Linux)
	image := b.image()
	if image == nil {
		return nil
	}
	docker := &mesosgo.Image_Docker{Name: image.Image}
	if image.PullConfig != nil {
		secret, err := b.secret(image.PullConfig.Secret)
		if err != nil {
			return err
		}
		docker.Config = secret
	}
	info.Mesos.Image = &mesosgo.Image{
		Type:   mesosgo.Image_DOCKER.Enum(),
		Docker: docker,
		Cached: pointer(!image.ForcePullImage),
	}
	return nil
}

// mesosNetworks are the CNI networks of a MESOS container. A port is mapped on
// the network that its definition names, or on the only one.
func (b *taskBuilder) mesosNetworks() []mesosgo.NetworkInfo {
	var all []mesosgo.NetworkInfo
	for _, n := range b.app.Networks {
		name := n.Name
		switch n.Mode {
		case app.HostNetwork:
			continue
		case app.BridgeNetwork:
			name = b.config.BridgeName
		}
		info := mesosgo.NetworkInfo{
			Name:        pointer(name),
			Labels:      labelsOf(n.Labels),
			IPAddresses: []mesosgo.NetworkInfo_IPAddress{{}}, // one address of any protocol
		}
		for _, p := range b.ports {
			if p.host == 0 || len(p.networks) > 0 && !slices.Contains(p.networks, name) {
				continue
			}
			for _, protocol := range p.protocols {
				info.PortMappings = append(info.PortMappings, mesosgo.NetworkInfo_PortMapping{
					HostPort: p.host, ContainerPort: p.container, Protocol: pointer(protocol),
				})
			}
		}
		all = append(all, info)
	}
	return all
}

func linuxInfo(l *app.LinuxInfo) *mesosgo.LinuxInfo {
	if l == nil || l.Seccomp == nil && l.IPC == nil {
		return nil
	}
	info := &mesosgo.LinuxInfo{}
	if l.Seccomp != nil {
		info.Seccomp = &mesosgo.SeccompInfo{
			ProfileName: optional(l.Seccomp.ProfileName),
			Unconfined:  l.Seccomp.Unconfined,
		}
	}
	if l.IPC != nil {
		mode := mesosgo.LinuxInfo_PRIVATE
		if l.IPC.Mode == "SHARE_PARENT" {
			mode = mesosgo.LinuxInfo_SHARE_PARENT
		}
		info.IPCMode = mode.Enum()
		if l.IPC.ShmSize != nil {
			info.SHMSize = pointer(uint32(*l.IPC.ShmSize))
		}
	}
	return info
}

func (b *taskBuilder) dockerContainer(info *mesosgo.ContainerInfo) error {
	image := b.image()
	if image == nil {
		return b.invalid("a DOCKER container needs an image: set container.docker.image")
	}
	info.Type = mesosgo.ContainerInfo_DOCKER.Enum()
	docker := &mesosgo.ContainerInfo_DockerInfo{
		Image:          image.Image,
		Privileged:     pointer(image.Privileged),
		ForcePullImage: pointer(image.ForcePullImage),
		Network:        mesosgo.ContainerInfo_DockerInfo_HOST.Enum(),
	}
	for _, n := range b.app.Networks {
		switch n.Mode {
		case app.BridgeNetwork:
			docker.Network = mesosgo.ContainerInfo_DockerInfo_BRIDGE.Enum()
		case app.ContainerNetwork:
			docker.Network = mesosgo.ContainerInfo_DockerInfo_USER.Enum()
			info.NetworkInfos = append(info.NetworkInfos, mesosgo.NetworkInfo{Name: pointer(n.Name)})
		}
	}
	for _, p := range b.ports {
		if b.hostNetwork() || p.host == 0 {
			continue
		}
		for _, protocol := range p.protocols {
			docker.PortMappings = append(docker.PortMappings, mesosgo.ContainerInfo_DockerInfo_PortMapping{
				HostPort: p.host, ContainerPort: p.container, Protocol: pointer(protocol),
			})
		}
	}
	for _, p := range image.Parameters {
		docker.Parameters = append(docker.Parameters, mesosgo.Parameter{Key: p.Key, Value: p.Value})
	}
	docker.Parameters = append(docker.Parameters, mesosgo.Parameter{Key: "label", Value: "MESOS_TASK_ID=" + b.task.ID})
	info.Docker = docker
	return nil
}
