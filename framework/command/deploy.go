package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/framework/client"
)

// pollInterval is how often progress is asked for.
const pollInterval = 500 * time.Millisecond

func deploy(e *env) error {
	if err := e.exactly(1); err != nil {
		return err
	}
	api, err := e.api()
	if err != nil {
		return err
	}
	defer api.Close()
	data, ids, err := e.toSend(e.args[0])
	if err != nil {
		return err
	}
	if !e.cli.Bool("wait") {
		d, err := api.Put(e.ctx, data, e.cli.Bool("force"))
		if err != nil {
			return err
		}
		return e.print(d, []string{"DEPLOYMENT", "VERSION"}, [][]string{{d.ID, d.Version.String()}})
	}
	return e.deployAndWait(api, data, ids)
}

// toSend reads a file as the body of a request, and the apps that it names. What
// breaks rules is for the framework to refuse: only it knows what runs.
func (e *env) toSend(file string) ([]byte, []app.ID, error) {
	definitions, err := e.read(file)
	var ids []app.ID
	body := make([]json.RawMessage, 0, len(definitions))
	for _, d := range definitions {
		if !json.Valid(d.raw) {
			_, err = app.Parse(d.raw, app.Options{}) // says where
			break
		}
		body = append(body, d.raw)
		if id, err := app.ResolveID(string(claimedID(d.raw)), app.Root); err == nil {
			ids = append(ids, id)
		}
	}
	if err != nil {
		return nil, nil, e.invalid(err)
	}
	data, err := json.Marshal(body)
	if err != nil {
		return nil, nil, fmt.Errorf("send the definitions: %w", err)
	}
	return data, ids, nil
}

// outcome is what --output json prints after waiting.
type outcome struct {
	client.Deployment
	Success bool   `json:"success"`
	Reason  string `json:"reason,omitempty"`
}

func (e *env) deployAndWait(api *client.Client, data []byte, ids []app.ID) error {
	ctx, cancel := context.WithCancel(e.ctx)
	if timeout := e.cli.Duration("timeout"); timeout > 0 {
		ctx, cancel = context.WithTimeout(e.ctx, timeout)
	}
	defer cancel()
	// Subscribed before the start, so that the end cannot be missed.
	events, err := api.Events(ctx, "deployment_success", "deployment_failed")
	if err != nil {
		return err
	}
	d, err := api.Put(ctx, data, e.cli.Bool("force"))
	if err != nil {
		return err
	}
	w := &waiter{env: e, ctx: ctx, api: api, deployment: d, apps: ids, events: events}
	err = w.wait()
	var failed *DeploymentError
	if err != nil && !errors.As(err, &failed) {
		return err
	}
	result := outcome{Deployment: d, Success: err == nil}
	if failed != nil {
		result.Reason = failed.Reason
	}
	if e.json {
		if printErr := e.printJSON(result); printErr != nil {
			return printErr
		}
	}
	return err
}

// waiter follows one deployment to its end.
type waiter struct {
	*env
	ctx        context.Context
	api        *client.Client
	deployment client.Deployment
	apps       []app.ID
	events     <-chan client.Event
	last       string // the latest line of progress
}

// wait returns nil after success and a *DeploymentError otherwise.
func (w *waiter) wait() error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	w.say("deployment " + w.deployment.ID + " started")
	for {
		select {
		case ev, ok := <-w.events:
			if !ok {
				w.events = nil
				if w.ctx.Err() == nil {
					w.say("the event stream broke; asking instead")
				}
				continue
			}
			if ended, err := w.ended(ev); ended {
				return err
			}
		case <-tick.C:
			if ended, err := w.progress(); ended {
				return err
			}
		case <-w.ctx.Done():
			if w.env.ctx.Err() != nil {
				return &DeploymentError{w.deployment.ID, "goes on; the wait was interrupted"}
			}
			return &DeploymentError{w.deployment.ID, "has not ended within --timeout; it goes on. Last seen: " + w.last}
		}
	}
}

// ended tells whether the event is the end of the deployment.
func (w *waiter) ended(ev client.Event) (bool, error) {
	var data struct {
		ID     string `json:"id"`
		Reason string `json:"reason"`
	}
	if json.Unmarshal(ev.Data, &data) != nil || data.ID != w.deployment.ID {
		return false, nil
	}
	if ev.Type == "deployment_success" {
		w.say("deployment succeeded")
		return true, nil
	}
	if data.Reason == "" {
		data.Reason = "it was cancelled"
	}
	return true, &DeploymentError{w.deployment.ID, "failed: " + data.Reason}
}

// progress prints how far the deployment is. Without events it also finds out
// how it ended.
func (w *waiter) progress() (ended bool, err error) {
	running, err := w.api.Deployments(w.ctx)
	if err != nil {
		return w.trouble(err)
	}
	i := slices.IndexFunc(running, func(d client.Running) bool { return d.ID == w.deployment.ID })
	if i < 0 {
		if w.events != nil {
			return false, nil // the event is on its way
		}
		return w.judge()
	}
	d := running[i]
	var parts []string
	for _, a := range d.Current {
		parts = append(parts, fmt.Sprintf("%s %s", a.Action, a.App))
	}
	for _, id := range w.apps {
		text, err := w.state(id)
		if err != nil {
			return w.trouble(err)
		}
		parts = append(parts, text)
	}
	w.say(fmt.Sprintf("step %d of %d: %s", d.CurrentStep, d.TotalSteps, strings.Join(parts, "; ")))
	return false, nil
}

// trouble goes on after an answer that did not come: the framework may be
// restarting, and deployments survive that.
func (w *waiter) trouble(err error) (bool, error) {
	var unreachable *client.UnreachableError
	if errors.As(err, &unreachable) {
		if w.ctx.Err() == nil {
			w.say(err.Error())
		}
		return false, nil
	}
	return true, err
}

// state says how an app is doing.
func (w *waiter) state(id app.ID) (string, error) {
	a, err := w.api.App(w.ctx, id)
	if err != nil {
		return "", err
	}
	fresh := 0
	for _, t := range a.Tasks {
		if t.State == "TASK_RUNNING" && t.Version != nil && *t.Version == a.Version {
			fresh++
		}
	}
	text := fmt.Sprintf("%s %d of %d running", id, fresh, a.Instances)
	if len(a.HealthChecks) > 0 {
		text += fmt.Sprintf(", %d healthy", a.Healthy)
	}
	if f := a.LastFailure; f != nil && f.Timestamp.Compare(w.deployment.Version) >= 0 {
		text += fmt.Sprintf(", last failure on %s: %s %s", f.Host, f.State, f.Message)
	}
	if fresh >= a.Instances {
		return text, nil
	}
	queue, err := w.api.Queue(w.ctx)
	if err != nil {
		return "", err
	}
	for _, q := range queue {
		if q.App.ID != id {
			continue
		}
		if !q.Delay.Overdue {
			text += ", delayed after failures"
		}
		if len(q.Waiting) > 0 {
			text += ", waiting: " + q.Waiting[0].Text
		}
	}
	return text, nil
}

// judge finds out from the apps how a deployment ended whose end was missed.
func (w *waiter) judge() (bool, error) {
	for _, id := range w.apps {
		a, err := w.api.App(w.ctx, id)
		if err != nil {
			return w.trouble(err)
		}
		if a.Version.Compare(w.deployment.Version) > 0 {
			return true, &DeploymentError{w.deployment.ID, fmt.Sprintf("was replaced: %s is at version %s", id, a.Version)}
		}
		if a.Running < a.Instances {
			return true, &DeploymentError{w.deployment.ID, fmt.Sprintf("has ended with %d of %d instances of %s running", a.Running, a.Instances, id)}
		}
	}
	w.say("deployment succeeded")
	return true, nil
}

// say prints a line of progress unless it is the same as the one before. With
// --output json the standard output is for the outcome alone.
func (w *waiter) say(line string) {
	if line == w.last {
		return
	}
	w.last = line
	to := w.out
	if w.json {
		to = w.errOut
	}
	fmt.Fprintln(to, line)
}
