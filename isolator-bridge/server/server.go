// Package server is the isolator-bridge at work: it holds the lock of its run
// directory and reconciles the ledger for as long as it runs.
package server

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// Engine is what the server needs of the volume engine.
type Engine interface {
	Ledger() *ledger.Ledger
	Reconcile(context.Context, engine.ReconcileRequest) ([]engine.Finding, error)
}

// Config is what a Server works with. Engine is required.
type Config struct {
	Engine Engine
	// Interval is the longest time between two reconciliations.
	Interval time.Duration
	Log      *zap.Logger
}

// Server keeps one run directory's volumes right.
type Server struct {
	cfg Config
	// told is what was last logged about each volume, so that a state that
	// lasts is logged once. Only Run uses it.
	told map[subject]engine.Finding
}

// subject is what a finding is about.
type subject struct{ driver, volume, file string }

const (
	defaultInterval = 10 * time.Second
	// shortest bounds how often the ledger is looked at when work is due.
	shortest = 100 * time.Millisecond
	lockName = "bridge.lock"
)

// New makes a Server. It does no I/O.
func New(cfg Config) *Server {
	if cfg.Interval <= 0 {
		cfg.Interval = defaultInterval
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Server{cfg: cfg, told: map[subject]engine.Finding{}}
}

// Run reconciles at once and then whenever work is due, until ctx ends; that is
// no error. It fails if another bridge has the run directory. What it does is
// recorded in the ledger before it is done: it may be killed at any time.
func (s *Server) Run(ctx context.Context) (err error) {
	dir := s.cfg.Engine.Ledger().RunDir()
	lock, err := ledger.TryLockFile(filepath.Join(dir, lockName))
	if ledger.IsLocked(err) {
		return fmt.Errorf("another isolator-bridge serves %s: stop it, or give this one another directory with --run-dir", dir)
	}
	if err != nil {
		return fmt.Errorf("lock of %s: %w", dir, err)
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()

	for {
		wait := s.once(ctx)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			s.cfg.Log.Info("stopping", zap.String("runDir", dir))
			return nil
		case <-timer.C:
		}
	}
}

// once reconciles and says how long to wait for the next time.
func (s *Server) once(ctx context.Context) time.Duration {
	findings, err := s.cfg.Engine.Reconcile(ctx, engine.ReconcileRequest{})
	if err != nil {
		s.cfg.Log.Error("reconciliation failed", zap.Error(err))
		return s.cfg.Interval
	}
	wait := s.cfg.Interval
	now := map[subject]engine.Finding{}
	for _, f := range findings {
		about := subject{f.Driver, f.Volume, f.File}
		if f.After > 0 {
			wait = min(wait, f.After)
		}
		f.After = 0
		now[about] = f
		if s.told[about] != f {
			s.tell(f)
		}
	}
	s.told = now
	return max(wait, shortest)
}

// tell logs a finding that is new.
func (s *Server) tell(f engine.Finding) {
	fields := []zap.Field{zap.String("driver", f.Driver), zap.String("volume", f.Volume), zap.String("state", f.State)}
	if f.File != "" {
		fields = append(fields, zap.String("file", f.File))
	}
	if f.Action != "" {
		fields = append(fields, zap.String("action", f.Action))
	}
	if f.Problem != "" {
		s.cfg.Log.Warn("volume needs attention", append(fields, zap.String("problem", f.Problem))...)
		return
	}
	if f.Action != "" {
		s.cfg.Log.Info("volume reconciled", fields...)
		return
	}
	s.cfg.Log.Debug("volume in order", fields...)
}
