package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/volume/dockerplugin"
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/hostmount"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// Whole commands end before Mesos would kill them: mount after 120 s, unmount
// after 10 min.
const (
	mountDeadline   = 110 * time.Second
	unmountDeadline = 9*time.Minute + 30*time.Second
	otherDeadline   = 2 * time.Minute
)

func newApp(t *terminal) *cli.App {
	return &cli.App{
		Name:      "dvdcli",
		Usage:     "mount volumes of any Docker volume plugin, without Docker",
		UsageText: "dvdcli COMMAND --volumedriver DRIVER --volumename NAME [flags]",
		Description: "Called by the Mesos agent's docker/volume isolator for each container. Results go to stdout, everything else to stderr. " +
			"Every flag can be given in the environment: DVDCLI_ and its name in capitals.",
		Commands: append(volumeCommands(t), append(adminCommands(t), versionCommand(t), manCommand(t), completionCommand(t))...),
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

func usageError(_ *cli.Context, err error, _ bool) error {
	return fmt.Errorf("%w; %w", err, errUsage)
}

func noCommand(c *cli.Context) error {
	if c.Args().Present() {
		return fmt.Errorf("unknown command %q; %w", c.Args().First(), errUsage)
	}
	return fmt.Errorf("no command; %w", errUsage)
}

// command wraps an action with what every command does first.
func command(t *terminal, action func(*cli.Context, *session) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		switch c.String(flagOutput) {
		case "json":
			t.json = true
		case "text":
		default:
			return fmt.Errorf("--%s is %q, not text or json; %w", flagOutput, c.String(flagOutput), errUsage)
		}
		if c.Args().Present() {
			return fmt.Errorf("unexpected argument %q; %w", c.Args().First(), errUsage)
		}
		return action(c, &session{terminal: t, c: c})
	}
}

// session is one command under way.
type session struct {
	*terminal
	c *cli.Context
}

// context is the command's, with its deadline.
func (s *session) context() (context.Context, context.CancelFunc) {
	d := s.c.Duration(flagDeadline)
	if d <= 0 {
		return s.c.Context, func() {}
	}
	return context.WithTimeout(s.c.Context, d)
}

func (s *session) holder() engine.Holder {
	if name := s.c.String(flagHolder); name != "" {
		return engine.Holder{Name: name}
	}
	return holderOf(parent(), os.Geteuid())
}

func (s *session) drivers(log *zap.Logger) *dockerplugin.Drivers {
	cfg := dockerplugin.Config{Dirs: splitDirs(s.c.String(flagPlugins))}
	if s.c.Bool(flagVerbose) {
		cfg.Trace = func(x dockerplugin.Exchange) {
			log.Debug("driver call", zap.String("driver", x.Driver), zap.String("address", x.Address), zap.String("method", x.Method),
				zap.String("request", x.Request), zap.Int("status", x.Status), zap.String("answer", x.Answer),
				zap.Duration("elapsed", x.Elapsed), zap.Error(x.Err))
		}
	}
	return dockerplugin.New(cfg)
}

func (s *session) log() *zap.Logger { return s.logger(s.c.Bool(flagVerbose)) }

func splitDirs(list string) []string {
	if list == "" {
		return nil
	}
	return filepath.SplitList(list)
}

// dirs are the ledger's directories: flags, environment, defaults.
func (s *session) dirs() ledger.Dirs {
	return ledger.DefaultDirs(os.Geteuid(), os.Getenv).Or(ledger.Dirs{
		Run: s.c.String(flagRunDir), State: s.c.String(flagStateDir), Host: s.c.String(flagHostDir)})
}

func (s *session) openLedger() (*ledger.Ledger, error) {
	d := s.dirs()
	return ledger.Open(ledger.Config{RunDir: d.Run, StateDir: d.State})
}

// engine puts the engine together.
func (s *session) engine() (*engine.Engine, func(), error) {
	led, err := s.openLedger()
	if err != nil {
		return nil, nil, err
	}
	log := s.log()
	drivers := s.drivers(log)
	policy, policyErr := engine.LoadPolicy(s.c.String(flagPolicy))
	call, margin := s.c.Duration(flagTimeout), s.c.Duration(flagMargin)
	if policyErr != nil {
		log.Warn("policy not readable", zap.Error(policyErr))
	}
	e := engine.New(engine.Config{
		Ledger: led, Drivers: drivers, Mounts: hostmount.New(),
		Neighbours: ledger.Neighbours{Dir: s.dirs().Host},
		Policy:     policy, PolicyErr: policyErr,
		Timeouts: engine.Timeouts{Create: call, Remove: call, Mount: call, Unmount: call, Query: call, Margin: margin},
		Log:      log, Fault: faults(),
	})
	return e, drivers.Close, nil
}
