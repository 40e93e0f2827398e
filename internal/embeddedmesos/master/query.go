package master

import (
	"encoding/json"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/master"
)

// query answers the calls that change nothing, nil for others
// (src/master/readonly_handler.cpp).
func (m *Master) query(call master.Call_Type) *master.Response {
	switch call {
	case master.Call_GET_HEALTH:
		return &master.Response{Type: master.Response_GET_HEALTH, GetHealth: &master.Response_GetHealth{Healthy: true}}
	case master.Call_GET_FLAGS:
		return &master.Response{Type: master.Response_GET_FLAGS, GetFlags: &master.Response_GetFlags{Flags: m.flags()}}
	case master.Call_GET_VERSION:
		return &master.Response{Type: master.Response_GET_VERSION, GetVersion: &master.Response_GetVersion{VersionInfo: m.version()}}
	case master.Call_GET_MASTER:
		return &master.Response{Type: master.Response_GET_MASTER, GetMaster: &master.Response_GetMaster{
			MasterInfo: m.info, StartTime: ptr(seconds(m.started)), ElectedTime: ptr(seconds(m.started)),
		}}
	case master.Call_GET_AGENTS:
		return &master.Response{Type: master.Response_GET_AGENTS, GetAgents: m.getAgents()}
	case master.Call_GET_FRAMEWORKS:
		return &master.Response{Type: master.Response_GET_FRAMEWORKS, GetFrameworks: m.getFrameworks()}
	case master.Call_GET_EXECUTORS:
		return &master.Response{Type: master.Response_GET_EXECUTORS, GetExecutors: &master.Response_GetExecutors{}}
	case master.Call_GET_TASKS:
		return &master.Response{Type: master.Response_GET_TASKS, GetTasks: m.getTasks()}
	case master.Call_GET_OPERATIONS:
		return &master.Response{Type: master.Response_GET_OPERATIONS, GetOperations: m.getOperations()}
	case master.Call_GET_ROLES:
		return &master.Response{Type: master.Response_GET_ROLES, GetRoles: m.getRoles()}
	case master.Call_GET_STATE:
		return &master.Response{Type: master.Response_GET_STATE, GetState: &master.Response_GetState{
			GetTasks: m.getTasks(), GetExecutors: &master.Response_GetExecutors{},
			GetFrameworks: m.getFrameworks(), GetAgents: m.getAgents(),
		}}
	case master.Call_GET_MAINTENANCE_STATUS:
		return &master.Response{Type: master.Response_GET_MAINTENANCE_STATUS, GetMaintenanceStatus: &master.Response_GetMaintenanceStatus{
			Status: m.schedule.status(m.answers),
		}}
	case master.Call_GET_MAINTENANCE_SCHEDULE:
		return &master.Response{Type: master.Response_GET_MAINTENANCE_SCHEDULE, GetMaintenanceSchedule: &master.Response_GetMaintenanceSchedule{
			Schedule: m.schedule.schedule,
		}}
	}
	return nil
}

func (m *Master) flags() []mesos.Flag {
	var flags []mesos.Flag
	for _, flag := range [][2]string{
		{"agent_ping_timeout", m.cfg.Timing.AgentPing.String()},
		{"agent_reregister_timeout", m.cfg.Timing.AgentReregister.String()},
		{"allocation_interval", m.cfg.Timing.Allocation.String()},
		{"authenticate_http_frameworks", fmt.Sprint(len(m.cfg.Credentials) > 0)},
		{"authenticate_http_readonly", fmt.Sprint(len(m.cfg.Credentials) > 0)},
		{"authenticate_http_readwrite", fmt.Sprint(len(m.cfg.Credentials) > 0)},
		{"hostname", m.info.GetHostname()},
		{"max_agent_ping_timeouts", fmt.Sprint(m.cfg.Timing.AgentPingTimeouts)},
		{"port", fmt.Sprint(m.info.GetPort())},
		{"work_dir", m.cfg.Dir},
	} {
		flags = append(flags, mesos.Flag{Name: flag[0], Value: ptr(flag[1])})
	}
	return flags
}

// version says which Mesos the master is like and which commit it was built
// from, as far as the binary knows.
func (m *Master) version() mesos.VersionInfo {
	info := mesos.VersionInfo{Version: m.cfg.Version, BuildUser: ptr("")}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return info
	}
	for _, setting := range build.Settings {
		switch setting.Key {
		case "vcs.revision":
			info.GitSHA = ptr(setting.Value)
		case "vcs.time":
			if at, err := time.Parse(time.RFC3339, setting.Value); err == nil {
				info.BuildTime = ptr(seconds(at))
				info.BuildDate = ptr(at.Format(time.DateTime))
			}
		}
	}
	return info
}

func (m *Master) getTasks() *master.Response_GetTasks {
	answer := &master.Response_GetTasks{}
	for _, f := range m.frameworks.sorted() {
		for _, t := range sortedTasks(f.tasks) {
			answer.Tasks = append(answer.Tasks, t.Task)
		}
		for _, t := range sortedTasks(f.unreachable) {
			answer.UnreachableTasks = append(answer.UnreachableTasks, t.Task)
		}
	}
	for _, f := range append(m.frameworks.sorted(), m.frameworks.completed...) {
		for _, t := range f.completed {
			answer.CompletedTasks = append(answer.CompletedTasks, t.Task)
		}
	}
	return answer
}

func (m *Master) getAgents() *master.Response_GetAgents {
	answer := &master.Response_GetAgents{}
	for _, a := range m.agents.sorted() {
		answer.Agents = append(answer.Agents, m.describeAgent(a))
	}
	for _, id := range sortedKeys(m.agents.recovered) {
		answer.RecoveredAgents = append(answer.RecoveredAgents, m.agents.recovered[id])
	}
	return answer
}

func sortedKeys[V any](set map[string]V) []string {
	keys := make([]string, 0, len(set))
	for key := range set {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

func (m *Master) describeAgent(a *agent) master.Response_GetAgents_Agent {
	var allocated, offered resources
	for _, t := range a.tasks {
		if !terminal(t.GetState()) {
			allocated.add(t.Resources...)
		}
	}
	for _, o := range sortedOffers(a.offers) {
		offered.add(o.Resources...)
	}
	description := master.Response_GetAgents_Agent{
		AgentInfo:          a.info,
		Active:             a.active,
		Deactivated:        ptr(m.registry.deactivated[a.id()]),
		Version:            a.process.Version,
		PID:                ptr(a.process.PID),
		RegisteredTime:     timeInfo(a.registered),
		TotalResources:     endpointFormat(a.total),
		AllocatedResources: endpointFormat(allocated),
		OfferedResources:   endpointFormat(offered),
		Capabilities:       a.process.Capabilities,
		DrainInfo:          a.draining,
	}
	if !a.reregistered.IsZero() {
		description.ReregisteredTime = timeInfo(a.reregistered)
	}
	if !a.drainStart.IsZero() {
		description.EstimatedDrainStartTime = timeInfo(a.drainStart)
	}
	return description
}

func (m *Master) getFrameworks() *master.Response_GetFrameworks {
	answer := &master.Response_GetFrameworks{}
	for _, f := range m.frameworks.sorted() {
		answer.Frameworks = append(answer.Frameworks, describeFramework(f))
	}
	for _, f := range m.frameworks.completed {
		answer.CompletedFrameworks = append(answer.CompletedFrameworks, describeFramework(f))
	}
	return answer
}

func describeFramework(f *framework) master.Response_GetFrameworks_Framework {
	var allocated, offered resources
	for _, t := range sortedTasks(f.tasks) {
		if !terminal(t.GetState()) {
			allocated.add(t.Resources...)
		}
	}
	description := master.Response_GetFrameworks_Framework{
		FrameworkInfo: f.info,
		Active:        f.connected(),
		Connected:     f.connected(),
		Recovered:     f.recovered,
	}
	for _, o := range sortedOffers(f.offers) {
		description.Offers = append(description.Offers, o.presented())
		offered.add(o.Resources...)
	}
	description.AllocatedResources = endpointFormat(allocated)
	description.OfferedResources = endpointFormat(offered)
	if !f.registered.IsZero() {
		description.RegisteredTime = timeInfo(f.registered)
	}
	if !f.reregistered.IsZero() {
		description.ReregisteredTime = timeInfo(f.reregistered)
	}
	if !f.unregistered.IsZero() {
		description.UnregisteredTime = timeInfo(f.unregistered)
	}
	return description
}

func (m *Master) getOperations() *master.Response_GetOperations {
	answer := &master.Response_GetOperations{}
	for _, a := range m.agents.sorted() {
		for _, op := range sortedOperations(a.operations) {
			description := mesos.Operation{
				AgentID: a.info.ID, Info: op.info, LatestStatus: op.latest(),
				Statuses: op.statuses, UUID: mesos.UUID{Value: op.uuid},
			}
			if op.framework != nil {
				description.FrameworkID = op.framework.info.ID
			}
			answer.Operations = append(answer.Operations, description)
		}
	}
	return answer
}

func (m *Master) getRoles() *master.Response_GetRoles {
	byName := make(map[string]*mesos.Role)
	for _, f := range m.frameworks.sorted() {
		for _, name := range f.roles() {
			role := byName[name]
			if role == nil {
				role = &mesos.Role{Name: name, Weight: 1}
				byName[name] = role
			}
			role.Frameworks = append(role.Frameworks, *f.info.ID)
		}
	}
	answer := &master.Response_GetRoles{}
	for _, name := range sortedKeys(byName) {
		role := *byName[name]
		var used resources
		for _, a := range m.agents.registered {
			used.add(a.used.filter(func(r *mesos.Resource) bool { return r.GetAllocationInfo().GetRole() == name }).once()...)
		}
		role.Resources = endpointFormat(used)
		answer.Roles = append(answer.Roles, role)
	}
	return answer
}

// endpointFormat adds the fields of the format before reservation refinement
// where they can express the resource (convertResourceFormat, ENDPOINT).
func endpointFormat(rs resources) []mesos.Resource {
	out := rs.clone()
	for i := range out {
		addOldFormat(&out[i])
	}
	return out
}

// addOldFormat sets role and reservation as they were before reservation
// refinement.
func addOldFormat(r *mesos.Resource) {
	switch len(r.Reservations) {
	case 0:
		r.Role = ptr(mesos.DefaultRole)
	case 1:
		reservation := r.Reservations[0]
		r.Role = reservation.Role
		if reservation.GetType() == mesos.Resource_ReservationInfo_DYNAMIC {
			r.Reservation = &mesos.Resource_ReservationInfo{
				Principal: reservation.Principal, Labels: reservation.Labels,
			}
		}
	}
}

// serveState is /state: the part of it that tools use to find the leader and
// to count.
func (m *Master) serveState(w http.ResponseWriter, r *http.Request, _ string) error {
	var summary map[string]any
	if err := m.ask(r.Context(), func() { summary = m.stateSummary() }); err != nil {
		return err
	}
	body, err := json.Marshal(summary)
	if err != nil {
		return fmt.Errorf("encode the state: %w", err)
	}
	w.Header().Set("Content-Type", mediaJSON)
	// A client that is gone needs no answer.
	_, _ = w.Write(body)
	return nil
}

func (m *Master) stateSummary() map[string]any {
	slaves := []map[string]any{}
	activated := 0
	for _, a := range m.agents.sorted() {
		if a.active {
			activated++
		}
		slaves = append(slaves, map[string]any{
			"id": a.id(), "hostname": a.info.Hostname, "port": a.info.GetPort(),
			"pid": a.process.PID, "active": a.active, "version": a.process.Version,
		})
	}
	list := []map[string]any{}
	for _, f := range m.frameworks.sorted() {
		list = append(list, map[string]any{
			"id": f.id(), "name": f.info.Name, "active": f.connected(), "connected": f.connected(),
			"recovered": f.recovered, "roles": f.roles(),
		})
	}
	return map[string]any{
		"version": m.cfg.Version, "id": m.cfg.ID, "pid": m.info.GetPID(), "hostname": m.info.GetHostname(),
		"leader": m.info.GetPID(), "start_time": seconds(m.started), "elected_time": seconds(m.started),
		"activated_slaves": activated, "deactivated_slaves": len(slaves) - activated,
		"unreachable_slaves": len(m.registry.unreachable), "slaves": slaves, "frameworks": list,
	}
}
