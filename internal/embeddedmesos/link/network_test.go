package link_test

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"testing"

	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/mesos-dvdi/dvdi/internal/bubbletest"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

// recorder is a master that remembers what it was told.
type recorder struct {
	mu       sync.Mutex // guards all below
	agent    link.Agent
	received []link.ToMaster
	lost     int
}

func (r *recorder) Receive(from link.Agent, message link.ToMaster) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.agent = from
	r.received = append(r.received, message)
}

func (r *recorder) Lost(link.Agent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost++
}

func (r *recorder) snapshot() (link.Agent, []link.ToMaster, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.agent, append([]link.ToMaster(nil), r.received...), r.lost
}

func listen(t *testing.T, n *link.Network) (*link.Listener, *recorder) {
	t.Helper()
	r := &recorder{}
	l, err := n.Listen(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l, r
}

func kill(id string) link.KillTask {
	return link.KillTask{TaskID: mesos.TaskID{Value: id}}
}

func take(t *testing.T, inbox <-chan link.ToAgent) []link.ToAgent {
	t.Helper()
	bubbletest.Wait()
	var got []link.ToAgent
	for {
		select {
		case m, open := <-inbox:
			if !open {
				return got
			}
			got = append(got, m)
			bubbletest.Wait()
		default:
			return got
		}
	}
}

func TestMessagesArriveInOrderThoughNobodyReads(t *testing.T) {
	bubbletest.Test(t, func(t *testing.T) {
		n := link.NewNetwork()
		_, master := listen(t, n)
		inbox := make(chan link.ToAgent)
		sender := n.Cable("a").Connect(inbox)
		sender.Send(link.Pong{})
		agent, received, _ := master.snapshot()
		if len(received) != 1 || agent.Name() != "a" {
			t.Fatalf("master got %v from %v", received, agent)
		}
		want := []link.ToAgent{kill("1"), kill("2"), kill("3")}
		for _, m := range want {
			agent.Send(m)
		}
		if got := take(t, inbox); !reflect.DeepEqual(got, want) {
			t.Errorf("agent got %v, want %v", got, want)
		}
		agent.Send(kill("unread"))
		sender.Close()
		sender.Close()
		sender.Send(link.Pong{})
		if _, received, lost := master.snapshot(); lost != 1 || len(received) != 1 {
			t.Errorf("after the end: lost %d times, received %v", lost, received)
		}
		select {
		case <-agent.Closed():
		default:
			t.Error("the master's handle is not closed")
		}
		if _, open := <-inbox; open {
			t.Error("inbox is open after Close")
		}
	})
}

func TestCutLosesMessagesAndHidesTheEnd(t *testing.T) {
	bubbletest.Test(t, func(t *testing.T) {
		n := link.NewNetwork()
		_, master := listen(t, n)
		inbox := make(chan link.ToAgent)
		sender := n.Cable("a").Connect(inbox)
		sender.Send(link.Pong{})
		agent, _, _ := master.snapshot()

		n.Cable("a").Cut()
		sender.Send(link.Pong{})
		agent.Send(kill("lost"))
		if got := take(t, inbox); got != nil {
			t.Errorf("agent got %v over a cut cable", got)
		}
		if _, received, _ := master.snapshot(); len(received) != 1 {
			t.Errorf("master got %v over a cut cable", received)
		}
		sender.Close()
		if _, _, lost := master.snapshot(); lost != 0 {
			t.Error("master learnt of the end over a cut cable")
		}
		n.Cable("a").Heal()
		if _, _, lost := master.snapshot(); lost != 1 {
			t.Errorf("after healing the master was told %d times", lost)
		}
	})
}

func TestHealedLinkCarriesAgain(t *testing.T) {
	bubbletest.Test(t, func(t *testing.T) {
		n := link.NewNetwork()
		_, master := listen(t, n)
		n.Cable("a").Cut()
		inbox := make(chan link.ToAgent)
		sender := n.Cable("a").Connect(inbox)
		defer sender.Close()
		sender.Send(link.Pong{})
		n.Cable("a").Heal()
		if _, received, _ := master.snapshot(); received != nil {
			t.Errorf("a message that was lost arrived: %v", received)
		}
		sender.Send(link.Unregister{})
		if _, received, _ := master.snapshot(); !reflect.DeepEqual(received, []link.ToMaster{link.Unregister{}}) {
			t.Errorf("master got %v", received)
		}
	})
}

func TestMasterEndClosesInboxesAfterWhatWasSent(t *testing.T) {
	bubbletest.Test(t, func(t *testing.T) {
		n := link.NewNetwork()
		listener, master := listen(t, n)
		near, far := make(chan link.ToAgent), make(chan link.ToAgent)
		a, b := n.Cable("a").Connect(near), n.Cable("b").Connect(far)
		defer a.Close()
		defer b.Close()
		a.Send(link.Pong{})
		agent, _, _ := master.snapshot()
		agent.Send(kill("last"))
		n.Cable("b").Cut()
		listener.Close()
		if m, open := <-near; !open || m != link.ToAgent(kill("last")) {
			t.Errorf("got %v, open %v", m, open)
		}
		if _, open := <-near; open {
			t.Error("inbox open after the master's end")
		}
		bubbletest.Wait()
		select {
		case m := <-far:
			t.Errorf("the end showed over a cut cable: %v", m)
		default:
		}
		n.Cable("b").Heal()
		if _, open := <-far; open {
			t.Error("inbox open after healing")
		}
		if _, _, lost := master.snapshot(); lost != 0 {
			t.Error("a closed listener still receives")
		}
	})
}

func TestConnectWithoutMasterAndAwait(t *testing.T) {
	bubbletest.Test(t, func(t *testing.T) {
		n := link.NewNetwork()
		inbox := make(chan link.ToAgent)
		sender := n.Cable("a").Connect(inbox)
		if _, open := <-inbox; open {
			t.Error("inbox open without a master")
		}
		sender.Send(link.Pong{})
		sender.Close()

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := n.Cable("a").AwaitMaster(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("AwaitMaster without a master: %v", err)
		}
		waited := make(chan error)
		go func() { waited <- n.Cable("a").AwaitMaster(t.Context()) }()
		bubbletest.Wait()
		first, _ := listen(t, n)
		if err := <-waited; err != nil {
			t.Error(err)
		}
		if _, err := n.Listen(&recorder{}); !errors.Is(err, link.ErrListening) {
			t.Errorf("second master: %v", err)
		}
		first.Close()
		if _, err := n.Listen(&recorder{}); err != nil {
			t.Errorf("listen after the first master's end: %v", err)
		}
	})
}
