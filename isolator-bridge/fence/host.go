package fence

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/mesos-dvdi/dvdi/internal/volume"
	"github.com/mesos-dvdi/dvdi/internal/volume/engine"
	"github.com/mesos-dvdi/dvdi/internal/volume/ledger"
)

// Engine is what a Host needs of the volume engine.
type Engine interface {
	Ledger() *ledger.Ledger
	UnmountIf(context.Context, engine.UnmountRequest, func(*ledger.Record) error) (engine.UnmountResult, error)
	MarkFenced(ctx context.Context, key ledger.Key, epoch uint64) error
}

// HostConfig is what a Host works with. Engine and Mounts are required.
type HostConfig struct {
	Engine Engine
	Mounts volume.MountTables
	// Containers tells which containers named a volume; nil: nobody knows any.
	Containers func(ledger.Key) ([]string, error)
	// Proc is where procfs is mounted [/proc].
	Proc string
	// Cgroups is where control groups are mounted [/sys/fs/cgroup], CgroupRoot
	// the agent's --cgroups_root [mesos].
	Cgroups, CgroupRoot string
	// Wait is how long killed processes get to be gone before they count as left
	// [5s].
	Wait time.Duration
	// Drivers, if not nil, know which processes serve volumes: those are no users
	// of theirs.
	Drivers volume.Drivers
	Log     *zap.Logger
}

// Host ends the use of volumes on this host: the Target of a Keeper. It is safe
// for concurrent use.
type Host struct{ cfg HostConfig }

// NewHost makes one. It does nothing yet.
func NewHost(cfg HostConfig) *Host {
	for _, d := range []struct {
		field *string
		value string
	}{{&cfg.Proc, "/proc"}, {&cfg.Cgroups, "/sys/fs/cgroup"}, {&cfg.CgroupRoot, "mesos"}} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	if cfg.Wait <= 0 {
		cfg.Wait = 5 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Host{cfg: cfg}
}

// Fence implements Target. The users go before the mount: a driver refuses to
// unmount what is in use, and what it detaches lazily could be written on. What
// is still mounted in other namespaces after the driver unmounted is a copy that
// a container has for itself; its processes go too.
//
// Nothing is stopped for a claim that is not the registered one: who uses the
// volume then does so rightfully. While a lease is over no other claim gets
// registered, and under the volume's lock it is asked once more.
func (h *Host) Fence(ctx context.Context, c Claim) error {
	if err := h.registered(c); err != nil {
		return err
	}
	key := c.Key
	rec, err := h.cfg.Engine.Ledger().Peek(key)
	if err != nil {
		return err
	}
	if err := h.stopContainers(key); err != nil {
		return err
	}
	s, err := h.subjectOf(ctx, rec)
	if err != nil {
		return err
	}
	server := h.server(ctx, key.Driver)
	if err := h.stopUsers(ctx, s, server, false); err != nil {
		return err
	}
	// A mount that was under way until now is only found under the volume's lock.
	_, err = h.cfg.Engine.UnmountIf(ctx, engine.UnmountRequest{Driver: key.Driver, Volume: key.Volume,
		Holder: engine.Holder{Name: "fence"}, Force: true}, func(current *ledger.Record) error {
		if err := h.registered(c); err != nil {
			return err
		}
		if now, err := h.subjectOf(ctx, current); err != nil {
			return err
		} else if now != nil {
			s = now
		}
		return nil
	})
	if err != nil && !errors.Is(err, volume.NotMounted) {
		return fmt.Errorf("unmounting it: %w", err)
	}
	if err := h.stopUsers(ctx, s, server, true); err != nil {
		return err
	}
	return h.stopContainers(key)
}

// registered fails with ErrSuperseded for a claim that is not what is
// registered. A registration that cannot be read is taken for it: it had the
// lease that is over now.
func (h *Host) registered(c Claim) error {
	reg, err := h.cfg.Engine.Ledger().Registration(c.Key)
	if err != nil {
		h.cfg.Log.Warn("registered epoch not readable, fencing all the same", zap.String("driver", c.Key.Driver),
			zap.String("volume", c.Key.Volume), zap.Error(err))
		return nil
	}
	if reg.Epoch != c.Epoch || c.Framework != "" && reg.Framework != c.Framework {
		return fmt.Errorf("%w: epoch %d of framework %q", ErrSuperseded, reg.Epoch, reg.Framework)
	}
	return nil
}

// Fenced implements Target. In a registration that is damaged nothing can be
// noted, and under it nothing mounts: the fence has come to its end.
func (h *Host) Fenced(ctx context.Context, c Claim) error {
	err := h.cfg.Engine.MarkFenced(ctx, c.Key, c.Epoch)
	if errors.Is(err, volume.BadRecord) {
		h.cfg.Log.Warn("volume fenced, its registration is damaged", zap.String("driver", c.Key.Driver),
			zap.String("volume", c.Key.Volume), zap.Uint64("epoch", c.Epoch), zap.Error(err))
		return nil
	}
	return err
}

// stopContainers kills the control groups of the containers that named the
// volume, and who is in one of theirs elsewhere, and says which are left.
func (h *Host) stopContainers(key ledger.Key) error {
	if h.cfg.Containers == nil {
		return nil
	}
	ids, err := h.cfg.Containers(key)
	if err != nil {
		return fmt.Errorf("which containers use it is not known: %w", err)
	}
	return h.await(func() error {
		groups, err := h.groupsOf(ids)
		if err != nil {
			return err
		}
		for _, g := range groups {
			if err := killGroup(g); err != nil {
				return err
			}
		}
		for _, g := range groups {
			if n, err := populated(g); err != nil || n > 0 {
				return errors.Join(err, fmt.Errorf("control group %s holds %d processes", g, n))
			}
		}
		members, err := h.membersOf(ids, groups)
		if len(members) > 0 {
			err = h.kill(members)
		}
		return err
	})
}

// stopUsers kills whoever uses the subject and says who is left. With copies,
// those count whose mount namespace has it at a place of its own; from namespaces
// to which it was only handed down it is taken away, which harms nobody who does
// not use it.
func (h *Host) stopUsers(ctx context.Context, s *subject, server int, copies bool) error {
	if s == nil {
		return nil
	}
	tried := map[string]bool{} // namespaces
	return h.await(func() error {
		look := h.look(s, server, copies)
		users, err := look.all(ctx)
		if len(users) > 0 {
			err = errors.Join(err, h.kill(users))
		}
		for namespace, i := range look.inherited {
			err = errors.Join(err, errAgain, h.takeAway(namespace, i, tried))
		}
		return err
	})
}

// takeAway takes inherited mounts away. Where the kernel does not let them go, as
// those of a user namespace, what keeps them has to.
func (h *Host) takeAway(namespace string, i inheritance, tried map[string]bool) error {
	if tried[namespace] {
		return h.kill([]user{{i.pid, "mount namespace"}})
	}
	tried[namespace] = true
	if err := i.detach(); err != nil {
		return fmt.Errorf("mount namespace %s of process %d: %w", namespace, i.pid, err)
	}
	return nil
}

// errAgain asks for another look.
var errAgain = errors.New("it was mounted in another mount namespace until now")

// await repeats what says what is left until nothing is or the wait is over.
func (h *Host) await(left func() error) error {
	deadline := time.Now().Add(h.cfg.Wait)
	for {
		err := left()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}
