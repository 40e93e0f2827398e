package volumetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// server is a plugin at work. Plugin methods and the test's control calls come
// in over two sockets.
type server struct {
	config Config
	log    *requestLog
	store  *store

	mu       sync.Mutex // guards the fields below
	rules    []*activeRule
	released chan struct{} // closed by release
	held     int

	stop    chan struct{} // closed by close
	servers []*http.Server
	done    sync.WaitGroup
}

type activeRule struct {
	Rule
	seen int
}

// newServer starts serving; config has its defaults.
func newServer(config Config) (*server, error) {
	log, err := openLog(filepath.Join(config.Dir, "requests.log"))
	if err != nil {
		return nil, err
	}
	s := &server{config: config, log: log, released: make(chan struct{}), stop: make(chan struct{})}
	for _, rule := range config.Rules {
		s.rules = append(s.rules, &activeRule{Rule: rule})
	}
	if s.store, err = openStore(config); err != nil {
		return nil, errors.Join(err, log.close())
	}
	for path, handler := range map[string]http.Handler{
		controlSocket(config): s.control(),
		pluginSocket(config):  http.HandlerFunc(s.servePlugin),
	} {
		if err := s.serve(path, handler); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	return s, nil
}

func pluginSocket(c Config) string  { return filepath.Join(c.PluginDir, c.Name+".sock") }
func controlSocket(c Config) string { return filepath.Join(c.Dir, c.Name+".control") }

func (s *server) serve(path string, handler http.Handler) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	listener.SetUnlinkOnClose(false)
	server := &http.Server{Handler: handler}
	s.servers = append(s.servers, server)
	s.done.Go(func() { _ = server.Serve(listener) })
	return nil
}

// close ends the plugin as a crash would: calls that wait are cut, and the
// sockets' files stay.
func (s *server) close() error {
	close(s.stop)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var failures []error
	for _, server := range s.servers {
		failures = append(failures, server.Shutdown(ctx))
	}
	s.done.Wait()
	return errors.Join(append(failures, s.log.close())...)
}

// servePlugin handles one call of the protocol.
func (s *server) servePlugin(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	_, method, _ := strings.Cut(r.URL.Path, ".")
	request := Request{Method: method, Header: map[string]string{
		"Host": r.Host, "Accept": r.Header.Get("Accept"), "Content-Type": r.Header.Get("Content-Type"),
	}}
	if len(body) > 0 {
		if err := json.Unmarshal(body, &request); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	number := s.log.received(request)
	status, answer, err := s.handle(request)
	if err != nil {
		s.log.answered(number, 0, err.Error())
		sendHalf(w, status, answer)
		panic(http.ErrAbortHandler) // closes the connection
	}
	s.log.answered(number, status, answer)
	w.WriteHeader(status)
	_, _ = io.WriteString(w, answer) // the client may be gone
}

// sendHalf begins an answer that will never be complete.
func sendHalf(w http.ResponseWriter, status int, answer string) {
	if answer == "" {
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, answer[:len(answer)/2]) // the client may be gone
	if flusher, ok := w.(http.Flusher); ok {
		flusher.Flush()
	}
}

// errCut asks for the connection to be closed.
var errCut = errors.New("connection closed")

// handle runs the call with the rules that apply to it.
func (s *server) handle(r Request) (status int, answer string, err error) {
	for _, instant := range []Instant{Before, After} {
		if instant == After {
			if err := s.pause(s.config.Delay); err != nil {
				return 0, "", err
			}
			status, answer = s.effect(r)
		}
		rule, applies := s.match(r, instant)
		if !applies {
			continue
		}
		switch rule.Do {
		case DoHold:
			if err := s.hold(); err != nil {
				return 0, "", err
			}
		case DoAnswer:
			return max(rule.Status, http.StatusOK), rule.Body, nil
		case DoDrop:
			return 0, "", errCut
		case DoCut:
			return max(rule.Status, http.StatusOK), rule.Body, errCut
		case DoExit:
			if err := unix.Kill(os.Getpid(), unix.SIGKILL); err != nil {
				return 0, "", err
			}
		}
	}
	return status, answer, nil
}

// pause waits, however the client fares: a plugin goes on without it.
func (s *server) pause(d time.Duration) error {
	if d == 0 {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-s.stop:
		return errCut
	}
}

func (s *server) hold() error {
	s.mu.Lock()
	released := s.released
	s.held++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.held--
		s.mu.Unlock()
	}()
	select {
	case <-released:
		return nil
	case <-s.stop:
		return errCut
	}
}

// match finds the first rule for the call at the instant and counts it.
func (s *server) match(r Request, at Instant) (Rule, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rule := range s.rules {
		if !rule.applies(r, at) {
			continue
		}
		rule.seen++
		if rule.seen <= rule.Skip || rule.Times > 0 && rule.seen > rule.Skip+rule.Times {
			continue
		}
		return rule.Rule, true
	}
	return Rule{}, false
}

func (r Rule) applies(request Request, at Instant) bool {
	if r.At == "" {
		r.At = Before
	}
	method := r.Method == request.Method || r.Method == "" && request.Method != "Activate"
	return at == r.At && method && (r.Volume == "" || r.Volume == request.Name)
}

// effect does what the call asks for.
func (s *server) effect(r Request) (status int, answer string) {
	if slices.Contains(s.config.Lacks, r.Method) {
		return http.StatusNotFound, "404 page not found\n"
	}
	switch r.Method {
	case "Activate":
		return ok(map[string]any{"Implements": []string{"VolumeDriver"}})
	case "Capabilities":
		return ok(map[string]any{"Capabilities": map[string]string{"Scope": s.config.Scope}})
	case "List":
		return ok(map[string]any{"Volumes": s.store.list()})
	case "Get":
		return s.get(r.Name)
	case "Create":
		return result(map[string]any{}, s.store.create(r.Name, r.Opts))
	case "Remove":
		return result(map[string]any{}, s.store.remove(r.Name))
	case "Path":
		mountpoint, err := s.store.path(r.Name)
		return result(map[string]any{"Mountpoint": mountpoint}, err)
	case "Mount":
		mountpoint, err := s.store.mount(r.Name, r.ID)
		return result(map[string]any{"Mountpoint": mountpoint}, err)
	case "Unmount":
		return result(map[string]any{}, s.store.unmount(r.Name, r.ID))
	}
	return http.StatusNotFound, "404 page not found\n"
}

func (s *server) get(name string) (status int, answer string) {
	if v, found := s.store.describe(name); found {
		return ok(map[string]any{"Volume": v})
	}
	text := fmt.Sprintf("volume %s not found", name)
	switch s.config.Missing {
	case MissingErr200:
		return ok(map[string]any{"Err": text})
	case MissingObscure:
		return failure(http.StatusInternalServerError, "error 17 in stage 4")
	case MissingEmpty:
		return ok(map[string]any{})
	case MissingNoName:
		return ok(map[string]any{"Volume": map[string]any{"Name": ""}})
	case MissingStatus:
		return failure(http.StatusNotFound, text)
	case MissingRawText:
		return http.StatusInternalServerError, text
	default:
		return failure(http.StatusInternalServerError, text)
	}
}

func ok(answer any) (int, string) {
	data, err := json.Marshal(answer)
	if err != nil {
		return http.StatusInternalServerError, err.Error()
	}
	return http.StatusOK, string(data)
}

func failure(status int, text string) (int, string) {
	_, body := ok(map[string]any{"Err": text})
	return status, body
}

func result(answer any, err error) (int, string) {
	if err != nil {
		return failure(http.StatusInternalServerError, err.Error())
	}
	return ok(answer)
}
