// Package metrics measures the bridge, for Prometheus: its calls to drivers and
// those of dvdcli, the volumes of the agent, drivers' health, leases, and what was
// refused.
package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/mesos-dvdi/dvdi/isolator-bridge/access"
)

// Metrics holds the measurements of one bridge. It is safe for concurrent use.
type Metrics struct {
	registry   *prometheus.Registry
	operations *prometheus.CounterVec
	durations  *prometheus.HistogramVec
	refused    *prometheus.CounterVec
	recovered  *prometheus.CounterVec
	fencings   *prometheus.CounterVec
	lost       *prometheus.CounterVec
}

// New makes the measurements of a bridge of some version.
func New(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dvdi_bridge_operations_total", Help: "Calls to volume drivers by the bridge and by dvdcli.",
		}, []string{"driver", "kind", "outcome"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "dvdi_bridge_operation_duration_seconds", Help: "How long calls to volume drivers took.",
			Buckets: []float64{.005, .02, .1, .5, 1, 2, 5, 10, 30, 60, 120},
		}, []string{"driver", "kind"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dvdi_bridge_refused_total", Help: "Connections and requests that the bridge's APIs refused, by reason.",
		}, []string{"reason"}),
		recovered: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dvdi_bridge_recovered_total", Help: "What recovery found at the start that was not in order, by where it was found and whether it could be put in order.",
		}, []string{"source", "outcome"}),
		fencings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dvdi_bridge_lease_expirations_total", Help: "Leases that ran out, and those of them whose fencing came to its end.",
		}, []string{"driver", "state"}),
		lost: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dvdi_bridge_journal_losses_total", Help: "Calls of dvdcli that could not be counted: lines of its journal that are damaged, and overruns, each of many calls.",
		}, []string{"reason"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "dvdi_bridge_build_info", Help: "Always 1; the label tells the version.",
		ConstLabels: prometheus.Labels{"version": version}})
	build.Set(1)
	m.registry.MustRegister(m.operations, m.durations, m.refused, m.recovered, m.fencings, m.lost, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, r := range access.Reasons() {
		m.refused.WithLabelValues(string(r)) // a rate needs the zero
	}
	for _, r := range []string{"overrun", "damaged"} {
		m.lost.WithLabelValues(r)
	}
	return m
}

// Refused counts a refusal; it is an access.Counter.
func (m *Metrics) Refused(reason access.Reason) { m.refused.WithLabelValues(string(reason)).Inc() }

// Recovered counts one thing that recovery found.
func (m *Metrics) Recovered(source string, settled bool) {
	outcome := "settled"
	if !settled {
		outcome = "problem"
	}
	m.recovered.WithLabelValues(source, outcome).Inc()
}

// Handler serves the measurements.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Registry: m.registry})
}
