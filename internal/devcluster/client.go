package devcluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Client calls the framework's REST API as an operator's script would: plain
// JSON over HTTP, with none of the framework's own types.
type Client struct {
	URL  string
	HTTP *http.Client
}

// NewClient returns a client of the framework at url.
func NewClient(url string) *Client {
	return &Client{URL: url, HTTP: &http.Client{Timeout: time.Minute}}
}

// StatusError is an answer other than 2xx.
type StatusError struct {
	Method, Path string
	Status       int
	Body         string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s %s answered %d: %s", e.Method, e.Path, e.Status, e.Body)
}

// Do sends body (nil, []byte or a value to marshal) and decodes the answer
// into out unless that is nil. A status other than 2xx is a *StatusError.
func (c *Client) Do(ctx context.Context, method, path string, body, out any) error {
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case []byte:
		r = bytes.NewReader(b)
	default:
		data, err := json.Marshal(b)
		if err != nil {
			return fmt.Errorf("%s %s: encode the body: %w", method, path, err)
		}
		r = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.URL+path, r)
	if err != nil {
		return err
	}
	if r != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("%s %s: read the answer: %w", method, path, err)
	}
	if resp.StatusCode/100 != 2 {
		return &StatusError{Method: method, Path: path, Status: resp.StatusCode, Body: string(bytes.TrimSpace(data))}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("%s %s: decode the answer %q: %w", method, path, data, err)
	}
	return nil
}

// Task is a task as GET /v2/apps/{id}/tasks shows it.
type Task struct {
	ID      string `json:"id"`
	Host    string `json:"host"`
	SlaveID string `json:"slaveId"`
	State   string `json:"state"`
}

// Tasks returns the tasks of an app, whose id begins with a slash.
func (c *Client) Tasks(ctx context.Context, app string) ([]Task, error) {
	var out struct {
		Tasks []Task `json:"tasks"`
	}
	err := c.Do(ctx, http.MethodGet, "/v2/apps"+app+"/tasks", nil, &out)
	return out.Tasks, err
}

// Poll calls f until it returns true or an error, or ctx ends; the error then
// says what was waited for and what last returned.
func Poll(ctx context.Context, what string, f func() (bool, string, error)) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	state := "nothing was seen yet"
	for {
		ok, s, err := f()
		switch {
		case err != nil:
			return fmt.Errorf("waiting for %s: %w", what, err)
		case ok:
			return nil
		case s != "":
			state = s
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w; last seen: %s", what, ctx.Err(), state)
		case <-tick.C:
		}
	}
}
