package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"gopkg.in/yaml.v3"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/internal/volume/inputfile"
)

// LoadVolumeClasses reads the file of --volume-classes: a YAML mapping "classes"
// from names to classes. What it does not know is refused, since a mistyped
// setting would be missed only when data is at stake.
func LoadVolumeClasses(path string) (map[string]app.VolumeClass, error) {
	data, err := inputfile.Read(path)
	if err != nil {
		return nil, fmt.Errorf("--volume-classes: %w", err)
	}
	var file struct {
		Classes map[string]app.VolumeClass `yaml:"classes"`
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("--volume-classes: %s: %w", path, err)
	}
	if err := decoder.Decode(&struct{}{}); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("--volume-classes: %s holds more than one document", path)
	}
	out := make(map[string]app.VolumeClass, len(file.Classes))
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(file.Classes)) {
		c, err := file.Classes[name].Complete(name)
		if err != nil {
			errs = append(errs, fmt.Errorf("--volume-classes: %s: %w", path, err))
		}
		out[name] = c
	}
	return out, errors.Join(errs...)
}
