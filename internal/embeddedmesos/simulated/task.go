package simulated

import (
	"bytes"
	"slices"
	"time"

	"github.com/google/uuid"
	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

// launch needs mu.
func (a *Agent) launch(m link.Run) {
	id := m.Task.TaskID.Value
	if !a.registered || a.tasks[id] != nil {
		return // as a real agent: the master asks about it later
	}
	framework := m.Framework
	a.frameworks[framework.GetID().GetValue()] = &framework
	t := &task{framework: framework.GetID().GetValue(), info: m.Task, state: mesos.TASK_STAGING}
	a.tasks[id] = t
	a.checkRoom(id)
	if !a.mountAll(t) {
		a.finish(t, mesos.TASK_FAILED)
		return
	}
	a.update(t, mesos.TASK_STARTING)
	var delay time.Duration
	if a.cluster.cfg.StartDelay != nil {
		delay = a.cluster.cfg.StartDelay(id)
	}
	run := func() {
		if a.tasks[id] == t && t.state == mesos.TASK_STARTING {
			a.update(t, mesos.TASK_RUNNING)
		}
	}
	if delay == 0 {
		run()
		return
	}
	a.after(delay, run)
}

// mountAll mounts a task's volumes and reports whether that went well. It needs
// mu.
func (a *Agent) mountAll(t *task) bool {
	id := t.info.TaskID.Value
	for _, v := range t.volumes() {
		if !a.cluster.mount(v, a, id) {
			return false
		}
		if a.mounts[v] == nil {
			a.mounts[v] = make(map[string]bool)
		}
		a.mounts[v][id] = true
	}
	return true
}

// checkRoom notes when tasks use more than there is. It needs mu.
func (a *Agent) checkRoom(id string) {
	used, all := newAmounts(), newAmounts()
	all.add(a.info.Resources)
	for _, t := range a.tasks {
		if !terminal(t.state) {
			used.add(t.info.Resources)
		}
	}
	if err := used.beyond(all); err != nil {
		a.cluster.violated("agent %s is over-committed by the launch of %s: %v", a.cfg.Hostname, id, err)
	}
}

// volumes are the docker volumes that a task mounts.
func (t *task) volumes() []Volume {
	var list []Volume
	if t.info.Container == nil {
		return nil
	}
	for i := range t.info.Container.Volumes {
		if d := t.info.Container.Volumes[i].Source.GetDockerVolume(); d != nil {
			list = append(list, Volume{Driver: d.GetDriver(), Name: d.Name})
		}
	}
	return list
}

// kill needs mu.
func (a *Agent) kill(m link.KillTask) {
	t := a.tasks[m.TaskID.Value]
	switch {
	case t == nil:
		a.sendOnce(&m.FrameworkID, m.TaskID, mesos.REASON_EXECUTOR_TERMINATED)
	case !terminal(t.state):
		a.finish(t, mesos.TASK_KILLED)
	}
}

// finish ends a task: its terminal status goes out, its volumes are unmounted
// later. It needs mu.
func (a *Agent) finish(t *task, state mesos.TaskState) {
	a.update(t, state)
	a.unmountLater(t)
}

func (a *Agent) unmountLater(t *task) {
	id := t.info.TaskID.Value
	var delay time.Duration
	if a.cluster.cfg.UnmountDelay != nil {
		delay = a.cluster.cfg.UnmountDelay(id)
	}
	a.after(delay, func() {
		for _, v := range t.volumes() {
			a.unuse(v, id)
		}
	})
}

// unuse unmounts a volume when its last task is gone. It needs mu.
func (a *Agent) unuse(v Volume, taskID string) {
	users := a.mounts[v]
	if !users[taskID] {
		return // it never was mounted for this task
	}
	delete(users, taskID)
	if len(users) > 0 {
		return
	}
	delete(a.mounts, v)
	a.cluster.unmount(v, a)
}

// drop ends a task of which nobody wants to hear. It needs mu.
func (a *Agent) drop(t *task) {
	if t.retry != nil {
		t.retry.Stop()
	}
	delete(a.tasks, t.info.TaskID.Value)
	if !terminal(t.state) {
		t.state = mesos.TASK_KILLED
		a.unmountLater(t)
	}
}

// update records a status and begins to send it. It needs mu.
func (a *Agent) update(t *task, state mesos.TaskState) {
	s := a.status(t.info.TaskID, state, mesos.SOURCE_EXECUTOR)
	s.ExecutorID = &mesos.ExecutorID{Value: t.info.TaskID.Value}
	container := "container-" + t.info.TaskID.Value
	s.ContainerStatus = &mesos.ContainerStatus{ContainerID: &mesos.ContainerID{Value: container}}
	if state == mesos.TASK_RUNNING && t.info.HealthCheck != nil {
		healthy := true
		s.Healthy = &healthy
	}
	t.state = state
	t.statuses = append(t.statuses, *s)
	t.pending = append(t.pending, s)
	if len(t.pending) == 1 {
		a.sendHead(t, a.cluster.cfg.StatusRetry)
	}
}

func (a *Agent) status(task mesos.TaskID, state mesos.TaskState, source mesos.TaskStatus_Source) *mesos.TaskStatus {
	id := uuid.New()
	now := float64(time.Now().UnixNano()) / 1e9
	return &mesos.TaskStatus{TaskID: task, State: &state, Source: &source, AgentID: a.info.ID, Timestamp: &now, UUID: id[:]}
}

// sendOnce answers for a task that the agent does not have. It needs mu.
func (a *Agent) sendOnce(framework *mesos.FrameworkID, task mesos.TaskID, reason mesos.TaskStatus_Reason) {
	s := a.status(task, mesos.TASK_DROPPED, mesos.SOURCE_AGENT)
	s.Reason = &reason
	a.send(link.Update{FrameworkID: *framework, Status: *s, LatestState: mesos.TASK_DROPPED})
}

// sendHead sends the oldest update that is not acknowledged, until it is. It
// needs mu.
func (a *Agent) sendHead(t *task, interval time.Duration) {
	if len(t.pending) == 0 {
		return
	}
	head := t.pending[0]
	a.send(link.Update{FrameworkID: mesos.FrameworkID{Value: t.framework}, Status: *head, LatestState: t.state})
	if t.retry != nil {
		t.retry.Stop()
	}
	t.retry = a.after(interval, func() {
		if len(t.pending) > 0 && t.pending[0] == head {
			a.sendHead(t, min(2*interval, retryMax))
		}
	})
}

// acknowledged needs mu.
func (a *Agent) acknowledged(m link.Acknowledge) {
	t := a.tasks[m.TaskID.Value]
	if t == nil || len(t.pending) == 0 || !bytes.Equal(t.pending[0].UUID, m.UUID) {
		return
	}
	t.pending = t.pending[1:]
	if t.retry != nil {
		t.retry.Stop()
	}
	if len(t.pending) > 0 {
		a.sendHead(t, a.cluster.cfg.StatusRetry)
	} else if terminal(t.state) {
		delete(a.tasks, m.TaskID.Value)
	}
}

// End makes a running task end by itself, with success or not. It reports
// whether there was such a task.
func (a *Agent) End(taskID string, success bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.tasks[taskID]
	if t == nil || terminal(t.state) {
		return false
	}
	state := mesos.TASK_FAILED
	if success {
		state = mesos.TASK_FINISHED
	}
	a.finish(t, state)
	return true
}

// Tasks returns the ids of the tasks that have not ended, sorted.
func (a *Agent) Tasks() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.DeleteFunc(a.taskIDs(), func(id string) bool { return terminal(a.tasks[id].state) })
}

// Mounts returns the docker volumes that are mounted, each with the ids of the
// tasks that have not been cleaned up after.
func (a *Agent) Mounts() map[Volume][]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make(map[Volume][]string, len(a.mounts))
	for v, users := range a.mounts {
		for id := range users {
			out[v] = append(out[v], id)
		}
		slices.Sort(out[v])
	}
	return out
}

// PersistentVolumes returns the ids of the persistent volumes that exist, and
// of those that were destroyed.
func (a *Agent) PersistentVolumes() (existing, destroyed []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.disks.volumes(), slices.Clone(a.destroyed)
}

// Reserved is how much of a resource is dynamically reserved, volumes included.
func (a *Agent) Reserved(name string) float64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	sum := 0.0
	for i := range a.disks.checkpointed {
		if r := &a.disks.checkpointed[i]; r.GetName() == name {
			sum += r.GetScalar().GetValue()
		}
	}
	return sum
}

func terminal(s mesos.TaskState) bool {
	switch s {
	case mesos.TASK_FINISHED, mesos.TASK_FAILED, mesos.TASK_KILLED, mesos.TASK_LOST, mesos.TASK_ERROR,
		mesos.TASK_DROPPED, mesos.TASK_GONE, mesos.TASK_GONE_BY_OPERATOR:
		return true
	}
	return false
}
