package master_test

import (
	"testing"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
)

// Agents and resources that a framework does not say it can handle are not
// offered to it.
func TestOffersFollowTheFrameworksCapabilities(t *testing.T) {
	c := startCluster(t)
	plain, gpu, spare := c.agent(1), c.agent(2), c.agent(3)
	gpu.info.Resources = append(gpu.info.Resources, scalar("gpus", 1))
	extra := scalar("cpus", 2)
	extra.Revocable = &mesos.Resource_RevocableInfo{}
	spare.info.Resources = append(spare.info.Resources, extra)
	for _, a := range []*fakeAgent{plain, gpu, spare} {
		a.register()
	}
	// offered are the agents with their CPUs, revocable ones included.
	offered := func(capabilities ...mesos.FrameworkInfo_Capability_Type) map[mesos.AgentID]float64 {
		info := framework()
		for _, one := range capabilities {
			info.Capabilities = append(info.Capabilities, mesos.FrameworkInfo_Capability{Type: one})
		}
		f := c.subscribe(mediaProtobuf, info).subscribed()
		got := make(map[mesos.AgentID]float64)
		for _, o := range f.await(scheduler.Event_OFFERS).Offers.Offers {
			for _, r := range o.Resources {
				if r.Name == "cpus" {
					got[o.AgentID] += r.Scalar.Value
				}
			}
		}
		f.call(&scheduler.Call{Type: scheduler.Call_TEARDOWN})
		return got
	}
	got := offered()
	if len(got) != 2 || got[plain.id()] != 4 || got[spare.id()] != 4 {
		t.Errorf("without capabilities: %v", got)
	}
	got = offered(mesos.FrameworkInfo_Capability_GPU_RESOURCES, mesos.FrameworkInfo_Capability_REVOCABLE_RESOURCES)
	if len(got) != 3 || got[gpu.id()] != 4 || got[spare.id()] != 6 {
		t.Errorf("with capabilities: %v", got)
	}
}
