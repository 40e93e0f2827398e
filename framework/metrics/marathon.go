package metrics

import (
	"errors"
	"math"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// Document is Marathon's form of the metrics (contract 1.7): that of the
// Dropwizard library, version 4.
type Document struct {
	Version    string             `json:"version"`
	Counters   map[string]Counter `json:"counters"`
	Gauges     map[string]Gauge   `json:"gauges"`
	Histograms map[string]Timer   `json:"histograms"`
	Meters     map[string]Counter `json:"meters"`
	Timers     map[string]Timer   `json:"timers"`
}

// Counter is a number that only grows.
type Counter struct {
	Count float64 `json:"count"`
}

// Gauge is a current value.
type Gauge struct {
	Value float64 `json:"value"`
}

// Timer is a distribution of durations in seconds. Percentiles are interpolated
// within the buckets of the histogram that Prometheus gets.
type Timer struct {
	Count uint64  `json:"count"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P75   float64 `json:"p75"`
	P95   float64 `json:"p95"`
	P98   float64 `json:"p98"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p999"`
	Units string  `json:"duration_units"`
	// Rate is the mean number of calls per second since the process started.
	Rate      float64 `json:"mean_rate"`
	RateUnits string  `json:"rate_units"`
}

// marathonNames are the names of those metrics that Marathon 1.7 and later has.
// Others keep their Prometheus name, with the values of labels appended.
var marathonNames = map[string]string{
	"dvdi_apps":                 "marathon.apps.active.gauge",
	"dvdi_groups":               "marathon.groups.active.gauge",
	"dvdi_deployments":          "marathon.deployments.active.gauge",
	"dvdi_instances.running":    "marathon.instances.running.gauge",
	"dvdi_instances.staged":     "marathon.instances.staged.gauge",
	"dvdi_tasks_launched_total": "marathon.tasks.launched.counter",
	"dvdi_http_requests_active": "marathon.http.requests.active.gauge",
}

// Marathon returns the metrics in Marathon's form. With an error the document
// holds what could be measured.
func (m *Metrics) Marathon() (Document, error) {
	families, err := m.registry.Gather()
	d := Document{
		Version: "4.0.0", Counters: map[string]Counter{}, Gauges: map[string]Gauge{},
		Histograms: map[string]Timer{}, Meters: map[string]Counter{}, Timers: map[string]Timer{},
	}
	up := time.Since(m.begun).Seconds()
	d.Gauges["marathon.uptime.gauge.seconds"] = Gauge{up}
	for _, f := range families {
		for _, sample := range f.GetMetric() {
			d.add(nameOf(f.GetName(), sample), sample, up)
		}
	}
	if err != nil {
		err = errors.Join(errors.New("some metrics are missing"), err)
	}
	return d, err
}

func nameOf(family string, sample *dto.Metric) string {
	parts := []string{family}
	for _, l := range sample.GetLabel() {
		parts = append(parts, plain.Replace(l.GetValue()))
	}
	name := strings.Join(parts, ".")
	if known, ok := marathonNames[name]; ok {
		return known
	}
	if state, ok := strings.CutPrefix(name, "dvdi_task_status_updates_total."); ok {
		return "marathon.mesos.task-updates." + strings.ReplaceAll(strings.ToLower(state), "_", "-") + ".counter"
	}
	return name
}

// plain takes out of the values of labels what collectors that make names for
// Prometheus of Marathon's metrics leave in, and what is not allowed there.
var plain = strings.NewReplacer("/", "_", "{", "", "}", "", "...", "", "*", "all", "+", "_", " ", "_", ":", "_")

func (d Document) add(name string, sample *dto.Metric, up float64) {
	switch {
	case sample.GetCounter() != nil:
		d.Counters[name] = Counter{sample.GetCounter().GetValue()}
	case sample.GetGauge() != nil && !math.IsNaN(sample.GetGauge().GetValue()) && !math.IsInf(sample.GetGauge().GetValue(), 0):
		d.Gauges[name] = Gauge{sample.GetGauge().GetValue()}
	case sample.GetHistogram() != nil:
		d.Timers[name] = timerOf(sample.GetHistogram(), up)
	}
}

// timerOf is a histogram as it is after so many seconds.
func timerOf(h *dto.Histogram, up float64) Timer {
	t := Timer{Count: h.GetSampleCount(), Units: "seconds", Rate: float64(h.GetSampleCount()) / up, RateUnits: "calls/second"}
	if t.Count == 0 {
		return t
	}
	t.Mean = h.GetSampleSum() / float64(t.Count)
	for q, p := range map[float64]*float64{0.5: &t.P50, 0.75: &t.P75, 0.95: &t.P95, 0.98: &t.P98, 0.99: &t.P99, 0.999: &t.P999} {
		*p = quantile(q, h)
	}
	return t
}

// quantile interpolates within the bucket that holds the quantile; beyond the
// last bound it is that bound, as Prometheus answers too.
func quantile(q float64, h *dto.Histogram) float64 {
	rank := q * float64(h.GetSampleCount())
	var below, lower float64
	for _, b := range h.GetBucket() {
		if math.IsInf(b.GetUpperBound(), 1) {
			break
		}
		if n := float64(b.GetCumulativeCount()); n >= rank {
			if n == below {
				return b.GetUpperBound()
			}
			return lower + (b.GetUpperBound()-lower)*(rank-below)/(n-below)
		}
		below, lower = float64(b.GetCumulativeCount()), b.GetUpperBound()
	}
	return lower
}
