package api

import (
	_ "embed" // for the OpenAPI document
	"net/http"
	"strings"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/core"
)

// ping answers in the form that the client asks for.
func (s *server) ping(w http.ResponseWriter, r *http.Request, _ params) error {
	accept := r.Header.Get("Accept")
	switch {
	case accept == "", strings.Contains(accept, "text/plain"), strings.Contains(accept, "*/*"):
		w.Header().Set("Content-Type", "text/plain;charset=utf-8")
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write([]byte("pong")) // the status is out
		return nil
	case strings.Contains(accept, "application/json"):
		return writeJSON(w, http.StatusOK, "pong")
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// metrics answers in Marathon's form, or in that of Prometheus to a client that
// asks for text as Prometheus does.
func (s *server) metrics(w http.ResponseWriter, r *http.Request, p params) error {
	accept := r.Header.Get("Accept")
	if strings.Contains(accept, "text/plain") || strings.Contains(accept, "openmetrics-text") {
		return s.prometheus(w, r, p)
	}
	d, err := s.cfg.Metrics.Marathon()
	if err != nil {
		s.log.Warn("answering with some metrics only", zap.Error(err))
	}
	return writeJSON(w, http.StatusOK, d)
}

func (s *server) prometheus(w http.ResponseWriter, r *http.Request, _ params) error {
	s.cfg.Metrics.Prometheus().ServeHTTP(w, r)
	return nil
}

type infoJSON struct {
	Name        string         `json:"name"`
	Version     string         `json:"version"`
	BuildRef    string         `json:"buildref"`
	Elected     bool           `json:"elected"`
	Leader      string         `json:"leader,omitempty"`
	FrameworkID string         `json:"frameworkId,omitempty"`
	Connected   *bool          `json:"connected,omitempty"`
	Marathon    map[string]any `json:"marathon_config"`
	ZooKeeper   map[string]any `json:"zookeeper_config"`
	HTTP        map[string]any `json:"http_config"`
}

func (s *server) info(w http.ResponseWriter, r *http.Request, _ params) error {
	i := s.svc.Info()
	marathon := make(map[string]any, len(s.cfg.Marathon)+1)
	for k, v := range s.cfg.Marathon {
		marathon[k] = v
	}
	if i.Master != "" {
		marathon["mesos_leader_ui_url"] = "http://" + i.Master + "/"
	}
	out := infoJSON{
		Name: s.cfg.Name, Version: s.cfg.Version, BuildRef: s.cfg.BuildRef,
		Elected: i.Elected, Leader: i.Leader, FrameworkID: i.FrameworkID,
		Marathon: marathon, ZooKeeper: orEmpty(s.cfg.ZooKeeper), HTTP: orEmpty(s.cfg.HTTP),
	}
	if flag(r, extensions, false) {
		out.Connected = &i.Connected
		for k, v := range s.cfg.Extensions {
			marathon[k] = v
		}
	}
	return writeJSON(w, http.StatusOK, out)
}

func orEmpty(m map[string]any) map[string]any {
	if m == nil {
		return map[string]any{}
	}
	return m
}

func (s *server) leader(w http.ResponseWriter, _ *http.Request, _ params) error {
	leader := s.svc.Info().Leader
	if leader == "" {
		return &core.NotFoundError{Message: "There is no leader"}
	}
	return writeJSON(w, http.StatusOK, map[string]string{"leader": leader})
}

// openAPIDocument describes the API. A test holds it against the handlers.
//
//go:embed openapi.yaml
var openAPIDocument []byte

// plugins answers what Marathon answers without any: there are none here.
func (s *server) plugins(w http.ResponseWriter, _ *http.Request, _ params) error {
	return writeJSON(w, http.StatusOK, map[string][]string{"plugins": {}})
}

func (s *server) openAPI(w http.ResponseWriter, _ *http.Request, _ params) error {
	w.Header().Set("Content-Type", "application/yaml")
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(openAPIDocument) // the status is out
	return nil
}

func (s *server) abdicate(w http.ResponseWriter, r *http.Request, _ params) error {
	if s.cfg.Abdicate == nil {
		return &core.NotFoundError{Message: "There is no other process that could lead; restart this one instead"}
	}
	s.audit(r, core.DeploymentRef{})
	err := writeJSON(w, http.StatusOK, map[string]string{"message": "Leadership abdicated"})
	s.cfg.Abdicate()
	return err
}

// noPods says in a way that clients understand that there are no pods: HEAD
// /v2/pods is how they ask.
func (s *server) noPods(http.ResponseWriter, *http.Request, params) error {
	return &core.NotFoundError{Message: "Pods are not supported; define an app instead"}
}
