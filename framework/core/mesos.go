package core

import (
	"context"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// Mesos is the connection to the master as the core uses it, free of wire
// types. The implementation subscribes, watches heartbeats and resubscribes on
// its own; events arrive in order through Events. Calls return when the master
// has accepted them (202) or with the error; they never block on the event
// stream.
type Mesos interface {
	// Run subscribes and keeps the subscription alive until ctx ends or an
	// error makes that pointless (ErrFrameworkRemoved). frameworkID is empty
	// for a new framework.
	Run(ctx context.Context, frameworkID string) error
	// Events is closed when Run returns.
	Events() <-chan Event

	Accept(ctx context.Context, a Accept) error
	Decline(ctx context.Context, offerIDs []string, refuse time.Duration) error
	// AnswerInverseOffers says whether the framework will have left the agents of
	// inverse offers when they become unavailable. The master may ask again after
	// refuse.
	AnswerInverseOffers(ctx context.Context, ids []string, accept bool, refuse time.Duration) error
	// Kill asks for a task to be stopped. agentID may be empty; grace nil
	// leaves the task's own kill policy.
	Kill(ctx context.Context, taskID, agentID string, grace *time.Duration) error
	// Acknowledge confirms a status that carries a UUID; others need none.
	Acknowledge(ctx context.Context, s Status) error
	AcknowledgeOperation(ctx context.Context, s OperationStatus) error
	// Reconcile asks for the state of the named tasks, of all when none is
	// named.
	Reconcile(ctx context.Context, tasks []TaskRef) error
	Suppress(ctx context.Context, roles []string) error
	Revive(ctx context.Context, roles []string) error
	// UpdateRoles changes the roles of the subscription; it resubscribes
	// where the master knows no UPDATE_FRAMEWORK. After a *RolesRefusedError
	// the subscription has all but the roles that it names.
	UpdateRoles(ctx context.Context, roles []string) error
	// Teardown removes the framework and kills all its tasks.
	Teardown(ctx context.Context) error
	// AgentRemoved asks the master's operator API whether it neither has the
	// agent registered nor expects it back.
	AgentRemoved(ctx context.Context, agentID string) (bool, error)
	// UnreachableTasks asks the master's operator API for the framework's tasks on
	// agents that are unreachable; reconciliation without names leaves them out.
	UnreachableTasks(ctx context.Context) ([]Status, error)
}

// TaskRef names a task for reconciliation.
type TaskRef struct {
	TaskID, AgentID string
}

// Accept is one ACCEPT call: operations on the offers of one agent.
type Accept struct {
	OfferIDs   []string
	AgentID    string
	Operations []Operation
	Refuse     time.Duration
}

// Operation is one offer operation of an Accept. For OpLaunch Task is set,
// otherwise Resources and ID (an operation id for feedback, may be empty).
type Operation struct {
	Kind      scheduler.OperationKind
	ID        string
	Resources []resource.Resource
	Task      *Task
}

// Task is everything that makes a TaskInfo: the definition, the names and what
// the scheduler chose.
type Task struct {
	ID         string // <safe path>.instance-<uuid>._app.<incarnation>
	InstanceID string
	AgentID    string
	Hostname   string
	App        *app.App
	Resources  []resource.Resource
	Ports      []uint32 // host ports in the order of the app's ports
	// VolumeOptions are extra driver options per index of
	// App.Container.Volumes, for the engine (dvdi.*); nil for none.
	VolumeOptions map[int]map[string]string
	// SecretValues resolves App.Secrets by name.
	SecretValues map[string]string
}

// Event is anything that arrives from the master.
type Event interface{ event() }

// Subscribed is the first event of each subscription.
type Subscribed struct {
	FrameworkID       string
	MasterID          string
	MasterAddress     string // host:port
	MasterVersion     string
	Region            string // the master's own region, empty if none
	HeartbeatInterval time.Duration
	// StreamID fences calls: those of an older subscription fail.
	StreamID string
	// Roles are those of the subscription: not all that were asked for where
	// the master refused these together.
	Roles []string
}

// Disconnected tells that the subscription ended; offers are void.
type Disconnected struct{ Cause error }

// Offers holds new offers.
type Offers struct{ Offers []scheduler.Offer }

// Rescind withdraws an offer.
type Rescind struct{ OfferID string }

// InverseOffers ask whether the framework will have left agents in time.
type InverseOffers struct{ Offers []InverseOffer }

// InverseOffer is about one agent: it becomes unavailable At, for as long as For
// says; 0 is without end.
type InverseOffer struct {
	ID, AgentID string
	At          time.Time
	For         time.Duration
}

// Failure tells that an agent was removed from the cluster, or, with an
// ExecutorID, that an executor ended.
type Failure struct {
	AgentID    string
	ExecutorID string
}

// Status is a task status update.
type Status struct {
	TaskID      string
	AgentID     string
	State       string // TASK_*
	Source      string // SOURCE_*
	Reason      string // REASON_*, empty if none
	Message     string
	UUID        []byte // empty: nothing to acknowledge
	Healthy     *bool
	Time        time.Time
	IPs         []string
	ContainerID string
	// Check is the result of App.Check, nil if none.
	Check *CheckResult
}

// CheckResult is the latest result of a general check.
type CheckResult struct {
	HTTPStatus   *int
	TCPSucceeded *bool
	ExitCode     *int
}

// OperationStatus is the outcome of an operation that carried an id.
type OperationStatus struct {
	OperationID string
	AgentID     string
	ProviderID  string
	State       string // OPERATION_*
	Message     string
	UUID        []byte
}

// MasterError is the master's ERROR event: the subscription is over.
type MasterError struct{ Message string }

func (Subscribed) event()      {}
func (Disconnected) event()    {}
func (Offers) event()          {}
func (Rescind) event()         {}
func (InverseOffers) event()   {}
func (Failure) event()         {}
func (Status) event()          {}
func (OperationStatus) event() {}
func (MasterError) event()     {}
