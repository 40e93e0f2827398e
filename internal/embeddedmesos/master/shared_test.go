package master_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	operator "github.com/mesos/mesos-go/api/v1/lib/master"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

// sharing is a framework that can have shared volumes.
func sharing() *mesos.FrameworkInfo {
	info := framework()
	info.Capabilities = append(info.Capabilities, mesos.FrameworkInfo_Capability{Type: mesos.FrameworkInfo_Capability_SHARED_RESOURCES})
	return info
}

// sharedVolume is a persistent volume that several tasks may use.
func sharedVolume(id string) mesos.Resource {
	v := volume(id, 64)
	v.Shared = &mesos.Resource_SharedInfo{}
	return v
}

// sharedIn counts the shared volumes of an offer.
func sharedIn(o mesos.Offer) (n int) {
	for i := range o.Resources {
		if o.Resources[i].Shared != nil {
			n++
		}
	}
	return n
}

// userOf is a task with a little of everything and these volumes.
func userOf(id string, agent mesos.AgentID, volumes ...mesos.Resource) mesos.TaskInfo {
	return task(id, agent, append([]mesos.Resource{scalar("cpus", 0.1), scalar("mem", 32)}, volumes...)...)
}

// events are what a framework was told, by kind.
type events struct {
	f         *client
	offers    []mesos.Offer // with a shared volume
	updates   []mesos.TaskStatus
	answers   []string // to operations
	rescinded []mesos.OfferID
}

// until takes events until there are as many of a kind.
func (e *events) until(n int, kind func() int) {
	e.f.t.Helper()
	for kind() < n {
		switch event := e.f.next(); event.Type {
		case scheduler.Event_OFFERS:
			for _, o := range event.Offers.Offers {
				if sharedIn(o) > 0 {
					e.offers = append(e.offers, o)
				}
			}
		case scheduler.Event_UPDATE:
			e.updates = append(e.updates, event.Update.Status)
		case scheduler.Event_UPDATE_OPERATION_STATUS:
			status := event.UpdateOperationStatus.Status
			e.answers = append(e.answers, status.GetMessage())
		case scheduler.Event_RESCIND:
			e.rescinded = append(e.rescinded, event.Rescind.OfferID)
		default:
			e.f.t.Fatalf("got %v", event)
		}
	}
}

// next is the offer with a shared volume after those seen before.
func (e *events) next(seen int) mesos.Offer {
	e.f.t.Helper()
	e.until(seen+1, func() int { return len(e.offers) })
	return e.offers[seen]
}

// ends has a task end.
func (e *events) ends(agent *fakeAgent, run link.Run) {
	e.f.t.Helper()
	agent.update(run, mesos.TASK_FINISHED)
	e.until(len(e.updates)+1, func() int { return len(e.updates) })
	e.f.acknowledge(e.updates[len(e.updates)-1])
	next[link.Acknowledge](agent)
}

// refused is what the master answers to an operation.
func (e *events) refused(op mesos.Offer_Operation, offers ...mesos.Offer) string {
	e.f.t.Helper()
	call := &scheduler.Call_Accept{Operations: []mesos.Offer_Operation{op}, Filters: &mesos.Filters{RefuseSeconds: ptr(0.0)}}
	for _, o := range offers {
		call.OfferIDs = append(call.OfferIDs, o.ID)
	}
	e.f.call(&scheduler.Call{Type: scheduler.Call_ACCEPT, Accept: call})
	e.until(len(e.answers)+1, func() int { return len(e.answers) })
	return e.answers[len(e.answers)-1]
}

// TestSharedVolume follows docs/shared-resources.md: two tasks of one ACCEPT use
// the one copy that is offered, the volume is offered while they do, a third one
// joins, and it is destroyed only when the last one has ended.
func TestSharedVolume(t *testing.T) {
	c := startCluster(t)
	agent := c.agent(1).register()
	f := c.subscribe(mediaJSON, sharing()).subscribed()
	e := &events{f: f}
	v := sharedVolume("v")
	f.accept(f.offer(anyOffer), reserve("", reserved(scalar("disk", 64))), create("", v),
		launch(userOf("a", agent.id(), v), userOf("b", agent.id(), v)))
	for range 2 {
		agent.finish(next[link.Apply](agent))
	}
	runs := []link.Run{next[link.Run](agent), next[link.Run](agent)}
	for range 2 {
		next[link.AcknowledgeOperation](agent)
	}
	o := e.next(0)
	if got := cpus(o); got != 3.8 {
		t.Errorf("offered with %v CPUs", got)
	}
	f.accept(o, launch(userOf("c", agent.id(), v)))
	runs = append(runs, next[link.Run](agent))

	const inUse = "Persistent volumes in use"
	if got := e.refused(destroy("op", v), e.next(1)); !strings.HasPrefix(got, inUse) {
		t.Errorf("DESTROY answered with %q", got)
	}
	o = e.next(2)
	e.ends(agent, runs[0])
	e.ends(agent, runs[1])
	if got := e.refused(destroy("op", v), o); !strings.HasPrefix(got, inUse) {
		t.Errorf("DESTROY while one task is left answered with %q", got)
	}
	// All that is free is offered with the volume, in one offer or more; what the
	// last task frees comes in one of its own.
	offered := func() (tenths int) {
		for _, o := range e.offers[3:] {
			tenths += int(math.Round(10 * cpus(o)))
		}
		return tenths
	}
	e.until(39, offered)
	e.ends(agent, runs[2])
	e.until(40, offered)
	// One destroys it; the others are taken back.
	last := len(e.offers) - 1
	o = e.offers[last]
	f.accept(o, destroy("", v), unreserve("", reserved(scalar("disk", 64))))
	for _, want := range []mesos.Offer_Operation_Type{mesos.Offer_Operation_DESTROY, mesos.Offer_Operation_UNRESERVE} {
		if apply := next[link.Apply](agent); apply.Operation.Type != want {
			t.Errorf("agent was told %v, want %s", apply, want)
		}
	}
	e.until(last-3, func() int { return len(e.rescinded) })
	if slices.Contains(e.rescinded, o.ID) {
		t.Error("the offer that was accepted is taken back")
	}
	agents := c.operate(&operator.Call{Type: operator.Call_GET_AGENTS}).GetAgents.Agents
	if slices.ContainsFunc(agents[0].TotalResources, func(r mesos.Resource) bool { return r.Shared != nil || len(r.Reservations) > 0 }) {
		t.Errorf("left %v", agents[0].TotalResources)
	}
}

// TestSharedVolumeInTwoOffersOfOneCall is refused to be destroyed, as one copy
// would be left (getResourceConversions).
func TestSharedVolumeInTwoOffersOfOneCall(t *testing.T) {
	c := startCluster(t)
	agent := c.agent(1).register()
	f := c.subscribe(mediaJSON, sharing()).subscribed()
	e := &events{f: f}
	v := sharedVolume("v")
	f.accept(f.offer(anyOffer), reserve("", reserved(scalar("disk", 64))), create("", v), launch(task("a", agent.id())))
	for range 2 {
		agent.finish(next[link.Apply](agent))
	}
	run := next[link.Run](agent)
	for range 2 {
		next[link.AcknowledgeOperation](agent)
	}
	first := e.next(0)
	e.ends(agent, run)
	second := e.next(1)
	if got := e.refused(destroy("op", v), first, second); !strings.Contains(got, "additional shared copies") {
		t.Errorf("DESTROY answered with %q", got)
	}
}

// TestSharedVolumesAreOfferedToWhoCanHaveThem: one framework of the role at a
// time, and none without the capability.
func TestSharedVolumesAreOfferedToWhoCanHaveThem(t *testing.T) {
	c := startCluster(t)
	agent := c.agent(1).register()
	f := c.subscribe(mediaJSON, sharing()).subscribed()
	v := sharedVolume("v")
	f.accept(f.offer(anyOffer), reserve("", reserved(scalar("disk", 64))), create("", v), launch(userOf("a", agent.id(), v)))
	f.offer(func(o mesos.Offer) bool { return sharedIn(o) == 1 })
	plain := c.subscribe(mediaJSON, framework()).subscribed()
	// What ends frees CPUs for offers to both.
	f.call(&scheduler.Call{Type: scheduler.Call_TEARDOWN})
	if o := plain.offer(func(o mesos.Offer) bool { return cpus(o) > 3 }); sharedIn(o) != 0 {
		t.Errorf("offered %v", o)
	}
}
