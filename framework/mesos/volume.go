package mesos

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	mesosgo "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

// Options of an external volume whose keys begin with dvdiPrefix go to the
// driver, without the prefix; driverOption names the driver itself.
const (
	dvdiProvider = "dvdi"
	dvdiPrefix   = "dvdi/"
	driverOption = "dvdi/driver"
)

// volumes translates container.volumes. A persistent volume has no entry: its
// disk resource names the path.
func (b *taskBuilder) volumes() ([]mesosgo.Volume, error) {
	var all []mesosgo.Volume
	for i, v := range b.app.Container.Volumes {
		w := mesosgo.Volume{ContainerPath: v.ContainerPath, Mode: volumeMode(v.Mode)}
		switch {
		case v.Persistent != nil:
			continue
		case v.External != nil:
			source, err := b.externalVolume(v.External, b.task.VolumeOptions[i])
			if err != nil {
				return nil, err
			}
			w.Source = source
		case v.Secret != "":
			if b.isDocker() {
				return nil, b.invalid("a DOCKER container cannot have the secret volume %q: use a MESOS container", v.ContainerPath)
			}
			secret, err := b.secret(v.Secret)
			if err != nil {
				return nil, err
			}
			w.Mode = mesosgo.RO.Enum()
			w.Source = &mesosgo.Volume_Source{Type: mesosgo.Volume_Source_SECRET, Secret: secret}
		default:
			w.HostPath = pointer(v.HostPath)
		}
		all = append(all, w)
	}
	return all, nil
}

func volumeMode(mode string) *mesosgo.Volume_Mode {
	if mode == "RO" {
		return mesosgo.RO.Enum()
	}
	return mesosgo.RW.Enum()
}

// externalVolume makes the DOCKER_VOLUME for which the agent's isolator calls
// dvdcli, or the Docker containerizer its daemon. mesos-go 0.0.11 has no
// CSI_VOLUME, so the provider csi cannot be sent.
func (b *taskBuilder) externalVolume(v *app.External, engine map[string]string) (*mesosgo.Volume_Source, error) {
	if v.Provider != dvdiProvider {
		return nil, b.invalid("external volume %q has provider %q, only dvdi is supported", v.Name, v.Provider)
	}
	return &mesosgo.Volume_Source{
		Type: mesosgo.Volume_Source_DOCKER_VOLUME,
		DockerVolume: &mesosgo.Volume_Source_DockerVolume{
			Driver:        pointer(v.Options[driverOption]),
			Name:          v.Name,
			DriverOptions: driverOptions(v, engine),
		},
	}, nil
}

// driverOptions are the app's options without their prefix and with trimmed
// values, the size in GiB, which beats an option of that name, and the options
// for the engine as they are. None at all is nil, which is not the same to
// Mesos as an empty list.
func driverOptions(v *app.External, engine map[string]string) *mesosgo.Parameters {
	options := map[string]string{}
	for key, value := range v.Options {
		if name, ours := strings.CutPrefix(key, dvdiPrefix); ours && !strings.EqualFold(key, driverOption) {
			options[name] = strings.TrimSpace(value)
		}
	}
	if v.Size != nil {
		options["size"] = strconv.FormatInt(*v.Size, 10)
	}
	maps.Copy(options, engine)
	if len(options) == 0 {
		return nil
	}
	w := &mesosgo.Parameters{}
	for _, key := range slices.Sorted(maps.Keys(options)) {
		w.Parameter = append(w.Parameter, mesosgo.Parameter{Key: key, Value: options[key]})
	}
	return w
}
