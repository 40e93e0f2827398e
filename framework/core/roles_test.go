package core

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/framework/app"
)

// An app in a role that the master does not allow waits and says why; the other
// apps run, and the master is not asked all the time.
func TestRoleThatTheMasterDoesNotAllow(t *testing.T) {
	inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
		asked := func() (n int) {
			r.cluster.set(func(c *cluster) {
				for _, call := range c.calls {
					if call == "roles * prod" {
						n++
					}
				}
			})
			return n
		}
		r.pass(time.Second)
		r.cluster.set(func(c *cluster) {
			c.refuseRoles = &RolesRefusedError{Roles: []string{"prod"}, Cause: errors.New("not on the list")}
		})
		a := r.parse(`{"id":"/web","cmd":"sleep 1","cpus":0.1,"mem":32}`)
		a.Role = "prod"
		if _, err := r.core.Change(r.t.Context(), Change{Upsert: []*app.App{a}}); err != nil {
			t.Fatal(err)
		}
		r.pass(time.Minute)
		if n := asked(); n != 1 {
			t.Errorf("asked %d times in a minute", n)
		}
		queue := r.queue()
		if len(queue) != 1 || len(queue[0].Waiting) != 1 || !strings.Contains(queue[0].Waiting[0].Text, "does not allow the role prod: not on the list") {
			t.Errorf("queue %+v", queue)
		}
		r.post(`{"id":"/other","cmd":"sleep 1","cpus":0.1,"mem":32}`)
		r.running("/other")

		r.cluster.set(func(c *cluster) { c.refuseRoles = nil })
		r.pass(roleRetry)
		if n := asked(); n != 2 {
			t.Errorf("asked %d times, want once more after the pause", n)
		}
		if queue := r.queue(); len(queue) != 1 || strings.Contains(queue[0].Waiting[0].Text, "does not allow") {
			t.Errorf("queue %+v", queue)
		}
	})
}
