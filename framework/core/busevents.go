package core

import (
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

// fields are the members of an event's JSON beside eventType and timestamp
// (contract 8).
type fields map[string]any

func newEvent(kind string, now time.Time, f fields) BusEvent {
	f["eventType"] = kind
	f["timestamp"] = app.NewTimestamp(now)
	return BusEvent{Type: kind, Data: f}
}

// extension marks an event that Marathon does not have.
func extension(ev BusEvent) BusEvent {
	ev.Extension = true
	return ev
}

// conditions are Marathon's names for the states of an instance.
var conditions = map[string]string{
	taskStaging: "Staging", taskStarting: "Starting", taskRunning: "Running", taskKilling: "Killing",
	taskFinished: "Finished", taskFailed: "Failed", taskKilled: "Killed", taskError: "Error",
	taskDropped: "Dropped", taskGone: "Gone", taskGoneByOp: "Gone", taskUnreachable: "Unreachable",
	taskLost: "Unreachable", taskUnknown: "Unknown",
}

func conditionOf(state string) string { return conditions[state] }

func statusUpdate(now time.Time, i *instance, s Status) BusEvent {
	return newEvent("status_update_event", now, fields{
		"slaveId": s.AgentID, "taskId": s.TaskID, "taskStatus": s.State, "message": s.Message,
		"appId": i.App, "host": i.Task.Hostname, "ipAddresses": ipAddresses(i.Task.IPs),
		"ports": ports(i.Task.Ports), "version": i.Version,
	})
}

// ipAddresses renders addresses as Marathon's API does.
func ipAddresses(ips []string) []fields {
	out := make([]fields, 0, len(ips))
	for _, ip := range ips {
		out = append(out, fields{"ipAddress": ip, "protocol": protocolOf(ip)})
	}
	return out
}

func protocolOf(ip string) string {
	for _, r := range ip {
		if r == ':' {
			return "IPv6"
		}
	}
	return "IPv4"
}

// ports is never nil, so that it is written as an empty array.
func ports(p []uint32) []uint32 { return append([]uint32{}, p...) }

func instanceChanged(now time.Time, i *instance, condition string) BusEvent {
	f := fields{
		"instanceId": i.ID, "condition": condition, "runSpecId": i.App, "runSpecVersion": i.Version,
		"agentId": "", "host": "",
	}
	if i.Task != nil {
		f["agentId"], f["host"] = i.Task.AgentID, i.Task.Hostname
	}
	return newEvent("instance_changed_event", now, f)
}

// instancePlaced says which agent was chosen for an instance, and why.
func instancePlaced(now time.Time, i *instance, why string) BusEvent {
	return extension(newEvent("instance_placed_event", now, fields{
		"instanceId": i.ID, "runSpecId": i.App, "taskId": i.Task.ID,
		"agentId": i.Task.AgentID, "host": i.Task.Hostname, "why": why,
	}))
}

func unknownTerminated(now time.Time, s Status) BusEvent {
	id, _ := instanceOfTask(s.TaskID)
	return newEvent("unknown_instance_terminated_event", now, fields{
		"instanceId": id, "runSpecId": "", "condition": conditionOf(s.State),
	})
}

func appTerminated(now time.Time, id app.ID) BusEvent {
	return newEvent("app_terminated_event", now, fields{"appId": id})
}

// publishHealth tells that an instance's health changed.
func (c *Core) publishHealth(tx *txn, i *instance, alive bool) {
	tx.publish(newEvent("health_status_changed_event", tx.now, fields{
		"appId": i.App, "instanceId": i.ID, "taskId": i.Task.ID, "version": i.Version, "alive": alive,
	}))
	tx.publish(newEvent("instance_health_changed_event", tx.now, fields{
		"instanceId": i.ID, "runSpecId": i.App, "healthy": alive, "runSpecVersion": i.Version,
	}))
}

func failedHealthCheck(now time.Time, i *instance, h app.HealthCheck) BusEvent {
	return newEvent("failed_health_check_event", now, fields{
		"appId": i.App, "taskId": i.ID, "instanceId": i.ID, "healthCheck": h,
	})
}

func unhealthyKill(now time.Time, i *instance, reason string) BusEvent {
	return newEvent("unhealthy_instance_kill_event", now, fields{
		"appId": i.App, "taskId": i.Task.ID, "instanceId": i.ID, "version": i.Version,
		"reason": reason, "host": i.Task.Hostname, "slaveId": i.Task.AgentID,
	})
}

func registered(now time.Time, ev Subscribed, again bool) BusEvent {
	if again {
		return newEvent("scheduler_reregistered_event", now, fields{"master": ev.MasterAddress})
	}
	return newEvent("scheduler_registered_event", now, fields{
		"frameworkId": ev.FrameworkID, "master": ev.MasterAddress,
	})
}

func disconnectedEvent(now time.Time) BusEvent {
	return newEvent("scheduler_disconnected_event", now, fields{})
}

// deploymentPlan renders a deployment as its events carry it.
func deploymentPlan(d *deployment) fields {
	steps := make([]fields, 0, len(d.Steps))
	for _, s := range d.Steps {
		steps = append(steps, deploymentActions(s))
	}
	return fields{"id": d.ID, "version": d.Version, "steps": steps}
}

func deploymentActions(step []Action) fields {
	actions := make([]fields, 0, len(step))
	for _, a := range step {
		actions = append(actions, fields{"action": a.Kind, "app": a.App})
	}
	return fields{"actions": actions}
}

func currentActions(d *deployment) fields {
	if d.Current >= len(d.Steps) {
		return deploymentActions(nil)
	}
	return deploymentActions(d.Steps[d.Current])
}

func deploymentInfo(now time.Time, d *deployment) BusEvent {
	return newEvent("deployment_info", now, fields{"plan": deploymentPlan(d), "currentStep": currentActions(d)})
}

func deploymentStep(now time.Time, d *deployment) BusEvent {
	return newEvent("deployment_step_success", now, fields{"plan": deploymentPlan(d), "currentStep": currentActions(d)})
}

func deploymentEnded(now time.Time, d *deployment, success bool, reason string) BusEvent {
	f := fields{"id": d.ID, "plan": deploymentPlan(d)}
	if success {
		return newEvent("deployment_success", now, f)
	}
	f["reason"] = reason
	return newEvent("deployment_failed", now, f)
}
