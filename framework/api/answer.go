package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
)

// statusError is an answer that the API itself decides on.
type statusError struct {
	status  int
	message string
}

func (e *statusError) Error() string { return e.message }

func badRequest(format string, args ...any) error {
	return &statusError{status: http.StatusBadRequest, message: fmt.Sprintf(format, args...)}
}

// problem is the body of every error answer (contract 0.3). Details is a string
// for syntax errors and a list for broken rules.
type problem struct {
	Message     string `json:"message"`
	Details     any    `json:"details,omitempty"`
	Deployments []ref  `json:"deployments,omitempty"`
}

// ref names a deployment.
type ref struct {
	ID string `json:"id"`
}

// problemOf maps errors to status and body. It is the only place that does. What
// it does not know is the server's fault and becomes 500.
func problemOf(err error) (int, problem) {
	var (
		status   *statusError
		syntax   *app.SyntaxError
		invalid  *app.ValidationError
		missing  *core.NotFoundError
		exists   *core.ConflictError
		locked   *core.LockedError
		tooMany  *core.TooManyDeploymentsError
		tooLarge *http.MaxBytesError
	)
	switch {
	case errors.As(err, &status):
		return status.status, problem{Message: status.message}
	case errors.As(err, &syntax):
		return http.StatusBadRequest, problem{Message: syntax.Message, Details: syntax.Details}
	case errors.As(err, &invalid):
		p := problem{Message: invalid.Message}
		if len(invalid.Details) > 0 {
			p.Details = invalid.Details
		}
		return http.StatusUnprocessableEntity, p
	case errors.As(err, &missing):
		return http.StatusNotFound, problem{Message: missing.Message}
	case errors.As(err, &exists):
		return http.StatusConflict, problem{Message: exists.Message}
	case errors.As(err, &locked):
		return http.StatusConflict, lockedProblem(locked)
	case errors.As(err, &tooMany):
		return http.StatusForbidden, problem{Message: tooMany.Error()}
	case errors.As(err, &tooLarge):
		return http.StatusRequestEntityTooLarge, problem{Message: fmt.Sprintf("The request body is larger than %d bytes.", tooLarge.Limit)}
	case errors.Is(err, core.ErrStale):
		return http.StatusConflict, problem{Message: err.Error() + "; try again"}
	case errors.Is(err, core.ErrStopped):
		return http.StatusServiceUnavailable, problem{Message: "The framework is stopping; try again when it is back."}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return http.StatusServiceUnavailable, problem{Message: "The framework did not answer in time; try again."}
	}
	return http.StatusInternalServerError, problem{Message: err.Error()}
}

func lockedProblem(e *core.LockedError) problem {
	p := problem{Message: "App is locked by one or more deployments. Override with the option '?force=true'. " +
		"View details at '/v2/deployments/<DEPLOYMENT_ID>'."}
	for _, id := range e.Deployments {
		p.Deployments = append(p.Deployments, ref{id})
	}
	return p
}

// fail answers with an error.
func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, body := problemOf(err)
	if status == http.StatusInternalServerError {
		s.log.Error("request failed", zap.String("method", r.Method), zap.String("path", r.URL.Path), zap.Error(err))
	}
	if err := writeJSON(w, status, body); err != nil {
		s.log.Debug("answer not delivered", zap.String("path", r.URL.Path), zap.Error(err))
	}
}

// writeJSON encodes first and writes then, so that what cannot be encoded is
// still answered as an error.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	// The status is out: a client that is gone now gets no other answer.
	_, _ = w.Write(b)
	return nil
}

// writeDeployment answers with a started deployment.
func writeDeployment(w http.ResponseWriter, status int, d core.DeploymentRef) error {
	w.Header().Set("Marathon-Deployment-Id", d.ID)
	return writeJSON(w, status, d)
}

// AuditLogger is the last part of the name of the logger of accepted changes.
const AuditLogger = "audit"

// audit logs a mutation that was accepted, with who asked for it: the user who
// authenticated, and from where, as far as a proxy before this process says. Of
// the request it holds nothing but method and URI: bodies may hold secrets.
func (s *server) audit(r *http.Request, d core.DeploymentRef) {
	user := ""
	if s.cfg.User != "" {
		user, _, _ = r.BasicAuth() // it was checked
	}
	s.log.Named(AuditLogger).Info("change accepted", zap.String("method", r.Method), zap.String("uri", r.URL.RequestURI()),
		zap.String("client", clientIP(r)), zap.String("forwarded_for", strings.Join(r.Header.Values("X-Forwarded-For"), ", ")),
		zap.String("user", user), zap.String("deployment", d.ID))
}

func clientIP(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// flag reads a boolean query parameter; absent or unreadable gives def.
func flag(r *http.Request, name string, def bool) bool {
	v, err := strconv.ParseBool(r.URL.Query().Get(name))
	if err != nil {
		return def
	}
	return v
}
