package main

import (
	"fmt"
	"slices"
	"strings"
)

const (
	about       = "mount volumes of any Docker volume plugin, without Docker"
	synopsis    = "dvdcli COMMAND --volumedriver DRIVER --volumename NAME [flags]"
	description = "Called by the Mesos agent's docker/volume isolator for each container. Results go to stdout, everything else to stderr. " +
		"Every flag can be given in the environment: DVDCLI_ and its name in capitals."
)

// help prints what the words name: everything, or one command.
func help(t *terminal, specs []spec, words []string) error {
	s, path, rest, err := find(specs, words)
	if err == nil && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		err = fmt.Errorf("unknown command %q; %w", strings.Join(words, " "), errUsage)
	}
	if err != nil {
		return err
	}
	var lines []string
	if path == "" {
		lines = append(lines, "dvdcli - "+about, "", "USAGE", "  "+synopsis, "", description)
	} else {
		lines = append(lines, "dvdcli "+path+" - "+s.usage)
	}
	if len(s.sub) > 0 {
		rows := []string{}
		for _, sub := range s.sub {
			rows = append(rows, "  "+sub.name+"\t"+sub.usage)
		}
		if path == "" {
			rows = append(rows, "  help\tprint this, or about one command: dvdcli help mount")
		}
		laid, err := table(rows)
		if err != nil {
			return err
		}
		return t.print(slices.Concat(lines, []string{"", "COMMANDS"}, laid)...)
	}
	rows := []string{}
	for _, o := range s.options() {
		rows = append(rows, "  "+o.head()+"\t"+o.body())
	}
	laid, err := table(rows)
	if err != nil {
		return err
	}
	return t.print(slices.Concat(lines, []string{"", "FLAGS"}, laid)...)
}

// head is how the flag is written.
func (o option) head() string {
	placeholder, _ := o.describe()
	text := "--" + strings.Join(o.names(), ", --")
	if placeholder != "" {
		text += " " + strings.ToUpper(placeholder)
	}
	return text
}

// body is what it does, its default and its variable.
func (o option) body() string {
	_, text := o.describe()
	if v := o.standard(); v != "" {
		text += " (default: " + v + ")"
	}
	return text + " [$" + o.variable() + "]"
}
