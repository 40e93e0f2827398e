package main

import (
	"context"
	"errors"
	"fmt"
	"os"
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

// An agent's dvdcli is killed before its Mount reaches a plugin that counts, while
// another agent has the volume: the plugin gets one Unmount for its one Mount,
// whoever unmounts first.
func TestMountThatNeverReachedThePlugin(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	for _, lostIsFirst := range []bool{true, false} {
		t.Run(fmt.Sprint("its agent is first ", lostIsFirst), func(t *testing.T) {
			p := volumetest.StartProcess(t, volumetest.Config{Bind: true, Counting: volumetest.CountCalls})
			other := newBox(t, p.PluginDir())
			lost := other.with("DVDCLI_RUN_DIR", filepath.Join(other.dir, "run2")).with("DVDCLI_STATE_DIR", filepath.Join(other.dir, "state2"))
			other.must(mountArgs(p, "v")...)
			if out := lost.with("DVDCLI_FAULT", "intent").run(mountArgs(p, "v", "--call-timeout=3s", "--call-margin=100ms")...); !out.killed {
				t.Fatalf("not killed: %+v", out)
			}
			boxes := []*box{other, lost}
			if lostIsFirst {
				boxes = []*box{lost, other}
			}
			boxes[0].must(unmountArgs(p, "v")...)
			if lostIsFirst && stackedAt(t, p.Mountpoint("v")) != 1 {
				t.Error("the other agent's mount is gone")
			}
			boxes[1].must(unmountArgs(p, "v")...)
			expect(t, p, "v", 1, 1)
			other.nothingMounted(p)
		})
	}
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
