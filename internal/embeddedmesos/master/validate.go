package master

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/gogo/protobuf/proto"
	mesos "github.com/mesos/mesos-go/api/v1/lib"
)

// The texts in this file are those of src/master/validation.cpp and
// src/common/validation.cpp; clients show them to people.

// refusal is why a call, an operation or a task is refused, in Mesos's words.
type refusal string

// Error implements error.
func (r refusal) Error() string { return string(r) }

func refusedf(format string, args ...any) error { return refusal(fmt.Sprintf(format, args...)) }

// validateID says whether an id can be part of a path.
func validateID(id string) error {
	switch {
	case id == "":
		return refusedf("ID must not be empty")
	case len(id) > 255:
		return refusedf("ID must not be greater than 255 characters")
	case id == "." || id == "..":
		return refusedf("'%s' is disallowed", id)
	case strings.ContainsFunc(id, func(r rune) bool { return unicode.IsControl(r) || r == '/' || r == '\\' }):
		return refusedf("'%s' contains invalid characters", id)
	}
	return nil
}

// upgradeResources validates resources and brings them into the
// post-reservation-refinement format (validateAndUpgradeResources).
func upgradeResources(list []mesos.Resource) (resources, error) {
	var out resources
	for i := range list {
		r := *proto.Clone(&list[i]).(*mesos.Resource)
		if err := r.Validate(); err != nil {
			return nil, refusedf("Invalid resource %s: %v", r.GetName(), err)
		}
		upgradeResource(&r)
		out.add1(r)
	}
	return out, nil
}

func upgradeResource(r *mesos.Resource) {
	if len(r.Reservations) == 0 && r.GetRole() != "*" {
		reservation := mesos.Resource_ReservationInfo{
			Type: mesos.Resource_ReservationInfo_STATIC.Enum(), Role: ptr(r.GetRole()),
		}
		if r.Reservation != nil {
			reservation.Type = mesos.Resource_ReservationInfo_DYNAMIC.Enum()
			reservation.Principal, reservation.Labels = r.Reservation.Principal, r.Reservation.Labels
		}
		r.Reservations = []mesos.Resource_ReservationInfo{reservation}
	}
	r.Role, r.Reservation = nil, nil
}

// upgradeOperation validates the resources of an operation in place and puts
// the offer's role on those that are not allocated.
func upgradeOperation(op *mesos.Offer_Operation, role string) error {
	for _, list := range operationResources(op) {
		if err := upgradeInPlace(list, role); err != nil {
			return err
		}
	}
	for i := range op.GetLaunch().GetTaskInfos() {
		if err := upgradeInPlace(op.Launch.TaskInfos[i].Resources, role); err != nil {
			return err
		}
	}
	return nil
}

func upgradeInPlace(list []mesos.Resource, role string) error {
	for i := range list {
		if err := list[i].Validate(); err != nil {
			return refusedf("Invalid resource %s: %v", list[i].GetName(), err)
		}
		upgradeResource(&list[i])
		if list[i].AllocationInfo == nil {
			list[i].AllocationInfo = &mesos.Resource_AllocationInfo{Role: ptr(role)}
		}
	}
	return nil
}

// validateOperation says what validation::operation::validate does for the
// four operations that the embedded master has.
func validateOperation(op *mesos.Offer_Operation, a *agent, f *framework) error {
	switch op.Type {
	case mesos.Offer_Operation_RESERVE:
		return validateReserve(op.Reserve, f)
	case mesos.Offer_Operation_UNRESERVE:
		return validateUnreserve(op.Unreserve)
	case mesos.Offer_Operation_CREATE:
		return validateCreate(op.Create, a, f)
	case mesos.Offer_Operation_DESTROY:
		return validateDestroy(op.Destroy, a)
	}
	return refusedf("%s is not supported by the embedded Mesos master", op.Type)
}

func validateReserve(op *mesos.Offer_Operation_Reserve, f *framework) error {
	if len(op.GetSource()) > 0 {
		return refusedf("Reservation updates are not yet implemented for the scheduler API.")
	}
	for i := range op.GetResources() {
		r := &op.Resources[i]
		if !r.IsDynamicallyReserved() {
			return refusedf("Resource %s is not dynamically reserved", resourceText(r))
		}
		if f == nil {
			continue
		}
		if err := validateReservedFor(r, f); err != nil {
			return err
		}
	}
	return nil
}

// validateReservedFor checks a framework's reservation: its own principal, the
// role that the offer was made to.
func validateReservedFor(r *mesos.Resource, f *framework) error {
	if want := f.info.Principal; want != nil {
		got := r.Reservations[len(r.Reservations)-1].Principal
		if got == nil {
			return refusedf("A reserve operation was attempted by principal '%s', but there is a reserved resource in the request with no principal set", *want)
		}
		if *got != *want {
			return refusedf("A reserve operation was attempted by authenticated principal '%s', which does not match a reserved resource in the request with principal '%s'", *want, *got)
		}
	}
	if allocated, role := r.GetAllocationInfo().GetRole(), r.ReservationRole(); allocated != role {
		return refusedf("A reserve operation was attempted for a resource with role '%s', but the resource was allocated to role '%s'", role, allocated)
	}
	if role := r.ReservationRole(); !slices.Contains(f.roles(), role) {
		return refusedf("A reserve operation was attempted for a resource allocated to role '%s', but the framework only has roles '%s'", role, describeRoles(f.roles()))
	}
	return nil
}

func validateUnreserve(op *mesos.Offer_Operation_Unreserve) error {
	for i := range op.GetResources() {
		r := &op.Resources[i]
		if !r.IsDynamicallyReserved() {
			return refusedf("Resource %s is not dynamically reserved", resourceText(r))
		}
		if r.IsPersistentVolume() {
			return refusedf("A dynamically reserved persistent volume %s cannot be unreserved directly. Please destroy the persistent volume first then unreserve the resource", resourceText(r))
		}
	}
	return nil
}

func validateCreate(op *mesos.Offer_Operation_Create, a *agent, f *framework) error {
	known := make(map[string]bool)
	for i := range a.checkpointed {
		if r := &a.checkpointed[i]; r.IsPersistentVolume() {
			known[r.ReservationRole()+"\x00"+r.Disk.Persistence.ID] = true
		}
	}
	for i := range op.GetVolumes() {
		v := &op.Volumes[i]
		if err := validateVolume(v); err != nil {
			return err
		}
		key := v.ReservationRole() + "\x00" + v.Disk.Persistence.ID
		if known[key] {
			return refusedf("Persistence ID '%s' is not unique", v.Disk.Persistence.ID)
		}
		known[key] = true
		if err := validateVolumePrincipal(v, f); err != nil {
			return err
		}
	}
	return nil
}

func validateVolume(v *mesos.Resource) error {
	switch {
	case v.Disk == nil:
		return refusedf("Not a persistent volume: Resource %s does not have DiskInfo", resourceText(v))
	case v.Disk.Persistence == nil:
		return refusedf("Not a persistent volume: 'persistence' is not set in DiskInfo")
	case v.Disk.Volume == nil:
		return refusedf("Not a persistent volume: Expecting 'volume' to be set for persistent volume")
	case v.Disk.Volume.GetMode() == mesos.RO:
		return refusedf("Not a persistent volume: Read-only persistent volume not supported")
	case v.Disk.Volume.HostPath != nil:
		return refusedf("Invalid resources: Expecting 'host_path' to be unset for persistent volume")
	case v.IsUnreserved():
		return refusedf("Invalid resources: Persistent volumes cannot be created from unreserved resources")
	case v.Shared != nil:
		return refusedf("shared persistent volumes are not supported by the embedded Mesos master")
	}
	if err := validateID(v.Disk.Persistence.ID); err != nil {
		return refusedf("Invalid resources: Invalid persistence ID for persistent volume: %v", err)
	}
	return nil
}

func validateVolumePrincipal(v *mesos.Resource, f *framework) error {
	if f == nil || f.info.Principal == nil {
		return nil
	}
	want, got := *f.info.Principal, v.Disk.Persistence.Principal
	if got == nil {
		return refusedf("Create volume operation attempted by principal '%s', but there is a volume in the operation with no principal set in 'disk.persistence'", want)
	}
	if *got != want {
		return refusedf("Create volume operation attempted by authenticated principal '%s', which does not match a volume in the operation with principal '%s' set in 'disk.persistence'", want, *got)
	}
	return nil
}

func validateDestroy(op *mesos.Offer_Operation_Destroy, a *agent) error {
	volumes := newResources(op.GetVolumes()).unallocated()
	for i := range volumes {
		v := &volumes[i]
		if !v.IsPersistentVolume() {
			return refusedf("Not a persistent volume: 'persistence' is not set in DiskInfo")
		}
		if !a.checkpointed.contains(resources{*v}) {
			return refusedf("Persistent volumes not found")
		}
		for _, t := range a.tasks {
			if !terminal(t.GetState()) && newResources(t.Resources).unallocated().contains(resources{*v}) {
				return refusedf("Persistent volumes in use")
			}
		}
	}
	return nil
}

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
	if err := validateHealthCheck(t.HealthCheck); err != nil {
		return refusedf("Task uses invalid health check: %v", err)
	}
	if err := validateTaskResources(t); err != nil {
		return err
	}
	if err := validateContainer(t.Container); err != nil {
		return refusedf("Task's `ContainerInfo` is invalid: %v", err)
	}
	return validateExecutor(t, available)
}

func validateTaskResources(t *mesos.TaskInfo) error {
	if len(t.Resources) == 0 {
		return refusedf("Task uses no resources")
	}
	seen := make(map[string]bool)
	role := t.Resources[0].GetAllocationInfo().GetRole()
	for i := range t.Resources {
		r := &t.Resources[i]
		if other := r.GetAllocationInfo().GetRole(); other != role {
			return refusedf("Invalid task resources: The resources have multiple allocation roles ('%s' and '%s') but only one allocation role is allowed", other, role)
		}
		if !r.IsPersistentVolume() {
			continue
		}
		key := r.ReservationRole() + "\x00" + r.Disk.Persistence.ID
		if seen[key] {
			return refusedf("Task uses duplicate persistence ID: Persistence ID '%s' is not unique", r.Disk.Persistence.ID)
		}
		seen[key] = true
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
			return refusedf("Command health check must contain 'shell command'")
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
	for _, field := range []struct {
		name  string
		value *float64
	}{
		{"delay_seconds", h.DelaySeconds}, {"grace_period_seconds", h.GracePeriodSeconds},
		{"interval_seconds", h.IntervalSeconds}, {"timeout_seconds", h.TimeoutSeconds},
	} {
		if field.value != nil && *field.value < 0 {
			return refusedf("Expecting '%s' to be non-negative", field.name)
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
	if c.GetType() == mesos.ContainerInfo_DOCKER && c.Docker == nil {
		return refusedf("DockerInfo 'docker' is not set for DOCKER typed ContainerInfo")
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
