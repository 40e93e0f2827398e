package fence_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mesos-dvdi/dvdi/internal/bubbletest"
)

// happening is one event of a schedule.
type happening struct {
	after time.Duration // since the one before
	kind  string
	host  int // theTasks: where the claim is
	last  time.Duration
}

// theTasks is the host that has the claim when the event happens.
const theTasks = -1

func (e happening) String() string {
	return fmt.Sprintf("after %s %s on host %d for %s", e.after, e.kind, e.host, e.last)
}

var kinds = []string{"freeze bridge", "freeze host", "partition", "delay", "failover", "step clock", "kill bridge", "lose host", "stuck fence"}

// Pauses between events, and how long one lasts: around the lengths of lease and
// watchdog, and very short or very long against them.
var (
	pauses  = []time.Duration{0, time.Millisecond, 200 * time.Millisecond, time.Second, 3 * time.Second, 6 * time.Second, 11 * time.Second}
	lengths = []time.Duration{time.Millisecond, 300 * time.Millisecond, 2 * time.Second, 3900 * time.Millisecond, 5 * time.Second,
		9 * time.Second, 11 * time.Second, 15 * time.Second, 25 * time.Second, 40 * time.Second, 90 * time.Second}
)

// schedule draws what happens in some two minutes.
func schedule(t *rapid.T) []happening {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) happening {
		return happening{
			after: rapid.SampledFrom(pauses).Draw(t, "after"),
			kind:  rapid.SampledFrom(kinds).Draw(t, "kind"),
			host:  rapid.IntRange(0, 1).Draw(t, "host"),
			last:  rapid.SampledFrom(lengths).Draw(t, "last"),
		}
	}), 8, 30).Draw(t, "schedule")
}

// play runs a schedule and returns the world after it.
func play(t *testing.T, events []happening, watchdog bool, cheat time.Duration) (w *world) {
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte(strings.Repeat("0123456789abcdef", 4)), 0o600); err != nil {
		t.Fatal(err)
	}
	bubbletest.Test(t, func(t *testing.T) {
		w = &world{t: t, dir: dir, token: token, watchdog: watchdog, over: make(chan struct{}), began: time.Now()}
		w.hosts = []*simHost{newSimHost(w, "a", 1.001), newSimHost(w, "b", 0.999)}
		disk := &simDisk{}
		f := newFramework(w, disk, cheat)
		for _, e := range events {
			time.Sleep(e.after)
			bubbletest.Wait()
			w.note(e.String())
			if e.kind == "failover" {
				close(f.dead)
				bubbletest.Wait()
				f = newFramework(w, disk, cheat)
				continue
			}
			if e.host == theTasks {
				if e.host = w.claimedBy(); e.host < 0 {
					continue
				}
			}
			w.happen(e)
		}
		time.Sleep(45 * time.Second)
		for range 3 { // both hosts may have been cut off from the beginning until now
			if !w.wrote() {
				time.Sleep(45 * time.Second)
			}
		}
		close(w.over)
		for _, h := range w.hosts {
			h.mu.Lock()
			h.stopDog()
			h.mu.Unlock()
		}
		w.wg.Wait()
		time.Sleep(simMargin) // what is on its way arrives
		bubbletest.Wait()
	})
	return w
}

func newFramework(w *world, disk *simDisk, cheat time.Duration) *simFramework {
	f := &simFramework{world: w, disk: disk, dead: make(chan struct{}), cheat: cheat}
	w.wg.Go(f.run)
	return f
}

// happen lets an event begin, and end by itself.
func (w *world) happen(e happening) {
	h := w.hosts[e.host]
	end := func(do func()) {
		w.wg.Go(func() {
			if w.sleep(e.last) {
				do()
			}
		})
	}
	set := func(change func()) {
		h.mu.Lock()
		defer h.mu.Unlock()
		change()
	}
	switch e.kind {
	case "freeze bridge":
		h.mu.Lock()
		b := h.bridge
		h.mu.Unlock()
		if b != nil {
			b.gate.shut()
			end(b.gate.release)
		}
	case "freeze host":
		h.gate.shut()
		end(h.gate.release)
	case "partition":
		cut := make(chan struct{})
		set(func() {
			if h.partition == nil {
				h.partition = cut
				end(func() {
					set(func() { h.partition = nil })
					close(cut)
				})
			}
		})
	case "delay":
		set(func() { h.latency = e.last / 2 })
		end(func() { set(func() { h.latency = 0 }) })
	case "step clock":
		set(func() { h.wall += e.last*100 - 2000*time.Second })
	case "kill bridge":
		h.killBridge(e.last / 20)
	case "lose host":
		h.reset()
	case "stuck fence":
		set(func() { h.stuck = true })
		end(func() { set(func() { h.stuck = false }) })
	}
}

func (w *world) tell() string { return strings.Join(w.story, "\n") }

// TestFenceSchedules: whatever happens, the log never shows an older epoch after
// a newer one, and a claim ends by expiry only where that is enforced.
func TestFenceSchedules(t *testing.T) {
	fenced, released := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		events := schedule(rt)
		watchdog := rapid.IntRange(0, 3).Draw(rt, "watchdog") > 0
		w := play(t, events, watchdog, 0)
		if w.torn != "" {
			rt.Fatalf("%s\n%s", w.torn, w.tell())
		}
		if !watchdog && w.fenced > 0 {
			rt.Fatalf("moved where nothing enforces the expiry\n%s", w.tell())
		}
		if w.entries == 0 {
			rt.Fatalf("nobody ever wrote\n%s", w.tell())
		}
		fenced, released = fenced+w.fenced, released+w.released
	})
	// Few schedules may by chance hold no trusted expiry: a host that is cut off
	// for long always comes to one.
	for range 50 {
		if fenced > 0 {
			break
		}
		w := play(t, longPartitions(), true, 0)
		if w.torn != "" {
			t.Fatalf("%s\n%s", w.torn, w.tell())
		}
		fenced += w.fenced
	}
	t.Logf("claims ended by a trusted expiry: %d, by the bridge's word: %d", fenced, released)
	if fenced == 0 || released == 0 {
		t.Error("the schedules show nothing")
	}
}

func longPartitions() []happening {
	var events []happening
	for round := range 6 {
		events = append(events, happening{after: 20 * time.Second, kind: "partition", host: round % 2, last: 2 * time.Minute})
	}
	return events
}

// TestFenceSchedulesCanFail: the world does find a framework that does not wait
// for the watchdog, and one that moves without trust. A host is cut off while its
// fence is stuck: only the watchdog ends what runs there. It takes a while to: when
// exactly, and where the task goes, is left to chance.
func TestFenceSchedulesCanFail(t *testing.T) {
	var events []happening
	for range 6 {
		events = append(events, happening{after: 40 * time.Second, kind: "stuck fence", host: theTasks, last: 30 * time.Second},
			happening{kind: "partition", host: theTasks, last: 30 * time.Second})
	}
	for name, c := range map[string]struct {
		watchdog bool
		cheat    time.Duration
	}{
		"grace not waited for": {true, 3*simWatchdog + simMargin},
		"expiry not enforced":  {false, time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			for range 50 {
				if w := play(t, events, c.watchdog, c.cheat); w.torn != "" {
					return
				}
			}
			t.Error("not found")
		})
	}
}
