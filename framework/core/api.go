package core

import (
	"context"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// Service is what the REST API needs of the core. All methods may be called
// concurrently; each returns after its effect is committed to the store.
// Returned values are snapshots that the caller may keep but not change.
//
// Errors: *NotFoundError, *ConflictError, *LockedError and *app.ValidationError
// for the client; anything else is the server's.
type Service interface {
	Info() Info
	Apps(ctx context.Context) ([]AppView, error)
	App(ctx context.Context, id app.ID) (AppView, error)
	Versions(ctx context.Context, id app.ID) ([]app.Timestamp, error) // newest first
	AppVersion(ctx context.Context, id app.ID, v app.Timestamp) (*app.App, error)

	// Change applies a set of app changes as one deployment, all or nothing.
	Change(ctx context.Context, c Change) (DeploymentRef, error)
	// Plan returns the steps of the deployment that Change would make, none where
	// nothing changes, or why it would be refused. Locks do not matter to it.
	Plan(ctx context.Context, c Change) ([][]Action, error)
	// Restart replaces all instances without a change of definition.
	Restart(ctx context.Context, id app.ID, force bool) (DeploymentRef, error)
	// KillTasks stops tasks; see Kill.
	KillTasks(ctx context.Context, k Kill) ([]TaskView, *DeploymentRef, error)

	Deployments(ctx context.Context) ([]DeploymentView, error)
	// CancelDeployment stops a deployment: with force at once, else by a
	// deployment that reverts it.
	CancelDeployment(ctx context.Context, id string, force bool) (*DeploymentRef, error)

	Queue(ctx context.Context) ([]QueueView, error)
	ResetDelay(ctx context.Context, id app.ID) error

	Claims(ctx context.Context) ([]ClaimView, error)
	// PersistentVolumes are the Mesos persistent volumes of all apps.
	PersistentVolumes(ctx context.Context) ([]PersistentView, error)
	// ReleaseClaim ends a claim by an operator's force; it is logged.
	ReleaseClaim(ctx context.Context, key scheduler.VolumeKey, force bool) error
	// Removals are the volumes that are to be removed and that nobody claims.
	Removals(ctx context.Context) ([]RemovalView, error)
	// Bound are the volumes that can be used in one place only and that nobody
	// claims or removes.
	Bound(ctx context.Context) ([]BoundView, error)
	// Leftovers are the reservations with our labels that nothing runs on.
	Leftovers(ctx context.Context) ([]LeftoverView, error)
	// KeepVolume has a volume kept that is to be removed, whether claimed or not.
	KeepVolume(ctx context.Context, key scheduler.VolumeKey) error
	// ClaimUsed records where another framework's app that is being taken
	// over used a volume last: it stays there until it is known to be
	// unmounted. It is a ConflictError if the volume is claimed elsewhere.
	ClaimUsed(ctx context.Context, key scheduler.VolumeKey, use Use) error

	// Subscribe delivers events until ctx ends. The channel is closed when
	// the subscriber is too slow: buffer is how many may be outstanding.
	Subscribe(ctx context.Context, buffer int) <-chan BusEvent
	// Publish delivers an event that arose outside of the core, such as
	// api_post_event.
	Publish(ev BusEvent)
}

// Info is what GET /v2/info shows of the core.
type Info struct {
	FrameworkID string
	Elected     bool
	Leader      string
	Master      string
	Connected   bool
}

// Change is a set of app changes that become one deployment.
type Change struct {
	// Upsert are canonical definitions without Version; Delete are app ids.
	Upsert []*app.App
	Delete []app.ID
	// CreateOnly refuses ids that exist (ConflictError).
	CreateOnly bool
	// Base, where it has an id, is the version that the definition in Upsert
	// was derived from, zero if there was none. If another one is current now
	// the change fails with ErrStale and nothing happens.
	Base map[app.ID]app.Timestamp
	// Force cancels deployments that lock an affected app.
	Force bool
	// Wipe destroys the persistent volumes of the apps in Delete. Without it they
	// are kept for an app of the same id that is created later.
	Wipe bool
}

// DeploymentRef names a started deployment.
type DeploymentRef struct {
	ID      string        `json:"deploymentId"`
	Version app.Timestamp `json:"version"`
}

// Kill selects tasks to stop. TaskIDs empty means all tasks of App (on Host if
// that is not empty).
type Kill struct {
	App     app.ID
	TaskIDs []string
	Host    string
	Scale   bool // also lower the app's instances
	Wipe    bool // also give up reservations and persistent volumes
	Force   bool
}

// AppView is an app with its run-time state.
type AppView struct {
	App         *app.App
	Tasks       []TaskView
	Deployments []string
	LastFailure *TaskFailure
	Staged      int
	Running     int
	Healthy     int
	Unhealthy   int
	// KeptSince is the version since which all are kept, the zero time if none has
	// been dropped.
	KeptSince app.Timestamp
}

// TaskView is a task as the API shows it (contract 1.2).
type TaskView struct {
	ID         string
	InstanceID string
	AppID      app.ID
	Host       string
	AgentID    string
	State      string
	StagedAt   time.Time
	StartedAt  time.Time // zero: not yet
	Version    app.Timestamp
	Ports      []uint32
	IPs        []string
	Health     []HealthView
	Check      *CheckResult
	Region     string
	Zone       string
	Role       string
	// Local are the instance's persistent volumes.
	Local []LocalVolume
}

// LocalVolume is a persistent volume of an instance.
type LocalVolume struct {
	ContainerPath string
	PersistenceID string
}

// HealthView is the state of one health check of a task.
type HealthView struct {
	Alive               bool
	ConsecutiveFailures int
	FirstSuccess        time.Time
	LastSuccess         time.Time
	LastFailure         time.Time
	LastFailureCause    string
}

// TaskFailure is the last failure of an app.
type TaskFailure struct {
	AppID     app.ID
	Host      string
	Message   string
	State     string
	TaskID    string
	Timestamp app.Timestamp
	Version   app.Timestamp
	AgentID   string
}

// DeploymentView is a running deployment (contract 1.5).
type DeploymentView struct {
	ID      string
	Version app.Timestamp
	Apps    []app.ID
	Steps   [][]Action
	// Current is the index of the current step, from 1; 0 before the first.
	Current   int
	Readiness []ReadinessView
}

// Action is one action of a deployment's step.
type Action struct {
	Kind string // StartApplication, StopApplication, ScaleApplication, RestartApplication
	App  app.ID
}

// ReadinessView is the state of one readiness check of a task.
type ReadinessView struct {
	AppID      app.ID
	Name       string
	TaskID     string
	Ready      bool
	LastStatus int
	LastType   string
	LastBody   string
}

// QueueView is what waits to be launched of one app.
type QueueView struct {
	App     *app.App
	Count   int
	Role    string
	Since   time.Time
	Delay   time.Duration // back-off that is left
	Waiting []scheduler.Waiting
	// Processed and Unused count the offers looked at and not used;
	// LastUnused and LastUsed are when that last happened.
	Processed, Unused    int
	LastUnused, LastUsed time.Time
}

// ClaimView is a claim on an exclusive volume as shown to an operator.
type ClaimView struct {
	Claim scheduler.Claim
	Apps  []app.ID
	Since time.Time
	// Text says in words who holds the volume and what would end it.
	Text string
	// Removal is set if the volume is to be removed when the claim has ended.
	Removal *RemovalView
}

// RemovalView is a volume that is to be removed since nobody owns it any more.
type RemovalView struct {
	Key scheduler.VolumeKey
	// App had it last, on that agent and under that epoch.
	App               app.ID
	AgentID, Hostname string
	Epoch             uint64
	// Since is when it was decided, Why what the reason was.
	Since time.Time
	Why   string
	// Problem says why the latest attempt came to nothing, Next when it is tried
	// again.
	Problem string
	Next    time.Time
	// Text says all that in words, and how to keep the volume.
	Text string
}

// BusEvent is one event for GET /v2/events (contract 8). Data marshals to the
// JSON of the event, eventType and timestamp included.
type BusEvent struct {
	Type string
	Data any
	// Extension: Marathon has no such event, and some of its clients end with an
	// error at a type that they do not know. Only who asks for it gets it.
	Extension bool
}
