package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
)

func (s *server) appTasks(w http.ResponseWriter, r *http.Request, p params) error {
	if group, ok := strings.CutSuffix("/"+p["id"], "/*"); ok {
		return s.groupTasks(w, r, group)
	}
	id, err := knownID(p)
	if err != nil {
		return err
	}
	a, err := s.svc.App(r.Context(), id)
	if err != nil {
		return err
	}
	return writeTasks(w, taskViews(a.Tasks, a.App.ServicePorts()))
}

func (s *server) groupTasks(w http.ResponseWriter, r *http.Request, name string) error {
	group, err := groupID(params{"id": strings.TrimPrefix(name, "/")})
	if err != nil {
		return err
	}
	if _, err := s.inGroup(r.Context(), group); err != nil {
		return err
	}
	tasks, err := s.tasks(r, func(id app.ID) bool { return id != group && id.Within(group) }, func(string) bool { return true })
	if err != nil {
		return err
	}
	return writeTasks(w, tasks)
}

func writeTasks(w http.ResponseWriter, tasks []taskJSON) error {
	return writeJSON(w, http.StatusOK, map[string]any{"tasks": tasks})
}

func (s *server) tasks(r *http.Request, wantApp func(app.ID) bool, wantState func(string) bool) ([]taskJSON, error) {
	apps, err := s.svc.Apps(r.Context())
	if err != nil {
		return nil, err
	}
	out := []taskJSON{}
	for _, a := range apps {
		if !wantApp(a.App.ID) {
			continue
		}
		ports := a.App.ServicePorts()
		for _, t := range a.Tasks {
			if wantState(t.State) {
				out = append(out, taskView(t, ports))
			}
		}
	}
	return out, nil
}

func (s *server) listTasks(w http.ResponseWriter, r *http.Request, _ params) error {
	q := r.URL.Query()
	statuses := slices.Concat(q["status"], q["status[]"])
	tasks, err := s.tasks(r, func(app.ID) bool { return true }, func(state string) bool {
		return len(statuses) == 0 || slices.ContainsFunc(statuses, func(want string) bool {
			return strings.EqualFold("TASK_"+want, state)
		})
	})
	if err != nil {
		return err
	}
	return writeTasks(w, tasks)
}

// killFlags are the query parameters that all kinds of kills share.
func killFlags(r *http.Request) (core.Kill, error) {
	k := core.Kill{Scale: flag(r, "scale", false), Wipe: flag(r, "wipe", false), Force: flag(r, "force", false)}
	if k.Scale && k.Wipe {
		return k, badRequest("You cannot use scale and wipe at the same time.")
	}
	return k, nil
}

func (s *server) killAppTasks(w http.ResponseWriter, r *http.Request, p params) error {
	k, err := killFlags(r)
	if err != nil {
		return err
	}
	if k.App, err = knownID(p); err != nil {
		return err
	}
	q := r.URL.Query()
	if k.Host = q.Get("host"); k.Host == "" && q.Has("host") {
		return badRequest("host is empty. Leave it out, or give *, to kill the tasks on all hosts.")
	}
	if k.Host == "*" {
		k.Host = ""
	}
	tasks, d, err := s.kill(r, k)
	switch {
	case err != nil:
		return err
	case d != nil:
		return writeDeployment(w, http.StatusOK, *d)
	case k.Scale:
		return s.nothingToScale(w, r)
	}
	return writeTasks(w, tasks)
}

// nothingToScale answers a kill with scale=true that found no task as any other one
// with scale=true: by a deployment, which has finished.
func (s *server) nothingToScale(w http.ResponseWriter, r *http.Request) error {
	d, err := s.svc.Change(r.Context(), core.Change{})
	if err != nil {
		return err
	}
	s.audit(r, d)
	return writeDeployment(w, http.StatusOK, d)
}

func (s *server) killAppTask(w http.ResponseWriter, r *http.Request, p params) error {
	k, err := killFlags(r)
	if err != nil {
		return err
	}
	// go-marathon makes the app of the task id in a way that fits no id of the
	// last years; the task id alone says it all then.
	if p["id"] != clientsGuess(p["task"]) {
		if k.App, err = knownID(p); err != nil {
			return err
		}
	}
	k.TaskIDs = []string{p["task"]}
	tasks, d, err := s.kill(r, k)
	if err != nil {
		return err
	}
	switch {
	case d != nil:
		return writeDeployment(w, http.StatusOK, *d)
	case len(tasks) == 0:
		return &core.NotFoundError{Message: "Task '" + p["task"] + "' does not exist"}
	}
	return writeJSON(w, http.StatusOK, map[string]any{"task": tasks[0]})
}

// clientsGuess is the app that go-marathon takes a task to be of: the task id
// without its last part, with slashes for underscores.
func clientsGuess(taskID string) string {
	i := strings.LastIndexByte(taskID, '.')
	if i < 0 {
		return ""
	}
	return strings.Join(segments(strings.ReplaceAll(taskID[:i], "_", "/")), "/")
}

// kill asks the core and renders the tasks that it stops.
func (s *server) kill(r *http.Request, k core.Kill) ([]taskJSON, *core.DeploymentRef, error) {
	var ports []int
	if k.App != "" {
		a, err := s.stored(r.Context(), k.App)
		if err != nil {
			return nil, nil, err
		}
		if a != nil {
			ports = a.ServicePorts()
		}
	}
	tasks, d, err := s.svc.KillTasks(r.Context(), k)
	if err != nil {
		return nil, nil, err
	}
	if d != nil {
		s.audit(r, *d)
		return nil, d, nil
	}
	s.audit(r, core.DeploymentRef{})
	return taskViews(tasks, ports), nil, nil
}

// taskIDPattern is what all forms of task ids have in common that Marathon has
// used: the app's safe path, then more, set off by a dot or an underscore
// (contract 7.2).
var taskIDPattern = regexp.MustCompile(`^[^._].*[._][^._]+$`)

// killTasks kills tasks of any apps. Unknown ids are skipped, since a task may
// end while its id is on the way.
func (s *server) killTasks(w http.ResponseWriter, r *http.Request, _ params) error {
	k, err := killFlags(r)
	if err != nil {
		return err
	}
	if k.TaskIDs, err = idsToKill(r); err != nil {
		return err
	}
	if len(k.TaskIDs) == 0 && !k.Scale {
		return writeTasks(w, []taskJSON{})
	}
	tasks, d, err := s.svc.KillTasks(r.Context(), k)
	switch {
	case err != nil:
		return err
	case d != nil:
		s.audit(r, *d)
		return writeDeployment(w, http.StatusOK, *d)
	case k.Scale:
		return s.nothingToScale(w, r)
	}
	s.audit(r, core.DeploymentRef{})
	return writeTasks(w, taskViews(tasks, nil))
}

func idsToKill(r *http.Request) ([]string, error) {
	data, err := body(r)
	if err != nil {
		return nil, err
	}
	if len(data) == 0 {
		return nil, &app.SyntaxError{Message: "Please specify data in JSON format", Details: "No content to map due to end-of-input"}
	}
	ids, err := readIDs(data)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if !taskIDPattern.MatchString(id) {
			return nil, badRequest("Invalid task id '%s'. [A task id is <app>.instance-<uuid>._app.<number>]", id)
		}
	}
	return ids, nil
}

// readIDs reads {"ids": [...]}.
func readIDs(data []byte) ([]string, error) {
	var in any
	if err := json.Unmarshal(data, &in); err != nil {
		return nil, &app.SyntaxError{Message: "Invalid JSON", Details: err.Error()}
	}
	object, ok := in.(map[string]any)
	if !ok {
		return nil, wrongShape("/", "error.expected.jsobject")
	}
	list, ok := object["ids"].([]any)
	switch {
	case object["ids"] == nil:
		return nil, wrongShape("/ids", "error.path.missing")
	case !ok:
		return nil, wrongShape("/ids", "error.expected.jsarray")
	}
	out := make([]string, len(list))
	for i, v := range list {
		if out[i], ok = v.(string); !ok {
			return nil, wrongShape(fmt.Sprintf("/ids(%d)", i), "error.expected.jsstring")
		}
	}
	return out, nil
}

func wrongShape(path, message string) error {
	return &app.ValidationError{Message: "Invalid JSON", Details: []app.Detail{{Path: path, Errors: []string{message}}}}
}
