package main

import (
	"fmt"
	"strings"
)

func printMan(s *session) error {
	page := manPage(allCommands())
	return s.result(map[string]string{"man": page}, page)
}

// manPage writes the commands and flags as a man page (man(7)).
func manPage(specs []spec) string {
	var b strings.Builder
	fmt.Fprint(&b, ".TH DVDCLI 8\n")
	section(&b, "NAME")
	fmt.Fprintf(&b, "dvdcli \\- %s\n", roff(about))
	section(&b, "SYNOPSIS")
	fmt.Fprintf(&b, "%s\n", roff(synopsis))
	section(&b, "DESCRIPTION")
	fmt.Fprintf(&b, "%s\n", roff(description))
	section(&b, "COMMANDS")
	manCommands(&b, "", specs)
	section(&b, "EXIT STATUS")
	for _, s := range exitStatuses {
		fmt.Fprintf(&b, ".TP\n%d\n%s\n", s.status, roff(s.meaning))
	}
	section(&b, "FILES")
	for _, f := range manFiles {
		fmt.Fprintf(&b, ".TP\n%s\n%s\n", roff(f.path), roff(f.what))
	}
	return strings.TrimSuffix(b.String(), "\n")
}

var manFiles = []struct{ path, what string }{
	{"/etc/dvdi/dvdcli.yaml", "what this agent allows: drivers, options, time-outs"},
	{"/run/dvdi", "what is mounted in this boot"},
	{"/var/lib/dvdi", "what outlives a reboot"},
	{"/run/docker/plugins, /etc/docker/plugins, /usr/lib/docker/plugins", "where volume plugins are looked for"},
}

func section(b *strings.Builder, name string) { fmt.Fprintf(b, ".SH %s\n", name) }

func manCommands(b *strings.Builder, parent string, specs []spec) {
	for _, s := range specs {
		name := strings.TrimSpace(parent + " " + s.name)
		if len(s.sub) > 0 {
			manCommands(b, name, s.sub)
			continue
		}
		fmt.Fprintf(b, ".SS %s\n%s\n", roff(name), roff(s.usage))
		for _, o := range s.options() {
			placeholder, _ := o.describe()
			fmt.Fprintf(b, ".TP\n\\fB--%s\\fR", roff(strings.Join(o.names(), ", --")))
			if placeholder != "" {
				fmt.Fprintf(b, " \\fI%s\\fR", roff(placeholder))
			}
			fmt.Fprintf(b, "\n%s\n", roff(o.body()))
		}
	}
}

// roff keeps text from being taken for requests and escapes.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}
