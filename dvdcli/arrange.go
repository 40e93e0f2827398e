package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// arrange puts the command in front of its flags, wherever the caller wrote
// them, since dvdcli 0.2 took flags on both sides of the command. arity tells
// for each flag whether a value follows; flags that it does not know are left
// for the parser to refuse.
func arrange(args []string, arity map[string]bool) []string {
	if len(args) == 0 {
		return args
	}
	var words, flags []string
	rest := args[1:]
	for i := 0; i < len(rest); i++ {
		a := rest[i]
		if a == "--" {
			words = append(words, rest[i+1:]...)
			break
		}
		if len(a) < 2 || a[0] != '-' {
			words = append(words, a)
			continue
		}
		flags = append(flags, a)
		name, _, inline := strings.Cut(strings.TrimLeft(a, "-"), "=")
		if !inline && arity[name] && i+1 < len(rest) {
			i++
			flags = append(flags, rest[i])
		}
	}
	if len(words) == 0 && slices.Contains(flags, "--version") {
		return append([]string{args[0], "version"}, slices.DeleteFunc(flags, func(f string) bool { return f == "--version" })...)
	}
	depth := min(len(words), commandDepth(words))
	out := append([]string{args[0]}, words[:depth]...)
	out = append(out, flags...)
	return append(out, words[depth:]...)
}

// commandDepth is how many words name the command.
func commandDepth(words []string) int {
	if len(words) > 0 && words[0] == "ledger" {
		return 2
	}
	return 1
}

// flagArity tells for every flag of every command whether it takes a value.
func flagArity() map[string]bool {
	arity := map[string]bool{}
	var visit func([]*cli.Command)
	visit = func(commands []*cli.Command) {
		for _, c := range commands {
			for _, f := range c.Flags {
				_, isBool := f.(*cli.BoolFlag)
				for _, name := range f.Names() {
					arity[name] = !isBool
				}
			}
			visit(c.Subcommands)
		}
	}
	visit(newApp(&terminal{}).Commands)
	return arity
}
