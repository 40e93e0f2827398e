package master

import (
	"bytes"
	"strings"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
)

// validateTask says what validation::task::validate does.
func validateTask(t *mesos.TaskInfo, a *agent, f *framework, available resources) error {
	if err := validateID(t.TaskID.Value); err != nil {
		return err
	}
	switch {
	case f.tasks[t.TaskID.Value] != nil:
		return refusedf("Task has duplicate ID: %s", t.TaskID.Value)
	case f.unreachable[t.TaskID.Value] != nil:
		return refusedf("Task reuses the ID of an unreachable task: %s", t.TaskID.Value)
	case t.AgentID.Value != a.id():
		return refusedf("Task uses invalid agent %s while agent %s is expected", t.AgentID.Value, a.id())
	case t.GetKillPolicy().GetGracePeriod().GetNanoseconds() < 0:
		return refusedf("Task's 'kill_policy.grace_period' must be non-negative")
	case t.GetMaxCompletionTime().GetNanoseconds() < 0:
		return refusedf("Task's `max_completion_time` must be non-negative")
	}
	if err := validateCheck(t.Check); err != nil {
		return refusedf("Task uses invalid check: %v", err)
	}
	if err := validateHealthCheck(t.HealthCheck); err != nil {
		return refusedf("Task uses invalid health check: %v", err)
	}
	if err := validateTaskResources(t); err != nil {
		return err
	}
	if err := validateCommand(t.Command); err != nil {
		return refusedf("Task's `CommandInfo` is invalid: %v", err)
	}
	if err := validateContainer(t.Container); err != nil {
		return refusedf("Task's `ContainerInfo` is invalid: %v", err)
	}
	if err := validateLimits(t, a); err != nil {
		return err
	}
	return validateExecutor(t, available)
}

// validateLimits says what validateResourceLimits does.
func validateLimits(t *mesos.TaskInfo, a *agent) error {
	if len(t.Limits) == 0 {
		return nil
	}
	if !a.capable(mesos.AgentInfo_Capability_TASK_RESOURCE_LIMITS) {
		return refusedf("Agent is not capable of handling task resource limits")
	}
	for name := range t.Limits {
		if name != "cpus" && name != "mem" {
			return refusedf("Only cpus and mem may be included in a task's resource limits")
		}
	}
	requested := newResources(t.Resources)
	for _, one := range []struct{ name, missing, less string }{
		{"cpus", "When a CPU limit is specified, a CPU request must also be specified",
			"The cpu limit must be greater than or equal to the cpu request"},
		{"mem", "When a memory limit is specified, a memory request must also be specified",
			"The memory limit must be greater than or equal to the memory request"},
	} {
		limit, given := t.Limits[one.name]
		if !given {
			continue
		}
		switch request := requested.scalar(one.name); {
		case request == 0:
			return refusal(one.missing)
		case limit.Value < request:
			return refusal(one.less)
		}
	}
	return nil
}

func validateTaskResources(t *mesos.TaskInfo) error {
	if len(t.Resources) == 0 {
		return refusedf("Task uses no resources")
	}
	for _, check := range []struct {
		validate func([]mesos.Resource) error
		problem  string
	}{
		{validateUse, "Task uses invalid resources"},
		{validateUniqueVolumes, "Task uses duplicate persistence ID"},
		{validateOneRole, "Invalid task resources"},
		{validateUnmixed, "Task mixes revocable and non-revocable resources"},
	} {
		if err := check.validate(t.Resources); err != nil {
			return refusedf("%s: %v", check.problem, err)
		}
	}
	return nil
}

func validateExecutor(t *mesos.TaskInfo, available resources) error {
	if (t.Executor == nil) == (t.Command == nil) {
		return refusedf("Task should have at least one (but not both) of CommandInfo or ExecutorInfo present")
	}
	if t.Executor != nil {
		return refusedf("custom executors are not supported by the embedded Mesos master")
	}
	if linux := t.GetContainer().GetLinuxInfo(); linux != nil && linux.ShareCgroups != nil && !*linux.ShareCgroups {
		return refusedf("Only tasks in a task group may have 'share_cgroups' set to 'false'")
	}
	total := newResources(t.Resources)
	if !available.contains(total) {
		return refusedf("Total resources %s required by task and its executor is more than available %s", total, available)
	}
	return nil
}

func validateHealthCheck(h *mesos.HealthCheck) error {
	if h == nil {
		return nil
	}
	switch h.Type {
	case mesos.HealthCheck_COMMAND:
		if h.Command == nil {
			return refusedf("Expecting 'command' to be set for COMMAND health check")
		}
		if h.Command.Value == nil {
			return refusedf("Command health check must contain %s", commandKind(h.Command))
		}
		if err := validateCommand(h.Command); err != nil {
			return refusedf("Health check's `CommandInfo` is invalid: %v", err)
		}
	case mesos.HealthCheck_HTTP:
		if h.HTTP == nil {
			return refusedf("Expecting 'http' to be set for HTTP health check")
		}
		if s := h.HTTP.Scheme; s != nil && *s != "http" && *s != "https" {
			return refusedf("Unsupported HTTP health check scheme: '%s'", *s)
		}
		if p := h.HTTP.Path; p != nil && !strings.HasPrefix(*p, "/") {
			return refusedf("The path '%s' of HTTP health check must start with '/'", *p)
		}
	case mesos.HealthCheck_TCP:
		if h.TCP == nil {
			return refusedf("Expecting 'tcp' to be set for TCP health check")
		}
	default:
		return refusedf("HealthCheck must specify 'type'")
	}
	return validatePeriods([]period{
		{"delay_seconds", h.DelaySeconds}, {"grace_period_seconds", h.GracePeriodSeconds},
		{"interval_seconds", h.IntervalSeconds}, {"timeout_seconds", h.TimeoutSeconds},
	})
}

// validateCheck says what validateCheckInfo does.
func validateCheck(c *mesos.CheckInfo) error {
	if c == nil {
		return nil
	}
	switch c.Type {
	case mesos.CheckInfo_COMMAND:
		if c.Command == nil {
			return refusedf("Expecting 'command' to be set for COMMAND check")
		}
		command := &c.Command.Command
		if command.Value == nil {
			return refusedf("Command check must contain %s", commandKind(command))
		}
		if err := validateCommand(command); err != nil {
			return refusedf("Check's `CommandInfo` is invalid: %v", err)
		}
	case mesos.CheckInfo_HTTP:
		if c.HTTP == nil {
			return refusedf("Expecting 'http' to be set for HTTP check")
		}
		if p := c.HTTP.Path; p != nil && !strings.HasPrefix(*p, "/") {
			return refusedf("The path '%s' of HTTP check must start with '/'", *p)
		}
	case mesos.CheckInfo_TCP:
		if c.TCP == nil {
			return refusedf("Expecting 'tcp' to be set for TCP check")
		}
	default:
		return refusedf("'%s' is not a valid check type", c.Type)
	}
	return validatePeriods([]period{
		{"delay_seconds", c.DelaySeconds}, {"interval_seconds", c.IntervalSeconds}, {"timeout_seconds", c.TimeoutSeconds},
	})
}

// period is a time of a check, in seconds.
type period struct {
	name  string
	value *float64
}

func validatePeriods(list []period) error {
	for _, p := range list {
		if p.value != nil && *p.value < 0 {
			return refusedf("Expecting '%s' to be non-negative", p.name)
		}
	}
	return nil
}

func commandKind(c *mesos.CommandInfo) string {
	if c.GetShell() {
		return "'shell command'"
	}
	return "'executable path'"
}

// validateCommand says what validateEnvironment does; there is nothing else
// that Mesos checks of a command.
func validateCommand(c *mesos.CommandInfo) error {
	variables := c.GetEnvironment().GetVariables()
	for i := range variables {
		if err := validateVariable(&variables[i]); err != nil {
			return err
		}
	}
	return nil
}

func validateVariable(v *mesos.Environment_Variable) error {
	switch v.GetType() {
	case mesos.Environment_Variable_SECRET:
		switch {
		case v.Secret == nil:
			return refusedf("Environment variable '%s' of type 'SECRET' must have a secret set", v.Name)
		case v.Value != nil:
			return refusedf("Environment variable '%s' of type 'SECRET' must not have a value set", v.Name)
		}
		if err := validateSecret(v.Secret); err != nil {
			return refusedf("Environment variable '%s' specifies an invalid secret: %v", v.Name, err)
		}
		if bytes.IndexByte(v.Secret.GetValue().GetData(), 0) >= 0 {
			return refusedf("Environment variable '%s' specifies a secret containing null bytes, which is not allowed in the environment", v.Name)
		}
	case mesos.Environment_Variable_VALUE:
		switch {
		case v.Value == nil:
			return refusedf("Environment variable '%s' of type 'VALUE' must have a value set", v.Name)
		case v.Secret != nil:
			return refusedf("Environment variable '%s' of type 'VALUE' must not have a secret set", v.Name)
		}
	default:
		return refusedf("Environment variable of type 'UNKNOWN' is not allowed")
	}
	return nil
}

func validateSecret(s *mesos.Secret) error {
	switch s.Type {
	case mesos.Secret_REFERENCE:
		if s.Reference == nil {
			return refusedf("Secret of type REFERENCE must have the 'reference' field set")
		}
		if s.Value != nil {
			return refusedf("Secret '%s' of type REFERENCE must not have the 'value' field set", s.Reference.Name)
		}
	case mesos.Secret_VALUE:
		if s.Value == nil {
			return refusedf("Secret of type VALUE must have the 'value' field set")
		}
		if s.Reference != nil {
			return refusedf("Secret of type VALUE must not have the 'reference' field set")
		}
	}
	return nil
}

func validateContainer(c *mesos.ContainerInfo) error {
	if c == nil {
		return nil
	}
	for i := range c.Volumes {
		if err := validateVolumeSource(&c.Volumes[i]); err != nil {
			return refusedf("Invalid volume: %v", err)
		}
	}
	if c.GetType() != mesos.ContainerInfo_DOCKER {
		return nil
	}
	if c.Docker == nil {
		return refusedf("DockerInfo 'docker' is not set for DOCKER typed ContainerInfo")
	}
	for _, p := range c.Docker.Parameters {
		if p.Key == "name" {
			return refusedf("Parameter in DockerInfo must not be 'name'")
		}
	}
	return nil
}

func validateVolumeSource(v *mesos.Volume) error {
	given := 0
	for _, set := range []bool{v.HostPath != nil, v.Image != nil, v.Source != nil} {
		if set {
			given++
		}
	}
	if given != 1 {
		return refusedf("Only one of them should be set: 'host_path', 'image' and 'source'")
	}
	if v.Source == nil {
		return nil
	}
	switch v.Source.Type {
	case mesos.Volume_Source_DOCKER_VOLUME:
		if v.Source.DockerVolume == nil {
			return refusedf("'source.docker_volume' is not set for DOCKER_VOLUME volume")
		}
	case mesos.Volume_Source_HOST_PATH:
		if v.Source.HostPath == nil {
			return refusedf("'source.host_path' is not set for HOST_PATH volume")
		}
	case mesos.Volume_Source_SANDBOX_PATH:
		if v.Source.SandboxPath == nil {
			return refusedf("'source.sandbox_path' is not set for SANDBOX_PATH volume")
		}
	case mesos.Volume_Source_SECRET:
		if v.Source.Secret == nil {
			return refusedf("'source.secret' is not set for SECRET volume")
		}
	default:
		return refusedf("'source.type' is unknown")
	}
	return nil
}
