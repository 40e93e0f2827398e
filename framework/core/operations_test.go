package core

import (
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/scheduler"
)

func TestOutcomesOfOperations(t *testing.T) {
	for state, want := range map[string]struct{ forgotten, mute, givenUp bool }{
		"OPERATION_PENDING":  {},
		"OPERATION_FINISHED": {forgotten: true},
		"OPERATION_FAILED":   {forgotten: true, givenUp: true},
		"OPERATION_ERROR":    {forgotten: true, mute: true, givenUp: true},
		"OPERATION_DROPPED":  {forgotten: true, mute: true, givenUp: true},
	} {
		inBubble(t, []string{"a"}, func(t *testing.T, r *rig) {
			err := r.core.do(t.Context(), func(tx *txn) error {
				c := tx.c
				later := tx.now.Add(time.Minute)
				i := &instance{ID: "i", App: "/x", Phase: launching, Task: &task{ID: "i.1"}, Reserved: &reservation{AgentID: "S0", Deadline: later}}
				c.state.indexInstance(i)
				defer tx.removeInstance(i)
				id := c.operationID(scheduler.Operation{Kind: scheduler.OpReserve, InstanceID: "i"}, "S0")
				if id == "" {
					t.Error("an operation without id")
				}
				c.operationStatus(tx, OperationStatus{OperationID: "unknown", State: state})
				c.operationStatus(tx, OperationStatus{OperationID: id, AgentID: "S0", State: state})
				_, waits := c.flow.operations[id]
				again := c.operationID(scheduler.Operation{Kind: scheduler.OpReserve, InstanceID: "i"}, "S0")
				if waits == want.forgotten || (again == "") != want.mute || i.Reserved.Deadline.Before(later) != want.givenUp {
					t.Errorf("%s: waited for %t, next id %q, deadline in %s", state, waits, again, i.Reserved.Deadline.Sub(tx.now))
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}
