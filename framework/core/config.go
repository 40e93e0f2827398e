package core

import (
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// Config holds the settings of the core. Zero values mean the defaults in
// brackets, which are Marathon's where Marathon has the setting.
type Config struct {
	// Leader is this process's host:port for GET /v2/leader and /v2/info.
	Leader string
	// DefaultRole is always subscribed with [*].
	DefaultRole string
	// Policy are the cluster-wide settings of placement. LocalRegion is
	// taken from the master.
	Policy scheduler.Policy
	// Adopt are ids of frameworks, such as Marathon's, whose reservations and
	// volumes are taken over. They must not run any more.
	Adopt []string
	// Decisions is told every placement decision; nil: nobody is. It must not
	// block, and must not change the record.
	Decisions func(scheduler.Record)
	// ServicePorts is the range of assigned service ports [10000-20000].
	ServicePorts app.PortRange
	// LeadLost is closed when another process may lead: from then on nothing
	// is sent to the master. Nil: that cannot be.
	LeadLost <-chan struct{}
	// Checker runs the checks that the framework performs; nil performs none.
	// The core closes it at the end of Run.
	Checker Checker
	// Bridges are the agents' isolator-bridges; nil: none is asked.
	Bridges Bridges
	// BackendExclusive names the volume drivers whose backend itself refuses
	// a second attachment: their claims end with the task.
	BackendExclusive map[string]bool
	// GlobalScope names the volume drivers whose volumes are the same on all
	// agents although the drivers call themselves local.
	GlobalScope map[string]bool
	// AcceptByDefault is what apps without accepted resource roles take, one of
	// the Accept constants of app [app.AcceptAny].
	AcceptByDefault string
	// Secrets knows the values of secrets; nil leaves all to the agents.
	Secrets Secrets

	Tick              time.Duration // how often deadlines are looked at [1s]
	KillRetry         time.Duration // how often a kill is repeated [30s]
	LaunchConfirm     time.Duration // a launch without any status is killed after [5m]
	LaunchTimeout     time.Duration // a task that is not running is killed after [5m]
	LaunchSettle      time.Duration // before "unknown task" is believed of a launch without status [5s]
	ReconcileDelay    time.Duration // from subscription to implicit reconciliation [15s]
	ReconcileInterval time.Duration // between reconciliations of all tasks [10m]
	ProbeInterval     time.Duration // between questions about agents of claims that wait for their end [15s]
	RestoreHold       time.Duration // after a backup was restored, before exclusive volumes are used [12m]
	EndingHold        time.Duration // on a registered agent, before volumes that a former framework id's tasks had there are used [1m]
	ReviveInterval    time.Duration // least time between two revives [5s]
	StopTimeout       time.Duration // for outstanding calls at the end of Run [3s]
	CallsAtOnce       int           // to the master, about different agents [8]
	MaxDeployments    int           // running at the same time [100]
	MaxVersions       int           // kept per app [50]
}

func (c Config) withDefaults() Config {
	setDefault(&c.DefaultRole, "*")
	setDefault(&c.ServicePorts, app.DefaultPortRange)
	c.Policy = c.Policy.WithDefaults()
	setDefault(&c.Policy.ReservationTimeout, 20*time.Second)
	setDefault(&c.Tick, time.Second)
	setDefault(&c.KillRetry, 30*time.Second)
	setDefault(&c.LaunchConfirm, 5*time.Minute)
	setDefault(&c.LaunchTimeout, 5*time.Minute)
	setDefault(&c.LaunchSettle, 5*time.Second)
	setDefault(&c.ReconcileDelay, 15*time.Second)
	setDefault(&c.ReconcileInterval, 10*time.Minute)
	setDefault(&c.ProbeInterval, 15*time.Second)
	setDefault(&c.RestoreHold, 12*time.Minute)
	setDefault(&c.EndingHold, defaultEndingHold)
	setDefault(&c.ReviveInterval, 5*time.Second)
	setDefault(&c.StopTimeout, 3*time.Second)
	setDefault(&c.CallsAtOnce, 8)
	setDefault(&c.MaxDeployments, 100)
	setDefault(&c.MaxVersions, 50)
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
