package facts

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
)

// zoneBook knows in which zones volumes are, for drivers whose Get tells. The
// protocol has no field for it; in the free-form Status REX-Ray tells it as
// availabilityZone (buildVolumeStatus in its integration driver). A volume's
// zone does not change while it is mounted, so one answer is enough. It is safe
// for concurrent use.
type zoneBook struct {
	getter  Getter
	timeout time.Duration // for one answer
	retry   time.Duration // after a question without an answer
	due     chan struct{} // there may be something to ask

	mu    sync.Mutex // guards known
	known map[ledger.Key]*zone
}

// zone is what is known of an attached volume.
type zone struct {
	name string // empty: unknown, or the driver says nothing
	// asked is set for good once the driver has answered; before that it is asked
	// when next has come.
	asked bool
	next  time.Time
}

// zoneKeys are those of a Status, the first that says anything counts.
var zoneKeys = []string{"availabilityZone", "zone"}

func newZoneBook(getter Getter, timeout, retry time.Duration) *zoneBook {
	return &zoneBook{getter: getter, timeout: timeout, retry: retry, due: make(chan struct{}, 1), known: map[ledger.Key]*zone{}}
}

// put sets the zones of volumes as far as they are known, forgets volumes that
// are not attached any more, and has run ask about those newly mounted. It never
// waits for a driver.
func (b *zoneBook) put(volumes map[ledger.Key]*client.Volume) {
	if b.getter == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for key := range b.known {
		if v := volumes[key]; v == nil || v.State == client.Volume_NONE {
			delete(b.known, key)
		}
	}
	news := false
	for key, v := range volumes {
		z := b.known[key]
		switch {
		case z != nil:
			v.Zone = text(z.name)
		case v.State == client.Volume_MOUNTED:
			b.known[key], news = &zone{}, true
		}
	}
	if news {
		b.wake()
	}
}

func (b *zoneBook) wake() {
	select {
	case b.due <- struct{}{}:
	default: // run will look anyway
	}
}

// run asks about what is due until ctx ends, and calls changed after each answer
// that says something new.
func (b *zoneBook) run(ctx context.Context, changed func()) {
	if b.getter == nil {
		return
	}
	ticker := time.NewTicker(b.retry)
	defer ticker.Stop()
	for {
		b.ask(ctx, changed)
		select {
		case <-ctx.Done():
			return
		case <-b.due:
		case <-ticker.C:
		}
	}
}

// ask asks all drivers at the same time, each about one volume after the other:
// one that hangs costs its time-out and no other driver's volumes anything but
// that.
func (b *zoneBook) ask(ctx context.Context, changed func()) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, keys := range b.questions(time.Now()) {
		wg.Go(func() {
			for n, key := range keys {
				asking, cancel := context.WithTimeout(ctx, b.timeout)
				status, err := b.getter.Status(asking, key)
				silent := asking.Err() != nil
				cancel()
				if err == nil {
					if b.learn(key, zoneIn(status)) {
						changed()
					}
					continue
				}
				if !silent {
					b.postpone(keys[n : n+1])
					continue
				}
				b.postpone(keys[n:]) // whether it answers is the driverBook's business
				return
			}
		})
	}
}

// questions are the volumes that are due, by driver.
func (b *zoneBook) questions(now time.Time) map[string][]ledger.Key {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := map[string][]ledger.Key{}
	for key, z := range b.known {
		if !z.asked && !now.Before(z.next) {
			out[key.Driver] = append(out[key.Driver], key)
		}
	}
	return out
}

// learn takes an answer, unless the volume has been forgotten meanwhile.
func (b *zoneBook) learn(key ledger.Key, name string) (changed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	z := b.known[key]
	if z == nil {
		return false
	}
	changed = z.name != name
	z.name, z.asked = name, true
	return changed
}

func (b *zoneBook) postpone(keys []ledger.Key) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, key := range keys {
		if z := b.known[key]; z != nil {
			z.next = time.Now().Add(b.retry)
		}
	}
}

// maxPlace is the length in bytes of a zone's or a host's name that is told: no
// driver's talk makes the facts larger than a framework takes them.
const maxPlace = 256

// zoneIn reads the zone out of a driver's status. What is empty, no text or too
// long for a name says nothing.
func zoneIn(status map[string]any) string {
	for _, key := range zoneKeys {
		s, _ := status[key].(string)
		if s = strings.TrimSpace(s); s != "" && len(s) <= maxPlace {
			return strings.Clone(s)
		}
	}
	return ""
}
