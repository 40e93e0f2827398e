package server

import (
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
)

// hub hands events to those who watch. Nobody waits for a slow reader: it loses
// events and is told so.
type hub struct {
	mu       sync.Mutex // guards watchers and their fields
	watchers map[*watcher]struct{}
}

type watcher struct {
	container string
	events    chan *client.Event
	lagged    bool
}

// maxBacklog is how many events wait for one reader.
const maxBacklog = 256

func newHub() *hub { return &hub{watchers: map[*watcher]struct{}{}} }

func (h *hub) add(container string) *watcher {
	w := &watcher{container: container, events: make(chan *client.Event, maxBacklog)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watchers[w] = struct{}{}
	w.events <- &client.Event{Time: timestamppb.Now(), Kind: client.Event_READY}
	return w
}

func (h *hub) remove(w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.watchers, w)
}

// tell makes an event of a volume.
func (h *hub) tell(kind client.Event_Kind, key ledger.Key, containers []string, message string) {
	h.send(&client.Event{Time: timestamppb.New(time.Now()), Kind: kind, Volume: nameOf(key), Containers: containers, Message: message})
}

func (h *hub) send(e *client.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		if w.container != "" && !slices.Contains(e.Containers, w.container) {
			continue
		}
		if w.lagged {
			select {
			case w.events <- &client.Event{Time: e.Time, Kind: client.Event_LAGGED}:
				w.lagged = false
			default:
				continue
			}
		}
		select {
		case w.events <- e:
		default:
			w.lagged = true
		}
	}
}

// nameOf makes names fit for protobuf, whose strings are UTF-8.
func nameOf(key ledger.Key) *client.VolumeName {
	return &client.VolumeName{Driver: strings.ToValidUTF8(key.Driver, "\uFFFD"), Name: strings.ToValidUTF8(key.Volume, "\uFFFD")}
}
