package devcluster

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Event is one event of GET /v2/events.
type Event struct {
	Type string
	Data []byte // JSON
}

// Events subscribes to the framework's event stream, filtered by types. The
// channel is closed when ctx or the stream ends. Events published after this
// returns are not missed.
func (c *Client) Events(ctx context.Context, types ...string) (<-chan Event, error) {
	q := url.Values{"event_type": types, "extensions": {"true"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL+"/v2/events?"+q.Encode(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/event-stream")
	// No client time-out: the stream is open until ctx ends.
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("subscribe to events: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, &StatusError{Method: "GET", Path: "/v2/events", Status: resp.StatusCode, Body: resp.Status}
	}
	events := make(chan Event)
	go func() {
		defer close(events)
		defer resp.Body.Close()
		readEvents(ctx, bufio.NewScanner(resp.Body), events)
	}()
	return events, nil
}

func readEvents(ctx context.Context, lines *bufio.Scanner, events chan<- Event) {
	lines.Buffer(nil, 16<<20)
	var e Event
	for lines.Scan() {
		line := strings.TrimSuffix(lines.Text(), "\r")
		switch {
		case strings.HasPrefix(line, "event: "):
			e.Type = line[len("event: "):]
		case strings.HasPrefix(line, "data: "):
			e.Data = []byte(line[len("data: "):])
		case line == "" && e.Data != nil:
			select {
			case events <- e:
			case <-ctx.Done():
				return
			}
			e = Event{}
		}
	}
}
