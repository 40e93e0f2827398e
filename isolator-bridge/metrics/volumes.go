package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/fence"
)

// Facts are what is known of the agent; facts.Board has them.
type Facts interface{ Facts() *client.Facts }

// Leases counts leases by state; *fence.Keeper does.
type Leases interface {
	Counts() map[fence.State]int
}

// Show adds measurements that are taken when somebody asks for them.
func (m *Metrics) Show(facts Facts, leases Leases) {
	m.registry.MustRegister(&state{metrics: m, facts: facts, leases: leases})
}

// LeaseChanged counts leases that ran out; it fits fence.Config.Changed.
func (m *Metrics) LeaseChanged(key ledger.Key, to fence.State) {
	if to != fence.Holding {
		m.fencings.WithLabelValues(label(key.Driver), stateName(to)).Inc()
	}
}

func stateName(s fence.State) string {
	return map[fence.State]string{fence.Holding: "holding", fence.Fencing: "fencing", fence.Fenced: "fenced"}[s]
}

var (
	volumesDesc = prometheus.NewDesc("dvdi_bridge_volumes", "Volumes by driver and state: mounted, unsettled (a call without an answer), "+
		"pending (an unmount is owed), leaked (mounted for nobody; they count as mounted, too), unknown.", []string{"driver", "state"}, nil)
	healthDesc   = prometheus.NewDesc("dvdi_bridge_driver_healthy", "1 if the volume driver answers, else 0.", []string{"driver"}, nil)
	attachedDesc = prometheus.NewDesc("dvdi_bridge_attached_volumes", "Volumes that are, or may be, attached.", []string{"driver"}, nil)
	limitDesc    = prometheus.NewDesc("dvdi_bridge_attach_limit", "How many volumes can be attached, where a limit is set.", []string{"driver"}, nil)
	agentDesc    = prometheus.NewDesc("dvdi_bridge_agent_known", "1 if the Mesos agent tells its containers, else 0.", nil, nil)
	leasesDesc   = prometheus.NewDesc("dvdi_bridge_leases", "Leases by state: holding, fencing (over, something still uses the volume), fenced.", []string{"state"}, nil)
)

// state collects what is so at the moment.
type state struct {
	metrics *Metrics
	facts   Facts
	leases  Leases
}

// Describe implements prometheus.Collector.
func (s *state) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{volumesDesc, healthDesc, attachedDesc, limitDesc, agentDesc, leasesDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *state) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		for i := range labels {
			labels[i] = label(labels[i])
		}
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	f := s.facts.Facts()
	gauge(agentDesc, one(f.ContainersKnown))
	type place struct{ driver, state string }
	counts := map[place]int{}
	for _, d := range f.Drivers {
		for _, name := range volumeStates {
			counts[place{d.Name, name}] = 0
		}
		for _, to := range []fence.State{fence.Fencing, fence.Fenced} {
			s.metrics.fencings.WithLabelValues(label(d.Name), stateName(to)) // an increase needs the zero
		}
		gauge(healthDesc, one(d.Healthy), d.Name)
		gauge(attachedDesc, float64(d.Attached), d.Name)
		if d.AttachLimit > 0 {
			gauge(limitDesc, float64(d.AttachLimit), d.Name)
		}
	}
	for _, v := range f.Volumes {
		if name, shown := volumeStates[v.State]; shown {
			counts[place{v.Name.Driver, name}]++
		}
		if v.Leaked {
			counts[place{v.Name.Driver, leaked}]++
		}
	}
	for p, n := range counts {
		gauge(volumesDesc, float64(n), p.driver, p.state)
	}
	for to, n := range s.leases.Counts() {
		gauge(leasesDesc, float64(n), stateName(to))
	}
}

const (
	leaked = "leaked"
	// anyLeak is no state of the API: leaks are marked beside it.
	anyLeak client.Volume_State = -1
)

var volumeStates = map[client.Volume_State]string{
	client.Volume_MOUNTED: "mounted", client.Volume_UNSETTLED: "unsettled", client.Volume_PENDING: "pending",
	client.Volume_UNKNOWN: "unknown", anyLeak: leaked,
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
