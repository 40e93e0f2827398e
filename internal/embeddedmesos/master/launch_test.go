package master_test

import (
	"reflect"
	"testing"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

func TestTaskFromOfferToAcknowledgedEnd(t *testing.T) {
	for _, media := range []string{mediaJSON, mediaProtobuf} {
		t.Run(media, func(t *testing.T) {
			c := startCluster(t)
			agent := c.agent(1).register()
			f := c.subscribe(media, framework()).subscribed()
			o := f.offer(anyOffer)
			f.accept(o, launch(task("a", agent.id())))
			run := next[link.Run](agent)
			if run.Task.TaskID.Value != "a" || run.Framework.GetID().GetValue() != f.id.Value {
				t.Errorf("agent was told %v", run)
			}
			sent := agent.update(run, mesos.TASK_RUNNING)
			got := f.update()
			if !reflect.DeepEqual(got, sent) {
				t.Errorf("framework got %v, want %v", got, sent)
			}
			f.acknowledge(got)
			if ack := next[link.Acknowledge](agent); !reflect.DeepEqual(ack.UUID, sent.UUID) {
				t.Errorf("agent got the acknowledgement %v", ack)
			}
			agent.update(run, mesos.TASK_FINISHED)
			last := f.update()
			f.reconcile()
			if s := f.update(); s.GetState() != mesos.TASK_FINISHED || s.UUID != nil {
				t.Errorf("a task whose end is not acknowledged is %v", s)
			}
			f.acknowledge(last)
			next[link.Acknowledge](agent)
			f.reconcile(scheduler.Call_Reconcile_Task{TaskID: run.Task.TaskID, AgentID: agent.info.ID})
			if s := f.update(); s.GetState() != mesos.TASK_GONE {
				t.Errorf("a task whose end is acknowledged is %v", s)
			}
		})
	}
}
