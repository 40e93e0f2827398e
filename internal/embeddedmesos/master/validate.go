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
		if err := validateResource(&r); err != nil {
			return nil, refusedf("Resource '%s' is invalid: %v", resourceText(&r), err)
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
		if err := validateResource(&list[i]); err != nil {
			return refusedf("Resource '%s' is invalid: %v", resourceText(&list[i]), err)
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
	if err := validateConcerned(op.GetResources()); err != nil {
		return err
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
	return validateAllocation("reservation", op.GetResources(), f)
}

// validateConcerned checks what all four operations ask of their resources.
func validateConcerned(rs []mesos.Resource) error {
	if err := validateUse(rs); err != nil {
		return refusedf("Invalid resources: %v", err)
	}
	if err := validateOneProvider(rs); err != nil {
		return refusedf("Invalid resources: %v", err)
	}
	return nil
}

// validateAllocation checks a framework's resources; those of an operator are
// allocated to nobody.
func validateAllocation(what string, rs []mesos.Resource, f *framework) error {
	if f == nil {
		return nil
	}
	if err := validateOneRole(rs); err != nil {
		return refusedf("Invalid %s resources: %v", what, err)
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
	if err := validateConcerned(op.GetResources()); err != nil {
		return err
	}
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
	volumes := op.GetVolumes()
	if err := validateConcerned(volumes); err != nil {
		return err
	}
	for i := range volumes {
		if err := validateVolume(&volumes[i]); err != nil {
			return err
		}
	}
	if err := validateUniqueVolumes(slices.Concat(a.checkpointed, volumes)); err != nil {
		return err
	}
	for i := range volumes {
		if f != nil && volumes[i].Shared != nil && !f.capable(mesos.FrameworkInfo_Capability_SHARED_RESOURCES) {
			return refusedf("Create volume operation for '%s' has been attempted by framework '%s' with no SHARED_RESOURCES capability",
				resourceText(&volumes[i]), f.id())
		}
		if err := validateVolumePrincipal(&volumes[i], f); err != nil {
			return err
		}
	}
	return validateAllocation("volume", volumes, f)
}

// validateVolume says what validatePersistentVolume does.
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
	if err := validateConcerned(volumes); err != nil {
		return err
	}
	for i := range volumes {
		v := &volumes[i]
		if err := validateVolume(v); err != nil {
			return err
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
