package metrics

import (
	"context"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/volume/journal"
)

// Follower counts the calls that other programs of the run directory make, dvdcli
// above all, from the journal in which they write them down. It is safe for
// concurrent use.
type Follower struct {
	metrics *Metrics
	log     *zap.Logger

	mu     sync.Mutex // guards all below
	reader *journal.Reader
	told   string // the last error
}

// Follow makes a Follower of the journal in a run directory. What was written
// while no bridge ran is counted with the first look.
func (m *Metrics) Follow(runDir string, log *zap.Logger) *Follower {
	reader, err := journal.NewReader(runDir)
	if err != nil {
		log.Warn("calls may be counted twice", zap.Error(err))
	}
	return &Follower{metrics: m, log: log, reader: reader}
}

// Look counts what is new.
func (f *Follower) Look() {
	f.mu.Lock()
	defer f.mu.Unlock()
	lost, err := f.reader.Read(f.metrics.Called)
	if lost.Overrun {
		f.metrics.lost.WithLabelValues("overrun").Inc()
	}
	f.metrics.lost.WithLabelValues("damaged").Add(float64(lost.Damaged))
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != f.told && err != nil {
		f.log.Warn("calls of dvdcli are not counted", zap.Error(err))
	}
	f.told = text
}

// Run looks from time to time until ctx ends, so that the journal does not run
// over while nobody asks for the metrics.
func (f *Follower) Run(ctx context.Context, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		f.Look()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Before has the follower look before each answer of a handler, which is then
// up to date.
func (f *Follower) Before(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.Look()
		h.ServeHTTP(w, r)
	})
}
