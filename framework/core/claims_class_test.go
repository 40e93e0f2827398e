package core

import (
	"slices"
	"testing"

	"github.com/mesos-dvdi/dvdi/scheduler"
)

// A claim that was made before its backend was said to refuse two attachments
// stays as it was, and the queue says so: nothing is planned that would be
// refused at the launch, again and again.
func TestExclusiveBackendThatComesLate(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(t *testing.T, r *rig) {
		r.post(db)
		first := r.running("/db")
		r.scale("/db", 0)
		r.idle()
		if claim := r.onlyClaim(); claim.State != scheduler.Releasing {
			t.Fatalf("claim: %+v", claim)
		}
		if err := r.halt(); err != nil {
			t.Fatal(err)
		}
		r.cfg.BackendExclusive = map[string]bool{"ref": true}
		r.start()
		r.cluster.partition(first.AgentID)
		r.scale("/db", 1)
		r.until("the queue to say why it waits", func() bool {
			q := r.queue()
			return len(q) == 1 && slices.ContainsFunc(q[0].Waiting[0].Counts, func(n scheduler.ReasonCount) bool {
				return n.Reason == scheduler.VolumeReleasing && n.Agents > 0
			})
		})
		if n := r.cluster.launched(); n != 1 {
			t.Errorf("%d launches", n)
		}
	})
}
