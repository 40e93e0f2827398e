package schedtest

import "github.com/mesos-dvdi/dvdi/scheduler"

// On maps each launched instance to its agent.
func On(p scheduler.Plan) map[string]string {
	on := make(map[string]string)
	for _, a := range p.Accepts {
		for _, o := range a.Operations {
			if o.Kind == scheduler.OpLaunch {
				on[o.Launch.InstanceID] = a.AgentID
			}
		}
	}
	return on
}

// Launched returns an instance's launch, nil if the plan has none.
func Launched(p scheduler.Plan, id string) *scheduler.Launch {
	for _, a := range p.Accepts {
		for _, o := range a.Operations {
			if o.Kind == scheduler.OpLaunch && o.Launch.InstanceID == id {
				return o.Launch
			}
		}
	}
	return nil
}

// Waits returns what an instance waits for, nil if it does not wait.
func Waits(p scheduler.Plan, id string) *scheduler.Waiting {
	for i := range p.Waiting {
		if p.Waiting[i].InstanceID == id {
			return &p.Waiting[i]
		}
	}
	return nil
}

// Reasons maps the reasons of a waiting instance to the number of agents.
func Reasons(p scheduler.Plan, id string) map[scheduler.Reason]int {
	w := Waits(p, id)
	if w == nil {
		return nil
	}
	m := make(map[scheduler.Reason]int)
	for _, c := range w.Counts {
		m[c.Reason] = c.Agents
	}
	return m
}
