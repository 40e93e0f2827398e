package api

import (
	"net/http"
	"strings"

	"github.com/mesos-dvdi/dvdi/framework/core"
)

// embed says what of an app's run-time state an answer holds.
type embed struct {
	counts, deployments, tasks, lastFailure, readiness, stats bool
}

// embedPrefixes may stand before a value, depending on the resource asked.
var embedPrefixes = []string{"group.apps.", "apps.", "app."}

// add reads the embed parameters of a request. Unknown values are ignored, as
// clients send them to servers of any version.
func (e embed) add(r *http.Request) embed {
	for _, v := range r.URL.Query()["embed"] {
		for _, prefix := range embedPrefixes {
			if rest, ok := strings.CutPrefix(v, prefix); ok {
				v = rest
				break
			}
		}
		switch v {
		case "tasks":
			e.tasks, e.deployments = true, true
		case "counts":
			e.counts = true
		case "deployments":
			e.deployments = true
		case "readiness":
			e.readiness = true
		case "lastTaskFailure":
			e.lastFailure = true
		case "failures": // deprecated
			e.tasks, e.lastFailure, e.deployments = true, true, true
		case "taskStats":
			e.stats = true
		}
	}
	return e
}

// view renders an app. running are the deployments that readiness results are
// taken from.
func (e embed) view(a core.AppView, running []core.DeploymentView) appJSON {
	v := appJSON{definition: a.App}
	if e.counts {
		v.extras.Staged, v.extras.Running = &a.Staged, &a.Running
		v.extras.Healthy, v.extras.Unhealthy = &a.Healthy, &a.Unhealthy
	}
	if e.deployments {
		refs := []ref{}
		for _, id := range a.Deployments {
			refs = append(refs, ref{id})
		}
		v.extras.Deployments = &refs
	}
	if e.tasks {
		tasks := taskViews(a.Tasks, a.App.ServicePorts())
		v.extras.Tasks = &tasks
	}
	if e.lastFailure {
		v.extras.LastFailure = failureView(a.LastFailure)
	}
	if e.readiness {
		results := []readinessJSON{}
		for _, d := range running {
			results = append(results, readinessViews(d, a.App.ID)...)
		}
		v.extras.Readiness = &results
	}
	if e.stats {
		stats := statsOf(a)
		v.extras.Stats, v.extras.StatsAlias = stats, stats
	}
	return v
}
