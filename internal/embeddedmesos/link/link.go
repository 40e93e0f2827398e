// Package link is what the embedded master and its agents say to each other.
// The messages mirror those of src/messages/messages.proto of apache/mesos as
// far as a framework or operator can observe their effect; the transport is a
// pair of in-process queues that can be cut, so that partitions and frozen
// agents behave as they do on a network.
package link

import (
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
)

// Agent is the master's handle on one agent connection.
type Agent interface {
	// Name is the name of the cable that the agent is connected by.
	Name() string
	// Send queues a message for the agent; it never blocks. A message sent
	// over a cut link is lost, as over a broken connection.
	Send(ToAgent)
	// Closed is closed when the connection is known to be broken (the agent
	// process ended), not when it is merely partitioned. The Receiver's Lost
	// tells the same in order with the agent's messages.
	Closed() <-chan struct{}
}

// Master is an agent's handle on the master.
type Master interface {
	// Connect registers the agent's inbox and returns the sending side. When
	// the master goes away, inbox is closed; the agent still has to Close the
	// sender, then connects again.
	Connect(inbox chan<- ToAgent) Sender
}

// Sender carries an agent's messages to the master.
type Sender interface {
	Send(ToMaster)
	// Close tells the master that the agent's process ended, or the agent's
	// side of a connection that the master ended. It waits until inbox is
	// closed; no message follows. Closing twice is harmless.
	Close()
}

// ToAgent is a message from the master.
type ToAgent interface{ toAgent() }

// ToMaster is a message from an agent.
type ToMaster interface{ toMaster() }

// Process is what an agent process says of itself when it registers.
type Process struct {
	// PID is the libprocess address, as in "slave(1)@127.0.0.1:5051". The
	// master takes the URL in offers from it.
	PID          string
	Version      string
	Capabilities []mesos.AgentInfo_Capability
}

// Register asks for a new agent id.
type Register struct {
	Process Process
	Info    mesos.AgentInfo
	// Checkpointed are the dynamic reservations and persistent volumes that
	// the agent has on disk.
	Checkpointed []mesos.Resource
}

// Reregister announces an agent that has an id, after its own or the master's
// restart or after a partition.
type Reregister struct {
	Process      Process
	Info         mesos.AgentInfo
	Checkpointed []mesos.Resource
	Tasks        []Task
	Frameworks   []mesos.FrameworkInfo
	Operations   []OperationUpdate
}

// Task is a task as the agent knows it.
type Task struct {
	FrameworkID mesos.FrameworkID
	Info        mesos.TaskInfo
	State       mesos.TaskState
	// Latest is the last status that the agent has, acknowledged or not.
	Latest *mesos.TaskStatus
	// Statuses are all of them, oldest first; a master that does not know the
	// task takes its history from them.
	Statuses []mesos.TaskStatus
}

// Update is a status update; the agent repeats it until Acknowledge arrives.
type Update struct {
	FrameworkID mesos.FrameworkID
	Status      mesos.TaskStatus
	// LatestState is the state after all updates that are still queued.
	LatestState mesos.TaskState
}

// OperationUpdate is the outcome of an operation on the agent.
type OperationUpdate struct {
	FrameworkID mesos.FrameworkID
	UUID        []byte // of the operation, chosen by the master
	OperationID string // the framework's, may be empty
	Operation   mesos.Offer_Operation
	State       mesos.OperationState
	Message     string
	StatusUUID  []byte
}

// ExecutorExited tells that an executor ended.
type ExecutorExited struct {
	FrameworkID mesos.FrameworkID
	ExecutorID  mesos.ExecutorID
	Status      int32
}

// Pong answers Ping.
type Pong struct{}

// Unregister is sent by an agent that shuts down in good order.
type Unregister struct{}

// Registered gives a new agent its id.
type Registered struct {
	AgentID mesos.AgentID
	// PingTimeout is MasterSlaveConnection.total_ping_timeout_seconds: an
	// agent that gets no Ping for that long registers again, since the master
	// may have given it up.
	PingTimeout time.Duration
}

// Reregistered welcomes an agent back. Kill lists tasks that the agent must
// not have any more (of frameworks that were torn down).
type Reregistered struct {
	AgentID     mesos.AgentID
	PingTimeout time.Duration // as in Registered
	Kill        []KillTask
	// Reconcile lists tasks that the master has but the agent did not name:
	// their launch may have been lost. The agent answers for each that it
	// really does not know with an Update to TASK_DROPPED (TASK_LOST for a
	// framework that is not partition aware).
	Reconcile []ReconcileTask
}

// ReconcileTask names a task that the master asks the agent about.
type ReconcileTask struct {
	Framework mesos.FrameworkInfo
	TaskID    mesos.TaskID
}

// Run launches a task.
type Run struct {
	Framework mesos.FrameworkInfo
	Task      mesos.TaskInfo
}

// KillTask stops a task.
type KillTask struct {
	FrameworkID mesos.FrameworkID
	TaskID      mesos.TaskID
	KillPolicy  *mesos.KillPolicy
}

// Acknowledge ends the repetition of one update.
type Acknowledge struct {
	FrameworkID mesos.FrameworkID
	TaskID      mesos.TaskID
	UUID        []byte
}

// Apply has the agent carry out a reservation or volume operation.
type Apply struct {
	FrameworkID mesos.FrameworkID
	UUID        []byte
	Operation   mesos.Offer_Operation
}

// AcknowledgeOperation ends the repetition of one operation update.
type AcknowledgeOperation struct {
	UUID       []byte
	StatusUUID []byte
}

// ShutdownFramework kills all of a framework's tasks.
type ShutdownFramework struct{ FrameworkID mesos.FrameworkID }

// ShutdownAgent ends the agent and everything on it.
type ShutdownAgent struct{ Message string }

// Ping is the master's health check of the agent. Connected is false when the
// master takes the agent for disconnected: the agent then registers again.
type Ping struct{ Connected bool }

// Message is a framework message to an executor.
type Message struct {
	FrameworkID mesos.FrameworkID
	ExecutorID  mesos.ExecutorID
	Data        []byte
}

func (Register) toMaster()        {}
func (Reregister) toMaster()      {}
func (Update) toMaster()          {}
func (OperationUpdate) toMaster() {}
func (ExecutorExited) toMaster()  {}
func (Pong) toMaster()            {}
func (Unregister) toMaster()      {}

func (Registered) toAgent()           {}
func (Reregistered) toAgent()         {}
func (Run) toAgent()                  {}
func (KillTask) toAgent()             {}
func (Acknowledge) toAgent()          {}
func (Apply) toAgent()                {}
func (AcknowledgeOperation) toAgent() {}
func (ShutdownFramework) toAgent()    {}
func (ShutdownAgent) toAgent()        {}
func (Ping) toAgent()                 {}
func (Message) toAgent()              {}
