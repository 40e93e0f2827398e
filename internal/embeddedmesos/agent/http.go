package agent

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/mesos/mesos-go/api/v1/lib/agent"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/mesosjson"
)

// maxBody bounds a request, as nothing that an operator asks is large.
const maxBody = 1 << 20

const (
	typeJSON     = "application/json"
	typeProtobuf = "application/x-protobuf"
)

// httpError is an answer other than the one asked for. Its text goes to the
// client, in the words of Apache Mesos where it has some.
type httpError struct {
	status int
	text   string
}

// Error implements error.
func (e *httpError) Error() string { return e.text }

// handler serves the endpoints of an agent that others read
// (src/slave/http.cpp), with and without the process's name in front.
func (p *process) handler() http.Handler {
	mux := http.NewServeMux()
	for _, prefix := range []string{"", "/slave(1)"} {
		mux.HandleFunc(prefix+"/health", func(http.ResponseWriter, *http.Request) {})
		mux.Handle(prefix+"/containers", p.endpoint(readOnly, p.serveContainers))
		mux.Handle(prefix+"/state", p.endpoint(readOnly, p.serveState))
		mux.Handle(prefix+"/api/v1", p.endpoint(readWrite, p.serveCall))
	}
	mux.HandleFunc("/version", p.serveVersion)
	mux.Handle("/files/browse", p.endpoint(readOnly, p.serveBrowse))
	mux.Handle("/files/read", p.endpoint(readOnly, p.serveRead))
	mux.Handle("/files/download", p.endpoint(readOnly, p.serveDownload))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A frozen process accepts connections and answers none of them. The
		// end of the process closes the connection, which ends the wait.
		if p.agent.gate.wait(r.Context()) != nil {
			panic(http.ErrAbortHandler)
		}
		mux.ServeHTTP(w, r)
	})
}

// The realms of authentication (src/slave/slave.cpp): the operator API is in the
// second one even for calls that only read.
const (
	readOnly  = "mesos-agent-readonly"
	readWrite = "mesos-agent-readwrite"
)

// endpoint authenticates, and turns an error into the answer.
func (p *process) endpoint(realm string, serve func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !p.authenticated(r) {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf("Basic realm=%q", realm))
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		err := serve(w, r)
		var answer *httpError
		switch {
		case err == nil:
		case errors.As(err, &answer):
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.WriteHeader(answer.status)
			_, _ = io.WriteString(w, answer.text)
		default:
			// The process is ending or the client has gone.
			panic(http.ErrAbortHandler)
		}
	})
}

func (p *process) authenticated(r *http.Request) bool {
	if len(p.cfg.Credentials) == 0 {
		return true
	}
	principal, secret, ok := r.BasicAuth()
	want, known := p.cfg.Credentials[principal]
	return ok && known && subtle.ConstantTimeCompare([]byte(secret), []byte(want)) == 1
}

// serveCall answers the v1 operator API.
func (p *process) serveCall(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return &httpError{http.StatusMethodNotAllowed,
			fmt.Sprintf("Expecting one of { 'POST' }, but received '%s'", r.Method)}
	}
	call, err := decodeCall(r)
	if err != nil {
		return err
	}
	accept, err := negotiate(r)
	if err != nil {
		return err
	}
	var response *agent.Response
	if err := p.do(r.Context(), func() { response, err = p.answer(call) }); err != nil {
		return err
	}
	if err != nil || response == nil {
		return err
	}
	return writeMessage(w, accept, response)
}

func decodeCall(r *http.Request) (*agent.Call, error) {
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	if err != nil {
		return nil, &httpError{http.StatusBadRequest, "Failed to read the body: " + err.Error()}
	}
	call := new(agent.Call)
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch kind {
	case typeProtobuf:
		err = call.Unmarshal(body)
	case typeJSON:
		err = mesosjson.Unmarshal(body, call)
	default:
		return nil, &httpError{http.StatusUnsupportedMediaType,
			"Expecting 'Content-Type' of application/json or application/x-protobuf"}
	}
	var syntax *mesosjson.SyntaxError
	switch {
	case errors.As(err, &syntax):
		return nil, &httpError{http.StatusBadRequest, "Failed to parse body into JSON: " + err.Error()}
	case err != nil:
		return nil, &httpError{http.StatusBadRequest, "Failed to convert JSON into Call protobuf: " + err.Error()}
	case call.Type == agent.Call_UNKNOWN:
		return nil, &httpError{http.StatusBadRequest, "Failed to validate agent::Call: Expecting 'type' to be present"}
	}
	return call, nil
}

// negotiate chooses JSON when the client does not mind.
func negotiate(r *http.Request) (string, error) {
	accept := r.Header.Get("Accept")
	switch {
	case accept == "", strings.Contains(accept, typeJSON), strings.Contains(accept, "*/*"):
		return typeJSON, nil
	case strings.Contains(accept, typeProtobuf):
		return typeProtobuf, nil
	}
	return "", &httpError{http.StatusNotAcceptable,
		"Expecting 'Accept' to allow application/json or application/x-protobuf"}
}

func writeMessage(w http.ResponseWriter, kind string, m *agent.Response) error {
	var data []byte
	var err error
	if kind == typeProtobuf {
		data, err = m.Marshal()
	} else {
		data, err = mesosjson.Marshal(m)
	}
	if err != nil {
		return &httpError{http.StatusInternalServerError, err.Error()}
	}
	return writeBody(w, kind, data)
}

func writeBody(w http.ResponseWriter, kind string, data []byte) error {
	w.Header().Set("Content-Type", kind)
	_, err := w.Write(data)
	return err
}

// requestedPath returns the file below a sandbox that a request names by "path".
func (p *process) requestedPath(query url.Values) (string, error) {
	path := query.Get("path")
	if path == "" {
		return "", &httpError{http.StatusBadRequest, "Expecting 'path=value' in query.\n"}
	}
	file, err := p.sandboxPath(path)
	if err != nil {
		return "", &httpError{http.StatusNotFound, "File not found.\n"}
	}
	return file, nil
}
