package api

import (
	"encoding/json"
	"net/http"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// claimUsed records where another framework's app, which is being taken over,
// used a volume last. It is not part of Marathon's API.
func (s *server) claimUsed(w http.ResponseWriter, r *http.Request, p params) error {
	data, err := body(r)
	if err != nil {
		return err
	}
	var use struct {
		App      app.ID `json:"app"`
		AgentID  string `json:"agentId"`
		Hostname string `json:"hostname"`
		TaskID   string `json:"taskId"`
	}
	if err := json.Unmarshal(data, &use); err != nil {
		return badRequest("The body is not of the form {\"app\":..,\"agentId\":..,\"hostname\":..}: %v", err)
	}
	if use.App == "" || use.AgentID == "" || use.Hostname == "" {
		return badRequest("app, agentId and hostname must be given.")
	}
	key := scheduler.VolumeKey{Driver: p["driver"], Name: p["name"]}
	if err := s.svc.ClaimUsed(r.Context(), key, core.Use(use)); err != nil {
		return err
	}
	s.audit(r, core.DeploymentRef{})
	return writeJSON(w, http.StatusOK, map[string]string{
		"message": "Volume " + key.Name + " of driver " + key.Driver + " stays on agent " + use.AgentID + " until it is known to be unmounted there.",
	})
}
