package api

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
)

// appJSON is an app with its run-time state: the members of the definition
// followed by those of extras.
type appJSON struct {
	definition *app.App
	extras     extras
}

// extras are what the API embeds into a definition. Pointers tell "embedded but
// empty" from "not embedded".
type extras struct {
	Staged    *int `json:"tasksStaged,omitempty"`
	Running   *int `json:"tasksRunning,omitempty"`
	Healthy   *int `json:"tasksHealthy,omitempty"`
	Unhealthy *int `json:"tasksUnhealthy,omitempty"`

	Deployments *[]ref           `json:"deployments,omitempty"`
	Tasks       *[]taskJSON      `json:"tasks,omitempty"`
	LastFailure *taskFailureJSON `json:"lastTaskFailure,omitempty"`
	Readiness   *[]readinessJSON `json:"readinessCheckResults,omitempty"`
	// Stats is written under both names: Marathon's own and the one that
	// go-marathon reads.
	Stats      *statsJSON `json:"tasksStats,omitempty"`
	StatsAlias *statsJSON `json:"taskStats,omitempty"`
}

func (a appJSON) MarshalJSON() ([]byte, error) {
	head, err := json.Marshal(a.definition)
	if err != nil {
		return nil, fmt.Errorf("app %s: %w", a.definition.ID, err)
	}
	tail, err := json.Marshal(a.extras)
	if err != nil {
		return nil, fmt.Errorf("app %s: %w", a.definition.ID, err)
	}
	if len(tail) == 2 { // {}
		return head, nil
	}
	head[len(head)-1] = ','
	return append(head, tail[1:]...), nil
}

type taskFailureJSON struct {
	AppID     app.ID        `json:"appId"`
	Host      string        `json:"host"`
	Message   string        `json:"message"`
	State     string        `json:"state"`
	TaskID    string        `json:"taskId"`
	Timestamp app.Timestamp `json:"timestamp"`
	Version   app.Timestamp `json:"version"`
	AgentID   string        `json:"slaveId,omitempty"`
}

func failureView(f *core.TaskFailure) *taskFailureJSON {
	if f == nil {
		return nil
	}
	v := taskFailureJSON(*f)
	return &v
}

type taskJSON struct {
	ID           string            `json:"id"`
	AppID        app.ID            `json:"appId"`
	Host         string            `json:"host"`
	AgentID      string            `json:"slaveId,omitempty"`
	State        string            `json:"state"`
	StagedAt     *app.Timestamp    `json:"stagedAt,omitempty"`
	StartedAt    *app.Timestamp    `json:"startedAt,omitempty"`
	Version      *app.Timestamp    `json:"version,omitempty"`
	Ports        *[]uint32         `json:"ports,omitempty"`
	ServicePorts []int             `json:"servicePorts"`
	IPs          []ipJSON          `json:"ipAddresses"`
	Health       []healthJSON      `json:"healthCheckResults"`
	Check        *checkJSON        `json:"checkResult,omitempty"`
	Local        []localVolumeJSON `json:"localVolumes"`
	Region       string            `json:"region,omitempty"`
	Zone         string            `json:"zone,omitempty"`
	Role         string            `json:"role"`
}

type ipJSON struct {
	Address  string `json:"ipAddress"`
	Protocol string `json:"protocol"`
}

type healthJSON struct {
	InstanceID          string         `json:"instanceId"`
	Alive               bool           `json:"alive"`
	ConsecutiveFailures int            `json:"consecutiveFailures"`
	FirstSuccess        *app.Timestamp `json:"firstSuccess,omitempty"`
	LastSuccess         *app.Timestamp `json:"lastSuccess,omitempty"`
	LastFailure         *app.Timestamp `json:"lastFailure,omitempty"`
	LastFailureCause    string         `json:"lastFailureCause,omitempty"`
}

type checkJSON struct {
	HTTP    *checkHTTPJSON    `json:"http,omitempty"`
	TCP     *checkTCPJSON     `json:"tcp,omitempty"`
	Command *checkCommandJSON `json:"command,omitempty"`
}

type checkHTTPJSON struct {
	StatusCode int `json:"statusCode"`
}

type checkTCPJSON struct {
	Succeeded bool `json:"succeeded"`
}

type checkCommandJSON struct {
	ExitCode int `json:"exitCode"`
}

type localVolumeJSON struct {
	AppID         app.ID `json:"runSpecId"`
	ContainerPath string `json:"containerPath"`
	UUID          string `json:"uuid"`
	PersistenceID string `json:"persistenceId"`
}

// optionalTime is nil for the zero time.
func optionalTime(t time.Time) *app.Timestamp {
	if t.IsZero() {
		return nil
	}
	ts := app.NewTimestamp(t)
	return &ts
}

// taskView renders a task; servicePorts are those of its app.
func taskView(t core.TaskView, servicePorts []int) taskJSON {
	v := taskJSON{
		ID: t.ID, AppID: t.AppID, Host: t.Host, AgentID: t.AgentID, State: t.State,
		ServicePorts: servicePorts,
		IPs:          []ipJSON{}, Health: []healthJSON{}, Local: []localVolumeJSON{},
		Region: t.Region, Zone: t.Zone, Role: t.Role,
		Check: checkView(t.Check),
	}
	if v.ServicePorts == nil {
		v.ServicePorts = []int{}
	}
	if active(t.State) {
		ports := t.Ports
		if ports == nil {
			ports = []uint32{}
		}
		version := t.Version
		v.Ports, v.Version = &ports, &version
		v.StagedAt, v.StartedAt = optionalTime(t.StagedAt), optionalTime(t.StartedAt)
	}
	for _, ip := range t.IPs {
		protocol := "IPv4"
		if strings.Contains(ip, ":") {
			protocol = "IPv6"
		}
		v.IPs = append(v.IPs, ipJSON{ip, protocol})
	}
	for _, h := range t.Health {
		v.Health = append(v.Health, healthJSON{
			InstanceID: t.InstanceID, Alive: h.Alive, ConsecutiveFailures: h.ConsecutiveFailures,
			FirstSuccess: optionalTime(h.FirstSuccess), LastSuccess: optionalTime(h.LastSuccess),
			LastFailure: optionalTime(h.LastFailure), LastFailureCause: h.LastFailureCause,
		})
	}
	for _, l := range t.Local {
		uuid := l.PersistenceID[strings.LastIndexByte(l.PersistenceID, '#')+1:]
		v.Local = append(v.Local, localVolumeJSON{t.AppID, l.ContainerPath, uuid, l.PersistenceID})
	}
	return v
}

func checkView(c *core.CheckResult) *checkJSON {
	if c == nil {
		return nil
	}
	v := &checkJSON{}
	if c.HTTPStatus != nil {
		v.HTTP = &checkHTTPJSON{*c.HTTPStatus}
	}
	if c.TCPSucceeded != nil {
		v.TCP = &checkTCPJSON{*c.TCPSucceeded}
	}
	if c.ExitCode != nil {
		v.Command = &checkCommandJSON{*c.ExitCode}
	}
	return v
}

// active says whether a task in this Mesos state has not ended yet. A stopped
// instance that keeps its reservation is shown with a state that ended.
func active(state string) bool {
	switch state {
	case "TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR", "TASK_LOST", "TASK_DROPPED", "TASK_GONE", "TASK_GONE_BY_OPERATOR":
		return false
	}
	return true
}

func taskViews(tasks []core.TaskView, servicePorts []int) []taskJSON {
	out := make([]taskJSON, 0, len(tasks))
	for _, t := range tasks {
		out = append(out, taskView(t, servicePorts))
	}
	return out
}

// epoch is the version of a group that never had an app.
var epoch = app.NewTimestamp(time.Unix(0, 0))
