package api

import (
	"net/http"
	"net/url"
	"sort"
	"strings"
)

// handler answers a request, or returns an error that fail maps to an answer.
// It returns an error only before it has written anything.
type handler func(w http.ResponseWriter, r *http.Request, p params) error

// params are the parts of the path that the route's pattern names.
type params map[string]string

// methods are the handlers of one resource by HTTP method. HEAD is served by
// get. any serves every method.
type methods struct {
	get, post, put, patch, del, any handler
}

func (m methods) of(method string) handler {
	switch method {
	case http.MethodGet, http.MethodHead:
		if m.get != nil {
			return m.get
		}
	case http.MethodPost:
		if m.post != nil {
			return m.post
		}
	case http.MethodPut:
		if m.put != nil {
			return m.put
		}
	case http.MethodPatch:
		if m.patch != nil {
			return m.patch
		}
	case http.MethodDelete:
		if m.del != nil {
			return m.del
		}
	}
	return m.any
}

// allowed lists the methods for the Allow header.
func (m methods) allowed() string {
	var out []string
	for _, name := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		if m.of(name) != nil {
			out = append(out, name)
		}
	}
	out = append(out, http.MethodOptions)
	sort.Strings(out)
	return strings.Join(out, ", ")
}

// route is a resource: a pattern of path segments and its methods. "{x}" stands
// for one segment, "{x...}" for one or more; a pattern has at most one of the
// latter, since app ids contain slashes.
type route struct {
	pattern string
	methods methods
}

// match returns the named parts of the path, nil if the pattern does not fit.
// Empty segments do not count, so that "/v2/apps//x/" is "/v2/apps/x".
func (rt route) match(path []string) params {
	pattern := segments(rt.pattern)
	p := params{}
	for i, want := range pattern {
		if name, ok := strings.CutSuffix(strings.TrimPrefix(want, "{"), "...}"); ok {
			rest := len(pattern) - i - 1
			if len(path)-i-rest < 1 {
				return nil
			}
			end := len(path) - rest
			p[name] = strings.Join(path[i:end], "/")
			if !matchFixed(pattern[i+1:], path[end:], p) {
				return nil
			}
			return p
		}
		if i >= len(path) || !matchFixed(pattern[i:i+1], path[i:i+1], p) {
			return nil
		}
	}
	if len(path) != len(pattern) {
		return nil
	}
	return p
}

func matchFixed(pattern, path []string, p params) bool {
	for i, want := range pattern {
		if strings.HasPrefix(want, "{") {
			p[strings.Trim(want, "{}")] = path[i]
		} else if want != path[i] {
			return false
		}
	}
	return true
}

func segments(path string) []string {
	var out []string
	for seg := range strings.SplitSeq(path, "/") {
		if seg != "" {
			out = append(out, seg)
		}
	}
	return out
}

// dispatch finds the resource and calls its handler. It measures how long that
// takes, save for event streams, which take as long as the client likes.
func (s *server) dispatch(w http.ResponseWriter, r *http.Request) {
	served := s.cfg.Metrics.Started()
	rec := &recorder{ResponseWriter: w, status: http.StatusOK}
	resource := "none"
	defer func() {
		if resource == "/v2/events" {
			resource = ""
		}
		served(knownMethod(r.Method), resource, rec.status)
	}()
	resource = s.serve(rec, r)
}

// knownMethod keeps what clients make up out of the metrics' labels.
func knownMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	}
	return "other"
}

// recorder notes the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// wellFormed refuses a query that cannot be read in full. What url.URL.Query leaves
// out of it might have been what confines the request, as host does a kill.
func wellFormed(r *http.Request) error {
	if _, err := url.ParseQuery(r.URL.RawQuery); err != nil {
		return badRequest("The query cannot be read: %v", err)
	}
	return nil
}

// serve answers the request and returns the pattern of the resource that did.
func (s *server) serve(w http.ResponseWriter, r *http.Request) string {
	path := segments(r.URL.Path)
	for _, rt := range s.routes {
		p := rt.match(path)
		if p == nil {
			continue
		}
		h := rt.methods.of(r.Method)
		if h == nil {
			w.Header().Set("Allow", rt.methods.allowed())
			if r.Method == http.MethodOptions {
				w.WriteHeader(http.StatusOK)
				return rt.pattern
			}
			s.fail(w, r, &statusError{status: http.StatusMethodNotAllowed, message: "Method Not Allowed"})
			return rt.pattern
		}
		s.limitBody(w, r)
		err := wellFormed(r)
		if err == nil {
			err = acceptable(rt, r)
		}
		if err == nil {
			err = readable(w, r)
		}
		if err == nil {
			err = h(w, r, p)
		}
		if err != nil {
			s.fail(w, r, err)
		}
		return rt.pattern
	}
	s.fail(w, r, &statusError{status: http.StatusNotFound, message: "URI not found"})
	return "none"
}
