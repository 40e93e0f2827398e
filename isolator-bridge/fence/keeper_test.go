package fence_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/bubbletest"
	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/fence"
)

// dogBook notes what a Keeper does to its watchdog.
type dogBook struct {
	mu     sync.Mutex // guards all below
	armed  bool
	feeds  int
	refuse error
}

func (d *dogBook) Arm(t time.Duration) (time.Duration, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refuse != nil {
		return 0, d.refuse
	}
	d.armed = true
	return t + time.Second, nil
}
func (d *dogBook) Feed() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.feeds++
	return d.refuse
}
func (d *dogBook) Disarm() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.armed = false
	return nil
}

func (d *dogBook) look() (armed bool, feeds int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.armed, d.feeds
}

// slowTarget fences when it is let.
type slowTarget struct{ let chan struct{} }

func (s slowTarget) Fence(ctx context.Context, _ fence.Claim) error {
	select {
	case <-s.let:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
func (slowTarget) Fenced(context.Context, fence.Claim) error { return nil }

// inBubble runs a Keeper in made-up time.
func inBubble(t *testing.T, change func(*fence.Config), test func(k *fence.Keeper, let chan struct{})) {
	t.Helper()
	dir := t.TempDir()
	bubbletest.Test(t, func(t *testing.T) {
		start := time.Now()
		led, err := ledger.Open(ledger.Config{RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state"), Clock: ledger.Clock{
			BootID:    func() (string, error) { return "boot", nil },
			SinceBoot: func() (time.Duration, error) { return time.Hour + time.Since(start), nil }}})
		if err != nil {
			t.Fatal(err)
		}
		let := make(chan struct{})
		cfg := fence.Config{Store: led, Target: slowTarget{let}, WatchdogTimeout: 9 * time.Second, Margin: 5 * time.Second}
		change(&cfg)
		k, err := fence.NewKeeper(cfg)
		if err != nil && !errors.Is(err, volume.BadRecord) {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- k.Run(ctx) }()
		test(k, let)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

var leased = ledger.Registration{Driver: "d", Volume: "v", Framework: "f", Epoch: 3, Lease: 30 * time.Second}

// The watchdog runs from before the lease, is fed while that holds, starves
// when it is over, and is stopped when nothing is left to fence.
func TestWatchdogIsFedOnlyWhileTheLeaseHolds(t *testing.T) {
	dog := &dogBook{}
	inBubble(t, func(c *fence.Config) { c.Watchdog = dog }, func(k *fence.Keeper, let chan struct{}) {
		terms, err := k.Grant(leased)
		if err != nil || !terms.Trusted || terms.Grace != 3*10*time.Second+5*time.Second || terms.Lease != leased.Lease {
			t.Fatalf("%+v, %v", terms, err)
		}
		if armed, _ := dog.look(); !armed {
			t.Fatal("not armed before the lease was granted")
		}
		time.Sleep(29 * time.Second)
		bubbletest.Wait()
		if _, feeds := dog.look(); feeds < 10 {
			t.Errorf("fed %d times", feeds)
		}
		if terms, err = k.Renew("f", leased.Key(), 3, terms.Basis); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second) // the basis was that of the grant: nothing was won
		bubbletest.Wait()
		_, over := dog.look()
		time.Sleep(20 * time.Second)
		bubbletest.Wait()
		if armed, feeds := dog.look(); !armed || feeds != over {
			t.Errorf("armed %v, fed %d times after the lease was over", armed, feeds-over)
		}
		if _, err := k.Renew("f", leased.Key(), 3, terms.Basis); !errors.Is(err, fence.ErrOver) {
			t.Errorf("renewed after its end: %v", err)
		}
		if now, _ := k.Terms(leased.Key()); now.State != fence.Fencing {
			t.Errorf("%+v", now)
		}
		next := leased
		next.Epoch = 4
		if _, err := k.Grant(next); !errors.Is(err, fence.ErrFencing) {
			t.Errorf("granted while the old epoch is being fenced: %v", err)
		}
		close(let)
		time.Sleep(time.Second)
		bubbletest.Wait()
		if now, _ := k.Terms(leased.Key()); now.State != fence.Fenced {
			t.Errorf("%+v", now)
		}
		if armed, _ := dog.look(); armed {
			t.Error("still armed with nothing left to fence")
		}
		if _, err := k.Grant(next); err != nil {
			t.Error(err)
		}
	})
}

// A lease without anything that enforces it says so, as does one whose watchdog
// fails later.
func TestTrustIsEarned(t *testing.T) {
	broken := errors.New("no such device")
	for name, c := range map[string]struct {
		change  func(*fence.Config)
		trusted bool
		grace   time.Duration
	}{
		"nothing":         {func(*fence.Config) {}, false, 0},
		"broken watchdog": {func(c *fence.Config) { c.Watchdog = &dogBook{refuse: broken} }, false, 0},
		"revoking":        {func(c *fence.Config) { c.Revoking = map[string]bool{"d": true} }, true, 5 * time.Second},
		"other revoking":  {func(c *fence.Config) { c.Revoking = map[string]bool{"e": true} }, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, c.change, func(k *fence.Keeper, _ chan struct{}) {
				terms, err := k.Grant(leased)
				if err != nil || terms.Trusted != c.trusted || terms.Grace != c.grace || terms.Reason == "" {
					t.Errorf("%+v, %v", terms, err)
				}
			})
		})
	}
	dog := &dogBook{}
	inBubble(t, func(c *fence.Config) { c.Watchdog = dog }, func(k *fence.Keeper, _ chan struct{}) {
		terms, err := k.Grant(leased)
		if err != nil || !terms.Trusted {
			t.Fatalf("%+v, %v", terms, err)
		}
		dog.mu.Lock()
		dog.refuse = broken
		dog.mu.Unlock()
		time.Sleep(5 * time.Second)
		bubbletest.Wait()
		if now, _ := k.Terms(leased.Key()); now.Trusted {
			t.Error("trusted with a watchdog that cannot be fed")
		}
		dog.mu.Lock()
		dog.refuse = nil
		dog.mu.Unlock()
	})
}

// What a renewal wins counts from its basis; a strange basis wins nothing, and a
// repeated registration neither.
func TestRenewalCountsFromItsBasis(t *testing.T) {
	inBubble(t, func(*fence.Config) {}, func(k *fence.Keeper, _ chan struct{}) {
		first, err := k.Grant(leased)
		if err != nil {
			t.Fatal(err)
		}
		for _, strange := range [][]byte{nil, []byte("x"), append([]byte{0x7f}, first.Basis[1:]...), append(append([]byte{}, first.Basis[:8]...), 1, 2, 3, 4, 5, 6, 7, 8)} {
			if _, err := k.Renew("f", leased.Key(), 3, strange); !errors.Is(err, fence.ErrBasis) {
				t.Errorf("basis %x: %v", strange, err)
			}
		}
		for _, wrong := range []struct {
			framework string
			epoch     uint64
		}{{"g", 3}, {"f", 2}, {"f", 4}} {
			if _, err := k.Renew(wrong.framework, leased.Key(), wrong.epoch, first.Basis); !errors.Is(err, fence.ErrNoLease) {
				t.Errorf("%+v: %v", wrong, err)
			}
		}
		time.Sleep(20 * time.Second)
		again, err := k.Grant(leased) // a message that came twice
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Renew("f", leased.Key(), 3, again.Basis); err != nil {
			t.Fatal(err)
		}
		time.Sleep(29 * time.Second)
		if now, _ := k.Terms(leased.Key()); now.State != fence.Holding {
			t.Errorf("%+v", now)
		}
		time.Sleep(2 * time.Second)
		bubbletest.Wait()
		if now, _ := k.Terms(leased.Key()); now.State != fence.Fencing {
			t.Errorf("%+v", now)
		}
	})
}

// A registration without a lease ends that of an older epoch once it is written
// down, and not before: it may come to nothing. The epoch that has the lease
// keeps it, and one that is over is fenced first.
func TestRegistrationWithoutALease(t *testing.T) {
	inBubble(t, func(*fence.Config) {}, func(k *fence.Keeper, let chan struct{}) {
		if _, err := k.Grant(leased); err != nil {
			t.Fatal(err)
		}
		without := leased
		without.Lease = 0
		if _, err := k.Grant(without); !errors.Is(err, fence.ErrLeased) {
			t.Errorf("the epoch loses its lease: %v", err)
		}
		without.Epoch++
		terms, err := k.Grant(without)
		if err != nil {
			t.Fatal(err)
		}
		if _, held := k.Terms(leased.Key()); !held {
			t.Error("the old lease is gone before the registration is written down")
		}
		k.Registered(terms)
		if _, held := k.Terms(leased.Key()); held {
			t.Error("the old lease goes on")
		}
		again := leased
		again.Epoch += 2
		if _, err := k.Grant(again); err != nil {
			t.Fatal(err)
		}
		k.Registered(terms) // of before
		if _, held := k.Terms(leased.Key()); !held {
			t.Error("a registration of before ended the new lease")
		}
		time.Sleep(leased.Lease)
		bubbletest.Wait()
		without.Epoch += 2
		if _, err := k.Grant(without); !errors.Is(err, fence.ErrFencing) {
			t.Errorf("registered while the old epoch is being fenced: %v", err)
		}
		close(let)
		time.Sleep(time.Second)
		bubbletest.Wait()
		if _, err := k.Grant(without); err != nil {
			t.Error(err)
		}
	})
}

// A registration that comes to nothing leaves the lease of before in force, to be
// renewed or to end, with its watchdog.
func TestFailedRegistrationRestoresTheLease(t *testing.T) {
	dog := &dogBook{}
	inBubble(t, func(c *fence.Config) { c.Watchdog = dog }, func(k *fence.Keeper, let chan struct{}) {
		first, err := k.Grant(leased)
		if err != nil {
			t.Fatal(err)
		}
		next := leased
		next.Epoch++
		terms, err := k.Grant(next)
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Unregistered(terms); err != nil {
			t.Fatal(err)
		}
		if err := k.Unregistered(terms); err != nil { // it has nothing more to say
			t.Fatal(err)
		}
		if _, err := k.Renew("f", leased.Key(), leased.Epoch, first.Basis); err != nil {
			t.Errorf("the lease of before cannot be renewed: %v", err)
		}
		if _, err := k.Renew("f", leased.Key(), next.Epoch, terms.Basis); !errors.Is(err, fence.ErrNoLease) {
			t.Errorf("the lease that came to nothing can: %v", err)
		}
		time.Sleep(leased.Lease + time.Second)
		bubbletest.Wait()
		if now, _ := k.Terms(leased.Key()); now.State != fence.Fencing {
			t.Errorf("not fenced: %+v", now)
		}
		if armed, _ := dog.look(); !armed {
			t.Error("the watchdog is not armed any more")
		}
		close(let)
		time.Sleep(time.Second)
		bubbletest.Wait()
		again, err := k.Grant(next)
		if err != nil {
			t.Fatal(err)
		}
		repeated, err := k.Grant(next)
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Unregistered(repeated); err != nil { // that of the repetition
			t.Fatal(err)
		}
		if _, err := k.Renew("f", leased.Key(), next.Epoch, again.Basis); err != nil {
			t.Errorf("a repetition that failed took the lease: %v", err)
		}
	})
}

// damage makes a volume mounted whose registration cannot be read.
func damage(t *testing.T, led *ledger.Ledger, key ledger.Key) {
	t.Helper()
	entry, err := led.TryLock(key)
	if err != nil {
		t.Fatal(err)
	}
	reg := leased
	reg.Volume = key.Volume
	if err := errors.Join(entry.Save(&ledger.Record{Driver: key.Driver, Volume: key.Volume, Phase: ledger.PhaseMounted, Path: "/x", MountID: "id"}),
		entry.SaveRegistration(reg), entry.Close(),
		os.WriteFile(filepath.Join(led.StateDir(), "epochs", key.FileName()+".json"), []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// The lease of a volume whose registration cannot be read is fenced when it is
// over, with its watchdog, and its epoch is not registered again.
func TestLeaseOfADamagedRegistration(t *testing.T) {
	dog := &dogBook{}
	without := ledger.Key{Driver: leased.Driver, Volume: "without"}
	inBubble(t, func(c *fence.Config) {
		led, ok := c.Store.(*ledger.Ledger)
		if !ok {
			t.Fatal("no ledger")
		}
		now, err := led.SinceBoot()
		if err != nil {
			t.Fatal(err)
		}
		damage(t, led, leased.Key())
		damage(t, led, without)
		if err := led.SaveLease(leased.Key(), leased.Epoch, now+leased.Lease); err != nil {
			t.Fatal(err)
		}
		c.Watchdog = dog
	}, func(k *fence.Keeper, let chan struct{}) {
		if _, held := k.Terms(without); held {
			t.Error("a volume without a lease has one")
		}
		time.Sleep(leased.Lease - time.Second)
		bubbletest.Wait()
		if now, _ := k.Terms(leased.Key()); now.State != fence.Holding {
			t.Errorf("before its end: %+v", now)
		}
		if armed, _ := dog.look(); !armed {
			t.Error("the watchdog does not run")
		}
		time.Sleep(2 * time.Second)
		bubbletest.Wait()
		if now, held := k.Terms(leased.Key()); !held || now.State != fence.Fencing {
			t.Errorf("not fenced: %+v", now)
		}
		close(let)
		time.Sleep(time.Second)
		bubbletest.Wait()
		if _, err := k.Grant(leased); !errors.Is(err, fence.ErrOver) {
			t.Errorf("the epoch goes on after its fence: %v", err)
		}
		next := leased
		next.Epoch++
		if _, err := k.Grant(next); err != nil {
			t.Error(err)
		}
	})
}

// superseded is a target where something else is registered.
type superseded struct{}

func (superseded) Fence(context.Context, fence.Claim) error { return fence.ErrSuperseded }
func (superseded) Fenced(context.Context, fence.Claim) error {
	panic("fenced what it must not")
}

// A lease that is over and not registered any more is forgotten: it neither
// fences nor lets the watchdog starve.
func TestSupersededLeaseEnds(t *testing.T) {
	dog := &dogBook{}
	inBubble(t, func(c *fence.Config) { c.Target, c.Watchdog = superseded{}, dog }, func(k *fence.Keeper, _ chan struct{}) {
		if _, err := k.Grant(leased); err != nil {
			t.Fatal(err)
		}
		time.Sleep(leased.Lease + time.Second)
		bubbletest.Wait()
		if now, held := k.Terms(leased.Key()); held {
			t.Errorf("%+v", now)
		}
		if armed, _ := dog.look(); armed {
			t.Error("the watchdog is armed for nothing")
		}
	})
}

// A file in place of a watchdog is no watchdog, and stays as it is.
func TestDeviceThatIsNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "watchdog")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]error{path: fence.ErrNoWatchdog, path + ".not": fs.ErrNotExist} {
		if _, err := (&fence.Device{Path: p}).Arm(time.Minute); !errors.Is(err, want) {
			t.Errorf("arming %s: %v", p, err)
		}
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "data" {
		t.Errorf("it holds %q, %v", data, err)
	}
}
