package core

import (
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/scheduler"
)

// An app whose volume the bridge is to remove in the end, or to fence, is launched
// once the bridges of new agents have said something, be it that they are not there,
// or have had time to; others are launched at once.
func TestTheFirstWordOfABridgeIsWaitedFor(t *testing.T) {
	for name, test := range map[string]struct {
		word  func(f *fakeBridges, id string)
		knows bool
	}{
		"it answers": {word: func(f *fakeBridges, id string) {
			f.reports[id] = newFakeBridges(id).reports[id]
		}, knows: true},
		"there is none": {word: func(f *fakeBridges, id string) {
			f.reports[id] = &BridgeReport{Agent: scheduler.AgentFact{AgentID: id}}
		}},
		"it says nothing": {},
	} {
		t.Run(name, func(t *testing.T) {
			withBridges(t, func(t *testing.T, r *rig, f *fakeBridges) {
				f.set(func() { clear(f.reports) })
				r.restart() // all agents are new to it
				r.post(db)
				r.running("/db")
				r.classed(scratch)
				r.post(strings.ReplaceAll(strings.ReplaceAll(fenced, `"/db"`, `"/fenced"`), `"name":"vol"`, `"name":"other"`))
				r.until("the apps say what they wait for", func() bool {
					var said int
					for _, q := range r.queue() {
						for _, w := range q.Waiting {
							if strings.Contains(w.Text, "for the bridges of new agents") {
								said++
							}
						}
					}
					return said == 2
				})
				if test.word != nil {
					f.set(func() {
						for _, id := range r.cluster.agentIDs() {
							test.word(f, id)
						}
					})
				}
				began := time.Now()
				r.running("/scratch")
				r.running("/fenced")
				if waited := time.Since(began); (waited >= firstWord/2) != (test.word == nil) {
					t.Errorf("launched after %s", waited)
				}
				epoch, lease := r.optionsOf("/scratch")[epochOption], r.optionsOf("/fenced")[leaseOption]
				if (epoch != "") != test.knows || (lease != "") != test.knows {
					t.Errorf("launched with epoch %q and lease %q", epoch, lease)
				}
			})
		})
	}
}
