package main

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// forceDetach takes the volume from every node that has it. It needs none of
// their plugins. Where the mount is on this machine it is cut off and
// unmounted; on another machine nothing can be done from here, so the caller
// must be certain that the node is lost: if it is not, two nodes write.
func (s *store) forceDetach(ctx context.Context, volume string) (freed []attachment, err error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	err = s.update(ctx, volume, func(r *record) error {
		for _, a := range slices.Clone(r.Attachments) {
			if a.BootID == boot {
				if err := s.cutOff(r, a); err != nil {
					return fmt.Errorf("volume %q on node %q: %w", volume, a.Node, err)
				}
			}
			event := attachEvent{Event: eventForce, Volume: r.Name, Node: a.Node, Epoch: a.Epoch, Reason: "operator"}
			if err := s.log.append(ctx, event); err != nil {
				return err
			}
			r.drop(a.Node)
			if err := s.save(r); err != nil {
				return err
			}
			freed = append(freed, a)
		}
		return nil
	})
	return freed, err
}

// cutOff ends an attachment on this machine: nobody who still has the
// volume's files open may write to them. That can be done for images; a
// directory only disappears from the mount table.
func (s *store) cutOff(r *record, a attachment) error {
	if r.Kind != kindImage {
		return clearTarget(a.Mountpoint, unix.MNT_DETACH)
	}
	image := s.image(r.Name)
	mounted, err := mountedFrom(a.Mountpoint, image)
	if err != nil {
		return err
	}
	if mounted {
		if err := fenceImage(a.Mountpoint); err != nil {
			return err
		}
		r.Fenced = append(r.Fenced, a.Device)
		// Saved before the unmount: afterwards nobody could find the mount
		// to fence it.
		if err := s.save(r); err != nil {
			return err
		}
	}
	if err := clearTarget(a.Mountpoint, unix.MNT_DETACH); err != nil {
		return err
	}
	devices, err := loopsOf(image)
	if err != nil {
		return err
	}
	for _, device := range devices {
		if !slices.Contains(r.Fenced, device) {
			return fmt.Errorf("%s is still in use through %s by a mount in another mount namespace; stop who has it and try again", image, device)
		}
	}
	return nil
}
