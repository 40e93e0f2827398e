package api

import (
	"net/http"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
)

type deploymentJSON struct {
	ID           string              `json:"id"`
	Version      app.Timestamp       `json:"version"`
	AffectedApps []app.ID            `json:"affectedApps"`
	AffectedPods []string            `json:"affectedPods"`
	Steps        []stepJSON          `json:"steps"`
	Current      []currentActionJSON `json:"currentActions"`
	CurrentStep  int                 `json:"currentStep"`
	TotalSteps   int                 `json:"totalSteps"`
}

type stepJSON struct {
	Actions []actionJSON `json:"actions"`
}

type actionJSON struct {
	Action string `json:"action"`
	App    app.ID `json:"app"`
}

type currentActionJSON struct {
	actionJSON
	Readiness []readinessJSON `json:"readinessCheckResults"`
}

type readinessJSON struct {
	Name         string            `json:"name"`
	TaskID       string            `json:"taskId"`
	Ready        bool              `json:"ready"`
	LastResponse *lastResponseJSON `json:"lastResponse,omitempty"`
}

type lastResponseJSON struct {
	Status      int    `json:"status"`
	ContentType string `json:"contentType"`
	Body        string `json:"body"`
}

func deploymentView(d core.DeploymentView) deploymentJSON {
	v := deploymentJSON{
		ID: d.ID, Version: d.Version, AffectedApps: d.Apps, AffectedPods: []string{},
		Steps: stepViews(d.Steps), Current: []currentActionJSON{},
		CurrentStep: d.Current, TotalSteps: len(d.Steps),
	}
	if v.AffectedApps == nil {
		v.AffectedApps = []app.ID{}
	}
	if d.Current > 0 && d.Current <= len(v.Steps) {
		for _, action := range v.Steps[d.Current-1].Actions {
			v.Current = append(v.Current, currentActionJSON{action, readinessViews(d, action.App)})
		}
	}
	return v
}

func stepViews(steps [][]core.Action) []stepJSON {
	out := make([]stepJSON, 0, len(steps))
	for _, step := range steps {
		actions := make([]actionJSON, 0, len(step))
		for _, a := range step {
			actions = append(actions, actionJSON{a.Kind, a.App})
		}
		out = append(out, stepJSON{actions})
	}
	return out
}

// readinessViews are the readiness results that a deployment has of one app.
func readinessViews(d core.DeploymentView, id app.ID) []readinessJSON {
	out := []readinessJSON{}
	for _, r := range d.Readiness {
		if r.AppID != id {
			continue
		}
		v := readinessJSON{Name: r.Name, TaskID: r.TaskID, Ready: r.Ready}
		if r.LastStatus != 0 {
			v.LastResponse = &lastResponseJSON{r.LastStatus, r.LastType, r.LastBody}
		}
		out = append(out, v)
	}
	return out
}

func (s *server) listDeployments(w http.ResponseWriter, r *http.Request, _ params) error {
	running, err := s.svc.Deployments(r.Context())
	if err != nil {
		return err
	}
	out := make([]deploymentJSON, 0, len(running))
	for _, d := range running {
		out = append(out, deploymentView(d))
	}
	return writeJSON(w, http.StatusOK, out)
}

func (s *server) cancelDeployment(w http.ResponseWriter, r *http.Request, p params) error {
	d, err := s.svc.CancelDeployment(r.Context(), p["deployment"], flag(r, "force", false))
	if err != nil {
		return err
	}
	if d == nil {
		s.audit(r, core.DeploymentRef{ID: p["deployment"]})
		w.WriteHeader(http.StatusAccepted)
		return nil
	}
	s.audit(r, *d)
	return writeDeployment(w, http.StatusOK, *d)
}
