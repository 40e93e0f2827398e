package master_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	operator "github.com/mesos/mesos-go/api/v1/lib/master"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/master"
)

func TestSilentMaster(t *testing.T) {
	c := startCluster(t)
	f := c.subscribe(mediaJSON, framework()).subscribed()
	c.master.SetSilent(true)
	agent := c.agent(1).register()
	// Calls are still answered, nothing comes back.
	f.reconcile(scheduler.Call_Reconcile_Task{TaskID: mesos.TaskID{Value: "x"}})
	for drained := false; !drained; {
		select {
		case event := <-f.events:
			if event.Type != scheduler.Event_HEARTBEAT {
				t.Errorf("a silent master sent %v", event)
			}
		default:
			drained = true
		}
	}
	c.master.SetSilent(false)
	if o := f.offer(anyOffer); o.AgentID != agent.id() {
		t.Errorf("offer %v", o)
	}
	if s := f.update(); s.TaskID.Value != "x" {
		t.Errorf("got %v", s)
	}
}

func TestBrokenRecords(t *testing.T) {
	c := startCluster(t)
	f := c.subscribe(mediaJSON, framework()).subscribed()
	c.master.BreakStreams()
	for range f.events {
	}
	if err := <-f.ended; !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("stream ended with %v", err)
	}
	again := c.subscribe(mediaJSON, framework()).subscribed()
	c.master.AnnounceHugeRecord()
	for range again.events {
	}
	if err := <-again.ended; err == nil || err.Error() != "record of 1073741824 bytes" {
		t.Errorf("stream ended with %v", err)
	}
}

func TestUnknownEvent(t *testing.T) {
	c := startCluster(t)
	for _, media := range []string{mediaJSON, mediaProtobuf} {
		f := c.subscribe(media, framework()).subscribed()
		c.master.SendUnknownEvent()
		if event := f.next(); event.Type != scheduler.Event_UNKNOWN && event.Type != 4711 {
			t.Errorf("got %v", event)
		}
		f.call(&scheduler.Call{Type: scheduler.Call_TEARDOWN})
	}
}

func TestClosedMasterEndsStreamsCleanly(t *testing.T) {
	c := startCluster(t)
	f := c.subscribe(mediaJSON, framework()).subscribed()
	if err := c.master.Close(); err != nil {
		t.Fatal(err)
	}
	for range f.events {
	}
	if err := <-f.ended; err != io.EOF {
		t.Errorf("stream ended with %v", err)
	}
	c.start()
}

func TestClientThatDoesNotReadHoldsNothingUp(t *testing.T) {
	c := startCluster(t)
	connection, err := net.Dial("tcp", c.address)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	body := encode(t, mediaJSON, &scheduler.Call{Type: scheduler.Call_SUBSCRIBE, Subscribe: &scheduler.Call_Subscribe{FrameworkInfo: framework()}})
	if _, err := io.WriteString(connection, "POST /api/v1/scheduler HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "+fmt.Sprint(len(body))+"\r\n\r\n"+body); err != nil {
		t.Fatal(err)
	}
	poll(t, "the subscription", func() bool {
		return len(c.operate(&operator.Call{Type: operator.Call_GET_FRAMEWORKS}).GetFrameworks.Frameworks) == 1
	})
	// More than the sockets' buffers take.
	for range 2000 {
		c.master.SendUnknownEvent()
	}
	if err := c.master.Close(); err != nil {
		t.Fatal(err)
	}
	c.start()
}

func TestRegistryThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "registry.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, err = master.Start(master.Config{Listener: listener, Network: link.NewNetwork(), Dir: dir})
	if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "registry.json")) || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("got %v", err)
	}
}

func TestRegistryThatCannotBeWrittenEndsTheMaster(t *testing.T) {
	c := startCluster(t)
	f := c.subscribe(mediaJSON, framework()).subscribed()
	if err := os.RemoveAll(c.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	agent := c.agent(1)
	agent.connect()
	agent.sender.Send(link.Register{Process: agent.process, Info: agent.info})
	for range f.events {
	}
	if err := c.master.Close(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("master ended with %v", err)
	}
	c.start()
}

func TestIncompleteConfigurations(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for _, cfg := range []master.Config{
		{Network: link.NewNetwork(), Dir: t.TempDir()},
		{Listener: listener, Dir: t.TempDir()},
		{Listener: listener, Network: link.NewNetwork()},
	} {
		if _, err := master.Start(cfg); err == nil {
			t.Errorf("%v was accepted", cfg)
		}
	}
}

// TestManyAtOnce lets the race detector see calls, agents and operators at the
// same time.
func TestManyAtOnce(t *testing.T) {
	c := startCluster(t)
	stop := make(chan struct{})
	var agents sync.WaitGroup
	for n := range 4 {
		agent := c.agent(n).register()
		agents.Go(func() { agent.runTasks(stop) })
	}
	t.Run("frameworks", func(t *testing.T) {
		for n := range 4 {
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				t.Parallel()
				f := c.subscribe([]string{mediaJSON, mediaProtobuf}[n%2], framework()).subscribed()
				f.launchMany(10)
				f.call(&scheduler.Call{Type: scheduler.Call_TEARDOWN})
			})
		}
		t.Run("operator", func(t *testing.T) {
			t.Parallel()
			for range 20 {
				c.operate(&operator.Call{Type: operator.Call_GET_STATE})
			}
		})
	})
	close(stop)
	agents.Wait()
}

// runTasks runs every task to its end at once.
func (a *fakeAgent) runTasks(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case message := <-a.told:
			if run, ok := message.(link.Run); ok {
				a.update(run, mesos.TASK_RUNNING)
				a.update(run, mesos.TASK_FINISHED)
			}
		}
	}
}

// launchMany launches a task per offer until so many have finished.
func (f *client) launchMany(wanted int) {
	for finished := 0; finished < wanted; {
		switch event := f.next(); event.Type {
		case scheduler.Event_OFFERS:
			for _, o := range event.Offers.Offers {
				f.accept(o, launch(task(o.ID.Value, o.AgentID)))
			}
		case scheduler.Event_UPDATE:
			status := event.Update.Status
			if len(status.UUID) > 0 {
				f.acknowledge(status)
			}
			if status.GetState() == mesos.TASK_FINISHED {
				finished++
			}
		}
	}
}
