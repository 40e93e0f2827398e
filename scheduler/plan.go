package scheduler

import (
	"time"

	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// Plan is what should be done now. It is safe to apply in order: accepts,
// declines, kills, then the change of offer flow.
type Plan struct {
	Accepts  []Accept
	Declines []Decline
	Kills    []Kill
	Suppress []string // roles whose offers are to be stopped
	Revive   []string // roles whose offers are to be asked for again
	// Waiting has one entry for each pending instance that is not launched by
	// this plan, with the reasons.
	Waiting []Waiting
	// Expired are instances whose reservation never came: the caller forgets
	// the reservation and tries afresh.
	Expired []string
	// Leftovers are reservations with our labels which this plan does not release:
	// of instances that are not in the snapshot, and volumes of those that have
	// their own on another agent.
	Leftovers []Leftover
}

// Leftover is something of ours on an agent that no instance runs on.
type Leftover struct {
	AgentID, Hostname string
	InstanceID        string
	PersistenceIDs    []string
	Resources         []resource.Resource
}

// Accept uses all named offers, which are of one agent, in one ACCEPT call.
// What the operations leave over is declined with Refuse.
type Accept struct {
	AgentID    string
	Hostname   string
	OfferIDs   []string
	Operations []Operation
	Refuse     time.Duration
}

// OperationKind is the kind of an offer operation.
type OperationKind uint8

// The offer operations that a plan can hold.
const (
	OpLaunch OperationKind = iota + 1
	OpReserve
	OpUnreserve
	OpCreate
	OpDestroy
)

// Operation is one offer operation. Resources are those reserved, unreserved,
// created or destroyed; for a launch they are in Launch.
type Operation struct {
	Kind       OperationKind
	InstanceID string
	Resources  []resource.Resource
	Launch     *Launch
}

// Launch puts one instance on the agent of the Accept that holds it.
type Launch struct {
	InstanceID string
	// Resources is what the task uses, cut from the offers.
	Resources []resource.Resource
	// Ports are the host ports in the order of Instance.Ports.
	Ports []uint32
	// Why is the reason for this agent in words for the log and the user.
	Why string
}

// Decline refuses offers, of any agents, for a time: one DECLINE call.
type Decline struct {
	OfferIDs []string
	Refuse   time.Duration
}

// Kill asks for an instance to be stopped so that it can run elsewhere. The
// caller sets Instance.Avoid to AgentID when the instance is pending again.
type Kill struct {
	InstanceID string
	AgentID    string // where it runs now
	Why        string
}

// Reason is why an offer was not used for an instance. Those that Marathon
// knows keep its names (GET /v2/queue).
type Reason string

// The reasons, in the order in which they are tested.
const (
	UnfulfilledRole         Reason = "UnfulfilledRole"
	UnfulfilledConstraint   Reason = "UnfulfilledConstraint"
	NoReservationFound      Reason = "NoCorrespondingReservationFound"
	AgentMaintenance        Reason = "AgentMaintenance"
	DriverMissing           Reason = "DriverMissing"
	VolumeHeldElsewhere     Reason = "VolumeHeldElsewhere"
	VolumeReleasing         Reason = "VolumeReleasing"
	FenceNotExpired         Reason = "FenceNotExpired"
	VolumeIsLocal           Reason = "VolumeLocalElsewhere"
	WrongZone               Reason = "WrongZone"
	AttachLimit             Reason = "AttachLimit"
	WaitingForPreferred     Reason = "WaitingForPreferredAgent"
	LaunchLimit             Reason = "AgentLaunchLimit"
	InsufficientCPUs        Reason = "InsufficientCpus"
	InsufficientMemory      Reason = "InsufficientMemory"
	InsufficientDisk        Reason = "InsufficientDisk"
	InsufficientGPUs        Reason = "InsufficientGpus"
	InsufficientPorts       Reason = "InsufficientPorts"
	DeclinedScarceResources Reason = "DeclinedScarceResources"
	BackingOff              Reason = "BackingOff"
	NoOffers                Reason = "NoOffers"
)

// Waiting explains why an instance is not launched.
type Waiting struct {
	InstanceID string
	// Offers is how many agents were looked at, an agent once per role that it
	// offers to; Counts says how many of them failed at each reason first. Where
	// very much waits this is a sample of the agents.
	Offers int
	Counts []ReasonCount
	// Text is the explanation for a person: what it waits for and what would
	// end the wait.
	Text string
	// Best is the agent that came closest, empty if there was none, and Lacks
	// what it lacks.
	Best  string
	Lacks []string
	// Until is when waiting would end by time alone, zero if it would not.
	Until time.Time
}

// ReasonCount is how often a reason applied.
type ReasonCount struct {
	Reason Reason
	Agents int
}
