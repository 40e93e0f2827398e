// Package metrics measures the framework: what the core tells when asked, what
// happens on its event bus, and how the API answers. One set of measurements is
// shown in two forms, for Prometheus and as Marathon's JSON.
package metrics

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/core"
)

// Metrics holds all measurements of one framework. Its methods may be called
// concurrently.
type Metrics struct {
	svc      core.Service
	log      *zap.Logger
	registry *prometheus.Registry
	begun    time.Time

	statuses    *prometheus.CounterVec
	deployments *prometheus.CounterVec
	launches    prometheus.Counter
	unhealthy   prometheus.Counter
	deprecated  prometheus.Counter
	missed      prometheus.Counter
	requests    *prometheus.HistogramVec
	active      prometheus.Gauge
}

// New returns the metrics of a core. Counters of events stay at zero until Run.
func New(svc core.Service, version string, log *zap.Logger) *Metrics {
	m := &Metrics{
		svc: svc, log: log, registry: prometheus.NewRegistry(), begun: time.Now(),
		statuses: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dvdi_task_status_updates_total", Help: "Task status updates from Mesos by state.",
		}, []string{"state"}),
		deployments: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dvdi_deployments_ended_total", Help: "Deployments that ended, by outcome.",
		}, []string{"outcome"}),
		launches: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "dvdi_tasks_launched_total", Help: "Tasks whose launch was decided.",
		}),
		unhealthy: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "dvdi_unhealthy_kills_total", Help: "Tasks killed because their health checks failed.",
		}),
		deprecated: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "dvdi_deprecated_definitions_total", Help: "App definitions accepted that use what is deprecated.",
		}),
		missed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "dvdi_metrics_interruptions_total", Help: "Times that counting fell behind the events and missed some.",
		}),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "dvdi_http_request_duration_seconds", Help: "Time to answer API requests; event streams are not counted.",
			Buckets: []float64{.001, .0025, .005, .01, .02, .05, .1, .25, .5, 1, 2.5, 10},
		}, []string{"method", "resource", "code"}),
		active: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "dvdi_http_requests_active", Help: "API requests being served now, event streams included.",
		}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "dvdi_build_info", Help: "Always 1; the version is the label.", ConstLabels: prometheus.Labels{"version": version},
	})
	info.Set(1)
	m.registry.MustRegister(info, m.statuses, m.deployments, m.launches, m.unhealthy, m.deprecated, m.missed,
		m.requests, m.active, state{svc}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// eventBuffer is how far counting may be behind the core.
const eventBuffer = 1 << 16

// Run counts events until ctx ends or the core has stopped.
func (m *Metrics) Run(ctx context.Context) {
	for ctx.Err() == nil {
		empty := true
		for ev := range m.svc.Subscribe(ctx, eventBuffer) {
			m.count(ev.Type, ev.Data)
			empty = false
		}
		if ctx.Err() != nil || empty {
			return // a subscription that ends at once is one with a stopped core
		}
		m.missed.Inc()
	}
}

// count takes one event. Only the states of tasks are read from its data: the
// API promises them (contract 8).
func (m *Metrics) count(kind string, data any) {
	switch kind {
	case "status_update_event":
		m.statuses.WithLabelValues(member(data, "taskStatus")).Inc()
	case "instance_placed_event":
		m.launches.Inc()
	case "unhealthy_instance_kill_event":
		m.unhealthy.Inc()
	case "deployment_success":
		m.deployments.WithLabelValues("success").Inc()
	case "deployment_failed":
		m.deployments.WithLabelValues("failed").Inc()
	case "deprecation_event":
		m.deprecated.Inc()
	}
}

// Started counts a request as active until the returned function is called with
// the resource that served it and the status. An empty resource is not measured.
func (m *Metrics) Started() func(method, resource string, status int) {
	begin := time.Now()
	m.active.Inc()
	return func(method, resource string, status int) {
		m.active.Dec()
		if resource != "" {
			m.requests.WithLabelValues(method, resource, strconv.Itoa(status)).Observe(time.Since(begin).Seconds())
		}
	}
}

// Prometheus serves the text format. What cannot be measured now is left out and
// logged.
func (m *Metrics) Prometheus() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorLog: gatherLog{m.log}, ErrorHandling: promhttp.ContinueOnError,
	})
}

type gatherLog struct{ log *zap.Logger }

func (l gatherLog) Println(v ...any) { l.log.Warn("some metrics are missing", zap.Any("cause", v)) }
