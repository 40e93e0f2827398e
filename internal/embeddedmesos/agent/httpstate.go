package agent

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gogo/protobuf/proto"
	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/mesosjson"
)

// object is a JSON object.
type object = map[string]any

// message wraps a protobuf message for use in an object.
type message struct{ proto.Message }

// MarshalJSON implements json.Marshaler.
func (m message) MarshalJSON() ([]byte, error) { return mesosjson.Marshal(m.Message) }

func writeJSON(w http.ResponseWriter, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return &httpError{http.StatusInternalServerError, err.Error()}
	}
	return writeBody(w, typeJSON, data)
}

// serveContainers answers the older of the two calls for containers.
func (p *process) serveContainers(w http.ResponseWriter, r *http.Request) error {
	list := []object{}
	if err := p.do(r.Context(), func() {
		for _, c := range p.getContainers().Containers {
			list = append(list, object{
				"container_id":  c.ContainerID.Value,
				"executor_id":   c.ExecutorID.Value,
				"executor_name": *c.ExecutorName,
				"framework_id":  c.FrameworkID.Value,
				"source":        c.ExecutorID.Value,
				"statistics":    message{c.ResourceStatistics},
				"status":        message{c.ContainerStatus},
			})
		}
	}); err != nil {
		return err
	}
	return writeJSON(w, list)
}

// serveState answers what the web interface of Mesos shows.
func (p *process) serveState(w http.ResponseWriter, r *http.Request) error {
	var data []byte
	var failed error
	if err := p.do(r.Context(), func() { data, failed = json.Marshal(p.state()) }); err != nil {
		return err
	}
	if failed != nil {
		return &httpError{http.StatusInternalServerError, failed.Error()}
	}
	return writeBody(w, typeJSON, data)
}

// state has the fields of GET /state (src/slave/http.cpp), called by the loop.
func (p *process) state() object {
	total := p.total()
	used := p.allocated()
	s := object{
		"start_time":                     float64(p.started.UnixNano()) / float64(time.Second),
		"id":                             p.info.GetID().GetValue(),
		"pid":                            "slave(1)@" + p.address,
		"hostname":                       p.info.Hostname,
		"capabilities":                   capabilityNames(),
		"resources":                      summary(total),
		"reserved_resources":             byRole(total, summary),
		"unreserved_resources":           summary(unreserved(total)),
		"reserved_resources_full":        byRole(total, full),
		"unreserved_resources_full":      full(unreserved(total)),
		"reserved_resources_allocated":   byRole(used, summary),
		"unreserved_resources_allocated": summary(unreserved(used)),
		"resource_providers":             []object{},
		"attributes":                     attributeTexts(p.info.Attributes),
		"frameworks":                     p.frameworkStates(),
		"completed_frameworks":           []object{},
	}
	build := versionInfo()
	s["version"] = build.Version
	if build.GitSHA != nil {
		s["git_sha"] = *build.GitSHA
	}
	if build.BuildTime != nil {
		s["build_time"], s["build_date"] = *build.BuildTime, *build.BuildDate
	}
	if p.info.Domain != nil {
		s["domain"] = message{p.info.Domain}
	}
	if p.master.registered {
		s["master_hostname"] = "localhost" // it is in this program
	}
	return s
}

// total is what the agent has, with reservations and persistent volumes in
// place of the plain resources that they were made of.
func (p *process) total() mesos.Resources {
	total := mesos.Resources(p.info.Resources).Clone()
	for _, r := range p.resources.checkpointed {
		plain := withoutVolume(r)
		plain.Reservations = nil
		total.Subtract(plain)
	}
	return total.Plus(p.resources.checkpointed...)
}

// allocated is what tasks and their executors use.
func (p *process) allocated() mesos.Resources {
	var used mesos.Resources
	for _, r := range p.runs {
		if !r.terminated {
			used.Add(unallocated(r.task.Resources)...)
			used.Add(unallocated(executorResources(&r.task))...)
		}
	}
	return used
}

func capabilityNames() []string {
	var names []string
	for _, c := range capabilities() {
		names = append(names, c.Type.String())
	}
	return names
}

// summary is how Mesos models resources in JSON: sums of scalars, and ranges
// as text.
func summary(list mesos.Resources) any {
	o := object{"cpus": 0.0, "gpus": 0.0, "mem": 0.0, "disk": 0.0}
	for _, r := range list {
		switch {
		case r.Scalar != nil:
			sum, _ := o[r.Name].(float64)
			o[r.Name] = sum + r.Scalar.Value
		case r.Ranges != nil:
			o[r.Name] = rangesText(r.Ranges)
		}
	}
	return o
}

func rangesText(r *mesos.Value_Ranges) string {
	var parts []string
	for _, each := range r.Range {
		parts = append(parts, fmt.Sprintf("%d-%d", each.Begin, each.End))
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// full prints resources in the format from before reservation refinement,
// which has the role in the resource.
func full(list mesos.Resources) any {
	out := []message{}
	for _, r := range list {
		r.Role = ptr(roleOf(&r))
		out = append(out, message{&r})
	}
	return out
}

func roleOf(r *mesos.Resource) string {
	if r.IsUnreserved() {
		return "*"
	}
	return r.ReservationRole()
}

func unreserved(list mesos.Resources) mesos.Resources {
	return slices.DeleteFunc(list.Clone(), func(r mesos.Resource) bool { return !r.IsUnreserved() })
}

// byRole prints the reserved resources of each role.
func byRole(list mesos.Resources, print func(mesos.Resources) any) object {
	roles := make(map[string]mesos.Resources)
	for _, r := range list {
		if !r.IsUnreserved() {
			roles[roleOf(&r)] = append(roles[roleOf(&r)], r)
		}
	}
	o := object{}
	for role := range maps.Keys(roles) {
		o[role] = print(roles[role])
	}
	return o
}

func attributeTexts(list []mesos.Attribute) object {
	o := object{}
	for _, a := range list {
		switch {
		case a.Text != nil:
			o[a.Name] = a.Text.Value
		case a.Scalar != nil:
			o[a.Name] = a.Scalar.Value
		case a.Ranges != nil:
			o[a.Name] = rangesText(a.Ranges)
		}
	}
	return o
}

func (p *process) frameworkStates() []object {
	list := []object{}
	for _, f := range p.getFrameworks().Frameworks {
		info := f.FrameworkInfo
		o := object{
			"id":                  info.ID.Value,
			"name":                info.Name,
			"user":                info.User,
			"failover_timeout":    info.GetFailoverTimeout(),
			"checkpoint":          info.GetCheckpoint(),
			"hostname":            info.GetHostname(),
			"executors":           p.executorStates(info.ID.Value, p.sortedRuns()),
			"completed_executors": p.executorStates(info.ID.Value, p.completed),
		}
		if info.Principal != nil {
			o["principal"] = *info.Principal
		}
		if hasCapability(&info, mesos.FrameworkInfo_Capability_MULTI_ROLE) {
			o["roles"] = info.Roles
		} else {
			o["role"] = info.GetRole()
		}
		list = append(list, o)
	}
	return list
}

func (p *process) executorStates(framework string, runs []*run) []object {
	list := []object{}
	for _, r := range runs {
		if r.path.framework == framework {
			list = append(list, r.executorState())
		}
	}
	return list
}

func (r *run) executorState() object {
	used := mesos.Resources(executorResources(&r.task))
	tasks := map[string][]object{"tasks": {}, "queued_tasks": {}, "completed_tasks": {}}
	where := "tasks"
	switch {
	case terminal(r.state):
		where = "completed_tasks"
	case !r.delivered:
		where = "queued_tasks"
	}
	if !r.over {
		used = used.Plus(r.task.Resources...)
	}
	tasks[where] = append(tasks[where], r.taskState())
	o := object{
		"id":        r.path.executor,
		"name":      executorName(&r.task),
		"source":    r.path.executor,
		"container": r.path.container,
		"directory": r.sandbox,
		"resources": summary(used),
	}
	for name, list := range tasks {
		o[name] = list
	}
	if role, ok := allocationRole(&r.task); ok {
		o["role"] = role
	}
	if r.task.Labels != nil {
		o["labels"] = labels(r.task.Labels)
	}
	return o
}

func allocationRole(t *mesos.TaskInfo) (string, bool) {
	if len(t.Resources) == 0 {
		return "", false
	}
	return t.Resources[0].GetAllocationInfo().GetRole(), true
}

func labels(l *mesos.Labels) []message {
	list := []message{}
	for n := range l.Labels {
		list = append(list, message{&l.Labels[n]})
	}
	return list
}

func (r *run) taskState() object {
	o := object{
		"id":           r.path.executor,
		"name":         r.task.Name,
		"framework_id": r.path.framework,
		"executor_id":  "", // of a command task: it brought none of its own
		"slave_id":     r.path.slave,
		"state":        r.state.String(),
		"resources":    summary(r.task.Resources),
		"statuses":     r.statusStates(),
	}
	if role, ok := allocationRole(&r.task); ok {
		o["role"] = role
	}
	if r.task.Labels != nil {
		o["labels"] = labels(r.task.Labels)
	}
	if r.task.Discovery != nil {
		o["discovery"] = message{r.task.Discovery}
	}
	if r.task.Container != nil {
		o["container"] = message{r.task.Container}
	}
	if r.task.HealthCheck != nil {
		o["health_check"] = message{r.task.HealthCheck}
	}
	return o
}

// statusStates has the fields of a status that Mesos tells here.
func (r *run) statusStates() []object {
	list := []object{}
	for _, s := range r.statuses {
		o := object{"state": s.GetState().String(), "timestamp": s.GetTimestamp()}
		if s.Labels != nil {
			o["labels"] = labels(s.Labels)
		}
		if s.ContainerStatus != nil {
			public := *s.ContainerStatus
			public.ExecutorPID = nil
			o["container_status"] = message{&public}
		}
		if s.Healthy != nil {
			o["healthy"] = *s.Healthy
		}
		list = append(list, o)
	}
	return list
}
