package core

import (
	"fmt"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// What was launched counts against an agent's limit before its bridge has seen
// it attached, and once only when it has.
func TestAttachLimitBetweenTwoReports(t *testing.T) {
	withBridges(t, func(t *testing.T, r *rig, f *fakeBridges) {
		f.set(func() {
			for _, b := range f.reports {
				b.Agent.Drivers = []scheduler.DriverFact{{Name: "ref", Healthy: true, AttachLimit: 2}}
			}
		})
		post := func(n int) {
			r.post(fmt.Sprintf(`{"id":"/db%d","cmd":"run","cpus":0.1,"mem":64,"container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW",
				"external":{"provider":"dvdi","name":"vol%d","options":{"dvdi/driver":"ref"}}}]}}`, n, n))
		}
		for n := range 4 {
			post(n)
			r.idle()
		}
		post(4)
		r.pass(time.Minute)
		if n := r.cluster.launched(); n != 4 {
			t.Fatalf("%d launches where the agents can attach 4 volumes", n)
		}
		on := map[int]string{}
		for n := range 4 {
			on[n] = r.running(app.ID(fmt.Sprintf("/db%d", n))).AgentID
		}
		f.set(func() { // the bridges have seen them; one more fits on each
			for id, b := range f.reports {
				b.Agent.Drivers = []scheduler.DriverFact{{Name: "ref", Healthy: true, AttachLimit: 3, Attached: 2}}
				for n, agent := range on {
					if agent == id {
						b.Volumes[scheduler.VolumeKey{Driver: "ref", Name: fmt.Sprintf("vol%d", n)}] = BridgeVolume{Attached: true}
					}
				}
			}
		})
		r.idle()
		if n := r.cluster.launched(); n != 5 {
			t.Errorf("%d launches with room for one more", n)
		}
	})
}
