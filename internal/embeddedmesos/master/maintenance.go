package master

import (
	"slices"
	"strings"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/allocator"
	maintenancepb "github.com/mesos/mesos-go/api/v1/lib/maintenance"
)

// machine identifies a host; hostnames compare without case.
type machine struct {
	Hostname string `json:"hostname,omitempty"`
	IP       string `json:"ip,omitempty"`
}

func machineOf(id mesos.MachineID) machine {
	return machine{Hostname: strings.ToLower(id.GetHostname()), IP: id.GetIP()}
}

// matches tells whether the machine that an operator named is this agent's.
func (m machine) matches(agent machine) bool {
	return (m.Hostname == "" || m.Hostname == agent.Hostname) && (m.IP == "" || m.IP == agent.IP)
}

// maintenance is the schedule (docs/maintenance.md). Machines in it are
// draining: their offers carry the unavailability. Machines that are down have
// no agents.
type maintenance struct {
	schedule maintenancepb.Schedule
	down     map[machine]bool
}

func newMaintenance() *maintenance {
	return &maintenance{down: make(map[machine]bool)}
}

// unavailability returns when the agent's machine will be away, or nil.
func (s *maintenance) unavailability(agent machine) *mesos.Unavailability {
	for _, window := range s.schedule.Windows {
		for _, id := range window.MachineIDs {
			if machineOf(id).matches(agent) {
				u := window.Unavailability
				return &u
			}
		}
	}
	return nil
}

func (s *maintenance) scheduled(m machine) bool {
	for _, window := range s.schedule.Windows {
		for _, id := range window.MachineIDs {
			if machineOf(id) == m {
				return true
			}
		}
	}
	return false
}

func (s *maintenance) isDown(agent machine) bool {
	for m := range s.down {
		if m.matches(agent) {
			return true
		}
	}
	return false
}

// validate says what Mesos's maintenance::validation::schedule does.
func (s *maintenance) validate(schedule maintenancepb.Schedule) error {
	seen := make(map[machine]bool)
	for _, window := range schedule.Windows {
		if len(window.MachineIDs) == 0 {
			return refusedf("List of machines in the maintenance window is empty")
		}
		if d := window.Unavailability.Duration; d != nil && d.Nanoseconds < 0 {
			return refusedf("Unavailability 'duration' is negative")
		}
		for _, id := range window.MachineIDs {
			m := machineOf(id)
			if m == (machine{}) {
				return refusedf("Both 'hostname' and 'ip' for a machine are empty")
			}
			if seen[m] {
				return refusedf("Machine '%s' appears more than once in the schedule", m)
			}
			seen[m] = true
		}
	}
	for m := range s.down {
		if !seen[m] {
			return refusedf("Machine '%s' is deactivated and cannot be removed from the schedule", m)
		}
	}
	return nil
}

// String implements fmt.Stringer.
func (m machine) String() string { return m.Hostname + " (" + m.IP + ")" }

// status answers GET_MAINTENANCE_STATUS, with what frameworks have answered.
func (s *maintenance) status(answers func(machine) []allocator.InverseOfferStatus) maintenancepb.ClusterStatus {
	var status maintenancepb.ClusterStatus
	for _, window := range s.schedule.Windows {
		for _, id := range window.MachineIDs {
			if m := machineOf(id); s.down[m] {
				status.DownMachines = append(status.DownMachines, id)
			} else {
				status.DrainingMachines = append(status.DrainingMachines, maintenancepb.ClusterStatus_DrainingMachine{ID: id, Statuses: answers(machineOf(id))})
			}
		}
	}
	return status
}

// forget takes a machine out of the schedule.
func (s *maintenance) forget(one machine) {
	var windows []maintenancepb.Window
	for _, window := range s.schedule.Windows {
		window.MachineIDs = slices.DeleteFunc(slices.Clone(window.MachineIDs), func(id mesos.MachineID) bool {
			return machineOf(id) == one
		})
		if len(window.MachineIDs) > 0 {
			windows = append(windows, window)
		}
	}
	s.schedule.Windows = windows
}
