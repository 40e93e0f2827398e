package facts

import (
	"reflect"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/snapshot"
)

// Uses is which containers use which volumes, as a look at the agent showed it.
type Uses struct {
	// Began is when the look began.
	Began time.Time
	// AgentID is Mesos's id of the agent, empty if not known.
	AgentID string
	// Known says that the agent is recovered and answered, and that its
	// checkpoints could be read: a volume that is not in Containers is used by
	// none.
	Known bool
	// Containers are the containers that named each volume.
	Containers map[ledger.Key][]Container
	// Leaked are mounted volumes whose containers are all gone.
	Leaked map[ledger.Key]bool
	// Problems are what is wrong with volumes and stays wrong.
	Problems map[ledger.Key]string
}

// Container is one that named a volume.
type Container struct {
	ID, FrameworkID, TaskID, ExecutorID string
	// Gone says that it is positively gone; otherwise it may be running.
	Gone bool
}

// same says whether another look showed the same.
func (u Uses) same(v Uses) bool {
	u.Began, v.Began = time.Time{}, time.Time{}
	return reflect.DeepEqual(u, v)
}

// live says whether a container that named the volume may be running.
func (u Uses) live(key ledger.Key) bool {
	for _, c := range u.Containers[key] {
		if !c.Gone {
			return true
		}
	}
	return false
}

// usesIn takes what a snapshot of the bridge tells of containers.
func usesIn(s snapshot.Snapshot, agentID string) Uses {
	u := Uses{Began: s.Looked, AgentID: agentID, Known: s.ContainersKnown,
		Containers: map[ledger.Key][]Container{}, Leaked: map[ledger.Key]bool{}, Problems: map[ledger.Key]string{}}
	for key, v := range s.Volumes {
		for _, c := range v.Containers {
			u.Containers[key] = append(u.Containers[key], Container{ID: c.ID, FrameworkID: c.FrameworkID,
				TaskID: c.TaskID, ExecutorID: c.ExecutorID, Gone: !c.Live})
		}
		if v.Leaked {
			u.Leaked[key] = true
		}
		if v.Problem != "" {
			u.Problems[key] = v.Problem
		}
	}
	return u
}
