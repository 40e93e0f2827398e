package loglevel

import (
	"errors"
	"maps"
	"strconv"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/mesos-dvdi/dvdi/internal/bubbletest"
)

func TestLevelsForATime(t *testing.T) {
	bubbletest.Test(t, func(t *testing.T) {
		l := New(zapcore.WarnLevel, nil)
		set := func(logger string, level zapcore.Level, lasts time.Duration) {
			t.Helper()
			if err := l.Set(logger, level, lasts); err != nil {
				t.Fatal(err)
			}
		}
		wants := func(want map[string]zapcore.Level) {
			t.Helper()
			if got := l.All(); !maps.Equal(got, want) {
				t.Errorf("levels %v, want %v", got, want)
			}
		}
		set("root", zapcore.DebugLevel, time.Minute)
		set("core", zapcore.ErrorLevel, time.Minute)
		set("core", zapcore.InfoLevel, 2*time.Minute)
		wants(map[string]zapcore.Level{Root: zapcore.DebugLevel, "core": zapcore.InfoLevel})
		time.Sleep(time.Minute)
		wants(map[string]zapcore.Level{Root: zapcore.WarnLevel, "core": zapcore.InfoLevel})
		set("core", zapcore.ErrorLevel, 0)
		set("core", zapcore.DebugLevel, time.Hour)
		time.Sleep(time.Hour)
		wants(map[string]zapcore.Level{Root: zapcore.WarnLevel, "core": zapcore.ErrorLevel})
	})
}

// Loggers whose level was for a time make room for others.
func TestLoggersWithALevelAreBounded(t *testing.T) {
	bubbletest.Test(t, func(t *testing.T) {
		l := New(zapcore.InfoLevel, nil)
		for n := range maxLoggers - 1 {
			if err := l.Set(strconv.Itoa(n), zapcore.DebugLevel, time.Minute); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Set("more", zapcore.DebugLevel, 0); !errors.Is(err, ErrTooMany) {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if err := l.Set("more", zapcore.DebugLevel, 0); err != nil {
			t.Fatal(err)
		}
		if n := len(l.All()); n != 2 {
			t.Errorf("%d loggers", n)
		}
	})
}

func TestWhatIsLogged(t *testing.T) {
	to, logs := observer.New(zapcore.DebugLevel)
	l := New(zapcore.ErrorLevel, func(logger string) bool { return logger == "audit" })
	log := zap.New(l.Core(to)).With(zap.Int("n", 1))
	if err := l.Set("api", zapcore.DebugLevel, 0); err != nil {
		t.Fatal(err)
	}
	for logger, want := range map[string]int{"": 1, "apis": 1, "api": 3, "api.v2": 3, "audit": 2} {
		log := log.Named(logger)
		log.Debug("x", zap.String("logger", logger))
		log.Info("x", zap.String("logger", logger))
		log.Error("x", zap.String("logger", logger))
		if got := logs.FilterField(zap.String("logger", logger)).FilterField(zap.Int("n", 1)).Len(); got != want {
			t.Errorf("%q: %d entries, want %d", logger, got, want)
		}
	}
	if again, levels := Of(log); again != log || levels != l {
		t.Error("a log's own levels are not found")
	}
	if _, levels := Of(zap.New(to)); levels.All()[Root] != zapcore.DebugLevel {
		t.Errorf("levels of another log: %v", levels.All())
	}
	if silent, levels := Of(zap.NewNop()); levels.All()[Root] != zapcore.FatalLevel || silent.Core().Enabled(zapcore.ErrorLevel) {
		t.Errorf("levels of no log: %v", levels.All())
	}
}
