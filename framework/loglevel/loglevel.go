// Package loglevel decides which entries a log has, by the names of its loggers,
// and lets that be changed while it is written.
package loglevel

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Root is the name of the logger above all others, as Marathon has it.
const Root = "ROOT"

// maxLoggers bounds how many loggers may have a level of their own.
const maxLoggers = 100

// ErrTooMany means that no further logger can have a level of its own.
var ErrTooMany = errors.New("too many loggers have a level of their own")

// setting is the level of one logger: the one that lasts, and one for a time.
type setting struct {
	lasting   zapcore.Level
	inherited bool // there is none that lasts
	passing   zapcore.Level
	until     time.Time
}

func (s setting) at(now time.Time) (level zapcore.Level, set bool) {
	if now.Before(s.until) {
		return s.passing, true
	}
	return s.lasting, !s.inherited
}

// Levels are the levels of loggers by name. A logger without a level has that of
// the one above it: of "api" for "api.audit", of Root at last. The methods may be
// called concurrently.
type Levels struct {
	always func(logger string) bool

	mu    sync.RWMutex // guards named
	named map[string]setting
}

// New makes levels of which only the root's is set. Loggers that always names log
// at Info whatever level is set; nil names none.
func New(root zapcore.Level, always func(logger string) bool) *Levels {
	if always == nil {
		always = func(string) bool { return false }
	}
	return &Levels{always: always, named: map[string]setting{Root: {lasting: root}}}
}

// Set gives a logger a level: for a time, after which it has the one that it had
// before, or with lasts 0 until it is set again. The root is Root in any case of
// letters. The error is ErrTooMany.
func (l *Levels) Set(logger string, level zapcore.Level, lasts time.Duration) error {
	if strings.EqualFold(logger, Root) {
		logger = Root
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(l.named, func(_ string, s setting) bool {
		_, set := s.at(now)
		return !set
	})
	s, known := l.named[logger]
	if !known && len(l.named) >= maxLoggers {
		return fmt.Errorf("set the level of logger %s: %w (%d)", logger, ErrTooMany, maxLoggers)
	}
	if lasts > 0 {
		l.named[logger] = setting{lasting: s.lasting, inherited: s.inherited || !known, passing: level, until: now.Add(lasts)}
	} else {
		l.named[logger] = setting{lasting: level}
	}
	return nil
}

// All returns the loggers that have a level of their own, the root among them.
func (l *Levels) All() map[string]zapcore.Level {
	l.mu.RLock()
	defer l.mu.RUnlock()
	all := map[string]zapcore.Level{}
	now := time.Now()
	for name, s := range l.named {
		if level, set := s.at(now); set {
			all[name] = level
		}
	}
	return all
}

// of is the level that counts for a logger.
func (l *Levels) of(logger string) zapcore.Level {
	l.mu.RLock()
	defer l.mu.RUnlock()
	now := time.Now()
	for ; logger != ""; logger = logger[:max(strings.LastIndexByte(logger, '.'), 0)] {
		if s, known := l.named[logger]; known {
			if level, set := s.at(now); set {
				return level
			}
		}
	}
	level, _ := l.named[Root].at(now)
	return level
}

// Core lets through to a core, which must take every level, what the levels say.
func (l *Levels) Core(to zapcore.Core) zapcore.Core { return core{to, l} }

// Of returns the levels of a log: those of the core that it writes to, or ones
// made for it. The log returned is to be used in its place.
func Of(log *zap.Logger) (*zap.Logger, *Levels) {
	if c, ok := log.Core().(core); ok {
		return log, c.levels
	}
	level := zapcore.LevelOf(log.Core())
	if level == zapcore.InvalidLevel {
		level = zapcore.FatalLevel // it logs nothing at all
	}
	levels := New(level, nil)
	return log.WithOptions(zap.WrapCore(levels.Core)), levels
}

type core struct {
	zapcore.Core
	levels *Levels
}

// Level is the lowest at which any logger logs.
func (c core) Level() zapcore.Level {
	return slices.Min(slices.Collect(maps.Values(c.levels.All())))
}

// Enabled implements zapcore.Core. It does not know the logger.
func (c core) Enabled(level zapcore.Level) bool {
	return c.Core.Enabled(level) && (level >= zapcore.InfoLevel || level >= c.Level())
}

// With implements zapcore.Core.
func (c core) With(fields []zapcore.Field) zapcore.Core {
	return core{c.Core.With(fields), c.levels}
}

// Check implements zapcore.Core.
func (c core) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	always := e.Level >= zapcore.InfoLevel && c.levels.always(e.LoggerName)
	if !always && e.Level < c.levels.of(e.LoggerName) {
		return checked
	}
	return c.Core.Check(e, checked)
}
