package facts

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/fence"
)

var (
	keyV  = ledger.Key{Driver: "folders", Volume: "v"}
	nameV = &client.VolumeName{Driver: "folders", Name: "v"}
)

func volumeIn(f *client.Facts, name string) *client.Volume {
	for _, v := range f.GetVolumes() {
		if v.Name.Name == name {
			return v
		}
	}
	return nil
}

func driverIn(f *client.Facts, name string) *client.Driver {
	for _, d := range f.GetDrivers() {
		if d.Name == name {
			return d
		}
	}
	return &client.Driver{}
}

func TestFactsOfAnAgent(t *testing.T) {
	r := serve(t, nil)
	r.driver.set(func() { r.driver.status = map[string]any{"Replicas": []any{"host.test", "other.test"}} })
	if err := r.mount("v"); err != nil {
		t.Fatal(err)
	}
	r.uses(map[ledger.Key][]Container{keyV: {{ID: "c1", TaskID: "t1", FrameworkID: "f1"}, {ID: "c0", Gone: true}}})
	f := r.facts(func(f *client.Facts) bool {
		return f.ContainersKnown && driverIn(f, "folders").Healthy && len(volumeIn(f, "v").GetReplicas()) == 2
	})
	if f.AgentId != "agent-1" || f.Hostname != "host.test" || f.Zone != "z1" || f.Labels["disk"] != "fast" || f.BridgeVersion != "v-test" ||
		!f.Capabilities.Epochs || !f.Capabilities.Leases {
		t.Errorf("%v", f)
	}
	if d := driverIn(f, "folders"); d.Scope != "global" || d.AttachLimit != 7 || d.Attached != 1 {
		t.Errorf("%v", d)
	}
	if d := driverIn(f, "broken"); d.Healthy || d.Problem == "" {
		t.Errorf("%v", d)
	}
	v := volumeIn(f, "v")
	if v.State != client.Volume_MOUNTED || len(v.Containers) != 2 || v.Containers[0].Live || !v.Containers[1].Live || v.Containers[1].TaskId != "t1" {
		t.Errorf("%v", v)
	}
	r.driver.set(func() { r.driver.down = &volume.Error{Kind: volume.DriverUnreachable, Message: "connection refused"} })
	f = r.facts(func(f *client.Facts) bool { return !driverIn(f, "folders").Healthy })
	if driverIn(f, "folders").Problem == "" {
		t.Error("no reason given")
	}
}

// Nothing is placed where the agent's policy would refuse it: a driver that is not
// allowed is not told of, and none works while the policy cannot be read. The
// policy counts as it is now.
func TestPolicyOfTheAgent(t *testing.T) {
	var policy atomic.Pointer[func() (*engine.Policy, error)]
	put := func(p *engine.Policy, err error) {
		read := func() (*engine.Policy, error) { return p, err }
		policy.Store(&read)
	}
	put(nil, nil)
	r := serve(t, func(_ *ServerConfig, b *BoardConfig) {
		b.Policy = func() (*engine.Policy, error) { return (*policy.Load())() }
	})
	r.facts(func(f *client.Facts) bool { return driverIn(f, "folders").Healthy })
	put(&engine.Policy{AllowedDrivers: []string{"other"}}, nil)
	r.facts(func(f *client.Facts) bool { return driverIn(f, "folders").Name == "" })
	put(&engine.Policy{AllowedDrivers: []string{"other", "folders:latest"}}, nil)
	r.facts(func(f *client.Facts) bool { return driverIn(f, "folders").Healthy })
	put(nil, errors.New("line 3 is no policy"))
	f := r.facts(func(f *client.Facts) bool { return !driverIn(f, "folders").Healthy })
	if d := driverIn(f, "folders"); d.Name == "" || !strings.Contains(d.Problem, "line 3") {
		t.Errorf("%v", d)
	}
}

func TestStatesOfVolumes(t *testing.T) {
	r := serve(t, nil)
	state := func(want client.Volume_State) {
		t.Helper()
		r.facts(func(f *client.Facts) bool { return volumeIn(f, "v") != nil && volumeIn(f, "v").State == want })
	}
	if err := r.mount("v"); err != nil {
		t.Fatal(err)
	}
	state(client.Volume_MOUNTED)
	r.driver.set(func() { r.driver.refuse = &volume.Error{Kind: volume.Refused, Message: "busy"} })
	if err := r.unmount("v"); err == nil {
		t.Fatal("unmounted")
	}
	state(client.Volume_PENDING)
	r.driver.set(func() { r.driver.refuse = &volume.Error{Kind: volume.Unsettled, Message: "no answer"} })
	if err := r.unmount("v"); err == nil {
		t.Fatal("unmounted")
	}
	state(client.Volume_UNSETTLED)
}

// A watcher sees everything once and then each change, and what is gone.
func TestWatch(t *testing.T) {
	r := serve(t, nil)
	ctx, cancel := context.WithCancel(r.context())
	defer cancel()
	stream, err := r.client().WatchFacts(ctx, &client.WatchFactsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil || first.Facts == nil {
		t.Fatalf("first message: %v, %v", first, err)
	}
	until := func(what string, seen func(*client.Change) bool) {
		t.Helper()
		for last := first.Revision; ; {
			c, err := stream.Recv()
			if err != nil {
				t.Fatalf("waiting for %s: %v", what, err)
			}
			if c.Revision <= last || c.Facts != nil {
				t.Fatalf("revision %d after %d, all again: %v", c.Revision, last, c.Facts != nil)
			}
			if last = c.Revision; seen(c) {
				return
			}
		}
	}
	if err := r.mount("v"); err != nil {
		t.Fatal(err)
	}
	attached := uint32(0)
	until("the mount", func(c *client.Change) bool {
		if c.Head != nil {
			attached = driverIn(c.Head, "folders").Attached
		}
		return len(c.Volumes) == 1 && c.Volumes[0].State == client.Volume_MOUNTED
	})
	if attached != 1 {
		t.Errorf("%d attached", attached)
	}
	if err := r.unmount("v"); err != nil {
		t.Fatal(err)
	}
	until("the unmount", func(c *client.Change) bool { return len(c.Gone) == 1 && c.Gone[0].Name == "v" })
	cancel()
	if _, err := stream.Recv(); status.Code(err) != codes.Canceled && !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// A watcher that is further behind than what is remembered gets everything.
func TestWatcherFarBehind(t *testing.T) {
	b := NewBoard(BoardConfig{})
	many := map[ledger.Key]*client.Volume{}
	for i := range maxGone + 1 {
		many[ledger.Key{Driver: "d", Volume: time.Duration(i).String()}] = &client.Volume{}
	}
	b.publish(&client.Facts{}, many)
	behind := b.revision
	b.publish(&client.Facts{}, map[ledger.Key]*client.Volume{keyV: {}})
	change, _ := b.since(behind)
	if change.GetFacts() == nil || len(change.Facts.Volumes) != 1 {
		t.Errorf("%v", change)
	}
}

// A claim's end: withdrawn, then nothing mounted, then the containers gone, as
// seen by a look that began after the withdrawal.
func TestWithdrawIsReleasedOnlyWhenNothingIsLeft(t *testing.T) {
	r := serve(t, nil)
	c := r.client()
	if _, err := c.Register(r.context(), &client.RegisterRequest{FrameworkId: "f", Volume: nameV, Epoch: 1}); err != nil {
		t.Fatal(err)
	}
	if err := r.mount("v", "dvdi.epoch=1"); err != nil {
		t.Fatal(err)
	}
	withdraw := func(released bool) {
		t.Helper()
		w, err := c.Withdraw(r.context(), &client.WithdrawRequest{FrameworkId: "f", Volume: nameV, Epoch: 1})
		if err != nil || w.Released != released || w.Released != (w.Reason == "") {
			t.Errorf("%v, %v; want released %v", w, err, released)
		}
	}
	withdraw(false) // mounted
	if err := r.unmount("v"); err != nil {
		t.Fatal(err)
	}
	withdraw(false) // the agent tells nothing
	r.uses(map[ledger.Key][]Container{keyV: {{ID: "c1"}}})
	withdraw(false) // a container is left
	r.board.SetUses(Uses{Known: true, Began: time.Now().Add(-time.Hour)})
	withdraw(false) // that look was before
	r.uses(nil)
	withdraw(true)
	withdraw(false) // asked anew: this look was before
	r.uses(nil)
	withdraw(true)
	if err := r.mount("v", "dvdi.epoch=1"); !errors.Is(err, volume.OutdatedEpoch) {
		t.Errorf("mounted after it was released: %v", err)
	}
}

func TestRegisterOverTheWire(t *testing.T) {
	r := serve(t, nil)
	c := r.client()
	register := func(epoch uint64, lease time.Duration) (*client.Registered, error) {
		return c.Register(r.context(), &client.RegisterRequest{FrameworkId: "f", Volume: nameV, Epoch: epoch, Lease: durationpb.New(lease)})
	}
	if _, err := register(3, 0); err != nil {
		t.Fatal(err)
	}
	_, err := register(2, 0)
	if status.Code(err) != codes.FailedPrecondition {
		t.Fatalf("an older epoch: %v", err)
	}
	details := status.Convert(err).Details()
	if len(details) != 1 {
		t.Fatalf("no details: %v", err)
	}
	if got, ok := details[0].(*client.Registered); !ok || got.Epoch != 3 {
		t.Errorf("details %v", details)
	}
	for _, lease := range []time.Duration{time.Millisecond, 48 * time.Hour, -time.Second} {
		if _, err := register(4, lease); status.Code(err) != codes.InvalidArgument {
			t.Errorf("lease %s: %v", lease, err)
		}
	}
	reg, err := register(4, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if reg.Fence.Trusted || reg.Fence.Reason == "" || len(reg.Fence.Basis) == 0 {
		t.Errorf("fence: %v", reg.Fence)
	}
	out, err := c.Renew(r.context(), &client.RenewRequest{FrameworkId: "f", Renewals: []*client.Renewal{
		{Volume: nameV, Epoch: 4, Basis: reg.Fence.Basis}, {Volume: nameV, Epoch: 3, Basis: reg.Fence.Basis}, {Volume: nameV, Epoch: 4, Basis: []byte("x")}}})
	if err != nil {
		t.Fatal(err)
	}
	if l := out.Leases; l[0].Problem != "" || l[0].Fence == nil || l[1].Problem != fence.ErrNoLease.Error() || l[1].Fence != nil ||
		l[2].Problem == "" || len(l[2].Fence.GetBasis()) == 0 {
		t.Errorf("%v", out)
	}
	f := r.facts(func(f *client.Facts) bool { return volumeIn(f, "v").GetRegistered().GetEpoch() == 4 })
	if v := volumeIn(f, "v"); v.State != client.Volume_NONE || v.Registered.Fence == nil {
		t.Errorf("%v", v)
	}
}

// A framework that calls the driver by another of its names has the same epochs
// and leases, and its mounts are under them.
func TestLeaseByAnyNameOfTheDriver(t *testing.T) {
	r := serve(t, nil)
	c := r.client()
	tagged := &client.VolumeName{Driver: nameV.Driver + ":latest", Name: nameV.Name}
	reg, err := c.Register(r.context(), &client.RegisterRequest{FrameworkId: "f", Volume: tagged, Epoch: 4, Lease: durationpb.New(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.mount("v", "dvdi.epoch=4", "dvdi.lease=true"); err != nil {
		t.Error(err)
	}
	for _, name := range []*client.VolumeName{tagged, nameV} {
		out, err := c.Renew(r.context(), &client.RenewRequest{FrameworkId: "f", Renewals: []*client.Renewal{{Volume: name, Epoch: 4, Basis: reg.Fence.Basis}}})
		if err != nil || out.Leases[0].Problem != "" || out.Leases[0].Volume.GetDriver() != name.Driver {
			t.Errorf("%v: %v %v", name, out, err)
		}
	}
	if out, err := c.Withdraw(r.context(), &client.WithdrawRequest{FrameworkId: "f", Volume: tagged, Epoch: 4}); err != nil || out.Released {
		t.Errorf("mounted: %v %v", out, err)
	}
}

// However often an epoch is registered, its lease keeps the length of the first
// time, on disk too.
func TestLeaseKeepsItsLength(t *testing.T) {
	r := serve(t, nil)
	c := r.client()
	for _, lease := range []time.Duration{time.Minute, 2 * time.Second} {
		reg, err := c.Register(r.context(), &client.RegisterRequest{FrameworkId: "f", Volume: nameV, Epoch: 4, Lease: durationpb.New(lease)})
		if err != nil || reg.Fence.Lease.AsDuration() != time.Minute {
			t.Errorf("%v, %v", reg, err)
		}
		if kept, err := r.engine.Ledger().Registration(keyV); err != nil || kept.Lease != time.Minute {
			t.Errorf("%+v, %v", kept, err)
		}
	}
}

// oddDrivers has one whose file's name is not UTF-8.
type oddDrivers struct{ drivers }

func (oddDrivers) List(context.Context) ([]volume.DriverInfo, error) {
	return []volume.DriverInfo{{Name: "folders"}, {Name: "bad\xff", Problem: "\xfe"}}, nil
}

// A name that is not UTF-8 keeps nothing from being told.
func TestNamesThatAreNoText(t *testing.T) {
	r := serve(t, func(_ *ServerConfig, b *BoardConfig) { b.Drivers = oddDrivers{b.Drivers.(drivers)} })
	f := r.facts(func(f *client.Facts) bool { return len(f.Drivers) == 2 })
	if f.Drivers[1].Name != "bad\uFFFD" || f.Drivers[1].Problem != "\uFFFD" {
		t.Errorf("%v", f.Drivers)
	}
}

// A registration with a lease that comes to nothing leaves no lease behind.
func TestFailedRegistrationLeavesNoLease(t *testing.T) {
	r := serve(t, nil)
	c := r.client()
	for _, epoch := range []uint64{5, 4} {
		_, err := c.Register(r.context(), &client.RegisterRequest{FrameworkId: "f", Volume: nameV, Epoch: epoch, Lease: durationpb.New(time.Minute)})
		if (err == nil) != (epoch == 5) {
			t.Fatal(err)
		}
	}
	if _, err := r.leases.Renew("f", keyV, 5, nil); errors.Is(err, fence.ErrNoLease) {
		t.Error("the refused registration took the lease of the one in force")
	}
}
