package agentstate

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume/inputfile"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// The ways in which an agent answers without saying anything about containers.
var (
	// ErrUnauthorized: the agent does not accept the credentials.
	ErrUnauthorized = errors.New("the agent refuses the credentials")
	// ErrRecovering: the agent has not finished recovery (src/slave/http.cpp
	// answers 503 until then).
	ErrRecovering = errors.New("the agent has not finished recovery")
)

// Container is one that the agent lists.
type Container struct {
	// ID is the leaf id, Parents are the ids above it, the outermost first.
	ID      string
	Parents []string
	// FrameworkID, ExecutorID and TaskID are empty where the agent does not say.
	FrameworkID, ExecutorID, TaskID string
	PID                             int
}

// Workload is a task or an executor as the agent's GET_STATE tells.
type Workload struct {
	FrameworkID, ExecutorID, TaskID string
	// Containers are the leaf ids of the containers that it ran in, as far as
	// the agent says.
	Containers []string
	Volumes    []ledger.Key
	// Ended says that it is completed or in a terminal state.
	Ended bool
}

// API asks one agent. It is safe for concurrent use.
type API struct {
	url        string
	credential Credential
	client     *http.Client
}

// Credential is how the bridge authenticates to the agent; the zero value is
// none.
type Credential struct {
	Principal, Secret string
	// Token is a bearer token (JWT), used instead of the others.
	Token string
}

// APIConfig says where the agent is.
type APIConfig struct {
	// URL is http://host:5051 or https://host:5051.
	URL        string
	Credential Credential
	// CAFile has the certificates that sign the agent's, empty: the system's.
	// CertFile and KeyFile are this client's own, where the agent wants one.
	CAFile, CertFile, KeyFile string
	// Timeout bounds one call; 0: 30 s.
	Timeout time.Duration
}

// maxAnswer bounds an answer: the state of an agent with thousands of tasks has
// some ten megabytes.
const maxAnswer = 256 << 20

// NewAPI makes a client; it reads the files and makes no call.
func NewAPI(cfg APIConfig) (*API, error) {
	if cfg.Timeout <= 0 {
		cfg.Timeout = 30 * time.Second
	}
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.CAFile != "" {
		pem, err := inputfile.Read(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("certificates of the agent: %w", err)
		}
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("certificates of the agent: %s holds none in PEM form", cfg.CAFile)
		}
	}
	if cfg.CertFile != "" {
		cert, err := inputfile.KeyPair(cfg.CertFile, cfg.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("certificate towards the agent: %w", err)
		}
		tlsConfig.Certificates = []tls.Certificate{cert}
	}
	transport := &http.Transport{TLSClientConfig: tlsConfig, MaxIdleConns: 1, IdleConnTimeout: time.Minute}
	return &API{
		url: strings.TrimRight(cfg.URL, "/") + "/api/v1", credential: cfg.Credential,
		client: &http.Client{Transport: transport, Timeout: cfg.Timeout,
			// Credentials are for this agent alone.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}, nil
}

// LoadCredential reads a credential file in one of Mesos's forms: a JSON object
// with principal and secret, or the two in one line.
func LoadCredential(path string) (Credential, error) {
	data, err := inputfile.Read(path)
	if err != nil {
		return Credential{}, fmt.Errorf("credentials towards the agent: %w", err)
	}
	var c struct {
		Principal string `json:"principal"`
		Secret    string `json:"secret"`
	}
	if err := json.Unmarshal(data, &c); err == nil && c.Principal != "" {
		return Credential{Principal: c.Principal, Secret: c.Secret}, nil
	}
	if fields := strings.Fields(string(data)); len(fields) == 2 && !strings.HasPrefix(fields[0], "{") {
		return Credential{Principal: fields[0], Secret: fields[1]}, nil
	}
	return Credential{}, fmt.Errorf("credentials towards the agent: %s holds neither a JSON object with principal and secret nor the two in one line", path)
}

// Close closes idle connections.
func (a *API) Close() { a.client.CloseIdleConnections() }

// answer is the answer to a call; all have a type.
type answer interface{ kind() string }

type typed struct {
	Type string `json:"type"`
}

func (t typed) kind() string { return t.Type }

// call makes one call of the v1 operator API (include/mesos/v1/agent/agent.proto)
// and decodes the answer. Anything but a complete answer of the right type is an
// error.
func (a *API) call(ctx context.Context, kind string, request map[string]any, out answer) error {
	request["type"] = kind
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	switch {
	case a.credential.Token != "":
		req.Header.Set("Authorization", "Bearer "+a.credential.Token)
	case a.credential.Principal != "":
		req.SetBasicAuth(a.credential.Principal, a.credential.Secret)
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("%s: read the answer: %w", kind, err)
	case len(data) > maxAnswer:
		return fmt.Errorf("%s: the answer is larger than %d bytes", kind, maxAnswer)
	case resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusForbidden:
		return fmt.Errorf("%s: %w (%s); see the agent credential of the bridge", kind, ErrUnauthorized, resp.Status)
	case resp.StatusCode == http.StatusServiceUnavailable:
		return fmt.Errorf("%s: %w: %s", kind, ErrRecovering, excerpt(data))
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s: the agent answers %s: %s", kind, resp.Status, excerpt(data))
	}
	if err := json.Unmarshal(finite(data), out); err != nil {
		return fmt.Errorf("%s: the answer cannot be understood: %w", kind, err)
	}
	if got := out.kind(); got != kind {
		return fmt.Errorf("%s: the answer is of type %q", kind, got)
	}
	return nil
}

func excerpt(b []byte) string {
	const most = 200
	s := strings.TrimSpace(string(b))
	if len(s) > most {
		s = s[:most] + "..."
	}
	return s
}

// id is how Mesos writes ids in JSON.
type id struct {
	Value string `json:"value"`
}

type containerID struct {
	Value  string       `json:"value"`
	Parent *containerID `json:"parent"`
}

// path returns the ids from the outermost parent to the leaf.
func (c *containerID) path() []string {
	var out []string
	for ; c != nil && len(out) < 64; c = c.Parent {
		out = append(out, c.Value)
	}
	slices.Reverse(out)
	return out
}

// Containers lists all containers, nested and standalone ones included. An
// empty list without an error proves nothing: the agent leaves out silently
// what the credentials do not allow to see.
func (a *API) Containers(ctx context.Context) ([]Container, error) {
	var answer struct {
		typed
		GetContainers struct {
			Containers []struct {
				FrameworkID     id          `json:"framework_id"`
				ExecutorID      id          `json:"executor_id"`
				ExecutorName    string      `json:"executor_name"`
				ContainerID     containerID `json:"container_id"`
				ContainerStatus struct {
					ExecutorPID int `json:"executor_pid"`
				} `json:"container_status"`
			} `json:"containers"`
		} `json:"get_containers"`
	}
	err := a.call(ctx, "GET_CONTAINERS", map[string]any{
		"get_containers": map[string]any{"show_nested": true, "show_standalone": true},
	}, &answer)
	if err != nil {
		return nil, err
	}
	// The agent answers without get_containers when it has no container to list
	// (evolve.cpp makes the field with the first one).
	var out []Container
	for _, c := range answer.GetContainers.Containers {
		path := c.ContainerID.path()
		if len(path) == 0 || path[len(path)-1] == "" {
			return nil, errors.New("GET_CONTAINERS: a container without an id")
		}
		listed := Container{
			ID: path[len(path)-1], Parents: path[:len(path)-1], FrameworkID: c.FrameworkID.Value,
			ExecutorID: c.ExecutorID.Value, PID: c.ContainerStatus.ExecutorPID,
		}
		// Mesos's own executor for commands has the id of its task and this name
		// (Slave::getExecutorInfo).
		if strings.HasPrefix(c.ExecutorName, "Command Executor ") {
			listed.TaskID = listed.ExecutorID
		}
		out = append(out, listed)
	}
	return out, nil
}

// Workloads tells tasks and executors, those that ended included as far as the
// agent remembers them (GET_STATE).
func (a *API) Workloads(ctx context.Context) ([]Workload, error) {
	var answer stateAnswer
	if err := a.call(ctx, "GET_STATE", map[string]any{}, &answer); err != nil {
		return nil, err
	}
	if answer.GetState == nil {
		return nil, errors.New("GET_STATE: the answer lacks get_state")
	}
	s := answer.GetState
	var out []Workload
	for _, list := range []struct {
		tasks []taskJSON
		ended bool
	}{{s.Tasks.Pending, false}, {s.Tasks.Queued, false}, {s.Tasks.Launched, false}, {s.Tasks.Terminated, true}, {s.Tasks.Completed, true}} {
		for _, t := range list.tasks {
			out = append(out, t.workload(list.ended))
		}
	}
	for _, e := range s.Executors.Running {
		out = append(out, e.Info.workload(false))
	}
	for _, e := range s.Executors.Completed {
		out = append(out, e.Info.workload(true))
	}
	return out, nil
}

type stateAnswer struct {
	typed
	GetState *struct {
		Tasks struct {
			Pending    []taskJSON `json:"pending_tasks"`
			Queued     []taskJSON `json:"queued_tasks"`
			Launched   []taskJSON `json:"launched_tasks"`
			Terminated []taskJSON `json:"terminated_tasks"`
			Completed  []taskJSON `json:"completed_tasks"`
		} `json:"get_tasks"`
		Executors struct {
			Running   []executorJSON `json:"executors"`
			Completed []executorJSON `json:"completed_executors"`
		} `json:"get_executors"`
	} `json:"get_state"`
}

type containerJSON struct {
	Volumes []struct {
		Source struct {
			DockerVolume struct {
				Driver string `json:"driver"`
				Name   string `json:"name"`
			} `json:"docker_volume"`
		} `json:"source"`
	} `json:"volumes"`
}

func (c containerJSON) volumes() []ledger.Key {
	var out []ledger.Key
	for _, v := range c.Volumes {
		if d := v.Source.DockerVolume; d.Driver != "" && d.Name != "" {
			out = append(out, ledger.Key{Driver: d.Driver, Volume: d.Name})
		}
	}
	return out
}

type taskJSON struct {
	TaskID      id            `json:"task_id"`
	FrameworkID id            `json:"framework_id"`
	ExecutorID  id            `json:"executor_id"`
	Container   containerJSON `json:"container"`
	Statuses    []struct {
		ContainerStatus struct {
			ContainerID *containerID `json:"container_id"`
		} `json:"container_status"`
	} `json:"statuses"`
}

func (t taskJSON) workload(ended bool) Workload {
	w := Workload{FrameworkID: t.FrameworkID.Value, ExecutorID: t.ExecutorID.Value, TaskID: t.TaskID.Value,
		Volumes: t.Container.volumes(), Ended: ended}
	if w.ExecutorID == "" {
		w.ExecutorID = w.TaskID // of a command executor
	}
	for _, s := range t.Statuses {
		if path := s.ContainerStatus.ContainerID.path(); len(path) > 0 {
			if leaf := path[len(path)-1]; !slices.Contains(w.Containers, leaf) {
				w.Containers = append(w.Containers, leaf)
			}
		}
	}
	return w
}

type executorJSON struct {
	Info executorInfoJSON `json:"executor_info"`
}

type executorInfoJSON struct {
	ExecutorID  id            `json:"executor_id"`
	FrameworkID id            `json:"framework_id"`
	Container   containerJSON `json:"container"`
}

func (e executorInfoJSON) workload(ended bool) Workload {
	return Workload{FrameworkID: e.FrameworkID.Value, ExecutorID: e.ExecutorID.Value, Volumes: e.Container.volumes(), Ended: ended}
}
