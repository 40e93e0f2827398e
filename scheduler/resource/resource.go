// Package resource models Mesos resources for the placement decision: scalars
// as integers in thousandths, ranges and sets, with the reservation stack and
// disk information that decide who may use them. It loses nothing of what a
// launch has to send back to the master, so an offered resource can be split
// and returned as part of an operation.
//
// Source: apache/mesos include/mesos/v1/mesos.proto, message Resource, in the
// format that a framework with RESERVATION_REFINEMENT receives.
package resource

// Milli is a scalar amount in thousandths of its unit (CPUs, MiB, GPUs). Mesos
// itself compares scalars with a precision of three decimal digits
// (src/common/values.cpp), so nothing is lost by the conversion.
type Milli int64

// Kind says which of the value fields of a Resource is in use.
type Kind uint8

// The value kinds of Mesos resources.
const (
	Scalar Kind = iota + 1
	Ranges
	Set
)

// Range is a closed interval of integers, as used for ports.
type Range struct {
	Begin, End uint64
}

// Label is a key with an optional value. Order is significant to Mesos when two
// reservations are compared, so labels are kept in a slice.
type Label struct {
	Key, Value string
}

// Reservation is one level of a resource's reservation stack.
type Reservation struct {
	Role      string
	Principal string
	Dynamic   bool
	Labels    []Label
}

// SourceType is the kind of a disk's backing storage.
type SourceType uint8

// The disk sources of Mesos. Root is the agent's work directory: it has no
// source message on the wire.
const (
	SourceRoot SourceType = iota
	SourcePath
	SourceMount
	SourceBlock
	SourceRaw
)

// Disk is the disk information of a resource named "disk".
type Disk struct {
	Source   SourceType
	Root     string // the path of a PATH or MOUNT source
	SourceID string // given by a storage resource provider
	Profile  string
	Vendor   string
	Metadata []Label

	// PersistenceID is empty for a disk that is not a persistent volume.
	PersistenceID        string
	PersistencePrincipal string
	ContainerPath        string
	ReadOnly             bool
}

// Resource is one entry of an offer. Values are immutable by convention:
// whoever changes one copies it first.
type Resource struct {
	Name string
	Kind Kind

	Scalar Milli
	Ranges []Range  // sorted, disjoint
	Items  []string // sorted

	// AllocatedRole is the role whose share the offer counts against
	// (allocation_info.role); empty outside of offers.
	AllocatedRole string
	// Reservations is the stack, outermost refinement last; empty means
	// unreserved.
	Reservations []Reservation
	Disk         *Disk
	ProviderID   string
	Shared       bool
	Revocable    bool
}
