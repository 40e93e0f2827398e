package agent

import (
	"bytes"
	"fmt"
	"math"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/agent/checkpoint"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
)

// stream holds a task's updates until they are acknowledged, one at a time and
// in order (src/slave/task_status_update_manager.cpp). It belongs to the loop.
type stream struct {
	log     *checkpoint.Log
	pending []*mesos.TaskStatus
	all     []mesos.TaskStatus // ever received
	timer   *time.Timer        // of the next sending of the head
	silent  bool
}

// openStream opens a task's stream and replays what is in it.
func openStream(path string) (*stream, error) {
	log, records, err := checkpoint.OpenLog(path)
	if err != nil {
		return nil, err
	}
	s := &stream{log: log}
	for _, record := range records {
		if err := s.replay(record); err != nil {
			return nil, fmt.Errorf("log of updates %s: %w", path, err)
		}
	}
	return s, nil
}

func (s *stream) replay(record []byte) error {
	status, acknowledged, err := decodeRecord(record)
	if err != nil {
		return err
	}
	if status == nil {
		s.drop(acknowledged)
		return nil
	}
	s.pending = append(s.pending, status)
	s.all = append(s.all, *status)
	return nil
}

func (s *stream) has(uuid []byte) bool {
	for _, status := range s.all {
		if bytes.Equal(status.UUID, uuid) {
			return true
		}
	}
	return false
}

// add records an update. A silent stream sends none of them.
func (s *stream) add(path runPath, status *mesos.TaskStatus) error {
	record, err := encodeUpdate(path, status)
	if err != nil {
		return err
	}
	if err := s.log.Append(record); err != nil {
		return err
	}
	s.pending = append(s.pending, status)
	s.all = append(s.all, *status)
	return nil
}

// drop removes the head if it is the update with that id.
func (s *stream) drop(uuid []byte) bool {
	if len(s.pending) == 0 || !bytes.Equal(s.pending[0].UUID, uuid) {
		return false
	}
	s.pending = s.pending[1:]
	return true
}

// alone tells whether the newest update is the one to be sent.
func (s *stream) alone() bool { return !s.silent && len(s.pending) == 1 }

// settled tells whether the last update was a terminal one and everything is
// acknowledged.
func (s *stream) settled() bool {
	n := len(s.all)
	return len(s.pending) == 0 && n > 0 && terminal(s.all[n-1].GetState())
}

// silence ends all sending.
func (s *stream) silence() {
	s.silent = true
	s.stopTimer()
}

func (s *stream) stopTimer() {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
}

// close closes the log; closing twice is harmless.
func (s *stream) close() error {
	if s == nil || s.log == nil {
		return nil
	}
	s.silence()
	log := s.log
	s.log = nil
	return log.Close()
}

// sendHead sends the oldest update, and again after each interval.
func (p *process) sendHead(r *run, interval time.Duration) {
	s := r.stream
	s.stopTimer()
	if s.silent || len(s.pending) == 0 || !p.master.registered {
		return
	}
	head := s.pending[0]
	p.send(link.Update{
		FrameworkID: mesos.FrameworkID{Value: r.path.framework},
		Status:      *head,
		LatestState: r.state,
	})
	s.timer = p.after(interval, func() {
		if len(s.pending) > 0 && s.pending[0] == head {
			p.sendHead(r, min(2*interval, maxRetryFactor*p.cfg.StatusRetry))
		}
	})
}

// resend begins anew, for a master that may know nothing.
func (p *process) resend(r *run) { p.sendHead(r, p.cfg.StatusRetry) }

// acknowledge ends the repetition of an update.
func (p *process) acknowledge(m link.Acknowledge) {
	r := p.find(m.FrameworkID.Value, m.TaskID.Value)
	if r == nil || r.orphan {
		p.log.Info("Ignoring an acknowledgement for an unknown task", zap.String("task", m.TaskID.Value))
		return
	}
	s := r.stream
	if len(s.pending) == 0 || !bytes.Equal(s.pending[0].UUID, m.UUID) {
		r.log(p).Info("Ignoring the acknowledgement of an update that is not the one sent last")
		return
	}
	if err := s.log.Append(encodeAcknowledgement(m.UUID)); err != nil {
		p.fail("checkpoint acknowledgement", err)
		return
	}
	s.drop(m.UUID)
	p.sendHead(r, p.cfg.StatusRetry)
	p.finish(r)
}

// Fields of StatusUpdateRecord and StatusUpdate (src/messages/messages.proto).
const (
	recordType, recordUpdate, recordUUID = 1, 2, 3
	typeUpdate, typeAcknowledgement      = 0, 1

	updateFramework, updateExecutor, updateAgent = 1, 2, 3
	updateStatus, updateTimestamp, updateUUID    = 4, 5, 6
)

// encodeUpdate returns a StatusUpdateRecord that holds an update.
func encodeUpdate(path runPath, s *mesos.TaskStatus) ([]byte, error) {
	status, err := s.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encode status update: %w", err)
	}
	id := func(value string) []byte { // of FrameworkID, ExecutorID and SlaveID alike
		return protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), value)
	}
	var update []byte
	for _, f := range []struct {
		number protowire.Number
		value  []byte
	}{
		{updateFramework, id(path.framework)},
		{updateExecutor, id(path.executor)},
		{updateAgent, id(path.slave)},
		{updateStatus, status},
	} {
		update = protowire.AppendTag(update, f.number, protowire.BytesType)
		update = protowire.AppendBytes(update, f.value)
	}
	update = protowire.AppendTag(update, updateTimestamp, protowire.Fixed64Type)
	update = protowire.AppendFixed64(update, math.Float64bits(s.GetTimestamp()))
	update = protowire.AppendTag(update, updateUUID, protowire.BytesType)
	update = protowire.AppendBytes(update, s.UUID)

	record := protowire.AppendTag(nil, recordType, protowire.VarintType)
	record = protowire.AppendVarint(record, typeUpdate)
	record = protowire.AppendTag(record, recordUpdate, protowire.BytesType)
	return protowire.AppendBytes(record, update), nil
}

// encodeAcknowledgement returns a StatusUpdateRecord that ends an update.
func encodeAcknowledgement(uuid []byte) []byte {
	record := protowire.AppendTag(nil, recordType, protowire.VarintType)
	record = protowire.AppendVarint(record, typeAcknowledgement)
	record = protowire.AppendTag(record, recordUUID, protowire.BytesType)
	return protowire.AppendBytes(record, uuid)
}

// decodeRecord returns the status of an update, or the id of an
// acknowledgement.
func decodeRecord(record []byte) (*mesos.TaskStatus, []byte, error) {
	update, acknowledged, err := field(record, recordUpdate), field(record, recordUUID), error(nil)
	if update == nil {
		if acknowledged == nil {
			err = fmt.Errorf("record of %d bytes holds neither update nor acknowledgement", len(record))
		}
		return nil, acknowledged, err
	}
	status := new(mesos.TaskStatus)
	if err := status.Unmarshal(field(update, updateStatus)); err != nil {
		return nil, nil, err
	}
	return status, nil, nil
}

// field returns the content of a length-delimited field, nil if it is missing.
func field(message []byte, want protowire.Number) []byte {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return nil
		}
		size := protowire.ConsumeFieldValue(number, kind, message[n:])
		if size < 0 {
			return nil
		}
		if number == want && kind == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(message[n:])
			return value
		}
		message = message[n+size:]
	}
	return nil
}
