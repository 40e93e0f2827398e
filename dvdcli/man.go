package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// The man page is written here and not by the library: its Markdown converter
// would be a fifth of the time in which this program starts. Builds leave it out
// with the tag urfave_cli_no_docs.

func printMan(s *session) error {
	page := manPage(s.App)
	return s.result(map[string]string{"man": page}, page)
}

// manPage is the page of the program in section 8 (man(7)).
func manPage(a *cli.App) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s 8\n.SH NAME\n%s \\- %s\n", a.Name, a.Name, roff(a.Usage))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n%s\n.SH DESCRIPTION\n%s\n.SH COMMANDS", roff(a.UsageText), roff(a.Description))
	manCommands(&b, a.Name, a.Commands)
	b.WriteString("\n.SH EXIT STATUS")
	for _, x := range exitStatuses {
		fmt.Fprintf(&b, "\n.TP\n.B %d\n%s", x.status, roff(x.meaning))
	}
	b.WriteString("\n.SH FILES")
	for _, f := range manFiles {
		fmt.Fprintf(&b, "\n.TP\n.I %s\n%s", roff(f.path), roff(f.about))
	}
	return b.String()
}

// manFiles are those that the program uses unless it is told otherwise.
var manFiles = []struct{ path, about string }{
	{"/etc/dvdi/dvdcli.yaml", "what this agent allows: drivers, options, time-outs"},
	{"/run/dvdi", "what is mounted in this boot"},
	{"/var/lib/dvdi", "what outlives a reboot"},
	{"/run/docker/plugins, /etc/docker/plugins, /usr/lib/docker/plugins", "where volume plugins are looked for"},
}

func manCommands(b *strings.Builder, above string, commands []*cli.Command) {
	for _, c := range commands {
		name := above + " " + c.Name
		fmt.Fprintf(b, "\n.SS %s\n%s", roff(name), roff(c.Usage))
		for _, f := range c.Flags {
			if d, ok := f.(cli.DocGenerationFlag); ok {
				manFlag(b, f.Names(), d)
			}
		}
		manCommands(b, name, c.Subcommands)
	}
}

func manFlag(b *strings.Builder, names []string, f cli.DocGenerationFlag) {
	usage, value := f.GetUsage(), ""
	if before, rest, ok := strings.Cut(usage, "`"); ok {
		var after string
		value, after, _ = strings.Cut(rest, "`")
		usage = before + value + after
	}
	for i, n := range names {
		names[i] = `\fB` + roff("--"+n) + `\fP`
	}
	fmt.Fprintf(b, "\n.TP\n%s", strings.Join(names, ", "))
	if f.TakesValue() {
		fmt.Fprintf(b, ` \fI%s\fP`, roff(value))
	}
	if text := f.GetDefaultText(); text != "" && f.TakesValue() {
		usage += " (default " + strings.Trim(text, `"`) + ")"
	}
	fmt.Fprintf(b, "\n%s [$%s]", roff(usage), strings.Join(f.GetEnvVars(), ", $"))
}

// roff keeps text from being taken for requests and escapes.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "\n.", "\n\\&.", "\n'", "\n\\&'").Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}
