package executor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"golang.org/x/sys/unix"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/proc"
)

// checks are the health check and the general check of a task
// (src/checks of Apache Mesos).
type checks struct {
	cancel context.CancelFunc
	// stopped belongs to the executor's goroutine.
	stopped bool
}

// startChecks starts what the task asks for. The attributes are those of the
// task's process; commands run with the same ones.
func startChecks(e *executor, attr *syscall.ProcAttr) *checks {
	ctx, cancel := context.WithCancel(context.Background())
	c := &checks{cancel: cancel}
	if h := e.task.HealthCheck; h != nil {
		health := &health{executor: e, check: h, started: time.Now(), initializing: true}
		loop := &loop{
			delay:    seconds(h.GetDelaySeconds()),
			interval: seconds(h.GetIntervalSeconds()),
			timeout:  seconds(h.GetTimeoutSeconds()),
			probe:    healthProbe(e, h, attr),
		}
		go loop.run(ctx, func(s *mesos.CheckStatusInfo, err error) {
			e.events <- func() error { return c.unlessStopped(func() error { return health.result(s, err) }) }
		})
	}
	if k := e.task.Check; k != nil {
		general := &general{executor: e, last: noCheckStatus(k.Type)}
		loop := &loop{
			delay:    seconds(k.GetDelaySeconds()),
			interval: seconds(k.GetIntervalSeconds()),
			timeout:  seconds(k.GetTimeoutSeconds()),
			probe:    generalProbe(e, k, attr),
		}
		go loop.run(ctx, func(s *mesos.CheckStatusInfo, err error) {
			e.events <- func() error { return c.unlessStopped(func() error { return general.result(s, err) }) }
		})
	}
	return c
}

// stop ends the checks; no result has an effect afterwards.
func (c *checks) stop() {
	if c == nil {
		return
	}
	c.stopped = true
	c.cancel()
}

func (c *checks) unlessStopped(f func() error) error {
	if c.stopped {
		return nil
	}
	return f()
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// probe makes one attempt. An error means that there is no result.
type probe func(context.Context) (*mesos.CheckStatusInfo, error)

// loop repeats a probe.
type loop struct {
	delay, interval, timeout time.Duration
	probe                    probe
}

func (l *loop) run(ctx context.Context, result func(*mesos.CheckStatusInfo, error)) {
	for wait := l.delay; ; wait = l.interval {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		status, err := l.attempt(ctx)
		if ctx.Err() != nil {
			return
		}
		result(status, err)
	}
}

// attempt bounds the probe's time; a time-out of zero means no bound.
func (l *loop) attempt(ctx context.Context) (*mesos.CheckStatusInfo, error) {
	if l.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.timeout)
		defer cancel()
	}
	return l.probe(ctx)
}

// health interprets results as src/checks/health_checker.cpp does.
type health struct {
	executor     *executor
	check        *mesos.HealthCheck
	started      time.Time
	initializing bool
	failures     uint32
}

func (h *health) result(s *mesos.CheckStatusInfo, err error) error {
	if err == nil {
		err = unhealthy(s)
	}
	if err != nil {
		return h.failed()
	}
	announce := h.initializing || h.failures > 0
	h.initializing, h.failures = false, 0
	if !announce {
		return nil
	}
	return h.report(true)
}

func (h *health) failed() error {
	grace := seconds(h.check.GetGracePeriodSeconds())
	if h.initializing && grace > 0 && time.Since(h.started) <= grace {
		return nil
	}
	h.failures++
	if err := h.report(false); err != nil {
		return err
	}
	if h.failures < h.check.GetConsecutiveFailures() {
		return nil
	}
	h.executor.killedByHealthCheck = true
	return h.executor.kill(nil)
}

func (h *health) report(healthy bool) error {
	s := h.executor.again(mesos.REASON_TASK_HEALTH_CHECK_STATUS_UPDATED)
	s.Healthy = &healthy
	return h.executor.forward(s)
}

// unhealthy tells why a result is a failure.
func unhealthy(s *mesos.CheckStatusInfo) error {
	switch {
	case s.Command != nil && s.Command.GetExitCode() != 0:
		return fmt.Errorf("command exited with status %d", s.Command.GetExitCode())
	case s.HTTP != nil && (s.HTTP.GetStatusCode() < 200 || s.HTTP.GetStatusCode() >= 400):
		return fmt.Errorf("unexpected HTTP response code %d", s.HTTP.GetStatusCode())
	case s.TCP != nil && !s.TCP.GetSucceeded():
		return errors.New("TCP connection failed")
	}
	return nil
}

// general reports results that differ from the one before.
type general struct {
	executor *executor
	last     *mesos.CheckStatusInfo
}

func (g *general) result(s *mesos.CheckStatusInfo, err error) error {
	if err != nil {
		s = noCheckStatus(*g.last.Type)
	}
	if s.Equal(g.last) {
		return nil
	}
	g.last = s
	status := g.executor.again(mesos.REASON_TASK_CHECK_STATUS_UPDATED)
	status.CheckStatus = s
	return g.executor.forward(status)
}

// noCheckStatus says that there is no result.
func noCheckStatus(t mesos.CheckInfo_Type) *mesos.CheckStatusInfo {
	s := &mesos.CheckStatusInfo{Type: &t}
	switch t {
	case mesos.CheckInfo_COMMAND:
		s.Command = &mesos.CheckStatusInfo_Command{}
	case mesos.CheckInfo_HTTP:
		s.HTTP = &mesos.CheckStatusInfo_Http{}
	case mesos.CheckInfo_TCP:
		s.TCP = &mesos.CheckStatusInfo_Tcp{}
	}
	return s
}

func healthProbe(e *executor, h *mesos.HealthCheck, attr *syscall.ProcAttr) probe {
	switch h.Type {
	case mesos.HealthCheck_COMMAND:
		return commandProbe(e, h.Command, attr)
	case mesos.HealthCheck_HTTP:
		scheme := h.HTTP.GetScheme()
		if scheme == "" {
			scheme = "http"
		}
		return httpProbe(scheme, loopback(h.HTTP.GetProtocol()), h.HTTP.GetPort(), h.HTTP.GetPath())
	case mesos.HealthCheck_TCP:
		return tcpProbe(loopback(h.TCP.GetProtocol()), h.TCP.GetPort())
	}
	return unknownProbe
}

func generalProbe(e *executor, c *mesos.CheckInfo, attr *syscall.ProcAttr) probe {
	switch c.Type {
	case mesos.CheckInfo_COMMAND:
		return commandProbe(e, &c.GetCommand().Command, attr)
	case mesos.CheckInfo_HTTP:
		return httpProbe("http", "127.0.0.1", c.HTTP.GetPort(), c.HTTP.GetPath())
	case mesos.CheckInfo_TCP:
		return tcpProbe("127.0.0.1", c.TCP.GetPort())
	}
	return unknownProbe
}

func unknownProbe(context.Context) (*mesos.CheckStatusInfo, error) {
	return nil, errors.New("the check's type is not known")
}

func loopback(p mesos.NetworkInfo_Protocol) string {
	if p == mesos.IPv6 {
		return "::1"
	}
	return "127.0.0.1"
}

func commandProbe(e *executor, command *mesos.CommandInfo, attr *syscall.ProcAttr) probe {
	own := *attr
	own.Env = lastWins(append(append([]string(nil), attr.Env...), commandEnv(command)...))
	own.Files = []uintptr{0, 2, 2} // what a check prints does not belong to the task's output
	return func(ctx context.Context) (*mesos.CheckStatusInfo, error) {
		pid, ended, err := e.children.start(arguments(command), &own)
		if err != nil {
			return nil, err
		}
		select {
		case ws := <-ended:
			if !ws.Exited() {
				return nil, fmt.Errorf("command %s", describe(ws))
			}
			s := noCheckStatus(mesos.CheckInfo_COMMAND)
			code := int32(ws.ExitStatus())
			s.Command.ExitCode = &code
			return s, nil
		case <-ctx.Done():
			tree, err := proc.Tree(pid)
			proc.Signal(tree, unix.SIGKILL)
			<-ended
			return nil, errors.Join(fmt.Errorf("command timed out: %w", ctx.Err()), err)
		}
	}
}

// commandEnv is the environment that a command asks for. Secrets are resolved as
// Mesos' default resolver does, which knows their values only where they are
// given (src/secret/resolver.cpp).
func commandEnv(c *mesos.CommandInfo) []string {
	var env []string
	for _, v := range c.GetEnvironment().GetVariables() {
		switch {
		case v.GetType() != mesos.Environment_Variable_SECRET:
			env = append(env, v.Name+"="+v.GetValue())
		case v.GetSecret().GetType() == mesos.Secret_VALUE:
			env = append(env, v.Name+"="+string(v.GetSecret().GetValue().GetData()))
		}
	}
	return env
}

// httpProbe does not verify certificates and follows redirections, like the
// curl -k -L of Mesos.
func httpProbe(scheme, host string, port uint32, path string) probe {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
	}}
	target := scheme + "://" + net.JoinHostPort(host, strconv.FormatUint(uint64(port), 10)) + path
	return func(ctx context.Context) (*mesos.CheckStatusInfo, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
		if err != nil {
			return nil, err
		}
		response, err := client.Do(request)
		if err != nil {
			return nil, err
		}
		_ = response.Body.Close()
		s := noCheckStatus(mesos.CheckInfo_HTTP)
		code := uint32(response.StatusCode)
		s.HTTP.StatusCode = &code
		return s, nil
	}
}

func tcpProbe(host string, port uint32) probe {
	target := net.JoinHostPort(host, strconv.FormatUint(uint64(port), 10))
	return func(ctx context.Context) (*mesos.CheckStatusInfo, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", target)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		succeeded := err == nil
		if succeeded {
			_ = conn.Close()
		}
		s := noCheckStatus(mesos.CheckInfo_TCP)
		s.TCP.Succeeded = &succeeded
		return s, nil
	}
}
