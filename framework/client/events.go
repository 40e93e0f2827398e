package client

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Event is one event of the framework.
type Event struct {
	Type string
	Data []byte // JSON
}

// maxEvent bounds the length of one event in bytes.
const maxEvent = 16 << 20

// Events streams the framework's events of the given types, of all if none is
// given. Events that happen after it returns are not missed. The channel is
// closed when ctx or the stream ends; the caller reads it until then or ends
// ctx.
func (c *Client) Events(ctx context.Context, types ...string) (<-chan Event, error) {
	q := url.Values{"event_type": types, "extensions": {"true"}}
	resp, err := c.send(ctx, http.MethodGet, "/v2/events?"+q.Encode(), nil, "text/event-stream")
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		data, err := io.ReadAll(io.LimitReader(resp.Body, maxEvent))
		if err != nil {
			return nil, &UnreachableError{URL: c.base, Err: err}
		}
		return nil, problem(http.MethodGet, "/v2/events", resp.StatusCode, data)
	}
	events := make(chan Event)
	go func() {
		defer close(events)
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, maxEvent)
		read(ctx, lines, events)
	}()
	return events, nil
}

// read hands on events until the stream or ctx ends. How a stream ends says
// nothing: whoever needs events subscribes again.
func read(ctx context.Context, lines *bufio.Scanner, events chan<- Event) {
	var ev Event
	for lines.Scan() {
		line := strings.TrimSuffix(lines.Text(), "\r")
		if v, ok := strings.CutPrefix(line, "event: "); ok {
			ev.Type = v
			continue
		}
		if v, ok := strings.CutPrefix(line, "data: "); ok {
			ev.Data = []byte(v)
			continue
		}
		if line != "" || ev.Data == nil {
			continue
		}
		select {
		case events <- ev:
		case <-ctx.Done():
			return
		}
		ev = Event{}
	}
}
