// Package takeover takes the apps of a Marathon over, one by one, without a
// volume ever mounted twice. It speaks Marathon's REST API with both sides.
package takeover

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
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume/inputfile"
)

// API is Marathon's REST API at one place. It may be used concurrently.
type API struct {
	base           string
	user, password string
	http           *http.Client
}

// NewAPI checks the URL, whose credentials are used for basic authentication; it
// does not connect. ca is a file of PEM certificates to trust instead of the
// system's, empty for none.
func NewAPI(base, ca string) (*API, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("the URL is not of the form http://host:port")
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute}
	if ca != "" {
		pem, err := inputfile.Read(ca)
		if err != nil {
			return nil, fmt.Errorf("read the certificates to trust: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate in PEM form", ca)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	a := &API{http: &http.Client{Timeout: 30 * time.Second, Transport: transport}}
	if u.User != nil {
		a.user = u.User.Username()
		a.password, _ = u.User.Password()
	}
	u.User = nil
	a.base = strings.TrimRight(u.String(), "/")
	return a, nil
}

// URL is the base URL, without credentials.
func (a *API) URL() string { return a.base }

// Close drops idle connections.
func (a *API) Close() { a.http.CloseIdleConnections() }

// StatusError is an answer other than success.
type StatusError struct {
	Method, URL string
	Status      int
	Body        string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s %s: status %d: %s", e.Method, e.URL, e.Status, e.Body)
}

// maxAnswer bounds an answer in bytes, maxRefusal what is kept of one that is no
// success.
const (
	maxAnswer  = 256 << 20
	maxRefusal = 4 << 10
)

func (a *API) do(ctx context.Context, method, path string, body, into any) error {
	var r io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
		r = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, r)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	req.Header.Set("Accept", "application/json")
	if r != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if a.user != "" {
		req.SetBasicAuth(a.user, a.password)
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return err // names method and URL itself
	}
	defer resp.Body.Close()
	success, limit := resp.StatusCode/100 == 2, int64(maxAnswer)
	if !success {
		limit = maxRefusal
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, limit))
	if err != nil {
		return fmt.Errorf("%s %s%s: read the answer: %w", method, a.base, path, err)
	}
	if !success {
		return &StatusError{Method: method, URL: a.base + path, Status: resp.StatusCode, Body: strings.ToValidUTF8(string(bytes.TrimSpace(data)), "?")}
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s %s%s: understand the answer: %w", method, a.base, path, err)
	}
	return nil
}

// App is an app as GET /v2/apps shows it.
type App struct {
	ID          string
	Instances   int
	Running     int
	Tasks       []Task
	Deployments int
	// LastFailure is the task that failed last, nil if none did or nobody told.
	LastFailure *Task
	// Definition holds every field, also those that nobody here knows.
	Definition map[string]any
}

// Task is a task of an app.
type Task struct {
	ID    string `json:"id"`
	Agent string `json:"slaveId"`
	Host  string `json:"host"`
	State string `json:"state"`
	// Staged is when it was launched; instances that are only kept for their
	// volumes have none (contract 1.2).
	Staged string        `json:"stagedAt,omitempty"`
	Local  []LocalVolume `json:"localVolumes,omitempty"`
}

// LocalVolume is a persistent volume of an instance.
type LocalVolume struct {
	ID string `json:"persistenceId"`
}

// kept tells whether an instance runs nothing and is there for its volumes.
func (t Task) kept() bool {
	return len(t.Local) > 0 && t.Staged == "" && t.State != "TASK_STAGING"
}

// active are the app's tasks that run or may.
func (a App) active() []Task {
	return slices.DeleteFunc(slices.Clone(a.Tasks), Task.kept)
}

// keptVolumes counts the instances that are kept for their volumes.
func (a App) keptVolumes() int { return len(a.Tasks) - len(a.active()) }

// UnmarshalJSON implements json.Unmarshaler.
func (a *App) UnmarshalJSON(data []byte) error {
	var known struct {
		ID          string            `json:"id"`
		Instances   *int              `json:"instances"`
		Running     int               `json:"tasksRunning"`
		Tasks       []Task            `json:"tasks"`
		Deployments []json.RawMessage `json:"deployments"`
		LastFailure *struct {
			TaskID string `json:"taskId"`
			Agent  string `json:"slaveId"`
			Host   string `json:"host"`
		} `json:"lastTaskFailure"`
	}
	if err := json.Unmarshal(data, &known); err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber() // as they were written
	if err := decoder.Decode(&a.Definition); err != nil {
		return err
	}
	a.ID, a.Running, a.Tasks, a.Deployments = known.ID, known.Running, known.Tasks, len(known.Deployments)
	if last := known.LastFailure; last != nil && last.TaskID != "" {
		a.LastFailure = &Task{ID: last.TaskID, Agent: last.Agent, Host: last.Host}
	}
	a.Instances = 1
	if known.Instances != nil {
		a.Instances = *known.Instances
	}
	return nil
}

// Apps lists all apps with their tasks.
func (a *API) Apps(ctx context.Context) ([]App, error) {
	var out struct {
		Apps []App `json:"apps"`
	}
	return out.Apps, a.do(ctx, http.MethodGet, "/v2/apps?embed=apps.tasks&embed=apps.deployments&embed=apps.counts&embed=apps.lastTaskFailure", nil, &out)
}

// App returns one app with its tasks; found is false if there is none.
func (a *API) App(ctx context.Context, id string) (app App, found bool, err error) {
	var out struct {
		App App `json:"app"`
	}
	err = a.do(ctx, http.MethodGet, appPath(id)+"?embed=app.tasks&embed=app.deployments&embed=app.counts&embed=app.lastTaskFailure", nil, &out)
	if isStatus(err, http.StatusNotFound) {
		return App{}, false, nil
	}
	return out.App, err == nil, err
}

// Pods lists the ids of the pods; a place without pods has none.
func (a *API) Pods(ctx context.Context) ([]string, error) {
	var out []struct {
		ID string `json:"id"`
	}
	err := a.do(ctx, http.MethodGet, "/v2/pods", nil, &out)
	if isStatus(err, http.StatusNotFound) {
		return nil, nil
	}
	var ids []string
	for _, p := range out {
		ids = append(ids, p.ID)
	}
	return ids, err
}

// Settings tells the framework's id and the frameworks whose reservations it
// takes over.
func (a *API) Settings(ctx context.Context) (frameworkID string, adopted []string, err error) {
	var out struct {
		FrameworkID string `json:"frameworkId"`
		Config      struct {
			Adopt []string `json:"adopt"`
		} `json:"marathon_config"`
	}
	err = a.do(ctx, http.MethodGet, "/v2/info?extensions=true", nil, &out)
	return out.FrameworkID, out.Config.Adopt, err
}

// Update changes the given fields of an app.
func (a *API) Update(ctx context.Context, id string, fields map[string]any) error {
	return a.do(ctx, http.MethodPut, appPath(id), fields, nil)
}

// Define makes a complete definition the app's.
func (a *API) Define(ctx context.Context, id string, definition map[string]any) error {
	return a.do(ctx, http.MethodPut, appPath(id)+"?partialUpdate=false", definition, nil)
}

// Delete removes an app; one that does not exist is no error.
func (a *API) Delete(ctx context.Context, id string) error {
	err := a.do(ctx, http.MethodDelete, appPath(id), nil, nil)
	if isStatus(err, http.StatusNotFound) {
		return nil
	}
	return err
}

// Claim is who holds an exclusive volume; only this project's frameworks answer.
type Claim struct {
	Driver   string `json:"driver"`
	Name     string `json:"name"`
	AgentID  string `json:"agentId"`
	Hostname string `json:"hostname"`
	State    string `json:"state"`
}

// Claims lists all claims. A volume that is only bound to a place is nobody's.
func (a *API) Claims(ctx context.Context) ([]Claim, error) {
	var out struct {
		Volumes []Claim `json:"volumes"`
	}
	err := a.do(ctx, http.MethodGet, "/v2/volumes", nil, &out)
	return slices.DeleteFunc(out.Volumes, func(c Claim) bool { return c.State == "bound" }), err
}

// ClaimUsed says where a volume was used last.
func (a *API) ClaimUsed(ctx context.Context, v Volume, appID string, t Task) error {
	use := map[string]string{"app": appID, "agentId": t.Agent, "hostname": t.Host, "taskId": t.ID}
	return a.do(ctx, http.MethodPut, claimPath(v), use, nil)
}

// Release ends a claim; one that does not exist is no error.
func (a *API) Release(ctx context.Context, v Volume) error {
	err := a.do(ctx, http.MethodDelete, claimPath(v)+"?force=true", nil, nil)
	if isStatus(err, http.StatusNotFound) {
		return nil
	}
	return err
}

func isStatus(err error, status int) bool {
	var e *StatusError
	return errors.As(err, &e) && e.Status == status
}

func appPath(id string) string { return "/v2/apps" + escape(id) }

func claimPath(v Volume) string {
	return "/v2/volumes/" + url.PathEscape(v.Driver) + "/" + escape(v.Name) + "/claim"
}

// escape keeps slashes.
func escape(path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return strings.Join(parts, "/")
}
