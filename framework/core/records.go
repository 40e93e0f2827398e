package core

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/scheduler"
	"github.com/mesos-dvdi/dvdi/scheduler/resource"
)

// The kinds of records in the store. Their JSON is the format that
// store.FormatVersion counts.
const (
	kindMeta       = "meta"
	kindApp        = "app"
	kindVersion    = "version"
	kindInstance   = "instance"
	kindDeployment = "deployment"
	kindVolume     = "volume"
)

// metaKey is the key of the only record of kindMeta.
const metaKey = "framework"

// metaRecord is about the framework as a whole.
type metaRecord struct {
	FrameworkID string `json:"frameworkId,omitempty"`
	// FormerIDs are ids that the framework had before: reservations that carry
	// them are its own.
	FormerIDs []string `json:"formerIds,omitempty"`
	// Sequence numbers deployments, so that their order survives a restart.
	Sequence uint64 `json:"sequence"`
	// RestoredAt is when a backup last took the place of the state. It is
	// Unsettled until the tasks that the backup does not know have had time to
	// show up.
	RestoredAt time.Time `json:"restoredAt,omitzero"`
	Unsettled  bool      `json:"unsettled,omitempty"`
}

// appRecord is an app with what is remembered of it between its tasks.
type appRecord struct {
	App         *app.App     `json:"app"`
	LastFailure *TaskFailure `json:"lastFailure,omitempty"`
	Backoff     backoff      `json:"backoff"`
}

// phase is how far an instance got with its current task.
type phase string

const (
	// waiting instances have no task and want one.
	waiting phase = "waiting"
	// launching instances have a task that nobody has confirmed: the launch is
	// about to be sent, on its way, or was lost.
	launching phase = "launching"
	// active instances have a task with a status that is not terminal.
	active phase = "active"
	// suspended instances have no task and want none; their reservation and
	// volumes are kept. wiping ones are to lose these.
	suspended phase = "suspended"
	wiping    phase = "wiping"
)

// instance is one instance of an app. Its id stays the same over relaunches of
// the same configuration; each launch has its own task.
type instance struct {
	ID      string        `json:"id"`
	App     app.ID        `json:"app"`
	Version app.Timestamp `json:"version"` // of the definition to run
	// Config is the time of the definition's last change other than scaling:
	// instances with the same Config need not be replaced by each other.
	Config app.Timestamp `json:"config"`
	Phase  phase         `json:"phase"`
	Since  time.Time     `json:"since"` // start of the current phase
	// Ready is when it could first be launched since it waits, noted when the app's
	// back-off is prolonged; zero if it never was.
	Ready       time.Time `json:"ready,omitzero"`
	Incarnation int       `json:"incarnation"`
	// Ordinal tells the instances of an app apart, from 0; it names the volumes
	// that each has for itself. Two have the same only while one of them is
	// lost or to be given up.
	Ordinal int `json:"ordinal,omitempty"`
	// Stop: it shall end and not run again.
	Stop bool `json:"stop,omitempty"`
	// Forgotten instances do not count for their app any more. They are kept
	// because a task that may still run holds a volume.
	Forgotten bool  `json:"forgotten,omitempty"`
	Left      bool  `json:"left,omitempty"` // a stray whose app is not known: it is left alone
	Task      *task `json:"task,omitempty"` // nil while waiting
	// Local are the persistent volumes of a resident instance, Reserved where it
	// has them, nil if nowhere. Wipe: they are to be destroyed when it ends.
	Local    []localVolume `json:"local,omitempty"`
	Reserved *reservation  `json:"reserved,omitempty"`
	Wipe     bool          `json:"wipe,omitempty"`
	// Former are the volumes on an agent that was marked gone, nil if there are
	// none. GivenUp are the agents on which reservations were given up that did not
	// come in time: they may come yet.
	Former  *formerVolumes `json:"former,omitempty"`
	GivenUp []string       `json:"givenUp,omitempty"`
	// Moved is the agent that it was stopped to be moved off, and when.
	Moved *moved `json:"moved,omitempty"`
}

// task is the current task of an instance.
type task struct {
	ID         string            `json:"id"`
	AgentID    string            `json:"agentId"`
	Hostname   string            `json:"hostname"`
	Region     string            `json:"region,omitempty"`
	Zone       string            `json:"zone,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
	Role       string            `json:"role"`
	Ports      []uint32          `json:"ports,omitempty"`
	CPUs       resource.Milli    `json:"cpus,omitempty"` // what it uses, for moves
	Mem        resource.Milli    `json:"mem,omitempty"`
	IPs        []string          `json:"ips,omitempty"`
	State      string            `json:"state"` // TASK_*
	StagedAt   time.Time         `json:"stagedAt"`
	StartedAt  time.Time         `json:"startedAt,omitzero"`
	// Health are the results of the app's health checks by their index.
	Health map[int]*HealthView `json:"health,omitempty"`
	Ready  bool                `json:"ready,omitempty"`
	Check  *CheckResult        `json:"check,omitempty"`
	// Volumes are the exclusive volumes that it may have mounted.
	Volumes []scheduler.VolumeKey `json:"volumes,omitempty"`
	// LostSince is when its agent became unreachable, zero if it is not.
	LostSince time.Time `json:"lostSince,omitzero"`
	// KillWhy says why it is to be killed, empty if it is not; KillSent is
	// when that was last asked for.
	KillWhy  string    `json:"killWhy,omitempty"`
	KillSent time.Time `json:"killSent,omitzero"`
}

// deployment is a running deployment.
type deployment struct {
	ID       string               `json:"id"`
	Sequence uint64               `json:"sequence"`
	Version  app.Timestamp        `json:"version"`
	Steps    [][]Action           `json:"steps"`
	Current  int                  `json:"current"` // index of the current step
	Changes  map[app.ID]appChange `json:"changes"`

	// byApp are the actions of Steps by app, made when they are first asked for.
	byApp map[app.ID][]stepAction
}

// appChange is what a deployment does to one app: nil means that the app does
// not exist before or after it.
type appChange struct {
	From *app.App `json:"from,omitempty"`
	To   *app.App `json:"to,omitempty"`
}

// volumeRecord is what is remembered of an exclusive volume. It outlives the
// apps that use the volume.
type volumeRecord struct {
	Key scheduler.VolumeKey `json:"key"`
	// Epoch counts the claims on the volume and grows for ever.
	Epoch uint64 `json:"epoch"`
	// Claim is nil while nobody can be using the volume.
	Claim *claim `json:"claim,omitempty"`
	// Ending is the agent on which a task of a former framework id may still be
	// ending with it, empty if none is.
	Ending string `json:"ending,omitempty"`
	// LastAgent and LastHostname are where it was last claimed.
	LastAgent    string `json:"lastAgent,omitempty"`
	LastHostname string `json:"lastHostname,omitempty"`
	// Home is where it is, nil if it may be used anywhere as far as is known.
	Home *home `json:"home,omitempty"`
	// Reclaim is set while the volume's class says that it is not kept.
	Reclaim *reclaim `json:"reclaim,omitempty"`
}

// claim says that a volume may be in use on one agent, and only there.
type claim struct {
	AgentID  string               `json:"agentId"`
	Hostname string               `json:"hostname"`
	Access   scheduler.AccessMode `json:"access"`
	Epoch    uint64               `json:"epoch"`
	Since    time.Time            `json:"since"`
	// Holders are the instances whose task may be using the volume.
	Holders []string `json:"holders,omitempty"`
	// LastTask is the latest task that held it and LastApp its app.
	LastTask string `json:"lastTask"`
	LastApp  app.ID `json:"lastApp"`
	// Used says that some task of this claim may have mounted the volume.
	Used bool `json:"used,omitempty"`
	// Terms are those of the lease under which it is mounted, if it has one.
	Terms LeaseTerms `json:"terms,omitzero"`
	// Bridge is the agent's attribute that says where its bridge is.
	Bridge string `json:"bridge,omitempty"`
	// Alerted says that the end of a lease that is not trusted was told.
	Alerted bool `json:"alerted,omitempty"`
	// Exclusive says that the backend itself refuses a second attachment.
	Exclusive bool `json:"backendExclusive,omitempty"`
}

// versionKey is the store key of an old or current definition of an app. Ids
// hold no "@".
func versionKey(id app.ID, v app.Timestamp) string { return string(id) + "@" + v.String() }

func volumeStoreKey(k scheduler.VolumeKey) string { return k.Driver + "@" + k.Name }

func decode[T any](kind, key string, value []byte) (*T, error) {
	v := new(T)
	if err := json.Unmarshal(value, v); err != nil {
		return nil, fmt.Errorf("%w: %s %q: %w; restore the state from a backup, or start the version that wrote it", ErrState, kind, key, err)
	}
	return v, nil
}
