package mesos

import (
	"errors"
	"fmt"

	mesosgo "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/mesos-dvdi/dvdi/framework/core"
	"github.com/mesos-dvdi/dvdi/scheduler"
)

// operations translates the operations of an ACCEPT.
func (c *Conn) operations(a core.Accept) ([]mesosgo.Offer_Operation, error) {
	var all []mesosgo.Offer_Operation
	for _, o := range a.Operations {
		w, err := c.operation(o)
		if err != nil {
			return nil, err
		}
		all = append(all, w)
	}
	return all, nil
}

// operation translates one operation. A LAUNCH never carries an operation id:
// the master answers such a task with TASK_ERROR.
func (c *Conn) operation(o core.Operation) (mesosgo.Offer_Operation, error) {
	if o.Kind == scheduler.OpLaunch {
		if o.Task == nil {
			return mesosgo.Offer_Operation{}, errors.New("launch without a task")
		}
		task, err := c.taskInfo(o.Task)
		if err != nil {
			return mesosgo.Offer_Operation{}, err
		}
		return mesosgo.Offer_Operation{
			Type:   mesosgo.Offer_Operation_LAUNCH,
			Launch: &mesosgo.Offer_Operation_Launch{TaskInfos: []mesosgo.TaskInfo{task}},
		}, nil
	}
	w := mesosgo.Offer_Operation{}
	if o.ID != "" {
		w.ID = &mesosgo.OperationID{Value: o.ID}
	}
	resources := allToWire(o.Resources)
	switch o.Kind {
	case scheduler.OpReserve:
		w.Type = mesosgo.Offer_Operation_RESERVE
		w.Reserve = &mesosgo.Offer_Operation_Reserve{Resources: resources}
	case scheduler.OpUnreserve:
		w.Type = mesosgo.Offer_Operation_UNRESERVE
		w.Unreserve = &mesosgo.Offer_Operation_Unreserve{Resources: resources}
	case scheduler.OpCreate:
		w.Type = mesosgo.Offer_Operation_CREATE
		w.Create = &mesosgo.Offer_Operation_Create{Volumes: resources}
	case scheduler.OpDestroy:
		w.Type = mesosgo.Offer_Operation_DESTROY
		w.Destroy = &mesosgo.Offer_Operation_Destroy{Volumes: resources}
	default:
		return w, fmt.Errorf("offer operation of unknown kind %d", o.Kind)
	}
	return w, nil
}
