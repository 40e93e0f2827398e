package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/volume/dockerplugin"
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/hostmount"
	"github.com/mesos-dvdi/dvdi/internal/volume/journal"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// Whole commands end before Mesos would kill them: mount after 120 s, unmount
// after 10 min.
const (
	mountDeadline   = 110 * time.Second
	unmountDeadline = 9*time.Minute + 30*time.Second
	otherDeadline   = 2 * time.Minute
)

// completionRequest at the end of a command line asks what may come next; the
// library knows it by this name.
const completionRequest = "--generate-bash-completion"

// definition is a command before it is made for the library.
type definition struct {
	name, usage string
	action      func(*session) error
	// flags makes the flags: those of all commands cost a tenth of the time in
	// which this program starts.
	flags func() []cli.Flag
	below []definition
}

func definitions() []definition {
	return slices.Concat(volumeCommands(), adminCommands(), aboutCommands())
}

// commands makes those of the definitions that are wanted.
func commands(t *terminal, from []definition, wanted func(name string) bool) []*cli.Command {
	var out []*cli.Command
	for _, d := range from {
		if !wanted(d.name) {
			continue
		}
		c := &cli.Command{Name: d.name, Usage: d.usage, Action: noCommand, OnUsageError: usageError,
			Subcommands: commands(t, d.below, everything), HideHelpCommand: len(d.below) == 0}
		if d.action != nil {
			c.Action, c.Flags = command(t, d.action), d.flags()
		}
		out = append(out, c)
	}
	return out
}

func everything(string) bool { return true }

// newApp makes the program with the wanted commands.
func newApp(t *terminal, wanted func(name string) bool) *cli.App {
	return &cli.App{
		Name:      "dvdcli",
		Usage:     "mount volumes of any Docker volume plugin, without Docker",
		UsageText: "dvdcli COMMAND --volumedriver DRIVER --volumename NAME [flags]",
		Description: "Called by the Mesos agent's docker/volume isolator for each container. Results go to stdout, everything else to stderr. " +
			"Every flag can be given in the environment: DVDCLI_ and its name in capitals, dashes as underscores.",
		Commands: commands(t, definitions(), wanted),
		// Commas in option values are the user's.
		DisableSliceFlagSeparator: true,
		HideVersion:               true,
		EnableBashCompletion:      true,
		Writer:                    t.stdout,
		ErrWriter:                 t.stderr,
		ExitErrHandler:            func(*cli.Context, error) {},
		OnUsageError:              usageError,
		Action:                    noCommand,
	}
}

// wantedBy says which commands have to be made for a command line: the one that
// it begins with, or else all.
func wantedBy(args []string) func(name string) bool {
	about := aboutCommands()
	if len(args) == 0 || args[len(args)-1] == completionRequest ||
		slices.ContainsFunc(about, func(d definition) bool { return d.name == args[0] }) ||
		!slices.ContainsFunc(definitions(), func(d definition) bool { return d.name == args[0] }) {
		return everything
	}
	return func(name string) bool { return name == args[0] }
}

func usageError(_ *cli.Context, err error, _ bool) error {
	return fmt.Errorf("%w; %w", err, errUsage)
}

// noCommand is for the program, and commands that only have others below them.
func noCommand(c *cli.Context) error {
	if c.Args().Present() {
		return fmt.Errorf("unknown command %q; %w", c.Args().First(), errUsage)
	}
	var names []string
	for _, sub := range c.Command.Subcommands {
		names = append(names, sub.Name)
	}
	return fmt.Errorf("no command, %s needs one of %s; %w", c.Command.HelpName, strings.Join(names, ", "), errUsage)
}

// execute runs the command that args (without the program's name) ask for.
func execute(ctx context.Context, t *terminal, args []string) error {
	if err := forgetEmpty(); err != nil {
		return err
	}
	a := newApp(t, wantedBy(args))
	completing := len(args) > 0 && args[len(args)-1] == completionRequest
	if completing {
		args = args[:len(args)-1]
	}
	args = append([]string{a.Name}, arrange(args, func(name string) bool { return takesValue(a.Commands, name) })...)
	if completing {
		args = append(args, completionRequest)
	}
	err := a.RunContext(ctx, args)
	if _, ok := errors.AsType[cli.ExitCoder](err); ok { // the library's, such as no help for what is no command
		return fmt.Errorf("%w; %w", err, errUsage)
	}
	return err
}

// forgetEmpty unsets empty variables: as usual they stand for unset ones, which
// the library tells from them.
func forgetEmpty() error {
	for _, v := range os.Environ() {
		name, value, _ := strings.Cut(v, "=")
		if value != "" || !strings.HasPrefix(name, "DVDCLI_") {
			continue
		}
		if err := os.Unsetenv(name); err != nil {
			return err
		}
	}
	return nil
}

// command wraps an action with what every command does first.
func command(t *terminal, action func(*session) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		switch c.String(flagOutput) {
		case "json":
			t.json = true
		case "text":
		default:
			return fmt.Errorf("--%s is %q, not text or json; %w", flagOutput, c.String(flagOutput), errUsage)
		}
		for _, name := range []string{flagDeadline, flagTimeout, flagMargin} {
			if d := c.Duration(name); d < 0 || d == 0 && name == flagDeadline && c.IsSet(name) {
				return fmt.Errorf("--%s is %s, which is no time to wait; %w", name, d, errUsage)
			}
		}
		if c.Args().Present() {
			return fmt.Errorf("unexpected argument %q; %w", c.Args().First(), errUsage)
		}
		return action(&session{terminal: t, Context: c})
	}
}

// session is one command under way.
type session struct {
	*terminal
	*cli.Context
	// policyErr is why the policy cannot be read, known in withEngine.
	policyErr error
}

// context is the command's, with its deadline.
func (s *session) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.Context.Context, s.Duration(flagDeadline))
}

func (s *session) holder() engine.Holder {
	if name := s.String(flagHolder); name != "" {
		return engine.Holder{Name: name}
	}
	return holderOf(parent(), os.Geteuid())
}

func (s *session) drivers(log *zap.Logger) *dockerplugin.Drivers {
	cfg := dockerplugin.Config{Dirs: splitDirs(s.String(flagPlugins)), DockerRoot: s.String(flagDocker)}
	if s.Bool(flagVerbose) {
		cfg.Trace = func(x dockerplugin.Exchange) {
			log.Debug("driver call", zap.String("driver", x.Driver), zap.String("address", x.Address), zap.String("method", x.Method),
				zap.String("request", x.Request), zap.Int("status", x.Status), zap.String("answer", x.Answer),
				zap.Duration("elapsed", x.Elapsed), zap.Error(x.Err))
		}
	}
	return dockerplugin.New(cfg)
}

func (s *session) log() *zap.Logger { return s.logger(s.Bool(flagVerbose)) }

func splitDirs(list string) []string {
	if list == "" {
		return nil
	}
	return filepath.SplitList(list)
}

// dirs are the ledger's directories: flags, environment, defaults.
func (s *session) dirs() ledger.Dirs {
	return ledger.DefaultDirs(os.Geteuid(), os.Getenv).Or(ledger.Dirs{
		Run: s.String(flagRunDir), State: s.String(flagStateDir), Host: s.String(flagHostDir)})
}

func (s *session) openLedger() (*ledger.Ledger, error) {
	d := s.dirs()
	return ledger.Open(ledger.Config{RunDir: d.Run, StateDir: d.State})
}

// changing is withEngine for what the ledger has to say how it ended: SIGTERM and
// SIGINT end the waiting, not the writing. Other commands they end at once, and so
// they end this one afterwards: do only works, and what it found is told when it
// is written down, since nobody may be reading.
func (s *session) changing(do func(context.Context, *engine.Engine) error) error {
	ctx, stop := interruptible(s.Context.Context)
	s.until = time.Now().Add(s.Duration(flagDeadline))
	err := s.within(ctx, do)
	if interrupted := stop(); interrupted {
		s.until = time.Now() // the caller is done with waiting
	}
	return err
}

// withEngine puts the engine together for what do does with it, within the
// command's deadline.
func (s *session) withEngine(do func(context.Context, *engine.Engine) error) error {
	return s.within(s.Context.Context, do)
}

func (s *session) within(ctx context.Context, do func(context.Context, *engine.Engine) error) error {
	led, err := s.openLedger()
	if err != nil {
		return err
	}
	log := s.log()
	drivers := s.drivers(log)
	defer drivers.Close()
	var calls counted
	defer func() {
		if err := journal.New(led.RunDir()).Write(calls.made...); err != nil {
			log.Debug("calls will not be counted", zap.Error(err))
		}
	}()
	policy, policyErr := engine.LoadPolicy(s.String(flagPolicy))
	call, margin := s.Duration(flagTimeout), s.Duration(flagMargin)
	s.policyErr = policyErr
	ctx, cancel := context.WithTimeout(ctx, s.Duration(flagDeadline))
	defer cancel()
	return do(ctx, engine.New(engine.Config{
		Ledger: led, Drivers: journal.Observe(drivers, calls.add), Mounts: hostmount.New(),
		Neighbours: ledger.Neighbours{Dir: s.dirs().Host},
		Policy:     policy, PolicyErr: policyErr,
		Timeouts: engine.Timeouts{Create: call, Remove: call, Mount: call, Unmount: call, Query: call, Margin: margin},
		Log:      log, Fault: faults(),
	}))
}

// counted are the calls that were made, to be written down at once.
type counted struct {
	mu   sync.Mutex // guards made
	made []journal.Call
}

func (c *counted) add(call journal.Call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made = append(c.made, call)
}
