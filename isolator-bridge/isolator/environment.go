// Package isolator gives containers their volumes: it keeps references per
// container, mounts all volumes of a container or none, and finds again after a
// crash what was half done. Volumes, locks and the calls to drivers are the
// engine's; a container's reference to a volume is a holder in the ledger.
package isolator

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// Spec asks for one volume of a container.
type Spec struct {
	Key      ledger.Key
	Options  map[string]string
	Explicit bool
	// ContainerPath is where the container wants to see the volume; empty: where
	// it is mounted on the host.
	ContainerPath string
}

// digest tells options, and whether the volume is to exist already, from others.
func (s Spec) digest() string {
	h := sha256.New()
	fmt.Fprintf(h, "%t", s.Explicit)
	for _, k := range slices.Sorted(maps.Keys(s.Options)) {
		fmt.Fprintf(h, " %d:%s %d:%s", len(k), k, len(s.Options[k]), s.Options[k])
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// The variables of mesos-module-dvdi. Each stands alone or with a digit from 1
// to 9 behind it, which tells volumes of one container apart.
const (
	envPrefix   = "DVDI_VOLUME_"
	envName     = envPrefix + "NAME"
	envDriver   = envPrefix + "DRIVER"
	envOptions  = envPrefix + "OPTS"
	envPath     = envPrefix + "CONTAINERPATH"
	envExplicit = envPrefix + "EXPLICITCREATE"
	envDVDCLI   = envPrefix + "DVDCLI"
)

// maxVolumes of one container by environment: none and nine digits.
const maxVolumes = 10

// FromEnvironment reads the volumes that a command's environment asks for as
// mesos-module-dvdi does: DVDI_VOLUME_NAME and its companions DRIVER, OPTS,
// CONTAINERPATH and EXPLICITCREATE, bare or with a digit 1 to 9. Companions
// without a name ask for nothing, and a volume that is named twice is mounted
// once. DVDI_VOLUME_DVDCLI, by which a user could have had any program run as
// root, is ignored, as are variables of other names; one that begins as those do
// and goes on otherwise is an error, as a task must not run without the volume
// that was meant. The notes tell what was ignored. Errors are volume.Invalid.
func FromEnvironment(env map[string]string, defaultDriver string) (specs []Spec, notes []string, err error) {
	var sets [maxVolumes]map[string]string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if !strings.HasPrefix(name, envPrefix) {
			continue
		}
		base, index, ok := splitVariable(name)
		if !ok && !likeVariable(name) {
			notes = append(notes, name+" is no variable for a volume and is ignored")
			continue
		}
		if !ok {
			return nil, nil, invalid(name+" is no variable for a volume", "variables are "+envName+", _DRIVER, _OPTS, _CONTAINERPATH and _EXPLICITCREATE, alone or with a digit from 1 to 9")
		}
		if base == envDVDCLI {
			notes = append(notes, name+" is ignored: the agent decides what runs on it")
			continue
		}
		if sets[index] == nil {
			sets[index] = map[string]string{}
		}
		sets[index][base] = env[name]
	}
	for index, set := range sets {
		if set == nil {
			continue
		}
		if set[envName] == "" {
			notes = append(notes, "variables without "+numbered(envName, index)+" are ignored")
			continue
		}
		spec, err := specOf(set, index, defaultDriver)
		if err != nil {
			return nil, nil, err
		}
		if i := slices.IndexFunc(specs, func(s Spec) bool { return s.Key == spec.Key }); i >= 0 {
			if spec.ContainerPath != "" {
				return nil, nil, invalid(fmt.Sprintf("volume %q is named twice, with the container path %q", spec.Key.Volume, spec.ContainerPath),
					"name a volume once")
			}
			notes = append(notes, numbered(envName, index)+" names a volume that is named already and is ignored")
			continue
		}
		specs = append(specs, spec)
	}
	return specs, notes, nil
}

func splitVariable(name string) (base string, index int, ok bool) {
	base = name
	if last := name[len(name)-1]; last >= '1' && last <= '9' {
		base, index = name[:len(name)-1], int(last-'0')
	}
	switch base {
	case envName, envDriver, envOptions, envPath, envExplicit, envDVDCLI:
		return base, index, true
	}
	return "", 0, false
}

// likeVariable says whether a name that is none of the variables begins as one:
// it is taken for a misspelt one.
func likeVariable(name string) bool {
	return slices.ContainsFunc([]string{envName, envDriver, envOptions, envPath, envExplicit}, func(base string) bool {
		return strings.HasPrefix(name, base)
	})
}

func numbered(name string, index int) string {
	if index == 0 {
		return name
	}
	return fmt.Sprintf("%s%d", name, index)
}

func specOf(set map[string]string, index int, defaultDriver string) (Spec, error) {
	spec := Spec{Key: ledger.Key{Driver: set[envDriver], Volume: set[envName]}, ContainerPath: set[envPath],
		Explicit: strings.EqualFold(strings.TrimSpace(set[envExplicit]), "true")}
	if spec.Key.Driver == "" {
		spec.Key.Driver = defaultDriver
	}
	var args []string
	if text := set[envOptions]; text != "" {
		args = []string{text}
	}
	options, err := engine.ParseOptions(args)
	if err != nil {
		return Spec{}, fmt.Errorf("%s: %w", numbered(envOptions, index), err)
	}
	if len(options.Engine) > 0 {
		return Spec{}, invalid(numbered(envOptions, index)+" has an option of the engine's own (dvdi.*)", "leave it out")
	}
	spec.Options = options.Driver
	return spec, nil
}

func invalid(message, hint string) error {
	return &volume.Error{Kind: volume.Invalid, Op: "prepare", Message: message, Hint: hint}
}
