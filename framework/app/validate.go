package app

import (
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// singleInstanceLabel marks an app that must never have two instances.
const singleInstanceLabel = "MARATHON_SINGLE_INSTANCE_APP"

// validate adds to p every breach of a rule that concerns the app alone. stored
// is the definition that this one replaces, nil if none.
func validate(p *problems, d definition, opts Options, stored *App) {
	a := d.App
	validateAppID(p, a.ID)
	validateCommand(p, a)
	validateResources(p, a, opts)
	validateConstraints(p, a)
	validateFetch(p, a)
	validateContainer(p, a)
	validateNetworks(p, a)
	validatePorts(p, a)
	validateVolumes(p, a, opts)
	validateHealth(p, a)
	validateCheck(p, a)
	validateReadiness(p, a)
	validateInstances(p, a)
	validateCSIInstances(p, a)
	validateStrategies(p, a)
	validateRoles(p, d, opts, stored)
	validateSecrets(p, a, opts)
	validateSecretValues(p, a, opts, stored)
	validateResidentChange(p, a, stored)
}

func validateCommand(p *problems, a *App) {
	cmd, args := a.Cmd != "", len(a.Args) > 0
	image := a.Container != nil && a.Container.Docker != nil
	if cmd && args || !cmd && !args && !image {
		p.add("/", "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'.")
	}
	if !executorFull.MatchString(a.Executor) {
		p.add("/executor", mustMatch(executorPattern))
	}
}

func validateResources(p *problems, a *App, opts Options) {
	if a.GPUs > 0 {
		if !opts.GPUs {
			p.add("/", "Feature gpu_resources is not enabled. Enable with --enable_features gpu_resources)")
		}
		if a.Container != nil && a.Container.Type == Docker {
			p.add("/", "GPU resources only work with the Mesos containerizer")
		}
	}
	if l := a.Limits; l != nil {
		validateLimit(p, "/resourceLimits/cpus", l.CPUs, a.CPUs)
		validateLimit(p, "/resourceLimits/mem", l.Mem, a.Mem)
	}
}

func validateLimit(p *problems, path string, limit *float64, request float64) {
	if limit != nil && *limit < request {
		p.addf(path, "resource limit must be greater than or equal to requested resource (%s)", double(request))
	}
}

var isValuePattern = regexp.MustCompile(`^[a-zA-Z0-9_/.-]*$`)

func validateConstraints(p *problems, a *App) {
	for i, c := range a.Constraints {
		if problem := constraintProblem(c); problem != "" {
			p.add(indexed("/constraints", i), problem)
		} else if a.sharesDisk() && apart(c, a.Instances) {
			p.add(indexed("/constraints", i), "contradicts the shared persistent volume, which all instances use on one agent")
		}
	}
}

// constraintProblem says what is wrong with a placement constraint (contract
// 4), "" if nothing.
func constraintProblem(c []string) string {
	if len(c) < 2 || len(c) > 3 {
		return "Each constraint must have either 2 or 3 fields"
	}
	if c[0] == "" {
		return "illegal constraint specification"
	}
	value := ""
	if len(c) == 3 {
		value = c[2]
	}
	switch c[1] {
	case "UNIQUE":
		if value != "" {
			return "UNIQUE does not accept a value"
		}
	case "CLUSTER":
	case "GROUP_BY":
		if !integerOrEmpty(value) {
			return "GROUP BY must define an integer value or else no value at all"
		}
	case "MAX_PER":
		if value == "" || !integerOrEmpty(value) {
			return "MAX_PER requires an integer value"
		}
	case "LIKE", "UNLIKE":
		if value == "" {
			return "LIKE and UNLIKE require a non-empty, regular expression value"
		}
		if _, err := regexp.Compile(value); err != nil {
			return "is not a valid regular expression"
		}
	case "IS":
		if len(c) < 3 || !isValuePattern.MatchString(value) {
			return "IS only supports Mesos text and float values (see http://mesos.apache.org/documentation/latest/attributes-resources/)"
		}
	default:
		return "operator must be one of the following UNIQUE, CLUSTER, GROUP_BY, LIKE, MAX_PER, UNLIKE or IS"
	}
	return ""
}

// apart tells whether a constraint, which breaks no rule itself, keeps so many
// instances off a single agent. An agent has one value of each field.
func apart(c []string, instances int) bool {
	switch c[1] {
	case "UNIQUE":
		return instances > 1
	case "GROUP_BY":
		return instances > 1 && (len(c) < 3 || c[2] != "1")
	case "MAX_PER":
		n, err := strconv.Atoi(c[2])
		return err == nil && instances > n
	}
	return false
}

func integerOrEmpty(s string) bool {
	if s == "" {
		return true
	}
	n, err := strconv.Atoi(s)
	return err == nil && n >= 0
}

func validateFetch(p *problems, a *App) {
	for i, f := range a.Fetch {
		if _, err := url.Parse(f.URI); err != nil || strings.ContainsAny(f.URI, " \t\"<>\\^`{|}") {
			p.add(indexed("/fetch", i)+"/uri", "URI has invalid syntax.")
		}
	}
}

func validateContainer(p *problems, a *App) {
	c := a.Container
	if c == nil {
		return
	}
	if c.Type == Docker {
		switch {
		case c.Docker == nil:
			p.add("/container/docker", "not defined")
		case c.Docker.PullConfig != nil:
			p.add("/container/docker/pullConfig", "pullConfig is not supported with Docker containerizer")
		}
		if c.Linux != nil {
			p.add("/container/linuxInfo", "must be empty; it is only supported with the MESOS container type")
		}
		validateDockerParameters(p, c.Docker)
		return
	}
	if d := c.Docker; d != nil {
		if len(d.Parameters) > 0 {
			p.add("/container/docker/parameters", "must be empty")
		}
		if d.PullConfig != nil && !hasSecret(a, d.PullConfig.Secret) {
			p.add("/container/docker/pullConfig", "pullConfig.secret must refer to an existing secret")
		}
	}
	if l := c.Linux; l != nil && l.Seccomp != nil {
		unconfined := l.Seccomp.Unconfined != nil && *l.Seccomp.Unconfined
		if unconfined == (l.Seccomp.ProfileName != "") {
			p.add("/container/linuxInfo/seccomp", "must define either profileName or unconfined: true")
		}
	}
}

func validateInstances(p *problems, a *App) {
	if a.Instances > maxInstances {
		p.addf("/instances", "got %d, expected %d or less", a.Instances, maxInstances)
	}
	if a.Instances > 1 {
		if slices.ContainsFunc(a.externals(), func(v Volume) bool {
			return v.External.Provider == DVDI && !v.External.PerInstance() && !v.External.anyAgents()
		}) {
			p.addf("/", "Number of instances is limited to 1 when declaring DVDI volumes in app [%s]", a.ID)
		}
		if a.Labels[singleInstanceLabel] == "true" {
			p.add("/", "Single instance app may only have one instance")
		}
	}
}

func validateStrategies(p *problems, a *App) {
	up := a.Upgrade
	if up.MinimumHealthCapacity < 0 || up.MinimumHealthCapacity > 1 {
		p.addf("/upgradeStrategy/minimumHealthCapacity", "got %s, expected between 0.0 and 1.0", double(up.MinimumHealthCapacity))
	}
	managed := len(a.ExternalVolumes()) > 0 || a.Resident()
	switch over := up.MaximumOverCapacity; {
	case managed && over != 0:
		p.addf("/upgradeStrategy/maximumOverCapacity", "got %s, expected 0.0", double(over))
	case over < 0 || over > 1:
		p.addf("/upgradeStrategy/maximumOverCapacity", "got %s, expected between 0.0 and 1.0", double(over))
	}
	un := a.Unreachable
	if un.InactiveAfterSeconds > un.ExpungeAfterSeconds {
		p.addf("/unreachableStrategy/inactiveAfterSeconds",
			"inactiveAfterSeconds (%d) must be less or equal to expungeAfterSeconds, which is %d", un.InactiveAfterSeconds, un.ExpungeAfterSeconds)
	}
	if a.Resident() && !un.Disabled {
		p.add("/", "unreachableStrategy must be disabled for resident tasks")
	}
}

// validateDockerParameters refuses what the master calls invalid: Mesos finds its
// containers by the names that it gives them (MESOS-8497).
func validateDockerParameters(p *problems, d *DockerImage) {
	if d == nil {
		return
	}
	for i, param := range d.Parameters {
		if param.Key == "name" {
			p.add(indexed("/container/docker/parameters", i)+"/key", "must not be name, since Mesos names its containers itself")
		}
	}
}

func validateRoles(p *problems, d definition, opts Options, stored *App) {
	a := d.App
	if allowed := allowedRoles(a.ID, opts, stored); !slices.Contains(allowed, a.Role) {
		p.addf("/role", "got %s, expected one of: [%s]", a.Role, strings.Join(allowed, ","))
	}
	if d.given.has("acceptedResourceRoles") && len(a.AcceptedRoles) == 0 {
		p.add("/acceptedResourceRoles", "must not be empty")
	}
	if !a.Resident() {
		for _, r := range a.AcceptedRoles {
			if r != "*" && r != a.Role {
				p.addf("/acceptedResourceRoles", "acceptedResourceRoles can only contain * and %s", a.Role)
				break
			}
		}
		return
	}
	if a.Role == "*" {
		p.add("/role", "Resident apps cannot have the role *")
	}
	if len(a.AcceptedRoles) > 0 && (len(a.AcceptedRoles) != 1 || a.AcceptedRoles[0] != "*") {
		p.add("/acceptedResourceRoles", "A resident app must have `acceptedResourceRoles = [\"*\"]`.")
	}
}

// allowedRoles are the roles that an app may have (contract 2.6).
func allowedRoles(id ID, opts Options, stored *App) []string {
	var roles []string
	add := func(r string) {
		if r != "" && !slices.Contains(roles, r) {
			roles = append(roles, r)
		}
	}
	group := id.topGroup()
	if !opts.GroupRole || group == "" {
		add(opts.role())
	}
	add(group)
	if stored != nil {
		add(stored.Role)
	}
	return roles
}
