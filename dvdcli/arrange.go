package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// arrange puts the command in front of its flags, wherever the caller wrote
// them, since dvdcli 0.2 took flags on both sides of the command. takesValue
// tells of a flag whether a value follows; flags that are unknown are left for
// the parser to refuse.
func arrange(args []string, takesValue func(name string) bool) []string {
	var words, flags []string
	for i := 0; i < len(args); i++ {
		a := args[i]
		if a == "--" {
			words = append(words, args[i+1:]...)
			break
		}
		if len(a) < 2 || a[0] != '-' {
			words = append(words, a)
			continue
		}
		flags = append(flags, a)
		name, _, inline := strings.Cut(strings.TrimLeft(a, "-"), "=")
		if !inline && i+1 < len(args) && takesValue(name) {
			i++
			flags = append(flags, args[i])
		}
	}
	if len(words) == 0 && slices.Contains(flags, "--version") {
		return append([]string{"version"}, slices.DeleteFunc(flags, func(f string) bool { return f == "--version" })...)
	}
	depth := min(len(words), commandDepth(words))
	return slices.Concat(words[:depth], flags, words[depth:])
}

// commandDepth is how many words name the command.
func commandDepth(words []string) int {
	if len(words) > 0 && words[0] == "ledger" {
		return 2
	}
	return 1
}

// takesValue tells whether a value follows a flag, of whichever of the commands
// it is: flags of the same name are alike.
func takesValue(commands []*cli.Command, name string) bool {
	for _, c := range commands {
		for _, f := range c.Flags {
			if _, isBool := f.(*cli.BoolFlag); !isBool && slices.Contains(f.Names(), name) {
				return true
			}
		}
		if takesValue(c.Subcommands, name) {
			return true
		}
	}
	return false
}
