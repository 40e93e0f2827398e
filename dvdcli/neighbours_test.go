package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/mesos-dvdi/dvdi/internal/volume/volumetest"
)

// Two agents of one host mount and unmount one volume in any order: what is
// printed is mounted until its own unmount, with a driver that keeps no account
// of who has it, too.
func TestTwoAgentsOfAHost(t *testing.T) {
	p := mountingPlugin(t)
	first := newBox(t, p.PluginDir())
	second := first.with("DVDCLI_RUN_DIR", filepath.Join(first.dir, "run2")).
		with("DVDCLI_STATE_DIR", filepath.Join(first.dir, "state2"))
	rounds := 20
	if long() {
		rounds = 200
	}
	agents, ctx := errgroup.WithContext(t.Context())
	for _, b := range []*box{first, second} {
		agents.Go(func() error { return mountAndUnmount(ctx, t, b, p, rounds) })
	}
	if err := agents.Wait(); err != nil {
		t.Error(err)
	}
	for _, b := range []*box{first, second} {
		b.must("ledger", "repair", "--yes") // an unmount may be owed by whoever was last
	}
	first.nothingMounted(p)
}

func mountAndUnmount(ctx context.Context, t *testing.T, b *box, p *volumetest.Plugin, rounds int) error {
	for range rounds {
		if ctx.Err() != nil {
			return nil
		}
		mounted := b.run(mountArgs(p, "v")...)
		if mounted.code != 0 {
			return fmt.Errorf("mount: %+v", mounted)
		}
		if stackedAt(t, p.Mountpoint("v")) != 1 {
			return errors.New("the path is printed and not mounted: " + mounted.stdout + mounted.stderr)
		}
		if out := b.run(unmountArgs(p, "v")...); out.code != 0 {
			return fmt.Errorf("unmount: %+v", out)
		}
	}
	return nil
}
