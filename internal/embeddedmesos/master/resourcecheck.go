package master

import (
	"math"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/roles"
)

// The rules of Resources::validate (src/common/resources.cpp) and of
// resource::validate (src/master/validation.cpp), in their order. mesos-go's
// Resource.Validate lacks several of them.

// validateResource says what Resources::validate does of one resource.
func validateResource(r *mesos.Resource) error {
	if r.GetName() == "" {
		return refusedf("Empty resource name")
	}
	if err := validateValue(r); err != nil {
		return err
	}
	if err := validateDisk(r); err != nil {
		return err
	}
	check := validateReservations
	if len(r.Reservations) == 0 {
		check = validateOldReservation
	}
	if err := check(r); err != nil {
		return err
	}
	switch {
	case r.Shared == nil:
		return nil
	case r.GetName() != "disk":
		return refusedf("Resource %s cannot be shared", r.GetName())
	case r.GetDisk().GetPersistence() == nil:
		return refusedf("Only persistent volumes can be shared")
	}
	return nil
}

func validateValue(r *mesos.Resource) error {
	scalar, ranges, set := r.Scalar != nil, r.Ranges != nil, r.Set != nil
	switch r.GetType() {
	case mesos.SCALAR:
		if !scalar || ranges || set {
			return refusedf("Invalid scalar resource")
		}
		// Amounts have three decimals: a smaller one is nothing.
		if v := r.Scalar.Value; v != 0 && math.Round(v*1000) <= 0 {
			return refusedf("Invalid scalar resource: value <= 0")
		}
	case mesos.RANGES:
		if scalar || !ranges || set {
			return refusedf("Invalid ranges resource")
		}
		return validateRanges(r.Ranges.Range)
	case mesos.SET:
		if scalar || ranges || !set {
			return refusedf("Invalid set resource")
		}
		seen := make(map[string]bool)
		for _, item := range r.Set.Item {
			if seen[item] {
				return refusedf("Invalid set resource: duplicated elements")
			}
			seen[item] = true
		}
	default:
		return refusedf("Unsupported resource type")
	}
	return nil
}

func validateRanges(ranges []mesos.Value_Range) error {
	for i, one := range ranges {
		if one.Begin > one.End {
			return refusedf("Invalid ranges resource: begin > end")
		}
		for _, other := range ranges[i+1:] {
			if one.Begin <= other.Begin && other.Begin <= one.End {
				return refusedf("Invalid ranges resource: overlapping ranges")
			}
		}
	}
	return nil
}

func validateDisk(r *mesos.Resource) error {
	if r.Disk == nil {
		return nil
	}
	if r.GetName() != "disk" {
		return refusedf("DiskInfo should not be set for %s resource", r.GetName())
	}
	source := r.Disk.Source
	if source == nil {
		return nil
	}
	switch source.Type {
	case mesos.Resource_DiskInfo_Source_PATH, mesos.Resource_DiskInfo_Source_MOUNT:
	case mesos.Resource_DiskInfo_Source_BLOCK, mesos.Resource_DiskInfo_Source_RAW:
		if source.Mount != nil {
			return refusedf("Mount should not be set for %s disk source", source.Type)
		}
		if source.Path != nil {
			return refusedf("Path should not be set for %s disk source", source.Type)
		}
	default:
		return refusedf("Unsupported 'DiskInfo.Source.Type' in '%s'", source.Type)
	}
	return nil
}

// validateOldReservation checks the format before reservation refinement.
func validateOldReservation(r *mesos.Resource) error {
	if _, err := roles.Parse(r.GetRole()); err != nil {
		return refusal(err.Error())
	}
	switch {
	case r.Reservation == nil:
		return nil
	case r.Reservation.Type != nil:
		return refusedf("'Resource.ReservationInfo.type' must not be set for the 'Resource.reservation' field")
	case r.Reservation.Role != nil:
		return refusedf("'Resource.ReservationInfo.role' must not be set for the 'Resource.reservation' field")
	case r.GetRole() == "*":
		return refusedf(`Invalid reservation: role "*" cannot be dynamically reserved`)
	}
	return nil
}

// validateReservations checks the stack of reservations, each of which must
// refine the one below it.
func validateReservations(r *mesos.Resource) error {
	for i := range r.Reservations {
		one := &r.Reservations[i]
		switch {
		case one.Type == nil:
			return refusedf("Invalid reservation: 'Resource.ReservationInfo.type' field must be set.")
		case one.Role == nil:
			return refusedf("Invalid reservation: 'Resource.ReservationInfo.role' field must be set.")
		}
		if _, err := roles.Parse(one.GetRole()); err != nil {
			return refusal(err.Error())
		}
		if one.GetRole() == "*" {
			return refusedf(`Invalid reservation: role "*" cannot be reserved`)
		}
	}
	for i := 1; i < len(r.Reservations); i++ {
		one, below := &r.Reservations[i], r.Reservations[i-1].GetRole()
		if one.GetType() == mesos.Resource_ReservationInfo_STATIC {
			return refusedf("Invalid refined reservation: A refined reservation cannot be STATIC")
		}
		if !roles.IsStrictSubroleOf(one.GetRole(), below) {
			return refusedf("Invalid refined reservation: role '%s' is not a refinement of '%s'", one.GetRole(), below)
		}
	}
	return validateBothFormats(r)
}

// validateBothFormats allows the old format beside the new one where it says
// the same.
func validateBothFormats(r *mesos.Resource) error {
	if len(r.Reservations) > 1 {
		if r.Role != nil {
			return refusedf("Invalid resource format: 'Resource.role' must not be set if there is more than one reservation in 'Resource.reservations'")
		}
		if r.Reservation != nil {
			return refusedf("Invalid resource format: 'Resource.reservation' must not be set if there is more than one reservation in 'Resource.reservations'")
		}
		return nil
	}
	only := &r.Reservations[0]
	switch {
	case r.Role != nil && *r.Role != only.GetRole():
		return refusedf("Invalid resource format: 'Resource.role' field with '%s' does not match the role '%s' in 'Resource.reservations'", *r.Role, only.GetRole())
	case only.GetType() == mesos.Resource_ReservationInfo_STATIC && r.Reservation != nil:
		return refusedf("Invalid resource format: 'Resource.reservation' must not be set if the single reservation in 'Resource.reservations' is STATIC")
	case only.GetType() == mesos.Resource_ReservationInfo_DYNAMIC && (r.Role == nil) != (r.Reservation == nil):
		return refusedf("Invalid resource format: 'Resource.role' and 'Resource.reservation' must either be both set or both not be set if the single reservation in 'Resource.reservations' is DYNAMIC")
	case only.GetType() == mesos.Resource_ReservationInfo_UNKNOWN:
		return refusedf("Unsupported 'Resource.ReservationInfo.Type'")
	case r.Reservation != nil && r.Reservation.GetPrincipal() != only.GetPrincipal():
		return refusedf("Invalid resource format: 'Resource.reservation.principal' field with '%s' does not match the principal '%s' in 'Resource.reservations'", r.Reservation.GetPrincipal(), only.GetPrincipal())
	case r.Reservation != nil && !r.Reservation.GetLabels().Equivalent(only.GetLabels()):
		return refusedf("Invalid resource format: 'Resource.reservation.labels' field does not match the labels in 'Resource.reservations'")
	}
	return nil
}

// validateUse says what resource::validate does of resources that a task or an
// operation names.
func validateUse(list []mesos.Resource) error {
	for i := range list {
		if err := validateResource(&list[i]); err != nil {
			return refusedf("Invalid resources: Resource '%s' is invalid: %v", resourceText(&list[i]), err)
		}
	}
	if gpus := newResources(list).scalar("gpus"); gpus != math.Trunc(gpus) {
		return refusedf("Invalid 'gpus' resource: The 'gpus' resource must be an unsigned integer")
	}
	for i := range list {
		if err := validateDiskUse(&list[i]); err != nil {
			return refusedf("Invalid DiskInfo: %v", err)
		}
	}
	for i := range list {
		if list[i].IsDynamicallyReserved() && list[i].Revocable != nil {
			return refusedf("Invalid ReservationInfo: Dynamically reserved resource %s cannot be created from revocable resources", resourceText(&list[i]))
		}
	}
	return nil
}

// validateDiskUse says what validateDiskInfo does.
func validateDiskUse(r *mesos.Resource) error {
	disk := r.Disk
	switch {
	case disk == nil:
		return nil
	case disk.Persistence == nil && disk.Volume != nil:
		return refusedf("Non-persistent volume not supported")
	case disk.Persistence == nil && disk.Source == nil:
		return refusedf("DiskInfo is set but empty")
	case disk.Persistence == nil:
		return nil
	case r.Revocable != nil:
		return refusedf("Persistent volumes cannot be created from revocable resources")
	case r.IsUnreserved():
		return refusedf("Persistent volumes cannot be created from unreserved resources")
	case disk.Volume == nil:
		return refusedf("Expecting 'volume' to be set for persistent volume")
	case disk.Volume.HostPath != nil:
		return refusedf("Expecting 'host_path' to be unset for persistent volume")
	}
	if err := validateID(disk.Persistence.ID); err != nil {
		return refusedf("Invalid persistence ID for persistent volume: %v", err)
	}
	return nil
}

// validateUniqueVolumes refuses two persistent volumes of one role with one id.
func validateUniqueVolumes(rs []mesos.Resource) error {
	seen := make(map[[2]string]bool)
	for i := range rs {
		if !rs[i].IsPersistentVolume() {
			continue
		}
		key := [2]string{rs[i].ReservationRole(), rs[i].Disk.Persistence.ID}
		if seen[key] {
			return refusedf("Persistence ID '%s' is not unique", key[1])
		}
		seen[key] = true
	}
	return nil
}

// validateOneProvider refuses resources of several providers in one operation;
// those of the agent itself have none.
func validateOneProvider(rs []mesos.Resource) error {
	var with, without bool
	ids := make(map[string]bool)
	for i := range rs {
		if rs[i].ProviderID == nil {
			without = true
			continue
		}
		with = true
		ids[rs[i].ProviderID.Value] = true
	}
	switch {
	case with && without:
		return refusedf("Some resources have a resource provider and some do not")
	case len(ids) > 1:
		return refusedf("The resources have multiple resource providers")
	}
	return nil
}

// validateOneRole says what validateAllocatedToSingleRole does.
func validateOneRole(rs []mesos.Resource) error {
	for i := range rs {
		role := rs[i].GetAllocationInfo()
		if role == nil || role.Role == nil {
			return refusedf("The resources are not allocated to a role")
		}
		if first := rs[0].GetAllocationInfo().GetRole(); role.GetRole() != first {
			return refusedf("The resources have multiple allocation roles ('%s' and '%s') but only one allocation role is allowed", role.GetRole(), first)
		}
	}
	return nil
}

// validateUnmixed refuses revocable and other resources of one name together.
func validateUnmixed(rs []mesos.Resource) error {
	revocable := make(map[string]bool)
	for i := range rs {
		name := rs[i].GetName()
		if before, seen := revocable[name]; seen && before != (rs[i].Revocable != nil) {
			return refusedf("Cannot use both revocable and non-revocable '%s' at the same time", name)
		}
		revocable[name] = rs[i].Revocable != nil
	}
	return nil
}
