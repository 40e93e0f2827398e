package mesos

import (
	"fmt"
	"slices"

	mesosgo "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// diskSources pairs the kinds of disk sources; a root disk has no source
// message on the wire.
var diskSources = map[mesosgo.Resource_DiskInfo_Source_Type]resource.SourceType{
	mesosgo.Resource_DiskInfo_Source_PATH:  resource.SourcePath,
	mesosgo.Resource_DiskInfo_Source_MOUNT: resource.SourceMount,
	mesosgo.Resource_DiskInfo_Source_BLOCK: resource.SourceBlock,
	mesosgo.Resource_DiskInfo_Source_RAW:   resource.SourceRaw,
}

// fromWire translates a resource. The error says what in it is not understood:
// such a resource must not be used, it could not be sent back as it came.
func fromWire(w *mesosgo.Resource) (resource.Resource, error) {
	r := resource.Resource{
		Name:          w.Name,
		AllocatedRole: w.GetAllocationInfo().GetRole(),
		ProviderID:    w.GetProviderID().GetValue(),
		Shared:        w.Shared != nil,
		Revocable:     w.Revocable != nil,
		Reservations:  reservationsFromWire(w),
	}
	switch w.GetType() {
	case mesosgo.SCALAR:
		r.Kind = resource.Scalar
		r.Scalar = resource.FromFloat(w.GetScalar().GetValue())
	case mesosgo.RANGES:
		r.Kind = resource.Ranges
		for _, v := range w.GetRanges().GetRange() {
			r.Ranges = append(r.Ranges, resource.Range{Begin: v.Begin, End: v.End})
		}
		r.Ranges = resource.NormalizeRanges(r.Ranges)
	case mesosgo.SET:
		r.Kind = resource.Set
		r.Items = slices.Sorted(slices.Values(w.GetSet().GetItem()))
	default:
		return r, fmt.Errorf("resource %q has value type %s", w.Name, w.GetType())
	}
	if w.Disk != nil {
		disk, err := diskFromWire(w.Disk)
		if err != nil {
			return r, fmt.Errorf("resource %q: %w", w.Name, err)
		}
		r.Disk = disk
	}
	if !returnsAsItCame(w, &r) {
		return r, fmt.Errorf("resource %q has an empty field in its reservations, disk or provider: %s", w.Name, w)
	}
	return r, nil
}

// returnsAsItCame tells whether the master will take what is made of a resource
// for a part of it. Nothing and an empty message or text are different to it
// (operator== in src/common/resources.cpp), here they are the same.
func returnsAsItCame(w *mesosgo.Resource, r *resource.Resource) bool {
	if len(w.Reservations) == 0 && w.Disk == nil && w.ProviderID == nil {
		return true
	}
	back := toWire(r)
	if len(w.Reservations) > 0 { // otherwise the stack is made of the older fields
		for i := range w.Reservations {
			came := w.Reservations[i]
			came.Labels = withValues(came.Labels)
			if !came.Equal(&back.Reservations[i]) {
				return false
			}
		}
	}
	if w.GetDisk().GetSource() != nil {
		came := *w.Disk.Source
		came.Metadata = withValues(came.Metadata)
		if !came.Equal(back.GetDisk().GetSource()) {
			return false
		}
	}
	return w.ProviderID.Equal(back.ProviderID)
}

// withValues gives labels without a value the empty one, which is the same to the
// master (src/common/type_utils.cpp).
func withValues(labels *mesosgo.Labels) *mesosgo.Labels {
	if labels == nil || !slices.ContainsFunc(labels.Labels, func(l mesosgo.Label) bool { return l.Value == nil }) {
		return labels
	}
	out := &mesosgo.Labels{Labels: slices.Clone(labels.Labels)}
	for i := range out.Labels {
		out.Labels[i].Value = pointer(out.Labels[i].GetValue())
	}
	return out
}

// reservationsFromWire reads the reservation stack, or the role and reservation
// that stand in its place in the format before refinement.
func reservationsFromWire(w *mesosgo.Resource) []resource.Reservation {
	var stack []resource.Reservation
	for i := range w.Reservations {
		stack = append(stack, reservationFromWire(&w.Reservations[i]))
	}
	if role := w.GetRole(); len(stack) == 0 && role != "" && role != resource.Unreserved {
		old := resource.Reservation{Role: role}
		if w.Reservation != nil {
			old = reservationFromWire(w.Reservation)
			old.Role, old.Dynamic = role, true
		}
		stack = append(stack, old)
	}
	return stack
}

func reservationFromWire(w *mesosgo.Resource_ReservationInfo) resource.Reservation {
	return resource.Reservation{
		Role:      w.GetRole(),
		Principal: w.GetPrincipal(),
		Dynamic:   w.GetType() == mesosgo.Resource_ReservationInfo_DYNAMIC,
		Labels:    labelsFromWire(w.Labels),
	}
}

func diskFromWire(w *mesosgo.Resource_DiskInfo) (*resource.Disk, error) {
	d := &resource.Disk{
		PersistenceID:        w.GetPersistence().GetID(),
		PersistencePrincipal: w.GetPersistence().GetPrincipal(),
		ContainerPath:        w.GetVolume().GetContainerPath(),
		ReadOnly:             w.GetVolume().GetMode() == mesosgo.RO,
	}
	if w.Source == nil {
		return d, nil
	}
	source, known := diskSources[w.Source.Type]
	if !known {
		return nil, fmt.Errorf("disk source of type %s", w.Source.Type)
	}
	d.Source = source
	d.SourceID = w.Source.GetID()
	d.Profile = w.Source.GetProfile()
	d.Vendor = w.Source.GetVendor()
	d.Metadata = labelsFromWire(w.Source.Metadata)
	switch source {
	case resource.SourcePath:
		d.Root = w.Source.GetPath().GetRoot()
	case resource.SourceMount:
		d.Root = w.Source.GetMount().GetRoot()
	}
	return d, nil
}

func labelsFromWire(w *mesosgo.Labels) []resource.Label {
	var labels []resource.Label
	for _, l := range w.GetLabels() {
		labels = append(labels, resource.Label{Key: l.Key, Value: l.GetValue()})
	}
	return labels
}

func allToWire(rs []resource.Resource) []mesosgo.Resource {
	var all []mesosgo.Resource
	for i := range rs {
		all = append(all, toWire(&rs[i]))
	}
	return all
}

func toWire(r *resource.Resource) mesosgo.Resource {
	w := mesosgo.Resource{Name: r.Name}
	switch r.Kind {
	case resource.Scalar:
		w.Type = mesosgo.SCALAR.Enum()
		w.Scalar = &mesosgo.Value_Scalar{Value: r.Scalar.Float()}
	case resource.Ranges:
		w.Type = mesosgo.RANGES.Enum()
		w.Ranges = &mesosgo.Value_Ranges{}
		for _, v := range r.Ranges {
			w.Ranges.Range = append(w.Ranges.Range, mesosgo.Value_Range{Begin: v.Begin, End: v.End})
		}
	case resource.Set:
		w.Type = mesosgo.SET.Enum()
		w.Set = &mesosgo.Value_Set{Item: slices.Clone(r.Items)}
	}
	if r.AllocatedRole != "" {
		w.AllocationInfo = &mesosgo.Resource_AllocationInfo{Role: pointer(r.AllocatedRole)}
	}
	if r.ProviderID != "" {
		w.ProviderID = &mesosgo.ResourceProviderID{Value: r.ProviderID}
	}
	if r.Shared {
		w.Shared = &mesosgo.Resource_SharedInfo{}
	}
	if r.Revocable {
		w.Revocable = &mesosgo.Resource_RevocableInfo{}
	}
	for i := range r.Reservations {
		w.Reservations = append(w.Reservations, reservationToWire(&r.Reservations[i]))
	}
	if r.Disk != nil {
		w.Disk = diskToWire(r.Disk)
	}
	return w
}

func reservationToWire(r *resource.Reservation) mesosgo.Resource_ReservationInfo {
	kind := mesosgo.Resource_ReservationInfo_STATIC
	if r.Dynamic {
		kind = mesosgo.Resource_ReservationInfo_DYNAMIC
	}
	return mesosgo.Resource_ReservationInfo{
		Type:      kind.Enum(),
		Role:      pointer(r.Role),
		Principal: optional(r.Principal),
		Labels:    labelsToWire(r.Labels),
	}
}

func diskToWire(d *resource.Disk) *mesosgo.Resource_DiskInfo {
	w := &mesosgo.Resource_DiskInfo{}
	if d.PersistenceID != "" {
		w.Persistence = &mesosgo.Resource_DiskInfo_Persistence{
			ID:        d.PersistenceID,
			Principal: optional(d.PersistencePrincipal),
		}
	}
	if d.ContainerPath != "" {
		mode := mesosgo.RW
		if d.ReadOnly {
			mode = mesosgo.RO
		}
		w.Volume = &mesosgo.Volume{ContainerPath: d.ContainerPath, Mode: mode.Enum()}
	}
	if d.Source != resource.SourceRoot {
		w.Source = diskSourceToWire(d)
	}
	return w
}

func diskSourceToWire(d *resource.Disk) *mesosgo.Resource_DiskInfo_Source {
	w := &mesosgo.Resource_DiskInfo_Source{
		ID:       optional(d.SourceID),
		Profile:  optional(d.Profile),
		Vendor:   optional(d.Vendor),
		Metadata: labelsToWire(d.Metadata),
	}
	switch d.Source {
	case resource.SourcePath:
		w.Type = mesosgo.Resource_DiskInfo_Source_PATH
		w.Path = &mesosgo.Resource_DiskInfo_Source_Path{Root: optional(d.Root)}
	case resource.SourceMount:
		w.Type = mesosgo.Resource_DiskInfo_Source_MOUNT
		w.Mount = &mesosgo.Resource_DiskInfo_Source_Mount{Root: optional(d.Root)}
	case resource.SourceBlock:
		w.Type = mesosgo.Resource_DiskInfo_Source_BLOCK
	case resource.SourceRaw:
		w.Type = mesosgo.Resource_DiskInfo_Source_RAW
	}
	return w
}

func labelsToWire(labels []resource.Label) *mesosgo.Labels {
	if len(labels) == 0 {
		return nil
	}
	w := &mesosgo.Labels{}
	for _, l := range labels {
		w.Labels = append(w.Labels, mesosgo.Label{Key: l.Key, Value: pointer(l.Value)})
	}
	return w
}
