package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

// App is an app with what is embedded of its state. Definition is everything
// that the API answered, as JSON.
type App struct {
	Definition json.RawMessage `json:"-"`

	ID           app.ID         `json:"id"`
	Instances    int            `json:"instances"`
	Version      app.Timestamp  `json:"version"`
	Container    *app.Container `json:"container"`
	HealthChecks []any          `json:"healthChecks"`

	Staged      int `json:"tasksStaged"`
	Running     int `json:"tasksRunning"`
	Healthy     int `json:"tasksHealthy"`
	Unhealthy   int `json:"tasksUnhealthy"`
	Deployments []struct {
		ID string `json:"id"`
	} `json:"deployments"`
	Tasks       []Task   `json:"tasks"`
	LastFailure *Failure `json:"lastTaskFailure"`
}

// UnmarshalJSON keeps the JSON beside the fields.
func (a *App) UnmarshalJSON(data []byte) error {
	type plain App
	if err := json.Unmarshal(data, (*plain)(a)); err != nil {
		return err
	}
	a.Definition = append(json.RawMessage(nil), data...)
	return nil
}

// MarshalJSON writes what the API answered.
func (a App) MarshalJSON() ([]byte, error) { return a.Definition, nil }

// Volumes names the external and persistent volumes of the app.
func (a *App) Volumes() []string {
	var out []string
	if a.Container == nil {
		return out
	}
	for _, v := range a.Container.Volumes {
		switch {
		case v.External != nil:
			out = append(out, v.External.Name)
		case v.Persistent != nil:
			out = append(out, v.ContainerPath)
		}
	}
	return out
}

// Task is a task of an app.
type Task struct {
	ID        string         `json:"id"`
	Host      string         `json:"host"`
	AgentID   string         `json:"slaveId"`
	State     string         `json:"state"`
	Version   *app.Timestamp `json:"version"`
	StartedAt *app.Timestamp `json:"startedAt"`
	Ports     []uint32       `json:"ports"`
	Health    []struct {
		Alive bool `json:"alive"`
	} `json:"healthCheckResults"`
}

// Failure is the last failure of an app.
type Failure struct {
	Host      string        `json:"host"`
	Message   string        `json:"message"`
	State     string        `json:"state"`
	TaskID    string        `json:"taskId"`
	Timestamp app.Timestamp `json:"timestamp"`
}

// Deployment names a deployment that was started.
type Deployment struct {
	ID      string        `json:"deploymentId"`
	Version app.Timestamp `json:"version"`
}

// Running is a deployment that has not ended.
type Running struct {
	ID           string        `json:"id"`
	Version      app.Timestamp `json:"version"`
	AffectedApps []app.ID      `json:"affectedApps"`
	Current      []Action      `json:"currentActions"`
	CurrentStep  int           `json:"currentStep"`
	TotalSteps   int           `json:"totalSteps"`
}

// Action is what a deployment does to an app.
type Action struct {
	Action string `json:"action"`
	App    app.ID `json:"app"`
}

// Queued is an app whose instances wait to be launched.
type Queued struct {
	App struct {
		ID app.ID `json:"id"`
	} `json:"app"`
	Count int           `json:"count"`
	Since app.Timestamp `json:"since"`
	Delay struct {
		TimeLeftSeconds int  `json:"timeLeftSeconds"`
		Overdue         bool `json:"overdue"`
	} `json:"delay"`
	Waiting []Waiting `json:"waiting"`
}

// Waiting says what one instance waits for.
type Waiting struct {
	InstanceID string `json:"instanceId"`
	Text       string `json:"text"`
	// Reasons count the agents by the first rule that they fail.
	Reasons []Reason `json:"reasons"`
	// Best is the agent that comes closest, Lacks what it lacks.
	Best  string   `json:"closestAgent,omitempty"`
	Lacks []string `json:"lacks,omitempty"`
	// Until is when the wait would end by time alone.
	Until *app.Timestamp `json:"until,omitempty"`
}

// Reason is how many agents failed at a rule.
type Reason struct {
	Reason string `json:"reason"`
	Agents int    `json:"agents"`
}

// Claim says who holds an exclusive volume.
type Claim struct {
	Driver    string         `json:"driver"`
	Name      string         `json:"name"`
	Apps      []app.ID       `json:"apps"`
	AgentID   string         `json:"agentId"`
	Hostname  string         `json:"hostname"`
	Access    string         `json:"access"`
	State     string         `json:"state"`
	Instances []string       `json:"instances"`
	Zone      string         `json:"zone,omitempty"`
	Epoch     uint64         `json:"epoch"`
	Since     *app.Timestamp `json:"since,omitempty"`
	FenceAt   *app.Timestamp `json:"fenceAt,omitempty"`
	Text      string         `json:"text"`
	Removal   *Removal       `json:"removal,omitempty"`
}

// Removal says that a volume is to be removed with its data once nobody claims
// it: since when, why, what keeps it from being done and when it is tried again.
type Removal struct {
	Since   *app.Timestamp `json:"since"`
	Why     string         `json:"why"`
	Problem string         `json:"problem,omitempty"`
	Next    *app.Timestamp `json:"next,omitempty"`
}

// Info is what the framework tells of itself.
type Info struct {
	Name        string         `json:"name"`
	Version     string         `json:"version"`
	FrameworkID string         `json:"frameworkId"`
	Leader      string         `json:"leader"`
	Elected     bool           `json:"elected"`
	Connected   bool           `json:"connected"`
	Marathon    map[string]any `json:"marathon_config"`
}

// Setting returns a text of the framework's configuration, "" if it has none.
func (i Info) Setting(name string) string {
	s, _ := i.Marathon[name].(string)
	return s
}

// Features are the features that are switched on.
func (i Info) Features() []string {
	var out []string
	list, _ := i.Marathon["features"].([]any)
	for _, f := range list {
		if s, ok := f.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// Info asks for GET /v2/info.
func (c *Client) Info(ctx context.Context) (Info, error) {
	var out Info
	return out, c.do(ctx, http.MethodGet, "/v2/info?extensions=true", nil, &out)
}

// Apps lists all apps with their counts; selector is a label selector, "" for
// all.
func (c *Client) Apps(ctx context.Context, selector string) ([]App, error) {
	var out struct {
		Apps []App `json:"apps"`
	}
	path := "/v2/apps"
	if selector != "" {
		path += "?" + url.Values{"label": {selector}}.Encode()
	}
	return out.Apps, c.do(ctx, http.MethodGet, path, nil, &out)
}

// App returns one app with its tasks and last failure.
func (c *Client) App(ctx context.Context, id app.ID) (App, error) {
	var out struct {
		App App `json:"app"`
	}
	return out.App, c.do(ctx, http.MethodGet, appPath(id), nil, &out)
}

// Put makes the complete definitions, a JSON array, the current ones, as one
// deployment.
func (c *Client) Put(ctx context.Context, definitions []byte, force bool) (Deployment, error) {
	var out Deployment
	path := fmt.Sprintf("/v2/apps?partialUpdate=false&force=%t", force)
	return out, c.do(ctx, http.MethodPut, path, definitions, &out)
}

// Deployments lists the deployments that run.
func (c *Client) Deployments(ctx context.Context) ([]Running, error) {
	var out []Running
	return out, c.do(ctx, http.MethodGet, "/v2/deployments", nil, &out)
}

// Queue lists what waits to be launched.
func (c *Client) Queue(ctx context.Context) ([]Queued, error) {
	var out struct {
		Queue []Queued `json:"queue"`
	}
	return out.Queue, c.do(ctx, http.MethodGet, "/v2/queue", nil, &out)
}

// PersistentVolume is a Mesos persistent volume and who has it.
type PersistentVolume struct {
	ID            string `json:"id"`
	App           app.ID `json:"app"`
	ContainerPath string `json:"containerPath"`
	AgentID       string `json:"agentId"`
	Hostname      string `json:"hostname"`
	Shared        bool   `json:"shared"`
	// Instances have it, or are about to make it.
	Instances []string `json:"instances"`
}

// Leftover is what carries the framework's labels on an agent although nothing
// runs or will run on it. It may hold data.
type Leftover struct {
	AgentID        string   `json:"agentId"`
	Hostname       string   `json:"hostname"`
	InstanceID     string   `json:"instance"`
	PersistenceIDs []string `json:"persistenceIds"`
	Bytes          int64    `json:"bytes"` // disk space of it all
	Text           string   `json:"text"`
}

// Volumes is what the framework knows of volumes: who holds which exclusive one,
// which are to be removed or bound to a place, the Mesos persistent volumes, and
// what is left over on agents.
type Volumes struct {
	Claims     []Claim            `json:"volumes"`
	Persistent []PersistentVolume `json:"persistent"`
	Leftovers  []Leftover         `json:"leftovers"`
}

// Volumes asks for GET /v2/volumes.
func (c *Client) Volumes(ctx context.Context) (Volumes, error) {
	var out Volumes
	return out, c.do(ctx, http.MethodGet, "/v2/volumes", nil, &out)
}

// Claims lists who holds which exclusive volume, and which are to be removed.
func (c *Client) Claims(ctx context.Context) ([]Claim, error) {
	v, err := c.Volumes(ctx)
	return v.Claims, err
}

// Release ends the claim on a volume by force: the caller knows that its holder
// is dead.
func (c *Client) Release(ctx context.Context, driver, name string) error {
	path := "/v2/volumes/" + url.PathEscape(driver) + "/" + escapeSegments(name) + "/claim?force=true"
	return c.do(ctx, http.MethodDelete, path, nil, nil)
}

// Keep has a volume kept that is to be removed.
func (c *Client) Keep(ctx context.Context, driver, name string) error {
	return c.do(ctx, http.MethodDelete, "/v2/volumes/"+url.PathEscape(driver)+"/"+escapeSegments(name)+"/removal", nil, nil)
}

func appPath(id app.ID) string { return "/v2/apps" + escapeSegments(string(id)) }

func escapeSegments(path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return strings.Join(parts, "/")
}
