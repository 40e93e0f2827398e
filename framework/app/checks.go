package app

// Health check protocols.
const (
	HTTP       = "HTTP"
	HTTPS      = "HTTPS"
	TCP        = "TCP"
	COMMAND    = "COMMAND"
	MesosHTTP  = "MESOS_HTTP"
	MesosHTTPS = "MESOS_HTTPS"
	MesosTCP   = "MESOS_TCP"
)

// ByExecutor says whether the task's executor runs the check; otherwise the
// framework does.
func (h HealthCheck) ByExecutor() bool {
	switch h.Protocol {
	case COMMAND, MesosHTTP, MesosHTTPS, MesosTCP:
		return true
	}
	return false
}

func readHealthCheck(o object) HealthCheck {
	h := HealthCheck{
		Protocol:               o.enum("protocol", HTTP, HTTP, HTTPS, TCP, COMMAND, MesosHTTP, MesosHTTPS, MesosTCP),
		Path:                   o.str("path"),
		PortIndex:              o.optInt("portIndex", 0, maxPort),
		Port:                   o.optInt("port", 0, maxPort),
		GracePeriodSeconds:     o.int32("gracePeriodSeconds", 300, 0),
		IntervalSeconds:        o.int32("intervalSeconds", 60, 0),
		TimeoutSeconds:         o.int32("timeoutSeconds", 20, 0),
		MaxConsecutiveFailures: o.int32("maxConsecutiveFailures", 3, 0),
		DelaySeconds:           o.int32("delaySeconds", 15, 0),
		IgnoreHTTP1xx:          o.boolean("ignoreHttp1xx", false),
		IPProtocol:             o.enum("ipProtocol", "IPv4", "IPv4", "IPv6"),
	}
	if c, ok := o.object("command"); ok && c.require("value") {
		h.Command = &Command{Value: c.strLen("value", 1, 0)}
	}
	return h
}

func readCheck(o object) *Check {
	m, ok := o.object("check")
	if !ok {
		return nil
	}
	c := &Check{
		IntervalSeconds: m.int32("intervalSeconds", 60, 0),
		TimeoutSeconds:  m.int32("timeoutSeconds", 20, 0),
		DelaySeconds:    m.int32("delaySeconds", 15, 0),
	}
	if h, ok := m.object("http"); ok {
		c.HTTP = &CheckHTTP{
			PortIndex: h.optInt("portIndex", 0, maxPort),
			Port:      h.optInt("port", 0, maxPort),
			Path:      h.str("path"),
			Scheme:    h.enum("scheme", "HTTP", "HTTP", "HTTPS"),
		}
	}
	if t, ok := m.object("tcp"); ok {
		c.TCP = &CheckTCP{PortIndex: t.optInt("portIndex", 0, maxPort), Port: t.optInt("port", 0, maxPort)}
	}
	if e, ok := m.object("exec"); ok && e.require("command") {
		c.Exec = readCheckExec(e)
	}
	return c
}

func readCheckExec(o object) *CheckExec {
	cmd, ok := o.object("command")
	if !ok {
		return nil
	}
	out := &CheckExec{}
	switch {
	case cmd.has("argv"):
		out.Argv = cmd.strings("argv")
		if len(out.Argv) == 0 {
			o.s.add(cmd.at("argv"), errMinLength)
		}
	case cmd.has("value"): // the form of health checks, tolerated here
		out.Command.Value = cmd.strLen("value", 1, 0)
	case cmd.require("shell"):
		out.Command.Value = cmd.strLen("shell", 1, 0)
	}
	return out
}

func readReadiness(o object) ReadinessCheck {
	r := ReadinessCheck{
		Name:                 "readinessCheck",
		Protocol:             o.enum("protocol", HTTP, HTTP, HTTPS),
		Path:                 "/",
		PortName:             "http-api",
		IntervalSeconds:      o.int32("intervalSeconds", 30, 1),
		TimeoutSeconds:       o.int32("timeoutSeconds", 10, 1),
		PreserveLastResponse: o.boolean("preserveLastResponse", false),
	}
	if o.has("name") {
		r.Name = o.strLen("name", 1, 0)
	}
	if o.has("path") {
		r.Path = o.str("path")
	}
	if o.has("portName") {
		r.PortName = o.pattern("portName", namePattern)
	}
	seen := map[int]bool{}
	for i, v := range o.list("httpStatusCodesForReady") {
		code := int(o.s.integerAt(indexed(o.at("httpStatusCodesForReady"), i), v, 100, 999))
		if !seen[code] {
			seen[code] = true
			r.HTTPStatusCodesForReady = append(r.HTTPStatusCodesForReady, code)
		}
	}
	if len(r.HTTPStatusCodesForReady) == 0 {
		r.HTTPStatusCodesForReady = []int{200}
	}
	return r
}

func validateHealth(p *problems, a *App) {
	executorRun := 0
	ports := len(a.Ports)
	if a.Container != nil && !a.HostNetworked() {
		ports = len(a.Container.PortMappings)
	}
	for i, h := range a.Health {
		path := indexed("/healthChecks", i)
		if h.ByExecutor() {
			executorRun++
		}
		if (h.Protocol == COMMAND) != (h.Command != nil) {
			if h.Command == nil {
				p.add(path+"/command", "not defined")
			} else {
				p.addf(path+"/command", "must be empty for protocol %s", h.Protocol)
			}
		}
		if h.PortIndex != nil && *h.PortIndex >= ports {
			p.add(path, "Health check port indices must address an element of the ports array or container port mappings.")
		}
		docker := a.Container != nil && a.Container.Type == Docker
		if h.IPProtocol == "IPv6" && (!docker || !h.ByExecutor() || h.Protocol == COMMAND) {
			p.add(path, "IPv6 can only be used for container type DOCKER and Mesos http/https/tcp health checks")
		}
	}
	if executorRun > 1 {
		p.add("/", "AppDefinition can contain at most one Mesos health check")
	}
}

func validateCheck(p *problems, a *App) {
	c := a.Check
	if c == nil {
		return
	}
	kinds := 0
	for _, set := range []bool{c.HTTP != nil, c.TCP != nil, c.Exec != nil} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		p.add("/check", "Must specify a single type of check, http, tcp, or exec")
	}
	if a.Container != nil && a.Container.Type == Docker {
		p.add("/check", "is not supported with the DOCKER container type; use a health check")
	}
}

func validateReadiness(p *problems, a *App) {
	if n := len(a.Readiness); n > 1 {
		p.addf("/readinessChecks/size", "got %d, expected 1 or less", n)
	}
	names := map[string]bool{}
	for _, name := range a.portNames() {
		names[name] = true
	}
	for i, r := range a.Readiness {
		path := indexed("/readinessChecks", i)
		if !names[r.PortName] {
			p.addf(path+"/portName", "No port definition reference for portName %s", r.PortName)
		}
		if r.TimeoutSeconds >= r.IntervalSeconds {
			p.addf(path+"/timeoutSeconds", "got %d, expected less than %d", r.TimeoutSeconds, r.IntervalSeconds)
		}
	}
}

// fillHealthPort gives a check its default port: index 0, unless a port is
// named, the check needs none, or the app has none.
func fillHealthDefaults(a *App) {
	ports := len(a.Ports)
	if !a.HostNetworked() && a.Container != nil {
		ports = len(a.Container.PortMappings)
	}
	for i := range a.Health {
		h := &a.Health[i]
		if h.Protocol == COMMAND {
			continue
		}
		if h.Path == "" && h.Protocol != TCP && h.Protocol != MesosTCP {
			h.Path = "/"
		}
		if h.Port == nil && h.PortIndex == nil && ports > 0 {
			h.PortIndex = new(int)
		}
	}
}
