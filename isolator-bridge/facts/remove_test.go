package facts

import (
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
)

// What is mounted, named by a container or claimed by somebody newer is not
// removed; afterwards nothing mounts it under the old epoch, and the driver was
// asked once.
func TestRemoveOnlyWhatNobodyUses(t *testing.T) {
	r := serve(t, nil)
	c := r.client()
	if f := r.facts(func(f *client.Facts) bool { return f.Capabilities != nil }); !f.Capabilities.Removal {
		t.Error("the bridge does not say that it removes")
	}
	if _, err := c.Register(r.context(), &client.RegisterRequest{FrameworkId: "f", Volume: nameV, Epoch: 2}); err != nil {
		t.Fatal(err)
	}
	if err := r.mount("v", "dvdi.epoch=2"); err != nil {
		t.Fatal(err)
	}
	remove := func(framework string, epoch uint64, want codes.Code, removed bool) {
		t.Helper()
		out, err := c.Remove(r.context(), &client.RemoveRequest{FrameworkId: framework, Volume: nameV, Epoch: epoch})
		if status.Code(err) != want || err == nil && (out.Removed != removed || out.Removed != (out.Reason == "")) {
			t.Errorf("%s %d: %v, %v; want removed %v, %s", framework, epoch, out, err, removed, want)
		}
	}
	did := func(want ...string) {
		t.Helper()
		r.driver.set(func() {
			if !slices.Equal(r.driver.removed, want) {
				t.Errorf("removed %q, want %q", r.driver.removed, want)
			}
		})
	}
	remove("", 2, codes.InvalidArgument, false)
	remove("f", 1, codes.FailedPrecondition, false)     // a newer epoch is registered
	remove("other", 9, codes.FailedPrecondition, false) // it is another framework's
	remove("f", 2, codes.OK, false)                     // mounted
	if err := r.unmount("v"); err != nil {
		t.Fatal(err)
	}
	remove("f", 2, codes.OK, false) // the agent tells nothing
	r.uses(map[ledger.Key][]Container{keyV: {{ID: "c1"}}})
	remove("f", 2, codes.OK, false) // a container is left
	did()

	r.driver.set(func() { r.driver.keep = &volume.Error{Kind: volume.Refused, Message: "it has snapshots"} })
	r.uses(nil)
	remove("f", 2, codes.FailedPrecondition, false)
	r.driver.set(func() { r.driver.keep = &volume.Error{Kind: volume.DriverUnreachable, Message: "connection refused"} })
	remove("f", 2, codes.OK, false) // asked anew: the look at containers was before
	r.uses(nil)
	remove("f", 2, codes.Unavailable, false)
	remove("f", 2, codes.OK, false)
	did()

	r.driver.set(func() { r.driver.keep = nil })
	r.uses(nil)
	remove("f", 2, codes.OK, true)
	did("v")
	r.driver.set(func() { r.driver.keep = &volume.Error{Kind: volume.NotFound, Message: "no such volume"} })
	remove("f", 2, codes.OK, false)
	r.uses(nil)
	remove("f", 2, codes.OK, true) // as after an answer that was lost
	did("v")
}

// The token alone gives no right to data: what a framework never had registered
// on this host, or what another registers meanwhile, it cannot have removed.
func TestRemoveNeedsARegistration(t *testing.T) {
	r := serve(t, nil)
	c := r.client()
	remove := func(framework string, epoch uint64, want codes.Code) {
		t.Helper()
		for range 2 { // the first look at containers was before the withdrawal
			r.uses(nil)
			out, err := c.Remove(r.context(), &client.RemoveRequest{FrameworkId: framework, Volume: nameV, Epoch: epoch})
			if err == nil && out.Reason != "" {
				continue
			}
			if status.Code(err) != want {
				t.Errorf("%s %d: %v, %v; want %s", framework, epoch, out, err, want)
			}
			return
		}
		t.Errorf("%s %d: not answered", framework, epoch)
	}
	r.uses(nil)
	remove("stranger", 1, codes.FailedPrecondition)
	remove("stranger", 2, codes.FailedPrecondition) // what it withdrew does not count
	if _, err := c.Register(r.context(), &client.RegisterRequest{FrameworkId: "f", Volume: nameV, Epoch: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Withdraw(r.context(), &client.WithdrawRequest{FrameworkId: "f", Volume: nameV, Epoch: 1}); err != nil {
		t.Fatal(err)
	}
	remove("stranger", 1, codes.FailedPrecondition) // it is f's, though withdrawn
	r.driver.set(func() {
		if len(r.driver.removed) != 0 {
			t.Errorf("removed %q", r.driver.removed)
		}
	})
	remove("f", 2, codes.OK) // its last epoch was mounted on another host
}
