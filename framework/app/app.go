// Package app holds the app definition of Marathon's API: its JSON, defaults,
// normalisation and validation. A definition that Parse returned is canonical:
// deprecated fields are translated, defaults are filled in, and every rule that
// concerns the app alone holds.
package app

import (
	"time"
)

// ID is an absolute app or group path such as "/prod/db".
type ID string

// What resources apps take that do not say which roles they accept.
const (
	AcceptAny        = "any"
	AcceptUnreserved = "unreserved"
	AcceptReserved   = "reserved" // for the app's role
)

// App is a canonical app definition. It is immutable once stored: an update
// makes a new one with a new Version.
type App struct {
	ID           ID                `json:"id"`
	Cmd          string            `json:"cmd,omitempty"`
	Args         []string          `json:"args,omitempty"`
	User         string            `json:"user,omitempty"`
	Env          map[string]EnvVar `json:"env,omitempty"`
	Instances    int               `json:"instances"`
	CPUs         float64           `json:"cpus"`
	Mem          float64           `json:"mem"`  // MiB
	Disk         float64           `json:"disk"` // MiB
	GPUs         int               `json:"gpus"`
	Limits       *Limits           `json:"resourceLimits,omitempty"`
	Executor     string            `json:"executor"`
	ExecutorRes  *ExecutorRes      `json:"executorResources,omitempty"`
	Constraints  [][]string        `json:"constraints,omitempty"`
	Fetch        []Fetch           `json:"fetch,omitempty"`
	Container    *Container        `json:"container,omitempty"`
	Networks     []Network         `json:"networks"`
	Ports        []PortDefinition  `json:"portDefinitions,omitempty"`
	RequirePorts bool              `json:"requirePorts"`
	Health       []HealthCheck     `json:"healthChecks,omitempty"`
	Check        *Check            `json:"check,omitempty"`
	Readiness    []ReadinessCheck  `json:"readinessChecks,omitempty"`
	Dependencies []ID              `json:"dependencies,omitempty"`

	BackoffSeconds        float64 `json:"backoffSeconds"`
	BackoffFactor         float64 `json:"backoffFactor"`
	MaxLaunchDelaySeconds float64 `json:"maxLaunchDelaySeconds"`

	Upgrade       UpgradeStrategy     `json:"upgradeStrategy"`
	Labels        map[string]string   `json:"labels"`
	AcceptedRoles []string            `json:"acceptedResourceRoles,omitempty"`
	Role          string              `json:"role"`
	Residency     *Residency          `json:"residency,omitempty"`
	Secrets       map[string]Secret   `json:"secrets,omitempty"`
	KillGrace     *int                `json:"taskKillGracePeriodSeconds,omitempty"` // seconds
	KillSelection string              `json:"killSelection"`
	Unreachable   UnreachableStrategy `json:"unreachableStrategy"`
	TTY           *bool               `json:"tty,omitempty"`

	Version     Timestamp    `json:"version"`
	VersionInfo *VersionInfo `json:"versionInfo,omitempty"`
}

// Timestamp is a time in Marathon's format: UTC with three digits of
// milliseconds. App versions are such timestamps and serve as keys.
type Timestamp time.Time

// VersionInfo says when the app was last scaled and last changed otherwise.
type VersionInfo struct {
	LastScalingAt      Timestamp `json:"lastScalingAt"`
	LastConfigChangeAt Timestamp `json:"lastConfigChangeAt"`
}

// EnvVar is the value of an environment variable: a string, or the name of a
// secret.
type EnvVar struct {
	Value  string
	Secret string
}

// Limits are upper bounds beyond the requested resources: a number or
// "unlimited" (+Inf here).
type Limits struct {
	CPUs *float64
	Mem  *float64
}

// ExecutorRes are the resources of a custom executor.
type ExecutorRes struct {
	CPUs float64 `json:"cpus"`
	Mem  float64 `json:"mem"`
	Disk float64 `json:"disk"`
}

// Fetch is an artifact that Mesos fetches into the sandbox.
type Fetch struct {
	URI        string `json:"uri"`
	Extract    bool   `json:"extract"`
	Executable bool   `json:"executable"`
	Cache      bool   `json:"cache"`
	DestPath   string `json:"destPath,omitempty"`
}

// Container types.
const (
	Mesos  = "MESOS"
	Docker = "DOCKER"
)

// Container is the container section.
type Container struct {
	Type         string        `json:"type"`
	Docker       *DockerImage  `json:"docker,omitempty"`
	Volumes      []Volume      `json:"volumes"`
	PortMappings []PortMapping `json:"portMappings,omitempty"`
	Linux        *LinuxInfo    `json:"linuxInfo,omitempty"`
}

// DockerImage is the image and what only Docker's engine or the image
// provisioner needs.
type DockerImage struct {
	Image          string      `json:"image"`
	ForcePullImage bool        `json:"forcePullImage"`
	Privileged     bool        `json:"privileged"`
	Parameters     []Parameter `json:"parameters"`
	PullConfig     *PullConfig `json:"pullConfig,omitempty"`
}

// Parameter is a key and value handed to the docker command line.
type Parameter struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// PullConfig names the secret with the registry credentials.
type PullConfig struct {
	Secret string `json:"secret"`
}

// LinuxInfo holds Linux-specific isolation settings of a MESOS container.
type LinuxInfo struct {
	Seccomp *Seccomp `json:"seccomp,omitempty"`
	IPC     *IPC     `json:"ipcInfo,omitempty"`
}

// Seccomp selects a seccomp profile.
type Seccomp struct {
	ProfileName string `json:"profileName,omitempty"`
	Unconfined  *bool  `json:"unconfined,omitempty"`
}

// IPC selects the IPC namespace mode.
type IPC struct {
	Mode    string `json:"mode"`
	ShmSize *int   `json:"shmSize,omitempty"` // MiB
}

// Volume is one entry of container.volumes: exactly one of HostPath, External,
// Persistent and Secret is set.
type Volume struct {
	ContainerPath string      `json:"containerPath"`
	Mode          string      `json:"mode,omitempty"`
	HostPath      string      `json:"hostPath,omitempty"`
	External      *External   `json:"external,omitempty"`
	Persistent    *Persistent `json:"persistent,omitempty"`
	Secret        string      `json:"secret,omitempty"`
}

// External is a volume of a volume driver.
type External struct {
	Provider string            `json:"provider"`
	Name     string            `json:"name"`
	Size     *int64            `json:"size,omitempty"` // GiB
	Shared   bool              `json:"shared,omitempty"`
	Options  map[string]string `json:"options"`
	// Class is the volume class that the option dvdi/class names, as it was
	// when the app first named it. Clients cannot set it.
	Class *VolumeClass `json:"class,omitempty"`
	// CSI holds the options of provider csi, nil for others. In JSON it takes
	// the place of Options.
	CSI *CSIOptions `json:"-"`
}

// Persistent is a Mesos persistent volume.
type Persistent struct {
	Type        string     `json:"type"`
	Size        int64      `json:"size"`              // MiB
	MaxSize     *int64     `json:"maxSize,omitempty"` // MiB
	ProfileName string     `json:"profileName,omitempty"`
	Constraints [][]string `json:"constraints,omitempty"`
	// Shared gives all instances of the app one volume together, which keeps them
	// on its agent. Marathon has no such field.
	Shared bool `json:"shared,omitempty"`
}

// PortMapping maps a container port to the host.
type PortMapping struct {
	ContainerPort int               `json:"containerPort"`
	HostPort      *int              `json:"hostPort,omitempty"`
	ServicePort   int               `json:"servicePort"`
	Protocol      string            `json:"protocol"`
	Name          string            `json:"name,omitempty"`
	Labels        map[string]string `json:"labels"`
	NetworkNames  []string          `json:"networkNames,omitempty"`
}

// Network modes.
const (
	HostNetwork      = "host"
	ContainerNetwork = "container"
	BridgeNetwork    = "container/bridge"
)

// Network is one network that the app joins.
type Network struct {
	Mode   string            `json:"mode"`
	Name   string            `json:"name,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
}

// PortDefinition is a host port of an app with host networking. Port is also
// the service port.
type PortDefinition struct {
	Port     int               `json:"port"`
	Protocol string            `json:"protocol"`
	Name     string            `json:"name,omitempty"`
	Labels   map[string]string `json:"labels"`
}

// HealthCheck is a health check with all defaults filled in. Times are seconds.
type HealthCheck struct {
	Protocol               string   `json:"protocol"`
	Path                   string   `json:"path,omitempty"`
	PortIndex              *int     `json:"portIndex,omitempty"`
	Port                   *int     `json:"port,omitempty"`
	Command                *Command `json:"command,omitempty"`
	GracePeriodSeconds     int      `json:"gracePeriodSeconds"`
	IntervalSeconds        int      `json:"intervalSeconds"`
	TimeoutSeconds         int      `json:"timeoutSeconds"`
	MaxConsecutiveFailures int      `json:"maxConsecutiveFailures"`
	DelaySeconds           int      `json:"delaySeconds"`
	IgnoreHTTP1xx          bool     `json:"ignoreHttp1xx"`
	IPProtocol             string   `json:"ipProtocol"`
}

// Command is a shell command of a check.
type Command struct {
	Value string `json:"value"`
}

// Check is Mesos' general check, informational only. Times are seconds.
type Check struct {
	HTTP            *CheckHTTP `json:"http,omitempty"`
	TCP             *CheckTCP  `json:"tcp,omitempty"`
	Exec            *CheckExec `json:"exec,omitempty"`
	IntervalSeconds int        `json:"intervalSeconds"`
	TimeoutSeconds  int        `json:"timeoutSeconds"`
	DelaySeconds    int        `json:"delaySeconds"`
}

// CheckHTTP checks an HTTP path.
type CheckHTTP struct {
	PortIndex *int   `json:"portIndex,omitempty"`
	Port      *int   `json:"port,omitempty"`
	Path      string `json:"path,omitempty"`
	Scheme    string `json:"scheme,omitempty"`
}

// CheckTCP checks that a port accepts connections.
type CheckTCP struct {
	PortIndex *int `json:"portIndex,omitempty"`
	Port      *int `json:"port,omitempty"`
}

// CheckExec runs a command: a shell command, or Argv without a shell.
type CheckExec struct {
	Command Command
	Argv    []string
}

// ReadinessCheck gates a deployment. Times are seconds.
type ReadinessCheck struct {
	Name                    string `json:"name"`
	Protocol                string `json:"protocol"`
	Path                    string `json:"path"`
	PortName                string `json:"portName"`
	IntervalSeconds         int    `json:"intervalSeconds"`
	TimeoutSeconds          int    `json:"timeoutSeconds"`
	HTTPStatusCodesForReady []int  `json:"httpStatusCodesForReady"`
	PreserveLastResponse    bool   `json:"preserveLastResponse"`
}

// UpgradeStrategy bounds a rolling replacement; both are fractions of 1.
type UpgradeStrategy struct {
	MinimumHealthCapacity float64 `json:"minimumHealthCapacity"`
	MaximumOverCapacity   float64 `json:"maximumOverCapacity"`
}

// Residency is accepted and echoed for apps with persistent volumes; it has no
// effect (contract 3.3.4).
type Residency struct {
	RelaunchEscalationTimeoutSeconds int    `json:"relaunchEscalationTimeoutSeconds"`
	TaskLostBehavior                 string `json:"taskLostBehavior"`
}

// Secret names where a secret comes from.
type Secret struct {
	Source string `json:"source"`
}

// UnreachableStrategy says when an unreachable instance is replaced. Disabled
// (the string "disabled" in JSON) means never. Times are seconds.
type UnreachableStrategy struct {
	Disabled             bool
	InactiveAfterSeconds int
	ExpungeAfterSeconds  int
}

// Values of App.KillSelection.
const (
	YoungestFirst = "YOUNGEST_FIRST"
	OldestFirst   = "OLDEST_FIRST"
)
