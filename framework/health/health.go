// Package health runs the checks that the framework itself performs over the
// network: health checks with the protocols HTTP, HTTPS and TCP, and readiness
// checks (contract 5.4, 5.5). What follows from a result is the core's affair.
package health

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/core"
)

// maxBody is how much of an answer is kept for readiness checks that want it.
const maxBody = 10 << 10

// Runner runs checks, each in its own goroutine. It implements core.Checker.
type Runner struct {
	client  *http.Client
	slots   chan struct{} // bounds the checks under way
	results chan core.CheckOutcome
	done    sync.WaitGroup

	mu      sync.Mutex // guards running and closed
	running map[core.CheckKey]*job
	closed  bool
}

// job is a running check.
type job struct {
	target core.CheckTarget
	cancel context.CancelFunc
}

// New returns a Runner that has at most limit checks under way at a time.
// Close must be called in the end.
func New(limit int) *Runner {
	return &Runner{
		client: &http.Client{
			Transport: &http.Transport{
				// Marathon does not verify certificates either: checks address
				// tasks by host and port, for which there are none.
				TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
				DisableKeepAlives: true,
			},
			// A redirect is an answer like any other.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		slots:   make(chan struct{}, limit),
		results: make(chan core.CheckOutcome),
		running: map[core.CheckKey]*job{},
	}
}

// Results delivers the outcome of every check. It is never closed.
func (r *Runner) Results() <-chan core.CheckOutcome { return r.results }

// Sync makes targets the checks that run. A check whose target stays the same
// runs on undisturbed.
func (r *Runner) Sync(targets []core.CheckTarget) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	wanted := make(map[core.CheckKey]bool, len(targets))
	for _, t := range targets {
		wanted[t.Key] = true
		if j := r.running[t.Key]; j == nil || !j.target.Same(t) {
			if j != nil {
				j.cancel()
			}
			r.start(t)
		}
	}
	for key, j := range r.running {
		if !wanted[key] {
			j.cancel()
			delete(r.running, key)
		}
	}
}

// start needs mu.
func (r *Runner) start(t core.CheckTarget) {
	ctx, cancel := context.WithCancel(context.Background())
	r.running[t.Key] = &job{target: t, cancel: cancel}
	r.done.Add(1)
	go func() {
		defer r.done.Done()
		r.repeat(ctx, t)
	}()
}

// Close ends all checks and waits for them.
func (r *Runner) Close() {
	r.mu.Lock()
	r.closed = true
	for key, j := range r.running {
		j.cancel()
		delete(r.running, key)
	}
	r.mu.Unlock()
	r.done.Wait()
	r.client.CloseIdleConnections()
}

func (r *Runner) repeat(ctx context.Context, t core.CheckTarget) {
	if !sleep(ctx, time.Until(t.Start)) {
		return
	}
	for {
		o, ok := r.checkOnce(ctx, t)
		if !ok {
			return
		}
		select {
		case r.results <- o:
		case <-ctx.Done():
			return
		}
		if !sleep(ctx, t.Interval) {
			return
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// checkOnce returns false when the check was canceled.
func (r *Runner) checkOnce(ctx context.Context, t core.CheckTarget) (core.CheckOutcome, bool) {
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return core.CheckOutcome{}, false
	}
	timed, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	o := core.CheckOutcome{Key: t.Key}
	if t.URL == "" {
		o.Cause = dial(timed, t.Address)
	} else {
		r.get(timed, t, &o)
	}
	o.OK = o.Cause == ""
	return o, ctx.Err() == nil
}

func dial(ctx context.Context, address string) string {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err.Error()
	}
	conn.Close()
	return ""
}

func (r *Runner) get(ctx context.Context, t core.CheckTarget, o *core.CheckOutcome) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.URL, nil)
	if err != nil {
		o.Cause = err.Error()
		return
	}
	resp, err := r.client.Do(req)
	if err != nil {
		o.Cause = err.Error()
		return
	}
	defer resp.Body.Close()
	o.Status = resp.StatusCode
	o.ContentType = resp.Header.Get("Content-Type")
	if t.KeepBody {
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
		if err != nil {
			o.Cause = fmt.Sprintf("read the answer: %v", err)
			return
		}
		o.Body = string(body)
	}
	if !t.Good(resp.StatusCode) {
		o.Cause = "HTTP status " + resp.Status
	}
}

var _ core.Checker = (*Runner)(nil)
