package metrics

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// gatherTimeout bounds the questions to the core of one collection.
const gatherTimeout = 10 * time.Second

// state measures what the core holds, at the time of each collection.
type state struct{ svc core.Service }

var (
	connectedDesc = desc("dvdi_mesos_connected", "1 while the framework is subscribed with a Mesos master.")
	leaderDesc    = desc("dvdi_leader", "1 while this process leads.")
	appsDesc      = desc("dvdi_apps", "Apps that are defined.")
	groupsDesc    = desc("dvdi_groups", "Groups that hold apps, the root included.")
	wantedDesc    = desc("dvdi_instances_wanted", "Instances that the definitions ask for.")
	countsDesc    = desc("dvdi_instances", "Instances as Marathon counts them; healthy and unhealthy ones are running too.", "condition")
	tasksDesc     = desc("dvdi_tasks", "Tasks by their last state.", "state")
	queuedDesc    = desc("dvdi_instances_queued", "Instances that wait to be launched.")
	delayedDesc   = desc("dvdi_apps_delayed", "Apps whose launches are delayed after failures.")
	runningDesc   = desc("dvdi_deployments", "Deployments that are running.")
	claimsDesc    = desc("dvdi_volume_claims", "Exclusive volumes that are claimed or to be removed, by driver and state.", "driver", "state")
	leftoversDesc = desc("dvdi_leftovers", "Reservations and persistent volumes with the framework's labels that nothing runs on, one for each agent and instance, "+
		"as the agents' latest offers showed them; GET /v2/volumes lists them.")
	leftoverBytesDesc = desc("dvdi_leftover_bytes", "Disk space of these.")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// Describe implements prometheus.Collector.
func (s state) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{connectedDesc, leaderDesc, appsDesc, groupsDesc, wantedDesc, countsDesc,
		tasksDesc, queuedDesc, delayedDesc, runningDesc, claimsDesc, leftoversDesc, leftoverBytesDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s state) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), gatherTimeout)
	defer cancel()
	g := gauges{ch}
	info := s.svc.Info()
	g.set(connectedDesc, one(info.Connected))
	g.set(leaderDesc, one(info.Elected))
	for d, collect := range map[*prometheus.Desc]func(context.Context, gauges) error{
		appsDesc: s.apps, queuedDesc: s.queue, runningDesc: s.deployments, claimsDesc: s.claims, leftoversDesc: s.leftovers,
	} {
		if err := collect(ctx, g); err != nil {
			ch <- prometheus.NewInvalidMetric(d, err)
		}
	}
}

type gauges struct{ ch chan<- prometheus.Metric }

func (g gauges) set(d *prometheus.Desc, v float64, labels ...string) {
	g.ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (s state) apps(ctx context.Context, g gauges) error {
	apps, err := s.svc.Apps(ctx)
	if err != nil {
		return err
	}
	groups := map[string]bool{"": true}
	tasks := map[string]int{}
	var wanted, staged, running, healthy, unhealthy int
	for _, a := range apps {
		for id := string(a.App.ID); strings.Contains(id, "/"); {
			id = id[:strings.LastIndexByte(id, '/')]
			groups[id] = true
		}
		wanted += a.App.Instances
		staged += a.Staged
		running += a.Running
		healthy += a.Healthy
		unhealthy += a.Unhealthy
		for _, t := range a.Tasks {
			tasks[t.State]++
		}
	}
	g.set(appsDesc, float64(len(apps)))
	g.set(groupsDesc, float64(len(groups)))
	g.set(wantedDesc, float64(wanted))
	g.set(countsDesc, float64(staged), "staged")
	g.set(countsDesc, float64(running), "running")
	g.set(countsDesc, float64(healthy), "healthy")
	g.set(countsDesc, float64(unhealthy), "unhealthy")
	for st, n := range tasks {
		g.set(tasksDesc, float64(n), st)
	}
	return nil
}

func (s state) queue(ctx context.Context, g gauges) error {
	queue, err := s.svc.Queue(ctx)
	if err != nil {
		return err
	}
	var queued, delayed int
	for _, q := range queue {
		queued += q.Count
		if q.Delay > 0 {
			delayed++
		}
	}
	g.set(queuedDesc, float64(queued))
	g.set(delayedDesc, float64(delayed))
	return nil
}

func (s state) deployments(ctx context.Context, g gauges) error {
	list, err := s.svc.Deployments(ctx)
	if err != nil {
		return err
	}
	g.set(runningDesc, float64(len(list)))
	return nil
}

var claimStates = map[scheduler.ClaimState]string{
	scheduler.Held: "held", scheduler.Releasing: "releasing", scheduler.Lost: "lost", scheduler.Fenced: "fenced",
}

func (s state) claims(ctx context.Context, g gauges) error {
	claims, err := s.svc.Claims(ctx)
	if err != nil {
		return err
	}
	type labels struct{ driver, state string }
	n := map[labels]int{}
	for _, c := range claims {
		n[labels{c.Claim.Key.Driver, claimStates[c.Claim.State]}]++
	}
	removals, err := s.svc.Removals(ctx)
	if err != nil {
		return err
	}
	for _, r := range removals {
		n[labels{r.Key.Driver, "removing"}]++
	}
	for l, count := range n {
		g.set(claimsDesc, float64(count), l.driver, l.state)
	}
	return nil
}

func (s state) leftovers(ctx context.Context, g gauges) error {
	list, err := s.svc.Leftovers(ctx)
	if err != nil {
		return err
	}
	var bytes int64
	for _, l := range list {
		bytes += l.Bytes
	}
	g.set(leftoversDesc, float64(len(list)))
	g.set(leftoverBytesDesc, float64(bytes))
	return nil
}

// member reads a string of an event's JSON, "" if there is none.
func member(data any, name string) string {
	b, err := json.Marshal(data)
	if err != nil {
		return ""
	}
	var m map[string]any
	if json.Unmarshal(b, &m) != nil {
		return ""
	}
	v, _ := m[name].(string)
	return v
}
