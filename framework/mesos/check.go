package mesos

import (
	"math"
	"strings"

	mesosgo "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

// healthCheck is the check that the executor carries out, nil for none. Those
// of protocol HTTP, HTTPS and TCP are the framework's own work. Mesos knows one
// check per task; validation allows no more.
func (b *taskBuilder) healthCheck() (*mesosgo.HealthCheck, error) {
	for i := range b.app.Health {
		h := &b.app.Health[i]
		info := &mesosgo.HealthCheck{
			DelaySeconds:        pointer(float64(h.DelaySeconds)),
			IntervalSeconds:     pointer(float64(h.IntervalSeconds)),
			TimeoutSeconds:      pointer(float64(h.TimeoutSeconds)),
			GracePeriodSeconds:  pointer(float64(h.GracePeriodSeconds)),
			ConsecutiveFailures: pointer(consecutiveFailures(h.MaxConsecutiveFailures)),
		}
		switch h.Protocol {
		case "COMMAND":
			return info, b.commandCheck(info, h)
		case "MESOS_HTTP", "MESOS_HTTPS":
			return info, b.httpCheck(info, h)
		case "MESOS_TCP":
			return info, b.tcpCheck(info, h)
		}
	}
	return nil, nil
}

// consecutiveFailures translates "0 means never kill": Mesos would kill at the
// first failure (src/checks/health_checker.cpp).
func consecutiveFailures(n int) uint32 {
	if n <= 0 {
		return math.MaxUint32
	}
	return uint32(n)
}

func (b *taskBuilder) commandCheck(info *mesosgo.HealthCheck, h *app.HealthCheck) error {
	if h.Command == nil {
		return b.invalid("a health check of protocol COMMAND has no command")
	}
	info.Type = mesosgo.HealthCheck_COMMAND
	info.Command = shellCommand(h.Command.Value)
	return nil
}

func (b *taskBuilder) httpCheck(info *mesosgo.HealthCheck, h *app.HealthCheck) error {
	number, err := b.checkPort(h.Port, h.PortIndex)
	if err != nil {
		return err
	}
	scheme := "http"
	if h.Protocol == "MESOS_HTTPS" {
		scheme = "https"
	}
	info.Type = mesosgo.HealthCheck_HTTP
	info.HTTP = &mesosgo.HealthCheck_HTTPCheckInfo{
		Protocol: ipProtocol(h.IPProtocol),
		Scheme:   pointer(scheme),
		Port:     number,
		Path:     absolutePath(h.Path),
	}
	return nil
}

// absolutePath begins with a slash, as the master demands of the paths of checks
// (src/common/validation.cpp).
func absolutePath(path string) *string {
	if path == "" {
		return nil
	}
	return pointer("/" + strings.TrimPrefix(path, "/"))
}

func (b *taskBuilder) tcpCheck(info *mesosgo.HealthCheck, h *app.HealthCheck) error {
	number, err := b.checkPort(h.Port, h.PortIndex)
	if err != nil {
		return err
	}
	info.Type = mesosgo.HealthCheck_TCP
	info.TCP = &mesosgo.HealthCheck_TCPCheckInfo{Protocol: ipProtocol(h.IPProtocol), Port: number}
	return nil
}

func ipProtocol(s string) *mesosgo.NetworkInfo_Protocol {
	if s == "IPv6" {
		return mesosgo.IPv6.Enum()
	}
	return mesosgo.IPv4.Enum()
}

func shellCommand(line string) *mesosgo.CommandInfo {
	return &mesosgo.CommandInfo{Shell: pointer(true), Value: pointer(line)}
}

// checkPort is the port to probe: a fixed one, or that of the app's port with
// an index, the first where none is named.
func (b *taskBuilder) checkPort(fixed, index *int) (uint32, error) {
	if fixed != nil {
		return uint32(*fixed), nil
	}
	i := 0
	if index != nil {
		i = *index
	}
	if i < 0 || i >= len(b.ports) {
		return 0, b.invalid("a check names port index %d, the app has %d ports", i, len(b.ports))
	}
	return b.ports[i].probed(), nil
}

// check is Mesos' general check, nil for none. It knows no scheme: an HTTP
// check is always by http.
func (b *taskBuilder) check() (*mesosgo.CheckInfo, error) {
	c := b.app.Check
	if c == nil {
		return nil, nil
	}
	info := &mesosgo.CheckInfo{
		DelaySeconds:    pointer(float64(c.DelaySeconds)),
		IntervalSeconds: pointer(float64(c.IntervalSeconds)),
		TimeoutSeconds:  pointer(float64(c.TimeoutSeconds)),
	}
	var err error
	switch {
	case c.HTTP != nil:
		info.Type = mesosgo.CheckInfo_HTTP
		info.HTTP = &mesosgo.CheckInfo_Http{Path: absolutePath(c.HTTP.Path)}
		info.HTTP.Port, err = b.checkPort(c.HTTP.Port, c.HTTP.PortIndex)
	case c.TCP != nil:
		info.Type = mesosgo.CheckInfo_TCP
		info.TCP = &mesosgo.CheckInfo_Tcp{}
		info.TCP.Port, err = b.checkPort(c.TCP.Port, c.TCP.PortIndex)
	case c.Exec != nil:
		info.Type = mesosgo.CheckInfo_COMMAND
		info.Command = &mesosgo.CheckInfo_Command{Command: *execCommand(c.Exec)}
	default:
		return nil, b.invalid("check has none of http, tcp, exec")
	}
	return info, err
}

func execCommand(e *app.CheckExec) *mesosgo.CommandInfo {
	if len(e.Argv) > 0 {
		return &mesosgo.CommandInfo{Shell: pointer(false), Value: pointer(e.Argv[0]), Arguments: e.Argv}
	}
	return shellCommand(e.Command.Value)
}
