package server

import (
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// Source is where recovery found something.
type Source string

// The sources.
const (
	FromLedger     Source = "ledger"
	FromMounts     Source = "mounts"
	FromPlugin     Source = "plugin"
	FromCheckpoint Source = "checkpoint"
	FromAgent      Source = "agent"
	FromContainer  Source = "container" // of the bridge's own API
)

// Sources are all of them.
func Sources() []Source {
	return []Source{FromLedger, FromMounts, FromPlugin, FromCheckpoint, FromAgent, FromContainer}
}

// Item is one thing that recovery found.
type Item struct {
	Source    Source
	Key       ledger.Key // zero if it is not about a volume
	Container string
	// Subject is the file or driver, where there is no volume.
	Subject string
	Found   string
	Done    string
	Problem string
}

// Report is what recovery found and did at the start of the bridge. Volumes in
// order are counted only. Items may be added after it is finished: of drivers
// that had not answered, and of an agent that came up later.
type Report struct {
	Time     time.Time
	Took     time.Duration
	Finished bool
	// InOrder counts volumes about which there was nothing to say.
	InOrder int
	Items   []Item
}

// log writes the report down: one line per item and one for all.
func (r *Report) log(log *zap.Logger) {
	problems := 0
	for _, i := range r.Items {
		i.log(log)
		if i.Problem != "" {
			problems++
		}
	}
	log.Info("recovered", zap.Duration("took", r.Took), zap.Int("inOrder", r.InOrder), zap.Int("items", len(r.Items)), zap.Int("problems", problems))
}

func (i Item) log(log *zap.Logger) {
	fields := []zap.Field{zap.String("source", string(i.Source)), zap.String("found", i.Found)}
	for _, f := range []struct{ name, value string }{{"driver", i.Key.Driver}, {"volume", i.Key.Volume}, {"container", i.Container},
		{"subject", i.Subject}, {"done", i.Done}, {"problem", i.Problem}} {
		if f.value != "" {
			fields = append(fields, zap.String(f.name, f.value))
		}
	}
	if i.Problem != "" {
		log.Warn("recovery", fields...)
	} else {
		log.Info("recovery", fields...)
	}
}
