package master_test

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"
	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

// fakeAgent is an agent that does what a test says. It answers pings and
// nothing else by itself.
type fakeAgent struct {
	t       *testing.T
	name    string
	info    mesos.AgentInfo
	process link.Process
	cable   *link.Cable
	sender  link.Sender
	inbox   chan link.ToAgent
	told    chan link.ToAgent // all but pings
	done    chan struct{}
	timeout time.Duration
}

// agent makes an agent that is not connected yet.
func (c *cluster) agent(n int) *fakeAgent {
	port := 5050 + n
	a := &fakeAgent{
		t: c.t, name: fmt.Sprintf("agent%d", n), cable: c.network.Cable(fmt.Sprintf("agent%d", n)),
		info: mesos.AgentInfo{
			Hostname: fmt.Sprintf("agent%d.test", n), Port: ptr(int32(port)),
			Resources: []mesos.Resource{
				scalar("cpus", 4), scalar("mem", 4096),
				{Name: "ports", Type: mesos.RANGES.Enum(), Ranges: &mesos.Value_Ranges{
					Range: []mesos.Value_Range{{Begin: 31000, End: 31999}},
				}},
				scalar("disk", 10240),
			},
			Attributes: []mesos.Attribute{{Name: "rack", Type: mesos.TEXT, Text: &mesos.Value_Text{Value: "r1"}}},
			Domain:     domain("region-1", fmt.Sprintf("zone-%d", n)),
		},
		process: link.Process{PID: fmt.Sprintf("slave(1)@127.0.0.1:%d", port), Version: "1.12.0"},
	}
	for _, capability := range []mesos.AgentInfo_Capability_Type{
		mesos.AgentInfo_Capability_MULTI_ROLE, mesos.AgentInfo_Capability_RESERVATION_REFINEMENT,
		mesos.AgentInfo_Capability_RESOURCE_PROVIDER, mesos.AgentInfo_Capability_AGENT_OPERATION_FEEDBACK,
	} {
		a.process.Capabilities = append(a.process.Capabilities, mesos.AgentInfo_Capability{Type: capability})
	}
	return a
}

// connect starts the agent process.
func (a *fakeAgent) connect() {
	inbox, told, done := make(chan link.ToAgent), make(chan link.ToAgent, 1000), make(chan struct{})
	sender := a.cable.Connect(inbox)
	a.inbox, a.told, a.done, a.sender = inbox, told, done, sender
	go func() {
		defer close(done)
		for message := range inbox {
			if _, ping := message.(link.Ping); ping {
				sender.Send(link.Pong{})
				continue
			}
			told <- message
		}
	}()
	a.t.Cleanup(func() {
		sender.Close()
		<-done
	})
}

// register connects and registers anew.
func (a *fakeAgent) register() *fakeAgent {
	a.t.Helper()
	a.connect()
	a.sender.Send(link.Register{Process: a.process, Info: a.info})
	answer := next[link.Registered](a)
	a.info.ID = &answer.AgentID
	a.timeout = answer.PingTimeout
	return a
}

// reregister comes back over the open connection.
func (a *fakeAgent) reregister(message link.Reregister) link.Reregistered {
	a.t.Helper()
	message.Process, message.Info = a.process, a.info
	a.sender.Send(message)
	return next[link.Reregistered](a)
}

// die ends the agent process.
func (a *fakeAgent) die() {
	a.sender.Close()
	<-a.done
}

// next returns the next message, which must be of the type.
func next[T link.ToAgent](a *fakeAgent) T {
	a.t.Helper()
	select {
	case message := <-a.told:
		typed, ok := message.(T)
		if !ok {
			a.t.Fatalf("%s was told %#v, want a %s", a.name, message, reflect.TypeFor[T]())
		}
		return typed
	case <-time.After(deadline):
		a.t.Fatalf("%s was not told a %s", a.name, reflect.TypeFor[T]())
	}
	panic("unreachable")
}

// silent wants that nothing else was told so far.
func (a *fakeAgent) silent() {
	a.t.Helper()
	select {
	case message := <-a.told:
		a.t.Errorf("%s was told %#v", a.name, message)
	default:
	}
}

func (a *fakeAgent) id() mesos.AgentID { return *a.info.ID }

// status is an update as a command executor sends it.
func (a *fakeAgent) status(run link.Run, state mesos.TaskState) mesos.TaskStatus {
	id := uuid.New()
	return mesos.TaskStatus{
		TaskID: run.Task.TaskID, State: ptr(state), Source: ptr(mesos.SOURCE_EXECUTOR), AgentID: a.info.ID,
		ExecutorID: &mesos.ExecutorID{Value: run.Task.TaskID.Value}, Timestamp: ptr(1e9), UUID: id[:],
		Healthy: ptr(true), ContainerStatus: &mesos.ContainerStatus{ContainerID: &mesos.ContainerID{Value: "c1"}},
	}
}

func (a *fakeAgent) update(run link.Run, state mesos.TaskState) mesos.TaskStatus {
	status := a.status(run, state)
	a.sender.Send(link.Update{FrameworkID: *run.Framework.ID, Status: status, LatestState: state})
	return status
}
