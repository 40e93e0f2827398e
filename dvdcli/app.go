package main

import (
	"context"
	"go.uber.org/zap"
	"os"
	"path/filepath"
	"slices"
	"time"

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

// allCommands are all of them.
func allCommands() []spec { return slices.Concat(volumeCommands(), adminCommands(), aboutCommands()) }

// session is one command under way.
type session struct {
	*terminal
	given
	// policyErr is why the policy cannot be read, once the engine was made.
	policyErr error

	ctx context.Context //nolint:containedctx // a session is one command, which it ends
}

// context is the command's, with its deadline.
func (s *session) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.ctx, s.Duration(flagDeadline))
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

// engine puts the engine together.
func (s *session) engine() (*engine.Engine, func(), error) {
	led, err := s.openLedger()
	if err != nil {
		return nil, nil, err
	}
	log := s.log()
	drivers := s.drivers(log)
	policy, policyErr := engine.LoadPolicy(s.String(flagPolicy))
	call, margin := s.Duration(flagTimeout), s.Duration(flagMargin)
	s.policyErr = policyErr
	e := engine.New(engine.Config{
		Ledger: led, Drivers: drivers, Mounts: hostmount.New(),
		Neighbours: ledger.Neighbours{Dir: s.dirs().Host},
		Policy:     policy, PolicyErr: policyErr,
		Timeouts: engine.Timeouts{Create: call, Remove: call, Mount: call, Unmount: call, Query: call, Margin: margin},
		Log:      log, Fault: faults(),
	})
	return e, drivers.Close, nil
}
