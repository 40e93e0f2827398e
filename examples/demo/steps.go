package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/mesos-dvdi/dvdi/internal/devcluster"
)

// deploy posts the app and follows it until its task has written.
func (d *demo) deploy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	placements, err := d.fw.Events(ctx, "instance_placed_event")
	if err != nil {
		return err
	}
	var created struct {
		ID          string `json:"id"`
		Deployments []struct {
			ID string `json:"id"`
		} `json:"deployments"`
	}
	if err := d.fw.Do(ctx, "POST", "/v2/apps", d.raw, &created); err != nil {
		return fmt.Errorf("post %s: %w", d.appFile, err)
	}
	deployment := "none"
	if len(created.Deployments) > 0 {
		deployment = created.Deployments[0].ID
	}
	d.say("the app is accepted: %s, deployment %s", created.ID, deployment)
	task, err := d.follow(ctx, placements)
	if err != nil {
		return err
	}
	lines, err := d.waitLines(ctx, task, 2)
	if err != nil {
		return err
	}
	d.say("the task has written to its volume:")
	for _, l := range lines {
		detail("%s", l)
	}
	return nil
}

// follow waits for the offer to be chosen, the volume to be mounted and the
// task to run, and says each.
func (d *demo) follow(ctx context.Context, placements <-chan devcluster.Event) (devcluster.Task, error) {
	var p struct {
		RunSpecID string `json:"runSpecId"`
		Host      string `json:"host"`
		Why       string `json:"why"`
	}
	for p.RunSpecID != d.app.ID {
		select {
		case e, ok := <-placements:
			if !ok {
				return devcluster.Task{}, fmt.Errorf("the event stream ended before an offer was chosen")
			}
			if err := json.Unmarshal(e.Data, &p); err != nil {
				return devcluster.Task{}, fmt.Errorf("decode the event %s: %w", e.Data, err)
			}
		case <-ctx.Done():
			return devcluster.Task{}, fmt.Errorf("waiting for an offer to be chosen: %w; %s", ctx.Err(), d.waitingFor(context.WithoutCancel(ctx)))
		}
	}
	d.say("an offer of %s is chosen: %s", p.Host, p.Why)
	task, err := d.waitState(ctx, "TASK_RUNNING", func(t devcluster.Task) bool { return t.Host == p.Host })
	if err != nil {
		return task, err
	}
	path, err := d.mountPath(ctx, task.Host)
	if err != nil {
		return task, err
	}
	d.say("the agent's isolator had dvdcli mount the volume %q at", d.volume())
	detail("%s", path)
	d.say("the task runs: %s", task.ID)
	return task, nil
}

// survive loses the task's host and follows the task to another one.
func (d *demo) survive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*stepTime)
	defer cancel()
	task, err := d.waitState(ctx, "TASK_RUNNING", nil)
	if err != nil {
		return err
	}
	placements, err := d.fw.Events(ctx, "instance_placed_event")
	if err != nil {
		return err
	}
	before, err := d.lines(task)
	if err != nil {
		return err
	}
	node := d.cluster.Node(task.Host)
	if err := node.PowerOff(); err != nil {
		return fmt.Errorf("lose %s: %w", task.Host, err)
	}
	d.say("%s is lost: its agent, executors, tasks and volume plugin are killed", task.Host)
	held, err := d.waitHeld(ctx)
	if err != nil {
		return err
	}
	d.say("nobody can tell from a distance whether the task still writes, so the volume is held:")
	detail("%s", held)
	if err := node.ForceDetach(ctx, d.volume()); err != nil {
		return err
	}
	if err := d.cluster.Mesos.MarkAgentGone(ctx, node.Agent.ID()); err != nil {
		return err
	}
	d.say("as the operator: the volume is detached in the storage, and the agent marked gone (MARK_AGENT_GONE)")
	moved, err := d.follow(ctx, placements)
	if err != nil {
		return err
	}
	if moved.Host == task.Host {
		return fmt.Errorf("the task came back on the lost host %s", task.Host)
	}
	return d.checkLines(ctx, moved, before)
}

// checkLines waits until the moved task has written, and holds what the volume
// has against what it had.
func (d *demo) checkLines(ctx context.Context, moved devcluster.Task, before []string) error {
	after, err := d.waitLines(ctx, moved, len(before)+1)
	if err != nil {
		return err
	}
	for i, l := range before {
		if after[i] != l {
			return fmt.Errorf("line %d was %q and is %q now: data was lost", i+1, l, after[i])
		}
	}
	d.say("the earlier %d lines are still there, and new ones follow:", len(before))
	shown := len(before) - 2
	for _, l := range after[max(shown, 0):] {
		detail("%s", l)
	}
	return nil
}

func (d *demo) volume() string { return d.app.Container.Volumes[0].External.Name }

func (d *demo) waitState(ctx context.Context, state string, also func(devcluster.Task) bool) (devcluster.Task, error) {
	var task devcluster.Task
	err := devcluster.Poll(ctx, "the task to be "+state, func() (bool, string, error) {
		tasks, err := d.fw.Tasks(ctx, d.app.ID)
		if err != nil {
			return false, "", err
		}
		var seen []string
		for _, t := range tasks {
			seen = append(seen, t.ID+" "+t.State)
			if t.State == state && (also == nil || also(t)) {
				task = t
				return true, "", nil
			}
		}
		return false, strings.Join(seen, ", ") + " " + d.waitingFor(ctx), nil
	})
	return task, err
}

// waitHeld waits until the framework knows that the host is gone silent and
// says what it does about the volume.
func (d *demo) waitHeld(ctx context.Context) (string, error) {
	if _, err := d.waitState(ctx, "TASK_UNREACHABLE", nil); err != nil {
		return "", err
	}
	var out struct {
		Volumes []struct {
			Name  string `json:"name"`
			State string `json:"state"`
			Text  string `json:"text"`
		} `json:"volumes"`
	}
	if err := d.fw.Do(ctx, "GET", "/v2/volumes", nil, &out); err != nil {
		return "", err
	}
	for _, v := range out.Volumes {
		if v.Name == d.volume() {
			return v.Text, nil
		}
	}
	return "", fmt.Errorf("the volume %s is not held by anyone: %+v", d.volume(), out.Volumes)
}

// waitingFor asks the queue what the app waits for, for error messages.
func (d *demo) waitingFor(ctx context.Context) string {
	var out json.RawMessage
	if err := d.fw.Do(ctx, "GET", "/v2/queue", nil, &out); err != nil {
		return err.Error()
	}
	return "queue: " + string(out)
}
