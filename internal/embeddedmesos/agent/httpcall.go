package agent

import (
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/agent"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/proc"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/mesosjson"
)

// The resources that Mesos adds to a task for its command executor
// (src/slave/constants.hpp).
const (
	executorCPUs   = 0.1
	executorMemMiB = 32
)

// answer is called by the loop.
func (p *process) answer(call *agent.Call) (*agent.Response, error) {
	switch call.Type {
	case agent.Call_GET_HEALTH:
		return &agent.Response{
			Type:      agent.Response_GET_HEALTH,
			GetHealth: &agent.Response_GetHealth{Healthy: true},
		}, nil
	case agent.Call_GET_VERSION:
		return &agent.Response{
			Type:       agent.Response_GET_VERSION,
			GetVersion: &agent.Response_GetVersion{VersionInfo: versionInfo()},
		}, nil
	case agent.Call_GET_AGENT:
		info := p.info
		return &agent.Response{
			Type:     agent.Response_GET_AGENT,
			GetAgent: &agent.Response_GetAgent{AgentInfo: &info},
		}, nil
	case agent.Call_GET_CONTAINERS:
		answer := &agent.Response{Type: agent.Response_GET_CONTAINERS, GetContainers: p.getContainers()}
		// Without a container Mesos leaves the field out (evolve.cpp).
		if len(answer.GetContainers.Containers) == 0 {
			answer.GetContainers = nil
		}
		return answer, nil
	case agent.Call_GET_TASKS:
		return &agent.Response{Type: agent.Response_GET_TASKS, GetTasks: p.getTasks()}, nil
	case agent.Call_GET_EXECUTORS:
		return &agent.Response{Type: agent.Response_GET_EXECUTORS, GetExecutors: p.getExecutors()}, nil
	case agent.Call_GET_FRAMEWORKS:
		return &agent.Response{Type: agent.Response_GET_FRAMEWORKS, GetFrameworks: p.getFrameworks()}, nil
	case agent.Call_GET_STATE:
		return &agent.Response{Type: agent.Response_GET_STATE, GetState: &agent.Response_GetState{
			GetTasks:      p.getTasks(),
			GetExecutors:  p.getExecutors(),
			GetFrameworks: p.getFrameworks(),
		}}, nil
	}
	return nil, &httpError{http.StatusNotImplemented, "embedded Mesos does not answer " + call.Type.String()}
}

// versionInfo names the Mesos whose behaviour this is, and the commit that
// this program was built from, as far as it knows.
func versionInfo() mesos.VersionInfo {
	info := mesos.VersionInfo{Version: version}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return info
	}
	for _, setting := range build.Settings {
		switch setting.Key {
		case "vcs.revision":
			info.GitSHA = &setting.Value
		case "vcs.time":
			if at, err := time.Parse(time.RFC3339, setting.Value); err == nil {
				info.BuildTime = ptr(float64(at.Unix()))
				info.BuildDate = ptr(at.Format(time.DateTime))
			}
		}
	}
	return info
}

func (p *process) serveVersion(w http.ResponseWriter, _ *http.Request) {
	info := versionInfo()
	data, err := mesosjson.Marshal(&info)
	if err == nil {
		err = writeBody(w, typeJSON, data)
	}
	if err != nil {
		panic(http.ErrAbortHandler)
	}
}

// sortedRuns returns runs in the order of their task ids.
func (p *process) sortedRuns() []*run {
	runs := make([]*run, 0, len(p.runs))
	for _, r := range p.runs {
		runs = append(runs, r)
	}
	slices.SortFunc(runs, func(a, b *run) int { return strings.Compare(a.path.executor, b.path.executor) })
	return runs
}

// getContainers leaves out containers whose executor has terminated, also when
// their clean-up has failed, as Mesos does: it finds no executor for them.
func (p *process) getContainers() *agent.Response_GetContainers {
	answer := new(agent.Response_GetContainers)
	for _, r := range p.sortedRuns() {
		if r.terminated {
			continue
		}
		answer.Containers = append(answer.Containers, agent.Response_GetContainers_Container{
			FrameworkID:        &mesos.FrameworkID{Value: r.path.framework},
			ExecutorID:         &mesos.ExecutorID{Value: r.path.executor},
			ExecutorName:       ptr(executorName(&r.task)),
			ContainerID:        mesos.ContainerID{Value: r.path.container},
			ContainerStatus:    p.containerStatus(r),
			ResourceStatistics: statistics(r),
		})
	}
	return answer
}

// executorName is the name that Slave::getExecutorInfo makes up.
func executorName(t *mesos.TaskInfo) string {
	command := "NO EXECUTABLE"
	switch c := t.GetCommand(); {
	case c.GetShell():
		command = "NO COMMAND"
		if c.Value != nil {
			command = "sh -c '" + shortened(*c.Value) + "')"
		}
	case c.GetValue() != "":
		command = "[" + shortened(c.GetValue()+", "+strings.Join(c.Arguments, ", ")) + "])"
	}
	if !strings.HasSuffix(command, ")") {
		command += ")"
	}
	return "Command Executor (Task: " + t.TaskID.Value + ") (Command: " + command
}

func shortened(s string) string {
	if len(s) > 15 {
		return s[:12] + "..."
	}
	return s
}

// statistics adds up the container's processes, since there is no control
// group that would. It leaves out what only a control group knows.
func statistics(r *run) *mesos.ResourceStatistics {
	var total proc.Stat
	var resident uint64
	tree, err := proc.Tree(r.executor.PID)
	if err != nil || r.executor.PID == 0 {
		tree = nil
	}
	for _, s := range tree {
		total.User += s.User
		total.System += s.System
		resident += s.RSS
	}
	cpus, mem := scalar(r.task.Resources, "cpus")+executorCPUs, scalar(r.task.Resources, "mem")+executorMemMiB
	return &mesos.ResourceStatistics{
		Timestamp:          float64(time.Now().UnixNano()) / 1e9,
		CPUsUserTimeSecs:   ptr(total.User.Seconds()),
		CPUsSystemTimeSecs: ptr(total.System.Seconds()),
		CPUsSoftLimit:      &cpus,
		MemTotalBytes:      &resident,
		MemRSSBytes:        &resident,
		MemLimitBytes:      ptr(uint64(mem) << 20),
		MemSoftLimitBytes:  ptr(uint64(mem) << 20),
	}
}

// scalar adds up the resources of a name.
func scalar(list []mesos.Resource, name string) float64 {
	sum := 0.0
	for _, r := range list {
		if r.Name == name {
			sum += r.GetScalar().GetValue()
		}
	}
	return sum
}

func (p *process) getTasks() *agent.Response_GetTasks {
	answer := new(agent.Response_GetTasks)
	for _, r := range p.sortedRuns() {
		switch t := r.mesosTask(); {
		case terminal(r.state):
			answer.TerminatedTasks = append(answer.TerminatedTasks, t)
		case !r.delivered:
			answer.QueuedTasks = append(answer.QueuedTasks, t)
		default:
			answer.LaunchedTasks = append(answer.LaunchedTasks, t)
		}
	}
	for _, r := range p.completed {
		answer.CompletedTasks = append(answer.CompletedTasks, r.mesosTask())
	}
	return answer
}

// mesosTask is the task in the form without command (protobuf::createTask).
func (r *run) mesosTask() mesos.Task {
	t := mesos.Task{
		Name:        r.task.Name,
		TaskID:      r.task.TaskID,
		FrameworkID: mesos.FrameworkID{Value: r.path.framework},
		AgentID:     mesos.AgentID{Value: r.path.slave},
		State:       &r.state,
		Resources:   r.task.Resources,
		Statuses:    slices.Clone(r.statuses),
		Labels:      r.task.Labels,
		Discovery:   r.task.Discovery,
		Container:   r.task.Container,
		HealthCheck: r.task.HealthCheck,
		KillPolicy:  r.task.KillPolicy,
		User:        r.task.GetCommand().User,
	}
	if n := len(r.statuses); n > 0 {
		t.StatusUpdateState, t.StatusUpdateUUID = r.statuses[n-1].State, r.statuses[n-1].UUID
	}
	return t
}

func (p *process) getExecutors() *agent.Response_GetExecutors {
	answer := new(agent.Response_GetExecutors)
	for _, r := range p.sortedRuns() {
		answer.Executors = append(answer.Executors, agent.Response_GetExecutors_Executor{ExecutorInfo: r.executorInfo()})
	}
	for _, r := range p.completed {
		answer.CompletedExecutors = append(answer.CompletedExecutors,
			agent.Response_GetExecutors_Executor{ExecutorInfo: r.executorInfo()})
	}
	return answer
}

func (r *run) executorInfo() mesos.ExecutorInfo {
	command := r.task.GetCommand()
	return mesos.ExecutorInfo{
		ExecutorID:  mesos.ExecutorID{Value: r.path.executor},
		FrameworkID: &mesos.FrameworkID{Value: r.path.framework},
		Command: &mesos.CommandInfo{
			URIs:        command.URIs,
			Environment: command.Environment,
			User:        command.User,
			Shell:       ptr(true),
			Value:       ptr("mesos-executor"),
		},
		Container: r.task.Container,
		Resources: executorResources(&r.task),
		Name:      ptr(executorName(&r.task)),
		Source:    &r.path.executor,
		Discovery: r.task.Discovery,
		Labels:    r.task.Labels,
	}
}

// executorResources have the allocation of the task's.
func executorResources(t *mesos.TaskInfo) []mesos.Resource {
	var list []mesos.Resource
	for name, value := range map[string]float64{"cpus": executorCPUs, "mem": executorMemMiB} {
		resource := mesos.Resource{
			Name:   name,
			Type:   mesos.SCALAR.Enum(),
			Scalar: &mesos.Value_Scalar{Value: value},
		}
		if len(t.Resources) > 0 {
			resource.AllocationInfo = t.Resources[0].AllocationInfo
		}
		list = append(list, resource)
	}
	slices.SortFunc(list, func(a, b mesos.Resource) int { return strings.Compare(a.Name, b.Name) })
	return list
}

func (p *process) getFrameworks() *agent.Response_GetFrameworks {
	answer := new(agent.Response_GetFrameworks)
	for _, f := range p.frameworks {
		answer.Frameworks = append(answer.Frameworks, agent.Response_GetFrameworks_Framework{FrameworkInfo: *f})
	}
	slices.SortFunc(answer.Frameworks, func(a, b agent.Response_GetFrameworks_Framework) int {
		return strings.Compare(a.FrameworkInfo.ID.Value, b.FrameworkInfo.ID.Value)
	})
	return answer
}
