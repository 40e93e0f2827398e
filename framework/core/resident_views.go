package core

import "github.com/mesos-dvdi/dvdi/framework/app"

// parkedOf returns the instances of an app that are kept for their volumes.
func (s *state) parkedOf(id app.ID) []*instance {
	var out []*instance
	for _, i := range s.byApp[id] {
		if i.parked() {
			out = append(out, i)
		}
	}
	sortInstances(out)
	return out
}

// hostname is where the instance is, or where its volumes are.
func (i *instance) hostname() string {
	switch {
	case i.Task != nil:
		return i.Task.Hostname
	case i.Reserved != nil:
		return i.Reserved.Hostname
	}
	return ""
}

// taskID is the instance's task, or the last one on its volumes.
func (i *instance) taskID() string {
	switch {
	case i.Task != nil:
		return i.Task.ID
	case i.Reserved != nil:
		return i.Reserved.LastTask
	}
	return ""
}

func (i *instance) localViews() []LocalVolume {
	var out []LocalVolume
	for _, v := range i.Local {
		out = append(out, LocalVolume{ContainerPath: v.ContainerPath, PersistenceID: v.ID})
	}
	return out
}

// reservedView shows an instance that has no task but volumes, as Marathon does:
// with its last task's id in a state that is over.
func (i *instance) reservedView() TaskView {
	v := TaskView{
		ID: i.taskID(), InstanceID: i.ID, AppID: i.App, Host: i.hostname(), State: taskFinished, Version: i.Version,
		Local: i.localViews(),
	}
	if i.Reserved != nil {
		v.AgentID, v.Role = i.Reserved.AgentID, i.Reserved.Role
	}
	if v.ID == "" {
		v.ID = taskID(i.ID, i.Incarnation)
	}
	return v
}
