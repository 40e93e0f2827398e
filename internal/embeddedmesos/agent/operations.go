package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/google/uuid"
	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/resources"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/checkpoint"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

// resourceState are the agent's dynamic reservations and persistent volumes,
// and the operations on them whose outcome has not been acknowledged. It
// belongs to the loop.
type resourceState struct {
	checkpointed mesos.Resources
	operations   []*operation
}

// operation is one whose outcome is to be told.
type operation struct {
	update link.OperationUpdate
	timer  *time.Timer
}

func (s *resourceState) copy() []mesos.Resource { return slices.Clone(s.checkpointed) }

func (s *resourceState) updates() []link.OperationUpdate {
	list := make([]link.OperationUpdate, len(s.operations))
	for n, o := range s.operations {
		list[n] = o.update
	}
	return list
}

func (s *resourceState) find(id []byte) *operation {
	for _, o := range s.operations {
		if bytes.Equal(o.update.UUID, id) {
			return o
		}
	}
	return nil
}

// apply carries out a reservation or volume operation and tells its outcome
// until that is acknowledged.
func (p *process) apply(m link.Apply) {
	if o := p.resources.find(m.UUID); o != nil {
		p.sendOperation(o, p.cfg.StatusRetry)
		return
	}
	status := uuid.New()
	update := link.OperationUpdate{
		FrameworkID: m.FrameworkID,
		UUID:        m.UUID,
		OperationID: m.Operation.GetID().GetValue(),
		Operation:   m.Operation,
		State:       mesos.OPERATION_FINISHED,
		StatusUUID:  status[:],
	}
	after, err := p.execute(&m.Operation)
	if err != nil {
		p.log.Error("Operation failed", zap.Stringer("type", m.Operation.Type), zap.Error(err))
		update.State, update.Message = mesos.OPERATION_FAILED, err.Error()
		after = p.resources.checkpointed
	}
	o := &operation{update: update}
	p.resources.checkpointed = after
	p.resources.operations = append(p.resources.operations, o)
	if err := p.checkpointResources(); err != nil {
		p.fail("checkpoint resources", err)
		return
	}
	p.sendOperation(o, p.cfg.StatusRetry)
}

// execute changes the disk and returns the checkpointed resources afterwards.
func (p *process) execute(o *mesos.Offer_Operation) (mesos.Resources, error) {
	have := p.resources.checkpointed.Clone()
	switch {
	case o.Reserve != nil:
		return have.Plus(unallocated(o.Reserve.Resources)...), nil
	case o.Unreserve != nil:
		return subtract(have, unallocated(o.Unreserve.Resources))
	case o.Create != nil:
		return p.createVolumes(have, unallocated(o.Create.Volumes))
	case o.Destroy != nil:
		return p.destroyVolumes(have, unallocated(o.Destroy.Volumes))
	}
	return nil, fmt.Errorf("embedded Mesos has no operation %v", o.Type)
}

func (p *process) createVolumes(have mesos.Resources, volumes []mesos.Resource) (mesos.Resources, error) {
	for _, v := range volumes {
		if err := checkID("persistent volume", v.Disk.GetPersistence().GetID()); err != nil {
			return nil, err
		}
		if err := p.layout.createVolume(&v); err != nil {
			return nil, err
		}
		// A volume on a statically reserved disk has no checkpointed
		// reservation that it could replace.
		if disk := withoutVolume(v); resources.Contains(have, disk) {
			have.Subtract(disk)
		}
		have.Add(v)
	}
	return have, nil
}

func (p *process) destroyVolumes(have mesos.Resources, volumes []mesos.Resource) (mesos.Resources, error) {
	after, err := subtract(have, volumes)
	if err != nil {
		return nil, err
	}
	for _, v := range volumes {
		if err := p.layout.destroyVolume(&v); err != nil {
			return nil, err
		}
		if disk := withoutVolume(v); disk.IsDynamicallyReserved() {
			after.Add(disk)
		}
	}
	return after, nil
}

func subtract(have mesos.Resources, what []mesos.Resource) (mesos.Resources, error) {
	for _, r := range what {
		if !resources.Contains(have, r) {
			return nil, fmt.Errorf("the agent does not have %s", mesos.Resources{r})
		}
		have.Subtract(r)
	}
	return have, nil
}

func unallocated(list []mesos.Resource) []mesos.Resource {
	out := mesos.Resources(list).Clone()
	for n := range out {
		out[n].AllocationInfo = nil
	}
	return out
}

// withoutVolume returns the disk that a persistent volume was made of.
func withoutVolume(r mesos.Resource) mesos.Resource {
	if source := r.Disk.GetSource(); source != nil {
		r.Disk = &mesos.Resource_DiskInfo{Source: source}
	} else {
		r.Disk = nil
	}
	r.Shared = nil
	return r
}

func (p *process) sendOperation(o *operation, interval time.Duration) {
	if o.timer != nil {
		o.timer.Stop()
	}
	if !p.master.registered {
		return
	}
	p.send(o.update)
	o.timer = p.after(interval, func() {
		if p.resources.find(o.update.UUID) == o {
			p.sendOperation(o, min(2*interval, maxRetryFactor*p.cfg.StatusRetry))
		}
	})
}

func (p *process) resendOperations() {
	for _, o := range p.resources.operations {
		p.sendOperation(o, p.cfg.StatusRetry)
	}
}

func (p *process) acknowledgeOperation(m link.AcknowledgeOperation) {
	o := p.resources.find(m.UUID)
	if o == nil || !bytes.Equal(o.update.StatusUUID, m.StatusUUID) {
		p.log.Info("Ignoring an acknowledgement for an unknown operation")
		return
	}
	if o.timer != nil {
		o.timer.Stop()
	}
	p.resources.operations = slices.DeleteFunc(p.resources.operations, func(x *operation) bool { return x == o })
	if err := p.checkpointResources(); err != nil {
		p.fail("checkpoint resources", err)
	}
}

// storedResources is the form on disk: protobuf messages in JSON.
type storedResources struct {
	Resources  [][]byte
	Operations []storedOperation
}

type storedOperation struct {
	Framework, OperationID string
	UUID, StatusUUID       []byte
	Operation              []byte
	State                  int32
	Message                string
}

// checkpointResources writes resources and operations at once, so that they
// cannot contradict each other after a crash.
func (p *process) checkpointResources() error {
	var stored storedResources
	for _, r := range p.resources.checkpointed {
		data, err := r.Marshal()
		if err != nil {
			return err
		}
		stored.Resources = append(stored.Resources, data)
	}
	for _, o := range p.resources.operations {
		data, err := o.update.Operation.Marshal()
		if err != nil {
			return err
		}
		stored.Operations = append(stored.Operations, storedOperation{
			Framework:   o.update.FrameworkID.Value,
			OperationID: o.update.OperationID,
			UUID:        o.update.UUID,
			StatusUUID:  o.update.StatusUUID,
			Operation:   data,
			State:       int32(o.update.State),
			Message:     o.update.Message,
		})
	}
	data, err := json.Marshal(stored)
	if err != nil {
		return err
	}
	return checkpoint.Write(p.layout.resources(), data)
}

// recoverResources reads what checkpointResources wrote.
func (p *process) recoverResources() error {
	data, err := os.ReadFile(p.layout.resources())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var stored storedResources
	if err == nil {
		err = json.Unmarshal(data, &stored)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", p.layout.resources(), err)
	}
	for _, raw := range stored.Resources {
		var r mesos.Resource
		if err := r.Unmarshal(raw); err != nil {
			return fmt.Errorf("read %s: %w", p.layout.resources(), err)
		}
		p.resources.checkpointed = append(p.resources.checkpointed, r)
	}
	for _, s := range stored.Operations {
		o := &operation{update: link.OperationUpdate{
			FrameworkID: mesos.FrameworkID{Value: s.Framework},
			UUID:        s.UUID,
			OperationID: s.OperationID,
			State:       mesos.OperationState(s.State),
			Message:     s.Message,
			StatusUUID:  s.StatusUUID,
		}}
		if err := o.update.Operation.Unmarshal(s.Operation); err != nil {
			return fmt.Errorf("read %s: %w", p.layout.resources(), err)
		}
		p.resources.operations = append(p.resources.operations, o)
	}
	return nil
}
