package facts

import (
	"context"
	"sync"
	"time"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/isolator-bridge/client"
)

// driverBook knows the drivers of this host whose volumes may be mounted, and
// whether they answer.
type driverBook struct {
	drivers volume.Drivers
	policy  func() (*engine.Policy, error) // nil: all may be
	timeout time.Duration                  // for one driver's answer

	mu    sync.Mutex // guards known
	known []*client.Driver
}

// ask asks every driver once, all at the same time: one that hangs costs its
// time-out and nobody else's. It says whether anything changed. The policy is read
// anew, as dvdcli does; while that fails no driver mounts anything.
func (b *driverBook) ask(ctx context.Context) (changed bool, err error) {
	infos, err := b.drivers.List(ctx)
	if err != nil {
		return false, err
	}
	var policy *engine.Policy
	var policyErr error
	if b.policy != nil {
		policy, policyErr = b.policy()
	}
	fresh := make([]*client.Driver, 0, len(infos))
	seen := map[string]bool{}
	var wg sync.WaitGroup
	for _, info := range infos {
		if seen[info.Name] {
			continue // the first is the one that Open prefers
		}
		seen[info.Name] = true
		if policyErr == nil && policy.AllowsDriver(b.drivers, info.Name) != nil {
			continue
		}
		d := &client.Driver{Name: info.Name, Problem: info.Problem}
		fresh = append(fresh, d)
		if info.Problem == "" {
			wg.Go(func() { b.askOne(ctx, d) })
		}
	}
	wg.Wait()
	if policyErr != nil {
		for _, d := range fresh {
			d.Healthy, d.Problem = false, policyErr.Error()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	changed = len(fresh) != len(b.known)
	for i := 0; !changed && i < len(fresh); i++ {
		was, is := b.known[i], fresh[i]
		changed = was.Name != is.Name || was.Scope != is.Scope || was.Healthy != is.Healthy || was.Problem != is.Problem
	}
	b.known = fresh
	return changed, nil
}

func (b *driverBook) askOne(ctx context.Context, d *client.Driver) {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	driver, err := b.drivers.Open(ctx, d.Name)
	var c volume.Capabilities
	if err == nil {
		c, err = driver.Capabilities(ctx)
	}
	if err != nil {
		d.Problem = err.Error()
		return
	}
	d.Healthy, d.Scope = true, string(c.Scope)
}

// list copies what is known.
func (b *driverBook) list() []*client.Driver {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]*client.Driver, len(b.known))
	for i, d := range b.known {
		out[i] = &client.Driver{Name: text(d.Name), Scope: text(d.Scope), Healthy: d.Healthy, Problem: text(d.Problem)}
	}
	return out
}
