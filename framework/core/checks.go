package core

import (
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

// Checker runs the checks that the framework performs over the network.
type Checker interface {
	// Sync makes targets the checks that run.
	Sync(targets []CheckTarget)
	// Results delivers the outcome of every check.
	Results() <-chan CheckOutcome
	// Close ends all checks and waits for them.
	Close()
}

// CheckKey names a check of a task: the index of a health check of its app, or
// its readiness check.
type CheckKey struct {
	TaskID    string
	Index     int
	Readiness bool
}

// CheckTarget is one check that is to run.
type CheckTarget struct {
	Key     CheckKey
	URL     string // for HTTP and HTTPS
	Address string // host:port for TCP
	// Start is when the first check is due.
	Start             time.Time
	Interval, Timeout time.Duration
	// Statuses are the HTTP statuses that count as success; empty means 200 to
	// 399.
	Statuses []int
	KeepBody bool
}

// Good tells whether an HTTP status counts as success.
func (t CheckTarget) Good(status int) bool {
	if len(t.Statuses) == 0 {
		return status >= 200 && status < 400
	}
	return slices.Contains(t.Statuses, status)
}

// Same tells whether two targets are one check.
func (t CheckTarget) Same(u CheckTarget) bool {
	return t.Key == u.Key && t.URL == u.URL && t.Address == u.Address && t.Start.Equal(u.Start) &&
		t.Interval == u.Interval && t.Timeout == u.Timeout && t.KeepBody == u.KeepBody &&
		slices.Equal(t.Statuses, u.Statuses)
}

// CheckOutcome is the result of one check. Cause is empty when OK.
type CheckOutcome struct {
	Key               CheckKey
	OK                bool
	Cause             string
	Status            int
	ContentType, Body string
}

// syncChecks tells the checker what to check, if that may have changed.
func (c *Core) syncChecks() {
	if c.cfg.Checker == nil || !c.checksStale {
		return
	}
	c.checksStale = false
	var targets []CheckTarget
	for _, i := range c.state.allInstances() {
		def := c.state.definition(i)
		if def == nil || !i.running() || i.Forgotten {
			continue
		}
		targets = append(targets, healthTargets(i, def)...)
		if c.state.locks[i.App] != nil && !i.Task.Ready {
			targets = append(targets, readinessTargets(i, def)...)
		}
	}
	c.cfg.Checker.Sync(targets)
}

// healthTargets are the health checks of a running task that the framework
// performs.
func healthTargets(i *instance, def *app.App) []CheckTarget {
	var out []CheckTarget
	for n, h := range def.Health {
		if h.ByExecutor() {
			continue
		}
		address, ok := checkAddress(i, def, h.Port, h.PortIndex)
		if !ok {
			continue
		}
		t := CheckTarget{
			Key:      CheckKey{TaskID: i.Task.ID, Index: n},
			Start:    i.Task.StartedAt.Add(time.Duration(h.DelaySeconds) * time.Second),
			Interval: time.Duration(max(1, h.IntervalSeconds)) * time.Second,
			Timeout:  time.Duration(max(1, h.TimeoutSeconds)) * time.Second,
		}
		if h.Protocol == app.TCP {
			t.Address = address
		} else {
			t.URL = checkURL(h.Protocol, address, h.Path)
		}
		out = append(out, t)
	}
	return out
}

func checkURL(protocol, address, path string) string {
	return strings.ToLower(protocol) + "://" + address + "/" + strings.TrimPrefix(path, "/")
}

func readinessTargets(i *instance, def *app.App) []CheckTarget {
	var out []CheckTarget
	for n, r := range def.Readiness {
		index := slices.Index(portNames(def), r.PortName)
		address, ok := checkAddress(i, def, nil, &index)
		if index < 0 || !ok {
			continue
		}
		out = append(out, CheckTarget{
			Key:      CheckKey{TaskID: i.Task.ID, Index: n, Readiness: true},
			URL:      checkURL(r.Protocol, address, r.Path),
			Start:    i.Task.StartedAt,
			Interval: time.Duration(max(1, r.IntervalSeconds)) * time.Second,
			Timeout:  time.Duration(max(1, r.TimeoutSeconds)) * time.Second,
			Statuses: r.HTTPStatusCodesForReady, KeepBody: r.PreserveLastResponse,
		})
	}
	return out
}

func portNames(a *app.App) []string {
	var out []string
	if a.HostNetworked() {
		for _, p := range a.Ports {
			out = append(out, p.Name)
		}
		return out
	}
	if a.Container != nil {
		for _, m := range a.Container.PortMappings {
			out = append(out, m.Name)
		}
	}
	return out
}

// checkAddress is where a task's port can be reached: on its host if the port is
// there, else at the container's address (contract 5.4).
func checkAddress(i *instance, a *app.App, port, index *int) (string, bool) {
	t := i.Task
	if port != nil {
		return net.JoinHostPort(taskHost(t, a), strconv.Itoa(*port)), true
	}
	n := 0
	if index != nil {
		n = *index
	}
	if n < 0 {
		return "", false
	}
	if a.HostNetworked() {
		return hostAddress(t, n)
	}
	if a.Container == nil || n >= len(a.Container.PortMappings) {
		return "", false
	}
	exposed := 0
	for _, m := range a.Container.PortMappings[:n] {
		if m.HostPort != nil {
			exposed++
		}
	}
	m := a.Container.PortMappings[n]
	if m.HostPort != nil {
		return hostAddress(t, exposed)
	}
	if len(t.IPs) == 0 {
		return "", false
	}
	return net.JoinHostPort(t.IPs[0], strconv.Itoa(m.ContainerPort)), true
}

func hostAddress(t *task, n int) (string, bool) {
	if n >= len(t.Ports) {
		return "", false
	}
	return net.JoinHostPort(t.Hostname, strconv.Itoa(int(t.Ports[n]))), true
}

// taskHost is where a port that is given by its number is meant to be.
func taskHost(t *task, a *app.App) string {
	if !a.HostNetworked() && len(t.IPs) > 0 {
		return t.IPs[0]
	}
	return t.Hostname
}

// handleCheck takes the outcome of a check.
func (c *Core) handleCheck(tx *txn, o CheckOutcome) {
	id, _ := instanceOfTask(o.Key.TaskID)
	i := c.state.instances[id]
	if i == nil || i.Task == nil || i.Task.ID != o.Key.TaskID || !i.running() {
		return
	}
	def := c.state.definition(i)
	if o.Key.Readiness {
		c.handleReadiness(tx, i, o)
		return
	}
	if def == nil || o.Key.Index >= len(def.Health) {
		return
	}
	c.healthResult(tx, i, def, o.Key.Index, o.OK, o.Cause)
}

func (c *Core) handleReadiness(tx *txn, i *instance, o CheckOutcome) {
	c.readiness[i.Task.ID] = o
	if !o.OK || i.Task.Ready {
		return
	}
	i.Task.Ready = true
	tx.saveInstance(i)
	c.touch(i.App)
	c.log.Info("task is ready", zap.String("task", i.Task.ID))
}

// healthResult applies one result of a health check, whoever ran it. Only a
// change of the verdict is worth a commit; the counters are lost in a crash and
// start again.
func (c *Core) healthResult(tx *txn, i *instance, def *app.App, index int, alive bool, cause string) {
	h := def.Health[index]
	t := i.Task
	before := t.Health[index]
	grace := time.Duration(h.GracePeriodSeconds) * time.Second
	if !alive && (before == nil || before.FirstSuccess.IsZero()) && tx.now.Before(t.StartedAt.Add(grace)) {
		return // it may still be starting
	}
	after := healthAfter(before, alive, cause, tx.now)
	was := i.healthVerdict(def)
	health := maps.Clone(t.Health)
	if health == nil {
		health = map[int]*HealthView{}
	}
	health[index] = after
	t.Health = health
	tx.changed(i.App)
	if before == nil || before.Alive != alive {
		tx.saveInstance(i)
		c.touch(i.App)
	}
	if verdict := i.healthVerdict(def); verdict != was {
		c.publishHealth(tx, i, verdict == allAlive)
	}
	if alive {
		return
	}
	tx.publish(failedHealthCheck(tx.now, i, h))
	if !h.ByExecutor() && h.MaxConsecutiveFailures > 0 && after.ConsecutiveFailures >= h.MaxConsecutiveFailures && t.KillWhy == "" {
		tx.publish(unhealthyKill(tx.now, i, cause))
		c.recordFailure(tx, i, Status{TaskID: t.ID, State: taskKilled, Message: "Task was killed since health check failed. Reason: " + cause})
		c.kill(tx, i, "it failed its health check: "+cause)
	}
}

// verdict is what the health checks of a task say together.
type verdict uint8

const (
	noVerdict verdict = iota // some check has had no result yet
	allAlive
	someDead
)

func (i *instance) healthVerdict(def *app.App) verdict {
	if i.Task == nil {
		return noVerdict
	}
	alive := 0
	for n := range def.Health {
		h := i.Task.Health[n]
		switch {
		case h == nil:
		case h.Alive:
			alive++
		default:
			return someDead
		}
	}
	if alive < len(def.Health) || alive == 0 {
		return noVerdict
	}
	return allAlive
}

// executorCheck is the index of the health check that the executor runs, -1 if
// there is none; there is at most one.
func executorCheck(def *app.App) int {
	return slices.IndexFunc(def.Health, app.HealthCheck.ByExecutor)
}
