package master

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/gogo/protobuf/proto"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/mesosjson"
)

// maxBody bounds a call's body.
const maxBody = 64 << 20

// httpError is an answer other than success; its text is the body.
type httpError struct {
	status int
	text   string
}

// Error implements error.
func (e *httpError) Error() string { return e.text }

func badRequest(format string, args ...any) error {
	return &httpError{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// handler routes the master's endpoints, with and without libprocess's
// "/master" prefix.
func (m *Master) handler() http.Handler {
	mux := http.NewServeMux()
	for _, prefix := range []string{"", "/master"} {
		mux.Handle(prefix+"/api/v1/scheduler", m.endpoint("mesos-master-scheduler", m.serveScheduler))
		mux.Handle(prefix+"/api/v1", m.endpoint("mesos-master-readwrite", m.serveOperator))
		mux.Handle(prefix+"/state", m.endpoint("mesos-master-readonly", m.serveState))
		mux.HandleFunc(prefix+"/health", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
		mux.HandleFunc(prefix+"/redirect", m.serveRedirect)
	}
	return mux
}

// handlerFunc serves an authenticated request; an error becomes the answer.
type handlerFunc func(w http.ResponseWriter, r *http.Request, principal string) error

// endpoint authenticates in a realm and sends requests away while the master
// does not lead.
func (m *Master) endpoint(realm string, serve handlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		principal, ok := m.authenticate(r)
		if !ok {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf("Basic realm=%q", realm))
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if m.faults.unavailable.Load() {
			writeText(w, http.StatusServiceUnavailable, "No leader elected")
			return
		}
		if leader := m.faults.leader.Load(); leader != nil {
			path := "/master" + strings.TrimPrefix(r.URL.Path, "/master")
			w.Header().Set("Location", "//"+*leader+path)
			w.WriteHeader(http.StatusTemporaryRedirect)
			return
		}
		if err := serve(w, r, principal); err != nil {
			m.writeError(w, err)
		}
	})
}

func (m *Master) authenticate(r *http.Request) (principal string, ok bool) {
	if len(m.cfg.Credentials) == 0 {
		return "", true
	}
	principal, secret, _ := r.BasicAuth()
	want, known := m.cfg.Credentials[principal]
	return principal, known && subtle.ConstantTimeCompare([]byte(secret), []byte(want)) == 1
}

func (m *Master) writeError(w http.ResponseWriter, err error) {
	var answer *httpError
	switch {
	case errors.As(err, &answer):
		writeText(w, answer.status, answer.text)
	case errors.Is(err, errStopped):
		// As a process that died: no answer.
		panic(http.ErrAbortHandler)
	default:
		m.log.Warn("request failed", zap.Error(err))
		writeText(w, http.StatusInternalServerError, err.Error())
	}
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Length", fmt.Sprint(len(text)))
	w.WriteHeader(status)
	// A client that is gone needs no answer.
	_, _ = io.WriteString(w, text)
}

// decodeCall reads a POSTed call in JSON or protobuf.
func decodeCall(w http.ResponseWriter, r *http.Request, call proto.Message) error {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return &httpError{
			http.StatusMethodNotAllowed,
			fmt.Sprintf("Expecting one of { 'POST' }, but received '%s'", r.Method),
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return badRequest("Failed to read body: %v", err)
	}
	switch r.Header.Get("Content-Type") {
	case "":
		return badRequest("Expecting 'Content-Type' to be present")
	case mediaProtobuf:
		return decodeProtobuf(body, call)
	case mediaJSON:
		return decodeJSON(body, call)
	default:
		return &httpError{
			http.StatusUnsupportedMediaType,
			"Expecting 'Content-Type' of " + mediaJSON + " or " + mediaProtobuf,
		}
	}
}

func decodeJSON(body []byte, call proto.Message) error {
	err := mesosjson.Unmarshal(body, call)
	var syntax *mesosjson.SyntaxError
	switch {
	case errors.As(err, &syntax):
		return badRequest("Failed to parse body into JSON: %v", err)
	case err != nil:
		return badRequest("Failed to convert JSON into Call protobuf: %v", err)
	}
	return nil
}

// decodeProtobuf survives bodies that make the generated decoder panic
// (CVE-2021-3121).
func decodeProtobuf(body []byte, call proto.Message) (err error) {
	refused := badRequest("Failed to parse body into Call protobuf")
	defer func() {
		if recover() != nil {
			err = refused
		}
	}()
	if err := proto.Unmarshal(body, call); err != nil {
		return refused
	}
	return nil
}

// acceptedMedia chooses the answer's media type, JSON first as Mesos does.
func acceptedMedia(r *http.Request) (string, error) {
	for _, media := range []string{mediaJSON, mediaProtobuf} {
		if accepts(r, media) {
			return media, nil
		}
	}
	return "", &httpError{
		http.StatusNotAcceptable,
		"Expecting 'Accept' to allow '" + mediaProtobuf + "' or '" + mediaJSON + "'",
	}
}

func accepts(r *http.Request, media string) bool {
	header := strings.Join(r.Header.Values("Accept"), ",")
	if header == "" {
		return true
	}
	for _, one := range strings.Split(header, ",") {
		name, parameters, err := mime.ParseMediaType(strings.TrimSpace(one))
		if err != nil || parameters["q"] == "0" {
			continue
		}
		if name == media || name == "*/*" || name == "application/*" {
			return true
		}
	}
	return false
}

// writeMessage answers with an encoded message.
func writeMessage(w http.ResponseWriter, media string, message proto.Message) error {
	body, err := encode(media, message)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	w.Header().Set("Content-Type", media)
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	// A client that is gone needs no answer.
	_, _ = w.Write(body)
	return nil
}

// serveRedirect sends browsers to the leading master.
func (m *Master) serveRedirect(w http.ResponseWriter, r *http.Request) {
	leader := fmt.Sprintf("%s:%d", m.info.GetHostname(), m.info.GetPort())
	if other := m.faults.leader.Load(); other != nil {
		leader = *other
	}
	if m.faults.unavailable.Load() {
		writeText(w, http.StatusServiceUnavailable, "No leader elected")
		return
	}
	w.Header().Set("Location", "//"+leader)
	w.WriteHeader(http.StatusTemporaryRedirect)
}
