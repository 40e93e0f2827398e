package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"strings"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/core"
)

// headers puts those on every answer that Marathon puts on it (contract 0.1).
func (s *server) headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
		h.Set("Pragma", "no-cache")
		h.Set("Expires", "0")
		h.Set("X-Frame-Options", "DENY")
		h.Set("X-XSS-Protection", "1; mode=block")
		if info := s.svc.Info(); info.Elected && info.Leader != "" {
			h.Set("X-Marathon-Leader", s.leaderURL(info))
		}
		next.ServeHTTP(w, r)
	})
}

func (s *server) leaderURL(info core.Info) string {
	if s.cfg.LeaderURL != "" {
		return s.cfg.LeaderURL
	}
	return "http://" + info.Leader
}

// limited refuses requests beyond MaxConcurrent instead of queueing them. Event
// streams stay open for long and are bounded by their own means.
func (s *server) limited(next http.Handler) http.Handler {
	if s.cfg.MaxConcurrent <= 0 {
		return next
	}
	slots := make(chan struct{}, s.cfg.MaxConcurrent)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v2/events") {
			next.ServeHTTP(w, r)
			return
		}
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			next.ServeHTTP(w, r)
		default:
			s.fail(w, r, &statusError{
				status:  http.StatusServiceUnavailable,
				message: fmt.Sprintf("Too many concurrent requests! Allowed: %d.", s.cfg.MaxConcurrent),
			})
		}
	})
}

// crossOrigin answers browsers of other origins when the operator allows it.
func (s *server) crossOrigin(next http.Handler) http.Handler {
	origins := strings.Fields(s.cfg.AllowOrigin)
	if len(origins) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		for _, o := range origins {
			h.Add("Access-Control-Allow-Origin", o)
		}
		for _, v := range r.Header.Values("Access-Control-Request-Headers") {
			h.Add("Access-Control-Allow-Headers", v)
		}
		h.Set("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
		h.Set("Access-Control-Max-Age", "86400")
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			w.WriteHeader(http.StatusOK) // a preflight carries no credentials
			return
		}
		next.ServeHTTP(w, r)
	})
}

// authenticated demands basic authentication when a user is configured.
func (s *server) authenticated(next http.Handler) http.Handler {
	if s.cfg.User == "" {
		return next
	}
	user, password := sha256.Sum256([]byte(s.cfg.User)), sha256.Sum256([]byte(s.cfg.Password))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, p, ok := r.BasicAuth()
		uh, ph := sha256.Sum256([]byte(u)), sha256.Sum256([]byte(p))
		same := subtle.ConstantTimeCompare(uh[:], user[:]) & subtle.ConstantTimeCompare(ph[:], password[:])
		if !ok || same != 1 {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf("Basic realm=%q", s.cfg.Realm))
			s.fail(w, r, &statusError{status: http.StatusUnauthorized, message: "Invalid username or password."})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// recovered turns a panic into an answer, so that one bad request does not cut
// a client off without a word.
func (s *server) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v := recover(); v != nil {
				if v == http.ErrAbortHandler {
					panic(v)
				}
				s.log.Error("request panicked", zap.String("method", r.Method), zap.String("path", r.URL.Path), zap.Any("panic", v), zap.Stack("stack"))
				s.fail(w, r, &statusError{status: http.StatusInternalServerError, message: "internal error; see the log of the framework"})
			}
		}()
		next.ServeHTTP(w, r)
	})
}
