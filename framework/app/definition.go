package app

import (
	"math"
	"regexp"
)

var (
	namePattern     = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
	executorPattern = regexp.MustCompile(`^(//cmd)|(/?[^/]+(/[^/]+)*)|$`)
	executorFull    = regexp.MustCompile(`^(?:(//cmd)|(/?[^/]+(/[^/]+)*)|)$`)
)

// Bounds that Marathon does not have: beyond them sums of resources in
// thousandths, and times in nanoseconds, would not fit in 64 bits.
const (
	maxPort   = 65535
	maxAmount = 1e12     // cpus, MiB
	maxDelay  = 31536000 // seconds, a year
	maxFactor = 100
	// maxInstances keeps one mistyped number from filling the memory.
	maxInstances = 100000
)

// definition is an App as read from JSON, before anything is filled in that
// depends on more than one field.
type definition struct {
	*App
	id           string
	dependencies []string
	given        object // tells what was given
}

// readDefinition reads every canonical field and fills in the defaults that
// depend on nothing else (contract 2). Deprecated fields have been translated
// before, except residency.
func readDefinition(o object) definition {
	a := &App{
		Cmd:          o.strLen("cmd", 1, 0),
		Args:         o.strings("args"),
		User:         o.str("user"),
		Env:          readEnv(o),
		Instances:    o.int32("instances", 1, 0),
		CPUs:         o.num("cpus", 1, 0, maxAmount),
		Mem:          o.num("mem", 128, 0, maxAmount),
		Disk:         o.num("disk", 0, 0, maxAmount),
		GPUs:         o.int32("gpus", 0, 0),
		Limits:       readLimits(o),
		Executor:     o.str("executor"),
		ExecutorRes:  readExecutorResources(o),
		Constraints:  o.matrix("constraints"),
		Fetch:        objects(o, "fetch", readFetch),
		Container:    readContainer(o),
		Networks:     objects(o, "networks", readNetwork),
		Ports:        objects(o, "portDefinitions", readPortDefinition),
		RequirePorts: o.boolean("requirePorts", false),
		Health:       objects(o, "healthChecks", readHealthCheck),
		Check:        readCheck(o),
		Readiness:    objects(o, "readinessChecks", readReadiness),

		BackoffSeconds:        o.num("backoffSeconds", 1, 0, maxDelay),
		BackoffFactor:         o.num("backoffFactor", 1.15, 1, maxFactor),
		MaxLaunchDelaySeconds: o.num("maxLaunchDelaySeconds", 300, 0, maxDelay),

		Upgrade:       readUpgrade(o),
		Labels:        o.stringMap("labels"),
		AcceptedRoles: unique(o.strings("acceptedResourceRoles")),
		Role:          o.strLen("role", 1, 0),
		Residency:     readResidency(o),
		Secrets:       readSecrets(o),
		KillGrace:     o.optInt("taskKillGracePeriodSeconds", 0, math.MaxInt32),
		KillSelection: o.enum("killSelection", YoungestFirst, YoungestFirst, OldestFirst),
		Unreachable:   readUnreachable(o),
		TTY:           o.optBool("tty"),
	}
	return definition{App: a, id: o.pattern("id", idPattern), dependencies: o.paths("dependencies"), given: o}
}

// paths reads ids that may be relative.
func (o object) paths(key string) []string {
	ids := unique(o.strings(key))
	for i, id := range ids {
		if !idPattern.MatchString(id) {
			o.s.add(indexed(o.at(key), i), errPattern)
		}
	}
	return ids
}

// unique drops repetitions, since such arrays are sets (contract 0.2).
func unique(in []string) []string {
	if in == nil {
		return nil
	}
	seen := make(map[string]bool, len(in))
	out := make([]string, 0, len(in))
	for _, s := range in {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

func readEnv(o object) map[string]EnvVar {
	m, ok := o.object("env")
	if !ok {
		return nil
	}
	env := make(map[string]EnvVar, len(m.fields))
	for _, k := range m.keys() {
		if k == "" {
			o.s.add(m.at(k), errMinLength)
		}
		if ref, ok := m.fields[k].(map[string]any); ok {
			r := object{s: o.s, path: m.at(k), fields: ref}
			if r.require("secret") {
				env[k] = EnvVar{Secret: r.strLen("secret", 1, 0)}
			}
			continue
		}
		env[k] = EnvVar{Value: m.str(k)}
	}
	return env
}

func readSecrets(o object) map[string]Secret {
	m, ok := o.object("secrets")
	if !ok {
		return nil
	}
	secrets := make(map[string]Secret, len(m.fields))
	for _, k := range m.keys() {
		if s, ok := m.object(k); ok && s.require("source") {
			secrets[k] = Secret{Source: s.strLen("source", 1, 0)}
		}
	}
	return secrets
}

func readLimits(o object) *Limits {
	m, ok := o.object("resourceLimits")
	if !ok {
		return nil
	}
	return &Limits{CPUs: readLimit(m, "cpus"), Mem: readLimit(m, "mem")}
}

// readLimit leaves words other than "unlimited" to the stage of validation, as
// Marathon does.
func readLimit(o object, key string) *float64 {
	switch v := o.fields[key].(type) {
	case nil:
		return nil
	case string:
		if v != unlimited {
			o.s.semantic.addf(o.at(key), "'%s' is an invalid resource limit. It must be 'unlimited' or a number", v)
		}
		inf := math.Inf(1)
		return &inf
	default:
		f := o.num(key, 0, 0, maxAmount)
		return &f
	}
}

func readExecutorResources(o object) *ExecutorRes {
	m, ok := o.object("executorResources")
	if !ok {
		return nil
	}
	return &ExecutorRes{CPUs: m.num("cpus", 0.1, 0.1, maxAmount), Mem: m.num("mem", 32, 32, maxAmount), Disk: m.num("disk", 10, 10, maxAmount)}
}

func readFetch(o object) Fetch {
	o.require("uri")
	return Fetch{
		URI:        o.strLen("uri", 1, 1024),
		Extract:    o.boolean("extract", true),
		Executable: o.boolean("executable", false),
		Cache:      o.boolean("cache", false),
		DestPath:   o.str("destPath"),
	}
}

func readNetwork(o object) Network {
	return Network{
		Mode:   o.enum("mode", ContainerNetwork, HostNetwork, ContainerNetwork, BridgeNetwork),
		Name:   o.strLen("name", 1, 0),
		Labels: o.stringMap("labels"),
	}
}

func readPortDefinition(o object) PortDefinition {
	return PortDefinition{
		Port:     int(o.integer("port", 0, 0, maxPort)),
		Protocol: readPortProtocol(o),
		Name:     o.pattern("name", namePattern),
		Labels:   o.stringMap("labels"),
	}
}

func readPortProtocol(o object) string {
	return o.enum("protocol", "tcp", "tcp", "udp", "udp,tcp")
}

func readPortMapping(o object) PortMapping {
	return PortMapping{
		ContainerPort: int(o.integer("containerPort", 0, 0, maxPort)),
		HostPort:      o.optInt("hostPort", 0, maxPort),
		ServicePort:   int(o.integer("servicePort", 0, 0, maxPort)),
		Protocol:      readPortProtocol(o),
		Name:          o.pattern("name", namePattern),
		Labels:        o.stringMap("labels"),
		NetworkNames:  unique(o.strings("networkNames")),
	}
}

func readContainer(o object) *Container {
	c, ok := o.object("container")
	if !ok {
		return nil
	}
	out := &Container{
		Type:         c.enum("type", Docker, Mesos, Docker),
		Volumes:      objects(c, "volumes", readVolume),
		PortMappings: objects(c, "portMappings", readPortMapping),
	}
	if d, ok := c.object("docker"); ok {
		out.Docker = readDocker(d)
	}
	if l, ok := c.object("linuxInfo"); ok {
		out.Linux = readLinux(l)
	}
	if out.Volumes == nil {
		out.Volumes = []Volume{}
	}
	return out
}

func readDocker(o object) *DockerImage {
	o.require("image")
	d := &DockerImage{
		Image:          o.strLen("image", 1, 1024),
		ForcePullImage: o.boolean("forcePullImage", false),
		Privileged:     o.boolean("privileged", false),
		Parameters: objects(o, "parameters", func(p object) Parameter {
			p.require("key")
			p.require("value")
			return Parameter{Key: p.str("key"), Value: p.str("value")}
		}),
	}
	if d.Parameters == nil {
		d.Parameters = []Parameter{}
	}
	if pc, ok := o.object("pullConfig"); ok && pc.require("secret") {
		d.PullConfig = &PullConfig{Secret: pc.strLen("secret", 1, 0)}
	}
	if o.has("credential") {
		o.s.semantic.add(o.at("credential"), "must be empty; name the registry credentials by pullConfig")
	}
	return d
}

func readLinux(o object) *LinuxInfo {
	out := &LinuxInfo{}
	if s, ok := o.object("seccomp"); ok {
		out.Seccomp = &Seccomp{ProfileName: s.str("profileName"), Unconfined: s.optBool("unconfined")}
	}
	if i, ok := o.object("ipcInfo"); ok {
		i.require("mode")
		out.IPC = &IPC{
			Mode:    i.enum("mode", "PRIVATE", "PRIVATE", "SHARE_PARENT"),
			ShmSize: i.optInt("shmSize", 0, math.MaxInt32),
		}
	}
	return out
}

func readUpgrade(o object) UpgradeStrategy {
	u, ok := o.object("upgradeStrategy")
	if !ok {
		return UpgradeStrategy{}
	}
	u.require("minimumHealthCapacity")
	u.require("maximumOverCapacity")
	return UpgradeStrategy{
		MinimumHealthCapacity: u.num("minimumHealthCapacity", 0, math.Inf(-1), math.Inf(1)),
		MaximumOverCapacity:   u.num("maximumOverCapacity", 0, math.Inf(-1), math.Inf(1)),
	}
}

func readResidency(o object) *Residency {
	r, ok := o.object("residency")
	if !ok {
		return nil
	}
	return &Residency{
		RelaunchEscalationTimeoutSeconds: r.int32("relaunchEscalationTimeoutSeconds", defaultRelaunchEscalation, 0),
		TaskLostBehavior:                 r.enum("taskLostBehavior", "WAIT_FOREVER", "WAIT_FOREVER", "RELAUNCH_AFTER_TIMEOUT"),
	}
}

func readUnreachable(o object) UnreachableStrategy {
	switch v := o.fields["unreachableStrategy"].(type) {
	case nil:
	case string:
		if v != disabled {
			o.s.add(o.at("unreachableStrategy"), errEnum)
		}
		return UnreachableStrategy{Disabled: true}
	case map[string]any:
		u := object{s: o.s, path: o.at("unreachableStrategy"), fields: v}
		return UnreachableStrategy{
			InactiveAfterSeconds: u.int32("inactiveAfterSeconds", 0, 0),
			ExpungeAfterSeconds:  u.int32("expungeAfterSeconds", 0, 0),
		}
	default:
		o.s.add(o.at("unreachableStrategy"), errObject)
	}
	return UnreachableStrategy{}
}
