package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/core"
)

// eventStream is the media type of server-sent events.
const eventStream = "text/event-stream;charset=utf-8"

// extensions is the query parameter by which clients ask for what Marathon's API
// does not have: some that are made for Marathon end with an error at members and
// events that they do not know.
const extensions = "extensions"

// events streams what happens as server-sent events (contract 1.7) until the
// client or the core ends it. A client that does not keep up is cut off: it can
// then start afresh, whereas a gap would go unnoticed.
func (s *server) events(w http.ResponseWriter, r *http.Request, _ params) error {
	if !strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		w.Header().Set("Allow", http.MethodGet)
		return &statusError{
			status:  http.StatusMethodNotAllowed,
			message: "Method Not Allowed: the event stream needs the header 'Accept: text/event-stream'",
		}
	}
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Type", eventStream)
		w.WriteHeader(http.StatusOK)
		return nil
	}
	ch := s.svc.Subscribe(r.Context(), s.cfg.EventBuffer)
	st := stream{w: w, rc: http.NewResponseController(w), timeout: s.cfg.WriteTimeout, types: r.URL.Query()["event_type"],
		extensions: flag(r, extensions, false)}
	w.Header().Set("Content-Type", eventStream)
	// The deadline of the last write stays on the connection: no other request
	// may use it.
	w.Header().Set("Connection", "close")
	w.WriteHeader(http.StatusOK)
	if err := st.rc.Flush(); err != nil {
		return nil // the status is out; the client is gone
	}
	s.announce("event_stream_attached", r)
	defer s.announce("event_stream_detached", r)
	if err := st.run(ch, s.cfg.Heartbeat); err != nil {
		s.log.Info("event stream ended", zap.String("client", r.RemoteAddr), zap.Error(err))
	}
	return nil
}

type streamEvent struct {
	Type      string        `json:"eventType"`
	Timestamp app.Timestamp `json:"timestamp"`
	Remote    string        `json:"remoteAddress"`
}

func (s *server) announce(kind string, r *http.Request) {
	s.svc.Publish(core.BusEvent{Type: kind, Data: streamEvent{kind, app.NewTimestamp(time.Now()), r.RemoteAddr}})
}

// stream writes events to one client.
type stream struct {
	w       http.ResponseWriter
	rc      *http.ResponseController
	timeout time.Duration
	types   []string // empty: all
	// extensions has events sent, too, that Marathon does not have; those that
	// types name are sent anyway.
	extensions bool
}

// run writes events until the channel is closed, which the core does when the
// client is too slow or gone. Idle streams get a bare newline at times: that is
// what Marathon's clients know as a sign of life.
func (st stream) run(ch <-chan core.BusEvent, heartbeat time.Duration) error {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		select {
		case ev, ok := <-ch:
			if !ok {
				return nil
			}
			if err := st.event(ev); err != nil {
				return err
			}
		case <-beat.C:
			if err := st.write([]byte("\r\n")); err != nil {
				return err
			}
		}
	}
}

func (st stream) event(ev core.BusEvent) error {
	if len(st.types) > 0 && !slices.Contains(st.types, ev.Type) || len(st.types) == 0 && ev.Extension && !st.extensions {
		return nil
	}
	data, err := json.Marshal(ev.Data)
	if err != nil {
		return fmt.Errorf("encode event %s: %w", ev.Type, err)
	}
	frame := make([]byte, 0, len(data)+len(ev.Type)+24)
	frame = append(frame, "event: "+ev.Type+"\r\ndata: "...)
	frame = append(frame, data...)
	return st.write(append(frame, "\r\n\r\n"...))
}

func (st stream) write(b []byte) error {
	// Not every connection knows deadlines (a recorder in a test does not);
	// one that does must not block this goroutine for ever.
	_ = st.rc.SetWriteDeadline(time.Now().Add(st.timeout))
	if _, err := st.w.Write(b); err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	if err := st.rc.Flush(); err != nil {
		return fmt.Errorf("flush event: %w", err)
	}
	return nil
}
