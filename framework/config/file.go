package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"gopkg.in/yaml.v3"

	"github.com/mesos-dvdi/dvdi/internal/volume/inputfile"
)

// fileFlag names the file that holds settings.
const fileFlag = "config"

// applyFile sets the flags that the file of --config names and that neither the
// command line nor the environment has set. The file is a YAML mapping from
// names of flags to values.
func applyFile(c *cli.Context) error {
	path := c.String(fileFlag)
	if path == "" {
		return nil
	}
	data, err := inputfile.Read(path)
	if err != nil {
		return fmt.Errorf("--%s: %w", fileFlag, err)
	}
	var settings map[string]yaml.Node
	if err := yaml.Unmarshal(data, &settings); err != nil {
		return fmt.Errorf("--%s: %s: %w", fileFlag, path, err)
	}
	known := map[string]bool{}
	for _, f := range c.App.Flags {
		for _, name := range f.Names() {
			known[name] = true
		}
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		node := settings[name]
		if err := applySetting(c, known, name, node); err != nil {
			errs = append(errs, fmt.Errorf("--%s: %s line %d: %s: %w", fileFlag, path, node.Line, name, err))
		}
	}
	return errors.Join(errs...)
}

func applySetting(c *cli.Context, known map[string]bool, name string, node yaml.Node) error {
	if !known[name] || name == fileFlag || name == "help" || name == "version" {
		return errors.New("there is no such setting")
	}
	value, err := commandLine(node)
	if err != nil {
		return err
	}
	if c.IsSet(name) {
		return nil
	}
	return c.Set(name, value)
}

// commandLine is a setting's value as it would stand on the command line; a list is
// written with commas.
func commandLine(node yaml.Node) (string, error) {
	switch node.Kind {
	case yaml.ScalarNode:
		return node.Value, nil
	case yaml.SequenceNode:
		parts := make([]string, 0, len(node.Content))
		for _, n := range node.Content {
			if n.Kind != yaml.ScalarNode {
				return "", errors.New("the list must consist of plain values")
			}
			parts = append(parts, n.Value)
		}
		return strings.Join(parts, ","), nil
	}
	return "", errors.New("must be a plain value or a list of them")
}
