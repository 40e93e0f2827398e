package facts

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
)

// asked counts the questions about each volume, and keeps those about some from
// being answered.
type asked struct {
	getter

	mu    sync.Mutex // guards all below
	count map[string]int
	hang  map[string]bool
	fail  map[string]error
}

func (a *asked) Status(ctx context.Context, key ledger.Key) (map[string]any, error) {
	a.mu.Lock()
	a.count[key.Volume]++
	hangs, err := a.hang[key.Volume], a.fail[key.Volume]
	a.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	return a.getter.Status(ctx, key)
}

func (a *asked) of(volume string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count[volume]
}

func (a *asked) set(change func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
}

// serveZones starts a bridge that asks about zones only, and counts that.
func serveZones(t *testing.T, retry, answer time.Duration) (*rig, *asked) {
	t.Helper()
	a := &asked{count: map[string]int{}, hang: map[string]bool{}, fail: map[string]error{}}
	r := serveBoard(t, func(_ *ServerConfig, b *BoardConfig) {
		a.getter = b.Getter.(getter)
		b.Getter, b.Replicas, b.Answer = a, retry, answer
	}, func(b *Board) {
		b.replicas.mute["folders"] = time.Now().Add(24 * time.Hour)
	})
	return r, a
}

func (r *rig) zoneBecomes(volume, zone string) {
	r.t.Helper()
	r.facts(func(f *client.Facts) bool { return volumeIn(f, volume) != nil && volumeIn(f, volume).Zone == zone })
}

// The zone of a mounted volume is told, asked for once, and forgotten with the
// mount.
func TestZoneOfAMountedVolume(t *testing.T) {
	r, a := serveZones(t, time.Hour, time.Minute)
	r.driver.set(func() { r.driver.status = map[string]any{"availabilityZone": "eu-1a", "zone": "other"} })
	if err := r.mount("v"); err != nil {
		t.Fatal(err)
	}
	r.zoneBecomes("v", "eu-1a")
	r.uses(map[ledger.Key][]Container{keyV: {{ID: "c1"}}}) // looks again
	r.facts(func(f *client.Facts) bool { return len(volumeIn(f, "v").GetContainers()) == 1 })
	if n := a.of("v"); n != 1 {
		t.Errorf("asked %d times", n)
	}
	r.driver.set(func() { r.driver.status = map[string]any{"zone": "eu-1b"} })
	if err := r.unmount("v"); err != nil {
		t.Fatal(err)
	}
	r.facts(func(f *client.Facts) bool {
		return volumeIn(f, "v").GetState() == client.Volume_NONE && volumeIn(f, "v").GetZone() == ""
	})
	if err := r.mount("v"); err != nil {
		t.Fatal(err)
	}
	r.zoneBecomes("v", "eu-1b")
}

// A driver that does not answer, or refuses, has nobody wait: everything else of
// the volume is told, and its zone as soon as there is an answer.
func TestZoneOfADriverThatDoesNotAnswer(t *testing.T) {
	for name, prevent := range map[string]func(a *asked, yes bool){
		"hangs": func(a *asked, yes bool) { a.hang["v"] = yes },
		"refuses": func(a *asked, yes bool) {
			a.fail["v"] = nil
			if yes {
				a.fail["v"] = errors.New("no")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, a := serveZones(t, 10*time.Millisecond, 50*time.Millisecond)
			a.set(func() { prevent(a, true) })
			r.driver.set(func() { r.driver.status = map[string]any{"zone": "z"} })
			if err := r.mount("v"); err != nil {
				t.Fatal(err)
			}
			r.facts(func(f *client.Facts) bool {
				v := volumeIn(f, "v")
				return v.GetState() == client.Volume_MOUNTED && v.Zone == "" && a.of("v") > 1
			})
			a.set(func() { prevent(a, false) })
			r.zoneBecomes("v", "z")
		})
	}
}

// The board tells of changes while a question hangs for as long as it may.
func TestQuestionForAZoneBlocksNothing(t *testing.T) {
	r, a := serveZones(t, time.Hour, time.Hour)
	a.set(func() { a.hang["v"] = true })
	if err := r.mount("v"); err != nil {
		t.Fatal(err)
	}
	await(r, func() (int, error) { return a.of("v"), nil }, func(n int) bool { return n == 1 })
	if err := r.mount("w"); err != nil {
		t.Fatal(err)
	}
	r.facts(func(f *client.Facts) bool { return volumeIn(f, "w").GetState() == client.Volume_MOUNTED })
	if err := r.unmount("v"); err != nil {
		t.Fatal(err)
	}
	r.facts(func(f *client.Facts) bool { return volumeIn(f, "v").GetState() == client.Volume_NONE })
}

// What a driver says in other ways is no zone.
func TestZoneIn(t *testing.T) {
	for _, test := range []struct {
		status map[string]any
		want   string
	}{
		{nil, ""},
		{map[string]any{"availabilityZone": "a"}, "a"},
		{map[string]any{"zone": " b "}, "b"},
		{map[string]any{"availabilityZone": "a", "zone": "b"}, "a"},
		{map[string]any{"availabilityZone": "", "zone": "b"}, "b"},
		{map[string]any{"availabilityZone": 7.0, "zone": "  "}, ""},
		{map[string]any{"availabilityZone": []any{"a"}, "zone": map[string]any{}}, ""},
		{map[string]any{"region": "r"}, ""},
		{map[string]any{"availabilityZone": strings.Repeat("x", 257), "zone": strings.Repeat("y", 256)}, strings.Repeat("y", 256)},
	} {
		if got := zoneIn(test.status); got != test.want {
			t.Errorf("%v: %q, want %q", test.status, got, test.want)
		}
	}
}
