package resource

import "slices"

// Unreserved is the role that stands for no reservation.
const Unreserved = "*"

// Role is the role that the resource is reserved for: that of the last level
// of the reservation stack, or Unreserved.
func (r *Resource) Role() string {
	if n := len(r.Reservations); n > 0 {
		return r.Reservations[n-1].Role
	}
	return Unreserved
}

// ReservationLabels are those of the last level of the reservation stack.
func (r *Resource) ReservationLabels() []Label {
	if n := len(r.Reservations); n > 0 {
		return r.Reservations[n-1].Labels
	}
	return nil
}

// IsPersistent says whether the resource is a persistent volume.
func (r *Resource) IsPersistent() bool { return r.Disk != nil && r.Disk.PersistenceID != "" }

// Label returns the value of the first label with a key.
func LabelValue(ls []Label, key string) (string, bool) {
	for _, l := range ls {
		if l.Key == key {
			return l.Value, true
		}
	}
	return "", false
}

// Equal says whether two reservations are the same to Mesos, order of labels
// included.
func (a *Reservation) Equal(b *Reservation) bool {
	return a.Role == b.Role && a.Principal == b.Principal && a.Dynamic == b.Dynamic &&
		slices.Equal(a.Labels, b.Labels)
}

// Equal says whether two disk infos are the same to Mesos.
func (d *Disk) Equal(e *Disk) bool {
	if d == nil || e == nil {
		return d == e
	}
	return d.Source == e.Source && d.Root == e.Root && d.SourceID == e.SourceID &&
		d.Profile == e.Profile && d.Vendor == e.Vendor && slices.Equal(d.Metadata, e.Metadata) &&
		d.PersistenceID == e.PersistenceID && d.PersistencePrincipal == e.PersistencePrincipal &&
		d.ContainerPath == e.ContainerPath && d.ReadOnly == e.ReadOnly
}

// SameKind says whether two resources differ in nothing but their amounts:
// name, type, reservations, disk, provider and flags are equal. Amounts of such
// resources may be added and subtracted, save where Indivisible holds
// (src/common/resources.cpp, addable and subtractable).
func SameKind(a, b *Resource) bool {
	return a.Name == b.Name && a.Kind == b.Kind && a.AllocatedRole == b.AllocatedRole &&
		a.ProviderID == b.ProviderID && a.Shared == b.Shared && a.Revocable == b.Revocable &&
		slices.EqualFunc(a.Reservations, b.Reservations, func(x, y Reservation) bool { return x.Equal(&y) }) &&
		a.Disk.Equal(b.Disk)
}

// Indivisible says whether the resource can only be used whole: persistent
// volumes, MOUNT, BLOCK and RAW disks.
func (r *Resource) Indivisible() bool {
	if r.Disk == nil {
		return false
	}
	return r.IsPersistent() || r.Disk.Source == SourceMount || r.Disk.Source == SourceBlock ||
		r.Disk.Source == SourceRaw
}

// Reserve returns the resource with one more level on its reservation stack.
func (r Resource) Reserve(by Reservation) Resource {
	r.Reservations = append(slices.Clone(r.Reservations), by)
	return r
}

// Unreserve returns the resource without the last level of its reservation
// stack, which must not be empty.
func (r Resource) Unreserve() Resource {
	r.Reservations = slices.Clone(r.Reservations[:len(r.Reservations)-1])
	return r
}

// Persist returns the disk as a persistent volume.
func (r Resource) Persist(id, principal, containerPath string) Resource {
	d := Disk{}
	if r.Disk != nil {
		d = *r.Disk
	}
	d.PersistenceID, d.PersistencePrincipal, d.ContainerPath = id, principal, containerPath
	r.Disk = &d
	return r
}

// WithoutPersistence returns the disk that remains when the volume is
// destroyed: its disk information is reduced to the source.
func (r Resource) WithoutPersistence() Resource {
	if r.Disk == nil {
		return r
	}
	r.Shared = false
	if r.Disk.Source == SourceRoot && r.Disk.Profile == "" && r.Disk.SourceID == "" {
		r.Disk = nil
		return r
	}
	d := *r.Disk
	d.PersistenceID, d.PersistencePrincipal, d.ContainerPath, d.ReadOnly = "", "", "", false
	r.Disk = &d
	return r
}

// WithScalar returns the resource with another amount.
func (r Resource) WithScalar(m Milli) Resource {
	r.Scalar = m
	return r
}

// WithRanges returns the resource with other ranges.
func (r Resource) WithRanges(rs []Range) Resource {
	r.Ranges = rs
	return r
}
