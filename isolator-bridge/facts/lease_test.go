package facts

import (
	"context"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
)

// The end of a lease, and of its fence, is told though no file changes with it.
func TestEndOfALeaseIsTold(t *testing.T) {
	r := serve(t, nil)
	ctx, cancel := context.WithCancel(r.context())
	var keeping sync.WaitGroup
	keeping.Go(func() {
		if err := r.leases.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(keeping.Wait)
	t.Cleanup(cancel)
	_, err := r.client().Register(r.context(), &client.RegisterRequest{FrameworkId: "f", Volume: nameV, Epoch: 1, Lease: durationpb.New(time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	r.facts(func(f *client.Facts) bool {
		return volumeIn(f, "v").GetRegistered().GetFence().GetState() == client.Fence_FENCED
	})
}
