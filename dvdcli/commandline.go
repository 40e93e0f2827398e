package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// The command line is read with the standard library's flags and not with the
// library that the other programs of this repository use: that one brings a
// template engine along, with which every start of this program, one per
// container and volume, took a third longer (make bench).

// spec is a command.
type spec struct {
	name, usage string
	options     func() []option
	action      func(*session) error
	sub         []spec
}

// option is one flag of a command.
type option struct {
	// name, and alias if it is not empty, without dashes.
	name, alias string
	// usage tells what it does; a word in backquotes in it stands for the value.
	usage string
	// value is the default: a string, bool, time.Duration or []string, which may
	// be given repeatedly.
	value any
}

func (o option) names() []string {
	if o.alias == "" {
		return []string{o.name}
	}
	return []string{o.name, o.alias}
}

func (o option) takesValue() bool {
	_, isBool := o.value.(bool)
	return !isBool
}

// variable is the environment variable that stands for the flag.
func (o option) variable() string {
	return "DVDCLI_" + strings.ToUpper(strings.ReplaceAll(o.name, "-", "_"))
}

// standard is the default for people, empty if there is none.
func (o option) standard() string {
	switch v := o.value.(type) {
	case string:
		return v
	case time.Duration:
		if v != 0 {
			return v.String()
		}
	}
	return ""
}

// describe splits usage into the word for the value and the text.
func (o option) describe() (placeholder, text string) {
	if before, rest, found := strings.Cut(o.usage, "`"); found {
		if word, after, closed := strings.Cut(rest, "`"); closed {
			return word, before + word + after
		}
	}
	if o.takesValue() {
		return "value", o.usage
	}
	return "", o.usage
}

// several is a flag that may be given repeatedly. The first value given takes the
// place of those in the environment.
type several struct {
	values []string
	preset bool
}

// String implements flag.Value.
func (l *several) String() string { return strings.Join(l.values, " ") }

// Set implements flag.Value.
func (l *several) Set(v string) error {
	if l.preset {
		l.values, l.preset = nil, false
	}
	l.values = append(l.values, v)
	return nil
}

// given are the values of a command's flags.
type given map[string]any

// String is the value of a flag; empty for one that the command does not have.
func (g given) String(name string) string {
	if p, ok := g[name].(*string); ok {
		return *p
	}
	return ""
}

// Bool is the value of a flag.
func (g given) Bool(name string) bool {
	p, ok := g[name].(*bool)
	return ok && *p
}

// Duration is the value of a flag.
func (g given) Duration(name string) time.Duration {
	if p, ok := g[name].(*time.Duration); ok {
		return *p
	}
	return 0
}

// List is the values of a flag that may be given repeatedly.
func (g given) List(name string) []string {
	if p, ok := g[name].(*several); ok {
		return p.values
	}
	return nil
}

// parse reads flags from the environment and then from args, and returns the
// words that are left. flag.ErrHelp: help was asked for.
func parse(options []option, args []string, getenv func(string) string) (given, []string, error) {
	set := flag.NewFlagSet("", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	g := given{}
	for _, o := range options {
		for _, name := range o.names() {
			o.define(set, g, name)
		}
		v := getenv(o.variable())
		if v == "" {
			continue
		}
		if err := set.Set(o.name, v); err != nil {
			return nil, nil, fmt.Errorf("%s=%q: %w; %w", o.variable(), v, err, errUsage)
		}
		if l, ok := g[o.name].(*several); ok {
			l.preset = true
		}
	}
	switch err := set.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil, nil, err
	case err != nil:
		return nil, nil, fmt.Errorf("%w; %w", err, errUsage)
	}
	return g, set.Args(), nil
}

// define makes the flag under one of its names.
func (o option) define(set *flag.FlagSet, g given, name string) {
	known := g[o.name]
	switch v := o.value.(type) {
	case string:
		p, ok := known.(*string)
		if !ok {
			p = new(string)
		}
		set.StringVar(p, name, v, o.usage)
		g[o.name] = p
	case bool:
		p, ok := known.(*bool)
		if !ok {
			p = new(bool)
		}
		set.BoolVar(p, name, v, o.usage)
		g[o.name] = p
	case time.Duration:
		p, ok := known.(*time.Duration)
		if !ok {
			p = new(time.Duration)
		}
		set.DurationVar(p, name, v, o.usage)
		g[o.name] = p
	default:
		p, ok := known.(*several)
		if !ok {
			p = &several{}
		}
		set.Var(p, name, o.usage)
		g[o.name] = p
	}
}

// find walks down to the command that the words name and returns it, its full
// name and the words behind it.
func find(specs []spec, args []string) (s spec, path string, rest []string, err error) {
	s = spec{sub: specs}
	for len(s.sub) > 0 {
		if len(args) == 0 || strings.HasPrefix(args[0], "-") {
			return s, path, args, nil
		}
		next, ok := named(s.sub, args[0])
		if !ok {
			return s, path, args, fmt.Errorf("unknown command %q; %w", strings.TrimSpace(path+" "+args[0]), errUsage)
		}
		s, path, args = next, strings.TrimSpace(path+" "+args[0]), args[1:]
	}
	return s, path, args, nil
}

func named(specs []spec, name string) (spec, bool) {
	for _, s := range specs {
		if s.name == name {
			return s, true
		}
	}
	return spec{}, false
}

// execute runs the command that args (without the program's name) ask for.
func execute(ctx context.Context, t *terminal, args []string) error {
	specs := allCommands()
	args = arrange(args, arities(specs, args))
	switch {
	case len(args) > 0 && args[len(args)-1] == completionRequest:
		return t.print(candidates(specs, args[:len(args)-1])...)
	case len(args) > 0 && (args[0] == "help" || args[0] == "h"):
		return help(t, specs, args[1:])
	}
	s, path, rest, err := find(specs, args)
	if err != nil {
		return err
	}
	if s.action == nil {
		return noAction(t, s, path, rest)
	}
	g, words, err := parse(s.options(), rest, os.Getenv)
	if errors.Is(err, flag.ErrHelp) {
		return help(t, specs, strings.Fields(path))
	}
	if err != nil {
		return err
	}
	switch g.String(flagOutput) {
	case "json":
		t.json = true
	case "text":
	default:
		return fmt.Errorf("--%s is %q, not text or json; %w", flagOutput, g.String(flagOutput), errUsage)
	}
	for _, name := range []string{flagDeadline, flagTimeout, flagMargin} {
		if p, ok := g[name].(*time.Duration); ok && (*p < 0 || *p == 0 && name == flagDeadline) {
			return fmt.Errorf("--%s is %s, which is no time to wait; %w", name, *p, errUsage)
		}
	}
	if len(words) > 0 {
		return fmt.Errorf("unexpected argument %q; %w", words[0], errUsage)
	}
	return s.action(&session{terminal: t, given: g, ctx: ctx})
}

// noAction is for a command that only has others below it.
func noAction(t *terminal, s spec, path string, rest []string) error {
	_, _, err := parse(nil, rest, os.Getenv)
	if errors.Is(err, flag.ErrHelp) {
		return help(t, allCommands(), strings.Fields(path))
	}
	if err != nil {
		return err
	}
	if path == "" {
		return fmt.Errorf("no command; %w", errUsage)
	}
	var names []string
	for _, sub := range s.sub {
		names = append(names, sub.name)
	}
	return fmt.Errorf("%s needs one of %s; %w", path, strings.Join(names, ", "), errUsage)
}

// arities tells for every flag of the commands that args may mean whether a
// value follows it.
func arities(specs []spec, args []string) map[string]bool {
	out := make(map[string]bool, 32)
	for _, s := range specs {
		for name, takes := range arities(s.sub, args) {
			out[name] = takes
		}
		if s.options == nil || !contains(args, s.name) {
			continue
		}
		for _, o := range s.options() {
			for _, name := range o.names() {
				out[name] = o.takesValue()
			}
		}
	}
	return out
}

func contains(args []string, word string) bool {
	for _, a := range args {
		if a == word {
			return true
		}
	}
	return false
}
