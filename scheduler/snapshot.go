package scheduler

import (
	"time"

	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// Snapshot is everything that a decision may depend on. Decide reads no clock
// and no other state: the same Snapshot always gives the same Plan, whatever
// the order of its slices.
type Snapshot struct {
	// Now is the time of the decision; all deadlines compare against it.
	Now time.Time
	// Seed breaks ties between agents that are otherwise equal.
	Seed uint64
	// Policy holds the cluster-wide settings.
	Policy Policy

	Offers  []Offer
	Pending []Instance // instances that want to be launched
	Placed  []Placed   // instances that have an agent, running or about to
	Claims  []Claim
	Volumes []VolumeFact
	Agents  []AgentFact
	Roles   []RoleState // offer flow per role, for suppress and revive
	// Kinds are what placed instances that can be moved ask for when they are
	// pending again, by Placed.Kind. Of a kind only what its instances have in
	// common is looked at: neither its id nor the names of its volumes.
	Kinds map[string]Instance `json:",omitempty"`

	// Known are instances that are neither pending nor placed but keep their
	// reservation and volumes, as stopped ones do.
	Known []string
	// Homes are the reservations of instances in Known and Placed, by their ids.
	// What shows of such an instance on another agent came late, when it had been
	// given up: data is listed in Plan.Leftovers, the rest unreserved. Of an
	// instance that is not named here everything is kept, wherever it shows.
	Homes map[string]ReservationState `json:",omitempty"`
	// Wiped are instances whose data the user has asked to be destroyed: what
	// carries our labels and their id is destroyed and unreserved. An id leaves
	// this list when the caller is satisfied that nothing remains.
	Wiped []string
}

// LabelFormat says by which labels a reservation is known to be ours and whose
// it is.
type LabelFormat struct {
	FrameworkKey, FrameworkID string // both must match
	InstanceKey               string // its value is the instance's id
}

// Policy holds the cluster-wide settings of placement.
type Policy struct {
	// Refuse is how long a declined offer is refused when nothing waits that
	// it could ever serve. RefuseWaiting is the same when something waits.
	Refuse, RefuseWaiting time.Duration
	// Wait bounds the delay per preference step for instances that set none.
	Wait Wait
	// Pack prefers fuller agents over emptier ones when all else is equal.
	Pack bool
	// LocalRegion is the master's region: offers from another region need an
	// @region or @zone constraint (Marathon's rule). Empty: no such rule.
	LocalRegion string
	// MaintenanceMargin is how long before an agent's unavailability starts
	// its offers are no longer used. Negative: maintenance is ignored.
	MaintenanceMargin time.Duration
	// MaxInstancesPerOffer bounds launches per agent and round; 0 is no bound.
	MaxInstancesPerOffer int
	// RestrictGPUAgents keeps instances without GPUs off agents that have
	// them (Marathon's --gpu_scheduling_behavior=restricted).
	RestrictGPUAgents bool
	// NoSuppress keeps offers coming when nothing waits.
	NoSuppress bool
	// RefuseUnfit is how long an offer is refused when something waits that
	// could not run on that agent as it is (wrong attribute, driver missing,
	// maintenance) or is bound to another (by a claim, a reservation, data that
	// is there). Zero means RefuseWaiting. Whoever sets it keeps
	// RoleState.FilteredAt and revives when a claim ends, or what waits would
	// wait as long for those agents.
	RefuseUnfit time.Duration

	// Principal is put on reservations and volumes that are made.
	Principal string
	// Ours lists the label formats of reservations that belong to this
	// framework. The second and later ones are those of frameworks that were
	// taken over (Marathon's marathon_framework_id and marathon_task_id). A
	// reservation that matches none is never touched.
	Ours []LabelFormat
	// ReleaseUnknown unreserves resources with our labels that name an instance
	// which is not in the snapshot, unless they hold a volume: data is only
	// destroyed for Snapshot.Wiped.
	ReleaseUnknown bool
	// ReservationTimeout is when a reservation that no offer shows is given up,
	// counted by the caller into ReservationState.Deadline.
	ReservationTimeout time.Duration

	// MaxMoves bounds how many instances may be on the move at a time, 0 means
	// that none is ever stopped to be moved. Drain moves instances off draining
	// agents; Balance moves one where an agent has at least so many more
	// instances than another that would take it, 0 means never; with Pack it
	// never does, since what packing has put together would be moved for ever.
	MaxMoves int
	Drain    bool
	Balance  int
}

// Wait says how long an instance waits for a better agent, measured from
// Instance.WaitFrom, before the next worse step is acceptable (delay scheduling,
// Zaharia et al., EuroSys 2010). Zero means not to wait at that step.
type Wait struct {
	Attached     time.Duration // for an agent where all its volumes are attached
	LastAttached time.Duration // for the agent where they were last
	Replica      time.Duration // for an agent with a replica of the data
	Zone         time.Duration // for an agent in the volume's zone
}

// RoleState is the offer flow of one role that the framework subscribed with.
type RoleState struct {
	Role       string
	Suppressed bool
	// FilteredAt is when offers were last declined for longer than
	// Policy.RefuseWaiting since the last revive; zero if they were not. A
	// revive clears it. Something that began to wait later asks for a revive.
	FilteredAt time.Time
}

// Offer is one Mesos offer. Its zero-valued optional fields mean "absent".
type Offer struct {
	ID        string
	AgentID   string
	Hostname  string
	Region    string
	Zone      string
	Resources []resource.Resource
	// Attributes holds the agent's attributes, rendered as Marathon compares
	// them (text as is; scalars with at most three decimals; sorted ranges and
	// sets in brackets and braces).
	Attributes map[string]string
	// UnavailableFrom is the start of announced maintenance, zero if none;
	// UnavailableFor is its length, zero meaning without end.
	UnavailableFrom time.Time
	UnavailableFor  time.Duration
}

// Instance is one instance of an app that wants to run. It is self-contained:
// everything the decision needs is in it.
type Instance struct {
	// ID is stable for the instance's life; claims and reservations name it.
	ID  string
	App string
	// AppInstances is how many instances the app is to have, which GROUP_BY
	// spreads; where more are placed and pending, these count.
	AppInstances int
	// Role is the role whose resources are used; AcceptUnreserved and
	// AcceptReserved restrict to resources reserved for "*" or for Role. With
	// neither set both are accepted (an app without acceptedResourceRoles).
	Role             string
	AcceptUnreserved bool
	AcceptReserved   bool

	CPUs, Mem, Disk, GPUs resource.Milli
	Ports                 []Port
	Constraints           []Constraint
	Volumes               []VolumeRequest
	Persistent            []PersistentRequest

	// Since is when the instance began to wait; NotBefore is when its back-off
	// ends.
	Since     time.Time
	NotBefore time.Time
	// WaitFrom is when the instance could first be launched, from which Wait counts:
	// no time in which it could not be launched anywhere is spent on waiting for a
	// better agent. Zero, or before Since: from Since.
	WaitFrom time.Time `json:",omitzero"`
	// Wait overrides Policy.Wait when not nil.
	Wait *Wait
	// Avoid is an agent that the instance was moved off (Plan.Kills): it does
	// not go back there before AvoidUntil, even where its volume was last.
	Avoid      string
	AvoidUntil time.Time
	// GPUUnrestricted lifts Policy.RestrictGPUAgents for this instance.
	GPUUnrestricted bool
	// Labels are put on reservations that are made for this instance.
	Labels []resource.Label
	// Reservation is what the instance has reserved and created, nil if none.
	Reservation *ReservationState
}

// Port is a host port that an instance needs: a fixed number, or 0 for any.
type Port struct {
	Number uint32
}

// Operator is a placement constraint's operator, with Marathon's names.
type Operator string

// Marathon's constraint operators.
const (
	Unique  Operator = "UNIQUE"
	Cluster Operator = "CLUSTER"
	GroupBy Operator = "GROUP_BY"
	Like    Operator = "LIKE"
	Unlike  Operator = "UNLIKE"
	MaxPer  Operator = "MAX_PER"
	Is      Operator = "IS"
)

// Constraint restricts agents by a field: "hostname" or "@hostname",
// "@region", "@zone", or the name of an agent attribute.
type Constraint struct {
	Field    string
	Operator Operator
	Value    string
}

// AccessMode says who may use a volume at the same time.
type AccessMode uint8

// The access modes. OneAgent is ReadWriteOnce: several tasks, but only on one
// agent, and only if each of them says so. OneTask is ReadWriteOncePod.
const (
	OneTask AccessMode = iota
	OneAgent
	ManyReaders
	ManyWriters
)

// VolumeKey identifies an external volume in the cluster.
type VolumeKey struct {
	Driver, Name string
}

// VolumeRequest is an external volume that an instance mounts.
type VolumeRequest struct {
	Key    VolumeKey
	Access AccessMode
	// ReadOnly is set where the instance only reads.
	ReadOnly bool
	// BackendExclusive says that the backend itself refuses a second
	// attachment, so a claim may be replaced before the old one is seen gone.
	BackendExclusive bool
}

// PersistentRequest is a Mesos persistent volume that an instance needs.
type PersistentRequest struct {
	// PersistenceID is chosen by the caller before the first attempt.
	PersistenceID string
	ContainerPath string
	Source        resource.SourceType
	Size, MaxSize resource.Milli // MiB in thousandths; MaxSize 0 is no bound
	Profile       string
	Constraints   []Constraint // field "path", LIKE or UNLIKE
	// Shared volumes may be used by several tasks on one agent: instances that
	// name the same PersistenceID have the volume together. AgentID is where it
	// is, as far as the caller knows; empty: it does not exist yet, unless an
	// offer shows it. Destroying one is the caller's to time: Mesos refuses that
	// while a task uses it.
	Shared  bool
	AgentID string `json:",omitempty"`
	// Labels are put on the reservation of a shared volume, which outlives the
	// instance that makes it; empty: those of the instance.
	Labels []resource.Label `json:",omitempty"`
}

// ReservationState is an instance's own reservation on an agent.
type ReservationState struct {
	AgentID string
	// Hostname is the agent's, by which it is known again when it comes back with
	// a new id; empty: it is not.
	Hostname       string `json:",omitempty"`
	PersistenceIDs []string
	// Deadline is when a reservation that never appeared in an offer is given
	// up; zero once it has been seen.
	Deadline time.Time
	// GivenUp are agents on which earlier reservations were given up: what shows
	// there came late, even where the host has the agent's name.
	GivenUp []string `json:",omitempty"`
}

// Placed is an instance that has an agent. Constraints and spread count them.
type Placed struct {
	ID       string
	App      string
	AgentID  string
	Hostname string
	Region   string
	Zone     string
	// Attributes are those of the agent at launch.
	Attributes map[string]string
	// Counts says whether constraints see it (Marathon counts only instances
	// of the current configuration).
	Counts bool

	// Movable instances may be stopped to be started elsewhere; Since is when
	// they were launched. CPUs and Mem is what they use.
	Movable   bool
	Since     time.Time
	CPUs, Mem resource.Milli
	// Moving is set from the kill of a move until the instance runs again.
	Moving bool
	// Kind says in Snapshot.Kinds what it asks for, so that it is moved only
	// where it could run; empty or unknown: its cpus and memory are all that is
	// known. VolumeZone is where its volumes can be attached, empty for anywhere.
	Kind       string `json:",omitempty"`
	VolumeZone string `json:",omitempty"`
}

// ClaimState is the state of a claim on an exclusive volume.
type ClaimState uint8

// The states of a claim. Held: a task may be using the volume. Releasing: its
// tasks are terminal but nobody has confirmed that the volume is unmounted.
// Lost: the agent is unreachable. Fenced: a fence that can be trusted expires
// at Claim.FenceAt.
const (
	Held ClaimState = iota
	Releasing
	Lost
	Fenced
)

// Claim binds an exclusive volume to one agent. While it lives the volume may
// be used on that agent only.
type Claim struct {
	Key       VolumeKey
	AgentID   string
	Hostname  string
	Access    AccessMode
	Instances []string // ids of the instances that hold it, live ones only
	Epoch     uint64
	State     ClaimState
	FenceAt   time.Time
}

// VolumeFact is what is known of an external volume beyond its claim.
type VolumeFact struct {
	Key VolumeKey
	// AttachedTo names the agents on which a bridge reports it mounted.
	AttachedTo []string
	// LastAgent and LastHostname are where it was last used.
	LastAgent    string
	LastHostname string
	Replicas     []string // agent ids or host names with a copy of the data
	Zone         string
	Local        bool // scope "local": bound to LastAgent
}

// AgentFact is what a bridge, or the master, tells about an agent.
type AgentFact struct {
	AgentID string
	// Known is false when no bridge answered: then Drivers says nothing.
	Known   bool
	Drivers []DriverFact
	Zone    string
	// Draining agents take no new instances.
	Draining bool
}

// DriverFact is the state of one volume driver on an agent.
type DriverFact struct {
	Name    string
	Healthy bool
	// AttachLimit is how many volumes the agent can attach; 0 is no limit.
	AttachLimit int
	Attached    int
}
