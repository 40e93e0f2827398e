package master

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/gogo/protobuf/proto"
	"github.com/google/uuid"
	"github.com/mesos/mesos-go/api/v1/lib/recordio"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/link"
	"github.com/mesos-dvdi/dvdi/internal/embeddedmesos/mesosjson"
)

// The media types of the v1 API.
const (
	mediaJSON     = "application/json"
	mediaProtobuf = "application/x-protobuf"
)

// stream is one subscription's event stream. The state goroutine puts encoded
// records into the queue; the goroutine of the HTTP request writes them.
type stream struct {
	id        string
	media     string
	queue     *link.Queue[[]byte]
	wakeup    chan struct{}
	breakOff  atomic.Bool // break the connection instead of ending the body
	heartbeat *time.Timer // owned by the state goroutine
}

func newStream(media string) *stream {
	return &stream{
		id:     uuid.NewString(),
		media:  media,
		queue:  link.NewQueue[[]byte](),
		wakeup: make(chan struct{}, 1),
	}
}

// encode renders a message in a media type.
func encode(media string, message proto.Message) ([]byte, error) {
	if media == mediaJSON {
		return mesosjson.Marshal(message)
	}
	return proto.Marshal(message)
}

// send queues an event.
func (s *stream) send(event *scheduler.Event) error {
	body, err := encode(s.media, event)
	if err != nil {
		return fmt.Errorf("encode %s event: %w", event.Type, err)
	}
	return s.sendRecord(body)
}

func (s *stream) sendRecord(body []byte) error {
	var record bytes.Buffer
	if err := recordio.NewWriter(&record).WriteFrame(body); err != nil {
		return fmt.Errorf("frame an event: %w", err)
	}
	s.queue.Put(record.Bytes())
	return nil
}

// sendUnknown queues an event of a type from the future.
func (s *stream) sendUnknown() {
	const typeFromTheFuture = 4711
	body := []byte(`{"type":"UNHEARD_OF"}`)
	if s.media == mediaProtobuf {
		body = append(proto.EncodeVarint(1<<3), proto.EncodeVarint(typeFromTheFuture)...)
	}
	// Writing to memory does not fail.
	_ = s.sendRecord(body)
}

func (s *stream) wake() {
	if s == nil {
		return
	}
	select {
	case s.wakeup <- struct{}{}:
	default:
	}
}

// serve writes queued records until the queue is closed, the client goes away
// or the master ends. It panics with http.ErrAbortHandler, as net/http wants
// it, to break the connection.
func (m *Master) serveStream(ctx context.Context, w http.ResponseWriter, s *stream) {
	controller := http.NewResponseController(w)
	if err := controller.Flush(); err != nil {
		m.log.Debug("flush event stream", zap.Error(err))
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.stopped:
			m.finishStream(controller, w, s)
			return
		case <-s.wakeup:
		case <-s.queue.Ready():
		}
		if m.faults.silent.Load() {
			continue
		}
		open, err := writeQueued(controller, w, s)
		if err != nil {
			m.log.Debug("event stream ended", zap.String("stream", s.id), zap.Error(err))
			return
		}
		if !open {
			break
		}
	}
	if s.breakOff.Load() {
		panic(http.ErrAbortHandler)
	}
}

// finishStream writes what was sent before the master ended in good order.
func (m *Master) finishStream(controller *http.ResponseController, w http.ResponseWriter, s *stream) {
	if m.faults.abort.Load() {
		panic(http.ErrAbortHandler)
	}
	if _, err := writeQueued(controller, w, s); err != nil {
		m.log.Debug("event stream ended", zap.String("stream", s.id), zap.Error(err))
	}
}

func writeQueued(controller *http.ResponseController, w http.ResponseWriter, s *stream) (open bool, err error) {
	records, open := s.queue.Take()
	for _, record := range records {
		if _, err := w.Write(record); err != nil {
			return open, err
		}
	}
	return open, controller.Flush()
}
