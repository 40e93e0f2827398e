package agenttest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

// Master is a master that accepts every agent and notes what agents say.
type Master struct {
	t        testing.TB
	listener *link.Listener
	replies  *link.Queue[func()] // since Receive must not send itself
	replying sync.WaitGroup

	mu       sync.Mutex // guards all below
	agents   map[string]link.Agent
	ids      map[string]string
	messages []link.ToMaster
	lost     int
	manual   bool
}

// NewMaster puts a master on the network until the test ends.
func NewMaster(t testing.TB, network *link.Network) *Master {
	t.Helper()
	m := &Master{
		t:       t,
		replies: link.NewQueue[func()](),
		agents:  make(map[string]link.Agent),
		ids:     make(map[string]string),
	}
	listener, err := network.Listen(m)
	if err != nil {
		t.Fatal(err)
	}
	m.listener = listener
	m.replying.Go(m.reply)
	t.Cleanup(m.Close)
	return m
}

// Close takes the master off the network.
func (m *Master) Close() {
	m.listener.Close()
	m.replies.Close()
	m.replying.Wait()
}

func (m *Master) reply() {
	for range m.replies.Ready() {
		replies, open := m.replies.Take()
		for _, reply := range replies {
			reply()
		}
		if !open {
			return
		}
	}
}

// AcknowledgeNothing leaves acknowledgements to the test.
func (m *Master) AcknowledgeNothing(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.manual = on
}

// Receive implements link.Receiver.
func (m *Master) Receive(from link.Agent, message link.ToMaster) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.messages = append(m.messages, message)
	switch message := message.(type) {
	case link.Register:
		id := m.ids[from.Name()]
		if id == "" {
			id = fmt.Sprintf("test-S%d", len(m.ids))
			m.ids[from.Name()] = id
		}
		m.agents[from.Name()] = from
		m.replies.Put(func() { from.Send(link.Registered{AgentID: mesos.AgentID{Value: id}}) })
	case link.Reregister:
		m.agents[from.Name()] = from
		m.replies.Put(func() { from.Send(link.Reregistered{AgentID: *message.Info.ID}) })
	case link.Update:
		if !m.manual {
			m.replies.Put(func() {
				from.Send(link.Acknowledge{
					FrameworkID: message.FrameworkID,
					TaskID:      message.Status.TaskID,
					UUID:        message.Status.UUID,
				})
			})
		}
	case link.OperationUpdate:
		if !m.manual {
			m.replies.Put(func() {
				from.Send(link.AcknowledgeOperation{UUID: message.UUID, StatusUUID: message.StatusUUID})
			})
		}
	}
}

// Lost implements link.Receiver.
func (m *Master) Lost(link.Agent) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lost++
}

// Losses returns how many connections have ended.
func (m *Master) Losses() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lost
}

// Send sends a message to an agent.
func (m *Master) Send(agent string, message link.ToAgent) {
	m.t.Helper()
	m.mu.Lock()
	to := m.agents[agent]
	m.mu.Unlock()
	if to == nil {
		m.t.Fatalf("agent %s has not registered", agent)
	}
	to.Send(message)
}

// Messages returns what agents have said, oldest first.
func (m *Master) Messages() []link.ToMaster {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]link.ToMaster(nil), m.messages...)
}

// Statuses returns a task's updates, repetitions left out.
func (m *Master) Statuses(task string) []mesos.TaskStatus {
	var list []mesos.TaskStatus
	seen := make(map[string]bool)
	for _, message := range m.Messages() {
		u, ok := message.(link.Update)
		if !ok || u.Status.TaskID.Value != task || seen[string(u.Status.UUID)] {
			continue
		}
		seen[string(u.Status.UUID)] = true
		list = append(list, u.Status)
	}
	return list
}

// Await waits until a task has a status of the state and returns it.
func (m *Master) Await(task string, state mesos.TaskState) mesos.TaskStatus {
	m.t.Helper()
	var found mesos.TaskStatus
	Eventually(m.t, fmt.Sprintf("%v of %s", state, task), func() bool {
		for _, s := range m.Statuses(task) {
			if s.GetState() == state {
				found = s
				return true
			}
		}
		return false
	})
	return found
}

// Patience is how long tests wait for what must happen, also on a busy machine.
const Patience = 2 * time.Minute

// Eventually waits until the condition holds, and fails the test when that
// takes unreasonably long.
func Eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// FrameworkID is the id of Framework.
const FrameworkID = "framework-0000"

// Framework returns a framework that checkpoints and understands everything.
func Framework() mesos.FrameworkInfo {
	checkpoint := true
	f := mesos.FrameworkInfo{
		Name:       "test",
		ID:         &mesos.FrameworkID{Value: FrameworkID},
		Checkpoint: &checkpoint,
		Roles:      []string{"dvdi"},
	}
	for _, c := range []mesos.FrameworkInfo_Capability_Type{
		mesos.FrameworkInfo_Capability_MULTI_ROLE,
		mesos.FrameworkInfo_Capability_PARTITION_AWARE,
		mesos.FrameworkInfo_Capability_TASK_KILLING_STATE,
	} {
		f.Capabilities = append(f.Capabilities, mesos.FrameworkInfo_Capability{Type: c})
	}
	return f
}

// Task returns a task that runs a shell command.
func Task(id, command string, volumes ...mesos.Volume) mesos.TaskInfo {
	shell := true
	role := "dvdi"
	task := mesos.TaskInfo{
		Name:    id,
		TaskID:  mesos.TaskID{Value: id},
		Command: &mesos.CommandInfo{Shell: &shell, Value: &command},
		Resources: []mesos.Resource{{
			Name:           "cpus",
			Type:           mesos.SCALAR.Enum(),
			Scalar:         &mesos.Value_Scalar{Value: 0.1},
			AllocationInfo: &mesos.Resource_AllocationInfo{Role: &role},
		}},
	}
	if len(volumes) > 0 {
		task.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), Volumes: volumes}
	}
	return task
}

// DockerVolume returns a volume at a path of the container.
func DockerVolume(driver, name, path string, options ...string) mesos.Volume {
	docker := &mesos.Volume_Source_DockerVolume{Driver: &driver, Name: name}
	if len(options) > 0 {
		docker.DriverOptions = &mesos.Parameters{}
		for n := 0; n < len(options); n += 2 {
			docker.DriverOptions.Parameter = append(docker.DriverOptions.Parameter,
				mesos.Parameter{Key: options[n], Value: options[n+1]})
		}
	}
	return mesos.Volume{
		Mode:          mesos.RW.Enum(),
		ContainerPath: path,
		Source:        &mesos.Volume_Source{Type: mesos.Volume_Source_DOCKER_VOLUME, DockerVolume: docker},
	}
}

// Run launches a task of Framework.
func (m *Master) Run(agent string, task mesos.TaskInfo) {
	m.t.Helper()
	m.Send(agent, link.Run{Framework: Framework(), Task: task})
}

// Kill kills a task of Framework.
func (m *Master) Kill(agent, task string) {
	m.t.Helper()
	m.Send(agent, link.KillTask{
		FrameworkID: mesos.FrameworkID{Value: FrameworkID},
		TaskID:      mesos.TaskID{Value: task},
	})
}

// Apply has an agent carry out an operation.
func (m *Master) Apply(agent string, o mesos.Offer_Operation) {
	m.t.Helper()
	id := uuid.New()
	m.Send(agent, link.Apply{FrameworkID: mesos.FrameworkID{Value: FrameworkID}, UUID: id[:], Operation: o})
}

// Terminal tells whether a task in that state has ended.
func Terminal(s mesos.TaskState) bool {
	switch s {
	case mesos.TASK_FINISHED, mesos.TASK_FAILED, mesos.TASK_KILLED, mesos.TASK_LOST, mesos.TASK_ERROR, mesos.TASK_GONE:
		return true
	}
	return false
}
